#include "base/pieces.h"
#include <assert.h>

void slu_pieces_init(slu_pieces *p)
{
    *p = (slu_pieces){.fn = NULL};
    pthread_mutex_init(&p->mutex, NULL);
    pthread_cond_init(&p->done, NULL);
}

void slu_pieces_clear(slu_pieces *p)
{
    assert(!atomic_load(&p->left));
    pthread_cond_destroy(&p->done);
    pthread_mutex_destroy(&p->mutex);
}

void slu_pieces_begin(slu_pieces *p, slu_pieces_fn fn, void *ctx, uint32_t n)
{
    assert(n <= SLU_PIECES_MAX && !atomic_load(&p->left));
    const uint64_t number = (atomic_load(&p->ticket) >> 32) + 1;
    p->fn = fn;
    p->ctx = ctx;
    atomic_store(&p->left, n);
    atomic_store(&p->ticket, number << 32 | (uint64_t)n << 16);
}

/* Who takes a piece swaps the ticket for the next. From then until the piece is done the run cannot end, so
 * its function is read behind that. */
bool slu_pieces_do(slu_pieces *p, uint32_t who)
{
    uint64_t ticket = atomic_load(&p->ticket);
    do {
        if ((ticket & 0xffff) >= (ticket >> 16 & 0xffff))
            return false;
    } while (!atomic_compare_exchange_weak(&p->ticket, &ticket, ticket + 1));
    p->fn(p->ctx, who, (uint32_t)(ticket & 0xffff));
    if (atomic_fetch_sub(&p->left, 1) == 1 && atomic_load(&p->waiting)) {
        pthread_mutex_lock(&p->mutex);
        pthread_cond_signal(&p->done);
        pthread_mutex_unlock(&p->mutex);
    }
    return true;
}

void slu_pieces_wait(slu_pieces *p)
{
    for (int looks = 0; looks < SLU_PIECES_LOOKS; looks++) {
        if (!atomic_load(&p->left))
            return;
        slu_pieces_breathe();
    }
    pthread_mutex_lock(&p->mutex);
    atomic_store(&p->waiting, true);
    while (atomic_load(&p->left))
        pthread_cond_wait(&p->done, &p->mutex);
    atomic_store(&p->waiting, false);
    pthread_mutex_unlock(&p->mutex);
}
