#include "base/log.h"
#include "serving/grpc_loop_state.h"
#include <errno.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#define ACCEPT_ROUND  64
#define LOOKS         64 /* at connections, for one that makes room */
#define IDLE_LEAST_US SLU_SECOND_US

void slu_grpc_stop_listening(slu_grpc_loop *l)
{
    if (l->listening)
        epoll_ctl(l->poll, EPOLL_CTL_DEL, l->listener, NULL);
    l->listening = false;
}

int slu_grpc_listen(slu_grpc_loop *l)
{
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &l->listener};
    if (l->listening || l->draining)
        return 0;
    if (epoll_ctl(l->poll, EPOLL_CTL_ADD, l->listener, &e))
        return SLU_EIO;
    l->listening = true;
    return 0;
}

/* The oldest open handshake makes room; false when there is none. */
static bool oldest_gives_way(slu_grpc_loop *l)
{
    slu_grpc_conn *oldest = l->lists[SLU_GRPC_SHAKING].oldest;
    if (oldest && oldest->closing)
        slu_grpc_conn_close(l, oldest);
    else if (oldest)
        slu_grpc_conn_give_up(l, oldest, SLU_TLS_CROWDED);
    return oldest != NULL;
}

/* How little a connection would be missed; negative: it stays. First go those that never had an answer, by
 * age: whoever opens many of them only replaces his own, and who asks at once has his answer before his turn
 * comes.
 */
static int64_t dispensable(const slu_grpc_loop *l, const slu_grpc_conn *c)
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
    slu_grpc_conn *idlest = NULL;
    int64_t most = 0;
    for (uint32_t i = 0; i < LOOKS && i < l->n_conns - l->handshakes; i++) {
        slu_grpc_conn *c = l->lists[SLU_GRPC_TALKING].oldest;
        int64_t idle = dispensable(l, c);
        if (idle >= most) {
            most = idle;
            idlest = c;
        }
        slu_grpc_conn_to_front(l, c);
    }
    if (!idlest)
        return false;
    if (!idlest->closing) {
        SLU_INFO("grpc", "connection closed", SLU_STR("reason", "idle, and others want to come in"));
        slu_metric_add(l->shared->evicted, 1);
        slu_grpc_session_drain(idlest->session, l->now_us);
        slu_grpc_conn_flush(l, idlest);
    }
    slu_grpc_conn_close(l, idlest);
    return true;
}

static bool makes_room(slu_grpc_loop *l)
{
    return oldest_gives_way(l) || idlest_gives_way(l);
}

void slu_grpc_accept(slu_grpc_loop *l, int64_t until_us)
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
                /* The next tick tries again; polling now would only burn the core. */
                slu_grpc_stop_listening(l);
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
        slu_grpc_conn_new(l, fd);
    }
}
