#include "sim/grpc_client.h"
#include "base/address.h"
#include "base/clock.h"
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SLOTS        64
#define PREFIX       5
#define MAX_RESPONSE ((size_t)256 << 20)
#define WINDOW       (4 << 20)

typedef struct slot {
    bool used, closed;
    int32_t stream;
    int64_t until_us; /* monotonic; INT64_MAX: none */
    slu_buf request;  /* with prefix; sent of it is in frames */
    size_t sent;
    slu_buf response; /* with prefix */
    int status;       /* grpc-status, -1 until it came */
    int http;
    char text[512];
} slot;

struct slu_grpc_client {
    int fd;
    slu_client_tls *tls; /* NULL: plain */
    nghttp2_session *h2;
    slu_buf out; /* frames for the socket; out_at of them are sent */
    size_t out_at;
    bool greeted; /* the server's SETTINGS came */
    bool broken;
    char why[256];
    char authority[256];
    slot slots[SLOTS];
};

static int64_t now_us(void)
{
    return slu_mono_us(&slu_system_clock);
}

static void fail(slu_grpc_client *c, const char *what, const char *detail)
{
    if (!c->broken)
        snprintf(c->why, sizeof c->why, "%s%s%s", what, *detail ? ": " : "", detail);
    c->broken = true;
}

static ssize_t on_send(nghttp2_session *h2, const uint8_t *p, size_t n, int flags, void *user)
{
    (void)h2, (void)flags;
    slu_put_bytes(&((slu_grpc_client *)user)->out, p, n);
    return (ssize_t)n;
}

static slot *slot_of(nghttp2_session *h2, int32_t id)
{
    return nghttp2_session_get_stream_user_data(h2, id);
}

static int on_data(nghttp2_session *h2, uint8_t flags, int32_t id, const uint8_t *p, size_t n, void *user)
{
    (void)flags, (void)user;
    slot *s = slot_of(h2, id);
    if (!s || !n)
        return 0;
    if (s->response.len + n > MAX_RESPONSE) {
        snprintf(s->text, sizeof s->text, "the answer is larger than this client takes");
        s->status = 8;
        return nghttp2_submit_rst_stream(h2, NGHTTP2_FLAG_NONE, id, NGHTTP2_CANCEL);
    }
    slu_put_bytes(&s->response, p, n);
    return 0;
}

static int hex(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
                                  : -1;
}

/* grpc-message is percent-encoded. */
static void decode(char *out, size_t size, const uint8_t *p, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n && len + 1 < size; i++) {
        bool escape = p[i] == '%' && n - i > 2 && hex(p[i + 1]) >= 0 && hex(p[i + 2]) >= 0;
        out[len++] = escape ? (char)(hex(p[i + 1]) << 4 | hex(p[i + 2])) : (char)p[i];
        i += escape ? 2 : 0;
    }
    out[len] = 0;
}

static int small_number(const uint8_t *p, size_t n, int max)
{
    int v = 0;
    if (!n || n > 3)
        return -1;
    for (size_t i = 0; i < n; i++) {
        if (p[i] < '0' || p[i] > '9')
            return -1;
        v = v * 10 + (p[i] - '0');
    }
    return v <= max ? v : -1;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t len, uint8_t flags, void *user)
{
    (void)flags, (void)user;
    slot *s = slot_of(h2, frame->hd.stream_id);
    if (!s)
        return 0;
    if (name_len == 11 && !memcmp(name, "grpc-status", 11))
        s->status = small_number(value, len, 16) < 0 ? 2 : small_number(value, len, 16);
    else if (name_len == 12 && !memcmp(name, "grpc-message", 12))
        decode(s->text, sizeof s->text, value, len);
    else if (name_len == 7 && !memcmp(name, ":status", 7))
        s->http = small_number(value, len, 999);
    return 0;
}

static int on_frame(nghttp2_session *h2, const nghttp2_frame *frame, void *user)
{
    (void)h2;
    slu_grpc_client *c = user;
    if (frame->hd.type == NGHTTP2_SETTINGS && !(frame->hd.flags & NGHTTP2_FLAG_ACK))
        c->greeted = true;
    return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t error_code, void *user)
{
    (void)user;
    slot *s = slot_of(h2, id);
    if (!s)
        return 0;
    s->closed = true;
    if (s->status < 0) { /* a stream that ended without a status: say what HTTP/2 said */
        s->status = error_code == NGHTTP2_REFUSED_STREAM ? 14 : error_code == NGHTTP2_CANCEL ? 1 : 13;
        snprintf(s->text, sizeof s->text, "the stream ended without a status (HTTP %d, %s)", s->http,
                 nghttp2_http2_strerror(error_code));
    }
    return 0;
}

/* A call that could not begin, as after a GOAWAY. */
static int on_not_sent(nghttp2_session *h2, const nghttp2_frame *frame, int error, void *user)
{
    (void)user;
    slot *s = frame->hd.type == NGHTTP2_HEADERS ? slot_of(h2, frame->hd.stream_id) : NULL;
    if (!s || s->closed)
        return 0;
    s->closed = true;
    s->status = 14;
    snprintf(s->text, sizeof s->text, "the call was not sent: %s", nghttp2_strerror(error));
    return 0;
}

static ssize_t read_request(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t length, uint32_t *flags,
                            nghttp2_data_source *source, void *user)
{
    (void)h2, (void)id, (void)user;
    slot *s = source->ptr;
    size_t left = s->request.len - s->sent, n = left < length ? left : length;
    memcpy(buf, s->request.data + s->sent, n);
    s->sent += n;
    if (n == left)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static int session_new(slu_grpc_client *c)
{
    nghttp2_session_callbacks *cb;
    if (nghttp2_session_callbacks_new(&cb))
        return SLU_ENOMEM;
    nghttp2_session_callbacks_set_send_callback(cb, on_send);
    nghttp2_session_callbacks_set_on_data_chunk_recv_callback(cb, on_data);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_frame_recv_callback(cb, on_frame);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    nghttp2_session_callbacks_set_on_frame_not_send_callback(cb, on_not_sent);
    int rc = nghttp2_session_client_new(&c->h2, cb, c);
    nghttp2_session_callbacks_del(cb);
    if (rc)
        return SLU_ENOMEM;
    nghttp2_settings_entry settings[] = {{NGHTTP2_SETTINGS_ENABLE_PUSH, 0},
                                         {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, WINDOW}};
    rc = nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, settings, 2);
    return rc || nghttp2_session_set_local_window_size(c->h2, NGHTTP2_FLAG_NONE, 0, WINDOW * 4) ? SLU_ENOMEM
                                                                                                : 0;
}

/* -1: no limit. */
static int ms_until(int64_t until_us)
{
    if (until_us == INT64_MAX)
        return -1;
    int64_t left = until_us - now_us();
    return left <= 0 ? 0 : left > 3600 * SLU_SECOND_US ? 3600 * 1000 : (int)((left + 999) / 1000);
}

static void send_some(slu_grpc_client *c)
{
    if (nghttp2_session_send(c->h2))
        fail(c, "HTTP/2 session failed", "");
    while (!c->broken && c->out_at < c->out.len) {
        const uint8_t *p = c->out.data + c->out_at;
        size_t left = c->out.len - c->out_at;
        ssize_t n = c->tls ? slu_client_tls_send(c->tls, p, left) : send(c->fd, p, left, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return;
        if (n < 0)
            fail(c, "the connection broke", c->tls ? slu_client_tls_why(c->tls) : strerror(errno));
        else
            c->out_at += (size_t)n;
    }
    c->out_at = 0;
    slu_buf_clear(&c->out);
}

static void receive_some(slu_grpc_client *c)
{
    uint8_t bytes[32 << 10];
    ssize_t n =
        c->tls ? slu_client_tls_recv(c->tls, bytes, sizeof bytes) : recv(c->fd, bytes, sizeof bytes, 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == EWOULDBLOCK))
        return;
    if (n <= 0) {
        fail(c, "the server closed the connection",
             n == 0   ? ""
             : c->tls ? slu_client_tls_why(c->tls)
                      : strerror(errno));
        return;
    }
    ssize_t used = nghttp2_session_mem_recv(c->h2, bytes, (size_t)n);
    if (used < 0)
        fail(c, "the server does not speak HTTP/2", nghttp2_strerror((int)used));
    else if (!nghttp2_session_want_read(c->h2) && !nghttp2_session_want_write(c->h2))
        fail(c, "the server said goodbye", "");
}

/* One turn of sending and receiving; false when |until_us| has passed. */
static bool turn(slu_grpc_client *c, int64_t until_us)
{
    send_some(c);
    if (c->broken)
        return true;
    struct pollfd p = {.fd = c->fd, .events = POLLIN | (c->out_at < c->out.len ? POLLOUT : 0)};
    int n = poll(&p, 1, ms_until(until_us));
    if (n == 0)
        return now_us() < until_us;
    if (n > 0 && p.revents & (POLLIN | POLLHUP | POLLERR))
        receive_some(c);
    return true;
}

static int connect_one(const struct addrinfo *to, int64_t until_us)
{
    int on = 1, rc, problem = 0;
    socklen_t len = sizeof problem;
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (connect(fd, to->ai_addr, to->ai_addrlen) && errno != EINPROGRESS)
        goto fail_connect;
    struct pollfd p = {.fd = fd, .events = POLLOUT};
    do
        rc = poll(&p, 1, ms_until(until_us));
    while (rc < 0 && errno == EINTR);
    if (rc == 0)
        problem = ETIMEDOUT;
    else if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &problem, &len))
        problem = errno;
    if (problem) {
        errno = problem;
        goto fail_connect;
    }
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
fail_connect:
    problem = errno;
    close(fd);
    errno = problem;
    return -1;
}

static int connect_any(const char *address, slu_address *to, int64_t until_us, slu_error *err)
{
    int rc = slu_address_parse(address, to, err), fd = -1;
    if (rc)
        return rc;
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    rc = getaddrinfo(*to->host ? to->host : NULL, to->port, &hints, &found);
    if (rc)
        return slu_fail(err, SLU_EIO, "%s: %s", address, gai_strerror(rc));
    for (const struct addrinfo *a = found; a && fd < 0; a = a->ai_next)
        fd = connect_one(a, until_us);
    int problem = errno;
    freeaddrinfo(found);
    if (fd < 0)
        return slu_fail(err, problem == ETIMEDOUT ? SLU_EAGAIN : SLU_EIO, "%s: %s", address,
                        strerror(problem));
    return fd;
}

static int shake_hands(slu_grpc_client *c, const slu_client_tls_files *files, const char *host,
                       int64_t until_us, slu_error *err)
{
    int rc = slu_client_tls_new(files, host, c->fd, &c->tls, err);
    short events = POLLIN;
    while (!rc && !(rc = slu_client_tls_shake(c->tls, &events, err))) {
        struct pollfd p = {.fd = c->fd, .events = events};
        if (poll(&p, 1, ms_until(until_us)) == 0 && now_us() >= until_us)
            rc =
                slu_fail(err, SLU_EAGAIN, "no TLS handshake within the time-out; does the server speak TLS?");
    }
    if (rc < 0)
        slu_error_context(err, "%s", c->authority);
    return rc < 0 ? rc : 0;
}

int slu_grpc_client_connect(const char *address, int64_t timeout_us, slu_grpc_client **cp, slu_error *err)
{
    return slu_grpc_client_connect_tls(address, NULL, timeout_us, cp, err);
}

int slu_grpc_client_connect_tls(const char *address, const slu_client_tls_files *tls, int64_t timeout_us,
                                slu_grpc_client **cp, slu_error *err)
{
    int64_t until = now_us() + timeout_us;
    slu_address to;
    *cp = NULL;
    int fd = connect_any(address, &to, until, err);
    if (fd < 0)
        return fd;
    slu_grpc_client *c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return slu_fail(err, SLU_ENOMEM, "out of memory for a gRPC client");
    }
    c->fd = fd;
    snprintf(c->authority, sizeof c->authority, "%s", address);
    int rc = tls ? shake_hands(c, tls, to.host, until, err) : 0;
    if (!rc && (rc = session_new(c)))
        slu_fail(err, rc, "out of memory for a gRPC client");
    while (!rc && !c->greeted && !c->broken)
        if (!turn(c, until))
            rc = slu_fail(err, SLU_EAGAIN, "%s: no HTTP/2 greeting within the time-out", address);
    if (!rc && c->broken)
        rc = slu_fail(err, SLU_EIO, "%s: %s", address, c->why);
    if (rc)
        slu_grpc_client_free(c);
    else
        *cp = c;
    return rc;
}

void slu_grpc_client_free(slu_grpc_client *c)
{
    if (!c)
        return;
    if (c->h2 && !c->broken) {
        nghttp2_session_terminate_session(c->h2, NGHTTP2_NO_ERROR);
        send_some(c);
    }
    nghttp2_session_del(c->h2);
    slu_client_tls_free(c->tls);
    close(c->fd);
    slu_buf_free(&c->out);
    for (int i = 0; i < SLOTS; i++) {
        slu_buf_free(&c->slots[i].request);
        slu_buf_free(&c->slots[i].response);
    }
    free(c);
}

static void say(char *message, size_t size, const char *text)
{
    if (message && size)
        snprintf(message, size, "%s", text);
}

static int free_slot(const slu_grpc_client *c)
{
    for (int i = 0; i < SLOTS; i++)
        if (!c->slots[i].used)
            return i;
    return -1;
}

#define NV(n, v)                                                                                             \
    {                                                                                                        \
        (uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), NGHTTP2_NV_FLAG_NONE                           \
    }

/* grpc-timeout holds 8 digits: the finest unit that fits. */
static void format_timeout(char *out, size_t size, int64_t us)
{
    static const struct {
        int64_t us;
        char unit;
    } units[] = {{1, 'u'}, {1000, 'm'}, {SLU_SECOND_US, 'S'}, {3600 * SLU_SECOND_US, 'H'}};
    size_t i = 0;
    while (i < 3 && us / units[i].us > 99999999)
        i++;
    snprintf(out, size, "%lld%c", (long long)(us / units[i].us), units[i].unit);
}

int slu_grpc_client_start(slu_grpc_client *c, const char *path, const void *request, size_t len,
                          int64_t timeout_us, char *message, size_t size)
{
    int i = free_slot(c);
    if (c->broken || i < 0 || len > UINT32_MAX) {
        say(message, size,
            c->broken ? c->why
            : i < 0   ? "too many calls at once"
                      : "the request is too large");
        return -1;
    }
    slot *s = &c->slots[i];
    bool timed = timeout_us > 0 && timeout_us < INT64_MAX / 2;
    uint8_t prefix[PREFIX] = {0, (uint8_t)(len >> 24), (uint8_t)(len >> 16), (uint8_t)(len >> 8),
                              (uint8_t)len};
    slu_buf_clear(&s->request);
    slu_buf_clear(&s->response);
    slu_put_bytes(&s->request, prefix, sizeof prefix);
    if (len)
        slu_put_bytes(&s->request, request, len);
    s->sent = 0;
    s->closed = false;
    s->status = -1;
    s->http = 0;
    s->text[0] = 0;
    s->until_us = timed ? now_us() + timeout_us : INT64_MAX;
    char timeout[32];
    format_timeout(timeout, sizeof timeout, timed ? timeout_us : 1);
    nghttp2_nv nv[] = {NV(":method", "POST"),      NV(":scheme", c->tls ? "https" : "http"),
                       NV(":path", path),          NV(":authority", c->authority),
                       NV("te", "trailers"),       NV("content-type", "application/grpc"),
                       NV("grpc-timeout", timeout)};
    nghttp2_data_provider from = {.source.ptr = s, .read_callback = read_request};
    s->stream = nghttp2_submit_request(c->h2, NULL, nv, timed ? 7 : 6, &from, s);
    if (s->stream < 0) {
        fail(c, "cannot begin a call", nghttp2_strerror(s->stream));
        say(message, size, c->why);
        return -1;
    }
    s->used = true;
    send_some(c);
    return i;
}

/* Forgets the stream, so that late frames of it find no slot. */
static void release(slu_grpc_client *c, slot *s)
{
    if (!s->closed && !c->broken) {
        nghttp2_session_set_stream_user_data(c->h2, s->stream, NULL);
        nghttp2_submit_rst_stream(c->h2, NGHTTP2_FLAG_NONE, s->stream, NGHTTP2_CANCEL);
        send_some(c);
    }
    s->used = false;
}

int slu_grpc_client_wait(slu_grpc_client *c, int i, slu_buf *response, char *message, size_t size)
{
    slot *s = &c->slots[i];
    slu_buf_clear(response);
    say(message, size, "");
    bool in_time = true;
    while (!s->closed && !c->broken && in_time)
        in_time = turn(c, s->until_us);
    int status = s->status;
    if (!s->closed && c->broken) {
        say(message, size, c->why);
        status = -1;
    } else if (!s->closed) {
        say(message, size, "no answer within the time-out");
        status = 4;
    } else if (status) {
        say(message, size, s->text);
    } else if (s->response.len < PREFIX || s->response.data[0]) {
        say(message, size, "the answer holds no uncompressed message");
        status = 13;
    } else if (s->response.len > PREFIX) {
        slu_put_bytes(response, s->response.data + PREFIX, s->response.len - PREFIX);
    }
    release(c, s);
    return status;
}

int slu_grpc_client_call(slu_grpc_client *c, const char *path, const void *request, size_t len,
                         int64_t timeout_us, slu_buf *response, char *message, size_t size)
{
    int i = slu_grpc_client_start(c, path, request, len, timeout_us, message, size);
    return i < 0 ? -1 : slu_grpc_client_wait(c, i, response, message, size);
}
