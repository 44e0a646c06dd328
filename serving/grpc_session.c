/* The HTTP/2 side of a session: nghttp2's callbacks, headers in and out, flow control, time-outs, goodbye.
 *
 * Frames are made straight into session->out, so that a loop round sends all answers of a connection with one
 * write. nghttp2 gives no window back by itself: unary bytes are given back at once (they are bounded by
 * max_buffered), those of a bidirectional stream when its message was used. */
#include "serving/grpc_core.h"
#include "serving/grpc_stream.h"
#include "serving/grpc_timeout.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char greeting[] = NGHTTP2_CLIENT_MAGIC;
#define GREETING (sizeof greeting - 1)

/* Who speaks HTTP/1.1 gets an answer that a person can read in any browser or log. */
static const char http1_answer[] =
    "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 78\r\n\r\n"
    "This port speaks gRPC over HTTP/2 (h2c, prior knowledge); use a gRPC client.\r\n";

static slu_grpc_stream *stream_of(slu_grpc_session *s, int32_t id)
{
    return nghttp2_session_get_stream_user_data(s->h2, id);
}

void slu_grpc_session_touch(slu_grpc_session *s)
{
    if (s->touched)
        return;
    s->touched = true;
    s->touched_next = s->core->touched;
    s->core->touched = s;
}

void *slu_grpc_core_touched(slu_grpc_core *c)
{
    slu_grpc_session *s = c->touched;
    if (!s)
        return NULL;
    c->touched = s->touched_next;
    s->touched = false;
    return s->owner;
}

static void untouch(slu_grpc_session *s)
{
    slu_grpc_session **at = &s->core->touched;
    while (s->touched && *at) {
        if (*at == s) {
            *at = s->touched_next;
            s->touched = false;
        } else {
            at = &(*at)->touched_next;
        }
    }
}

/* Answers. */

#define NV(n, v)                                                                                             \
    {                                                                                                        \
        (uint8_t *)(n), (uint8_t *)(v), sizeof(n) - 1, strlen(v),                                            \
            NGHTTP2_NV_FLAG_NO_COPY_NAME | NGHTTP2_NV_FLAG_NO_COPY_VALUE                                     \
    }

static size_t status_headers(const slu_grpc_stream *st, nghttp2_nv *nv)
{
    size_t n = 0;
    nv[n++] = (nghttp2_nv)NV("grpc-status", slu_grpc_status_digits(st->status));
    if (st->note.len)
        nv[n++] = (nghttp2_nv){(uint8_t *)"grpc-message", st->note.data, 12, st->note.len,
                               NGHTTP2_NV_FLAG_NO_COPY_NAME};
    return n;
}

static ssize_t read_out(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                        nghttp2_data_source *source, void *user)
{
    (void)buf, (void)source, (void)user;
    slu_grpc_stream *st = nghttp2_session_get_stream_user_data(h2, id);
    if (!st)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    size_t left = st->out.len - st->out_at;
    if (!left && !st->finished)
        return NGHTTP2_ERR_DEFERRED;
    size_t n = left < length ? left : length;
    *flags |= NGHTTP2_DATA_FLAG_NO_COPY;
    if (n == left && st->finished) {
        nghttp2_nv nv[2];
        *flags |= NGHTTP2_DATA_FLAG_EOF | NGHTTP2_DATA_FLAG_NO_END_STREAM;
        if (nghttp2_submit_trailer(h2, id, nv, status_headers(st, nv)))
            return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    return (ssize_t)n;
}

static bool output_full(const slu_grpc_session *s)
{
    return s->out.len - s->out_at >= SLU_GRPC_OUTPUT;
}

static int on_send_data(nghttp2_session *h2, nghttp2_frame *frame, const uint8_t *framehd, size_t length,
                        nghttp2_data_source *source, void *user)
{
    (void)h2, (void)source;
    slu_grpc_session *s = user;
    slu_grpc_stream *st = stream_of(s, frame->hd.stream_id);
    if (output_full(s))
        return NGHTTP2_ERR_WOULDBLOCK;
    if (!st || frame->data.padlen) /* we never ask for padding */
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    slu_put_bytes(&s->out, framehd, 9);
    if (length)
        slu_put_bytes(&s->out, st->out.data + st->out_at, length);
    st->out_at += length;
    s->unsent -= length;
    s->data_us = s->now_us;
    if (st->parked && st->out_at == st->out.len)
        slu_grpc_stream_advance(st);
    return 0;
}

static ssize_t on_send(nghttp2_session *h2, const uint8_t *data, size_t length, int flags, void *user)
{
    (void)h2, (void)flags;
    slu_grpc_session *s = user;
    if (output_full(s))
        return NGHTTP2_ERR_WOULDBLOCK;
    slu_put_bytes(&s->out, data, length);
    return (ssize_t)length;
}

void slu_grpc_session_answer(slu_grpc_stream *st)
{
    slu_grpc_session *s = st->session;
    slu_grpc_session_touch(s);
    if (st->answered) {
        nghttp2_session_resume_data(s->h2, st->id); /* refused when it is not deferred: it flows already */
        return;
    }
    st->answered = true;
    nghttp2_nv nv[] = {NV(":status", "200"), NV("content-type", "application/grpc"),
                       NV("grpc-accept-encoding", "identity")};
    nghttp2_data_provider from = {.read_callback = read_out};
    if (nghttp2_submit_response(s->h2, st->id, nv, sizeof nv / sizeof *nv, &from))
        nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_INTERNAL_ERROR);
}

/* A status without an answer before it: everything in one header block that ends the stream. */
static void end_at_once(slu_grpc_stream *st, const char *http)
{
    slu_grpc_session *s = st->session;
    nghttp2_nv nv[5] = {NV(":status", http), NV("content-type", "application/grpc"),
                        NV("grpc-accept-encoding", "identity")};
    size_t n = 3 + status_headers(st, nv + 3);
    st->answered = true;
    if (nghttp2_submit_response(s->h2, st->id, nv, n, NULL))
        nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_INTERNAL_ERROR);
}

static const char *http_status(const slu_grpc_stream *st)
{
    if (!st->headers || st->route)
        return "200";
    return !st->post ? "405" : !st->grpc ? "415" : "200";
}

void slu_grpc_session_end(slu_grpc_stream *st)
{
    slu_grpc_session_touch(st->session);
    if (st->answered)
        nghttp2_session_resume_data(st->session->h2, st->id);
    else
        end_at_once(st, http_status(st));
}

/* Headers. */

static int on_begin_headers(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    slu_grpc_session *s = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0;
    slu_grpc_stream *st = slu_grpc_stream_new(s, frame->hd.stream_id);
    if (!st)
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    if (nghttp2_session_set_stream_user_data(h2, st->id, st)) {
        slu_grpc_stream_free(st);
        return NGHTTP2_ERR_TEMPORAL_CALLBACK_FAILURE;
    }
    return 0;
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
static void note_content_type(slu_grpc_stream *st, const uint8_t *v, size_t n)
{
    static const char base[] = "application/grpc";
    st->grpc = starts(v, n, base) &&
               (n == sizeof base - 1 || v[sizeof base - 1] == '+' || v[sizeof base - 1] == ';');
    if (!st->grpc || n == sizeof base - 1 || v[sizeof base - 1] == ';')
        return;
    v += sizeof base - 1;
    n -= sizeof base - 1;
    st->subtype = !(starts(v, n, "+proto") && (n == 6 || v[6] == ';'));
}

static void note_path(slu_grpc_stream *st, const uint8_t *v, size_t n)
{
    size_t keep = n < sizeof st->path ? n : sizeof st->path - 1;
    memcpy(st->path, v, keep);
    st->path[keep] = 0;
    st->route = slu_grpc_routes_find(st->session->core->routes, v, n);
}

static void note_timeout(slu_grpc_stream *st, const uint8_t *v, size_t n)
{
    int64_t us;
    if (slu_grpc_timeout_parse(v, n, &us))
        st->bad_timeout = true;
    else
        st->deadline_us = st->session->now_us + us;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user)
{
    (void)h2, (void)flags;
    slu_grpc_session *s = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0; /* trailers of a request say nothing to us */
    slu_grpc_stream *st = stream_of(s, frame->hd.stream_id);
    if (!st)
        return 0;
    size_t sum = st->header_bytes + name_len + value_len + 32;
    st->header_bytes = sum > UINT32_MAX ? UINT32_MAX : (uint32_t)sum;
    if (is(name, name_len, ":path"))
        note_path(st, value, value_len);
    else if (is(name, name_len, ":method"))
        st->post = is(value, value_len, "POST");
    else if (is(name, name_len, "content-type"))
        note_content_type(st, value, value_len);
    else if (is(name, name_len, "grpc-timeout"))
        note_timeout(st, value, value_len);
    else if (is(name, name_len, "grpc-encoding"))
        st->identity = is(value, value_len, "identity");
    return 0;
}

/* What can be refused before a byte of the message came, is. */
static void check_headers(slu_grpc_stream *st)
{
    slu_grpc_core *c = st->session->core;
    slu_grpc_route *route = st->route;
    st->headers = true;
    if (!st->post || !st->grpc)
        st->route = NULL;
    if (st->header_bytes > c->limits.max_header_bytes)
        slu_grpc_stream_finish(st, SLU_GRPC_RESOURCE_EXHAUSTED,
                               "%u bytes of headers are over the limit of %u", st->header_bytes,
                               c->limits.max_header_bytes);
    else if (!st->post)
        slu_grpc_stream_finish(st, SLU_GRPC_UNIMPLEMENTED, "gRPC calls are sent with POST");
    else if (!st->grpc)
        slu_grpc_stream_finish(st, SLU_GRPC_INVALID_ARGUMENT, "content-type must be application/grpc");
    else if (st->subtype)
        slu_grpc_stream_finish(
            st, SLU_GRPC_UNIMPLEMENTED,
            "content-type must be application/grpc or application/grpc+proto: protobuf only");
    else if (!route)
        slu_grpc_stream_finish(st, SLU_GRPC_UNIMPLEMENTED, "unknown method %s", st->path);
    else if (st->bad_timeout)
        slu_grpc_stream_finish(st, SLU_GRPC_INVALID_ARGUMENT,
                               "grpc-timeout must be 1 to 8 digits and one of H, M, S, m, u, n");
    else if (st->deadline_us <= st->session->now_us)
        slu_grpc_stream_finish(st, SLU_GRPC_DEADLINE_EXCEEDED, "the deadline passed before the call began");
}

/* Message bytes. */

static void take_unary(slu_grpc_stream *st, const uint8_t *p, size_t n)
{
    size_t taken = 0;
    if (!st->whole) {
        slu_grpc_frame_state state =
            slu_grpc_frame_read(&st->in, p, n, st->session->core->limits.max_request_bytes, &taken);
        if (state > SLU_FRAME_WHOLE) {
            slu_grpc_stream_refuse(st, state);
            return;
        }
        st->whole = state == SLU_FRAME_WHOLE;
    }
    if (taken < n)
        slu_grpc_stream_finish(st, SLU_GRPC_INTERNAL, "more than one request message in a unary call");
}

static void take_bidi(slu_grpc_stream *st, const uint8_t *p, size_t n)
{
    st->begun_us = st->session->now_us;
    slu_put_bytes(&st->raw, p, n);
    if (!st->queued && !st->parked)
        slu_grpc_stream_advance(st);
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *user)
{
    (void)flags;
    slu_grpc_session *s = user;
    slu_grpc_stream *st = stream_of(s, id);
    bool bidi = st && st->route && st->route->kind == SLU_GRPC_BIDI;
    if (bidi && !st->finished)
        nghttp2_session_consume_connection(h2, n);
    else
        nghttp2_session_consume(h2, id, n);
    if (!st || st->finished || !n)
        return 0;
    if (s->buffered + n > s->core->limits.max_buffered) {
        slu_metric_add(s->core->refused_size, 1);
        slu_grpc_stream_finish(st, SLU_GRPC_RESOURCE_EXHAUSTED,
                               "requests of this connection that are not complete hold %zu bytes already",
                               s->buffered);
        return 0;
    }
    if (s->core->limits.max_held && s->core->held + s->buffered + n > s->core->limits.max_held + s->held) {
        slu_metric_add(s->core->refused_held, 1);
        slu_grpc_stream_finish(st, SLU_GRPC_RESOURCE_EXHAUSTED,
                               "requests and unread answers of all clients hold %zu bytes (serving.memory)",
                               s->core->held);
        return 0;
    }
    st->buffered += n;
    s->buffered += n;
    if (bidi)
        take_bidi(st, p, n);
    else
        take_unary(st, p, n);
    return 0;
}

void slu_grpc_session_consumed(slu_grpc_stream *st, size_t n)
{
    if (n)
        nghttp2_session_consume_stream(st->session->h2, st->id, n);
}

static void half_closed(slu_grpc_stream *st)
{
    st->half_closed = true;
    if (st->finished)
        return;
    if (st->route->kind == SLU_GRPC_BIDI) {
        if (!st->queued && !st->parked)
            slu_grpc_stream_advance(st);
    } else if (st->whole) {
        slu_grpc_stream_ready(st);
    } else if (slu_grpc_frame_empty(&st->in)) {
        slu_grpc_stream_finish(st, SLU_GRPC_INTERNAL, "the call ended without a request message");
    } else {
        slu_grpc_stream_finish(st, SLU_GRPC_INTERNAL,
                               "the call ended within its request message: %zu of %u bytes",
                               st->in.message.len, st->in.want);
    }
}

/* Second step of the goodbye: from here on the peer knows which calls will be answered. */
static void goodbye_now(slu_grpc_session *s)
{
    s->goodbye = 2;
    nghttp2_submit_goaway(s->h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(s->h2),
                          NGHTTP2_NO_ERROR, NULL, 0);
    slu_grpc_session_touch(s);
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    (void)h2;
    slu_grpc_session *s = user;
    if (frame->hd.type == NGHTTP2_PING && frame->hd.flags & NGHTTP2_FLAG_ACK && s->goodbye == 1)
        goodbye_now(s);
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    slu_grpc_stream *st = stream_of(s, frame->hd.stream_id);
    if (!st)
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        check_headers(st);
    if (frame->hd.flags & NGHTTP2_FLAG_END_STREAM)
        half_closed(st);
    return 0;
}

/* A call that was answered before its request was whole: tell the peer to stop sending. Only now, since a
 * RST_STREAM overtakes headers that are still in the queue. */
static int on_frame_sent(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    if (frame->hd.type != NGHTTP2_HEADERS || !(frame->hd.flags & NGHTTP2_FLAG_END_STREAM))
        return 0;
    slu_grpc_stream *st = stream_of(user, frame->hd.stream_id);
    if (st && !st->half_closed)
        nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t error_code, void *user)
{
    (void)error_code;
    slu_grpc_session *s = user;
    slu_grpc_stream *st = stream_of(s, id);
    if (!st)
        return 0;
    if (st->finished)
        s->handled++, s->proven = true;
    else
        s->aborted++;
    s->last_call_us = s->now_us;
    nghttp2_session_set_stream_user_data(h2, id, NULL);
    slu_grpc_stream_free(st);
    return 0;
}

int slu_grpc_session_setup(slu_grpc_core *c)
{
    if (nghttp2_session_callbacks_new(&c->callbacks) || nghttp2_option_new(&c->option))
        return SLU_ENOMEM;
    nghttp2_session_callbacks_set_send_callback(c->callbacks, on_send);
    nghttp2_session_callbacks_set_send_data_callback(c->callbacks, on_send_data);
    nghttp2_session_callbacks_set_on_begin_headers_callback(c->callbacks, on_begin_headers);
    nghttp2_session_callbacks_set_on_header_callback(c->callbacks, on_header);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(c->callbacks, on_data);
    nghttp2_session_callbacks_set_on_frame_recv_callback(c->callbacks, on_frame);
    nghttp2_session_callbacks_set_on_frame_send_callback(c->callbacks, on_frame_sent);
    nghttp2_session_callbacks_set_on_stream_close_callback(c->callbacks, on_close);
    nghttp2_option_set_no_auto_window_update(c->option, 1);
    nghttp2_option_set_no_closed_streams(c->option, 1);
    nghttp2_option_set_max_settings(c->option, 32);
    return 0;
}

/* Sessions. */

slu_grpc_session *slu_grpc_session_new(slu_grpc_core *c, void *owner, int64_t now_us)
{
    slu_grpc_session *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->core = c;
    s->owner = owner;
    s->now_us = s->begun_us = s->last_call_us = s->out_us = s->data_us = now_us;
    if (nghttp2_session_server_new2(&s->h2, c->callbacks, s, c->option)) {
        free(s);
        return NULL;
    }
    return s;
}

void slu_grpc_session_free(slu_grpc_session *s)
{
    if (!s)
        return;
    while (s->streams)
        slu_grpc_stream_free(s->streams);
    s->core->held -= s->held;
    untouch(s);
    nghttp2_session_del(s->h2);
    slu_buf_free(&s->out);
    free(s);
}

static int greet(slu_grpc_session *s)
{
    const slu_grpc_limits *l = &s->core->limits;
    nghttp2_settings_entry settings[] = {
        {NGHTTP2_SETTINGS_MAX_CONCURRENT_STREAMS, l->max_streams},
        {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, l->window_bytes},
        {NGHTTP2_SETTINGS_MAX_HEADER_LIST_SIZE, l->max_header_bytes},
    };
    int32_t window = l->window_bytes > INT32_MAX / 4 ? INT32_MAX : (int32_t)l->window_bytes * 4;
    if (nghttp2_submit_settings(s->h2, NGHTTP2_FLAG_NONE, settings, sizeof settings / sizeof *settings) ||
        nghttp2_session_set_local_window_size(s->h2, NGHTTP2_FLAG_NONE, 0, window))
        return SLU_ENOMEM;
    return 0;
}

/* Compares what came with the greeting. Anything that begins like text gets the HTTP/1.1 farewell. */
static int check_greeting(slu_grpc_session *s, const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n && s->greeted < GREETING; i++, s->greeted++) {
        if (p[i] == (uint8_t)greeting[s->greeted])
            continue;
        s->foreign = true;
        if (s->greeted || (p[i] >= 'A' && p[i] <= 'Z'))
            slu_put_bytes(&s->out, http1_answer, sizeof http1_answer - 1);
        return SLU_EFORMAT;
    }
    return s->greeted == GREETING ? greet(s) : 0;
}

/* Streams that are opened and aborted in great numbers are an attack (or a client that needs help): each
 * costs us header work and nobody ever gets an answer. */
static void check_resets(slu_grpc_session *s)
{
    int64_t second = s->now_us / SLU_SECOND_US;
    if (second != s->second) {
        s->second = second;
        s->aborted = s->handled = 0;
    }
    if (s->aborted <= s->core->limits.max_resets || s->aborted / 2 < s->handled)
        return;
    s->aborted = 0;
    slu_metric_add(s->core->refused_resets, 1);
    nghttp2_session_terminate_session(s->h2, NGHTTP2_ENHANCE_YOUR_CALM);
}

int slu_grpc_session_feed(slu_grpc_session *s, const uint8_t *p, size_t n, int64_t now_us)
{
    s->now_us = now_us;
    if (s->foreign || s->broken)
        return SLU_ECLOSED;
    slu_grpc_session_touch(s);
    if (s->greeted < GREETING) {
        int rc = check_greeting(s, p, n);
        if (rc)
            return rc;
    }
    ssize_t used = nghttp2_session_mem_recv(s->h2, p, n);
    check_resets(s);
    slu_grpc_session_account(s);
    if (s->core->limits.max_held && s->calls && s->core->held > 2 * s->core->limits.max_held) {
        slu_metric_add(s->core->refused_held, 1);
        s->broken = true;
        return SLU_ELIMIT;
    }
    if (used < 0) {
        s->broken = true;
        return used == NGHTTP2_ERR_NOMEM ? SLU_ENOMEM : SLU_EFORMAT;
    }
    return 0;
}

size_t slu_grpc_session_output(slu_grpc_session *s, const uint8_t **p)
{
    if (s->out_at == s->out.len) {
        s->out_at = 0;
        slu_buf_clear(&s->out);
    } else if (s->out_at > SLU_GRPC_OUTPUT / 2) {
        memmove(s->out.data, s->out.data + s->out_at, s->out.len - s->out_at);
        s->out.len -= s->out_at;
        s->out_at = 0;
    }
    bool was_empty = !s->out.len;
    if (!s->foreign && !s->broken && s->greeted == GREETING && nghttp2_session_send(s->h2))
        s->broken = true;
    if (was_empty)
        s->out_us = s->now_us;
    slu_grpc_session_account(s);
    *p = s->out.data ? s->out.data + s->out_at : NULL;
    return s->out.len - s->out_at;
}

void slu_grpc_session_sent(slu_grpc_session *s, size_t n, int64_t now_us)
{
    s->now_us = now_us;
    s->out_us = now_us;
    s->out_at += n;
}

static void tick_stream(slu_grpc_stream *st, int64_t now)
{
    slu_grpc_session *s = st->session;
    const slu_grpc_limits *l = &s->core->limits;
    bool late = st->deadline_us <= now;
    if (st->finished) {
        if (late && st->out_at < st->out.len) /* nobody waits for the rest */
            nghttp2_submit_rst_stream(s->h2, NGHTTP2_FLAG_NONE, st->id, NGHTTP2_CANCEL);
        return;
    }
    if (late && !st->queued) {
        slu_grpc_stream_finish(st, SLU_GRPC_DEADLINE_EXCEEDED, "the deadline passed");
        return;
    }
    if (st->queued || st->watching || !st->headers)
        return;
    bool bidi = st->route->kind == SLU_GRPC_BIDI;
    if (now - st->begun_us > (bidi && slu_grpc_frame_empty(&st->in) ? l->idle_us : l->request_us))
        slu_grpc_stream_finish(st, SLU_GRPC_DEADLINE_EXCEEDED,
                               "the request did not arrive whole within %lld s",
                               (long long)(l->request_us / SLU_SECOND_US));
}

int slu_grpc_session_tick(slu_grpc_session *s, int64_t now_us, const char **why)
{
    const slu_grpc_limits *l = &s->core->limits;
    s->now_us = now_us;
    if (s->greeted < GREETING && now_us - s->begun_us > l->greeting_us) {
        *why = "no HTTP/2 greeting";
        return SLU_ECLOSED;
    }
    if ((s->out_at < s->out.len && now_us - s->out_us > l->write_us) ||
        (s->unsent && now_us - s->data_us > l->write_us)) {
        *why = "the peer does not read its answers";
        return SLU_ECLOSED;
    }
    if (s->foreign || s->broken)
        return 0;
    for (slu_grpc_stream *st = s->streams, *next; st; st = next) {
        next = st->next; /* finishing does not free: streams leave when nghttp2 closes them */
        tick_stream(st, now_us);
    }
    if (!s->calls && s->out_at == s->out.len && now_us - s->last_call_us > SLU_SECOND_US) {
        slu_buf_free(
            &s->out); /* thousands of idle connections should not each hold the buffer of their best day */
        s->out_at = 0;
    }
    slu_grpc_session_account(s);
    if (s->goodbye == 1 && now_us - s->goodbye_us > SLU_SECOND_US)
        goodbye_now(s);
    if (!s->calls && !s->goodbye && s->greeted == GREETING && now_us - s->last_call_us > l->idle_us)
        slu_grpc_session_drain(s, now_us);
    if (s->calls || s->goodbye)
        slu_grpc_session_touch(s);
    return 0;
}

void slu_grpc_session_drain(slu_grpc_session *s, int64_t now_us)
{
    static const uint8_t mark[8] = {'g', 'o', 'o', 'd', 'b', 'y', 'e', '.'};
    s->now_us = now_us;
    if (s->goodbye || s->foreign || s->broken)
        return;
    slu_grpc_session_touch(s);
    s->goodbye_us = now_us;
    s->goodbye = 1;
    if (s->greeted < GREETING) { /* nobody to say it to */
        s->foreign = true;
        return;
    }
    nghttp2_submit_shutdown_notice(s->h2);
    nghttp2_submit_ping(s->h2, NGHTTP2_FLAG_NONE, mark);
    for (slu_grpc_stream *st = s->streams, *next; st; st = next) {
        next = st->next;
        if (st->watching) /* has its last answer, or gets it in front of this in slu_grpc_core_run() */
            slu_grpc_stream_finish(st, SLU_GRPC_UNAVAILABLE, "the server is shutting down");
    }
}

bool slu_grpc_session_done(const slu_grpc_session *s)
{
    if (s->out_at < s->out.len)
        return false;
    if (s->foreign || s->broken)
        return true;
    /* After the first step of a goodbye nghttp2 would be content to stop reading, yet calls may be on their
     * way. */
    if (s->greeted < GREETING || nghttp2_session_want_write(s->h2) || s->goodbye == 1)
        return false;
    return !nghttp2_session_want_read(s->h2) || (s->goodbye == 2 && !s->calls);
}

uint32_t slu_grpc_session_calls(const slu_grpc_session *s)
{
    return s->calls;
}

bool slu_grpc_session_busy(const slu_grpc_session *s)
{
    return s->calls || s->goodbye || s->greeted < GREETING || s->out_at < s->out.len;
}

bool slu_grpc_session_proven(const slu_grpc_session *s)
{
    return s->proven;
}

int64_t slu_grpc_session_idle(const slu_grpc_session *s, int64_t now_us)
{
    for (const slu_grpc_stream *st = s->streams; st; st = st->next)
        if (st->queued)
            return -1;
    int64_t since = s->last_call_us;
    if (since < s->out_us)
        since = s->out_us;
    if (since < s->data_us)
        since = s->data_us;
    return now_us - since;
}

bool slu_grpc_session_choked(const slu_grpc_session *s)
{
    return output_full(s);
}
