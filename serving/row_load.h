/* serving/row_load.h - all rows of a scorer's store, read by several threads for the one that builds a model.
 *
 * A start reads every row there is, and most of that time is RocksDB's: merging files, unpacking blocks. So
 * |threads| readers walk the tables in ranges (a quarter of a table's ids each, as ids are hashes), check
 * each row and fill batches; the caller's thread gets them one after the other. It alone changes the model.
 *
 * INVARIANT: a row is handed over once, rows of a batch are of one table; which batch comes first is not
 * promised. Nobody may write to these rows meanwhile. Memory: two batches for each reader. */
#pragma once
#include "base/error.h"
#include "serving/model_table.h"
#include "store/store.h"
#include <stdint.h>

/* |n| rows of |table|: ids (n), v (n, served). Anything but 0 ends the reading and is what row_load returns.
 */
typedef int (*row_load_fn)(void *ctx, uint32_t table, const uint64_t *ids, const float *v, uint32_t n,
                           slu_error *err);

typedef struct row_load_from {
    slu_store *store;
    uint32_t generation;          /* 0 or ROW_KEY_GENERATION: which rows */
    const slu_model_table *shape; /* tables and their floats */
    uint32_t threads;             /* readers, 1 .. ROW_LOAD_THREADS */
} row_load_from;

#define ROW_LOAD_THREADS 8u

/* Returns 0, what |take| returned, SLU_ECORRUPT (a row that does not belong to these tables, a number that is
 * not finite; the message names it), SLU_EIO, SLU_ENOMEM (also: no thread). No thread is left when it
 * returns. @thread any, one at a time for a store */
int row_load(const row_load_from *from, row_load_fn take, void *ctx, slu_error *err);
