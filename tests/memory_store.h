/* tests/memory_store.h - the contract of store/store.h kept in memory, for tests that damage what is stored
 * or let single operations fail: a million times a minute instead of a hundred.
 *
 * memory_store.c defines all of store/store.h, so a program that links it gets it in RocksDB's place.
 * slu_store_open ignores its path and opens the one memory store of the process; closing keeps its entries,
 * opening again finds them, like a directory. Every value lies in a block of its exact size, so that a
 * sanitizer sees a byte too far.
 * @thread store/store.h's functions as it says; the rest: one, while nobody else uses the store, but for
 * memory_store_hold, memory_store_held and memory_store_copy, which any may call at any time */
#pragma once
#include "store/store.h"

typedef struct memory_entry {
    slu_family family;
    uint8_t *key, *value; /* blocks of their own */
    size_t key_len, value_len;
} memory_entry;

/* Entries in the order of family and key. Pointers hold until the next change. */
size_t memory_store_count(void);
const memory_entry *memory_store_at(size_t i);
void memory_store_put(slu_family f, const void *key, size_t key_len, const void *value, size_t value_len);
void memory_store_delete(slu_family f, const void *key, size_t key_len);
void memory_store_clear(void); /* everything, the schema text too */

/* A copy of all entries, and putting it back. */
typedef struct memory_copy memory_copy;
memory_copy *memory_store_copy(void);
void memory_store_restore(const memory_copy *c);
void memory_copy_free(memory_copy *c);

/* The |nth| operation (get, multiget, scan, write) from now on fails with SLU_EIO, once; 0: none. */
void memory_store_fail(unsigned nth);

/* While true, writes of commits wait at their door, as at a disk that takes its time: nothing of them is
 * stored. */
void memory_store_hold(bool held);
/* Waits until a write stands there. */
void memory_store_held(void);
/* The same for slu_store_multiget, which is how rows are read. Those at the door are through when it returns. */
void memory_store_hold_reads(bool held);
void memory_store_read_held(void);
