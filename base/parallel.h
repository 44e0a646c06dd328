/* base/parallel.h - how computation is handed pieces of work without knowing who does them.
 *
 * Pieces of one run are independent and may be done in any order, by any thread, at once; none writes what
 * another one reads. Whoever cuts the work must cut it so that the result does not depend on the number of
 * threads: never along a sum.
 *
 * The default, NULL, does one piece after another in the calling thread; base/pool.h is the other one. */
#pragma once
#include <stdint.h>

typedef void (*slu_piece_fn)(void *ctx, uint32_t piece);

typedef struct slu_parallel {
    /* Calls fn(ctx, 0) ... fn(ctx, n - 1), each once, and returns when all are done; what they wrote is then
     * seen by the caller. */
    void (*run)(void *self, slu_piece_fn fn, void *ctx, uint32_t n);
    void *self;
    uint32_t threads; /* that work at once at most, the caller among them */
} slu_parallel;

static inline uint32_t slu_parallel_threads(const slu_parallel *p)
{
    return p ? p->threads : 1;
}

static inline void slu_parallel_run(const slu_parallel *p, slu_piece_fn fn, void *ctx, uint32_t n)
{
    if (p && n > 1) {
        p->run(p->self, fn, ctx, n);
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        fn(ctx, i);
}
