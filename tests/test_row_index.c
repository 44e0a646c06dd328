/* Entries of an index against a plain array of hashes, over many sizes and with tombstones. The ids of a slot
 * are its owner's business, so here a slot is its own id. */
#include "serving/row_index.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

#define SEED 20261126u
enum { SLOTS = 20000, CROWD = 64 };

static row_index x;
static bool there[SLOTS];
static uint32_t n_there;

/* Some hashes at one place, near the end, so that walks go round; others as they come. */
static uint64_t hash_of(uint32_t slot)
{
    return slot % CROWD == 0 ? 0xfffffff0u : row_hash(slot);
}

/* The entry of |slot|, NULL: none; |*vacant| is where it would go. */
static uint64_t *walk(uint32_t slot, uint64_t **vacant)
{
    const uint64_t hash = hash_of(slot);
    uint64_t *first = NULL;
    for (uint64_t pos = hash;; pos++) {
        const uint64_t entry = row_entries_load(row_index_now(&x), pos);
        uint64_t *e = &x.entries->at[pos & x.entries->mask];
        if (entry == ROW_ENTRY_TOMBSTONE && !first)
            first = e;
        if (entry == ROW_ENTRY_EMPTY) {
            *vacant = first ? first : e;
            return NULL;
        }
        if (row_entry_fits(entry, hash) && row_entry_slot(entry) == slot)
            return e;
    }
}

static void put(uint32_t slot, bool shared)
{
    uint64_t *vacant = NULL;
    const uint64_t bytes = row_index_bytes(&x), next = row_index_next_bytes(&x);
    if (row_index_is_full(&x))
        ck_assert(row_index_grow(&x, shared));
    ck_assert_uint_le(row_index_bytes(&x), bytes + next);
    if (walk(slot, &vacant))
        return;
    row_index_set(&x, vacant, row_entry(hash_of(slot), slot));
    there[slot] = true;
    n_there++;
}

static void drop(uint32_t slot)
{
    uint64_t *vacant = NULL, *e = walk(slot, &vacant);
    if (!e)
        return;
    row_index_set(&x, e, ROW_ENTRY_TOMBSTONE);
    there[slot] = false;
    n_there--;
}

static void expect_all(void)
{
    uint64_t *vacant;
    for (uint32_t slot = 0; slot < SLOTS; slot++)
        if ((walk(slot, &vacant) != NULL) != there[slot])
            ck_abort_msg("slot %u is %s among %u", slot, there[slot] ? "missing" : "there", n_there);
    ck_assert_uint_eq(x.used - x.tombstones, n_there);
    ck_assert_uint_lt(x.used, x.entries->mask + 1); /* a walk ends */
}

static void fill_and_empty(bool shared)
{
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    memset(there, 0, sizeof there);
    n_there = 0;
    ck_assert(row_index_init(&x));
    for (int round = 0; round < 12; round++) {
        const uint64_t keep = round % 3 ? 2 : 8; /* of ten changes */
        for (int k = 0; k < SLOTS; k++) {
            const uint32_t slot = (uint32_t)slu_rng_below(&rng, SLOTS);
            if (slu_rng_below(&rng, 10) < keep)
                put(slot, shared);
            else
                drop(slot);
        }
        expect_all();
        if (round % 4 == 3)
            row_index_reclaim(&x);
    }
    row_index_free(&x);
}

START_TEST(test_slots_are_found)
{
    printf("seed %u\n", SEED);
    fill_and_empty(false);
    fill_and_empty(true);
}
END_TEST

/* A reader goes on in the entries that it began with, whatever comes after, until it has left. */
START_TEST(test_readers_keep_what_they_began_with)
{
    memset(there, 0, sizeof there);
    ck_assert(row_index_init(&x));
    const row_entries *begun = row_index_now(&x);
    const uint64_t bytes = row_index_bytes(&x);
    for (uint32_t slot = 0; slot < 700; slot++)
        put(slot, true);
    ck_assert_ptr_eq(row_index_now(&x), begun);
    for (uint32_t slot = 700; slot < 5000; slot++)
        put(slot, true);
    ck_assert_ptr_ne(row_index_now(&x), begun);
    uint32_t found = 0;
    for (uint64_t pos = 0; pos <= begun->mask; pos++)
        found += row_entries_load(begun, pos) >= ROW_ENTRY_FIRST;
    ck_assert_uint_ge(found, 700);
    const uint64_t both = row_index_bytes(&x);
    row_index_reclaim(&x);
    ck_assert_uint_lt(row_index_bytes(&x), both);
    ck_assert_uint_gt(row_index_bytes(&x), bytes);
    expect_all();
    row_index_free(&x);
}
END_TEST

/* Rows that come and go leave tombstones; new entries without them need no more room than the old. */
START_TEST(test_tombstones_do_not_pile_up)
{
    memset(there, 0, sizeof there);
    n_there = 0;
    ck_assert(row_index_init(&x));
    const uint64_t bytes = row_index_bytes(&x);
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        put(slot, false);
        if (slot >= 100)
            drop(slot - 100);
    }
    ck_assert_uint_eq(row_index_bytes(&x), bytes);
    expect_all();
    row_index_free(&x);
}
END_TEST

START_TEST(test_entries)
{
    const uint32_t slots[] = {0, 1, 77, UINT32_MAX - 3};
    for (int i = 0; i < 4; i++) {
        const uint64_t hash = row_hash(slots[i] * 3ull), entry = row_entry(hash, slots[i]);
        ck_assert(entry != ROW_ENTRY_EMPTY && entry != ROW_ENTRY_TOMBSTONE);
        ck_assert(row_entry_fits(entry, hash) && !row_entry_fits(entry, hash ^ 1));
        ck_assert_uint_eq(row_entry_slot(entry), slots[i]);
    }
    ck_assert(!row_entry_fits(ROW_ENTRY_EMPTY, 0) && !row_entry_fits(ROW_ENTRY_TOMBSTONE, 0));
    ck_assert(row_entry_fits(row_entry(0, 0), 0));
    row_index none = {0};
    row_index_free(&none);
}
END_TEST

int main(void)
{
    return run_suite("row_index", (const TTest *[]){test_entries, test_slots_are_found,
                                                    test_readers_keep_what_they_began_with,
                                                    test_tombstones_do_not_pile_up, NULL});
}
