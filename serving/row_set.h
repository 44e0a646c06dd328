/* serving/row_set.h - the rows of one table in a scorer: a hash table that readers never wait for.
 *
 * A version becomes visible whole. The writer puts a new value into a slot that nobody looks at, marks it
 * with the mark of the version being made (1 or 2, taking turns) and lets it remember the slot of the value
 * that it replaces; then it swings the one 64-bit index entry that leads to it. A reader knows the mark of
 * the version it reads: a row with the other mark is of the version to come, so it takes the predecessor
 * instead, which is there for as long as such readers are. A deletion is a row that says so. When the version
 * has been made current and a grace period (RCU) has passed, nobody reads the one before: the writer settles
 * the table, that is it takes the marks off and the predecessors back. A version that is not wanted after all
 * is undone, and no reader ever saw any of it.
 *
 * Rows do not change once they can be seen, so readers may keep pointers to them for as long as they are
 * inside a read section. A look-up costs about two cache misses, an index entry (serving/row_index.h) and a
 * row (serving/row_chunks.h), both prefetched over a batch of ids. Rows and large indexes are mapped memory,
 * which goes back to the system at once when the table goes (serving/huge_memory.h).
 *
 * @thread one writer; readers inside an RCU read section (serving/model_table.c). */
#pragma once
#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct row_set row_set;

/* Mark of changes to a table that no reader knows yet: they are made in place. */
#define ROW_SET_PRIVATE 0u

/* |floats| per row, may be 0. NULL: out of memory. */
row_set *row_set_new(uint32_t floats);
void row_set_free(row_set *s); /* no reader may be left; NULL is fine */

/* rows[i] is the row of ids[i] (floats), or NULL, in the version with |mark|, 1 or 2. Returns how many were
 * found. @thread reader */
uint32_t row_set_find(const row_set *s, uint32_t mark, const uint64_t *ids, uint32_t n, const float **rows);
/* Calls the ids' index entries into the cache, for a look-up that comes a little later. @thread reader */
void row_set_call(const row_set *s, const uint64_t *ids, uint32_t n);

/* Writer side. Put sets or replaces; delete returns 1, or 0 when there is no such row. |mark|: of the version
 * being made, the same until it is settled or undone. SLU_ENOMEM or SLU_ELIMIT (2^32 slots) leave the table
 * as it was. */
int row_set_put(row_set *s, uint32_t mark, uint64_t id, const float *v, slu_error *err);
/* A change of |id| is about to come: its place in the index is called into the cache. */
void row_set_expect(const row_set *s, uint64_t id);
int row_set_delete(row_set *s, uint32_t mark, uint64_t id, slu_error *err);
/* The row as the version being made has it; NULL: none. Valid until the next change. */
const float *row_set_newest(const row_set *s, uint64_t id);
/* The version made is current, and since it became so a grace period has passed. */
void row_set_settle(row_set *s);
/* Back to what readers see; what was made waits for the next grace period. */
void row_set_undo(row_set *s);
/* A grace period has passed: what waited for one is free. */
void row_set_reclaim(row_set *s);

uint64_t row_set_rows(const row_set *s);  /* in the version being made. @thread writer */
uint64_t row_set_bytes(const row_set *s); /* everything held. @thread writer */
/* Bytes that the next change needs, for limits that are checked before. */
uint64_t row_set_next_bytes(const row_set *s);
