/* trainer/base.h - the whole model of one commit on its way to the delta topic, in pieces.
 *
 * A base can be larger than memory and take longer than a watchdog waits, so it is read from a view of the
 * store as it is when the base begins, a chunk at a time, while learning and commits go on. The number of its
 * chunks is in each of them: it follows from the numbers of rows, which the row table knows.
 *
 * What is sent is checked: rows that do not add up to what the commit recorded end it with SLU_ECORRUPT
 * before its last chunk, so that no scorer takes it. @thread the pipeline's */
#pragma once
#include "base/digest.h"
#include "store/store.h"
#include "trainer/delta.h"

typedef struct slu_base slu_base;

typedef struct slu_base_spec {
    slu_store *store; /* what it holds now is what is sent */
    slu_delta_head head;
    const uint32_t *served; /* (n_tables) floats of a row */
    const uint64_t *rows;   /* (n_tables) rows that scorers get */
    uint32_t n_tables;
    size_t chunk_bytes;
    const float *dense; /* (n_dense) copied */
    size_t n_dense;
    slu_row_sum row_sum;
    slu_hash128 dense_digest;
} slu_base_spec;

int slu_base_begin(const slu_base_spec *spec, slu_base **bp, slu_error *err);
/* Reads on, up to a bounded number of rows, and hands out what is ready. Returns 1: go on, 0: that was all;
 * SLU_EIO, SLU_ECORRUPT; SLU_EAGAIN: the store was reopened in between, this base cannot be completed. */
int slu_base_next(slu_base *b, void (*emit)(void *ctx, const void *message, size_t len), void *ctx,
                  slu_error *err);
void slu_base_close(slu_base *b); /* at any time; NULL is fine */
