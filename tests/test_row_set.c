/* Rows of one table in a scorer against plain arrays, with hashes chosen to collide, and with readers inside
 * while versions are made, given up and settled. */
#include "base/rng.h"
#include "serving/row_set.h"
#include "tests/suite.h"
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

#define SEED    20261126u
#define ONE_TAG 0xabcdfff0u
enum { IDS = 3000, COLLIDE = 300, FLOATS_MOST = 5, HELD = 200 };

/* ---- ids ---- */

/* x of x ^ x >> by. */
static uint64_t unshift(uint64_t y, int by)
{
    uint64_t x = y;
    for (int known = by; known < 64; known += by)
        x = y ^ x >> by;
    return x;
}

static uint64_t inverse(uint64_t odd) /* modulo 2^64 */
{
    uint64_t x = odd;
    for (int i = 0; i < 6; i++)
        x *= 2 - odd * x;
    return x;
}

/* The id whose hash is |hash|. */
static uint64_t id_of_hash(uint64_t hash)
{
    uint64_t x = unshift(hash, 31) * inverse(0x94d049bb133111ebULL);
    x = unshift(x, 27) * inverse(0xbf58476d1ce4e5b9ULL);
    return unshift(x, 30) - 0x9e3779b97f4a7c15ULL;
}

/* Most as they come; of the first ones a third with one tag, so all at one place near the end of the index, a
 * third that begins at two places with tags of their own. */
static uint64_t nth_id(uint64_t i)
{
    if (i % 3 == 0 || i >= COLLIDE)
        return i;
    if (i % 3 == 1)
        return id_of_hash(i << 32 | ONE_TAG);
    return id_of_hash(slu_mix64(i) << 32 | i << 14 | (i & 1));
}

START_TEST(test_ids_collide_as_meant)
{
    for (uint64_t i = 0; i < COLLIDE; i++) {
        uint64_t hash = slu_mix64(nth_id(i));
        if (i % 3 == 1 && (uint32_t)hash != ONE_TAG)
            ck_abort_msg("id %llu has hash %llx", (unsigned long long)i, (unsigned long long)hash);
        if (i % 3 == 2 && (hash & 0x3fff) > 1)
            ck_abort_msg("id %llu has hash %llx", (unsigned long long)i, (unsigned long long)hash);
    }
}
END_TEST

/* ---- random histories ---- */

typedef struct bench {
    row_set *s;
    uint32_t floats;
    uint32_t mark;            /* of the version that readers see */
    int seen[IDS], made[IDS]; /* 0: no such row, else what its floats hold */
    const float *held[HELD];  /* rows of a reader that has been inside since the last grace period */
    int held_value[HELD];     /* 0: it found none */
    uint64_t held_id[HELD];
    int changes;
    slu_rng rng;
} bench;

static void expect_row(const bench *b, const float *row, int want, uint64_t i, const char *who)
{
    if ((row != NULL) != (want != 0))
        ck_abort_msg("%s after %d changes: row %llu is %s", who, b->changes, (unsigned long long)i,
                     row ? "there" : "missing");
    for (uint32_t k = 0; row && k < b->floats; k++)
        if (row[k] != (float)want)
            ck_abort_msg("%s after %d changes: row %llu holds %g, not %d", who, b->changes,
                         (unsigned long long)i, row[k], want);
}

static void expect_all(const bench *b, uint32_t mark, const int *want, const char *who)
{
    uint64_t ids[IDS + 1];
    const float *rows[IDS + 1];
    uint32_t there = 0;
    for (uint64_t i = 0; i < IDS; i++) {
        ids[i] = nth_id(i);
        there += want[i] != 0;
    }
    ids[IDS] = ids[7]; /* asked for twice */
    if (row_set_find(b->s, mark, ids, IDS, rows) != there)
        ck_abort_msg("%s after %d changes: the number found is wrong", who, b->changes);
    for (uint64_t i = 0; i < IDS; i++)
        expect_row(b, rows[i], want[i], i, who);
    row_set_find(b->s, mark, ids + IDS, 1, rows);
    expect_row(b, rows[0], want[7], 7, who);
}

/* A reader goes in and keeps what it finds. */
static void hold(bench *b)
{
    for (int k = 0; k < HELD; k++) {
        uint64_t i = slu_rng_below(&b->rng, IDS), id = nth_id(i);
        row_set_find(b->s, b->mark, &id, 1, &b->held[k]);
        b->held_id[k] = i;
        b->held_value[k] = b->seen[i];
    }
}

static void check(const bench *b)
{
    uint64_t rows = 0;
    for (int k = 0; k < HELD; k++)
        expect_row(b, b->held[k], b->held_value[k], b->held_id[k], "a reader that stays inside");
    expect_all(b, b->mark, b->seen, "a reader");
    expect_all(b, 3 - b->mark, b->made, "a reader of the version to come");
    for (uint64_t i = 0; i < IDS; i++) {
        expect_row(b, row_set_newest(b->s, nth_id(i)), b->made[i], i, "the writer");
        rows += b->made[i] != 0;
    }
    if (row_set_rows(b->s) != rows)
        ck_abort_msg("after %d changes: %llu rows instead of %llu", b->changes,
                     (unsigned long long)row_set_rows(b->s), (unsigned long long)rows);
}

/* One put or delete; what it needs more was foretold. */
static void change(bench *b, uint32_t mark, uint64_t i, bool put)
{
    float v[FLOATS_MOST];
    slu_error err = SLU_ERROR_INIT;
    const uint64_t bytes = row_set_bytes(b->s), next = row_set_next_bytes(b->s);
    b->changes++;
    for (int k = 0; k < FLOATS_MOST; k++)
        v[k] = (float)b->changes;
    int rc = put ? row_set_put(b->s, mark, nth_id(i), b->floats ? v : NULL, &err)
                 : row_set_delete(b->s, mark, nth_id(i), &err);
    if (rc != (put ? 0 : b->made[i] != 0))
        ck_abort_msg("change %d gives %d %s", b->changes, rc, err.message);
    b->made[i] = put ? b->changes : 0;
    if (row_set_bytes(b->s) > bytes + next)
        ck_abort_msg("change %d took %llu bytes where %llu were foretold", b->changes,
                     (unsigned long long)(row_set_bytes(b->s) - bytes), (unsigned long long)next);
}

/* Changes that prefer some part of the ids, so that rows are changed twice and more within one version. */
static void some_changes(bench *b, uint32_t mark, uint64_t most)
{
    uint64_t width = 1 + slu_rng_below(&b->rng, IDS), first = slu_rng_below(&b->rng, IDS - width + 1);
    uint64_t deletes = slu_rng_below(&b->rng, 11); /* in ten */
    for (uint64_t n = slu_rng_below(&b->rng, most); n; n--)
        change(b, mark, first + slu_rng_below(&b->rng, width), slu_rng_below(&b->rng, 10) >= deletes);
}

static void random_history(uint32_t floats)
{
    static bench b;
    b = (bench){.s = row_set_new(floats), .floats = floats, .mark = 1};
    ck_assert_ptr_nonnull(b.s);
    slu_rng_seed(&b.rng, SEED + floats);
    const int rounds = suite_share(300, 60);
    some_changes(&b, ROW_SET_PRIVATE, 2 * IDS); /* before anybody reads */
    some_changes(&b, ROW_SET_PRIVATE, IDS);
    memcpy(b.seen, b.made, sizeof b.seen);
    for (int round = 0; round < rounds; round++) {
        hold(&b);
        some_changes(&b, 3 - b.mark, round % 10 ? 100 : 3 * IDS);
        if (slu_rng_below(&b.rng, 4) ==
            0) { /* a grace period in the middle of a version: the reader leaves */
            row_set_reclaim(b.s);
            hold(&b);
            some_changes(&b, 3 - b.mark, 300);
        }
        check(&b);
        if (slu_rng_below(&b.rng, 3)) {
            row_set_settle(b.s);
            memcpy(b.seen, b.made, sizeof b.seen);
            b.mark = 3 - b.mark;
        } else {
            row_set_undo(b.s);
            memcpy(b.made, b.seen, sizeof b.made);
            check(&b); /* the reader is still inside */
            row_set_reclaim(b.s);
        }
        hold(&b);
        check(&b);
    }
    row_set_free(b.s);
}

START_TEST(test_random_histories)
{
    printf("seed %u\n", SEED);
    random_history(0);
    random_history(1);
    random_history(FLOATS_MOST);
}
END_TEST

/* Rows that come and go for ever need no more memory than they once did. */
START_TEST(test_memory_is_used_again)
{
    static bench b;
    b = (bench){.s = row_set_new(1), .floats = 1, .mark = 1};
    uint64_t bytes = 0;
    for (int round = 0; round < 40; round++) {
        for (uint64_t i = 0; i < IDS; i++)
            change(&b, 3 - b.mark, i, round % 2 == 0);
        if (round % 4 == 3)
            row_set_undo(b.s), memcpy(b.made, b.seen, sizeof b.made);
        else
            row_set_settle(b.s), memcpy(b.seen, b.made, sizeof b.seen), b.mark = 3 - b.mark;
        row_set_reclaim(b.s);
        if (round == 7)
            bytes = row_set_bytes(b.s);
    }
    ck_assert_uint_le(row_set_bytes(b.s), bytes);
    row_set_free(b.s);
}
END_TEST

START_TEST(test_nothing_is_there_and_nothing_asked)
{
    row_set *s = row_set_new(1);
    const float *row = (const float *)&row;
    ck_assert_uint_eq(row_set_find(s, 1, NULL, 0, NULL), 0);
    ck_assert_uint_eq(row_set_find(s, 1, (const uint64_t[]){5}, 1, &row), 0);
    ck_assert_ptr_null(row);
    ck_assert_int_eq(row_set_delete(s, 2, 5, NULL), 0);
    row_set_undo(s);
    row_set_settle(s);
    ck_assert_uint_eq(row_set_rows(s), 0);
    row_set_free(s);
    row_set_free(NULL);
}
END_TEST

/* ---- readers ---- */

/* Which rows a version has: every version puts an eighth of the ids, and deletes another eighth. The number
 * of rows grows, and so does the index. */
enum { READERS = 2, ASK = 70, ROWS = 2500, ROWS_A_VERSION = 20, HOT = 32 };

static int touched(uint64_t version, uint64_t i) /* 1: put, -1: deleted */
{
    uint64_t what = slu_mix64(version << 32 | i) % 8;
    return i >= version * ROWS_A_VERSION ? 0 : what == 0 ? 1 : what == 1 ? -1 : 0;
}

static uint64_t value_in(uint64_t version, uint64_t i) /* 0: no such row */
{
    for (; version; version--) {
        int what = touched(version, i);
        if (what)
            return what > 0 ? version : 0;
    }
    return 0;
}

typedef struct reader {
    row_set *s;
    uint64_t inside; /* the period that it went in, 0: it is outside */
    uint64_t visits;
    pthread_t thread;
    slu_rng rng;
} reader;

static reader readers[READERS];
static uint64_t period = 1;  /* grace periods so far */
static uint64_t current = 1; /* version << 2 | mark */
static bool stop;

static void look(reader *r, uint64_t version, const uint64_t *at, const float *const *rows)
{
    (void)r;
    for (int k = 0; k < ASK; k++) {
        uint64_t want = value_in(version, at[k]);
        if ((rows[k] != NULL) != (want != 0))
            ck_abort_msg("version %llu: row %llu is %s", (unsigned long long)version,
                         (unsigned long long)at[k], rows[k] ? "there" : "missing");
        if (rows[k] && (rows[k][0] != (float)want || rows[k][1] != (float)want))
            ck_abort_msg("version %llu: row %llu holds %g and %g, not %llu", (unsigned long long)version,
                         (unsigned long long)at[k], rows[k][0], rows[k][1], (unsigned long long)want);
    }
}

static void visit(reader *r)
{
    uint64_t at[ASK], ids[ASK];
    const float *rows[ASK];
    __atomic_store_n(&r->inside, __atomic_load_n(&period, __ATOMIC_SEQ_CST), __ATOMIC_SEQ_CST);
    uint64_t now = __atomic_load_n(&current, __ATOMIC_SEQ_CST), version = now >> 2;
    for (int k = 0; k < ASK; k++) {
        at[k] = slu_rng_below(&r->rng, k % 2 ? HOT : ROWS);
        ids[k] = nth_id(at[k]);
    }
    row_set_find(r->s, now & 3, ids, ASK, rows);
    look(r, version, at, rows);
    sched_yield();
    look(r, version, at, rows); /* what was found stays as it was */
    row_set_find(r->s, now & 3, ids, ASK, rows);
    look(r, version, at, rows);
    __atomic_store_n(&r->inside, 0, __ATOMIC_SEQ_CST);
    __atomic_add_fetch(&r->visits, 1, __ATOMIC_SEQ_CST);
}

static void *read_on(void *arg)
{
    while (!__atomic_load_n(&stop, __ATOMIC_SEQ_CST))
        visit(arg);
    return NULL;
}

/* Until every reader that was inside has come out. */
static void grace(void)
{
    uint64_t now = __atomic_add_fetch(&period, 1, __ATOMIC_SEQ_CST);
    for (int i = 0; i < READERS; i++)
        for (;;) {
            uint64_t inside = __atomic_load_n(&readers[i].inside, __ATOMIC_SEQ_CST);
            if (!inside || inside >= now)
                break;
            sched_yield();
        }
}

/* Until every reader has come out once more. */
static void let_them_read(void)
{
    for (int i = 0; i < READERS; i++) {
        uint64_t before = __atomic_load_n(&readers[i].visits, __ATOMIC_SEQ_CST);
        while (__atomic_load_n(&readers[i].visits, __ATOMIC_SEQ_CST) == before)
            sched_yield();
    }
}

/* The changes of a version to the first |n| rows. */
static void write_some(row_set *s, uint32_t mark, uint64_t version, uint64_t n, float value)
{
    const float v[] = {value, value};
    slu_error err = SLU_ERROR_INIT;
    for (uint64_t i = 0; i < n; i++) {
        int what = touched(version, i), rc = 0;
        if (what)
            rc = what > 0 ? row_set_put(s, mark, nth_id(i), v, &err)
                          : row_set_delete(s, mark, nth_id(i), &err);
        if (rc < 0)
            ck_abort_msg("%s", err.message);
    }
}

START_TEST(test_readers_see_whole_versions)
{
    row_set *s = row_set_new(2);
    const uint64_t versions = (uint64_t)suite_share(250, 80);
    uint32_t mark = 1;
    for (int i = 0; i < READERS; i++) {
        readers[i].s = s;
        slu_rng_seed(&readers[i].rng, SEED + (uint64_t)i);
        ck_assert_int_eq(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]), 0);
    }
    for (uint64_t version = 1; version < versions; version++) {
        if (version % 4 == 0) { /* one that comes to nothing; the next begins before anybody has left */
            write_some(s, 3 - mark, version, ROWS, -1);
            row_set_undo(s);
        }
        for (int i = 0; i < 40; i++) /* rows that are replaced before they can be seen, under their eyes */
            write_some(s, 3 - mark, version, HOT, -2);
        write_some(s, 3 - mark, version, ROWS, (float)version);
        mark = 3 - mark;
        __atomic_store_n(&current, version << 2 | mark, __ATOMIC_SEQ_CST);
        let_them_read(); /* of both versions */
        grace();
        row_set_settle(s);
    }
    __atomic_store_n(&stop, true, __ATOMIC_SEQ_CST);
    for (int i = 0; i < READERS; i++)
        ck_assert_int_eq(pthread_join(readers[i].thread, NULL), 0);
    row_set_free(s);
}
END_TEST

int main(void)
{
    return run_suite("row_set",
                     (const TTest *[]){test_ids_collide_as_meant, test_nothing_is_there_and_nothing_asked,
                                       test_random_histories, test_memory_is_used_again,
                                       test_readers_see_whole_versions, NULL});
}
