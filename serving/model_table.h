/* serving/model_table.h - what a scorer scores with: rows of every table, the dense vector, and their
 * version.
 *
 * One writer (the subscriber thread), any number of readers (loop threads) that never wait and never make it
 * wait for longer than one request. INVARIANT 4: between slu_model_read_begin and slu_model_read_end a reader
 * sees exactly one version: the rows, the dense vector and the number that slu_model_publish has put
 * together, however often the writer publishes meanwhile. What the writer changes is seen by nobody before it
 * is published (serving/row_set.h), and can be taken back until then.
 *
 * Sharing is RCU (liburcu, bulletproof flavour: a thread registers itself at its first read and is forgotten
 * when it ends). Replaced rows and vectors are used again after a grace period, which the writer takes when
 * it publishes or undoes. The writer must not be inside a read section itself. */
#pragma once
#include "base/digest.h"
#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct slu_model_table slu_model_table;
typedef struct slu_model_reader slu_model_reader; /* one per reading thread */

typedef struct slu_model_view {
    float *dense;               /* (P) parameters; not written to by SLU_INFER */
    uint64_t version;           /* 0: no model yet */
    int64_t learned_through_us; /* broker time of the newest event learned, epoch us; 0 unknown */
    const float *derived;       /* what slu_model_derive() asked for, of the same parameters; else NULL */
} slu_model_view;

/* What a model adds up to (base/digest.h): equal in a trainer and all its scorers at the same version. */
typedef struct slu_model_sums {
    slu_row_sum rows;
    slu_hash128 dense;
} slu_model_sums;

/* |served| (n_tables): floats per row. |dense| floats in the dense vector. |max_bytes| bounds the memory of
 * rows and indexes (0: no bound): more are refused (SLU_ELIMIT). */
int slu_model_table_new(const uint32_t *served, uint32_t n_tables, size_t dense, uint64_t max_bytes,
                        slu_model_table **tp, slu_error *err);
void slu_model_table_free(slu_model_table *t); /* no reader may be left; NULL is fine */
uint32_t slu_model_tables(const slu_model_table *t);
uint32_t slu_model_served(const slu_model_table *t, uint32_t table); /* floats per row */
size_t slu_model_dense(const slu_model_table *t);                    /* P */

/* Every dense vector brings |floats| more (64-byte aligned) that |make| fills from it when it is published,
 * so that what all requests need is computed once a version. For the current one at once. Call it before
 * there are readers; |ctx| outlives the table's last publication. SLU_ENOMEM: nothing has changed. @thread
 * writer's, inside publish */
int slu_model_derive(slu_model_table *t, size_t floats,
                     void (*make)(void *ctx, const float *dense, float *derived), void *ctx, slu_error *err);

/* Reader side. Other threads may look up through a reader while the one that has it is inside a read section
 * and waits for them. NULL: out of memory. */
slu_model_reader *slu_model_reader_new(slu_model_table *t);
void slu_model_reader_free(slu_model_reader *r); /* NULL is fine */
slu_model_view slu_model_read_begin(slu_model_reader *r);
/* rows[i] is the row of ids[i] (n) in a table, |served| floats that stay as they are until
 * slu_model_read_end(); NULL: no such row. Returns how many were present. */
uint32_t slu_model_find_rows(slu_model_reader *r, uint32_t table, const uint64_t *ids, uint32_t n,
                             const float **rows);
/* Says that slu_model_find_rows() will be asked for these ids soon. */
void slu_model_call_rows(slu_model_reader *r, uint32_t table, const uint64_t *ids, uint32_t n);
/* Copies them into out (n, served) instead; absent ones become zeros. */
uint32_t slu_model_read_rows(slu_model_reader *r, uint32_t table, const uint64_t *ids, uint32_t n,
                             float *out);
void slu_model_read_end(slu_model_reader *r);

/* Writer side. Changes are seen with the next slu_model_publish. A failure (SLU_ENOMEM, SLU_ELIMIT) leaves
 * what was changed before it; slu_model_undo takes that back, too. */
int slu_model_put_row(slu_model_table *t, uint32_t table, uint64_t id, const float *v, slu_error *err);
/* The same for |n| rows of one table, v (n, served), quicker than one by one. */
int slu_model_put_rows(slu_model_table *t, uint32_t table, const uint64_t *ids, const float *v, uint32_t n,
                       slu_error *err);
int slu_model_delete_row(slu_model_table *t, uint32_t table, uint64_t id, slu_error *err);
/* Takes back every change since the last slu_model_publish, a base under construction included. */
void slu_model_undo(slu_model_table *t);
/* Takes effect whole: all changes, a new dense vector (NULL: unchanged), version and freshness. Old ones are
 * freed when no reader uses them. A base needs a dense vector. On failure nothing is published. */
int slu_model_publish(slu_model_table *t, const float *dense, uint64_t version, int64_t learned_through_us,
                      slu_error *err);
/* Begins a new, empty generation for a BASE: readers keep the old one until slu_model_publish; puts and
 * deletes go to the new one. Changes that were not published are undone before. */
int slu_model_begin_base(slu_model_table *t, slu_error *err);
/* The current dense vector and version, for the writer itself. */
slu_model_view slu_model_current(const slu_model_table *t);
/* Of the current version, and of what slu_model_publish would make with |dense| (NULL: unchanged). The sum of
 * the rows is kept while they change: what was taken out is what was found there. @thread writer */
slu_model_sums slu_model_current_sums(const slu_model_table *t);
slu_model_sums slu_model_next_sums(const slu_model_table *t, const float *dense);
/* Whether the model has a row, changes that were not published included. @thread writer */
bool slu_model_has_row(const slu_model_table *t, uint32_t table, uint64_t id);
/* Of the current generation, and of all. @thread any */
uint64_t slu_model_rows(const slu_model_table *t);
uint64_t slu_model_bytes(const slu_model_table *t);
