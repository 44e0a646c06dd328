/* Bytes of a gRPC client into a server session: HTTP/2 frames, HPACK, message prefixes, health and
 * reflection.
 *
 * Byte 0 holds switches: 1 the greeting and SETTINGS are put in front, 2 the peer reads nothing until the
 * end, 4 a drain begins half way, 8 time passes between the pieces. Byte 1 + 1 is the size of the pieces. The
 * rest is fed. */
#include "proto/descriptors.h"
#include "serving/grpc_health.h"
#include "serving/grpc_reflection.h"
#include "serving/grpc_session.h"
#include <assert.h>
#include <nghttp2/nghttp2.h>
#include <stdlib.h>
#include <string.h>

static int64_t now;

static int64_t get_now(void *ctx)
{
    (void)ctx;
    return now;
}

static slu_grpc_status echo(void *ctx, slu_grpc_call *call)
{
    (void)ctx;
    if (call->request_len)
        slu_put_bytes(call->response, call->request, call->request_len);
    return call->request_len % 5 == 4 ? SLU_GRPC_INVALID_ARGUMENT : SLU_GRPC_OK;
}

static slu_grpc_routes *routes;
static slu_grpc_health health;
static slu_grpc_reflection reflection;
static slu_grpc_limits limits;

static void setup(void)
{
    static slu_proto_index *index;
    slu_error err = SLU_ERROR_INIT;
    slu_serving_opts opts = {.max_request_bytes = 2000, .max_streams = 20, .max_queue = 6};
    limits = slu_grpc_limits_of(&opts);
    limits.max_resets = 5;
    limits.window_bytes = 70000;
    routes = slu_grpc_routes_new();
    if (slu_grpc_routes_add(routes, "/a", SLU_GRPC_UNARY, false, echo, NULL, &err) != SLU_EINVAL)
        abort();
    slu_error_clear(&err);
    if (slu_grpc_routes_add(routes, "/t.S/E", SLU_GRPC_UNARY, false, echo, NULL, &err) ||
        slu_grpc_routes_add(routes, "/t.S/B", SLU_GRPC_BIDI, false, echo, NULL, &err) ||
        slu_grpc_health_add(&health, routes, &err) ||
        slu_proto_index_new(slu_descriptor_set, slu_descriptor_set_size, &index, &err))
        abort();
    reflection.index = index;
    if (slu_grpc_reflection_add(&reflection, routes, &err))
        abort();
}

static void take_output(slu_grpc_session *s)
{
    const uint8_t *p;
    size_t n;
    while ((n = slu_grpc_session_output(s, &p)))
        slu_grpc_session_sent(s, n > 4000 ? 4000 : n, now);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const uint8_t opening[] = NGHTTP2_CLIENT_MAGIC "\0\0\0\4\0\0\0\0\0";
    const slu_clock clock = {get_now, get_now, NULL};
    if (n < 2)
        return 0;
    if (!routes)
        setup();
    now = 1000000;
    int switches = bytes[0];
    size_t piece = (size_t)bytes[1] + 1;
    slu_grpc_core *core = slu_grpc_core_new(&limits, routes, 0);
    slu_grpc_session *s = slu_grpc_session_new(core, &now, now);
    const char *why;
    int rc = switches & 1 ? slu_grpc_session_feed(s, opening, sizeof opening - 1, now) : 0;
    for (size_t at = 2; at < n && !rc; at += piece) {
        rc = slu_grpc_session_feed(s, bytes + at, piece < n - at ? piece : n - at, now);
        if (switches & 4 && at > n / 2) {
            health.serving = !health.serving;
            slu_grpc_core_changed(core);
            slu_grpc_session_drain(s, now);
        }
        while (slu_grpc_core_run(core, &clock))
            ;
        if (!(switches & 2))
            take_output(s);
        if (switches & 8)
            now += 300000;
        if (!rc)
            rc = slu_grpc_session_tick(s, now, &why);
        while (slu_grpc_core_touched(core))
            ;
    }
    take_output(s);
    slu_grpc_session_free(s);
    assert(!slu_grpc_core_waiting(core));
    slu_grpc_core_free(core);
    return 0;
}
