/* store/verify.h - proves that a store is whole and agrees with itself: what sluice-store verify prints.
 *
 * Reads every entry of every family, so every block's checksum, and checks that each value decodes, that
 * counters balance (received = learned + waiting + dead), that records, timers and messages are as many as is
 * counted, that outbox and order have no gaps, that offsets are there, and that
 * the rows add up to what the last commit says (row_sum.h). @thread any, with a store opened for reading */
#pragma once
#include "store/store.h"

typedef struct slu_verify {
    /* Called with one line for each thing that was checked (bad: false) or found wrong (bad: true). */
    void (*say)(void *ctx, bool bad, const char *line);
    void (*progress)(void *ctx, const char *family, uint64_t entries); /* now and then; may be NULL */
    void *ctx;
} slu_verify;

/* Returns how many things are wrong, or a negative code when it could not be read to the end. */
int slu_verify_store(slu_store *s, const slu_verify *v, slu_error *err);
