/* base/memory_plan.h - the trainer's one memory limit, divided over everything in it that grows.
 *
 * Every part has a default, a least size and a share. Without a limit the limit is the sum of the parts. With
 * one, what the configuration says itself is kept and the others share what is left; what does not fit is
 * refused with the arithmetic. Pure. @thread any */
#pragma once
#include "base/error.h"
#include <stdint.h>

typedef enum slu_memory_part {
    SLU_MEM_ROWS,    /* store.cache */
    SLU_MEM_JOIN,    /* join.cache */
    SLU_MEM_BLOCKS,  /* store.block_cache */
    SLU_MEM_WRITES,  /* RocksDB's memtables, those being written to files included */
    SLU_MEM_COMMIT,  /* what changed since the last commit, once more for each place that it passes: write
                        batch,  memtable, delta, outbox */
    SLU_MEM_FETCH,   /* messages that librdkafka holds for the trainer */
    SLU_MEM_PUBLISH, /* messages that it has not yet sent */
    SLU_MEM_REST,    /* code, threads, dense parameters, buffers of fixed size */
    SLU_MEM_PARTS
} slu_memory_part;

typedef struct slu_memory_plan {
    uint64_t bytes[SLU_MEM_PARTS];
    uint64_t total;
} slu_memory_plan;

/* "rows", "join", ... as in metrics and messages. */
const char *slu_memory_part_name(slu_memory_part p);

/* |limit| 0: none. |given| (SLU_MEM_PARTS): bytes that are fixed already, 0: to be chosen. |least_fetch|:
 * what the largest message needs. Returns 0 or SLU_ECONFIG. */
int slu_memory_divide(uint64_t limit, const uint64_t *given, uint64_t least_fetch, slu_memory_plan *out,
                      slu_error *err);

/* Bytes of changed rows and join records, those of a commit that is being written included, that call for a
 * commit. There is one commit at a time, so what is learned while it is written waits in the caches. */
static inline uint64_t slu_memory_dirty_limit(const slu_memory_plan *p)
{
    return p->bytes[SLU_MEM_COMMIT] / 5;
}
