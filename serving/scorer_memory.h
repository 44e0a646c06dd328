/* serving/scorer_memory.h - how a scorer's memory (serving.memory) is shared out, so that the whole process
 * keeps to it.
 *
 * Everything that can grow has a bound, the bounds are derived from the one number, and rows and their
 * indexes get what is left. A base is built beside the model that serves, so while bases come a model can use
 * half of that. */
#pragma once
#include "base/options.h"

typedef struct slu_scorer_memory {
    uint64_t total;
    uint64_t model;       /* rows and indexes, of both generations */
    uint64_t delta;       /* bytes of the chunks of one delta that are kept until it is whole */
    uint64_t deltas;      /* what that needs at most, with the copy for the store */
    uint64_t held;        /* bytes of requests and unread answers of one thread */
    uint64_t requests;    /* what that needs at most, all threads */
    uint64_t scratch;     /* of the scoring threads, with the largest request that they take */
    uint64_t connections; /* sessions and their buffers */
    uint64_t store;       /* RocksDB's caches and what waits for a commit */
    uint64_t kafka;       /* messages fetched and not yet applied */
    uint64_t program;     /* code, libraries, page tables of the allocator */
} slu_scorer_memory;

/* Returns 0 or SLU_ECONFIG: nothing is left for a model; the message has the parts and what to change. */
int slu_scorer_memory_of(const slu_options *options, slu_scorer_memory *out, slu_error *err);
