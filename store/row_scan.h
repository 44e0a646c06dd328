/* store/row_scan.h - the stored rows of the last commit, one after the other in key order: for bases,
 * digests, sums and dumps. What a row table has in memory and not yet committed is not among them. @thread
 * any */
#pragma once
#include "base/error.h"
#include "store/store.h"
#include <stdbool.h>
#include <stdint.h>

/* |v| has |floats| floats; not aligned beyond 4 bytes; good during the call. False: stop. */
typedef bool (*slu_row_each_fn)(void *ctx, uint32_t table, uint64_t id, uint32_t count, uint32_t last_seen,
                                bool admitted, const float *v, uint32_t floats);

/* All rows. Returns 0, SLU_EIO, SLU_ECORRUPT, SLU_EFORMAT. */
int slu_row_scan(slu_store *s, slu_row_each_fn each, void *ctx, slu_error *err);

/* The same in pieces: up to |n| rows of a cursor over family ROWS; returns what slu_cursor_next returns. */
int slu_row_walk(slu_store *s, slu_cursor *at, size_t n, slu_row_each_fn each, void *ctx, slu_error *err);
