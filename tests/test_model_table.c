/* Rows and dense parameters of a scorer, alone and with readers hammering. */
#include "base/rng.h"
#include "serving/model_table.h"
#include <check.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define SEED 20260121u

static const uint32_t served[] = {10, 1, 0, 33};
#define TABLES 4
#define DENSE  7

static slu_model_table *make(uint64_t max_bytes)
{
    slu_error err = SLU_ERROR_INIT;
    slu_model_table *t;
    ck_assert_msg(!slu_model_table_new(served, TABLES, DENSE, max_bytes, &t, &err), "%s", err.message);
    return t;
}

static void put(slu_model_table *t, uint32_t table, uint64_t id, float x)
{
    slu_error err = SLU_ERROR_INIT;
    float v[40];
    for (int i = 0; i < 40; i++)
        v[i] = x;
    if (slu_model_put_row(t, table, id, v, &err)) /* an assertion costs a system call: not per row */
        ck_abort_msg("%s", err.message);
}

static void publish(slu_model_table *t, uint64_t version, float x)
{
    slu_error err = SLU_ERROR_INIT;
    float dense[DENSE];
    for (int i = 0; i < DENSE; i++)
        dense[i] = x;
    ck_assert_msg(!slu_model_publish(t, dense, version, (int64_t)version * 1000, &err), "%s", err.message);
}

/* The number that all floats of a row hold; NAN-free tests use -1 for "absent". */
static float get(slu_model_reader *r, uint32_t table, uint64_t id)
{
    const float *row;
    slu_model_read_begin(r);
    float x = slu_model_find_rows(r, table, &id, 1, &row) ? (served[table] ? row[0] : 0) : -1;
    slu_model_read_end(r);
    return x;
}

START_TEST(test_empty)
{
    slu_model_table *t = make(0);
    slu_model_reader *r = slu_model_reader_new(t);
    slu_model_view v = slu_model_read_begin(r);
    ck_assert_uint_eq(v.version, 0);
    float out[20];
    memset(out, 0xff, sizeof out);
    ck_assert_uint_eq(slu_model_read_rows(r, 0, (const uint64_t[]){1, 2}, 2, out), 0);
    for (int i = 0; i < 20; i++)
        ck_assert(out[i] == 0);
    slu_model_read_end(r);
    slu_model_reader_free(r);
    slu_model_table_free(t);
}
END_TEST

/* Random puts, deletes and look-ups against an array. */
START_TEST(test_twin)
{
    enum { IDS = 5000, STEPS = 200000 };
    slu_model_table *t = make(0);
    slu_model_reader *r = slu_model_reader_new(t);
    static float twin[TABLES][IDS];
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    for (int k = 0; k < TABLES; k++)
        for (int i = 0; i < IDS; i++)
            twin[k][i] = -1;
    uint64_t live = 0, version = 0;
    for (int step = 0; step < STEPS; step++) {
        uint32_t table = (uint32_t)slu_rng_below(&rng, TABLES);
        uint64_t i = slu_rng_below(&rng, IDS), id = i * 0x10001; /* clustered low bits on purpose */
        switch (slu_rng_below(&rng, 3)) {
        case 0:
            live += twin[table][i] < 0;
            twin[table][i] = served[table] ? (float)step : 0;
            put(t, table, id, (float)step);
            break;
        case 1:
            live -= twin[table][i] >= 0;
            twin[table][i] = -1;
            slu_model_delete_row(t, table, id);
            break;
        default:
            if (get(r, table, id) != twin[table][i])
                ck_abort_msg("table %u id %llu, step %d", table, (unsigned long long)id, step);
        }
        if (step % 1000 == 0)
            publish(t, ++version, 1);
    }
    publish(t, ++version, 0);
    ck_assert_uint_eq(slu_model_rows(t), live);
    uint64_t ids[IDS];
    static float out[IDS * 33];
    for (int i = 0; i < IDS; i++)
        ids[i] = (uint64_t)i * 0x10001;
    slu_model_read_begin(r);
    slu_model_read_rows(r, 3, ids, IDS, out);
    slu_model_read_end(r);
    for (int i = 0; i < IDS; i++)
        for (int j = 0; j < 33; j++)
            if (out[i * 33 + j] != (twin[3][i] < 0 ? 0 : twin[3][i]))
                ck_abort_msg("row %d float %d", i, j);
    slu_model_reader_free(r);
    slu_model_table_free(t);
}
END_TEST

START_TEST(test_dense_is_swapped_whole)
{
    slu_error err = SLU_ERROR_INIT;
    slu_model_table *t = make(0);
    slu_model_reader *r = slu_model_reader_new(t);
    publish(t, 3, 1.5f);
    slu_model_view v = slu_model_read_begin(r);
    ck_assert_uint_eq(v.version, 3);
    ck_assert_int_eq(v.learned_through_us, 3000);
    ck_assert_float_eq(v.dense[DENSE - 1], 1.5f);
    slu_model_read_end(r);
    ck_assert_int_eq(slu_model_publish(t, NULL, 4, 9, &err), 0);
    v = slu_model_read_begin(r);
    ck_assert_uint_eq(v.version, 4);
    ck_assert_float_eq(v.dense[0], 1.5f);
    slu_model_read_end(r);
    slu_model_reader_free(r);
    slu_model_table_free(t);
}
END_TEST

START_TEST(test_base_replaces_everything)
{
    slu_error err = SLU_ERROR_INIT;
    slu_model_table *t = make(0);
    slu_model_reader *r = slu_model_reader_new(t);
    put(t, 0, 1, 10);
    put(t, 0, 2, 20);
    publish(t, 1, 1);

    ck_assert_int_eq(slu_model_begin_base(t, &err), 0);
    put(t, 0, 2, 21);
    put(t, 0, 3, 31);
    ck_assert_float_eq(get(r, 0, 1), 10); /* readers still have the old one */
    ck_assert_float_eq(get(r, 0, 2), 20);
    ck_assert_float_eq(get(r, 0, 3), -1);
    ck_assert_int_eq(slu_model_publish(t, NULL, 5, 0, &err), SLU_EINVAL);
    publish(t, 5, 5);
    ck_assert_float_eq(get(r, 0, 1), -1);
    ck_assert_float_eq(get(r, 0, 2), 21);
    ck_assert_float_eq(get(r, 0, 3), 31);
    ck_assert_uint_eq(slu_model_rows(t), 2);

    slu_error_clear(&err);
    ck_assert_int_eq(slu_model_begin_base(t, &err), 0);
    put(t, 0, 4, 1);
    slu_model_abandon_base(t);
    ck_assert_float_eq(get(r, 0, 4), -1);
    ck_assert_float_eq(get(r, 0, 3), 31);
    slu_model_reader_free(r);
    slu_model_table_free(t);
}
END_TEST

START_TEST(test_memory_is_bounded)
{
    slu_error err = SLU_ERROR_INIT;
    slu_model_table *t = make(8 << 20);
    float v[40] = {0};
    int rc = 0;
    uint64_t id = 0;
    while (!rc && id < 10000000)
        rc = slu_model_put_row(t, 3, ++id, v, &err);
    ck_assert_int_eq(rc, SLU_ELIMIT);
    ck_assert_ptr_nonnull(strstr(err.message, "8388608"));
    ck_assert_uint_le(slu_model_bytes(t), 8 << 20);
    ck_assert_uint_gt(id, 20000);
    slu_model_table_free(t);
}
END_TEST

/* Replacing the same rows for ever does not take more and more memory. */
START_TEST(test_replacing_reuses_memory)
{
    slu_model_table *t = make(0);
    for (int round = 0; round < 50; round++) {
        for (uint64_t id = 1; id <= 3000; id++)
            put(t, 0, id, (float)round);
        publish(t, (uint64_t)round + 1, 0);
    }
    uint64_t before = slu_model_bytes(t);
    for (int round = 0; round < 50; round++) {
        for (uint64_t id = 1; id <= 3000; id++) {
            slu_model_delete_row(t, 0, id);
            put(t, 0, id, (float)round);
        }
        publish(t, (uint64_t)round + 51, 0);
    }
    ck_assert_uint_le(slu_model_bytes(t), 2 * before);
    slu_model_table_free(t);
}
END_TEST

/* ---- readers and a writer at once ---- */

enum { HAMMER_IDS = 2000, HAMMER_READERS = 3 };
static int hammer_stop;
static uint64_t hammer_reads;

static void check_dense(slu_model_view v)
{
    for (int j = 0; j < DENSE; j++)
        if (v.dense[j] != (float)v.version)
            ck_abort_msg("dense[%d] is %g in version %llu", j, v.dense[j], (unsigned long long)v.version);
}

static void *hammer(void *arg)
{
    slu_model_table *t = arg;
    slu_model_reader *r = slu_model_reader_new(t);
    uint64_t ids[100], last = 0, reads = 0;
    const float *rows[100];
    slu_rng rng;
    slu_rng_seed(&rng, SEED + (uintptr_t)&rng);
    while (!__atomic_load_n(&hammer_stop, __ATOMIC_ACQUIRE)) {
        for (int i = 0; i < 100; i++)
            ids[i] = 1 + slu_rng_below(&rng, HAMMER_IDS);
        slu_model_view v = slu_model_read_begin(r);
        if (v.version < last)
            ck_abort_msg("version went back from %llu", (unsigned long long)last);
        last = v.version;
        check_dense(v);
        slu_model_find_rows(r, 3, ids, 100, rows);
        for (int i = 0; i < 100; i++)
            for (int j = 1; rows[i] && j < 33; j++)
                if (rows[i][j] != rows[i][0])
                    ck_abort_msg("torn row %llu: %g and %g", (unsigned long long)ids[i], rows[i][0],
                                 rows[i][j]);
        check_dense(v);
        slu_model_read_end(r);
        reads++;
    }
    slu_model_reader_free(r);
    __atomic_add_fetch(&hammer_reads, reads, __ATOMIC_RELAXED);
    return NULL;
}

START_TEST(test_readers_never_see_a_torn_row)
{
    slu_error err = SLU_ERROR_INIT;
    slu_model_table *t = make(0);
    pthread_t threads[HAMMER_READERS];
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    publish(t, 1, 1);
    for (int i = 0; i < HAMMER_READERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, t), 0);
    for (uint64_t version = 2; version < 400; version++) {
        if (version % 50 == 0)
            ck_assert_int_eq(slu_model_begin_base(t, &err), 0);
        for (int i = 0; i < 500; i++) {
            uint64_t id = 1 + slu_rng_below(&rng, HAMMER_IDS);
            if (slu_rng_below(&rng, 10) == 0)
                slu_model_delete_row(t, 3, id);
            else
                put(t, 3, id, (float)(version * 1000 + (uint64_t)i));
        }
        if (version % 7 == 0) /* and growth of the index under their eyes */
            for (uint64_t id = version * 1000; id < version * 1000 + 300; id++)
                put(t, 3, id, 1);
        publish(t, version, (float)version);
    }
    __atomic_store_n(&hammer_stop, 1, __ATOMIC_RELEASE);
    for (int i = 0; i < HAMMER_READERS; i++)
        pthread_join(threads[i], NULL);
    ck_assert_uint_gt(hammer_reads, 0);
    slu_model_table_free(t);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("model_table");
    TCase *c = tcase_create("model_table");
    tcase_set_timeout(c, 240);
    tcase_add_test(c, test_empty);
    tcase_add_test(c, test_twin);
    tcase_add_test(c, test_dense_is_swapped_whole);
    tcase_add_test(c, test_base_replaces_everything);
    tcase_add_test(c, test_memory_is_bounded);
    tcase_add_test(c, test_replacing_reuses_memory);
    tcase_add_test(c, test_readers_never_see_a_torn_row);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
