/* store/join_table.h - the joiner's durable state: impressions whose windows are open, steps that wait, and
 * timers.
 *
 * A record is opaque bytes under a 128-bit key. Records live in a bounded memory cache with write-back; what
 * is not in memory is looked up in the store (bloom filters make "never seen" cheap). Timers fire in
 * (deadline, sequence) order, which makes the joiner deterministic; only those up to a horizon are held in
 * memory. All changes since the last commit are visible at once to the owner and reach disk with the next
 * commit. @thread trainer */
#pragma once
#include "base/digest.h"
#include "store/store.h"

typedef struct slu_join_table slu_join_table;

typedef struct slu_join_table_config {
    uint64_t cache_bytes; /* records in memory; clean ones are evicted beyond it */
} slu_join_table_config;

int slu_join_table_open(slu_store *s, const slu_join_table_config *config, slu_join_table **tp,
                        slu_error *err);
void slu_join_table_close(slu_join_table *t);

/* The record of |key|, or SLU_ENOTFOUND. *|data| (len) is 8-aligned, writable in place (same length) and
 * valid until the next get, put or delete; touch and timer calls leave it where it is. After writing call
 * slu_join_table_touch(). */
int slu_join_table_get(slu_join_table *t, slu_hash128 key, uint8_t **data, size_t *len, slu_error *err);
/* Also SLU_ENOTFOUND when there is no such record in memory. */
int slu_join_table_touch(slu_join_table *t, slu_hash128 key);
/* Inserts or replaces. |data| is copied; *|stored| (may be NULL) receives where. */
int slu_join_table_put(slu_join_table *t, slu_hash128 key, const void *data, size_t len, uint8_t **stored,
                       slu_error *err);
/* Returns 0, SLU_ENOTFOUND, or what reading the store returns. */
int slu_join_table_delete(slu_join_table *t, slu_hash128 key, slu_error *err);
uint64_t
slu_join_table_count(const slu_join_table *t); /* records, in memory or not; exact, kept in the store */

/* Arms a timer. (deadline_us >= 0, sequence) is unique by the caller's choice of sequence. */
int slu_join_timer_add(slu_join_table *t, int64_t deadline_us, uint64_t sequence, slu_hash128 key,
                       slu_error *err);
/* Takes the earliest timer with deadline <= |now_us|. Returns 0 and fills the outputs, or SLU_ENOTFOUND, or
 * SLU_EIO or SLU_ECORRUPT (the store has fewer timers than were counted). */
int slu_join_timer_pop(slu_join_table *t, int64_t now_us, int64_t *deadline_us, uint64_t *sequence,
                       slu_hash128 *key, slu_error *err);
/* Deadline of the earliest timer, INT64_MAX when there is none; 0 when the store cannot be read, so that pop
 * is called and returns the error. */
int64_t slu_join_timer_next(slu_join_table *t);
uint64_t slu_join_timer_count(const slu_join_table *t);

/* Writes all changes since the last commit into |c|; they are clean after slu_join_table_committed(). The
 * table may be used in between. A record or timer that came and went since the last commit writes nothing. */
int slu_join_table_flush(slu_join_table *t, slu_commit *c);
void slu_join_table_committed(slu_join_table *t);

typedef struct slu_join_table_stats {
    uint64_t cached_records, cached_bytes, dirty_records, dirty_bytes /* about */, timers_in_memory, misses;
} slu_join_table_stats;
void slu_join_table_get_stats(const slu_join_table *t, slu_join_table_stats *out);
