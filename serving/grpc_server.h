/* serving/grpc_server.h - the gRPC wire protocol (HTTP/2 by nghttp2) with handlers that see only messages.
 *
 * One event loop per thread, each with its own listener on the same port (SO_REUSEPORT) and its own
 * connections: nothing is shared on the way of a request, unless its handler lets idle threads help
 * (serving/crew.h). Handlers run on the loop thread that read the request and must not block. Limits (message
 * size, streams, connections, header bytes) come from slu_serving_opts; what is over a limit gets a gRPC
 * status and a readable message, never a crash.
 *
 * With opts->tls_certificate it speaks TLS (serving/tls.h), else plain HTTP/2 with prior knowledge.
 *
 * Health (grpc.health.v1, Check and Watch) and reflection (grpc.reflection.v1 and v1alpha) are built in. */
#pragma once
#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/options.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* gRPC status codes (https://grpc.io, "Status codes and their use in gRPC"). */
typedef enum slu_grpc_status {
    SLU_GRPC_OK = 0,
    SLU_GRPC_CANCELLED = 1,
    SLU_GRPC_UNKNOWN = 2,
    SLU_GRPC_INVALID_ARGUMENT = 3,
    SLU_GRPC_DEADLINE_EXCEEDED = 4,
    SLU_GRPC_NOT_FOUND = 5,
    SLU_GRPC_RESOURCE_EXHAUSTED = 8,
    SLU_GRPC_FAILED_PRECONDITION = 9,
    SLU_GRPC_UNIMPLEMENTED = 12,
    SLU_GRPC_INTERNAL = 13,
    SLU_GRPC_UNAVAILABLE = 14,
} slu_grpc_status;

struct slu_crew;

/* One unary call, as a handler sees it. */
typedef struct slu_grpc_call {
    const uint8_t *request; /* (request_len) the message without its 5-byte prefix */
    size_t request_len;
    int64_t deadline_us;   /* monotonic clock; INT64_MAX: none */
    int64_t received_us;   /* monotonic clock, when the request was complete */
    slu_arena *arena;      /* emptied after the call: for unpacking and scratch */
    slu_buf *response;     /* empty; the handler appends the packed response message */
    char message[512];     /* readable text for a status other than OK */
    uint32_t thread;       /* index of the loop thread, 0..threads-1: picks per-thread scratch */
    struct slu_crew *crew; /* of the loop threads, each a member by its index (serving/crew.h); NULL: none */
} slu_grpc_call;

typedef slu_grpc_status (*slu_grpc_handler)(void *ctx, slu_grpc_call *call);

typedef struct slu_grpc_method {
    const char *path; /* "/sluice.v1.Scoring/Score" */
    slu_grpc_handler handler;
    void *ctx;
} slu_grpc_method;

typedef struct slu_grpc_server slu_grpc_server;

/* Listens and starts the threads. |methods| ends with a NULL path and is copied. Returns 0, SLU_EIO (port
 * taken ...), SLU_EINVAL. */
int slu_grpc_server_start(const slu_serving_opts *opts, const slu_grpc_method *methods, slu_grpc_server **sp,
                          slu_error *err);
int slu_grpc_server_port(const slu_grpc_server *s);
/* Health status of "" and of every service: SERVING or NOT_SERVING; watchers are told. @thread any */
void slu_grpc_server_set_serving(slu_grpc_server *s, bool serving);
/* Certificates that have changed are loaded for new connections: at once when |now|, else when the files have
 * stood still since the last call. Call it every few seconds. Returns true when a new one is in use; false
 * without TLS. @thread one */
bool slu_grpc_server_refresh_tls(slu_grpc_server *s, bool now);
/* GOAWAY to all, finish what runs, at most |timeout_us|; then closes. Returns the number of calls cut off. */
uint32_t slu_grpc_server_drain(slu_grpc_server *s, int64_t timeout_us);
void slu_grpc_server_free(slu_grpc_server *s);
