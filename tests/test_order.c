/* The order of records: what is recorded comes back, in few bytes; bytes that are damaged are refused; the
 * log in the store is part of each commit and bounded. */
#include "base/rng.h"
#include "store/state.h"
#include "tests/pipeline_sample.h"
#include "tests/suite.h"
#include "trainer/order_log.h"

#define SEED 11
#define N    20000

static const slu_partition parts[] = {{"events", 0}, {"events", 1}, {"steps", 0}, {"steps", 31}};
enum { PARTS = sizeof parts / sizeof *parts };

static slu_record event(uint32_t partition, int64_t offset)
{
    return (slu_record){.kind = SLU_RECORD_EVENT, .partition = partition, .offset = offset};
}

static slu_record other(slu_record_kind kind, uint32_t partition)
{
    return (slu_record){.kind = kind, .partition = partition, .offset = -1};
}

static slu_record timed(slu_record_kind kind, uint32_t partition, int64_t time_us)
{
    return (slu_record){.kind = kind, .partition = partition, .offset = -1, .arrival_us = time_us};
}

static void add(slu_order *o, slu_record r)
{
    slu_order_add(o, &r, &parts[r.partition]);
}

static int read_all(const slu_buf *value, slu_order_run *runs, uint32_t cap, uint32_t *n, slu_error *err)
{
    slu_order_reader *r;
    int rc = slu_order_open(value->data, value->len, &r, err);
    *n = 0;
    slu_order_run run;
    while (!rc && (rc = slu_order_next(r, &run, err)) == 1) {
        if (*n < cap)
            runs[*n] = run;
        ++*n;
        rc = 0;
    }
    slu_order_close(r);
    return rc;
}

START_TEST(test_by_hand)
{
    slu_order *o = slu_order_new();
    slu_buf value = SLU_BUF_INIT;
    slu_order_run runs[12];
    uint32_t n;
    add(o, other(SLU_RECORD_PARTITION, 3));
    for (int64_t i = 0; i < 300; i++)
        add(o, event(1, 5000000000 + i));
    add(o, event(3, 0));
    add(o, event(1, 5000000300)); /* goes on */
    add(o, event(1, 5000000400)); /* a hole */
    add(o, other(SLU_RECORD_IDLE, 3));
    add(o, other(SLU_RECORD_FLUSH, 1));
    add(o, timed(SLU_RECORD_CLOCK, 1, 1700000000000000));
    add(o, timed(SLU_RECORD_END, 3, SLU_MAX_TIME_US));
    slu_order_save(o, &value);
    OK(read_all(&value, runs, 12, &n, err));
    const slu_order_run want[] = {
        {SLU_RECORD_PARTITION, 0, -1, 1, 0},
        {SLU_RECORD_EVENT, 1, 5000000000, 300, 0},
        {SLU_RECORD_EVENT, 0, 0, 1, 0},
        {SLU_RECORD_EVENT, 1, 5000000300, 1, 0},
        {SLU_RECORD_EVENT, 1, 5000000400, 1, 0},
        {SLU_RECORD_IDLE, 0, -1, 1, 0},
        {SLU_RECORD_FLUSH, 1, -1, 1, 0},
        {SLU_RECORD_CLOCK, 1, -1, 1, 1700000000000000},
        {SLU_RECORD_END, 0, -1, 1, SLU_MAX_TIME_US},
    };
    ck_assert_uint_eq(n, sizeof want / sizeof *want);
    for (uint32_t i = 0; i < n; i++) {
        ck_assert_int_eq(runs[i].kind, want[i].kind);
        ck_assert_uint_eq(runs[i].place, want[i].place);
        ck_assert_int_eq(runs[i].start, want[i].start);
        ck_assert_uint_eq(runs[i].count, want[i].count);
        ck_assert_int_eq(runs[i].time_us, want[i].time_us);
    }
    slu_order_reader *r;
    OK(slu_order_open(value.data, value.len, &r, err));
    ck_assert_uint_eq(slu_order_partitions(r), 2);
    ck_assert_str_eq(slu_order_partition(r, 0).topic, "steps");
    ck_assert_int_eq(slu_order_partition(r, 0).partition, 31);
    ck_assert_str_eq(slu_order_partition(r, 1).topic, "events");
    slu_order_close(r);

    /* After clear the next value stands alone. */
    slu_order_clear(o);
    slu_buf_clear(&value);
    add(o, event(1, 5000000401));
    slu_order_save(o, &value);
    OK(read_all(&value, runs, 8, &n, err));
    ck_assert_uint_eq(n, 1);
    ck_assert_int_eq(runs[0].start, 5000000401);
    slu_buf_free(&value);
    slu_order_free(o);
}
END_TEST

/* A long random sequence comes back record for record; values are cut anywhere. */
START_TEST(test_round_trip)
{
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    slu_record *records = calloc(N, sizeof *records);
    int64_t next[PARTS] = {0, 7, 1LL << 40, 3};
    uint32_t part = 0;
    slu_order *o = slu_order_new();
    slu_buf value = SLU_BUF_INIT;
    size_t bytes = 0;
    uint32_t checked = 0;
    for (uint32_t i = 0; i < N; i++) {
        if (slu_rng_below(&rng, 40) == 0)
            part = (uint32_t)slu_rng_below(&rng, PARTS);
        if (slu_rng_below(&rng, 1000) == 0)
            next[part] += 1 + (int64_t)slu_rng_below(&rng, 50);
        static const slu_record_kind others[] = {SLU_RECORD_PARTITION, SLU_RECORD_IDLE, SLU_RECORD_FLUSH,
                                                 SLU_RECORD_CLOCK, SLU_RECORD_END};
        uint64_t what = slu_rng_below(&rng, 500 * 5);
        if (what >= 5)
            records[i] = event(part, next[part]++);
        else if (what >= 3)
            records[i] = timed(others[what], part, 1 + (int64_t)slu_rng_below(&rng, SLU_MAX_TIME_US));
        else
            records[i] = other(others[what], part);
        add(o, records[i]);
        if (i + 1 < N && slu_rng_below(&rng, 2000))
            continue;
        slu_order_save(o, &value);
        slu_order_clear(o);
        bytes += value.len;
        slu_order_reader *r;
        slu_order_run run;
        OK(slu_order_open(value.data, value.len, &r, err));
        slu_error err = SLU_ERROR_INIT;
        while (slu_order_next(r, &run, &err) == 1) {
            slu_partition p = slu_order_partition(r, run.place);
            for (uint64_t k = 0; k < run.count; k++, checked++) {
                const slu_record *want = &records[checked];
                ck_assert_uint_le(checked, i);
                ck_assert_int_eq(run.kind, want->kind);
                ck_assert_str_eq(p.topic, parts[want->partition].topic);
                ck_assert_int_eq(p.partition, parts[want->partition].partition);
                if (run.kind == SLU_RECORD_EVENT)
                    ck_assert_int_eq(run.start + (int64_t)k, want->offset);
                else
                    ck_assert_int_eq(run.time_us, want->arrival_us);
            }
        }
        ck_assert_int_eq(err.code, 0);
        ck_assert_uint_eq(checked, i + 1);
        slu_order_close(r);
        slu_buf_clear(&value);
    }
    printf("seed %d: %d records in runs of about 40 take %zu bytes\n", SEED, N, bytes);
    ck_assert_uint_lt(bytes, N / 5);
    slu_buf_free(&value);
    slu_order_free(o);
    free(records);
}
END_TEST

/* Cut short or with a wrong bit a value is refused or reads as something else, but never out of its bounds
 * (the sanitizers look), and offsets never leave their range. */
START_TEST(test_damaged)
{
    slu_order *o = slu_order_new();
    slu_buf value = SLU_BUF_INIT;
    slu_order_run runs[16];
    uint32_t n;
    for (uint32_t i = 0; i < PARTS; i++)
        for (int64_t k = 0; k < 3; k++)
            add(o, event(i, 1000 * (i + 1) + k));
    add(o, event(0, 1003));
    add(o, timed(SLU_RECORD_CLOCK, 0, T0));
    slu_order_save(o, &value);
    for (size_t len = 0; len < value.len; len++) {
        uint8_t *exact = malloc(len + !len);
        memcpy(exact, value.data, len);
        slu_buf cut = {exact, len, len};
        slu_error err = SLU_ERROR_INIT;
        int rc = read_all(&cut, runs, 16, &n, &err);
        ck_assert(rc == SLU_ECORRUPT || (!rc && n <= PARTS + 2));
        free(exact);
    }
    for (size_t bit = 0; bit < 8 * value.len; bit++) {
        value.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
        slu_error err = SLU_ERROR_INIT;
        int rc = read_all(&value, runs, 16, &n, &err);
        ck_assert(!rc || rc == SLU_ECORRUPT || rc == SLU_EFORMAT);
        if (bit < 8)
            ck_assert_int_eq(rc, SLU_EFORMAT);
        for (uint32_t i = 0; !rc && i < n && i < 16; i++)
            ck_assert(runs[i].kind != SLU_RECORD_EVENT ||
                      (runs[i].start >= 0 && (uint64_t)runs[i].start + runs[i].count <= INT64_MAX));
        value.data[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    slu_buf_free(&value);
    slu_order_free(o);
}
END_TEST

/* ---- the log in a store ---- */

static bool has(slu_store *s, uint64_t version)
{
    uint8_t key[8];
    slu_buf value = SLU_BUF_INIT;
    slu_error err = SLU_ERROR_INIT;
    slu_order_key(version, key);
    int rc = slu_store_get(s, SLU_FAMILY_ORDER, key, sizeof key, &value, &err);
    ck_assert(rc == 0 || rc == SLU_ENOTFOUND);
    slu_buf_free(&value);
    return !rc;
}

/* One commit of 100 events of 100 runs: a bit over 200 bytes. */
static void commit(slu_store *s, slu_order_log *l, uint64_t version)
{
    slu_commit *c = slu_commit_begin(s);
    for (uint32_t i = 0; i < 100; i++) {
        slu_record r = event(i % 2, (int64_t)(version * 100 + i));
        slu_order_log_add(l, &r, &parts[i % 2]);
    }
    OK(slu_order_log_flush(l, c, version, err));
    OK(slu_commit_write(c, err));
    slu_order_log_committed(l);
    slu_commit_abandon(c);
}

START_TEST(test_log_is_bounded)
{
    slu_options *options = sample_options(NULL, 0);
    slu_schema *schema = sample_schema(options);
    char *directory = sample_directory();
    slu_store *s = sample_store(directory, schema);
    slu_order_log *l;
    OK(slu_order_log_open(s, 4000, 7, &l, err));
    char before[33], after[33];
    OK(slu_store_digest(s, SLU_MODEL_FAMILIES, before, err));
    for (uint64_t v = 1; v <= 5; v++)
        commit(s, l, v);
    ck_assert(has(s, 1) && has(s, 5));
    for (uint64_t v = 6; v <= 100; v++)
        commit(s, l, v);
    ck_assert(!has(s, 1) && !has(s, 80) && has(s, 95) && has(s, 100));
    OK(slu_store_digest(s, SLU_MODEL_FAMILIES, after, err));
    ck_assert_str_eq(before, after);
    slu_order_log_close(l);

    /* A smaller limit is reached over time; off keeps nothing. */
    OK(slu_order_log_open(s, 500, 7, &l, err));
    commit(s, l, 101);
    ck_assert(!has(s, 99) && has(s, 101));
    slu_order_log_close(l);
    OK(slu_order_log_open(s, 0, 7, &l, err));
    commit(s, l, 102);
    ck_assert(!has(s, 101) && !has(s, 102));
    slu_order_log_close(l);
    OK(slu_order_log_open(s, 1, 7, &l, err)); /* the newest stays in any case */
    commit(s, l, 103);
    ck_assert(has(s, 103));
    slu_order_log_close(l);
    slu_store_close(s);
    sample_remove(directory);
    slu_schema_free(schema);
    slu_options_free(options);
}
END_TEST

static uint64_t other_config(slu_store *s, uint64_t from, uint64_t until, uint64_t config, uint64_t *other)
{
    uint64_t version;
    OK(slu_order_other_config(s, from, until, config, &version, other, err));
    return version;
}

/* Versions 1, 2 under 7; 3, 4 under 8; 5 under 8 again after a restart; 6 under 7. */
START_TEST(test_log_knows_configurations)
{
    slu_options *options = sample_options(NULL, 0);
    slu_schema *schema = sample_schema(options);
    char *directory = sample_directory();
    slu_store *s = sample_store(directory, schema);
    static const uint64_t configs[] = {7, 8, 8, 7}, until[] = {2, 4, 5, 6};
    uint64_t version = 0, other;
    ck_assert_uint_eq(other_config(s, 1, 9, 7, &other), 0); /* of before configurations were noted */
    for (int i = 0; i < 4; i++) {
        slu_order_log *l;
        OK(slu_order_log_open(s, 1 << 20, configs[i], &l, err));
        while (version < until[i])
            commit(s, l, ++version);
        slu_order_log_close(l);
    }
    ck_assert_uint_eq(other_config(s, 1, 2, 7, &other), 0);
    ck_assert_uint_eq(other_config(s, 1, 6, 7, &other), 3);
    ck_assert_uint_eq(other, 8);
    ck_assert_uint_eq(other_config(s, 1, 6, 8, &other), 1);
    ck_assert_uint_eq(other, 7);
    ck_assert_uint_eq(other_config(s, 4, 5, 8, &other), 0);
    ck_assert_uint_eq(other_config(s, 5, 5, 7, &other), 5);
    ck_assert_uint_eq(other_config(s, 4, 6, 8, &other), 6);
    ck_assert_uint_eq(other_config(s, 6, 6, 7, &other), 0);
    slu_store_close(s);
    sample_remove(directory);
    slu_schema_free(schema);
    slu_options_free(options);
}
END_TEST

int main(void)
{
    return run_suite("order", (const TTest *[]){test_by_hand, test_round_trip, test_damaged,
                                                test_log_is_bounded, test_log_knows_configurations, NULL});
}
