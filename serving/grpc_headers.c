#include "serving/grpc_headers.h"
#include "serving/grpc_timeout.h"
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void slu_grpc_headers_begin(slu_grpc_headers *h)
{
    h->identity = true;
    h->deadline_us = INT64_MAX;
}

static bool is(const uint8_t *p, size_t n, const char *text)
{
    return n == strlen(text) && !memcmp(p, text, n);
}

static bool starts(const uint8_t *p, size_t n, const char *text)
{
    return n >= strlen(text) && !memcmp(p, text, strlen(text));
}

/* "application/grpc", alone or with "+proto" or parameters. grpc-web is another protocol, other codecs are
 * gRPC that we cannot read. */
static void note_content_type(slu_grpc_headers *h, const uint8_t *v, size_t n)
{
    static const char base[] = "application/grpc";
    h->grpc = starts(v, n, base) &&
              (n == sizeof base - 1 || v[sizeof base - 1] == '+' || v[sizeof base - 1] == ';');
    if (!h->grpc || n == sizeof base - 1 || v[sizeof base - 1] == ';')
        return;
    v += sizeof base - 1;
    n -= sizeof base - 1;
    h->subtype = !(starts(v, n, "+proto") && (n == 6 || v[6] == ';'));
}

static void note_path(slu_grpc_headers *h, const slu_grpc_routes *routes, const uint8_t *v, size_t n)
{
    size_t keep = n < sizeof h->path ? n : sizeof h->path - 1;
    memcpy(h->path, v, keep);
    h->path[keep] = 0;
    h->route = slu_grpc_routes_find(routes, v, n);
}

static void note_timeout(slu_grpc_headers *h, int64_t now_us, const uint8_t *v, size_t n)
{
    int64_t us;
    if (slu_grpc_timeout_parse(v, n, &us))
        h->bad_timeout = true;
    else
        h->deadline_us = now_us + us;
}

void slu_grpc_headers_take(slu_grpc_headers *h, const slu_grpc_routes *routes, int64_t now_us,
                           const uint8_t *name, size_t name_len, const uint8_t *value, size_t value_len)
{
    const size_t sum = h->bytes + name_len + value_len + 32;
    h->bytes = sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
    if (is(name, name_len, ":path"))
        note_path(h, routes, value, value_len);
    else if (is(name, name_len, ":method"))
        h->post = is(value, value_len, "POST");
    else if (is(name, name_len, "content-type"))
        note_content_type(h, value, value_len);
    else if (is(name, name_len, "grpc-timeout"))
        note_timeout(h, now_us, value, value_len);
    else if (is(name, name_len, "grpc-encoding"))
        h->identity = is(value, value_len, "identity");
}

__attribute__((format(printf, 3, 4))) static int refuse(char why[SLU_GRPC_WHY], int status, const char *fmt,
                                                        ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, SLU_GRPC_WHY, fmt, args);
    va_end(args);
    return status;
}

int slu_grpc_headers_check(slu_grpc_headers *h, uint32_t max_bytes, int64_t now_us, char why[SLU_GRPC_WHY])
{
    const slu_grpc_route *route = h->route;
    if (!h->post || !h->grpc)
        h->route = NULL;
    if (h->bytes > max_bytes)
        return refuse(why, SLU_GRPC_RESOURCE_EXHAUSTED, "%u bytes of headers are over the limit of %u",
                      h->bytes, max_bytes);
    if (!h->post)
        return refuse(why, SLU_GRPC_UNIMPLEMENTED, "gRPC calls are sent with POST");
    if (!h->grpc)
        return refuse(why, SLU_GRPC_INVALID_ARGUMENT, "content-type must be application/grpc");
    if (h->subtype)
        return refuse(why, SLU_GRPC_UNIMPLEMENTED,
                      "content-type must be application/grpc or application/grpc+proto: protobuf only");
    if (!route)
        return refuse(why, SLU_GRPC_UNIMPLEMENTED, "unknown method %s", h->path);
    if (h->bad_timeout)
        return refuse(why, SLU_GRPC_INVALID_ARGUMENT,
                      "grpc-timeout must be 1 to 8 digits and one of H, M, S, m, u, n");
    if (h->deadline_us <= now_us)
        return refuse(why, SLU_GRPC_DEADLINE_EXCEEDED, "the deadline passed before the call began");
    return 0;
}

const char *slu_grpc_headers_http(const slu_grpc_headers *h, bool whole)
{
    if (!whole || h->route)
        return "200";
    return !h->post ? "405" : !h->grpc ? "415" : "200";
}
