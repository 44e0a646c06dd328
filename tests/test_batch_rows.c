/* One table's ids of a batch against a plain list: each once, in order of first use, with nothing left of
 * the batch before; also when many want one place, and when the stamps of batches begin again. */
#include "base/rng.h"
#include "tests/suite.h"
#include "trainer/batch_rows.h"
#include <stdio.h>
#include <string.h>

#define SEED 20261126u

static slu_batch_rows make(uint32_t max_u)
{
    slu_batch_rows t = {.layout = {.dim = 3, .tasks = 2}};
    ck_assert_int_eq(slu_batch_rows_init(&t, max_u), 0);
    ck_assert_uint_ge(t.index_mask + 1, 2 * max_u); /* never more than half full */
    slu_batch_rows_begin(&t);
    return t;
}

/* What the learner does to a row of the batch: all of it has room. */
static void use(slu_batch_rows *t, uint32_t at)
{
    const uint32_t width = t->layout.dim + t->layout.tasks;
    t->rows[at] = NULL;
    for (uint32_t i = 0; i < width; i++)
        t->grads[(size_t)at * width + i] = 1;
    t->arrivals[at]++;
    t->seen[at] = UINT32_MAX;
    t->learns[at] = 1;
}

/* A batch of |n| uses of ids out of |pool| (of |different|), compared with a list. */
static void one_batch(slu_batch_rows *t, const uint64_t *pool, uint32_t different, uint32_t n, slu_rng *rng)
{
    uint32_t place[256], expected = 0; /* of pool[i] in this batch, UINT32_MAX: not used yet */
    memset(place, 0xff, sizeof place);
    slu_batch_rows_begin(t);
    if (t->u)
        ck_abort_msg("a new batch has ids");
    while (n--) {
        uint32_t i = (uint32_t)slu_rng_below(rng, different);
        bool fresh = place[i] == UINT32_MAX;
        if (fresh)
            place[i] = expected++;
        uint32_t at = slu_batch_rows_at(t, pool[i]);
        if (at != place[i] || t->u != expected || t->ids[at] != pool[i])
            ck_abort_msg("id %llx is at %u instead of %u, of %u", (unsigned long long)pool[i], at, place[i],
                         t->u);
        if (fresh && (t->arrivals[at] || t->seen[at] || t->learns[at]))
            ck_abort_msg("a new id has something of the batch before");
        use(t, at);
    }
    for (uint32_t i = 0; i < different; i++)
        if (place[i] != UINT32_MAX && (t->ids[place[i]] != pool[i] || !t->arrivals[place[i]]))
            ck_abort_msg("id %llx was lost", (unsigned long long)pool[i]);
}

/* Ids as they come, ids that all want one place at the end of the index, and ids that lie side by side; 0
 * among them. */
static void fill_pool(uint64_t *pool, uint32_t n, int kind)
{
    for (uint64_t i = 0; i < n; i++)
        pool[i] = kind == 0 ? slu_mix64(i) : kind == 1 ? i << 32 | 0xffffffff : i;
}

START_TEST(test_any_batches)
{
    static const uint32_t sizes[] = {1, 2, 7, 8, 9, 100, 256};
    printf("seed %u\n", SEED);
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        slu_batch_rows t = make(sizes[k]); /* as many different ones as there is room for */
        for (int round = 0; round < 60; round++) {
            uint64_t pool[256];
            fill_pool(pool, sizes[k], round % 3);
            one_batch(&t, pool, sizes[k], (uint32_t)slu_rng_below(&rng, 4 * sizes[k] + 1), &rng);
        }
        slu_batch_rows_free(&t);
    }
}
END_TEST

/* After four billion batches a stamp comes again: what it once marked is not of this batch. */
START_TEST(test_stamps_begin_again)
{
    slu_batch_rows t = make(64);
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    uint64_t pool[64];
    fill_pool(pool, 64, 0);
    ck_assert_uint_eq(t.stamp, 1);
    one_batch(&t, pool, 64, 200, &rng); /* marks with 2 */
    t.stamp = UINT32_MAX - 2;
    for (int i = 0; i < 6; i++) /* the one before the last, 0 left out, 1, 2, ... */
        one_batch(&t, pool, 64, 200, &rng);
    ck_assert_uint_eq(t.stamp, 4);
    slu_batch_rows_free(&t);

    t = make(64);
    for (uint32_t i = 0; i < 64; i++) /* all marked with 1, the first after the wrap */
        slu_batch_rows_at(&t, pool[i]);
    t.stamp = UINT32_MAX;
    one_batch(&t, pool, 64, 200, &rng);
    ck_assert_uint_eq(t.stamp, 1);
    slu_batch_rows_free(&t);
}
END_TEST

START_TEST(test_empty_ones)
{
    slu_batch_rows zero = {0};
    slu_batch_rows_free(&zero);
    slu_batch_rows t = {.layout = {0}}; /* a table of which nothing is learned by row */
    ck_assert_int_eq(slu_batch_rows_init(&t, 3), 0);
    slu_batch_rows_begin(&t);
    for (uint64_t id = 0; id < 3; id++)
        ck_assert_uint_eq(slu_batch_rows_at(&t, id << 40), id);
    slu_batch_rows_free(&t);
}
END_TEST

int main(void)
{
    return run_suite("batch_rows",
                     (const TTest *[]){test_any_batches, test_stamps_begin_again, test_empty_ones, NULL});
}
