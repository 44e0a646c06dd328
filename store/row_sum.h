/* store/row_sum.h - what the served rows of a store add up to (base/digest.h), and the record of it in each
 * commit.
 *
 * The record (META "~row_sum": version u64, sum, tables u32, served floats of each u32; all little-endian)
 * saves the walk over all rows when a trainer starts. It is believed only for the version and the numbers of
 * served floats that it names; else the rows are walked. Rows of a table that is served whole, as in a
 * scorer's store, need no record.
 * @thread any */
#pragma once
#include "base/digest.h"
#include "store/store.h"

/* Sum of the stored rows of a trainer's store at |version|, and how many of each table are in it, into |rows|
 * (n_tables); |served| (n_tables): floats of a row. Returns 0, SLU_EIO, SLU_ECORRUPT or SLU_EFORMAT (a row
 * with fewer floats). */
int slu_row_sum_load(slu_store *s, uint64_t version, const uint32_t *served, uint32_t n_tables,
                     slu_row_sum *out, uint64_t *rows, slu_error *err);
void slu_row_sum_record(slu_commit *c, uint64_t version, const uint32_t *served, const uint64_t *rows,
                        uint32_t n_tables, slu_row_sum sum);

/* What a store's model adds up to, found by walking all of it: two stores serve the same model when these
 * agree. */
typedef struct slu_store_sums {
    bool scorer; /* a scorer's store */
    uint64_t version, rows;
    slu_row_sum row_sum;
    slu_hash128 dense_digest;
    bool recorded; /* the trainer's commit says... */
    slu_row_sum record;
    uint64_t record_rows;
} slu_store_sums;
/* For a trainer's store or a scorer's. Also SLU_ENOTFOUND: nothing was committed yet, or, a trainer's, by a
 * version of Sluice that recorded no sums. */
int slu_store_sums_of(slu_store *s, slu_store_sums *out, slu_error *err);
