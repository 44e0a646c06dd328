/* Records and timers against a plain model: small caches, evictions, commits that come late, fail or never
 * come, and reopening with and without one. */
#include "store/join_table.h"
#include "tests/store_sample.h"

enum { KEYS = 300, MOST_BYTES = 700, MOST_TIMERS = 6000 };

typedef struct model_record {
    bool there;
    uint32_t len;
    uint8_t data[MOST_BYTES];
} model_record;

typedef struct model_timer {
    int64_t deadline;
    uint64_t sequence;
    slu_hash128 key;
} model_timer;

typedef struct model {
    model_record records[KEYS];
    model_timer timers[MOST_TIMERS];
    uint32_t n_records, n_timers;
} model;

static model now, committed, at_flush;
static uint64_t next_sequence;
static int64_t clock_us;

static slu_hash128 key_of(uint64_t i)
{
    return i % 2 ? (slu_hash128){slu_mix64(i), slu_mix64(~i)} : (slu_hash128){i / 4, i % 4};
}

static slu_join_table *open_join(slu_store *s, uint64_t cache_bytes)
{
    slu_join_table_config config = {cache_bytes};
    slu_error err = SLU_ERROR_INIT;
    slu_join_table *t;
    ck_assert_msg(!slu_join_table_open(s, &config, &t, &err), "%s", err.message);
    return t;
}

static void check_record(slu_join_table *t, uint64_t i)
{
    uint8_t *data;
    size_t len;
    slu_error err = SLU_ERROR_INIT;
    const model_record *m = &now.records[i];
    int rc = slu_join_table_get(t, key_of(i), &data, &len, &err);
    ck_assert_msg(rc == (m->there ? 0 : SLU_ENOTFOUND), "key %llu: %s %s", (unsigned long long)i,
                  slu_code_name(rc), err.message);
    if (rc)
        return;
    ck_assert_uint_eq(len, m->len);
    ck_assert_int_eq(memcmp(data, m->data, len), 0);
}

static void put_record(slu_join_table *t, uint64_t i, slu_rng *rng)
{
    model_record *m = &now.records[i];
    uint8_t *stored;
    slu_error err = SLU_ERROR_INIT;
    m->len = (uint32_t)slu_rng_below(rng, slu_rng_below(rng, 4) ? 300 : MOST_BYTES);
    for (uint32_t k = 0; k < m->len; k++)
        m->data[k] = (uint8_t)slu_rng_u64(rng);
    now.n_records += !m->there;
    m->there = true;
    ck_assert_msg(!slu_join_table_put(t, key_of(i), m->data, m->len, &stored, &err), "%s", err.message);
    ck_assert_int_eq(memcmp(stored, m->data, m->len), 0);
}

static void change_record(slu_join_table *t, uint64_t i, slu_rng *rng)
{
    uint8_t *data;
    size_t len;
    slu_error err = SLU_ERROR_INIT;
    model_record *m = &now.records[i];
    if (!m->there || !m->len)
        return;
    ck_assert_int_eq(slu_join_table_get(t, key_of(i), &data, &len, &err), 0);
    size_t at = slu_rng_below(rng, len);
    data[at] = m->data[at] = (uint8_t)slu_rng_u64(rng);
    ck_assert_int_eq(slu_join_table_touch(t, key_of(i)), 0);
}

static void delete_record(slu_join_table *t, uint64_t i)
{
    slu_error err = SLU_ERROR_INIT;
    model_record *m = &now.records[i];
    int rc = slu_join_table_delete(t, key_of(i), &err);
    ck_assert_int_eq(rc, m->there ? 0 : SLU_ENOTFOUND);
    now.n_records -= m->there;
    m->there = false;
}

/* Mostly ahead of the clock, sometimes long past. */
static void add_timer(slu_join_table *t, slu_rng *rng)
{
    slu_error err = SLU_ERROR_INIT;
    if (now.n_timers == MOST_TIMERS)
        return;
    int64_t deadline = slu_rng_below(rng, 10) ? clock_us + (int64_t)slu_rng_below(rng, 100000)
                                              : (int64_t)slu_rng_below(rng, (uint64_t)clock_us + 1);
    model_timer x = {deadline, next_sequence++, key_of(slu_rng_below(rng, KEYS))};
    ck_assert_int_eq(slu_join_timer_add(t, x.deadline, x.sequence, x.key, &err), 0);
    uint32_t i = now.n_timers++;
    for (; i && (now.timers[i - 1].deadline > x.deadline ||
                 (now.timers[i - 1].deadline == x.deadline && now.timers[i - 1].sequence > x.sequence));
         i--)
        now.timers[i] = now.timers[i - 1];
    now.timers[i] = x;
}

static void pop_timers(slu_join_table *t, int most)
{
    for (int n = 0; n < most; n++) {
        int64_t deadline;
        uint64_t sequence;
        slu_hash128 key;
        slu_error err = SLU_ERROR_INIT;
        ck_assert_int_eq(slu_join_timer_next(t), now.n_timers ? now.timers[0].deadline : INT64_MAX);
        int rc = slu_join_timer_pop(t, clock_us, &deadline, &sequence, &key, &err);
        if (!now.n_timers || now.timers[0].deadline > clock_us) {
            ck_assert_msg(rc == SLU_ENOTFOUND, "%s %s", slu_code_name(rc), err.message);
            return;
        }
        ck_assert_msg(!rc, "%s %s", slu_code_name(rc), err.message);
        ck_assert_int_eq(deadline, now.timers[0].deadline);
        ck_assert_uint_eq(sequence, now.timers[0].sequence);
        ck_assert(key.lo == now.timers[0].key.lo && key.hi == now.timers[0].key.hi);
        memmove(now.timers, now.timers + 1, --now.n_timers * sizeof *now.timers);
    }
}

static void step(slu_join_table *t, slu_rng *rng)
{
    uint64_t i = slu_rng_below(rng, KEYS);
    switch (slu_rng_below(rng, 12)) {
    case 0:
    case 1:
    case 2:
        put_record(t, i, rng);
        break;
    case 3:
        delete_record(t, i);
        break;
    case 4:
        put_record(t, i, rng);
        delete_record(t, i);
        break;
    case 5:
        change_record(t, i, rng);
        break;
    case 6:
    case 7:
    case 8:
        add_timer(t, rng);
        add_timer(t, rng);
        break;
    case 9:
        clock_us += (int64_t)slu_rng_below(rng, 2000);
        pop_timers(t, 12);
        break;
    default:
        check_record(t, i);
        break;
    }
    ck_assert_uint_eq(slu_join_table_count(t), now.n_records);
    ck_assert_uint_eq(slu_join_timer_count(t), now.n_timers);
}

static void commit(slu_store *s, slu_join_table *t)
{
    slu_commit *c = slu_commit_begin(s);
    ck_assert_int_eq(slu_join_table_flush(t, c), 0);
    sample_write(c);
    slu_join_table_committed(t);
    slu_commit_abandon(c);
    committed = now;
}

/* Between flush and confirmation the owner goes on, before and after the write itself. */
static void commit_behind(slu_store *s, slu_join_table *t, slu_rng *rng)
{
    slu_commit *c = slu_commit_begin(s);
    ck_assert_int_eq(slu_join_table_flush(t, c), 0);
    at_flush = now;
    for (int i = 0; i < 20; i++)
        step(t, rng);
    sample_write(c);
    for (int i = 0; i < 20; i++)
        step(t, rng);
    slu_join_table_committed(t);
    slu_commit_abandon(c);
    committed = at_flush;
}

static void flush_in_vain(slu_store *s, slu_join_table *t)
{
    slu_commit *c = slu_commit_begin(s);
    ck_assert_int_eq(slu_join_table_flush(t, c), 0);
    slu_commit_abandon(c);
}

static bool count_pair(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)key, (void)key_len, (void)value, (void)value_len;
    ++*(uint64_t *)ctx;
    return true;
}

static uint64_t stored(slu_store *s, slu_family f)
{
    uint64_t n = 0;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_store_scan(s, f, NULL, 0, NULL, 0, count_pair, &n, &err), "%s", err.message);
    return n;
}

START_TEST(test_against_model)
{
    slu_rng rng;
    slu_rng_seed(&rng, sample_seed(21 + (uint64_t)_i));
    uint64_t cache = _i % 2 ? 1 << 20 : 15000;
    clock_us = 1000;
    slu_store *s = sample_open();
    slu_join_table *t = open_join(s, cache);
    uint64_t misses = 0;
    slu_join_table_stats stats;
    for (int round = 0; round < 15000; round++) {
        step(t, &rng);
        switch (slu_rng_below(&rng, 400)) {
        case 0:
            flush_in_vain(s, t);
            break;
        case 1:
        case 2:
            commit_behind(s, t, &rng);
            break;
        case 3:
        case 4:
            commit(s, t);
            break;
        case 5: /* a flood, far more timers than memory keeps */
            for (int i = 0; i < 1500; i++)
                add_timer(t, &rng);
            break;
        case 6:
            clock_us += 60000;
            pop_timers(t, 100000);
            break;
        case 7:
            if (slu_rng_below(&rng, 3))
                break;
            if (slu_rng_below(&rng, 2))
                commit(s, t);
            slu_join_table_get_stats(t, &stats);
            misses += stats.misses;
            slu_join_table_close(t);
            slu_store_close(s);
            now = committed;
            s = sample_open();
            t = open_join(s, cache);
            break;
        }
        if (_i % 2 == 0 && round % 50 == 49) {
            slu_join_table_get_stats(t, &stats);
            ck_assert_uint_le(stats.cached_records, now.n_records);
        }
    }
    slu_join_table_get_stats(t, &stats);
    misses += stats.misses;
    ck_assert_uint_gt(misses, _i % 2 ? 0 : 1000);
    commit(s, t);
    ck_assert_uint_eq(stored(s, SLU_FAMILY_JOIN), now.n_records);
    ck_assert_uint_eq(stored(s, SLU_FAMILY_TIMERS), now.n_timers);
    for (uint64_t i = 0; i < KEYS; i++)
        check_record(t, i);
    clock_us += 1000000;
    pop_timers(t, 100000);
    ck_assert_uint_eq(slu_join_timer_count(t), 0);
    slu_join_table_close(t);
    slu_store_close(s);
}
END_TEST

/* What comes and goes between two commits costs the disk nothing. */
START_TEST(test_short_lives)
{
    slu_store *s = sample_open();
    slu_join_table *t = open_join(s, 1 << 20);
    slu_error err = SLU_ERROR_INIT;
    slu_commit *c = slu_commit_begin(s);
    slu_join_table_flush(t, c);
    size_t empty = slu_commit_bytes(c);
    slu_commit_abandon(c);
    c = slu_commit_begin(s);
    for (uint64_t i = 0; i < 1000; i++) {
        int64_t deadline;
        uint64_t sequence;
        slu_hash128 key = key_of(i), popped;
        ck_assert_int_eq(slu_join_table_put(t, key, "12345", 5, NULL, &err), 0);
        ck_assert_int_eq(slu_join_timer_add(t, (int64_t)i, i, key, &err), 0);
        ck_assert_int_eq(slu_join_timer_pop(t, (int64_t)i, &deadline, &sequence, &popped, &err), 0);
        ck_assert_int_eq(slu_join_table_delete(t, key, &err), 0);
    }
    slu_join_table_flush(t, c);
    ck_assert_uint_eq(slu_commit_bytes(c), empty);
    slu_join_table_stats stats;
    slu_join_table_get_stats(t, &stats);
    ck_assert(!stats.misses && !stats.cached_records && !stats.dirty_records && !stats.timers_in_memory);
    slu_join_table_close(t);
    slu_store_close(s);
}
END_TEST

START_TEST(test_order)
{
    slu_store *s = sample_open();
    slu_join_table *t = open_join(s, 1 << 20);
    slu_error err = SLU_ERROR_INIT;
    slu_hash128 key = key_of(1);
    static const struct {
        int64_t deadline;
        uint64_t sequence;
    } in[] = {{5, 2}, {5, 1}, {0, 9}, {7, 0}, {5, 1ull << 40}},
      out[] = {{0, 9}, {5, 1}, {5, 2}, {5, 1ull << 40}};
    ck_assert_int_eq(slu_join_timer_next(t), INT64_MAX);
    for (int i = 0; i < 5; i++)
        slu_join_timer_add(t, in[i].deadline, in[i].sequence, key, &err);
    ck_assert_int_eq(slu_join_timer_next(t), 0);
    for (int i = 0; i < 4; i++) {
        int64_t deadline;
        uint64_t sequence;
        ck_assert_int_eq(slu_join_timer_pop(t, 6, &deadline, &sequence, &key, &err), 0);
        ck_assert(deadline == out[i].deadline && sequence == out[i].sequence);
    }
    int64_t deadline;
    uint64_t sequence;
    ck_assert_int_eq(slu_join_timer_pop(t, 6, &deadline, &sequence, &key, &err), SLU_ENOTFOUND);
    ck_assert_int_eq(slu_join_timer_next(t), 7);
    ck_assert_uint_eq(slu_join_timer_count(t), 1);
    slu_join_table_close(t);
    slu_store_close(s);
}
END_TEST

/* A timer that was popped is still in the store until the next commit. Late timers that flood memory must not
 * make the table read it there again. */
START_TEST(test_popped_stays_popped)
{
    enum { LATE = 2000 };
    slu_store *s = sample_open();
    slu_join_table *t = open_join(s, 1000);
    slu_error err = SLU_ERROR_INIT;
    slu_hash128 key = key_of(1);
    int64_t deadline;
    uint64_t sequence;
    slu_join_timer_add(t, 1000, 1, key, &err);
    commit(s, t);
    ck_assert_int_eq(slu_join_timer_pop(t, 1000, &deadline, &sequence, &key, &err), 0);
    for (uint64_t i = 0; i < LATE; i++)
        slu_join_timer_add(t, 50, 100 + i, key, &err);
    for (uint64_t i = 0; i < LATE; i++) {
        ck_assert_int_eq(slu_join_timer_pop(t, 1000, &deadline, &sequence, &key, &err), 0);
        ck_assert(deadline == 50 && sequence == 100 + i);
    }
    ck_assert_int_eq(slu_join_timer_pop(t, 2000, &deadline, &sequence, &key, &err), SLU_ENOTFOUND);
    ck_assert_uint_eq(slu_join_timer_count(t), 0);
    commit(s, t);
    ck_assert_uint_eq(stored(s, SLU_FAMILY_TIMERS), 0);
    slu_join_table_close(t);
    slu_store_close(s);
}
END_TEST

START_TEST(test_lost_timers_are_noticed)
{
    slu_store *s = sample_open();
    slu_join_table *t = open_join(s, 1 << 20);
    slu_error err = SLU_ERROR_INIT;
    slu_join_timer_add(t, 1, 1, key_of(1), &err);
    commit(s, t);
    slu_join_table_close(t);
    slu_commit *c = slu_commit_begin(s);
    uint8_t key[16] = {0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1};
    slu_commit_delete(c, SLU_FAMILY_TIMERS, key, sizeof key);
    sample_write(c);
    t = open_join(s, 1 << 20);
    int64_t deadline;
    uint64_t sequence;
    slu_hash128 popped;
    ck_assert_int_eq(slu_join_timer_next(t), 0);
    ck_assert_int_eq(slu_join_timer_pop(t, 5, &deadline, &sequence, &popped, &err), SLU_ECORRUPT);
    slu_error_clear(&err);
    slu_commit_put(c, SLU_FAMILY_TIMERS, key, sizeof key, "short", 5);
    sample_write(c);
    slu_join_table_close(t);
    t = open_join(s, 1 << 20);
    ck_assert_int_eq(slu_join_timer_pop(t, 5, &deadline, &sequence, &popped, &err), SLU_ECORRUPT);
    slu_join_table_close(t);
    slu_store_close(s);
}
END_TEST

START_TEST(test_bound)
{
    enum { CACHE = 300000 };
    slu_store *s = sample_open();
    slu_join_table *t = open_join(s, CACHE);
    slu_error err = SLU_ERROR_INIT;
    uint8_t data[300] = {0};
    for (uint64_t i = 0; i < 20000; i++) {
        ck_assert_int_eq(slu_join_table_put(t, (slu_hash128){i, i}, data, 100 + i % 200, NULL, &err), 0);
        if (i % 300 == 299)
            commit(s, t);
        slu_join_table_stats stats;
        slu_join_table_get_stats(t, &stats);
        ck_assert_uint_le(stats.cached_bytes, CACHE + CACHE / 10);
    }
    ck_assert_uint_eq(slu_join_table_count(t), 20000);
    slu_join_table_close(t);
    slu_store_close(s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("join_table");
    TCase *tc = tcase_create("join_table");
    tcase_add_checked_fixture(tc, sample_setup, sample_teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_against_model, 0, 4);
    tcase_add_test(tc, test_short_lives);
    tcase_add_test(tc, test_order);
    tcase_add_test(tc, test_popped_stays_popped);
    tcase_add_test(tc, test_lost_timers_are_noticed);
    tcase_add_test(tc, test_bound);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
