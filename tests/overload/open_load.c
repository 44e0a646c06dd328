/* open_load HOST:PORT REQUEST RATE SECONDS CONNECTIONS DEADLINE_MS SHORT_EVERY SHORT_MS: asks a scorer
 * whether it keeps up or not.
 *
 * REQUEST is a file with one framed ScoreRequest (bench/load request). With a RATE the calls begin by the
 * clock, whatever has become of those before (an open loop, as many users are); RATE 0: each connection has
 * one call at a time (a closed loop). Each call has DEADLINE_MS, every SHORT_EVERY-th (0: none) only
 * SHORT_MS. The deadlines are the server's business: here a call ends with its answer, or without one
 * GRACE_US after the last began.
 *
 * Prints key=value lines: what was sent, how it was answered, milliseconds from when a call was due to its
 * answer, and lag: how late this program itself began the calls. */
#include "base/clock.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <nghttp2/nghttp2.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MOST_CONNECTIONS = 256, STATUSES = 17, NO_STATUS = -1, GRACE_US = 20 * 1000 * 1000, DEADLINE = 4 };

typedef struct call {
    int64_t due_us, ended_us; /* monotonic; 0: not yet */
    size_t sent;              /* of the request */
    int status;
    unsigned answers; /* times that a status came */
    bool is_short;
} call;

typedef struct conn {
    int fd;
    nghttp2_session *h2;
    bool waits_to_write;
} conn;

typedef struct load {
    uint8_t *request;
    size_t request_len;
    char deadline[32], short_deadline[32];
    uint64_t short_every;
    call *calls; /* (most) */
    size_t n, most, open;
    double *lags; /* (most) ms */
    conn conns[MOST_CONNECTIONS];
    unsigned n_conns;
    int poll;
} load;

static load l;

static int64_t now_us(void)
{
    return slu_mono_us(&slu_system_clock);
}

static void die(const char *what)
{
    fprintf(stderr, "open_load: %s (%s)\n", what, strerror(errno));
    exit(1);
}

/* ---- HTTP/2 ---- */

static ssize_t on_send(nghttp2_session *h2, const uint8_t *p, size_t n, int flags, void *user)
{
    (void)h2, (void)flags;
    conn *c = user;
    ssize_t w = send(c->fd, p, n, MSG_NOSIGNAL);
    if (w >= 0)
        return w;
    return errno == EAGAIN || errno == EINTR ? NGHTTP2_ERR_WOULDBLOCK : NGHTTP2_ERR_CALLBACK_FAILURE;
}

static ssize_t on_request(nghttp2_session *h2, int32_t id, uint8_t *buf, size_t room, uint32_t *flags,
                          nghttp2_data_source *source, void *user)
{
    (void)h2, (void)id, (void)user;
    call *k = source->ptr;
    size_t n = l.request_len - k->sent;
    n = n < room ? n : room;
    memcpy(buf, l.request + k->sent, n);
    k->sent += n;
    if (k->sent == l.request_len)
        *flags |= NGHTTP2_DATA_FLAG_EOF;
    return (ssize_t)n;
}

static int on_header(nghttp2_session *h2, const nghttp2_frame *frame, const uint8_t *name, size_t name_len,
                     const uint8_t *value, size_t len, uint8_t flags, void *user)
{
    (void)flags, (void)user;
    call *k = nghttp2_session_get_stream_user_data(h2, frame->hd.stream_id);
    if (!k || name_len != 11 || memcmp(name, "grpc-status", 11))
        return 0;
    char text[8] = "";
    memcpy(text, value, len < 7 ? len : 7);
    k->status = atoi(text);
    k->answers++;
    return 0;
}

static int on_close(nghttp2_session *h2, int32_t id, uint32_t code, void *user)
{
    (void)code, (void)user;
    call *k = nghttp2_session_get_stream_user_data(h2, id);
    if (k && !k->ended_us) {
        k->ended_us = now_us();
        l.open--;
    }
    return 0;
}

static void begin_session(conn *c)
{
    nghttp2_session_callbacks *cb;
    nghttp2_session_callbacks_new(&cb);
    nghttp2_session_callbacks_set_send_callback(cb, on_send);
    nghttp2_session_callbacks_set_on_header_callback(cb, on_header);
    nghttp2_session_callbacks_set_on_stream_close_callback(cb, on_close);
    if (nghttp2_session_client_new(&c->h2, cb, c))
        die("out of memory");
    nghttp2_session_callbacks_del(cb);
    nghttp2_settings_entry window = {NGHTTP2_SETTINGS_INITIAL_WINDOW_SIZE, 4 << 20};
    nghttp2_submit_settings(c->h2, NGHTTP2_FLAG_NONE, &window, 1);
    nghttp2_session_set_local_window_size(c->h2, NGHTTP2_FLAG_NONE, 0, 16 << 20);
}

static void flush(conn *c)
{
    if (nghttp2_session_send(c->h2))
        die("the connection broke while sending");
    bool more = nghttp2_session_want_write(c->h2) && nghttp2_session_get_remote_window_size(c->h2) > 0;
    if (more == c->waits_to_write)
        return;
    struct epoll_event e = {.events = EPOLLIN | (more ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(l.poll, EPOLL_CTL_MOD, c->fd, &e);
    c->waits_to_write = more;
}

static void take(conn *c)
{
    static uint8_t bytes[256 << 10];
    ssize_t n = recv(c->fd, bytes, sizeof bytes, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0)
        die("the server closed a connection");
    if (nghttp2_session_mem_recv(c->h2, bytes, (size_t)n) != n)
        die("what the server sends is no HTTP/2");
}

static void begin_call(conn *c, int64_t due_us);

static void connect_all(const char *address, unsigned n)
{
    char host[64];
    const char *colon = strrchr(address, ':');
    if (!colon || colon - address >= (long)sizeof host || !n || n > MOST_CONNECTIONS)
        die("HOST:PORT and up to 256 connections");
    snprintf(host, sizeof host, "%.*s", (int)(colon - address), address);
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(colon + 1))};
    inet_pton(AF_INET, host, &to.sin_addr);
    l.poll = epoll_create1(0);
    for (; l.n_conns < n; l.n_conns++) {
        conn *c = &l.conns[l.n_conns];
        int on = 1;
        c->fd = socket(AF_INET, SOCK_STREAM, 0);
        if (c->fd < 0 || connect(c->fd, (struct sockaddr *)&to, sizeof to))
            die("cannot connect");
        setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        fcntl(c->fd, F_SETFL, O_NONBLOCK);
        struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
        epoll_ctl(l.poll, EPOLL_CTL_ADD, c->fd, &e);
        begin_session(c);
        begin_call(c, now_us()); /* as clients do: they connect because they want to ask */
        flush(c);
    }
}

/* ---- calls ---- */

#define HEADER(n, v)                                                                                         \
    {                                                                                                        \
        (uint8_t *)(n), (uint8_t *)(v), strlen(n), strlen(v), NGHTTP2_NV_FLAG_NONE                           \
    }

static void begin_call(conn *c, int64_t due_us)
{
    if (l.n == l.most)
        die("more calls than there is room for");
    call *k = &l.calls[l.n];
    *k = (call){.due_us = due_us, .status = NO_STATUS, .is_short = l.short_every && l.n % l.short_every == 0};
    l.lags[l.n++] = (double)(now_us() - due_us) / 1e3;
    const nghttp2_nv headers[] = {HEADER(":method", "POST"),
                                  HEADER(":scheme", "http"),
                                  HEADER(":path", "/sluice.v1.Scoring/Score"),
                                  HEADER(":authority", "scorer"),
                                  HEADER("content-type", "application/grpc"),
                                  HEADER("te", "trailers"),
                                  HEADER("grpc-timeout", k->is_short ? l.short_deadline : l.deadline)};
    nghttp2_data_provider body = {.source.ptr = k, .read_callback = on_request};
    if (nghttp2_submit_request(c->h2, NULL, headers, sizeof headers / sizeof *headers, &body, k) < 0)
        die("a call could not begin");
    l.open++;
}

static void wait_until(int64_t until_us)
{
    struct epoll_event events[64];
    for (unsigned i = 0; i < l.n_conns; i++) /* calls have begun since */
        flush(&l.conns[i]);
    int64_t us = until_us - now_us();
    int n = epoll_wait(l.poll, events, 64, us <= 0 ? 0 : us < 1000 ? 1 : (int)(us / 1000));
    for (int i = 0; i < n; i++)
        take(events[i].data.ptr);
    for (unsigned i = 0; i < l.n_conns; i++)
        flush(&l.conns[i]);
}

static void open_loop(double rate, int64_t began, int64_t until)
{
    uint64_t i = 0;
    for (int64_t now; (now = now_us()) < until;) {
        int64_t due;
        while ((due = began + (int64_t)((double)i * 1e6 / rate)) <= now && due < until)
            begin_call(&l.conns[i++ % l.n_conns], due);
        wait_until(due);
    }
}

static void closed_loop(int64_t until)
{
    call *last[MOST_CONNECTIONS] = {0};
    for (int64_t now; (now = now_us()) < until;) {
        for (unsigned i = 0; i < l.n_conns; i++)
            if (!last[i] || last[i]->ended_us) {
                last[i] = &l.calls[l.n];
                begin_call(&l.conns[i], now);
            }
        wait_until(now + 1000);
    }
}

/* ---- report ---- */

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_quantiles(const char *name, double *ms, size_t n)
{
    qsort(ms, n, sizeof *ms, by_size);
    printf("%s_p50_ms=%.2f\n%s_p99_ms=%.2f\n%s_max_ms=%.2f\n", name, n ? ms[n / 2] : 0, name,
           n ? ms[n * 99 / 100] : 0, name, n ? ms[n - 1] : 0);
}

static void report(void)
{
    static const struct {
        const char *name;
        int status;
    } known[] = {{"ok", 0}, {"exhausted", 8}, {"expired", DEADLINE}};
    double *ms = malloc((l.n + 1) * sizeof *ms);
    uint64_t other = 0, unanswered = 0, doubled = 0, shorts = 0, short_expired = 0;
    printf("sent=%zu\n", l.n);
    for (int s = 0; s < 3; s++) {
        size_t n = 0;
        for (size_t i = 0; i < l.n; i++)
            if (l.calls[i].ended_us && l.calls[i].status == known[s].status)
                ms[n++] = (double)(l.calls[i].ended_us - l.calls[i].due_us) / 1e3;
        printf("%s=%zu\n", known[s].name, n);
        print_quantiles(known[s].name, ms, n);
    }
    for (size_t i = 0; i < l.n; i++) {
        const call *k = &l.calls[i];
        unanswered += !k->ended_us || !k->answers;
        doubled += k->answers > 1;
        other += k->answers && k->status != 0 && k->status != 8 && k->status != DEADLINE;
        shorts += k->is_short;
        short_expired += k->is_short && k->status == DEADLINE;
    }
    printf("other=%" PRIu64 "\nunanswered=%" PRIu64 "\ndoubled=%" PRIu64 "\nshort=%" PRIu64
           "\nshort_expired=%" PRIu64 "\n",
           other, unanswered, doubled, shorts, short_expired);
    print_quantiles("lag", l.lags, l.n);
    free(ms);
}

static void read_request(const char *path)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        die(path);
    l.request = malloc(16 << 20);
    l.request_len = fread(l.request, 1, 16 << 20, f);
    fclose(f);
}

int main(int argc, char **argv)
{
    if (argc != 9)
        die("HOST:PORT REQUEST RATE SECONDS CONNECTIONS DEADLINE_MS SHORT_EVERY SHORT_MS");
    double rate = atof(argv[3]), seconds = atof(argv[4]);
    read_request(argv[2]);
    snprintf(l.deadline, sizeof l.deadline, "%sm", argv[6]);
    l.short_every = strtoull(argv[7], NULL, 10);
    snprintf(l.short_deadline, sizeof l.short_deadline, "%sm", argv[8]);
    l.most = (size_t)((rate > 0 ? rate : 100000) * seconds) + 1000;
    l.calls = calloc(l.most, sizeof *l.calls);
    l.lags = calloc(l.most, sizeof *l.lags);
    connect_all(argv[1], (unsigned)atoi(argv[5]));
    int64_t began = now_us(), until = began + (int64_t)(seconds * 1e6);
    if (rate > 0)
        open_loop(rate, began, until);
    else
        closed_loop(until);
    for (int64_t end = until + GRACE_US; l.open && now_us() < end;)
        wait_until(now_us() + 1000);
    printf("seconds=%.3f\n", seconds);
    report();
    return 0;
}
