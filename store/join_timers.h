/* store/join_timers.h - the joiner's timers; inside the room, see join_table.h for the contract.
 *
 * Timers before a horizon are in a heap in memory, those behind it only in the store, or, while no commit has
 * written them yet, in a list. When the heap runs empty the next stretch of the store is read, merged with
 * that list, and the horizon moves on; when the heap grows too large its later half is let go and the horizon
 * moves back. A timer that is added and popped between two commits never touches the disk. */
#pragma once
#include "base/digest.h"
#include "store/store.h"

typedef struct slu_join_timers slu_join_timers;

/* Keeps about |memory_bytes| of timers in memory, and whatever is not committed. */
int slu_join_timers_open(slu_store *s, uint64_t memory_bytes, slu_join_timers **tp, slu_error *err);
void slu_join_timers_close(slu_join_timers *t);

void slu_join_timers_add(slu_join_timers *t, int64_t deadline_us, uint64_t sequence, slu_hash128 key);
int slu_join_timers_pop(slu_join_timers *t, int64_t now_us, int64_t *deadline_us, uint64_t *sequence,
                        slu_hash128 *key, slu_error *err);
int64_t slu_join_timers_next(slu_join_timers *t);
uint64_t slu_join_timers_count(const slu_join_timers *t);
uint64_t slu_join_timers_in_memory(const slu_join_timers *t);

void slu_join_timers_flush(slu_join_timers *t, slu_commit *c);
void slu_join_timers_committed(slu_join_timers *t);
