#include "trainer/writer.h"
#include "base/clock.h"
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>

struct slu_writer {
    bool threaded;
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    slu_commit *work; /* to be written, or being written; under the lock */
    bool stopping;    /* under the lock */
    atomic_bool busy; /* work is there; the thread clears it last */
    /* Of the last write; the thread's while it is busy, else the owner's. */
    int rc;
    int64_t took_us;
    slu_error error;
};

static void write_now(slu_writer *w, slu_commit *c)
{
    int64_t start = slu_mono_us(&slu_system_clock);
    slu_error_clear(&w->error);
    w->rc = slu_commit_write(c, &w->error);
    w->took_us = slu_mono_us(&slu_system_clock) - start;
}

static void *run(void *arg)
{
    slu_writer *w = arg;
    pthread_mutex_lock(&w->lock);
    for (;;) {
        while (!w->work && !w->stopping)
            pthread_cond_wait(&w->changed, &w->lock);
        if (!w->work)
            break;
        slu_commit *c = w->work;
        pthread_mutex_unlock(&w->lock);
        write_now(w, c);
        pthread_mutex_lock(&w->lock);
        w->work = NULL;
        atomic_store_explicit(&w->busy, false, memory_order_release);
        pthread_cond_broadcast(&w->changed);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

/* Signals are for the thread that looks at slu_stop_requested. */
static int start_thread(slu_writer *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int rc = pthread_create(&w->thread, NULL, run, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return rc;
}

int slu_writer_start(bool threaded, slu_writer **wp, slu_error *err)
{
    *wp = NULL;
    slu_writer *w = calloc(1, sizeof *w);
    if (!w)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the writer of commits");
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->changed, NULL);
    if (threaded && start_thread(w)) {
        slu_writer_stop(w);
        return slu_fail(err, SLU_EIO, "the thread that writes commits cannot be started");
    }
    w->threaded = threaded;
    *wp = w;
    return 0;
}

void slu_writer_stop(slu_writer *w)
{
    if (!w)
        return;
    if (w->threaded) {
        pthread_mutex_lock(&w->lock);
        w->stopping = true;
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
        pthread_join(w->thread, NULL);
    }
    pthread_cond_destroy(&w->changed);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void slu_writer_begin(slu_writer *w, slu_commit *c)
{
    assert(!slu_writer_busy(w));
    if (!w->threaded) {
        write_now(w, c);
        return;
    }
    atomic_store_explicit(&w->busy, true, memory_order_relaxed);
    pthread_mutex_lock(&w->lock);
    w->work = c;
    pthread_cond_broadcast(&w->changed);
    pthread_mutex_unlock(&w->lock);
}

bool slu_writer_busy(const slu_writer *w)
{
    return atomic_load_explicit(&w->busy, memory_order_acquire);
}

int slu_writer_wait(slu_writer *w, int64_t *took_us, slu_error *err)
{
    pthread_mutex_lock(&w->lock);
    while (w->work)
        pthread_cond_wait(&w->changed, &w->lock);
    pthread_mutex_unlock(&w->lock);
    *took_us = w->took_us;
    return w->rc ? slu_fail(err, w->rc, "%s", w->error.message) : 0;
}
