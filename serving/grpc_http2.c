#include "serving/grpc_http2.h"
#include "serving/grpc_answer.h"

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

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t value_len, uint8_t flags, void *user)
{
    (void)h2, (void)flags;
    slu_grpc_session *s = user;
    if (frame->hd.type != NGHTTP2_HEADERS || frame->headers.cat != NGHTTP2_HCAT_REQUEST)
        return 0; /* trailers of a request say nothing to us */
    slu_grpc_stream *st = slu_grpc_stream_of(s, frame->hd.stream_id);
    if (st)
        slu_grpc_headers_take(&st->head, s->core->routes, s->now_us, name, name_len, value, value_len);
    return 0;
}

static void headers_whole(slu_grpc_stream *st)
{
    char why[SLU_GRPC_WHY];
    const slu_grpc_session *s = st->session;
    st->headers = true;
    int status = slu_grpc_headers_check(&st->head, s->core->limits.max_header_bytes, s->now_us, why);
    if (status)
        slu_grpc_stream_finish(st, status, "%s", why);
}

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
    slu_grpc_stream *st = slu_grpc_stream_of(s, id);
    bool bidi = st && st->head.route && st->head.route->kind == SLU_GRPC_BIDI;
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

void slu_grpc_http2_consumed(slu_grpc_stream *st, size_t n)
{
    if (n)
        nghttp2_session_consume_stream(st->session->h2, st->id, n);
}

static void half_closed(slu_grpc_stream *st)
{
    st->half_closed = true;
    if (st->finished)
        return;
    if (st->head.route->kind == SLU_GRPC_BIDI) {
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

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    (void)h2;
    slu_grpc_session *s = user;
    if (frame->hd.type == NGHTTP2_PING && frame->hd.flags & NGHTTP2_FLAG_ACK && s->goodbye == 1)
        slu_grpc_session_goodbye(s);
    if (frame->hd.type != NGHTTP2_HEADERS && frame->hd.type != NGHTTP2_DATA)
        return 0;
    slu_grpc_stream *st = slu_grpc_stream_of(s, frame->hd.stream_id);
    if (!st)
        return 0;
    if (frame->hd.type == NGHTTP2_HEADERS && frame->headers.cat == NGHTTP2_HCAT_REQUEST)
        headers_whole(st);
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
    slu_grpc_stream *st = slu_grpc_stream_of(user, frame->hd.stream_id);
    if (st && !st->half_closed)
        nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, frame->hd.stream_id, NGHTTP2_NO_ERROR);
    return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t error_code, void *user)
{
    (void)error_code;
    slu_grpc_session *s = user;
    slu_grpc_stream *st = slu_grpc_stream_of(s, id);
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

int slu_grpc_http2_setup(slu_grpc_core *c)
{
    if (nghttp2_session_callbacks_new(&c->callbacks) || nghttp2_option_new(&c->option))
        return SLU_ENOMEM;
    slu_grpc_answer_setup(c->callbacks);
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
