/* store/timers.h - what is due when: the joiner's timers (join_table.h) and the rows' (row_expiry.h).
 *
 * Timers are popped in (deadline, sequence) order, which is unique by the caller's choice of sequence; what a
 * deadline counts in is the caller's business. Those before a horizon are in a heap in memory, those behind
 * it only in the store, or, while no commit has written them yet, in a list. When the heap runs empty the
 * next stretch of the store is read, merged with that list, and the horizon moves on; when the heap grows too
 * large its later half is let go and the horizon moves back. A timer that is added and popped between two
 * commits never touches the disk. @thread trainer */
#pragma once
#include "base/digest.h"
#include "store/store.h"

typedef struct slu_timers slu_timers;

typedef struct slu_timers_config {
    slu_family family;      /* deadline (u64 be) sequence (u64 be) -> key, or nothing */
    const char *count_name; /* META name of how many there are */
    bool keys;              /* timers carry a key; else it reads {0, 0} */
    uint64_t memory_bytes;  /* keeps about so much of them in memory, and whatever is not committed */
} slu_timers_config;

int slu_timers_open(slu_store *s, const slu_timers_config *config, slu_timers **tp, slu_error *err);
void slu_timers_close(slu_timers *t);

void slu_timers_add(slu_timers *t, int64_t deadline, uint64_t sequence, slu_hash128 key); /* deadline >= 0 */
/* Takes the earliest timer with deadline <= |now|. Returns 0, SLU_ENOTFOUND, or SLU_EIO or SLU_ECORRUPT (the
 * store has fewer timers than were counted). */
int slu_timers_pop(slu_timers *t, int64_t now, int64_t *deadline, uint64_t *sequence, slu_hash128 *key,
                   slu_error *err);
/* Deadline of the earliest timer, INT64_MAX when there is none; 0 when the store cannot be read, so that pop
 * is called and tells why. */
int64_t slu_timers_next(slu_timers *t);
uint64_t slu_timers_count(const slu_timers *t);
uint64_t slu_timers_in_memory(const slu_timers *t);

void slu_timers_flush(slu_timers *t, slu_commit *c);
void slu_timers_committed(slu_timers *t);
/* The bytes of one stored timer, for those who write a family themselves. */
enum { SLU_TIMER_KEY_BYTES = 16 };
void slu_timer_key(uint8_t out[SLU_TIMER_KEY_BYTES], int64_t deadline, uint64_t sequence);
