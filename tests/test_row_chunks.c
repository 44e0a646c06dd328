/* Rows by slot: none overlaps another, none moves, and what they cost is what was foretold. */
#include "base/error.h"
#include "base/rng.h"
#include "serving/huge_memory.h"
#include "serving/row_chunks.h"
#include "tests/suite.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static row_chunks *chunks_new(size_t row_bytes)
{
    row_chunks *c = calloc(1, sizeof *c);
    ck_assert_ptr_nonnull(c);
    row_chunks_init(c, row_bytes);
    return c;
}

static void chunks_free(row_chunks *c)
{
    row_chunks_free(c);
    ck_assert_uint_eq(row_chunks_bytes(c), 0);
    free(c);
}

/* The next slot, which costs what was foretold. */
static uint32_t take(row_chunks *c)
{
    uint32_t slot = UINT32_MAX;
    const uint64_t bytes = row_chunks_bytes(c), next = row_chunks_next_bytes(c);
    const int rc = row_chunks_take(c, &slot);
    const uint64_t now = row_chunks_bytes(c);
    if (rc || now < bytes || now > bytes + next)
        ck_abort_msg("slot %u: %d, %llu bytes more, %llu foretold", slot, rc,
                     (unsigned long long)(now - bytes), (unsigned long long)next);
    return slot;
}

static bool all_are(const char *p, size_t n, int value)
{
    return p[0] == (char)value && !memcmp(p, p + 1, n - 1);
}

/* Each row is filled to its last byte with what its number says, and still is when all are. */
static void rows_lie_apart(size_t row_bytes, uint32_t rows)
{
    row_chunks *c = chunks_new(row_bytes);
    uint32_t *slots = malloc(rows * sizeof *slots);
    char **at = malloc(rows * sizeof *at);
    for (uint32_t i = 0; i < rows; i++) {
        slots[i] = take(c);
        at[i] = row_chunks_at(c, slots[i]);
        if ((i && slots[i] <= slots[i - 1]) || (uintptr_t)at[i] % 8 || !all_are(at[i], row_bytes, 0))
            ck_abort_msg("row %u of %zu bytes: slot %u at %p", i, row_bytes, slots[i], (void *)at[i]);
        memset(at[i], (int)(slu_mix64(i) & 0xff), row_bytes);
    }
    for (uint32_t i = 0; i < rows; i++)
        if (row_chunks_at(c, slots[i]) != at[i] || !all_are(at[i], row_bytes, (int)(slu_mix64(i) & 0xff)))
            ck_abort_msg("row %u of %zu bytes moved or changed", i, row_bytes);
    free(slots);
    free(at);
    chunks_free(c);
}

START_TEST(test_rows_lie_apart)
{
    rows_lie_apart(16, 3 * 131072 + 5); /* a power of two of them in a chunk */
    rows_lie_apart(17, 3 * 87381 + 5);  /* gaps in the numbers */
    rows_lie_apart(100, 50000);
    rows_lie_apart(4096 + 16, 2000);
    rows_lie_apart(HUGE_PAGE / 2, 5);
    rows_lie_apart(HUGE_PAGE / 2 + 8, 5); /* one in a chunk */
    rows_lie_apart(HUGE_PAGE, 3);
    rows_lie_apart(3 * HUGE_PAGE - 12, 3);
}
END_TEST

/* A small table has pages for its rows, a larger one whole chunks. */
START_TEST(test_small_tables_cost_little)
{
    row_chunks *c = chunks_new(80);
    ck_assert_uint_eq(row_chunks_bytes(c), 0);
    ck_assert_uint_eq(row_chunks_next_bytes(c), 4096);
    for (int i = 0; i < 51; i++)
        take(c);
    ck_assert_uint_eq(row_chunks_bytes(c), 4096);
    ck_assert_uint_eq(row_chunks_next_bytes(c), 4096);
    while (c->n < 2)
        take(c);
    ck_assert_uint_eq(row_chunks_bytes(c), 2 * HUGE_PAGE);
    ck_assert_uint_eq(row_chunks_next_bytes(c), 0);
    while (c->n < 3)
        take(c);
    ck_assert_uint_eq(row_chunks_bytes(c), 3 * HUGE_PAGE);
    chunks_free(c);
}
END_TEST

/* Rows just too long to share a chunk, which nobody touches: as many as there are chunks, and no more. */
START_TEST(test_chunks_run_out)
{
    row_chunks *c = chunks_new(HUGE_PAGE / 2 + 8);
    uint32_t slot = 0;
    int rc = 0;
    for (uint32_t i = 0; i < ROW_CHUNKS_MOST && !rc; i++) {
        rc = row_chunks_take(c, &slot);
        if (!rc && slot != i)
            ck_abort_msg("slot %u comes %u-th", slot, i);
    }
    ck_assert(!rc || rc == SLU_ENOMEM); /* where address space is rationed */
    const uint64_t bytes = row_chunks_bytes(c);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(row_chunks_take(c, &slot), rc ? SLU_ENOMEM : SLU_ELIMIT);
    ck_assert_uint_eq(row_chunks_bytes(c), bytes);
    chunks_free(c);
}
END_TEST

/* The end of all numbers, with the chunks before it left out: |rows| are left. */
static void numbers_run_out(size_t row_bytes, uint32_t rows)
{
    row_chunks *c = chunks_new(row_bytes);
    uint32_t slot = 0;
    c->n = UINT32_MAX >> c->shift;
    c->slots = c->n << c->shift;
    const uint32_t first = c->slots;
    for (uint32_t i = 0; i < rows; i++)
        if (take(c) != first + i)
            ck_abort_msg("row %u of the last chunk is not slot %u", i, first + i);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(row_chunks_take(c, &slot), SLU_ELIMIT);
    ck_assert_uint_eq(row_chunks_next_bytes(c), 0);
    chunks_free(c);
}

START_TEST(test_numbers_run_out)
{
    numbers_run_out(16, 131072 - 3); /* three numbers are not for slots */
    numbers_run_out(24, 87381);      /* the chunk ends before its numbers do */
}
END_TEST

int main(void)
{
    return run_suite("row_chunks", (const TTest *[]){test_rows_lie_apart, test_small_tables_cost_little,
                                                     test_chunks_run_out, test_numbers_run_out, NULL});
}
