/* The record of what the rows of a store add up to: believed when it fits, found anew when not; and the sums
 * of a trainer's and of a scorer's store are the same when they serve the same. */
#include "store/row_sum.h"
#include "store/row_table.h"
#include "store/row_value.h"
#include "store/state.h"
#include "tests/store_sample.h"

enum { TABLES = 2, FLOATS = 6 };
static const uint32_t SERVED[TABLES] = {4, 2};

static void put_row(slu_commit *c, uint32_t table, uint64_t id, bool admitted)
{
    uint8_t key[SLU_ROW_KEY_BYTES], value[SLU_ROW_VALUE_HEADER + 4 * FLOATS];
    float v[FLOATS];
    for (int i = 0; i < FLOATS; i++)
        v[i] = (float)id + (float)i / 8;
    slu_row_key_write(key, table, id);
    size_t len = slu_row_value_write(value, 1, 2, admitted, v, FLOATS);
    slu_commit_put(c, SLU_FAMILY_ROWS, key, sizeof key, value, len);
}

static slu_row_sum expected_sum(uint64_t ids)
{
    slu_row_sum sum = {0};
    for (uint32_t table = 0; table < TABLES; table++)
        for (uint64_t id = 1; id <= ids; id++) {
            float v[FLOATS];
            for (int i = 0; i < FLOATS; i++)
                v[i] = (float)id + (float)i / 8;
            if (id % 3)
                slu_row_sum_add(&sum, table, id, v, SERVED[table]);
        }
    return sum;
}

static slu_store *trainer_store(uint64_t ids, uint64_t version, uint64_t recorded, slu_row_sum sum)
{
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    for (uint32_t table = 0; table < TABLES; table++)
        for (uint64_t id = 1; id <= ids; id++)
            put_row(c, table, id, id % 3);
    slu_state_put_floats(c, "params", (const float[]){1, 2, 3}, 3);
    slu_state_put_u64(c, "~version", version);
    if (recorded)
        slu_row_sum_record(c, recorded, SERVED, (const uint64_t[]){5, 6}, TABLES, sum);
    sample_write(c);
    slu_commit_abandon(c);
    return s;
}

static void expect(slu_row_sum a, slu_row_sum b)
{
    ck_assert_msg(a.lo == b.lo && a.hi == b.hi, "sums differ");
}

static uint64_t rows[TABLES];

static slu_row_sum load(slu_store *s, uint64_t version, const uint32_t *served)
{
    slu_row_sum sum;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_row_sum_load(s, version, served, TABLES, &sum, rows, &err), "%s", err.message);
    return sum;
}

START_TEST(test_record_is_believed_when_it_fits)
{
    const slu_row_sum wrong = {1, 2};
    slu_store *s = trainer_store(50, 7, 7, wrong);
    expect(load(s, 7, SERVED), wrong); /* no walk */
    ck_assert(rows[0] == 5 && rows[1] == 6);
    expect(load(s, 8, SERVED), expected_sum(50));
    ck_assert(rows[0] == 34 && rows[1] == 34);
    static const uint32_t other[TABLES] = {4, 1};
    slu_row_sum sum = load(s, 7, other);
    ck_assert(sum.lo != wrong.lo && sum.lo != expected_sum(50).lo);
    /* A store of before: no record. */
    slu_store_close(s);
    sample_remove(sample_path);
    s = trainer_store(20, 7, 0, wrong);
    expect(load(s, 7, SERVED), expected_sum(20));
    static const uint32_t more[TABLES] = {4, FLOATS + 1};
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_row_sum_load(s, 7, more, TABLES, &sum, rows, &err), SLU_EFORMAT);
    slu_store_close(s);
}
END_TEST

START_TEST(test_damaged_record)
{
    slu_store *s = trainer_store(5, 7, 7, (slu_row_sum){0});
    slu_commit *c = slu_commit_begin(s);
    slu_state_put_bytes(c, "~row_sum", "short", 5);
    sample_write(c);
    slu_row_sum sum;
    slu_store_sums sums;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_row_sum_load(s, 7, SERVED, TABLES, &sum, rows, &err), SLU_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(err.message, "~row_sum"));
    ck_assert_int_eq(slu_store_sums_of(s, &sums, &err), SLU_ECORRUPT);
    slu_store_close(s);
}
END_TEST

START_TEST(test_both_kinds_of_store)
{
    slu_store_sums trainer, scorer;
    slu_error err = SLU_ERROR_INIT;
    slu_store *s = trainer_store(50, 7, 7, expected_sum(50));
    ck_assert_msg(!slu_store_sums_of(s, &trainer, &err), "%s", err.message);
    ck_assert(!trainer.scorer && trainer.recorded);
    ck_assert(trainer.rows == 68 && trainer.record_rows == 11);
    ck_assert_uint_eq(trainer.version, 7);
    expect(trainer.row_sum, expected_sum(50));
    expect(trainer.record, expected_sum(50));
    slu_store_close(s);
    sample_remove(sample_path);

    s = sample_open();
    ck_assert_int_eq(slu_store_sums_of(s, &scorer, &err), SLU_ENOTFOUND);
    slu_commit *c = slu_commit_begin(s);
    for (uint32_t generation = 0; generation < 2;
         generation++) /* the one that does not count has other rows */
        for (uint32_t table = 0; table < TABLES; table++)
            for (uint64_t id = 1; id <= 50; id++) {
                uint8_t key[SLU_ROW_KEY_BYTES];
                float v[FLOATS];
                for (int i = 0; i < FLOATS; i++)
                    v[i] = (float)id + (float)i / 8 + (generation ? 0 : 1);
                slu_row_key_write(key, generation << 31 | table, id);
                if (id % 3)
                    slu_commit_put(c, SLU_FAMILY_ROWS, key, sizeof key, v, SERVED[table] * sizeof *v);
            }
    slu_state_put_floats(c, "params", (const float[]){1, 2, 3}, 3);
    slu_state_put_u64(c, "scorer.version", 7);
    slu_state_put_u64(c, "scorer.generation", 1);
    sample_write(c);
    ck_assert_msg(!slu_store_sums_of(s, &scorer, &err), "%s", err.message);
    ck_assert(scorer.scorer && !scorer.recorded);
    ck_assert_uint_eq(scorer.version, 7);
    ck_assert_uint_eq(scorer.rows, trainer.rows);
    expect(scorer.row_sum, trainer.row_sum);
    ck_assert(scorer.dense_digest.lo == trainer.dense_digest.lo);
    slu_store_close(s);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("row_sum");
    TCase *c = tcase_create("row_sum");
    tcase_add_checked_fixture(c, sample_setup, sample_teardown);
    tcase_add_test(c, test_record_is_believed_when_it_fits);
    tcase_add_test(c, test_damaged_record);
    tcase_add_test(c, test_both_kinds_of_store);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
