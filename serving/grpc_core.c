#include "serving/grpc_core.h"
#include "serving/grpc_answer.h"
#include "serving/grpc_http2.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define POOL_STREAMS 1024
#define POOL_BUFFER  ((size_t)64 << 10) /* larger buffers are not kept for the next call */
#define ARENA_KEEP   ((size_t)16 << 20) /* nor is a larger arena */
#define ARENA_LEAST  ((size_t)16 << 20)
#define ARENA_TIMES  32u               /* a value of one byte becomes an slu_value and more */
#define POOL_BYTES   ((size_t)8 << 20) /* of the buffers of pooled streams */
#define CALL_BYTES   1536u             /* of an open call, ours and nghttp2's, roughly */

slu_grpc_limits slu_grpc_limits_of(const slu_serving_opts *o)
{
    size_t two = (size_t)o->max_request_bytes * 2;
    return (slu_grpc_limits){
        .max_request_bytes = o->max_request_bytes,
        .max_streams = o->max_streams,
        .max_queue = o->max_queue,
        .max_wait_us = o->max_wait_us,
        .max_header_bytes = 16 << 10,
        .window_bytes = 1 << 20,
        .max_buffered = two > (16 << 20) ? two : (16 << 20),
        .max_unsent = 16 << 20,
        .max_held = o->held_bytes,
        .greeting_us = o->greeting_us ? o->greeting_us : 10 * SLU_SECOND_US,
        .request_us = o->arrival_us ? o->arrival_us : 120 * SLU_SECOND_US,
        .write_us = 20 * SLU_SECOND_US,
        .idle_us = o->idle_us ? o->idle_us : 1800 * SLU_SECOND_US,
        .max_resets = 200,
    };
}

size_t slu_grpc_arena_limit(uint32_t max_request_bytes)
{
    size_t limit = (size_t)max_request_bytes * ARENA_TIMES;
    return limit > ARENA_LEAST ? limit : ARENA_LEAST;
}

static slu_arena *arena_for(const slu_grpc_limits *l)
{
    return slu_arena_new(256 << 10, slu_grpc_arena_limit(l->max_request_bytes));
}

static slu_metric *refused(const char *labels)
{
    return slu_counter("sluice_grpc_refused_total", labels, "Calls and connections refused, by reason");
}

slu_grpc_core *slu_grpc_core_new(const slu_grpc_limits *limits, slu_grpc_routes *routes, uint32_t thread)
{
    slu_grpc_core *c = calloc(1, sizeof *c);
    if (!c)
        return NULL;
    c->limits = *limits;
    c->wait.max_us = limits->max_wait_us;
    c->routes = routes;
    c->thread = thread;
    c->arena = arena_for(limits);
    if (!c->arena || slu_grpc_http2_setup(c)) {
        slu_grpc_core_free(c);
        return NULL;
    }
    c->in_flight = slu_gauge("sluice_grpc_calls_in_flight", NULL, "Calls begun and not yet closed");
    c->refused_queue = refused("reason=\"queue\"");
    c->refused_wait = refused("reason=\"wait\"");
    c->refused_size = refused("reason=\"size\"");
    c->refused_unsent = refused("reason=\"unread_answers\"");
    c->refused_held = refused("reason=\"memory\"");
    c->refused_resets = refused("reason=\"resets\"");
    return c;
}

void slu_grpc_core_use_crew(slu_grpc_core *c, struct slu_crew *crew)
{
    c->crew = crew;
}

static void stream_delete(slu_grpc_stream *st)
{
    slu_buf_free(&st->in.message);
    slu_buf_free(&st->raw);
    slu_buf_free(&st->out);
    slu_buf_free(&st->last);
    slu_buf_free(&st->note);
    free(st);
}

void slu_grpc_core_free(slu_grpc_core *c)
{
    if (!c)
        return;
    while (c->pool) {
        slu_grpc_stream *st = c->pool;
        c->pool = st->next;
        stream_delete(st);
    }
    slu_buf_free(&c->response);
    slu_arena_free(c->arena);
    nghttp2_option_del(c->option);
    nghttp2_session_callbacks_del(c->callbacks);
    free(c);
}

size_t slu_grpc_core_held(const slu_grpc_core *c)
{
    return c->held;
}

void slu_grpc_session_account(slu_grpc_session *s)
{
    size_t held = s->buffered + s->unsent + s->out.cap + (size_t)s->calls * CALL_BYTES;
    s->core->held += held - s->held;
    s->held = held;
}

uint32_t slu_grpc_core_waiting(const slu_grpc_core *c)
{
    return c->waiting;
}

/* Queue of streams whose next message is whole. */

static void enqueue(slu_grpc_stream *st)
{
    slu_grpc_core *c = st->session->core;
    if (st->queued)
        return;
    st->queued = true;
    st->queue_next = NULL;
    st->queue_prev = c->queue_last;
    if (c->queue_last)
        c->queue_last->queue_next = st;
    else
        c->queue = st;
    c->queue_last = st;
    c->waiting++;
    st->weighed = st->in.message.len;
    slu_grpc_wait_join(&c->wait, st->weighed, st->session->now_us);
}

static void unqueue(slu_grpc_stream *st)
{
    slu_grpc_core *c = st->session->core;
    if (!st->queued)
        return;
    st->queued = false;
    if (st->queue_prev)
        st->queue_prev->queue_next = st->queue_next;
    else
        c->queue = st->queue_next;
    if (st->queue_next)
        st->queue_next->queue_prev = st->queue_prev;
    else
        c->queue_last = st->queue_prev;
    c->waiting--;
    slu_grpc_wait_leave(&c->wait, st->weighed, st->session->now_us);
}

static void watch(slu_grpc_stream *st)
{
    slu_grpc_core *c = st->session->core;
    if (st->watching)
        return;
    st->watching = true;
    st->watch_prev = NULL;
    st->watch_next = c->watchers;
    if (c->watchers)
        c->watchers->watch_prev = st;
    c->watchers = st;
}

static void unwatch(slu_grpc_stream *st)
{
    if (!st->watching)
        return;
    st->watching = false;
    if (st->watch_prev)
        st->watch_prev->watch_next = st->watch_next;
    else
        st->session->core->watchers = st->watch_next;
    if (st->watch_next)
        st->watch_next->watch_prev = st->watch_prev;
}

void slu_grpc_core_changed(slu_grpc_core *c)
{
    for (slu_grpc_stream *st = c->watchers; st; st = st->watch_next)
        enqueue(st);
}

/* Streams and their pool. */

static size_t buffer_bytes(const slu_grpc_stream *st)
{
    return st->in.message.cap + st->raw.cap + st->out.cap + st->last.cap + st->note.cap;
}

slu_grpc_stream *slu_grpc_stream_new(slu_grpc_session *s, int32_t id)
{
    slu_grpc_core *c = s->core;
    slu_grpc_stream *st = c->pool;
    if (st) {
        c->pool = st->next;
        c->pooled--;
        c->pooled_bytes -= buffer_bytes(st);
    } else {
        st = calloc(1, sizeof *st);
        if (!st)
            return NULL;
    }
    st->session = s;
    st->id = id;
    slu_grpc_headers_begin(&st->head);
    st->begun_us = s->now_us;
    st->prev = NULL;
    st->next = s->streams;
    if (s->streams)
        s->streams->prev = st;
    s->streams = st;
    s->calls++;
    slu_metric_add(c->in_flight, 1);
    return st;
}

static void keep_small(slu_buf *b)
{
    if (b->cap > POOL_BUFFER)
        slu_buf_free(b);
    slu_buf_clear(b);
}

/* What the peer sent and nobody needs any more. */
static void drop_request(slu_grpc_stream *st)
{
    st->session->buffered -= st->buffered;
    st->buffered = 0;
    slu_grpc_frame_next(&st->in);
    keep_small(&st->in.message);
    keep_small(&st->raw);
    st->raw_at = 0;
    st->whole = false;
}

void slu_grpc_stream_free(slu_grpc_stream *st)
{
    slu_grpc_session *s = st->session;
    slu_grpc_core *c = s->core;
    if (!st->finished)
        slu_grpc_route_count(st->head.route ? st->head.route : slu_grpc_routes_unknown(c->routes),
                             SLU_GRPC_CANCELLED);
    unqueue(st);
    unwatch(st);
    drop_request(st);
    s->unsent -= st->out.len - st->out_at;
    if (st->prev)
        st->prev->next = st->next;
    else
        s->streams = st->next;
    if (st->next)
        st->next->prev = st->prev;
    s->calls--;
    slu_metric_add(c->in_flight, -1);
    keep_small(&st->out);
    keep_small(&st->last);
    keep_small(&st->note);
    if (c->pooled >= POOL_STREAMS || c->pooled_bytes + buffer_bytes(st) > POOL_BYTES) {
        stream_delete(st);
        return;
    }
    c->pooled_bytes += buffer_bytes(st);
    slu_grpc_stream clean = {.in.message = st->in.message,
                             .raw = st->raw,
                             .out = st->out,
                             .last = st->last,
                             .note = st->note,
                             .next = c->pool};
    *st = clean;
    c->pool = st;
    c->pooled++;
}

void slu_grpc_stream_finish(slu_grpc_stream *st, int status, const char *fmt, ...)
{
    if (st->finished)
        return;
    slu_grpc_session *s = st->session;
    st->finished = true;
    st->status = status >= 0 && status < SLU_GRPC_CODES ? status : SLU_GRPC_UNKNOWN;
    slu_buf_clear(&st->note);
    if (status) {
        char text[800];
        va_list args;
        va_start(args, fmt);
        vsnprintf(text, sizeof text, fmt, args);
        va_end(args);
        slu_grpc_message_encode(&st->note, text);
    }
    slu_grpc_route_count(st->head.route ? st->head.route : slu_grpc_routes_unknown(s->core->routes),
                         st->status);
    unqueue(st);
    unwatch(st);
    drop_request(st);
    slu_grpc_answer_end(st);
}

void slu_grpc_stream_refuse(slu_grpc_stream *st, slu_grpc_frame_state state)
{
    slu_grpc_core *c = st->session->core;
    switch (state) {
    case SLU_FRAME_TOO_LARGE:
        slu_metric_add(c->refused_size, 1);
        slu_grpc_stream_finish(st, SLU_GRPC_RESOURCE_EXHAUSTED,
                               "request message of %u bytes is over the limit of %u (serving.max_request)",
                               st->in.want, c->limits.max_request_bytes);
        break;
    case SLU_FRAME_COMPRESSED:
        if (st->head.identity)
            slu_grpc_stream_finish(st, SLU_GRPC_INTERNAL,
                                   "the message is flagged as compressed but grpc-encoding is not set");
        else
            slu_grpc_stream_finish(st, SLU_GRPC_UNIMPLEMENTED,
                                   "compressed messages are not supported; send them with identity encoding");
        break;
    default:
        slu_grpc_stream_finish(st, SLU_GRPC_INTERNAL,
                               "byte 0x%02x where the flag of a length-prefixed message belongs",
                               st->in.prefix[0]);
        break;
    }
}

/* Handlers. */

static void put_answer(slu_grpc_stream *st, const slu_buf *response)
{
    slu_grpc_session *s = st->session;
    if (st->out_at == st->out.len) {
        st->out_at = 0;
        slu_buf_clear(&st->out);
    }
    if (!s->unsent)
        s->data_us = s->now_us;
    slu_grpc_frame_prefix(&st->out, (uint32_t)response->len);
    if (response->len)
        slu_put_bytes(&st->out, response->data, response->len);
    s->unsent += SLU_GRPC_PREFIX + response->len;
    slu_grpc_answer_flow(st);
}

/* Calls the handler on the message that is whole. The answer is in core->response. */
static int handle(slu_grpc_stream *st, char *message, size_t size)
{
    slu_grpc_core *c = st->session->core;
    slu_grpc_call call;
    call.request = st->in.message.data ? st->in.message.data : (const uint8_t *)"";
    call.request_len = st->in.message.len;
    call.deadline_us = st->head.deadline_us;
    call.received_us = st->received_us;
    call.arena = c->arena;
    call.response = &c->response;
    call.message[0] = 0;
    call.thread = c->thread;
    call.crew = c->crew;
    slu_buf_clear(&c->response);
    int status = st->head.route->handler(st->head.route->ctx, &call);
    snprintf(message, size, "%s", call.message);
    if (slu_arena_held(c->arena) > ARENA_KEEP) {
        slu_arena *fresh = arena_for(&c->limits);
        if (fresh) {
            slu_arena_free(c->arena);
            c->arena = fresh;
        }
    }
    slu_arena_reset(c->arena);
    if (!status && c->response.len > UINT32_MAX - SLU_GRPC_PREFIX) {
        snprintf(message, size, "the answer has %zu bytes, more than a gRPC message can hold",
                 c->response.len);
        return SLU_GRPC_INTERNAL;
    }
    return status;
}

static void run_unary(slu_grpc_stream *st, const char *message, int status)
{
    slu_grpc_core *c = st->session->core;
    if (!status)
        put_answer(st, &c->response);
    slu_grpc_stream_finish(st, status, "%s", message);
}

static void run_bidi(slu_grpc_stream *st, const char *message, int status)
{
    slu_grpc_core *c = st->session->core;
    if (status) {
        slu_grpc_stream_finish(st, status, "%s", message);
        return;
    }
    put_answer(st, &c->response);
    slu_grpc_frame_next(&st->in);
    slu_grpc_stream_advance(st);
}

/* The same answer as last time is no news. */
static void run_watch(slu_grpc_stream *st, const char *message, int status)
{
    slu_grpc_core *c = st->session->core;
    if (status) {
        slu_grpc_stream_finish(st, status, "%s", message);
        return;
    }
    if (!st->answered || st->last.len != c->response.len ||
        (st->last.len && memcmp(st->last.data, c->response.data, st->last.len))) {
        slu_buf_clear(&st->last);
        if (c->response.len)
            slu_put_bytes(&st->last, c->response.data, c->response.len);
        put_answer(st, &c->response);
    }
    if (st->session->goodbye)
        slu_grpc_stream_finish(st, SLU_GRPC_UNAVAILABLE, "the server is shutting down");
    else
        watch(st);
}

static bool refuse_late(slu_grpc_stream *st)
{
    slu_grpc_session *s = st->session;
    slu_grpc_core *c = s->core;
    if (st->head.deadline_us <= s->now_us) {
        slu_grpc_stream_finish(st, SLU_GRPC_DEADLINE_EXCEEDED,
                               "the deadline passed while the request waited %lld us for its turn",
                               (long long)(s->now_us - st->received_us));
        return true;
    }
    int64_t waited = s->now_us - st->received_us;
    if (st->head.route->kind == SLU_GRPC_UNARY && !st->head.route->at_once &&
        waited > slu_grpc_wait_limit(&c->wait, s->now_us)) {
        slu_metric_add(c->refused_wait, 1);
        slu_grpc_stream_finish(
            st, SLU_GRPC_RESOURCE_EXHAUSTED,
            "the server is busy: the request has waited %lld ms for its turn (serving.max_wait)",
            (long long)(waited / 1000));
        return true;
    }
    if (c->limits.max_held && c->held > c->limits.max_held) {
        slu_metric_add(c->refused_held, 1);
        slu_grpc_stream_finish(st, SLU_GRPC_RESOURCE_EXHAUSTED,
                               "requests and unread answers of all clients hold %zu bytes (serving.memory)",
                               c->held);
        return true;
    }
    if (s->unsent > c->limits.max_unsent) {
        slu_metric_add(c->refused_unsent, 1);
        slu_grpc_stream_finish(st, SLU_GRPC_RESOURCE_EXHAUSTED,
                               "%zu bytes of answers wait on this connection to be read", s->unsent);
        return true;
    }
    return false;
}

static void run_stream(slu_grpc_stream *st, const slu_clock *clock)
{
    char message[sizeof((slu_grpc_call *)0)->message];
    slu_grpc_session_touch(st->session);
    if (refuse_late(st))
        return;
    int64_t began = st->session->now_us;
    size_t bytes = st->in.message.len;
    int status = handle(st, message, sizeof message);
    if (clock) {
        st->session->now_us = slu_mono_us(clock);
        slu_grpc_wait_learn(&st->session->core->wait, bytes, st->session->now_us - began);
    }
    slu_metric_observe(st->head.route->seconds, (double)(st->session->now_us - st->received_us) * 1e-6);
    switch (st->head.route->kind) {
    case SLU_GRPC_UNARY:
        run_unary(st, message, status);
        break;
    case SLU_GRPC_BIDI:
        run_bidi(st, message, status);
        break;
    case SLU_GRPC_WATCH:
        run_watch(st, message, status);
        break;
    }
}

bool slu_grpc_core_run(slu_grpc_core *c, const slu_clock *clock)
{
    slu_grpc_stream *st = c->queue;
    if (!st)
        return false;
    st->session->now_us = slu_mono_us(clock);
    unqueue(st);
    if (st->watching) /* woken, not asked: the latency of this answer counts from now */
        st->received_us = st->session->now_us;
    slu_grpc_session *s = st->session;
    run_stream(st, clock);
    slu_grpc_session_account(s);
    return true;
}

void slu_grpc_stream_ready(slu_grpc_stream *st)
{
    slu_grpc_core *c = st->session->core;
    st->received_us = st->session->now_us;
    if (st->head.route->at_once) {
        run_stream(st, NULL);
        return;
    }
    if (c->waiting >= c->limits.max_queue) {
        slu_metric_add(c->refused_queue, 1);
        slu_grpc_stream_finish(st, SLU_GRPC_RESOURCE_EXHAUSTED,
                               "the server is busy: %u requests wait already (serving.max_queue)",
                               c->waiting);
        return;
    }
    if (st->head.route->kind == SLU_GRPC_UNARY && !slu_grpc_wait_admits(&c->wait, st->session->now_us)) {
        slu_metric_add(c->refused_wait, 1);
        slu_grpc_stream_finish(st, SLU_GRPC_RESOURCE_EXHAUSTED,
                               "the server is busy: the request would wait %lld ms for its turn "
                               "(serving.max_wait)",
                               (long long)(slu_grpc_wait_predict(&c->wait) / 1000));
        return;
    }
    enqueue(st);
}

void slu_grpc_stream_advance(slu_grpc_stream *st)
{
    slu_grpc_core *c = st->session->core;
    if (st->out.len - st->out_at > SLU_GRPC_OUTPUT) { /* the peer asks faster than it reads */
        st->parked = true;
        return;
    }
    st->parked = false;
    size_t taken = 0, left = st->raw.len - st->raw_at;
    const uint8_t *p = left ? st->raw.data + st->raw_at : (const uint8_t *)"";
    slu_grpc_frame_state state = slu_grpc_frame_read(&st->in, p, left, c->limits.max_request_bytes, &taken);
    st->raw_at += taken;
    if (st->raw_at == st->raw.len) {
        slu_buf_clear(&st->raw);
        st->raw_at = 0;
    }
    /* Only what waits raw counts as buffered here, the message itself is bounded by its own limit. */
    st->buffered -= taken;
    st->session->buffered -= taken;
    slu_grpc_http2_consumed(st, taken);
    if (state == SLU_FRAME_WHOLE)
        slu_grpc_stream_ready(st);
    else if (state != SLU_FRAME_MORE)
        slu_grpc_stream_refuse(st, state);
    else if (st->half_closed && slu_grpc_frame_empty(&st->in))
        slu_grpc_stream_finish(st, SLU_GRPC_OK, "%s", "");
    else if (st->half_closed)
        slu_grpc_stream_finish(st, SLU_GRPC_INTERNAL, "the stream ended within a message");
}
