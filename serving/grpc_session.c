#include "serving/grpc_session.h"
#include "serving/grpc_stream.h"
#include <stdlib.h>
#include <string.h>

static const char greeting[] = NGHTTP2_CLIENT_MAGIC;
#define GREETING (sizeof greeting - 1)

/* Who speaks HTTP/1.1 gets an answer that a person can read in any browser or log. */
static const char http1_answer[] =
    "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 78\r\n\r\n"
    "This port speaks gRPC over HTTP/2 (h2c, prior knowledge); use a gRPC client.\r\n";

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

void slu_grpc_session_goodbye(slu_grpc_session *s)
{
    s->goodbye = 2;
    nghttp2_submit_goaway(s->h2, NGHTTP2_FLAG_NONE, nghttp2_session_get_last_proc_stream_id(s->h2),
                          NGHTTP2_NO_ERROR, NULL, 0);
    slu_grpc_session_touch(s);
}

static void tick_stream(slu_grpc_stream *st, int64_t now)
{
    slu_grpc_session *s = st->session;
    const slu_grpc_limits *l = &s->core->limits;
    bool late = st->head.deadline_us <= now;
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
    bool bidi = st->head.route->kind == SLU_GRPC_BIDI;
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
        slu_grpc_session_goodbye(s);
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
    return s->out.len - s->out_at >= SLU_GRPC_OUTPUT;
}
