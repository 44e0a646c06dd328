#include "serving/grpc_loop.h"
#include "base/log.h"
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define EVENTS     128
#define READ_BYTES ((size_t)128 << 10)
#define FLUSH_BYTES                                                                                          \
    ((size_t)1 << 20) /* of one connection and round, so that one fast reader starves nobody */
#define ACCEPT_ROUND    64
#define ACCEPT_US       500 /* of one round, so that a flood of connections leaves time for those that ask */
#define SLICE_US        1000
#define HANDSHAKES_US   2000 /* of one round */
#define LOOKS           64   /* at connections, for one that makes room */
#define IDLE_LEAST_US   SLU_SECOND_US
#define TICK_BUSY_US    (100 * 1000)
#define TICK_IDLE_US    (10 * SLU_SECOND_US)
#define LINGER_US       SLU_SECOND_US
#define KEEPALIVE_S     60
#define USER_TIMEOUT_MS 60000

typedef struct conn {
    struct conn *next, *prev;
    int fd;
    uint32_t events;           /* as registered */
    slu_tls_conn *tls;         /* NULL: plain text */
    size_t sealed;             /* plain bytes that are in the TLS output and not yet sent */
    int64_t handshake_us;      /* until then */
    slu_grpc_session *session; /* NULL: the handshake is not over */
    bool shaking;              /* in a TLS handshake */
    bool closing;              /* nothing more to say; waits for the peer's end */
    int64_t closing_us;        /* until then */
} conn;

/* Newest first, but idlest_gives_way() moves those that it looked at to the front. */
typedef struct conn_list {
    conn *newest, *oldest;
} conn_list;

struct slu_grpc_loop {
    slu_grpc_shared *shared;
    slu_grpc_core *core;
    uint32_t index;
    int poll, wake, listener;
    bool listening; /* the listener is in the poll set */
    pthread_t thread;
    conn_list lists[2]; /* with a session; in a handshake, so that the oldest of those is at hand */
    uint32_t n_conns;
    uint32_t handshakes;         /* open ones */
    int64_t handshakes_until_us; /* in this round */
    conn *dead; /* closed in this round; freed at its end, since events may still point at them */
    int64_t now_us, next_tick_us;
    int64_t cpu_ns;   /* of this thread, at the end of the last round */
    unsigned changes; /* of health, seen */
    bool busy;        /* at the last tick */
    bool draining;
    uint32_t cut;
    uint8_t *bytes; /* (READ_BYTES) */
};

enum { TALKING, SHAKING };

static conn_list *list_of(slu_grpc_loop *l, const conn *c)
{
    return &l->lists[c->shaking ? SHAKING : TALKING];
}

static void link_conn(slu_grpc_loop *l, conn *c)
{
    conn_list *in = list_of(l, c);
    c->prev = NULL;
    c->next = in->newest;
    *(in->newest ? &in->newest->prev : &in->oldest) = c;
    in->newest = c;
}

static void unlink_conn(slu_grpc_loop *l, conn *c)
{
    conn_list *in = list_of(l, c);
    *(c->prev ? &c->prev->next : &in->newest) = c->next;
    *(c->next ? &c->next->prev : &in->oldest) = c->prev;
}

/* For each connection, which |deed| may close. */
static void each_conn(slu_grpc_loop *l, void (*deed)(slu_grpc_loop *l, conn *c))
{
    for (int i = TALKING; i <= SHAKING; i++)
        for (conn *c = l->lists[i].newest, *next; c; c = next) {
            next = c->next;
            deed(l, c);
        }
}

static void conn_close(slu_grpc_loop *l, conn *c)
{
    if (c->fd < 0)
        return;
    close(c->fd);
    c->fd = -1;
    if (c->shaking) {
        l->handshakes--;
        slu_metric_add(l->shared->handshakes, -1);
    }
    slu_tls_conn_free(c->tls);
    c->tls = NULL;
    slu_grpc_session_free(c->session);
    c->session = NULL;
    unlink_conn(l, c);
    l->n_conns--;
    atomic_fetch_sub(&l->shared->connections, 1);
    slu_metric_add(l->shared->open, -1);
    c->next = l->dead;
    l->dead = c;
}

static void bury(slu_grpc_loop *l)
{
    while (l->dead) {
        conn *c = l->dead;
        l->dead = c->next;
        free(c);
    }
}

static void watch_events(slu_grpc_loop *l, conn *c, uint32_t events)
{
    if (c->events == events)
        return;
    struct epoll_event e = {.events = events, .data.ptr = c};
    if (epoll_ctl(l->poll, EPOLL_CTL_MOD, c->fd, &e) == 0)
        c->events = events;
}

/* ---- bytes of a connection, through TLS or not ---- */

/* The next bytes for the socket; 0: none. Sealed are only as many as the socket takes next, so that what the
 * peer does not read stays visible to the session and its limits. */
static size_t next_output(conn *c, const uint8_t **p)
{
    if (!c->tls)
        return slu_grpc_session_output(c->session, p);
    size_t n = slu_tls_conn_output(c->tls, p);
    if (n || !c->session)
        return n;
    n = slu_grpc_session_output(c->session, p);
    if (n > SLU_TLS_PIECE)
        n = SLU_TLS_PIECE;
    if (!n || slu_tls_conn_seal(c->tls, *p, n))
        return 0;
    c->sealed = n;
    return slu_tls_conn_output(c->tls, p);
}

static void output_sent(slu_grpc_loop *l, conn *c, size_t n)
{
    if (!c->tls) {
        slu_grpc_session_sent(c->session, n, l->now_us);
        return;
    }
    const uint8_t *p;
    slu_tls_conn_sent(c->tls, n);
    size_t plain = n < c->sealed && slu_tls_conn_output(c->tls, &p) ? n : c->sealed;
    c->sealed -= plain;
    if (plain)
        slu_grpc_session_sent(c->session, plain, l->now_us);
}

/* Says no more and waits a moment for the peer to hang up: closing with unread bytes would destroy what is
 * still on its way to it. */
static void conn_finish(slu_grpc_loop *l, conn *c)
{
    const uint8_t *p;
    size_t n;
    if (c->closing)
        return;
    c->closing = true;
    c->closing_us = l->now_us + LINGER_US;
    if (c->tls) {
        slu_tls_conn_bye(c->tls);
        if ((n = slu_tls_conn_output(c->tls, &p)))
            (void)!send(c->fd, p, n, MSG_NOSIGNAL);
    }
    shutdown(c->fd, SHUT_WR);
    watch_events(l, c, EPOLLIN);
}

static void conn_flush(slu_grpc_loop *l, conn *c)
{
    if (c->fd < 0 || c->closing)
        return;
    const uint8_t *p;
    size_t n, sum = 0;
    bool blocked = false;
    while (!blocked && sum < FLUSH_BYTES && (n = next_output(c, &p))) {
        ssize_t w = send(c->fd, p, n, MSG_NOSIGNAL);
        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
            blocked = true;
        } else if (w < 0) {
            conn_close(l, c);
            return;
        } else {
            output_sent(l, c, (size_t)w);
            slu_metric_add(l->shared->bytes_out, (double)w);
            sum += (size_t)w;
            blocked = (size_t)w < n;
        }
    }
    if (c->session && slu_grpc_session_done(c->session)) {
        conn_finish(l, c);
        return;
    }
    uint32_t out = blocked || sum >= FLUSH_BYTES ? EPOLLOUT : 0;
    bool choked = c->session && slu_grpc_session_choked(c->session);
    watch_events(l, c, out | (choked ? 0 : EPOLLIN));
}

/* What there is to say goes out, then the end. */
static void conn_end(slu_grpc_loop *l, conn *c)
{
    conn_flush(l, c);
    if (c->fd >= 0)
        conn_finish(l, c);
}

static void tell_handshake(const conn *c)
{
    struct sockaddr_storage at;
    socklen_t len = sizeof at;
    char peer[INET6_ADDRSTRLEN] = "?";
    if (!getpeername(c->fd, (struct sockaddr *)&at, &len))
        inet_ntop(at.ss_family,
                  at.ss_family == AF_INET6 ? (void *)&((struct sockaddr_in6 *)&at)->sin6_addr
                                           : (void *)&((struct sockaddr_in *)&at)->sin_addr,
                  peer, sizeof peer);
    SLU_INFO("tls", "handshake failed", SLU_STR("reason", slu_tls_conn_why(c->tls)), SLU_STR("peer", peer));
}

static void give_up(slu_grpc_loop *l, conn *c, slu_tls_result result)
{
    slu_tls_conn_give_up(c->tls, result);
    tell_handshake(c);
    conn_close(l, c);
}

/* The oldest open handshake makes room; false when there is none. */
static bool oldest_gives_way(slu_grpc_loop *l)
{
    conn *oldest = l->lists[SHAKING].oldest;
    if (oldest && oldest->closing)
        conn_close(l, oldest);
    else if (oldest)
        give_up(l, oldest, SLU_TLS_CROWDED);
    return oldest != NULL;
}

/* How little a connection would be missed; negative: it stays. First go those that never had an answer, by
 * age: whoever opens many of them only replaces his own, and who asks at once has his answer before his turn
 * comes.
 */
static int64_t dispensable(const slu_grpc_loop *l, const conn *c)
{
    if (c->closing)
        return INT64_MAX;
    int64_t idle = c->session ? slu_grpc_session_idle(c->session, l->now_us) : -1;
    if (idle < 0 || !slu_grpc_session_proven(c->session))
        return idle < 0 ? -1 : INT64_MAX / 2 + idle;
    return idle >= IDLE_LEAST_US ? idle : -1;
}

/* The most dispensable one of some makes room; false: all were used just now. What was looked at goes to the
 * front, so the next look is at others. */
static bool idlest_gives_way(slu_grpc_loop *l)
{
    conn *idlest = NULL;
    int64_t most = 0;
    for (uint32_t i = 0; i < LOOKS && i < l->n_conns - l->handshakes; i++) {
        conn *c = l->lists[TALKING].oldest;
        int64_t idle = dispensable(l, c);
        if (idle >= most) {
            most = idle;
            idlest = c;
        }
        unlink_conn(l, c);
        link_conn(l, c);
    }
    if (!idlest)
        return false;
    if (!idlest->closing) {
        SLU_INFO("grpc", "connection closed", SLU_STR("reason", "idle, and others want to come in"));
        slu_metric_add(l->shared->evicted, 1);
        slu_grpc_session_drain(idlest->session, l->now_us);
        conn_flush(l, idlest);
    }
    conn_close(l, idlest);
    return true;
}

static bool makes_room(slu_grpc_loop *l)
{
    return oldest_gives_way(l) || idlest_gives_way(l);
}

static int begin_session(slu_grpc_loop *l, conn *c)
{
    c->session = slu_grpc_session_new(l->core, c, l->now_us);
    if (!c->session)
        return SLU_ENOMEM;
    unlink_conn(l, c);
    c->shaking = false;
    link_conn(l, c);
    l->handshakes--;
    slu_metric_add(l->shared->handshakes, -1);
    return 0;
}

typedef struct taking {
    slu_grpc_loop *loop;
    conn *conn;
} taking;

static int take_plain(void *ctx, const uint8_t *p, size_t n)
{
    taking *t = ctx;
    int rc = t->conn->session ? 0 : begin_session(t->loop, t->conn);
    return rc ? rc : slu_grpc_session_feed(t->conn->session, p, n, t->loop->now_us);
}

static int feed_tls(slu_grpc_loop *l, conn *c, size_t n)
{
    taking t = {l, c};
    bool shaking = !c->session;
    int rc = slu_tls_conn_feed(c->tls, l->bytes, n, take_plain, &t);
    if (!shaking) {
        const uint8_t *p;
        if (!rc && !c->sealed && slu_tls_conn_output(c->tls, &p)) /* TLS itself has something to say */
            conn_flush(l, c);
        return rc;
    }
    l->now_us = slu_mono_us(&slu_system_clock);
    if (slu_tls_conn_ready(c->tls)) {
        if (!c->session && begin_session(l, c))
            rc = SLU_ENOMEM;
    } else if (rc) {
        tell_handshake(c);
    }
    if (!rc)
        conn_flush(l, c);
    return rc;
}

static int feed_plain(slu_grpc_loop *l, conn *c, size_t n)
{
    int rc = slu_grpc_session_feed(c->session, l->bytes, n, l->now_us);
    if (rc == SLU_EFORMAT && n > 1 && l->bytes[0] == 0x16 && l->bytes[1] == 3)
        SLU_INFO("grpc", "connection closed",
                 SLU_STR("reason", "the client speaks TLS, but serving.tls.certificate is not set"));
    return rc;
}

static void conn_read(slu_grpc_loop *l, conn *c)
{
    ssize_t n = recv(c->fd, l->bytes, READ_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n <= 0 && c->tls && !c->session && !c->closing) {
        give_up(l, c, SLU_TLS_HUNG_UP);
        return;
    }
    if (n <= 0) {
        conn_close(l, c);
        return;
    }
    if (c->closing)
        return;
    slu_metric_add(l->shared->bytes_in, (double)n);
    if (c->tls ? feed_tls(l, c, (size_t)n) : feed_plain(l, c, (size_t)n))
        conn_end(l, c);
}

static void socket_options(int fd)
{
    int on = 1, idle = KEEPALIVE_S, timeout = USER_TIMEOUT_MS;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

/* The caller has counted it. */
static void conn_new(slu_grpc_loop *l, int fd)
{
    conn *c = calloc(1, sizeof *c);
    if (!c)
        goto fail_conn;
    c->fd = fd;
    c->events = EPOLLIN;
    if (l->shared->tls)
        c->tls = slu_tls_conn_new(l->shared->tls);
    else
        c->session = slu_grpc_session_new(l->core, c, l->now_us);
    c->handshake_us = l->now_us + l->shared->handshake_us;
    if (!c->tls && !c->session)
        goto fail_session;
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = c};
    if (epoll_ctl(l->poll, EPOLL_CTL_ADD, fd, &e))
        goto fail_poll;
    socket_options(fd);
    c->shaking = c->tls != NULL;
    link_conn(l, c);
    l->n_conns++;
    l->handshakes += c->tls != NULL;
    slu_metric_add(l->shared->handshakes, c->tls != NULL);
    slu_metric_add(l->shared->open, 1);
    slu_metric_add(l->shared->accepted, 1);
    return;
fail_poll:
    slu_tls_conn_free(c->tls);
    slu_grpc_session_free(c->session);
fail_session:
    free(c);
fail_conn:
    SLU_WARN("grpc", "no memory for a connection");
    atomic_fetch_sub(&l->shared->connections, 1);
    close(fd);
}

static void stop_listening(slu_grpc_loop *l)
{
    if (l->listening)
        epoll_ctl(l->poll, EPOLL_CTL_DEL, l->listener, NULL);
    l->listening = false;
}

static int resume_listening(slu_grpc_loop *l)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &l->listener};
    if (l->listening || l->draining)
        return 0;
    if (epoll_ctl(l->poll, EPOLL_CTL_ADD, l->listener, &e))
        return SLU_EIO;
    l->listening = true;
    return 0;
}

/* What is left in the backlog is reported again in the next round. */
static void accept_some(slu_grpc_loop *l, int64_t until_us)
{
    for (int i = 0; i < ACCEPT_ROUND && (i == 0 || slu_mono_us(&slu_system_clock) < until_us); i++) {
        int fd = accept4(l->listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
        if (fd < 0 && (errno == EINTR || errno == ECONNABORTED))
            continue;
        if (fd < 0) {
            if ((errno == EMFILE || errno == ENFILE) && makes_room(l))
                continue;
            if (errno == EMFILE || errno == ENFILE || errno == ENOBUFS || errno == ENOMEM) {
                SLU_WARN("grpc", "cannot accept, waiting a moment", SLU_STR("reason", strerror(errno)));
                stop_listening(l); /* the next tick tries again; polling now would only burn the core */
            }
            return;
        }
        uint32_t open = atomic_fetch_add(&l->shared->connections, 1); /* those of the other loops, too */
        if (l->shared->tls && l->handshakes >= l->shared->max_handshakes)
            oldest_gives_way(l);
        if (open >= l->shared->max_connections && !makes_room(l)) {
            SLU_WARN("grpc", "connection refused, too many are open", SLU_U64("open", open),
                     SLU_STR("limit", "serving.max_connections"));
            slu_metric_add(l->shared->refused, 1);
            atomic_fetch_sub(&l->shared->connections, 1);
            close(fd);
            continue;
        }
        conn_new(l, fd);
    }
}

/* Looks at the time-outs of a connection; l->busy: something will be due soon. */
static void tick_conn(slu_grpc_loop *l, conn *c)
{
    const char *why = "";
    if (c->closing) {
        l->busy = true;
        if (l->now_us >= c->closing_us)
            conn_close(l, c);
    } else if (!c->session) {
        l->busy = true;
        if (l->now_us >= c->handshake_us)
            give_up(l, c, SLU_TLS_TIMEOUT);
    } else if (slu_grpc_session_tick(c->session, l->now_us, &why)) {
        SLU_INFO("grpc", "connection closed", SLU_STR("reason", why));
        conn_close(l, c);
    } else {
        l->busy |= slu_grpc_session_busy(c->session);
    }
}

static void tick(slu_grpc_loop *l)
{
    l->busy = l->draining;
    each_conn(l, tick_conn);
    if (!l->listening && !l->draining) {
        resume_listening(l);
        l->busy = true;
    }
    l->next_tick_us = l->now_us + (l->busy ? TICK_BUSY_US : TICK_IDLE_US);
}

static void run_slice(slu_grpc_loop *l)
{
    int64_t until = l->now_us + SLICE_US;
    while (slu_grpc_core_run(l->core, &slu_system_clock)) {
        l->now_us = slu_mono_us(&slu_system_clock);
        if (l->now_us >= until)
            return;
    }
}

static void flush_touched(slu_grpc_loop *l)
{
    conn *c;
    while ((c = slu_grpc_core_touched(l->core)))
        conn_flush(l, c);
}

static void drain_conn(slu_grpc_loop *l, conn *c)
{
    if (c->closing)
        return;
    if (!c->session) { /* has not asked for anything yet */
        conn_close(l, c);
        return;
    }
    slu_grpc_session_drain(c->session, l->now_us);
    conn_flush(l, c);
}

/* Watchers hear NOT_SERVING first (the caller set it and core_changed queued them), then all get the GOAWAY.
 */
static void begin_drain(slu_grpc_loop *l)
{
    accept_some(l, INT64_MAX);
    stop_listening(l);
    close(l->listener);
    l->listener = -1;
    l->draining = true;
    slu_grpc_core_changed(l->core);
    while (slu_grpc_core_run(l->core, &slu_system_clock))
        ;
    l->now_us = slu_mono_us(&slu_system_clock);
    each_conn(l, drain_conn);
    l->next_tick_us = l->now_us + TICK_BUSY_US;
}

static void check_shared(slu_grpc_loop *l)
{
    unsigned changes = atomic_load(&l->shared->changes);
    if (changes != l->changes) {
        l->changes = changes;
        slu_grpc_core_changed(l->core);
    }
    if (!l->draining && atomic_load(&l->shared->drain_until_us))
        begin_drain(l);
}

static int wait_ms(const slu_grpc_loop *l)
{
    if (slu_grpc_core_waiting(l->core))
        return 0;
    if (!l->n_conns && l->listening)
        return -1;
    int64_t us = l->next_tick_us - l->now_us;
    return us <= 0 ? 0 : (int)((us + 999) / 1000);
}

static void handle_event(slu_grpc_loop *l, const struct epoll_event *e)
{
    if (e->data.ptr == &l->wake) {
        uint64_t count;
        (void)!read(l->wake, &count, sizeof count);
        return;
    }
    if (e->data.ptr == &l->listener) {
        accept_some(l, slu_mono_us(&slu_system_clock) + ACCEPT_US);
        return;
    }
    conn *c = e->data.ptr;
    /* What is left for the next round is reported again then. */
    if (c->tls && !c->session && l->now_us >= l->handshakes_until_us)
        return;
    if (c->fd >= 0 && e->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        conn_read(l, c);
    if (c->fd >= 0 && e->events & EPOLLOUT)
        conn_flush(l, c);
}

static bool over(slu_grpc_loop *l)
{
    return l->draining && (!l->n_conns || l->now_us >= atomic_load(&l->shared->drain_until_us));
}

static void cut_conn(slu_grpc_loop *l, conn *c)
{
    if (c->session && !c->closing)
        l->cut += slu_grpc_session_calls(c->session);
    conn_close(l, c);
}

/* Whoever is ready waits for the rest of a round: how long it computes, whatever else the machine does. A
 * sleeping thread takes no processor time. */
static void measure_round(slu_grpc_loop *l)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    int64_t now_ns = t.tv_sec * 1000000000LL + t.tv_nsec;
    slu_metric_observe(l->shared->rounds, (double)(now_ns - l->cpu_ns) * 1e-9);
    l->cpu_ns = now_ns;
}

static void *loop_main(void *arg)
{
    slu_grpc_loop *l = arg;
    struct epoll_event events[EVENTS];
    l->now_us = slu_mono_us(&slu_system_clock);
    l->next_tick_us = l->now_us + TICK_IDLE_US;
    while (!over(l)) {
        int n = epoll_wait(l->poll, events, EVENTS, wait_ms(l));
        l->now_us = slu_mono_us(&slu_system_clock);
        l->handshakes_until_us = l->now_us + HANDSHAKES_US;
        for (int i = 0; i < n; i++)
            handle_event(l, &events[i]);
        if (n > 0 && l->next_tick_us > l->now_us + TICK_BUSY_US)
            l->next_tick_us = l->now_us + TICK_BUSY_US;
        check_shared(l);
        run_slice(l);
        flush_touched(l);
        if (l->now_us >= l->next_tick_us) {
            tick(l);
            flush_touched(l);
        }
        bury(l);
        measure_round(l);
    }
    each_conn(l, cut_conn);
    bury(l);
    return NULL;
}

static void loop_free(slu_grpc_loop *l)
{
    if (l->listener >= 0)
        close(l->listener);
    if (l->poll >= 0)
        close(l->poll);
    if (l->wake >= 0)
        close(l->wake);
    slu_grpc_core_free(l->core);
    free(l->bytes);
    free(l);
}

static int start_thread(slu_grpc_loop *l)
{
    sigset_t all, old; /* signals are the main thread's */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&l->thread, NULL, loop_main, l);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc)
        return SLU_EIO;
    char name[16];
    snprintf(name, sizeof name, "grpc-%u", l->index);
    pthread_setname_np(l->thread, name);
    return 0;
}

int slu_grpc_loop_start(slu_grpc_shared *shared, int listener, uint32_t index, slu_grpc_loop **lp,
                        slu_error *err)
{
    *lp = NULL;
    slu_grpc_loop *l = calloc(1, sizeof *l);
    if (!l) {
        close(listener);
        return slu_fail(err, SLU_ENOMEM, "out of memory for a gRPC loop");
    }
    l->shared = shared;
    l->index = index;
    l->listener = listener;
    l->poll = epoll_create1(EPOLL_CLOEXEC);
    l->wake = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    l->core = slu_grpc_core_new(&shared->limits, shared->routes, index);
    l->bytes = malloc(READ_BYTES);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &l->wake};
    if (!l->core || !l->bytes) {
        loop_free(l);
        return slu_fail(err, SLU_ENOMEM, "out of memory for a gRPC loop");
    }
    if (l->poll < 0 || l->wake < 0 || epoll_ctl(l->poll, EPOLL_CTL_ADD, l->wake, &e) || resume_listening(l) ||
        start_thread(l)) {
        int code = slu_fail(err, SLU_EIO, "cannot start a gRPC loop: %s", strerror(errno));
        loop_free(l);
        return code;
    }
    *lp = l;
    return 0;
}

void slu_grpc_loop_wake(slu_grpc_loop *l)
{
    uint64_t one = 1;
    (void)!write(l->wake, &one, sizeof one);
}

uint32_t slu_grpc_loop_join(slu_grpc_loop *l)
{
    pthread_join(l->thread, NULL);
    uint32_t cut = l->cut;
    loop_free(l);
    return cut;
}
