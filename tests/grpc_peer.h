/* tests/grpc_peer.h - a gRPC server core and an nghttp2 client session joined by memory: no sockets, and time
 * is a variable. */
#pragma once
#include "serving/grpc_frame.h"
#include "serving/grpc_health.h"
#include "serving/grpc_reflection.h"
#include "serving/grpc_session.h"
#include "tests/suite.h"
#include <nghttp2/nghttp2.h>
#include <stdio.h>
#include <string.h>

#define PEER_CALLS 600

typedef struct peer_call {
    int32_t id;
    slu_buf body; /* what the client sends; sent of it is away */
    size_t sent;
    bool keep_open; /* no END_STREAM after the body */
    slu_buf answer; /* DATA that came */
    int http, status;
    char message[600], accept[32];
    bool closed;
    uint32_t error; /* HTTP/2 code at the close */
} peer_call;

typedef struct peer {
    int64_t now;
    slu_clock clock;
    slu_grpc_routes *routes;
    slu_grpc_health health;
    slu_grpc_core *core;
    slu_grpc_session *server;
    nghttp2_session *client;
    peer_call calls[PEER_CALLS];
    int n_calls;
    int handled;     /* by the test handlers */
    int64_t cost_us; /* of a call, on the clock */
    int goaways;
    int32_t goaway_last;
    uint32_t goaway_error;
    bool deaf;    /* the client takes no bytes */
    bool refused; /* feed returned an error */
    size_t piece; /* bytes handed over at once; 0: all */
} peer;

static int64_t peer_now(void *ctx)
{
    return ((peer *)ctx)->now;
}

static slu_grpc_status peer_echo(void *ctx, slu_grpc_call *call)
{
    ((peer *)ctx)->handled++;
    ((peer *)ctx)->now += ((peer *)ctx)->cost_us;
    if (call->request_len)
        slu_put_bytes(call->response, call->request, call->request_len);
    return SLU_GRPC_OK;
}

static slu_grpc_status peer_fail(void *ctx, slu_grpc_call *call)
{
    ((peer *)ctx)->handled++;
    snprintf(call->message, sizeof call->message, "100%% \xc3\xa4\n");
    return SLU_GRPC_FAILED_PRECONDITION;
}

static peer_call *peer_find(peer *p, int32_t id)
{
    for (int i = 0; i < p->n_calls; i++)
        if (p->calls[i].id == id)
            return &p->calls[i];
    return NULL;
}

static int peer_on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name,
                          size_t name_len, const uint8_t *value, size_t len, uint8_t flags, void *user)
{
    (void)h2, (void)flags;
    peer_call *c = peer_find(user, frame->hd.stream_id);
    char text[700];
    snprintf(text, sizeof text, "%.*s", (int)len, (const char *)value);
    if (!c)
        return 0;
    if (name_len == 11 && !memcmp(name, "grpc-status", 11))
        c->status = atoi(text);
    else if (name_len == 7 && !memcmp(name, ":status", 7))
        c->http = atoi(text);
    else if (name_len == 12 && !memcmp(name, "grpc-message", 12))
        slu_grpc_message_decode(c->message, sizeof c->message, text, strlen(text));
    else if (name_len == 20 && !memcmp(name, "grpc-accept-encoding", 20))
        snprintf(c->accept, sizeof c->accept, "%.31s", text);
    return 0;
}

static int peer_on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *p, size_t n,
                        void *user)
{
    (void)h2, (void)flags;
    peer_call *c = peer_find(user, id);
    if (c && n)
        slu_put_bytes(&c->answer, p, n);
    return 0;
}

static int peer_on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    (void)h2;
    peer *p = user;
    if (frame->hd.type == NGHTTP2_GOAWAY) {
        p->goaways++;
        p->goaway_last = frame->goaway.last_stream_id;
        p->goaway_error = frame->goaway.error_code;
    }
    return 0;
}

static int peer_on_close(nghttp2_session *h2, int32_t id, uint32_t error, void *user)
{
    (void)h2;
    peer_call *c = peer_find(user, id);
    if (c) {
        c->closed = true;
        c->error = error;
    }
    return 0;
}

static ssize_t peer_read(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                         nghttp2_data_source *source, void *user)
{
    (void)h2, (void)id, (void)user;
    peer_call *c = source->ptr;
    size_t left = c->body.len - c->sent, n = left < length ? left : length;
    if (!n && c->keep_open)
        return NGHTTP2_ERR_DEFERRED;
    if (n)
        memcpy(buf, c->body.data + c->sent, n);
    c->sent += n;
    if (n == left && !c->keep_open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static inline slu_grpc_limits peer_limits(void)
{
    slu_serving_opts opts = {.max_request_bytes = 4096, .max_streams = 8, .max_queue = 4};
    return slu_grpc_limits_of(&opts);
}

static inline peer *peer_new(const slu_grpc_limits *limits, slu_grpc_reflection *reflection)
{
    peer *p = calloc(1, sizeof *p);
    slu_error err = SLU_ERROR_INIT;
    p->now = 1000 * SLU_SECOND_US;
    p->clock = (slu_clock){peer_now, peer_now, p};
    p->routes = slu_grpc_routes_new();
    ck_assert_int_eq(slu_grpc_routes_add(p->routes, "/t.S/Echo", SLU_GRPC_UNARY, false, peer_echo, p, &err),
                     0);
    ck_assert_int_eq(slu_grpc_routes_add(p->routes, "/t.S/Fail", SLU_GRPC_UNARY, false, peer_fail, p, &err),
                     0);
    ck_assert_int_eq(slu_grpc_routes_add(p->routes, "/t.S/Chat", SLU_GRPC_BIDI, false, peer_echo, p, &err),
                     0);
    ck_assert_int_eq(slu_grpc_health_add(&p->health, p->routes, &err), 0);
    if (reflection)
        ck_assert_int_eq(slu_grpc_reflection_add(reflection, p->routes, &err), 0);
    p->core = slu_grpc_core_new(limits, p->routes, 0);
    p->server = slu_grpc_session_new(p->core, p, p->now);
    nghttp2_session_callbacks *cb;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_header_callback(cb, peer_on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, peer_on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, peer_on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, peer_on_close);
    ck_assert_int_eq(nghttp2_session_client_new(&p->client, cb, p), 0);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(p->client, NGHTTP2_FLAG_NONE, NULL, 0);
    return p;
}

static inline void peer_free(peer *p)
{
    slu_grpc_session_free(p->server);
    slu_grpc_core_free(p->core);
    slu_grpc_routes_free(p->routes);
    nghttp2_session_del(p->client);
    for (int i = 0; i < p->n_calls; i++) {
        slu_buf_free(&p->calls[i].body);
        slu_buf_free(&p->calls[i].answer);
    }
    free(p);
}

/* Client to server. */
static inline void peer_up(peer *p)
{
    const uint8_t *bytes;
    ssize_t n;
    while ((n = nghttp2_session_mem_send(p->client, &bytes)) > 0)
        for (size_t at = 0; at < (size_t)n;) {
            size_t step = p->piece && p->piece < (size_t)n - at ? p->piece : (size_t)n - at;
            p->refused |= slu_grpc_session_feed(p->server, bytes + at, step, p->now) != 0;
            at += step;
        }
}

/* Server to client; returns the bytes. */
static inline size_t peer_down(peer *p)
{
    const uint8_t *bytes;
    size_t n, sum = 0;
    while (!p->deaf && (n = slu_grpc_session_output(p->server, &bytes))) {
        if (p->piece && n > p->piece)
            n = p->piece;
        ck_assert_int_eq(nghttp2_session_mem_recv(p->client, bytes, n), (ssize_t)n);
        slu_grpc_session_sent(p->server, n, p->now);
        sum += n;
    }
    return sum;
}

/* Until nothing moves any more. */
static inline void peer_settle(peer *p)
{
    for (int i = 0; i < 50; i++) {
        peer_up(p);
        while (slu_grpc_core_run(p->core, &p->clock))
            peer_down(p);
        if (!peer_down(p) && !nghttp2_session_want_write(p->client))
            return;
    }
}

/* Begins a call whose body is set already; |extra| (n_extra) headers follow the usual ones, or replace them.
 */
static inline peer_call *peer_begin(peer *p, peer_call *c, const char *method, const char *path,
                                    const char *type, const char *extra_name, const char *extra_value)
{
#define PEER_NV(n, v) {(uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), NGHTTP2_NV_FLAG_NONE}
    nghttp2_nv nv[] = {PEER_NV(":method", method),
                       PEER_NV(":scheme", "http"),
                       PEER_NV(":path", path),
                       PEER_NV(":authority", "test"),
                       PEER_NV("content-type", type),
                       PEER_NV(extra_name ? extra_name : "te", extra_name ? extra_value : "trailers")};
    nghttp2_data_provider from = {.source.ptr = c, .read_callback = peer_read};
    bool empty = !c->body.len && !c->keep_open;
    c->status = -1;
    c->id = nghttp2_submit_request(p->client, NULL, nv, sizeof nv / sizeof *nv, empty ? NULL : &from, NULL);
    ck_assert_int_gt(c->id, 0);
    return c;
}

static inline peer_call *peer_next(peer *p)
{
    ck_assert_int_lt(p->n_calls, PEER_CALLS);
    return &p->calls[p->n_calls++];
}

/* Body: one message of |len| bytes of |fill|. */
static inline peer_call *peer_message(peer *p, size_t len, uint8_t fill)
{
    peer_call *c = peer_next(p);
    slu_grpc_frame_prefix(&c->body, (uint32_t)len);
    if (len) {
        memset(slu_buf_reserve(&c->body, len), fill, len);
        c->body.len += len;
    }
    return c;
}

static inline peer_call *peer_send(peer *p, peer_call *c, const char *path)
{
    return peer_begin(p, c, "POST", path, "application/grpc", NULL, NULL);
}
