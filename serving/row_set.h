/* serving/row_set.h - the rows of one table in a scorer: a hash table that readers never wait for.
 *
 * A row never changes once readers can see it. The writer puts a new value into a slot that nobody looks at
 * and then swings the one 64-bit index entry that leads to it; the old slot is used again only after a grace
 * period (RCU), so readers may keep pointers to rows for as long as they are inside a read section, and no
 * row can be half old and half new. The index is open addressing with entries of (32 bits of the hash, 32
 * bits of slot): a look-up costs about two cache misses, both prefetched over a batch of ids. It grows by
 * building a larger one beside it and swapping the pointer.
 *
 * @thread one writer; readers inside an RCU read section (serving/model_table.c). */
#pragma once
#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct row_set row_set;

/* |floats| per row, may be 0. NULL: out of memory. */
row_set *row_set_new(uint32_t floats);
void row_set_free(row_set *s); /* no reader may be left; NULL is fine */

/* rows[i] is the row of ids[i] (floats), or NULL. Returns how many were found. @thread reader */
uint32_t row_set_find(const row_set *s, const uint64_t *ids, uint32_t n, const float **rows);

/* Writer side. Put sets or replaces; SLU_ENOMEM or SLU_ELIMIT (2^32 slots) leave the table as it was. */
int row_set_put(row_set *s, uint64_t id, const float *v, slu_error *err);
bool row_set_delete(row_set *s, uint64_t id); /* false: there was none */
/* Bytes that wait for a grace period, and giving them free again after one. */
uint64_t row_set_waiting(const row_set *s);
void row_set_reclaim(row_set *s);

uint64_t row_set_rows(const row_set *s);  /* @thread writer */
uint64_t row_set_bytes(const row_set *s); /* everything held. @thread writer */
/* Bytes that the next put may need at most, for limits that are checked before. */
uint64_t row_set_next_bytes(const row_set *s);
