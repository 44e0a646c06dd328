/* Rows come back as they were, whatever was evicted, committed, forgotten or reopened; a plain model keeps
 * watch. */
#include "store/row_scan.h"
#include "store/row_table.h"
#include "store/row_value.h"
#include "tests/store_sample.h"

enum { TABLES = 3, IDS = 400, BATCH = 24, MOST_FLOATS = 9 };

static const slu_row_table_spec SPECS[TABLES] = {{4, 0, 4}, {9, 3, 5}, {1, 1, 1}};

static void init_row(void *ctx, uint32_t table, uint64_t id, float *v)
{
    (void)ctx;
    for (uint32_t i = 0; i < SPECS[table].floats; i++)
        v[i] = (float)(slu_mix64(id * 31 + table * 7 + i) % 1000) / 8;
}

static slu_row_table *open_rows(slu_store *s, uint64_t cache_bytes)
{
    slu_row_table_config config = {SPECS, TABLES, cache_bytes, init_row, NULL};
    slu_error err = SLU_ERROR_INIT;
    slu_row_table *t;
    ck_assert_msg(!slu_row_table_open(s, &config, &t, &err), "%s", err.message);
    return t;
}

/* What a row should be. */
typedef struct model_row {
    uint32_t count, last_seen;
    bool admitted, touched;
    float v[MOST_FLOATS];
} model_row;

typedef struct model {
    model_row rows[TABLES][IDS];
} model;

static model now, committed;

/* What scorers have: told by flushes whose commit came about. */
typedef struct served_row {
    bool there;
    float v[MOST_FLOATS];
} served_row;
static served_row served[TABLES][IDS], telling[TABLES][IDS];

static uint64_t id_of(uint64_t i)
{
    return i % 3 ? slu_mix64(i) : i; /* small ids and hashes */
}

static void model_reset(model *m)
{
    memset(m, 0, sizeof *m);
    for (int t = 0; t < TABLES; t++)
        for (int i = 0; i < IDS; i++)
            if (SPECS[t].admit_after <= 1) {
                m->rows[t][i].admitted = true;
                init_row(NULL, (uint32_t)t, id_of((uint64_t)i), m->rows[t][i].v);
            }
}

static void check_row(uint32_t table, uint64_t i, const slu_row *row)
{
    const model_row *m = &now.rows[table][i];
    ck_assert_uint_eq(row->id, id_of(i));
    ck_assert_msg(row->count == m->count && row->last_seen == m->last_seen && row->admitted == m->admitted,
                  "table %u row %llu: count %u, expected %u", table, (unsigned long long)i, row->count,
                  m->count);
    if (row->admitted)
        ck_assert_mem_eq(row->v, m->v, SPECS[table].floats * sizeof(float));
}

static void model_forget(model_row *m, uint32_t table, uint64_t i)
{
    *m = (model_row){.admitted = SPECS[table].admit_after <= 1};
    if (m->admitted)
        init_row(NULL, table, id_of(i), m->v);
}

/* IDS: not one of the model's, which other tests use. */
static uint64_t index_of(uint64_t id)
{
    uint64_t i = 0;
    while (i < IDS && id_of(i) != id)
        i++;
    return i;
}

/* As trainer/pipeline_commit.c does. */
static void tell(void *ctx, uint32_t table, const slu_row *row)
{
    uint64_t i = index_of(row->id);
    served_row *r = &telling[table][i];
    (void)ctx;
    if (i == IDS)
        return;
    if (row->admitted && !row->deleted) {
        r->there = true;
        memcpy(r->v, row->v, SPECS[table].served * sizeof(float));
    } else if (row->grave) {
        r->there = false;
    }
}

static void flush(slu_row_table *t, slu_commit *c)
{
    memcpy(telling, served, sizeof served);
    ck_assert_int_eq(slu_row_table_flush(t, c, tell, NULL), 0);
}

static void check_served(const model *m)
{
    for (uint32_t table = 0; table < TABLES; table++)
        for (uint64_t i = 0; i < IDS; i++) {
            const model_row *row = &m->rows[table][i];
            ck_assert_msg(served[table][i].there == (row->admitted && row->touched), "table %u row %llu",
                          table, (unsigned long long)i);
            if (served[table][i].there)
                ck_assert_mem_eq(served[table][i].v, row->v, SPECS[table].served * sizeof(float));
        }
}

static void learn(slu_row_table *t, uint32_t table, uint64_t i, slu_row *row, slu_rng *rng)
{
    model_row *m = &now.rows[table][i];
    uint32_t times = (uint32_t)slu_rng_below(rng, 3), seconds = (uint32_t)slu_rng_below(rng, 100000);
    slu_row_touch(t, table, row, times, seconds);
    m->count += times;
    m->touched = true;
    if (seconds > m->last_seen)
        m->last_seen = seconds;
    if (!m->admitted && m->count >= SPECS[table].admit_after) {
        m->admitted = true;
        init_row(NULL, table, id_of(i), m->v);
    }
    if (m->admitted && SPECS[table].floats) {
        uint32_t k = (uint32_t)slu_rng_below(rng, SPECS[table].floats);
        slu_row_mark(t, table, row);
        row->v[k] += 0.125f;
        m->v[k] += 0.125f;
    }
}

/* Right after a batch, as early as can be: commits, failures and evictions come between this and the fetch.
 */
static void expect_some(slu_row_table *t, slu_rng *rng)
{
    uint64_t ids[IDS];
    size_t n = 0;
    for (uint64_t i = 0; i < IDS; i++)
        if (slu_rng_below(rng, 4))
            ids[n++] = id_of(i);
    for (uint32_t table = 0; table < TABLES; table++)
        slu_row_table_expect(t, table, ids, n);
}

/* One batch: two fetches of one table that may overlap; some rows learn, some are only looked at. */
static void batch(slu_row_table *t, slu_rng *rng)
{
    slu_error err = SLU_ERROR_INIT;
    uint64_t is[BATCH], ids[BATCH];
    slu_row *rows[BATCH];
    slu_row_table_arrive(t);
    for (int fetch = 0; fetch < 2; fetch++) {
        uint32_t table = (uint32_t)slu_rng_below(rng, TABLES);
        uint64_t start = slu_rng_below(rng, IDS), step = 1 + 2 * slu_rng_below(rng, 5);
        size_t n = slu_rng_below(rng, BATCH + 1);
        for (size_t k = 0; k < n; k++) {
            is[k] = (start + k * step) % IDS;
            ids[k] = id_of(is[k]);
        }
        ck_assert_msg(!slu_row_table_fetch(t, table, ids, n, rows, &err), "%s", err.message);
        for (size_t k = 0; k < n; k++) {
            check_row(table, is[k], rows[k]);
            if (slu_rng_below(rng, 3))
                learn(t, table, is[k], rows[k], rng);
            if (slu_rng_below(rng, 8) == 0) {
                slu_row_delete(t, table, rows[k]);
                model_forget(&now.rows[table][is[k]], table, is[k]);
                check_row(table, is[k], rows[k]);
            }
        }
    }
    slu_row_table_expected_done(t);
    ck_assert_int_eq(slu_row_table_release(t, &err), 0);
    expect_some(t, rng);
}

static slu_row_sum sum_of(const model *m)
{
    slu_row_sum sum = {0};
    for (uint32_t table = 0; table < TABLES; table++)
        for (uint64_t i = 0; i < IDS; i++)
            if (m->rows[table][i].touched && m->rows[table][i].admitted)
                slu_row_sum_add(&sum, table, id_of(i), m->rows[table][i].v, SPECS[table].served);
    return sum;
}

static void count_served(const model *m, uint64_t *rows)
{
    for (uint32_t table = 0; table < TABLES; table++) {
        rows[table] = 0;
        for (uint64_t i = 0; i < IDS; i++)
            rows[table] += m->rows[table][i].touched && m->rows[table][i].admitted;
    }
}

/* After a flush: of all that were flushed. */
static void check_sum(const slu_row_table *t)
{
    uint64_t rows[TABLES];
    count_served(&now, rows);
    for (uint32_t table = 0; table < TABLES; table++)
        ck_assert_uint_eq(slu_row_table_served(t, table), rows[table]);
    slu_row_sum sum = slu_row_table_sum(t), expected = sum_of(&now);
    ck_assert(sum.lo == expected.lo && sum.hi == expected.hi);
}

static void commit(slu_store *s, slu_row_table *t)
{
    slu_commit *c = slu_commit_begin(s);
    flush(t, c);
    sample_write(c);
    memcpy(served, telling, sizeof served);
    slu_row_table_committed(t);
    slu_commit_abandon(c);
    committed = now;
}

/* A flush into a commit that never comes about must leave nothing behind, nor forget anything. */
static void flush_in_vain(slu_store *s, slu_row_table *t)
{
    slu_commit *c = slu_commit_begin(s);
    flush(t, c);
    check_sum(t);
    slu_commit_abandon(c);
}

static slu_row_table *open_table(slu_store *s, uint64_t cache, bool read_ahead)
{
    slu_error err = SLU_ERROR_INIT;
    slu_row_table *t = open_rows(s, cache);
    if (read_ahead)
        ck_assert_msg(!slu_row_table_read_ahead(t, &err), "%s", err.message);
    return t;
}

/* The commit is written while the next batches already learn. */
static void commit_behind(slu_store *s, slu_row_table *t, slu_rng *rng)
{
    slu_commit *c = slu_commit_begin(s);
    flush(t, c);
    check_sum(t);
    model at_flush = now;
    batch(t, rng);
    sample_write(c);
    memcpy(served, telling, sizeof served);
    batch(t, rng);
    slu_row_table_committed(t);
    slu_commit_abandon(c);
    committed = at_flush;
}

static uint64_t stored_rows;
static bool check_stored(void *ctx, uint32_t table, uint64_t id, uint32_t count, uint32_t last_seen,
                         bool admitted, const float *v, uint32_t floats)
{
    (void)ctx;
    for (uint64_t i = 0; i < IDS; i++) {
        const model_row *m = &committed.rows[table][i];
        if (id_of(i) != id)
            continue;
        ck_assert(m->count == count && m->last_seen == last_seen && m->admitted == admitted);
        ck_assert_uint_eq(floats, admitted ? SPECS[table].floats : 0);
        ck_assert_int_eq(memcmp(v, m->v, floats * sizeof *v), 0);
        stored_rows++;
        return true;
    }
    ck_abort_msg("row %llu was never there", (unsigned long long)id);
    return false;
}

START_TEST(test_against_model)
{
    slu_rng rng;
    slu_rng_seed(&rng, sample_seed(11 + (uint64_t)_i));
    model_reset(&now);
    committed = now;
    slu_store *s = sample_open();
    bool large = _i & 1, read_ahead = _i & 2;
    uint64_t cache = large ? 1 << 20 : 6000; /* nearly nothing fits; all fits */
    slu_row_table *t = open_table(s, cache, read_ahead);
    uint64_t evicted = 0, ahead = 0;
    for (int round = 0; round < 3000; round++) {
        batch(t, &rng);
        switch (slu_rng_below(&rng, 40)) {
        case 0:
            flush_in_vain(s, t);
            break;
        case 1:
            commit_behind(s, t, &rng);
            break;
        case 2:
        case 3:
            commit(s, t);
            check_sum(t);
            check_served(&committed);
            break;
        case 4:
            if (slu_rng_below(&rng, 4))
                break;
            if (slu_rng_below(&rng, 2))
                commit(s, t);
            slu_row_table_stats stats;
            slu_row_table_get_stats(t, &stats);
            evicted += stats.evicted;
            ahead += stats.read_ahead;
            slu_row_table_close(t);
            slu_store_close(s); /* without a commit everything since the last one is gone */
            now = committed;
            s = sample_open();
            t = open_table(s, cache, read_ahead);
            uint64_t rows[TABLES];
            count_served(&now, rows);
            slu_row_table_set_sum(t, sum_of(&now), rows);
            check_served(&now);
            break;
        }
    }
    commit(s, t);
    slu_row_table_stats stats;
    slu_row_table_get_stats(t, &stats);
    evicted += stats.evicted;
    ahead += stats.read_ahead;
    ck_assert_uint_eq(stats.dirty_rows, 0);
    ck_assert(large ? !evicted : evicted > 1000);
    ck_assert(!read_ahead ? !ahead : large || ahead > 1000);
    slu_error err = SLU_ERROR_INIT;
    stored_rows = 0;
    ck_assert_msg(!slu_row_scan(s, check_stored, NULL, &err), "%s", err.message);
    uint64_t touched = 0;
    for (int table = 0; table < TABLES; table++)
        for (int i = 0; i < IDS; i++)
            touched += committed.rows[table][i].touched;
    ck_assert_uint_eq(stored_rows, touched);
    slu_row_table_close(t);
    slu_store_close(s);
}
END_TEST

static slu_row *fetch_one(slu_row_table *t, uint32_t table, uint64_t id)
{
    slu_error err = SLU_ERROR_INIT;
    slu_row *row = NULL;
    ck_assert_msg(!slu_row_table_fetch(t, table, &id, 1, &row, &err), "%s", err.message);
    return row;
}

START_TEST(test_admission)
{
    slu_store *s = sample_open();
    slu_row_table *t = open_rows(s, 1 << 20);
    ck_assert(fetch_one(t, 0, 5)->admitted); /* at once */
    slu_row *row = fetch_one(t, 1, 5);
    ck_assert(!row->admitted);
    slu_row_touch(t, 1, row, 1, 10);
    slu_row_touch(t, 1, row, 1, 9);
    ck_assert(!row->admitted);
    ck_assert_uint_eq(row->last_seen, 10);
    commit(s, t);
    slu_row_table_close(t);
    slu_store_close(s);
    s = sample_open();
    t = open_rows(s, 1 << 20);
    row = fetch_one(t, 1, 5);
    ck_assert(!row->admitted && row->count == 2);
    slu_row_touch(t, 1, row, 1, 11);
    float expected[MOST_FLOATS];
    init_row(NULL, 1, 5, expected);
    ck_assert(row->admitted);
    ck_assert_mem_eq(row->v, expected, sizeof expected);
    slu_row_table_close(t);
    slu_store_close(s);
}
END_TEST

START_TEST(test_only_looked_at)
{
    slu_store *s = sample_open();
    slu_row_table *t = open_rows(s, 1 << 20);
    for (uint64_t id = 0; id < 100; id++)
        fetch_one(t, 0, id);
    slu_error err = SLU_ERROR_INIT;
    slu_row_table_release(t, &err);
    slu_commit *c = slu_commit_begin(s);
    size_t empty = slu_commit_bytes(c);
    slu_row_table_flush(t, c, NULL, NULL);
    ck_assert_uint_eq(slu_commit_bytes(c), empty);
    slu_row_table_stats stats;
    slu_row_table_get_stats(t, &stats);
    ck_assert(stats.cached_rows == 100 && stats.created == 100 && stats.misses == 100 && !stats.hits);
    slu_row_table_close(t);
    slu_store_close(s);
}
END_TEST

/* Rows that are held stay where they are, however many others come. */
START_TEST(test_held_rows_stay)
{
    slu_store *s = sample_open();
    slu_row_table *t = open_rows(s, 4000);
    slu_row *held[50];
    for (uint64_t id = 0; id < 50; id++)
        held[id] = fetch_one(t, 0, id);
    for (uint64_t id = 50; id < 5000; id++)
        fetch_one(t, 0, id);
    for (uint64_t id = 0; id < 50; id++) {
        ck_assert_ptr_eq(fetch_one(t, 0, id), held[id]);
        ck_assert_uint_eq(held[id]->id, id);
    }
    slu_error err = SLU_ERROR_INIT;
    for (int i = 0; i < 20; i++)
        slu_row_table_release(t, &err);
    slu_row_table_stats stats;
    slu_row_table_get_stats(t, &stats);
    ck_assert_uint_gt(stats.evicted, 4000);
    slu_row_table_close(t);
    slu_store_close(s);
}
END_TEST

START_TEST(test_bound)
{
    enum { CACHE = 200000 };
    slu_store *s = sample_open();
    slu_row_table *t = open_rows(s, CACHE);
    slu_error err = SLU_ERROR_INIT;
    uint64_t ids[64];
    slu_row *rows[64];
    for (uint64_t i = 0; i < 2000; i++) {
        for (uint64_t k = 0; k < 64; k++)
            ids[k] = slu_mix64(i * 64 + k);
        ck_assert_int_eq(slu_row_table_fetch(t, i % TABLES, ids, 64, rows, &err), 0);
        for (int k = 0; k < 64; k++)
            slu_row_touch(t, i % TABLES, rows[k], 1, 1);
        slu_row_table_release(t, &err);
        if (slu_row_table_pressure(t))
            commit(s, t);
        slu_row_table_stats stats;
        slu_row_table_get_stats(t, &stats);
        ck_assert_uint_le(stats.cached_bytes, CACHE + CACHE / 10);
    }
    slu_row_table_close(t);
    slu_store_close(s);
}
END_TEST

/* A batch of many slots brings more new rows than the least walk of a release looks at. */
START_TEST(test_bound_of_large_batches)
{
    enum { CACHE = 2 << 20, BATCH = 8000, BATCHES = 100 };
    static uint64_t ids[BATCH];
    static slu_row *rows[BATCH];
    slu_store *s = sample_open();
    slu_row_table *t = open_rows(s, CACHE);
    slu_error err = SLU_ERROR_INIT;
    slu_row_table_stats stats;
    uint64_t batch_bytes = 0;
    for (uint64_t i = 0; i < BATCHES; i++) {
        for (uint64_t k = 0; k < BATCH; k++)
            ids[k] = slu_mix64(i * BATCH + k);
        ck_assert_int_eq(slu_row_table_fetch(t, i % TABLES, ids, BATCH, rows, &err), 0);
        slu_row_table_get_stats(t, &stats);
        batch_bytes = i ? batch_bytes : stats.cached_bytes; /* of the first, its index as well */
        slu_row_table_release(t, &err);
        slu_row_table_get_stats(t, &stats);
        ck_assert_msg(stats.cached_bytes <= CACHE + 3 * batch_bytes, "batch %d: %llu bytes, the cache is %d",
                      (int)i, (unsigned long long)stats.cached_bytes, CACHE);
    }
    ck_assert_uint_le(stats.cached_bytes, CACHE + batch_bytes);
    slu_row_table_close(t);
    slu_store_close(s);
}
END_TEST

typedef struct last_row {
    uint32_t table, n;
    uint64_t id;
} last_row;

static void check_order(void *ctx, uint32_t table, const slu_row *row)
{
    last_row *last = ctx;
    ck_assert(!last->n || table > last->table || (table == last->table && row->id > last->id));
    *last = (last_row){table, last->n + 1, row->id};
}

START_TEST(test_flush_order)
{
    slu_store *s = sample_open();
    slu_row_table *t = open_rows(s, 1 << 20);
    for (uint64_t i = 0; i < 300; i++)
        slu_row_touch(t, i % TABLES, fetch_one(t, i % TABLES, slu_mix64(i)), 1, 1);
    last_row last = {0};
    slu_commit *c = slu_commit_begin(s);
    slu_row_table_flush(t, c, check_order, &last);
    ck_assert_uint_eq(last.n, 300);
    slu_row_table_committed(t);
    slu_row_table_flush(t, c, check_order, &last); /* nothing more */
    ck_assert_uint_eq(last.n, 300);
    slu_row_table_close(t);
    slu_store_close(s);
}
END_TEST

static void fetch_refused(slu_store *s, const void *value, size_t len, int code)
{
    uint8_t key[SLU_ROW_KEY_BYTES];
    slu_row_key_write(key, 0, 77);
    slu_commit *c = slu_commit_begin(s);
    slu_commit_put(c, SLU_FAMILY_ROWS, key, sizeof key, value, len);
    sample_write(c);
    slu_commit_abandon(c);
    slu_row_table *t = open_rows(s, 1 << 20);
    slu_row *rows[3];
    uint64_t ids[] = {1, 77, 2};
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_row_table_fetch(t, 0, ids, 3, rows, &err);
    ck_assert_msg(rc == code, "%s: %s", slu_code_name(rc), err.message);
    ck_assert_msg(strstr(err.message, "table 0") && strstr(err.message, "row 77"), "%s", err.message);
    /* The others are as if it had not been asked for. */
    ck_assert(fetch_one(t, 0, 1)->admitted);
    slu_row_table_stats stats;
    slu_row_table_get_stats(t, &stats);
    ck_assert_uint_eq(stats.cached_rows, 1);
    slu_row_table_close(t);
}

START_TEST(test_bad_values)
{
    slu_store *s = sample_open();
    uint8_t value[SLU_ROW_VALUE_HEADER + 5 * 4];
    float v[5] = {0};
    size_t len = slu_row_value_write(value, 1, 2, true, v, 5);
    fetch_refused(s, value, len, SLU_EFORMAT); /* five floats, not four */
    fetch_refused(s, value, len - 5, SLU_ECORRUPT);
    fetch_refused(s, value, 5, SLU_ECORRUPT);
    fetch_refused(s, "", 0, SLU_ECORRUPT);
    value[0] = 9;
    fetch_refused(s, value, len, SLU_EFORMAT);
    value[0] = 1;
    value[1] = 4;
    fetch_refused(s, value, len, SLU_EFORMAT);
    slu_store_close(s);
}
END_TEST

START_TEST(test_value_round_trip)
{
    float v[3] = {1, -2.5f, 3e-9f}, back[3];
    uint8_t bytes[SLU_ROW_VALUE_HEADER + sizeof v], key[SLU_ROW_KEY_BYTES], next[SLU_ROW_KEY_BYTES];
    slu_row_value row;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_uint_eq(slu_row_value_write(bytes, 7, 8, true, v, 3), sizeof bytes);
    ck_assert_int_eq(slu_row_value_parse(bytes, sizeof bytes, &row, &err), 0);
    ck_assert(row.count == 7 && row.last_seen == 8 && row.admitted && row.floats == 3);
    slu_row_value_floats(&row, back);
    ck_assert_mem_eq(v, back, sizeof v);
    ck_assert_uint_eq(slu_row_value_write(bytes, 7, 8, false, v, 3), SLU_ROW_VALUE_HEADER);
    ck_assert_int_eq(slu_row_value_parse(bytes, SLU_ROW_VALUE_HEADER, &row, &err), 0);
    ck_assert(!row.admitted && !row.floats);
    uint32_t table;
    uint64_t id;
    slu_row_key_write(key, 3, 0x1ff);
    ck_assert_int_eq(slu_row_key_parse(key, sizeof key, &table, &id, &err), 0);
    ck_assert(table == 3 && id == 0x1ff);
    slu_row_key_write(next, 3, 0x200);
    ck_assert_int_lt(memcmp(key, next, sizeof key), 0); /* sorts as numbers do */
    ck_assert_int_eq(slu_row_key_parse(key, 11, &table, &id, &err), SLU_ECORRUPT);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("row_table");
    TCase *tc = tcase_create("row_table");
    tcase_add_checked_fixture(tc, sample_setup, sample_teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_against_model, 0, 4);
    tcase_add_test(tc, test_admission);
    tcase_add_test(tc, test_only_looked_at);
    tcase_add_test(tc, test_held_rows_stay);
    tcase_add_test(tc, test_bound);
    tcase_add_test(tc, test_bound_of_large_batches);
    tcase_add_test(tc, test_flush_order);
    tcase_add_test(tc, test_bad_values);
    tcase_add_test(tc, test_value_round_trip);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
