/* Rows and dense parameters of a scorer, alone and with readers hammering. */
#include "base/rng.h"
#include "serving/model_table.h"
#include "tests/suite.h"
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

static void del(slu_model_table *t, uint32_t table, uint64_t id)
{
    slu_error err = SLU_ERROR_INIT;
    if (slu_model_delete_row(t, table, id, &err))
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

/* What readers see, and what they will see with the next version, as arrays. */
enum { IDS = 5000 };
static float seen[TABLES][IDS], made[TABLES][IDS];

static uint64_t twin_id(uint64_t i)
{
    return i * 0x10001; /* clustered low bits on purpose */
}

static void twin_reset(float twin[TABLES][IDS])
{
    for (int k = 0; k < TABLES; k++)
        for (int i = 0; i < IDS; i++)
            twin[k][i] = -1;
}

/* One random change, told to the table and to its twin. */
static void twin_change(slu_model_table *t, slu_rng *rng, int step)
{
    uint32_t table = (uint32_t)slu_rng_below(rng, TABLES);
    uint64_t i = slu_rng_below(rng, IDS);
    if (slu_rng_below(rng, 3) == 0) {
        made[table][i] = -1;
        del(t, table, twin_id(i));
    } else {
        made[table][i] = served[table] ? (float)step : 0;
        put(t, table, twin_id(i), (float)step);
    }
}

static void twin_compare(slu_model_table *t, slu_model_reader *r, int step)
{
    static float out[IDS * 33];
    uint64_t ids[IDS], live = 0;
    for (uint64_t i = 0; i < IDS; i++)
        ids[i] = twin_id(i);
    for (uint32_t k = 0; k < TABLES; k++) {
        const float *rows[IDS];
        slu_model_read_begin(r);
        slu_model_find_rows(r, k, ids, IDS, rows);
        slu_model_read_rows(r, k, ids, IDS, out);
        for (int i = 0; i < IDS; i++) {
            live += seen[k][i] >= 0;
            if ((rows[i] != NULL) != (seen[k][i] >= 0))
                ck_abort_msg("step %d table %u row %d: there or not", step, k, i);
            for (uint32_t j = 0; j < served[k]; j++)
                if (out[i * (int)served[k] + (int)j] != (seen[k][i] < 0 ? 0 : seen[k][i]))
                    ck_abort_msg("step %d table %u row %d float %u", step, k, i, j);
        }
        slu_model_read_end(r);
    }
    ck_assert_uint_eq(slu_model_rows(t), live);
}

/* Random changes, versions, bases and changes of mind: readers see the last published version and nothing
 * else, at every step. */
START_TEST(test_twin)
{
    const int steps = suite_share(200000, 30000);
    slu_model_table *t = make(0);
    slu_model_reader *r = slu_model_reader_new(t);
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    twin_reset(seen);
    twin_reset(made);
    uint64_t version = 0;
    for (int step = 0; step < steps; step++) {
        twin_change(t, &rng, step);
        uint32_t table = (uint32_t)slu_rng_below(&rng, TABLES);
        uint64_t i = slu_rng_below(&rng, IDS);
        if (get(r, table, twin_id(i)) != seen[table][i])
            ck_abort_msg("step %d: table %u row %llu of the version to come is seen", step, table,
                         (unsigned long long)i);
        if (step % 20000 == 5000) {
            ck_assert_int_eq(slu_model_begin_base(t, NULL), 0);
            twin_reset(made);
        }
        if (slu_rng_below(&rng, 700))
            continue;
        if (slu_rng_below(&rng, 3)) {
            publish(t, ++version, 1);
            memcpy(seen, made, sizeof seen);
        } else {
            slu_model_undo(t);
            memcpy(made, seen, sizeof seen);
        }
        twin_compare(t, r, step);
    }
    ck_assert_uint_gt(version, (uint64_t)steps / 4000);
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
    slu_model_undo(t);
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
            del(t, 0, id);
            put(t, 0, id, (float)round);
        }
        publish(t, (uint64_t)round + 51, 0);
    }
    ck_assert_uint_le(slu_model_bytes(t), 2 * before);
    slu_model_table_free(t);
}
END_TEST

/* Nor does undoing. */
START_TEST(test_undoing_reuses_memory)
{
    slu_model_table *t = make(0);
    for (uint64_t id = 1; id <= 3000; id++)
        put(t, 0, id, 1);
    publish(t, 1, 0);
    uint64_t before = 0;
    for (int round = 0; round < 50; round++) {
        for (uint64_t id = 2000; id <= 5000; id++)
            put(t, 0, id, (float)round);
        slu_model_undo(t);
        if (round == 1)
            before = slu_model_bytes(t);
    }
    ck_assert_uint_eq(slu_model_bytes(t), before);
    slu_model_table_free(t);
}
END_TEST

/* ---- readers and a writer at once ---- */

/* The model of version v: every row there is holds v, so does the dense vector, and row i is there when
 * (v + i) % 5 is not 0. Whatever mixes two versions shows. */
enum { HAMMER_IDS = 600, HAMMER_READERS = 3, HAMMER_ASK = 100 };
static int hammer_stop;
static uint64_t hammer_reads;

static bool hammer_has(uint64_t version, uint64_t id)
{
    return (version + id) % 5 != 0;
}

static void check_view(slu_model_view v)
{
    for (int j = 0; j < DENSE; j++)
        if (v.dense[j] != (float)v.version)
            ck_abort_msg("dense[%d] is %g in version %llu", j, v.dense[j], (unsigned long long)v.version);
}

static void check_rows(slu_model_reader *r, slu_model_view v, slu_rng *rng)
{
    uint64_t ids[HAMMER_ASK];
    const float *rows[HAMMER_ASK];
    for (int i = 0; i < HAMMER_ASK; i++)
        ids[i] = 1 + slu_rng_below(rng, HAMMER_IDS);
    slu_model_find_rows(r, 3, ids, HAMMER_ASK, rows);
    for (int i = 0; i < HAMMER_ASK; i++) {
        if ((rows[i] != NULL) != hammer_has(v.version, ids[i]))
            ck_abort_msg("row %llu is %s in version %llu", (unsigned long long)ids[i],
                         rows[i] ? "there" : "missing", (unsigned long long)v.version);
        for (int j = 0; rows[i] && j < 33; j++)
            if (rows[i][j] != (float)v.version)
                ck_abort_msg("row %llu holds %g in version %llu", (unsigned long long)ids[i], rows[i][j],
                             (unsigned long long)v.version);
    }
}

static void *hammer(void *arg)
{
    slu_model_table *t = arg;
    slu_model_reader *r = slu_model_reader_new(t);
    uint64_t last = 0, reads = 0;
    slu_rng rng;
    slu_rng_seed(&rng, SEED + (uintptr_t)&rng);
    while (!__atomic_load_n(&hammer_stop, __ATOMIC_ACQUIRE)) {
        slu_model_view v = slu_model_read_begin(r);
        if (v.version < last)
            ck_abort_msg("version went back from %llu", (unsigned long long)last);
        last = v.version;
        for (int k = 0; k < 8; k++) { /* a long answer: many look-ups */
            check_rows(r, v, &rng);
            check_view(v);
        }
        slu_model_read_end(r);
        reads++;
    }
    slu_model_reader_free(r);
    __atomic_add_fetch(&hammer_reads, reads, __ATOMIC_RELAXED);
    return NULL;
}

/* Makes version v of version v - 1, or from nothing. */
static void hammer_write(slu_model_table *t, uint64_t version, bool base)
{
    for (uint64_t id = 1; id <= HAMMER_IDS; id++) {
        if (hammer_has(version, id))
            put(t, 3, id, (float)version);
        else if (!base)
            del(t, 3, id);
    }
}

START_TEST(test_an_answer_is_of_one_version)
{
    const uint64_t versions = (uint64_t)suite_share(400, 60);
    slu_error err = SLU_ERROR_INIT;
    slu_model_table *t = make(0);
    pthread_t threads[HAMMER_READERS];
    hammer_write(t, 1, true);
    publish(t, 1, 1);
    for (int i = 0; i < HAMMER_READERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, t), 0);
    for (uint64_t version = 2; version < versions; version++) {
        bool base = version % 50 == 0;
        if (base)
            ck_assert_int_eq(slu_model_begin_base(t, &err), 0);
        if (version % 3 == 0) { /* a version that comes to nothing */
            hammer_write(t, version + 1000000, base);
            slu_model_undo(t);
            if (base)
                ck_assert_int_eq(slu_model_begin_base(t, &err), 0);
        }
        hammer_write(t, version, base);
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
    tcase_add_test(c, test_undoing_reuses_memory);
    tcase_add_test(c, test_an_answer_is_of_one_version);
    suite_add_tcase(s, c);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
