/* A base in pieces: whatever is committed while it is read, it is the model of its beginning; and one whose
 * rows are not those that were committed never completes. */
#include "sluice/v1/delta.pb-c.h"
#include "store/row_table.h"
#include "store/row_value.h"
#include "tests/store_sample.h"
#include "trainer/base.h"

enum { TABLES = 4, FLOATS = 5, CHUNK = 2000, DENSE = 700 };
static const uint32_t SERVED[TABLES] = {3, 1, 5, 2};
static const uint64_t ROWS[TABLES] = {9000, 0, 1, 130}; /* admitted ones */

static float dense[DENSE];

static void put_row(slu_commit *c, uint32_t table, uint64_t id, bool admitted, float value)
{
    uint8_t key[SLU_ROW_KEY_BYTES], bytes[SLU_ROW_VALUE_HEADER + 4 * FLOATS];
    float v[FLOATS];
    for (int i = 0; i < FLOATS; i++)
        v[i] = value;
    slu_row_key_write(key, table, id);
    size_t len = slu_row_value_write(bytes, 1, 2, admitted, v, FLOATS);
    slu_commit_put(c, SLU_FAMILY_ROWS, key, sizeof key, bytes, len);
}

/* Ids 1 .. ROWS are admitted, as many others between and behind them not. */
static slu_store *fill(slu_row_sum *sum)
{
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    float v[FLOATS];
    *sum = (slu_row_sum){0};
    for (uint32_t table = 0; table < TABLES; table++)
        for (uint64_t id = 1; id <= ROWS[table]; id++) {
            for (int i = 0; i < FLOATS; i++)
                v[i] = (float)id;
            put_row(c, table, 2 * id, true, (float)id);
            put_row(c, table, 2 * id + 1, false, 0);
            slu_row_sum_add(sum, table, 2 * id, v, SERVED[table]);
        }
    for (uint64_t id = 1; id <= 9000; id++)
        put_row(c, 1, id, false, 0); /* a table of which nothing is served */
    sample_write(c);
    slu_commit_abandon(c);
    return s;
}

static slu_base *begin(slu_store *s, slu_row_sum sum, const uint64_t *rows)
{
    slu_error err = SLU_ERROR_INIT;
    slu_base *b;
    for (uint32_t i = 0; i < DENSE; i++)
        dense[i] = (float)i;
    slu_base_spec spec = {.store = s,
                          .head = {.lineage = 1, .version = 9, .base = true, .schema_text = "schema"},
                          .served = SERVED,
                          .rows = rows,
                          .n_tables = TABLES,
                          .chunk_bytes = CHUNK,
                          .dense = dense,
                          .n_dense = DENSE,
                          .row_sum = sum,
                          .dense_digest = {3, 4}};
    ck_assert_msg(!slu_base_begin(&spec, &b, &err), "%s", err.message);
    return b;
}

/* What came, checked chunk by chunk. */
typedef struct taken {
    uint32_t chunks, of, dense;
    uint64_t rows[TABLES], last_id[TABLES];
    slu_row_sum sum;
    bool complete;
} taken;

static void take(void *ctx, const void *message, size_t len)
{
    taken *t = ctx;
    Sluice__V1__ModelDelta *m = sluice__v1__model_delta__unpack(NULL, len, message);
    ck_assert_ptr_nonnull(m);
    ck_assert_uint_le(len, CHUNK);
    ck_assert_uint_eq(m->version, 9);
    ck_assert_uint_eq(m->chunk, t->chunks);
    ck_assert(!t->of || m->chunks == t->of);
    t->of = m->chunks;
    ck_assert_str_eq(m->schema_text, t->chunks ? "" : "schema");
    t->chunks++;
    t->complete = t->chunks == t->of;
    ck_assert_uint_eq(m->row_sum.len, t->complete ? SLU_SUM_BYTES : 0);
    if (m->dense) {
        ck_assert_uint_eq(m->dense->offset, t->dense);
        t->dense += (uint32_t)(m->dense->values.len / 4);
    }
    for (size_t i = 0; i < m->n_rows; i++) {
        uint32_t table = m->rows[i]->table;
        for (size_t k = 0; k < m->rows[i]->ids.len / 8; k++) {
            uint64_t id;
            float v[FLOATS];
            memcpy(&id, m->rows[i]->ids.data + 8 * k, 8);
            memcpy(v, m->rows[i]->values.data + 4 * k * SERVED[table], 4 * SERVED[table]);
            slu_row_sum_add(&t->sum, table, id, v, SERVED[table]);
            t->rows[table]++;
        }
    }
    sluice__v1__model_delta__free_unpacked(m, NULL);
}

/* Everything changes behind the base's back. */
static void change_all(slu_store *s, uint64_t round)
{
    slu_commit *c = slu_commit_begin(s);
    for (uint64_t id = 1; id <= 9000; id++)
        put_row(c, 0, id, true, (float)round);
    put_row(c, 3, 10000 + round, true, 1);
    sample_write(c);
    slu_commit_abandon(c);
}

START_TEST(test_is_of_its_beginning)
{
    slu_row_sum sum;
    slu_error err = SLU_ERROR_INIT;
    slu_store *s = fill(&sum);
    slu_base *b = begin(s, sum, ROWS);
    taken t = {0};
    uint64_t pieces = 0;
    int rc;
    while ((rc = slu_base_next(b, take, &t, &err)) == 1)
        if (pieces++ % 16 == 0)
            change_all(s, pieces);
    ck_assert_msg(!rc, "%s", err.message);
    ck_assert(t.complete);
    ck_assert_uint_gt(pieces, 50);
    ck_assert_uint_eq(t.dense, DENSE);
    for (int i = 0; i < TABLES; i++)
        ck_assert_uint_eq(t.rows[i], ROWS[i]);
    ck_assert(t.sum.lo == sum.lo && t.sum.hi == sum.hi);
    slu_base_close(b);
    slu_store_close(s);
}
END_TEST

START_TEST(test_no_rows_at_all)
{
    slu_error err = SLU_ERROR_INIT;
    static const uint64_t none[TABLES];
    slu_store *s = sample_open();
    slu_base *b = begin(s, (slu_row_sum){0}, none);
    taken t = {0};
    ck_assert_int_eq(slu_base_next(b, take, &t, &err), 0);
    ck_assert(t.complete && t.dense == DENSE);
    slu_base_close(b);
    slu_store_close(s);
}
END_TEST

/* A row too few, one too many, another value: the last chunk does not come. */
START_TEST(test_rows_are_not_those_of_the_commit)
{
    slu_row_sum sum;
    slu_error err = SLU_ERROR_INIT;
    slu_store *s = fill(&sum);
    uint64_t rows[TABLES];
    memcpy(rows, ROWS, sizeof rows);
    if (_i == 0)
        rows[3]++;
    else if (_i == 1)
        rows[0]--;
    else
        sum.hi++;
    slu_base *b = begin(s, sum, rows);
    taken t = {0};
    int rc;
    while ((rc = slu_base_next(b, take, &t, &err)) == 1)
        continue;
    ck_assert_int_eq(rc, SLU_ECORRUPT);
    ck_assert_msg(strstr(err.message, sample_path) && strstr(err.message, "restore a backup"), "%s",
                  err.message);
    ck_assert(!t.complete);
    slu_base_close(b);
    slu_store_close(s);
}
END_TEST

START_TEST(test_given_up)
{
    slu_row_sum sum;
    slu_error err = SLU_ERROR_INIT;
    slu_store *s = fill(&sum);
    slu_base *b = begin(s, sum, ROWS);
    taken t = {0};
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(slu_base_next(b, take, &t, &err), 1);
    slu_base_close(b); /* half way: nothing of it stays in the store's way */
    slu_base_close(NULL);
    slu_store_close(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("base");
    TCase *tc = tcase_create("base");
    tcase_add_checked_fixture(tc, sample_setup, sample_teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_is_of_its_beginning);
    tcase_add_test(tc, test_no_rows_at_all);
    tcase_add_loop_test(tc, test_rows_are_not_those_of_the_commit, 0, 3);
    tcase_add_test(tc, test_given_up);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
