/* The slab and its index against a plain list of what is in it. */
#include "store/row_slab.h"
#include "tests/suite.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

enum { IDS = 5000, ROUNDS = 60000, FLOATS = 5 };

static void fill(slu_row *row)
{
    for (int i = 0; i < FLOATS; i++)
        row->v[i] = (float)(row->id % 1000) + (float)i;
}

static void check_row(const slu_row_slab *s, const slu_row *row, uint64_t id)
{
    ck_assert_ptr_nonnull(row);
    ck_assert_uint_eq(row->id, id);
    ck_assert_ptr_eq(slu_row_slab_at(s, row->slot), row);
    for (int i = 0; i < FLOATS; i++)
        ck_assert(row->v[i] == (float)(id % 1000) + (float)i);
}

/* Rows come and go; whoever moved into a hole is found there with all it had. */
START_TEST(test_come_and_go)
{
    static bool in[IDS];
    uint32_t rows = 0;
    slu_row_slab s;
    slu_rng rng;
    slu_rng_seed(&rng, 11);
    ck_assert_int_eq(slu_row_slab_init(&s, FLOATS, 4096), 0);
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t i = (uint32_t)slu_rng_below(&rng, IDS);
        bool growing = round / 15000 % 2 == 0; /* twice up, twice down */
        uint64_t id = slu_mix64(i) + i;
        slu_row *row = slu_row_slab_find(&s, id);
        if (in[i])
            check_row(&s, row, id);
        else
            ck_assert_ptr_null(row);
        if (!row && (growing || slu_rng_below(&rng, 4) == 0)) {
            row = slu_row_slab_append(&s, id);
            ck_assert_uint_eq(row->count + row->admitted + row->dirty + row->held, 0);
            fill(row);
            in[i] = true;
            rows++;
        } else if (row && (!growing || slu_rng_below(&rng, 4) == 0)) {
            slu_row_slab_remove(&s, row);
            in[i] = false;
            rows--;
        }
        ck_assert_uint_eq(s.rows, rows);
        ck_assert_uint_ge((uint64_t)s.n_chunks << s.chunk_shift, rows);
        ck_assert_uint_le((uint64_t)s.n_chunks << s.chunk_shift, rows + (2ull << s.chunk_shift));
    }
    for (uint32_t i = 0; i < IDS; i++) {
        uint64_t id = slu_mix64(i) + i;
        if (in[i])
            check_row(&s, slu_row_slab_find(&s, id), id);
        else
            ck_assert_ptr_null(slu_row_slab_find(&s, id));
    }
    slu_row_slab_free(&s);
}
END_TEST

static int by_tag(const void *a, const void *b)
{
    uint32_t x = slu_row_slab_tag(*(const uint64_t *)a), y = slu_row_slab_tag(*(const uint64_t *)b);
    return (x > y) - (x < y);
}

/* Of 300,000 ids some share their tag: each is found by its id, and the tag alone finds the first. */
START_TEST(test_equal_tags)
{
    enum { MANY = 300000 };
    uint64_t *ids = malloc(MANY * sizeof *ids);
    uint32_t pairs = 0;
    slu_row_slab s;
    ck_assert_ptr_nonnull(ids);
    for (uint32_t i = 0; i < MANY; i++)
        ids[i] = i;
    qsort(ids, MANY, sizeof *ids, by_tag);
    ck_assert_int_eq(slu_row_slab_init(&s, FLOATS, 4096), 0);
    for (uint32_t i = 1; i < MANY; i++) {
        uint64_t a = ids[i - 1], b = ids[i];
        if (slu_row_slab_tag(a) != slu_row_slab_tag(b))
            continue;
        pairs++;
        fill(slu_row_slab_append(&s, a));
        ck_assert_ptr_null(slu_row_slab_find(&s, b));
        fill(slu_row_slab_append(&s, b));
        check_row(&s, slu_row_slab_find(&s, a), a);
        check_row(&s, slu_row_slab_find(&s, b), b);
        check_row(&s, slu_row_slab_find_tag(&s, slu_row_slab_tag(b)), a);
        slu_row_slab_remove(&s, slu_row_slab_find(&s, a)); /* and the other moves */
        ck_assert_ptr_null(slu_row_slab_find(&s, a));
        check_row(&s, slu_row_slab_find(&s, b), b);
    }
    ck_assert_uint_gt(pairs, 0);
    ck_assert_uint_eq(s.rows, pairs);
    slu_row_slab_free(&s);
    free(ids);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("row_slab");
    TCase *c = tcase_create("row_slab");
    tcase_add_test(c, test_come_and_go);
    tcase_add_test(c, test_equal_tags);
    suite_add_tcase(suite, c);
    SRunner *r = srunner_create(suite);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
