/* Which rows are gone is a function of what was learned and when in event time: a plain map that knows no
 * cache, no commits and no timers in a store keeps watch, through evictions, commits, crashes and other times
 * to live. */
#include "base/clock.h"
#include "store/row_expiry.h"
#include "store/row_scan.h"
#include "store/state.h"
#include "store/timers.h"
#include "tests/store_sample.h"

enum { TABLES = 3, IDS = 300, FLOATS = 3, STEPS = 4000 };

static const slu_row_table_spec SPECS[TABLES] = {{FLOATS, 0, 2}, {FLOATS, 3, 3}, {FLOATS, 1, 1}};
static const int64_t TTL[TABLES] = {40 * SLU_SECOND_US, 0, 200 * SLU_SECOND_US - 1};
static const int64_t OTHER[TABLES] = {0, 60 * SLU_SECOND_US, 15 * SLU_SECOND_US};
static const int64_t NEVER[TABLES];

static void init_row(void *ctx, uint32_t table, uint64_t id, float *v)
{
    (void)ctx;
    for (int i = 0; i < FLOATS; i++)
        v[i] = (float)(id % 1000) + (float)table / 8;
}

/* ---- what should be ---- */

typedef struct model_row {
    uint32_t count, last_seen;
    int64_t fires; /* seconds; when a timer looks at it */
} model_row;

typedef struct model {
    model_row rows[TABLES][IDS];
    int64_t now; /* seconds */
    uint64_t expired;
} model;

static model now, committed;

static uint64_t id_of(uint64_t i)
{
    return i % 3 ? slu_mix64(i) : i;
}

static int64_t seconds(int64_t us)
{
    return (us + SLU_SECOND_US - 1) / SLU_SECOND_US;
}

/* The first that is due in (time, table, id) order. */
static bool model_first(const int64_t *ttl, uint32_t *table, uint64_t *at)
{
    bool any = false;
    for (uint32_t t = 0; t < TABLES; t++)
        for (uint64_t i = 0; i < IDS && ttl[t]; i++) {
            const model_row *r = &now.rows[t][i];
            if (!r->count || r->fires > now.now)
                continue;
            const model_row *best = any ? &now.rows[*table][*at] : NULL;
            if (best && (best->fires < r->fires ||
                         (best->fires == r->fires && (*table < t || id_of(*at) < id_of(i)))))
                continue;
            *table = t;
            *at = i;
            any = true;
        }
    return any;
}

static void model_expire(const int64_t *ttl, uint64_t most)
{
    uint32_t t = 0;
    uint64_t i = 0;
    while (most-- && model_first(ttl, &t, &i)) {
        model_row *r = &now.rows[t][i];
        r->fires = r->last_seen + seconds(ttl[t]);
        if (r->fires <= now.now) {
            *r = (model_row){0};
            now.expired++;
        }
    }
}

/* ---- what is ---- */

typedef struct life {
    slu_store *store;
    slu_row_table *rows;
    slu_row_expiry *expiry;
    const int64_t *ttl;
} life;

static void begin(life *l, const int64_t *ttl, uint64_t cache)
{
    slu_error err = SLU_ERROR_INIT;
    slu_row_table_config config = {SPECS, TABLES, cache, init_row, NULL};
    l->ttl = ttl;
    l->store = sample_open();
    ck_assert_msg(!slu_row_table_open(l->store, &config, &l->rows, &err), "%s", err.message);
    ck_assert_msg(!slu_row_expiry_open(l->store, l->rows, ttl, TABLES, &l->expiry, &err), "%s", err.message);
}

static void end(life *l)
{
    slu_row_expiry_close(l->expiry);
    slu_row_table_close(l->rows);
    slu_store_close(l->store);
}

static void commit(life *l)
{
    slu_commit *c = slu_commit_begin(l->store);
    slu_row_expiry_flush(l->expiry, c);
    slu_row_table_flush(l->rows, c, NULL, NULL);
    sample_write(c);
    slu_row_expiry_committed(l->expiry);
    slu_row_table_committed(l->rows);
    slu_commit_abandon(c);
    committed = now;
}

static void flush_in_vain(life *l)
{
    slu_commit *c = slu_commit_begin(l->store);
    slu_row_expiry_flush(l->expiry, c);
    slu_row_table_flush(l->rows, c, NULL, NULL);
    slu_commit_abandon(c);
}

static void touch(life *l, uint32_t table, uint64_t i, uint32_t at)
{
    slu_error err = SLU_ERROR_INIT;
    uint64_t id = id_of(i);
    slu_row *row;
    model_row *m = &now.rows[table][i];
    ck_assert_msg(!slu_row_table_fetch(l->rows, table, &id, 1, &row, &err), "%s", err.message);
    ck_assert_msg(row->count == m->count && row->last_seen == m->last_seen,
                  "table %u row %llu: count %u, not %u", table, (unsigned long long)i, row->count, m->count);
    bool born = !row->count;
    slu_row_touch(l->rows, table, row, 1, at);
    if (born) {
        slu_row_expiry_born(l->expiry, table, id, row->last_seen);
        m->fires = at + seconds(l->ttl[table]);
    }
    m->count++;
    if (at > m->last_seen)
        m->last_seen = at;
}

/* Values come and go: at any time a few are popular, some late, most never again. */
static void step(life *l, slu_rng *rng)
{
    slu_error err = SLU_ERROR_INIT;
    now.now += (int64_t)(slu_rng_below(rng, 50) ? slu_rng_below(rng, 3) : slu_rng_below(rng, 400));
    uint64_t most = slu_rng_below(rng, 12);
    ck_assert_msg(!slu_row_expiry_run(
                      l->expiry, now.now * SLU_SECOND_US + (int64_t)slu_rng_below(rng, 999999), most, &err),
                  "%s", err.message);
    model_expire(l->ttl, most);
    for (int k = 0; k < 4; k++) {
        uint64_t popular = (uint64_t)now.now / 100 + slu_rng_below(rng, 5);
        touch(l, (uint32_t)slu_rng_below(rng, TABLES),
              (slu_rng_below(rng, 2) ? popular : slu_rng_below(rng, IDS)) % IDS,
              (uint32_t)(now.now - (int64_t)slu_rng_below(rng, 60)));
    }
    ck_assert_int_eq(slu_row_table_release(l->rows, &err), 0);
}

static uint64_t stored;
static bool check_stored(void *ctx, uint32_t table, uint64_t id, uint32_t count, uint32_t last_seen,
                         bool admitted, const float *v, uint32_t floats)
{
    (void)ctx, (void)admitted, (void)v, (void)floats;
    for (uint64_t i = 0; i < IDS; i++)
        if (id_of(i) == id) {
            ck_assert_uint_eq(count, committed.rows[table][i].count);
            ck_assert_uint_eq(last_seen, committed.rows[table][i].last_seen);
            stored++;
            return true;
        }
    ck_abort_msg("row %llu was never there", (unsigned long long)id);
    return false;
}

/* After a commit: the store has the model's rows, and a timer for each that can expire. */
static void check_store(const life *l)
{
    slu_error err = SLU_ERROR_INIT;
    uint64_t rows = 0, timers = 0;
    for (int t = 0; t < TABLES; t++)
        for (int i = 0; i < IDS; i++) {
            rows += committed.rows[t][i].count > 0;
            timers += committed.rows[t][i].count && l->ttl[t];
        }
    stored = 0;
    ck_assert_msg(!slu_row_scan(l->store, check_stored, NULL, &err), "%s", err.message);
    ck_assert_uint_eq(stored, rows);
    ck_assert_uint_eq(slu_row_expiry_count(l->expiry), timers);
}

START_TEST(test_against_model)
{
    slu_rng rng;
    slu_rng_seed(&rng, sample_seed(21 + (uint64_t)_i));
    uint64_t cache = _i ? 1 << 20 : 6000;
    now = (model){.now = 1000};
    committed = now;
    life l;
    begin(&l, TTL, cache);
    for (int i = 0; i < STEPS; i++) {
        step(&l, &rng);
        switch (slu_rng_below(&rng, 30)) {
        case 0:
        case 1:
            commit(&l);
            break;
        case 2:
            flush_in_vain(&l);
            break;
        case 3:
            commit(&l);
            check_store(&l);
            break;
        case 4:
            if (slu_rng_below(&rng, 3))
                break;
            end(&l); /* what was not committed is gone */
            now = committed;
            begin(&l, TTL, cache);
            break;
        }
    }
    commit(&l);
    check_store(&l);
    ck_assert_uint_gt(now.expired, 300);
    slu_row_table_stats stats;
    slu_row_table_get_stats(l.rows, &stats);
    ck_assert(_i ? !stats.evicted : stats.evicted > 0);
    end(&l);
}
END_TEST

/* Timers fire anew from what the rows say. */
static void model_change(const int64_t *ttl)
{
    for (int t = 0; t < TABLES; t++)
        for (int i = 0; i < IDS; i++)
            now.rows[t][i].fires = now.rows[t][i].last_seen + seconds(ttl[t]);
    committed = now;
}

START_TEST(test_times_to_live_change)
{
    static const int64_t *const lives[] = {NEVER, TTL, OTHER, NEVER, OTHER};
    slu_rng rng;
    slu_rng_seed(&rng, sample_seed(31));
    now = (model){.now = 1000};
    life l;
    for (size_t k = 0; k < sizeof lives / sizeof *lives; k++) {
        begin(&l, lives[k], 1 << 20);
        ck_assert_int_eq(l.expiry == NULL, lives[k] == NEVER);
        model_change(lives[k]);
        check_store(&l);
        for (int i = 0; i < 300; i++)
            step(&l, &rng);
        commit(&l);
        check_store(&l);
        end(&l);
    }
}
END_TEST

/* Killed while the timers are made anew: what is half there counts for nothing. */
START_TEST(test_killed_while_timers_are_made)
{
    slu_rng rng;
    slu_rng_seed(&rng, sample_seed(41));
    now = (model){.now = 1000};
    life l;
    begin(&l, TTL, 1 << 20);
    for (int i = 0; i < 300; i++)
        step(&l, &rng);
    commit(&l);
    end(&l);
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    uint8_t key[SLU_TIMER_KEY_BYTES];
    slu_timer_key(key, (int64_t)12345 << 20, 99); /* of a row that is not there */
    slu_commit_put(c, SLU_FAMILY_EXPIRY, key, sizeof key, "", 0);
    slu_state_put_bytes(c, "rows.ttl", "incomplete", 10);
    sample_write(c);
    slu_store_close(s);
    begin(&l, TTL, 1 << 20);
    model_change(TTL);
    check_store(&l);
    for (int i = 0; i < 300; i++)
        step(&l, &rng);
    commit(&l);
    check_store(&l);
    end(&l);
}
END_TEST

START_TEST(test_never_costs_nothing)
{
    now = (model){.now = 1000};
    life l;
    begin(&l, NEVER, 1 << 20);
    slu_commit *c = slu_commit_begin(l.store);
    size_t empty = slu_commit_bytes(c);
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_row_expiry_run(l.expiry, INT64_MAX, 1000, &err), 0);
    slu_row_expiry_flush(l.expiry, c);
    ck_assert_uint_eq(slu_commit_bytes(c), empty);
    end(&l);
}
END_TEST

START_TEST(test_missing_timers)
{
    life l;
    now = (model){.now = 1000};
    begin(&l, TTL, 1 << 20);
    touch(&l, 0, 1, 5);
    slu_error err = SLU_ERROR_INIT;
    slu_row_table_release(l.rows, &err);
    commit(&l);
    end(&l);
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    uint8_t key[SLU_TIMER_KEY_BYTES];
    slu_timer_key(key, (int64_t)(5 + 40) << 20, id_of(1));
    slu_commit_delete(c, SLU_FAMILY_EXPIRY, key, sizeof key);
    sample_write(c);
    slu_store_close(s);
    begin(&l, TTL, 1 << 20);
    ck_assert_int_eq(slu_row_expiry_run(l.expiry, 1000 * SLU_SECOND_US, 10, &err), SLU_ECORRUPT);
    ck_assert_msg(strstr(err.message, "expiry") && strstr(err.message, sample_path), "%s", err.message);
    end(&l);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("row_expiry");
    TCase *tc = tcase_create("row_expiry");
    tcase_add_checked_fixture(tc, sample_setup, sample_teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_loop_test(tc, test_against_model, 0, 2);
    tcase_add_test(tc, test_times_to_live_change);
    tcase_add_test(tc, test_killed_while_timers_are_made);
    tcase_add_test(tc, test_never_costs_nothing);
    tcase_add_test(tc, test_missing_timers);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
