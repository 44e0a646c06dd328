/* A well-spoken HTTP/2 client that asks strange things: fuzz_grpc.c feeds bytes, which rarely get past the
 * compression of headers; here the input is a list of deeds of an nghttp2 client. It opens calls with odd
 * headers and time-outs, sends message frames whose lengths lie, in pieces, on several streams, resets them,
 * plays with windows and settings, stops reading, lets time pass, while the server drains or changes its
 * health. Memory of the session stays inside its limits, every stream that the server ends carries one
 * status, and an echo that is OK is the very message. */
#include "proto/descriptors.h"
#include "serving/grpc_frame.h"
#include "serving/grpc_health.h"
#include "serving/grpc_reflection.h"
#include "serving/grpc_stream.h"
#include "tests/fuzz/require.h"
#include <nghttp2/nghttp2.h>

#define MOST_CALLS 40
#define DEEDS      80

typedef struct call {
    int32_t id;
    slu_buf body, answer; /* what it sends; sent of it is away */
    size_t sent;
    bool open;   /* its body is not at an end */
    bool closed; /* the stream is */
    bool echo;   /* to the unary echo, and its body is one message as announced */
    int http, status, statuses;
} call;

typedef struct input {
    const uint8_t *p;
    size_t n;
} input;

static slu_grpc_routes *routes;
static slu_grpc_health health;
static slu_grpc_reflection reflection;
static slu_grpc_limits limits;
static int64_t now;
static call calls[MOST_CALLS];
static int n_calls;
static bool refused; /* the server will not go on with this connection */

static int64_t get_now(void *ctx)
{
    (void)ctx;
    return now;
}

static const slu_clock clock_ = {get_now, get_now, NULL};

static slu_grpc_status echo(void *ctx, slu_grpc_call *c)
{
    (void)ctx;
    REQUIRE(c->request_len <= limits.max_request_bytes);
    slu_put_bytes(c->response, c->request, c->request_len);
    return SLU_GRPC_OK;
}

static slu_grpc_status complain(void *ctx, slu_grpc_call *c)
{
    (void)ctx;
    snprintf(c->message, sizeof c->message, "%.*s", (int)c->request_len, (const char *)c->request);
    return SLU_GRPC_INVALID_ARGUMENT;
}

static void set_up(void)
{
    static slu_proto_index *index;
    slu_error err = SLU_ERROR_INIT;
    slu_serving_opts opts = {.max_request_bytes = 300, .max_streams = 10, .max_queue = 4};
    limits = slu_grpc_limits_of(&opts);
    limits.max_resets = 5;
    limits.max_header_bytes = 700;
    limits.max_buffered = 1500;
    limits.max_unsent = 3000;
    limits.window_bytes = 65535;
    routes = slu_grpc_routes_new();
    REQUIRE(!slu_grpc_routes_add(routes, "/t.S/Echo", SLU_GRPC_UNARY, false, echo, NULL, &err));
    REQUIRE(!slu_grpc_routes_add(routes, "/t.S/Complain", SLU_GRPC_UNARY, true, complain, NULL, &err));
    REQUIRE(!slu_grpc_routes_add(routes, "/t.S/Chat", SLU_GRPC_BIDI, false, echo, NULL, &err));
    REQUIRE(!slu_grpc_health_add(&health, routes, &err));
    REQUIRE(!slu_proto_index_new(slu_descriptor_set, slu_descriptor_set_size, &index, &err));
    reflection.index = index;
    REQUIRE(!slu_grpc_reflection_add(&reflection, routes, &err));
}

/* ---- input ---- */

static unsigned take(input *in, size_t n)
{
    unsigned v = 0;
    for (size_t i = 0; i < n && in->n; i++, in->p++, in->n--)
        v |= (unsigned)*in->p << (8 * i);
    return v;
}

/* Up to |most| bytes, their number first. */
static size_t take_bytes(input *in, const uint8_t **p, size_t most)
{
    size_t n = take(in, 1) % (most + 1);
    n = n < in->n ? n : in->n;
    *p = in->p;
    in->p += n;
    in->n -= n;
    return n;
}

/* ---- the client ---- */

static call *find(int32_t id)
{
    for (int i = 0; i < n_calls; i++)
        if (calls[i].id == id)
            return &calls[i];
    return NULL;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t len, uint8_t flags, void *user)
{
    (void)h2, (void)flags, (void)user;
    call *c = find(frame->hd.stream_id);
    char text[16];
    if (!c)
        return 0;
    snprintf(text, sizeof text, "%.*s", (int)len, (const char *)value);
    if (name_len == 7 && !memcmp(name, ":status", 7))
        c->http = atoi(text);
    if (name_len == 11 && !memcmp(name, "grpc-status", 11)) {
        c->status = atoi(text);
        c->statuses++;
        REQUIRE(len > 0 && len < 3 && c->status >= 0 && c->status <= 16);
    }
    if (name_len == 12 && !memcmp(name, "grpc-message", 12))
        for (size_t i = 0; i < len; i++)
            REQUIRE(value[i] >= 0x20 && value[i] < 0x7f);
    return 0;
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *user)
{
    (void)h2, (void)flags, (void)user;
    call *c = find(id);
    if (c)
        slu_put_bytes(&c->answer, p, n);
    return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t error, void *user)
{
    (void)h2, (void)user;
    call *c = find(id);
    if (!c)
        return 0;
    c->closed = true;
    if (error != NGHTTP2_NO_ERROR || !c->http)
        return 0;
    REQUIRE(c->statuses == 1 && c->http >= 200 && c->http < 600);
    if (c->echo && c->status == SLU_GRPC_OK)
        REQUIRE(c->answer.len == c->body.len && !memcmp(c->answer.data, c->body.data, c->body.len));
    return 0;
}

static ssize_t read_body(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                         nghttp2_data_source *source, void *user)
{
    (void)h2, (void)id, (void)user;
    call *c = source->ptr;
    size_t left = c->body.len - c->sent, n = left < length ? left : length;
    if (!n && c->open)
        return NGHTTP2_ERR_DEFERRED;
    if (n)
        memcpy(buf, c->body.data + c->sent, n);
    c->sent += n;
    if (n == left && !c->open)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static nghttp2_session *client_new(void)
{
    nghttp2_session_callbacks *cb;
    nghttp2_option *option;
    nghttp2_session *h2;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_option_new(&option);
    nghttp2_option_set_peer_max_concurrent_streams(option, 1000); /* more than it will be allowed */
    REQUIRE(!nghttp2_session_client_new2(&h2, cb, NULL, option));
    nghttp2_option_del(option);
    nghttp2_session_callbacks_del(cb);
    nghttp2_submit_settings(h2, NGHTTP2_FLAG_NONE, NULL, 0);
    return h2;
}

/* ---- deeds ---- */

static void add_message(call *c, input *in)
{
    const uint8_t *p;
    size_t n = take_bytes(in, &p, 200);
    unsigned lie = take(in, 1);
    uint8_t prefix[5] = {lie & 0x40 ? (uint8_t)(lie & 3) : 0, 0, 0, 0, (uint8_t)n};
    if (lie & 0x80)
        prefix[1 + lie % 4] ^= (uint8_t)(1 + take(in, 1) % 255);
    c->echo = c->echo && !c->body.len && !(lie & 0xc0);
    slu_put_bytes(&c->body, prefix, sizeof prefix);
    slu_put_bytes(&c->body, p, n);
}

static nghttp2_nv header(const char *name, const char *value, size_t n)
{
    return (nghttp2_nv){(uint8_t *)name, (uint8_t *)value, strlen(name), n, NGHTTP2_NV_FLAG_NONE};
}

static void begin_call(nghttp2_session *h2, input *in)
{
    static const char *const paths[] = {"/t.S/Echo",
                                        "/t.S/Echo",
                                        "/t.S/Chat",
                                        "/t.S/Complain",
                                        "/grpc.health.v1.Health/Check",
                                        "/grpc.health.v1.Health/Watch",
                                        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                                        "/t.S/No"};
    static const char *const types[] = {
        "application/grpc",      "application/grpc",     "application/grpc+proto",  "application/grpc;a=b",
        "application/grpc+json", "application/grpc-web", "application/grpc+proto;", "text/html"};
    static const char *const methods[] = {"POST", "POST", "POST", "GET"};
    static const char *const extra[] = {"grpc-timeout",         "grpc-encoding", "te",    "x-id",
                                        "grpc-accept-encoding", "user-agent",    "x-bin", "expect"};
    if (n_calls == MOST_CALLS)
        return;
    call *c = &calls[n_calls];
    slu_buf_clear(&c->body);
    slu_buf_clear(&c->answer);
    *c = (call){.body = c->body, .answer = c->answer};
    unsigned how = take(in, 2);
    const char *path = paths[how % 8], *type = types[how >> 3 & 7], *method = methods[how >> 6 & 3];
    c->echo = path == paths[0] || path == paths[1];
    nghttp2_nv nv[8] = {header(":method", method, strlen(method)), header(":scheme", "http", 4),
                        header(":path", path, strlen(path)), header(":authority", "t", 1),
                        header("content-type", type, strlen(type))};
    size_t n = 5;
    for (unsigned more = how >> 8 & 3; more; more--) {
        const uint8_t *p;
        const char *name = extra[take(in, 1) % 8];
        size_t len = take_bytes(in, &p, 255);
        nv[n++] = header(name, (const char *)p, len);
    }
    for (unsigned messages = how >> 10 & 3; messages; messages--)
        add_message(c, in);
    c->open = how >> 12 & 1;
    c->echo = c->echo && !c->open && c->body.len;
    nghttp2_data_provider from = {.source.ptr = c, .read_callback = read_body};
    bool empty = !c->body.len && !c->open;
    c->id = nghttp2_submit_request(h2, NULL, nv, n, empty ? NULL : &from, NULL);
    n_calls += c->id > 0;
}

static void go_on(nghttp2_session *h2, input *in)
{
    unsigned how = take(in, 1);
    if (!n_calls)
        return;
    call *c = &calls[how % (unsigned)n_calls];
    if (!c->open || c->closed)
        return;
    if (how & 0x40) {
        const uint8_t *p;
        size_t n = take_bytes(in, &p, 100);
        slu_put_bytes(&c->body, p, n);
    } else {
        add_message(c, in);
    }
    c->open = !(how & 0x80);
    nghttp2_session_resume_data(h2, c->id);
}

static void settings(nghttp2_session *h2, input *in)
{
    static const uint32_t values[] = {0, 1, 10, 100, 16384, 65535, 0x7fffffff, 4096};
    nghttp2_settings_entry e = {(int32_t)(1 + take(in, 1) % 6), values[take(in, 1) % 8]};
    nghttp2_submit_settings(h2, NGHTTP2_FLAG_NONE, &e, 1);
}

static void check_bounds(slu_grpc_session *s)
{
    REQUIRE(slu_grpc_session_calls(s) <= limits.max_streams + 1);
    REQUIRE(s->buffered <= limits.max_buffered);
    REQUIRE(s->unsent <= limits.max_unsent + limits.max_request_bytes + 600);
    REQUIRE(s->out.len - s->out_at <= SLU_GRPC_OUTPUT + 20000);
    REQUIRE(slu_grpc_core_waiting(s->core) <= limits.max_queue + limits.max_streams);
}

static void feed(slu_grpc_session *s, const uint8_t *p, size_t n, size_t piece)
{
    for (size_t at = 0; at < n && !refused; at += piece) {
        size_t step = piece < n - at ? piece : n - at;
        refused = slu_grpc_session_feed(s, p + at, step, now) != 0;
        check_bounds(s);
    }
}

static void exchange(slu_grpc_session *s, nghttp2_session *h2, size_t piece, bool deaf)
{
    const uint8_t *p;
    ssize_t n;
    size_t m;
    while (!refused && (n = nghttp2_session_mem_send(h2, &p)) > 0)
        feed(s, p, (size_t)n, piece);
    while (slu_grpc_core_run(s->core, &clock_))
        check_bounds(s);
    while (!deaf && (m = slu_grpc_session_output(s, &p))) {
        m = m < 5000 ? m : 5000;
        if (nghttp2_session_mem_recv(h2, p, m) < 0)
            deaf = true; /* the client gave up: after a raw frame of its own */
        slu_grpc_session_sent(s, m, now);
    }
}

static void do_one(slu_grpc_session *s, nghttp2_session *h2, input *in, bool *deaf)
{
    static const int64_t steps[] = {1000, 50000, 1000000, 11000000, 31000000, 400000000};
    const uint8_t *p;
    const char *why;
    unsigned deed = take(in, 1);
    switch (deed % 16) {
    default:
        begin_call(h2, in);
        break;
    case 5:
    case 6:
        go_on(h2, in);
        break;
    case 7:
        if (n_calls)
            nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, calls[deed / 16 % (unsigned)n_calls].id,
                                      NGHTTP2_CANCEL);
        break;
    case 8:
        now += steps[deed / 16 % 6];
        refused |= slu_grpc_session_tick(s, now, &why) != 0;
        break;
    case 9:
        settings(h2, in);
        break;
    case 10:
        nghttp2_submit_window_update(h2, NGHTTP2_FLAG_NONE,
                                     deed & 0x10 && n_calls ? calls[deed / 32 % (unsigned)n_calls].id : 0,
                                     (int32_t)take(in, 2));
        break;
    case 11:
        slu_grpc_session_drain(s, now);
        break;
    case 12:
        health.serving = !health.serving;
        slu_grpc_core_changed(s->core);
        break;
    case 13:
        *deaf = !*deaf;
        break;
    case 14:
        nghttp2_submit_ping(h2, NGHTTP2_FLAG_NONE, NULL);
        break;
    case 15: {
        size_t n = take_bytes(in, &p, 60);
        if (deed & 0x80)
            feed(s, p, n, 7);
        break;
    }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!routes)
        set_up();
    input in = {data, size};
    now = 1000000000;
    n_calls = 0;
    refused = false;
    health.serving = true;
    size_t piece = take(&in, 1) + 1;
    bool deaf = false;
    slu_grpc_core *core = slu_grpc_core_new(&limits, routes, 0);
    slu_grpc_session *s = slu_grpc_session_new(core, &now, now);
    nghttp2_session *h2 = client_new();
    for (int i = 0; i < DEEDS && in.n && !refused; i++) {
        do_one(s, h2, &in, &deaf);
        exchange(s, h2, piece, deaf);
    }
    exchange(s, h2, piece, false);
    nghttp2_session_del(h2);
    slu_grpc_session_free(s);
    REQUIRE(!slu_grpc_core_waiting(core));
    slu_grpc_core_free(core);
    return 0;
}
