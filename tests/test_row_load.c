/* A scorer's rows read by one to eight threads over a store in memory: each row of the generation once,
 * whatever the ids; and whatever ends the reading early, the first reason survives and no thread is left. */
#include "base/rng.h"
#include "serving/row_key.h"
#include "serving/row_load.h"
#include "tests/memory_store.h"
#include "tests/suite.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SEED 20261126u
enum { TABLES = 4, ROWS = 3000, FLOATS_MOST = 400 };
/* The last one's rows fill several batches. */
static const uint32_t served[TABLES] = {0, 3, 16, FLOATS_MOST};

typedef struct want {
    uint32_t table;
    uint64_t id;
    int seen;
} want;

static want rows[ROWS];
static slu_store *store;
static slu_model_table *shape;

static float nth_float(uint32_t table, uint64_t id, uint32_t i)
{
    return (float)(id % 1000) + (float)table / 8 + (float)i / 1024;
}

static void put(uint32_t tag, uint64_t id, const void *value, size_t bytes)
{
    uint8_t key[ROW_KEY_BYTES];
    row_key_write(key, tag, id);
    memory_store_put(SLU_FAMILY_ROWS, key, sizeof key, value, bytes);
}

static void put_row(uint32_t tag, uint64_t id, float add)
{
    float v[FLOATS_MOST];
    uint32_t table = tag & ~ROW_KEY_GENERATION;
    for (uint32_t i = 0; i < served[table]; i++)
        v[i] = nth_float(table, id, i) + add;
    put(tag, id, v, served[table] * sizeof(float));
}

static int by_key(const void *a, const void *b)
{
    const want *x = a, *y = b;
    if (x->table != y->table)
        return x->table < y->table ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* The same rows with other values in the other generation; ids at the borders of quarters, too. */
static void fill(uint32_t generation)
{
    const slu_store_config config = {.path = "memory", .create = true, .schema_text = "s"};
    slu_error err = SLU_ERROR_INIT;
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    printf("seed %u\n", SEED);
    ck_assert_msg(!slu_store_open(&config, &store, &err), "%s", err.message);
    ck_assert_msg(!slu_model_table_new(served, TABLES, 1, 0, &shape, &err), "%s", err.message);
    for (uint32_t i = 0; i < ROWS; i++) {
        uint64_t border = (uint64_t)(i / 4 % 4) << 62;
        rows[i] = (want){.table = i % TABLES, .id = i < 64 ? border + i / 16 - 2 : slu_rng_u64(&rng)};
        put_row(generation | rows[i].table, rows[i].id, 0);
        put_row((generation ^ ROW_KEY_GENERATION) | rows[i].table, rows[i].id, 1);
    }
    qsort(rows, ROWS, sizeof *rows, by_key);
    memory_store_put(SLU_FAMILY_META, "a", 1, "x", 1);
}

static void end(void)
{
    slu_model_table_free(shape);
    slu_store_close(store);
    memory_store_clear();
}

typedef struct taking {
    uint32_t batches, stop_at; /* refuses the so-many-th; 0: none */
    uint64_t rows;
    bool stopped;
} taking;

static int take(void *ctx, uint32_t table, const uint64_t *ids, const float *v, uint32_t n, slu_error *err)
{
    taking *t = ctx;
    if (t->stopped)
        ck_abort_msg("a batch after the end");
    if (++t->batches == t->stop_at) {
        t->stopped = true;
        return slu_fail(err, SLU_ELIMIT, "enough");
    }
    ck_assert_uint_gt(n, 0);
    ck_assert_uint_lt(table, TABLES);
    for (uint32_t i = 0; i < n; i++) {
        want key = {.table = table, .id = ids[i]};
        want *w = bsearch(&key, rows, ROWS, sizeof *rows, by_key);
        if (!w)
            ck_abort_msg("row %llu of table %u is not there", (unsigned long long)ids[i], table);
        w->seen++;
        for (uint32_t k = 0; k < served[table]; k++)
            if (v[(size_t)i * served[table] + k] != nth_float(table, ids[i], k))
                ck_abort_msg("row %llu of table %u: another value", (unsigned long long)ids[i], table);
    }
    t->rows += n;
    return 0;
}

static int load(uint32_t generation, uint32_t threads, taking *t, slu_error *err)
{
    const row_load_from from = {store, generation, shape, threads};
    for (int i = 0; i < ROWS; i++)
        rows[i].seen = 0;
    return row_load(&from, take, t, err);
}

static void expect_all_once(void)
{
    for (int i = 0; i < ROWS; i++)
        if (rows[i].seen != 1)
            ck_abort_msg("row %llu of table %u came %d times", (unsigned long long)rows[i].id, rows[i].table,
                         rows[i].seen);
}

START_TEST(test_every_row_once)
{
    for (int second = 0; second < 2; second++) {
        const uint32_t generation = second ? ROW_KEY_GENERATION : 0;
        fill(generation);
        for (uint32_t i = 1; i < ROWS; i++)
            ck_assert_int_lt(by_key(&rows[i - 1], &rows[i]), 0);
        for (uint32_t threads = 1; threads <= ROW_LOAD_THREADS; threads += threads < 3 ? 1 : 5) {
            slu_error err = SLU_ERROR_INIT;
            taking t = {0};
            ck_assert_msg(!load(generation, threads, &t, &err), "%s", err.message);
            expect_all_once();
            ck_assert_uint_gt(t.batches, TABLES); /* else nothing waits for an empty one */
        }
        end();
    }
}
END_TEST

START_TEST(test_no_rows)
{
    slu_error err = SLU_ERROR_INIT;
    taking t = {0};
    fill(0);
    memory_store_clear();
    ck_assert_int_eq(load(0, 3, &t, &err), 0);
    ck_assert_uint_eq(t.batches, 0);
    end();
}
END_TEST

START_TEST(test_refused_batch_ends_it)
{
    fill(0);
    for (uint32_t threads = 1; threads <= ROW_LOAD_THREADS; threads++)
        for (uint32_t at = 1; at < 12; at++) {
            slu_error err = SLU_ERROR_INIT;
            taking t = {.stop_at = at};
            ck_assert_int_eq(load(0, threads, &t, &err), SLU_ELIMIT);
            ck_assert_str_eq(err.message, "enough");
        }
    end();
}
END_TEST

static void expect_corrupt(uint32_t generation, const char *what)
{
    for (uint32_t threads = 1; threads <= ROW_LOAD_THREADS; threads += 3) {
        slu_error err = SLU_ERROR_INIT;
        taking t = {0};
        ck_assert_int_eq(load(generation, threads, &t, &err), SLU_ECORRUPT);
        ck_assert_msg(strstr(err.message, what) != NULL, "'%s' lacks '%s'", err.message, what);
    }
}

START_TEST(test_what_does_not_belong)
{
    const float nan3[3] = {1, NAN, 2};
    for (int second = 0; second < 2; second++) {
        const uint32_t generation = second ? ROW_KEY_GENERATION : 0;
        fill(generation);
        put(generation | 1, 77, nan3, sizeof nan3);
        expect_corrupt(generation, "row 77 of table 1 holds a number that is not finite");
        put(generation | 1, 77, nan3, 8);
        expect_corrupt(generation, "a row of 8 bytes in table 1");
        end();
        fill(generation);
        put(generation | TABLES, 5, nan3, 4); /* a table that is not there */
        expect_corrupt(generation, "does not belong to this schema");
        end();
        fill(generation);
        put(generation | 0x7fffffffu, UINT64_MAX, nan3, 4);
        expect_corrupt(generation, "does not belong to this schema");
        end();
        fill(generation);
        uint8_t longer[ROW_KEY_BYTES + 1];
        row_key_write(longer, generation | 2, 9);
        longer[ROW_KEY_BYTES] = 0;
        memory_store_put(SLU_FAMILY_ROWS, longer, sizeof longer, nan3, 4);
        expect_corrupt(generation, "does not belong to this schema");
        end();
    }
}
END_TEST

START_TEST(test_read_errors)
{
    fill(0);
    for (int nth = 1; nth <= (int)TABLES * 4 + 1; nth++) {
        slu_error err = SLU_ERROR_INIT;
        taking t = {0};
        memory_store_fail((unsigned)nth);
        ck_assert_int_eq(load(0, 3, &t, &err), SLU_EIO);
        ck_assert_int_ne(err.code, 0);
    }
    memory_store_fail(0);
    end();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_every_row_once,       test_no_rows,     test_refused_batch_ends_it,
                                  test_what_does_not_belong, test_read_errors, NULL};
    return run_suite("row_load", tests);
}
