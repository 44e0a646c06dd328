/* Lists of slots against plain arrays: what is pushed and moved is there, and room is as it was foretold. */
#include "base/rng.h"
#include "serving/slot_list.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

#define SEED 20261126u
enum { LISTS = 3, SLOTS = 3000 };

/* Which list each slot is in, by a list's own order. */
static void expect(const slot_list *lists, const int *in)
{
    static bool seen[SLOTS];
    size_t n = 0;
    memset(seen, 0, sizeof seen);
    for (int l = 0; l < LISTS; l++)
        for (size_t i = 0; i < lists[l].n; i++, n++) {
            const uint32_t slot = lists[l].slots[i];
            if (slot >= SLOTS || seen[slot] || in[slot] != l)
                ck_abort_msg("slot %u is in list %d", slot, l);
            seen[slot] = true;
        }
    for (int i = 0; i < SLOTS; i++)
        n -= in[i] >= 0;
    ck_assert_uint_eq(n, 0);
}

static void reserve(slot_list *l, size_t n)
{
    const size_t foretold = slot_list_cap(l, n), before = l->cap;
    if (!slot_list_reserve(l, n) || l->cap != foretold || l->cap < n || (n <= before && l->cap != before))
        ck_abort_msg("room for %zu in place of %zu: %zu, %zu foretold", n, before, l->cap, foretold);
}

START_TEST(test_slots_stay_in_the_lists_that_they_are_put)
{
    printf("seed %u\n", SEED);
    slot_list lists[LISTS] = {0};
    static int in[SLOTS];
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    memset(in, -1, sizeof in);
    for (uint32_t slot = 0; slot < SLOTS; slot++) {
        const int to = (int)slu_rng_below(&rng, LISTS), from = (int)slu_rng_below(&rng, LISTS);
        reserve(&lists[to], lists[to].n + 1);
        slot_list_push(&lists[to], slot);
        in[slot] = to;
        if (to != from && !slu_rng_below(&rng, 20)) {
            reserve(&lists[to], lists[to].n + lists[from].n);
            slot_list_move(&lists[to], &lists[from]);
            ck_assert_uint_eq(lists[from].n, 0);
            for (uint32_t i = 0; i <= slot; i++)
                in[i] = in[i] == from ? to : in[i];
        }
        if (slot % 100 == 0)
            expect(lists, in);
    }
    expect(lists, in);
    for (int l = 0; l < LISTS; l++) {
        slot_list_free(&lists[l]);
        ck_assert(!lists[l].slots && !lists[l].n && !lists[l].cap);
    }
}
END_TEST

/* A list that grows by one at a time is not copied for each. */
START_TEST(test_room_grows_by_doubling)
{
    slot_list l = {0};
    int grown = 0;
    for (size_t n = 1; n <= 100000; n++) {
        const size_t before = l.cap;
        reserve(&l, n);
        grown += l.cap != before;
    }
    ck_assert_int_le(grown, 10);
    reserve(&l, 1000000); /* at once */
    slot_list_free(&l);
    slot_list_move(&l, &(slot_list){0}); /* nothing to nowhere */
    ck_assert_uint_eq(l.n, 0);
}
END_TEST

int main(void)
{
    return run_suite("slot_list", (const TTest *[]){test_slots_stay_in_the_lists_that_they_are_put,
                                                    test_room_grows_by_doubling, NULL});
}
