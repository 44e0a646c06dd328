/* base/pool.h - a few threads that share the pieces of one computation (base/parallel.h): fork, and join.
 *
 * The caller works too, so a pool of n threads starts n - 1. Between runs the others look for work for some
 * ten microseconds, because products follow each other closely, and then sleep: an idle pool costs nothing.
 * Nothing is allocated by a run. A thread that is late (the machine is busy) is not waited for unless it has
 * taken a piece.
 *
 * @thread made, run and freed by one thread; a piece must not run the pool it is part of. */
#pragma once
#include "base/error.h"
#include "base/parallel.h"

typedef struct slu_pool slu_pool;

#define SLU_POOL_MAX_THREADS 64

/* |threads| 1 to SLU_POOL_MAX_THREADS. Its threads take no signals. Returns 0, SLU_ENOMEM or SLU_EIO (no
 * thread could be started). */
int slu_pool_new(uint32_t threads, slu_pool **pp, slu_error *err);
void slu_pool_free(slu_pool *p); /* NULL is fine */
/* Lives as long as the pool. */
const slu_parallel *slu_pool_parallel(const slu_pool *p);
