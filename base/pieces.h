/* base/pieces.h - the pieces of one computation, taken one by one by whoever comes by: fork and join without
 * threads of its own. base/pool.h brings threads along; serving/crew.h borrows those that have nothing to do.
 *
 * One thread, the owner, begins a run, takes pieces like everybody else, and waits for the last one. Others
 * may come at any time, before, during and after a run, and find a piece or none. Nothing is allocated. Only
 * who has taken a piece is waited for.
 *
 * @thread begin and wait: the owner; the rest: any */
#pragma once
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#define SLU_PIECES_MAX 0xffffu /* of one run */

/* |who| is the number that the one who does the piece goes by, for scratch of his own. */
typedef void (*slu_pieces_fn)(void *ctx, uint32_t who, uint32_t piece);

typedef struct slu_pieces {
    _Atomic uint64_t ticket; /* of the run: its number (32 bits), its pieces (16), the next of them (16) */
    _Atomic uint32_t left;   /* pieces that are not done */
    atomic_bool waiting;     /* the owner sleeps until the last one is */
    slu_pieces_fn fn;
    void *ctx;
    pthread_mutex_t mutex;
    pthread_cond_t done;
} slu_pieces;

void slu_pieces_init(slu_pieces *p);
void slu_pieces_clear(slu_pieces *p); /* nobody may be inside */

/* Opens a run: fn(ctx, who, 0) ... fn(ctx, who, n - 1), each once, in any order and at once. The one before
 * is over (slu_pieces_wait). */
void slu_pieces_begin(slu_pieces *p, slu_pieces_fn fn, void *ctx, uint32_t n);
/* Takes a piece and does it; false: there is none to take. */
bool slu_pieces_do(slu_pieces *p, uint32_t who);
/* Is there one to take? */
static inline bool slu_pieces_open(slu_pieces *p)
{
    const uint64_t ticket = atomic_load(&p->ticket);
    return (ticket & 0xffff) < (ticket >> 16 & 0xffff);
}
/* Returns when all are done; what they wrote is seen by the caller then. Looks for some ten microseconds
 * before it sleeps. */
void slu_pieces_wait(slu_pieces *p);

/* Between two looks at something that another thread is about to change. */
static inline void slu_pieces_breathe(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}
#define SLU_PIECES_LOOKS 1000 /* before a thread sleeps: about 20 us */
