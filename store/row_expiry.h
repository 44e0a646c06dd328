/* store/row_expiry.h - rows that were not seen for their table's time to live go away.
 *
 * INVARIANT 2 (docs/architecture.md) holds for this too: which rows are gone is a function of the records,
 * never of when was committed or what was in memory. So the time is event time, handed in at each step of
 * learning, and at most a given number of rows is looked at per step, in (deadline, table, id) order.
 *
 * Each row of a table with a time to live has one timer. It is not moved when the row is seen again: when it
 * fires and the row was seen in between, it is armed anew for the time that follows from then. A row that has
 * expired is deleted from the row table, which writes a tombstone at the next commit; a value that is seen
 * again starts as new.
 *
 * The store remembers which times to live its timers were made for. Another configuration makes them anew
 * when it opens the store, which walks all rows once. Tables without a time to live cost nothing. @thread
 * trainer */
#pragma once
#include "store/row_table.h"

typedef struct slu_row_expiry slu_row_expiry;

/* |ttl_us| (n_tables), 0: never. *|ep| is NULL when no table has one. Both must outlive it. */
int slu_row_expiry_open(slu_store *s, slu_row_table *rows, const int64_t *ttl_us, uint32_t n_tables,
                        slu_row_expiry **ep, slu_error *err);
void slu_row_expiry_close(slu_row_expiry *e);

/* For each row that is counted (slu_row_touch) for the first time. */
void slu_row_expiry_born(slu_row_expiry *e, uint32_t table, uint64_t id, uint32_t last_seen);
bool slu_row_expiry_has(const slu_row_expiry *e, uint32_t table); /* a time to live */
/* Looks at up to |most| rows that are due at event time |now_us| and deletes those that were not seen since.
 * No row may be held. */
int slu_row_expiry_run(slu_row_expiry *e, int64_t now_us, uint64_t most, slu_error *err);
uint64_t slu_row_expiry_count(const slu_row_expiry *e); /* rows that have a timer */

void slu_row_expiry_flush(slu_row_expiry *e, slu_commit *c);
void slu_row_expiry_committed(slu_row_expiry *e);

/* A key of family EXPIRY; false: it is none. */
bool slu_row_expiry_parse(const void *key, size_t len, uint64_t *deadline_seconds, uint32_t *table,
                          uint64_t *id);
