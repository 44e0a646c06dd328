/* The order of records: what is recorded comes back, in few bytes; bytes that are damaged are refused. */
#include "base/rng.h"
#include "tests/pipeline_sample.h"
#include "tests/suite.h"
#include "trainer/order.h"

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

int main(void)
{
    return run_suite("order", (const TTest *[]){test_by_hand, test_round_trip, test_damaged, NULL});
}
