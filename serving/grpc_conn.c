#include "base/log.h"
#include "serving/grpc_loop_state.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define FLUSH_BYTES                                                                                          \
    ((size_t)1 << 20) /* of one connection and round, so that one fast reader starves nobody */
#define LINGER_US       SLU_SECOND_US
#define KEEPALIVE_S     60
#define USER_TIMEOUT_MS 60000

static slu_grpc_conn_list *list_of(slu_grpc_loop *l, const slu_grpc_conn *c)
{
    return &l->lists[c->shaking ? SLU_GRPC_SHAKING : SLU_GRPC_TALKING];
}

static void link_conn(slu_grpc_loop *l, slu_grpc_conn *c)
{
    slu_grpc_conn_list *in = list_of(l, c);
    c->prev = NULL;
    c->next = in->newest;
    *(in->newest ? &in->newest->prev : &in->oldest) = c;
    in->newest = c;
}

static void unlink_conn(slu_grpc_loop *l, slu_grpc_conn *c)
{
    slu_grpc_conn_list *in = list_of(l, c);
    *(c->prev ? &c->prev->next : &in->newest) = c->next;
    *(c->next ? &c->next->prev : &in->oldest) = c->prev;
}

void slu_grpc_conn_to_front(slu_grpc_loop *l, slu_grpc_conn *c)
{
    unlink_conn(l, c);
    link_conn(l, c);
}

void slu_grpc_conn_each(slu_grpc_loop *l, void (*deed)(slu_grpc_loop *l, slu_grpc_conn *c))
{
    for (int i = SLU_GRPC_TALKING; i <= SLU_GRPC_SHAKING; i++)
        for (slu_grpc_conn *c = l->lists[i].newest, *next; c; c = next) {
            next = c->next;
            deed(l, c);
        }
}

void slu_grpc_conn_close(slu_grpc_loop *l, slu_grpc_conn *c)
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

void slu_grpc_conn_bury(slu_grpc_loop *l)
{
    while (l->dead) {
        slu_grpc_conn *c = l->dead;
        l->dead = c->next;
        free(c);
    }
}

static void watch_events(slu_grpc_loop *l, slu_grpc_conn *c, uint32_t events)
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
static size_t next_output(slu_grpc_conn *c, const uint8_t **p)
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

static void output_sent(slu_grpc_loop *l, slu_grpc_conn *c, size_t n)
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
static void conn_finish(slu_grpc_loop *l, slu_grpc_conn *c)
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

void slu_grpc_conn_flush(slu_grpc_loop *l, slu_grpc_conn *c)
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
            slu_grpc_conn_close(l, c);
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
static void conn_end(slu_grpc_loop *l, slu_grpc_conn *c)
{
    slu_grpc_conn_flush(l, c);
    if (c->fd >= 0)
        conn_finish(l, c);
}

static void tell_handshake(const slu_grpc_conn *c)
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

void slu_grpc_conn_give_up(slu_grpc_loop *l, slu_grpc_conn *c, slu_tls_result result)
{
    slu_tls_conn_give_up(c->tls, result);
    tell_handshake(c);
    slu_grpc_conn_close(l, c);
}

static int begin_session(slu_grpc_loop *l, slu_grpc_conn *c)
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
    slu_grpc_conn *conn;
} taking;

static int take_plain(void *ctx, const uint8_t *p, size_t n)
{
    taking *t = ctx;
    int rc = t->conn->session ? 0 : begin_session(t->loop, t->conn);
    return rc ? rc : slu_grpc_session_feed(t->conn->session, p, n, t->loop->now_us);
}

static int feed_tls(slu_grpc_loop *l, slu_grpc_conn *c, size_t n)
{
    taking t = {l, c};
    bool shaking = !c->session;
    int rc = slu_tls_conn_feed(c->tls, l->bytes, n, take_plain, &t);
    if (!shaking) {
        const uint8_t *p;
        if (!rc && !c->sealed && slu_tls_conn_output(c->tls, &p)) /* TLS itself has something to say */
            slu_grpc_conn_flush(l, c);
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
        slu_grpc_conn_flush(l, c);
    return rc;
}

static int feed_plain(slu_grpc_loop *l, slu_grpc_conn *c, size_t n)
{
    int rc = slu_grpc_session_feed(c->session, l->bytes, n, l->now_us);
    if (rc == SLU_EFORMAT && n > 1 && l->bytes[0] == 0x16 && l->bytes[1] == 3)
        SLU_INFO("grpc", "connection closed",
                 SLU_STR("reason", "the client speaks TLS, but serving.tls.certificate is not set"));
    return rc;
}

void slu_grpc_conn_read(slu_grpc_loop *l, slu_grpc_conn *c)
{
    ssize_t n = recv(c->fd, l->bytes, SLU_GRPC_READ_BYTES, 0);
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR))
        return;
    if (n <= 0 && c->tls && !c->session && !c->closing) {
        slu_grpc_conn_give_up(l, c, SLU_TLS_HUNG_UP);
        return;
    }
    if (n <= 0) {
        slu_grpc_conn_close(l, c);
        return;
    }
    if (c->closing)
        return;
    slu_metric_add(l->shared->bytes_in, (double)n);
    if (c->tls ? feed_tls(l, c, (size_t)n) : feed_plain(l, c, (size_t)n))
        conn_end(l, c);
}

/* ---- its beginning, its time-outs, its end ---- */

static void socket_options(int fd)
{
    int on = 1, idle = KEEPALIVE_S, timeout = USER_TIMEOUT_MS;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &timeout, sizeof timeout);
}

void slu_grpc_conn_new(slu_grpc_loop *l, int fd)
{
    slu_grpc_conn *c = calloc(1, sizeof *c);
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

void slu_grpc_conn_tick(slu_grpc_loop *l, slu_grpc_conn *c)
{
    const char *why = "";
    if (c->closing) {
        l->busy = true;
        if (l->now_us >= c->closing_us)
            slu_grpc_conn_close(l, c);
    } else if (!c->session) {
        l->busy = true;
        if (l->now_us >= c->handshake_us)
            slu_grpc_conn_give_up(l, c, SLU_TLS_TIMEOUT);
    } else if (slu_grpc_session_tick(c->session, l->now_us, &why)) {
        SLU_INFO("grpc", "connection closed", SLU_STR("reason", why));
        slu_grpc_conn_close(l, c);
    } else {
        l->busy |= slu_grpc_session_busy(c->session);
    }
}

void slu_grpc_conn_drain(slu_grpc_loop *l, slu_grpc_conn *c)
{
    if (c->closing)
        return;
    if (!c->session) { /* has not asked for anything yet */
        slu_grpc_conn_close(l, c);
        return;
    }
    slu_grpc_session_drain(c->session, l->now_us);
    slu_grpc_conn_flush(l, c);
}

void slu_grpc_conn_cut(slu_grpc_loop *l, slu_grpc_conn *c)
{
    if (c->session && !c->closing)
        l->cut += slu_grpc_session_calls(c->session);
    slu_grpc_conn_close(l, c);
}
