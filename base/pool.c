#include "base/pool.h"
#include "base/pieces.h"
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

struct slu_pool {
    slu_parallel parallel;
    slu_pieces pieces; /* of the run that is on */
    slu_piece_fn fn;   /* what it does */
    void *ctx;
    _Atomic uint32_t sleepers; /* threads that wait for work */
    atomic_bool stop;
    pthread_mutex_t mutex;
    pthread_cond_t work;
    uint32_t started;
    pthread_t threads[];
};

static void do_piece(void *self, uint32_t who, uint32_t piece)
{
    const slu_pool *p = self;
    (void)who;
    p->fn(p->ctx, piece);
}

static bool wanted(slu_pool *p)
{
    return slu_pieces_open(&p->pieces) || atomic_load(&p->stop);
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
        while (slu_pieces_do(&p->pieces, 0))
            ;
        int looks = 0;
        while (!wanted(p) && looks++ < SLU_PIECES_LOOKS)
            slu_pieces_breathe();
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

static void run(void *self, slu_piece_fn fn, void *ctx, uint32_t n)
{
    slu_pool *p = self;
    p->fn = fn;
    p->ctx = ctx;
    slu_pieces_begin(&p->pieces, do_piece, p, n);
    if (atomic_load(&p->sleepers))
        wake(p);
    while (slu_pieces_do(&p->pieces, 0))
        ;
    slu_pieces_wait(&p->pieces);
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
    slu_pieces_init(&p->pieces);
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->work, NULL);
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
    pthread_cond_destroy(&p->work);
    pthread_mutex_destroy(&p->mutex);
    slu_pieces_clear(&p->pieces);
    free(p);
}

const slu_parallel *slu_pool_parallel(const slu_pool *p)
{
    return &p->parallel;
}
