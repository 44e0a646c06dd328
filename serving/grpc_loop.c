#include "base/log.h"
#include "serving/grpc_loop_state.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define EVENTS        128
#define ACCEPT_US     500 /* of one round, so that a flood of connections leaves time for those that ask */
#define SLICE_US      1000
#define HANDSHAKES_US 2000 /* of one round */
#define TICK_BUSY_US  (100 * 1000)
#define TICK_IDLE_US  (10 * SLU_SECOND_US)

static void tick(slu_grpc_loop *l)
{
    l->busy = l->draining;
    slu_grpc_conn_each(l, slu_grpc_conn_tick);
    if (!l->listening && !l->draining) {
        slu_grpc_listen(l);
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
    slu_grpc_conn *c;
    while ((c = slu_grpc_core_touched(l->core)))
        slu_grpc_conn_flush(l, c);
}

/* Watchers hear NOT_SERVING first (the caller set it and core_changed queued them), then all get the GOAWAY.
 */
static void begin_drain(slu_grpc_loop *l)
{
    slu_grpc_accept(l, INT64_MAX);
    slu_grpc_stop_listening(l);
    close(l->listener);
    l->listener = -1;
    l->draining = true;
    slu_grpc_core_changed(l->core);
    while (slu_grpc_core_run(l->core, &slu_system_clock))
        ;
    l->now_us = slu_mono_us(&slu_system_clock);
    slu_grpc_conn_each(l, slu_grpc_conn_drain);
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

static int wait_for_events(slu_grpc_loop *l, struct epoll_event *events)
{
    slu_crew *crew = l->shared->crew;
    int timeout_ms = wait_ms(l);
    if (!timeout_ms || !crew)
        return epoll_wait(l->poll, events, EVENTS, timeout_ms);
    if (!slu_crew_sleep(crew, l->index))
        return epoll_wait(l->poll, events, EVENTS, 0);
    int n = epoll_wait(l->poll, events, EVENTS, timeout_ms);
    slu_crew_awake(crew, l->index);
    return n;
}

/* Answers of its own have gone out before, so a piece keeps nobody waiting but who asks meanwhile. */
static void help(slu_grpc_loop *l)
{
    if (l->shared->crew && !slu_grpc_core_waiting(l->core) && slu_crew_help(l->shared->crew, l->index))
        l->now_us = slu_mono_us(&slu_system_clock);
}

static void handle_event(slu_grpc_loop *l, const struct epoll_event *e)
{
    if (e->data.ptr == &l->wake) {
        uint64_t count;
        (void)!read(l->wake, &count, sizeof count);
        return;
    }
    if (e->data.ptr == &l->listener) {
        slu_grpc_accept(l, slu_mono_us(&slu_system_clock) + ACCEPT_US);
        return;
    }
    slu_grpc_conn *c = e->data.ptr;
    /* What is left for the next round is reported again then. */
    if (c->tls && !c->session && l->now_us >= l->handshakes_until_us)
        return;
    if (c->fd >= 0 && e->events & (EPOLLIN | EPOLLHUP | EPOLLERR))
        slu_grpc_conn_read(l, c);
    if (c->fd >= 0 && e->events & EPOLLOUT)
        slu_grpc_conn_flush(l, c);
}

static bool over(slu_grpc_loop *l)
{
    return l->draining && (!l->n_conns || l->now_us >= atomic_load(&l->shared->drain_until_us));
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
        int n = wait_for_events(l, events);
        l->now_us = slu_mono_us(&slu_system_clock);
        l->handshakes_until_us = l->now_us + HANDSHAKES_US;
        for (int i = 0; i < n; i++)
            handle_event(l, &events[i]);
        if (n > 0 && l->next_tick_us > l->now_us + TICK_BUSY_US)
            l->next_tick_us = l->now_us + TICK_BUSY_US;
        check_shared(l);
        run_slice(l);
        flush_touched(l);
        help(l);
        if (l->now_us >= l->next_tick_us) {
            tick(l);
            flush_touched(l);
        }
        slu_grpc_conn_bury(l);
        measure_round(l);
    }
    slu_grpc_conn_each(l, slu_grpc_conn_cut);
    slu_grpc_conn_bury(l);
    return NULL;
}

void slu_grpc_loop_free(slu_grpc_loop *l)
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
    l->bytes = malloc(SLU_GRPC_READ_BYTES);
    struct epoll_event e = {.events = EPOLLIN, .data.ptr = &l->wake};
    if (!l->core || !l->bytes) {
        slu_grpc_loop_free(l);
        return slu_fail(err, SLU_ENOMEM, "out of memory for a gRPC loop");
    }
    slu_grpc_core_use_crew(l->core, shared->crew);
    if (shared->crew)
        slu_crew_enlist(shared->crew, index, l->wake);
    if (l->poll < 0 || l->wake < 0 || epoll_ctl(l->poll, EPOLL_CTL_ADD, l->wake, &e) || slu_grpc_listen(l) ||
        start_thread(l)) {
        int code = slu_fail(err, SLU_EIO, "cannot start a gRPC loop: %s", strerror(errno));
        slu_grpc_loop_free(l);
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
    return l->cut;
}
