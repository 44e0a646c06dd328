#include "serving/grpc_answer.h"
#include "serving/grpc_session.h"
#include <string.h>

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

static int on_send_data(nghttp2_session *h2, nghttp2_frame *frame, const uint8_t *framehd, size_t length,
                        nghttp2_data_source *source, void *user)
{
    (void)h2, (void)source;
    slu_grpc_session *s = user;
    slu_grpc_stream *st = slu_grpc_stream_of(s, frame->hd.stream_id);
    if (slu_grpc_session_choked(s))
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
    if (slu_grpc_session_choked(s))
        return NGHTTP2_ERR_WOULDBLOCK;
    slu_put_bytes(&s->out, data, length);
    return (ssize_t)length;
}

void slu_grpc_answer_flow(slu_grpc_stream *st)
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

void slu_grpc_answer_end(slu_grpc_stream *st)
{
    slu_grpc_session_touch(st->session);
    if (st->answered)
        nghttp2_session_resume_data(st->session->h2, st->id);
    else
        end_at_once(st, slu_grpc_headers_http(&st->head, st->headers));
}

void slu_grpc_answer_setup(nghttp2_session_callbacks *callbacks)
{
    nghttp2_session_callbacks_set_send_callback(callbacks, on_send);
    nghttp2_session_callbacks_set_send_data_callback(callbacks, on_send_data);
}
