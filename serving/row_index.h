/* serving/row_index.h - from the hash of an id to the slot of its row: entries that readers walk while one
 * writer changes them.
 *
 * Open addressing, linear probing, at most three quarters used. An entry is 0 (empty), 1 (a tombstone: look
 * on) or the hash << 32 | slot + 2. The hash (32 bits) is also the home position, so a larger index is made
 * from the smaller one alone, without a look at any row, and nearly every false match ends at the entry. What
 * ids the rows have is not known here: whoever looks compares them (serving/row_set.c).
 *
 * INVARIANT: there is always an empty entry, so every walk ends: row_index_grow() comes before a change when
 * row_index_is_full(). An entry changes with one 64-bit store with release; a reader that loads it with
 * acquire finds the row that it leads to complete.
 *
 * A larger array is built beside the one in use and the pointer swapped. The old one is retired, since
 * readers may be walking it, until a grace period has passed (row_index_reclaim).
 * @thread one writer; readers begin with row_index_now() and stay with what it gives them until they leave
 * their RCU read section */
#pragma once
#include "base/rng.h"
#include <stdbool.h>
#include <stdint.h>

#define ROW_ENTRY_EMPTY     0u
#define ROW_ENTRY_TOMBSTONE 1u
#define ROW_ENTRY_FIRST     2u /* of slot 0 */

typedef struct row_entries {
    uint64_t mask;            /* entries - 1 */
    struct row_entries *next; /* in the list of retired ones */
    uint64_t at[];            /* the entry of position pos is at[pos & mask] */
} row_entries;

typedef struct row_index {
    row_entries *entries; /* read with acquire by readers */
    uint64_t used;        /* entries that are not empty */
    uint64_t tombstones;  /* of them */
    row_entries *retired;
    uint64_t bytes, retired_bytes;
} row_index;

bool row_index_init(row_index *x); /* false: out of memory */
void row_index_free(row_index *x); /* no reader may be left; a zeroed one is fine */

/* Entries without the tombstones, with room for as many rows again. |shared|: readers may be inside, the old
 * ones wait for row_index_reclaim(). False: out of memory, everything is as it was. */
bool row_index_grow(row_index *x, bool shared);
/* A grace period has passed. */
void row_index_reclaim(row_index *x);

uint64_t row_index_bytes(const row_index *x); /* with what is retired */
/* Bytes that the next row takes, for limits that are checked before. */
uint64_t row_index_next_bytes(const row_index *x);

/* Whether one more entry is too many. */
static inline bool row_index_is_full(const row_index *x)
{
    return (x->used + 1) * 4 > (x->entries->mask + 1) * 3;
}

/* Lets |e|, one of the entries in use, be |entry|: ROW_ENTRY_TOMBSTONE or that of a row. */
static inline void row_index_set(row_index *x, uint64_t *e, uint64_t entry)
{
    x->used += *e == ROW_ENTRY_EMPTY;
    x->tombstones -= *e == ROW_ENTRY_TOMBSTONE;
    x->tombstones += entry == ROW_ENTRY_TOMBSTONE;
    __atomic_store_n(e, entry, __ATOMIC_RELEASE);
}

/* Inline from here on: part of every look-up. */
static inline const row_entries *row_index_now(const row_index *x)
{
    return __atomic_load_n(&x->entries, __ATOMIC_ACQUIRE);
}

static inline uint64_t row_entries_load(const row_entries *x, uint64_t pos)
{
    return __atomic_load_n(&x->at[pos & x->mask], __ATOMIC_ACQUIRE);
}

static inline uint64_t row_hash(uint64_t id)
{
    return (uint32_t)slu_mix64(id);
}

static inline uint64_t row_entry(uint64_t hash, uint32_t slot)
{
    return hash << 32 | (slot + ROW_ENTRY_FIRST);
}

/* Leads to a row whose id has this hash. */
static inline bool row_entry_fits(uint64_t entry, uint64_t hash)
{
    return (uint32_t)entry >= ROW_ENTRY_FIRST && entry >> 32 == hash;
}

static inline uint32_t row_entry_slot(uint64_t entry)
{
    return (uint32_t)entry - ROW_ENTRY_FIRST;
}
