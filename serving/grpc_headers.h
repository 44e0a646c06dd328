/* serving/grpc_headers.h - what the headers of a request say, and whether that alone refuses the call.
 *
 * Headers come one by one, in any order and from anybody, and none of them is trusted: sizes are only counted
 * (over the limit the call is refused, not the memory grown), unknown names are nobody's business, of a name
 * that comes twice the last one holds. When all are there, slu_grpc_headers_check() refuses what can be
 * refused before a byte of the message came.
 *
 * Pure but for the look-up of the route. Owns nothing. @thread the loop's */
#pragma once
#include "serving/grpc_routes.h"

enum { SLU_GRPC_PATH = 128, SLU_GRPC_WHY = 256 };

typedef struct slu_grpc_headers {
    slu_grpc_route *route; /* NULL: no :path yet, or no such method */
    uint32_t bytes;        /* names and values plus 32 each, as HTTP/2 counts; UINT32_MAX: that or more */
    bool post;
    bool grpc;                /* content-type is gRPC's ... */
    bool subtype;             /* ... but with messages in something else than protobuf */
    bool identity;            /* messages are not compressed */
    bool bad_timeout;         /* grpc-timeout is no time */
    int64_t deadline_us;      /* INT64_MAX: none */
    char path[SLU_GRPC_PATH]; /* for messages; cut */
} slu_grpc_headers;

/* |h| is zeroed. */
void slu_grpc_headers_begin(slu_grpc_headers *h);
/* One more, at |now_us|. */
void slu_grpc_headers_take(slu_grpc_headers *h, const slu_grpc_routes *routes, int64_t now_us,
                           const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len);
/* All are there. Returns 0, or the status that ends the call, |why| telling the client. What is not sent with
 * POST as gRPC is nobody's call: its route is NULL then. */
int slu_grpc_headers_check(slu_grpc_headers *h, uint32_t max_bytes, int64_t now_us, char why[SLU_GRPC_WHY]);
/* The HTTP status of a call that ends with its first answer; |whole|: all headers are there. */
const char *slu_grpc_headers_http(const slu_grpc_headers *h, bool whole);
