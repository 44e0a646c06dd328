#include "base/pool.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Looks before a thread sleeps: about 20 us. */
enum { LOOKS = 1000 };

/* A ticket is the run's number (32 bits), its pieces (16) and the next one of them (16). Who takes a piece
 * swaps the ticket for the next; that this succeeds also says that the run, whose function was read before,
 * is still on. */
struct slu_pool {
    slu_parallel parallel;
    _Atomic uint64_t ticket;
    _Atomic(slu_piece_fn) fn;
    _Atomic(void *) ctx;
    _Atomic uint32_t left;     /* pieces that are not done */
    _Atomic uint32_t sleepers; /* threads that wait for work */
    atomic_bool waiting;       /* the caller waits for the last piece */
    atomic_bool stop;
    pthread_mutex_t mutex;
    pthread_cond_t work, done;
    uint32_t started;
    pthread_t threads[];
};

static void breathe(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static bool has_piece(uint64_t ticket)
{
    return (ticket & 0xffff) < (ticket >> 16 & 0xffff);
}

/* Takes one piece and does it. False: there is none. */
static bool do_piece(slu_pool *p)
{
    uint64_t ticket = atomic_load(&p->ticket);
    slu_piece_fn fn;
    void *ctx;
    do {
        if (!has_piece(ticket))
            return false;
        fn = atomic_load(&p->fn);
        ctx = atomic_load(&p->ctx);
    } while (!atomic_compare_exchange_weak(&p->ticket, &ticket, ticket + 1));
    fn(ctx, (uint32_t)(ticket & 0xffff));
    if (atomic_fetch_sub(&p->left, 1) == 1 && atomic_load(&p->waiting)) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->mutex);
    }
    return true;
}

static bool wanted(slu_pool *p)
{
    return has_piece(atomic_load(&p->ticket)) || atomic_load(&p->stop);
}

static void sleep_until_wanted(slu_pool *p)
{
    pthread_mutex_lock(&p->mutex);
    /* Counted before looking again: who makes work looks at the count after making it. */
    atomic_fetch_add(&p->sleepers, 1);
    while (!wanted(p))
        pthread_cond_wait(&p->work, &p->mutex);
    atomic_fetch_sub(&p->sleepers, 1);
    pthread_mutex_unlock(&p->mutex);
}

static void *worker(void *arg)
{
    slu_pool *p = arg;
    while (!atomic_load(&p->stop)) {
        while (do_piece(p))
            ;
        int looks = 0;
        while (!wanted(p) && looks++ < LOOKS)
            breathe();
        if (!wanted(p))
            sleep_until_wanted(p);
    }
    return NULL;
}

static void wake(slu_pool *p)
{
    pthread_mutex_lock(&p->mutex);
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->mutex);
}

static void wait_for_last(slu_pool *p)
{
    for (int looks = 0; looks < LOOKS; looks++) {
        if (!atomic_load(&p->left))
            return;
        breathe();
    }
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->waiting, true);
    while (atomic_load(&p->left))
        pthread_cond_wait(&p->done, &p->mutex);
    atomic_store(&p->waiting, false);
    pthread_mutex_unlock(&p->mutex);
}

static void run(void *self, slu_piece_fn fn, void *ctx, uint32_t n)
{
    slu_pool *p = self;
    assert(n <= SLU_POOL_MAX_PIECES && !atomic_load(&p->left));
    uint64_t number = (atomic_load(&p->ticket) >> 32) + 1;
    atomic_store(&p->fn, fn);
    atomic_store(&p->ctx, ctx);
    atomic_store(&p->left, n);
    atomic_store(&p->ticket, number << 32 | (uint64_t)n << 16);
    if (atomic_load(&p->sleepers))
        wake(p);
    while (do_piece(p))
        ;
    wait_for_last(p);
}

/* Signals are for the threads that ask for them. */
static int start_threads(slu_pool *p, uint32_t n)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = 0;
    while (!rc && p->started < n) {
        rc = pthread_create(&p->threads[p->started], NULL, worker, p);
        p->started += !rc;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

int slu_pool_new(uint32_t threads, slu_pool **pp, slu_error *err)
{
    assert(threads >= 1 && threads <= SLU_POOL_MAX_THREADS);
    *pp = NULL;
    slu_pool *p = calloc(1, sizeof *p + threads * sizeof *p->threads);
    if (!p)
        return slu_fail(err, SLU_ENOMEM, "out of memory for a pool of %u threads", threads);
    p->parallel = (slu_parallel){run, p, threads};
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->done, NULL);
    int rc = start_threads(p, threads - 1);
    if (rc) {
        slu_pool_free(p);
        return slu_fail(
            err, SLU_EIO,
            "cannot start a thread for computing (%s): raise the limit of threads or ask for fewer than %u",
            strerror(rc), threads);
    }
    *pp = p;
    return 0;
}

void slu_pool_free(slu_pool *p)
{
    if (!p)
        return;
    atomic_store(&p->stop, true);
    wake(p);
    for (uint32_t i = 0; i < p->started; i++)
        pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->done);
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->mutex);
    free(p);
}

const slu_parallel *slu_pool_parallel(const slu_pool *p)
{
    return &p->parallel;
}
