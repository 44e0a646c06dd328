/* trainer/delta.h - builds sluice.v1.ModelDelta messages (proto/sluice/v1/delta.proto) from rows and dense
 * parameters.
 *
 * A builder collects one version and hands out its chunks, each at most chunk_bytes. No I/O: the trainer puts
 * delta chunks into the outbox, base chunks straight to the publisher, and tests parse them. */
#pragma once
#include "base/bytes.h"
#include "base/digest.h"
#include "base/error.h"
#include <stdbool.h>

typedef struct slu_delta_builder slu_delta_builder;

typedef struct slu_delta_head {
    uint64_t lineage, version, previous_version;
    bool base;
    uint64_t schema_fingerprint;
    const char *schema_text; /* base only */
    int64_t learned_through_us, committed_us;
    /* When this is a part of the version only (a base in pieces): number of its first chunk, and of all
     * chunks. */
    uint32_t first_chunk, chunks;
} slu_delta_head;

/* |served| (n_tables): floats per row that scorers need. */
slu_delta_builder *slu_delta_builder_new(const uint32_t *served, uint32_t n_tables, size_t chunk_bytes);
void slu_delta_builder_free(slu_delta_builder *b);
void slu_delta_begin(slu_delta_builder *b, const slu_delta_head *head);
/* Adds one row; |v| (served floats of the table). Rows of a table should come together. */
void slu_delta_row(slu_delta_builder *b, uint32_t table, uint64_t id, const float *v);
void slu_delta_tombstone(slu_delta_builder *b, uint32_t table, uint64_t id);
void slu_delta_dense(slu_delta_builder *b, const float *params, size_t n);
/* What the model adds up to after this version: goes with the last chunk. Not called: it says nothing. */
void slu_delta_sums(slu_delta_builder *b, slu_row_sum rows, slu_hash128 dense);
/* Rows of |served| floats that fit into a chunk of |chunk_bytes| which holds nothing else; at least 1. */
uint32_t slu_delta_rows_per_chunk(uint32_t served, size_t chunk_bytes);
/* True when nothing was added since begin. */
bool slu_delta_empty(const slu_delta_builder *b);
/* Hands out all chunks in order (at least one, even when empty). */
void slu_delta_finish(slu_delta_builder *b, void (*emit)(void *ctx, const void *message, size_t len),
                      void *ctx);
