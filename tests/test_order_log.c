/* The log of orders over a store in memory: part of each commit, whole through commits that fail and
 * restarts, bounded, and it knows which version was learned under which configuration. */
#include "base/rng.h"
#include "store/state.h"
#include "tests/memory_store.h"
#include "tests/pipeline_sample.h"
#include "tests/suite.h"
#include "trainer/order_log.h"

#define SEED 20261126u

static const slu_partition parts[] = {{"events", 0}, {"events", 1}};

static slu_store *open_store(void)
{
    const slu_store_config config = {.path = "memory", .create = true, .schema_text = "s"};
    slu_store *s;
    OK(slu_store_open(&config, &s, err));
    return s;
}

static slu_order_log *open_log(slu_store *s, uint64_t keep, uint64_t config)
{
    slu_order_log *l;
    OK(slu_order_log_open(s, keep, config, &l, err));
    return l;
}

static void add(slu_order_log *l, int64_t offset)
{
    slu_record r = {.kind = SLU_RECORD_EVENT, .partition = (uint32_t)offset % 2, .offset = offset};
    slu_order_log_add(l, &r, &parts[r.partition]);
}

/* Records of 100 runs: a bit over 200 bytes. */
static void add_some(slu_order_log *l, uint64_t version)
{
    for (uint32_t i = 0; i < 100; i++)
        add(l, (int64_t)(version * 100 + i));
}

static void commit(slu_store *s, slu_order_log *l, uint64_t version)
{
    slu_commit *c = slu_commit_begin(s);
    add_some(l, version);
    OK(slu_order_log_flush(l, c, version, err));
    OK(slu_commit_write(c, err));
    slu_order_log_committed(l);
    slu_commit_abandon(c);
}

/* Offsets of the events in the order of |version|, at most |cap|; -1: there is none. */
static int offsets_of(slu_store *s, uint64_t version, int64_t *offsets, int cap)
{
    uint8_t key[8];
    slu_buf value = SLU_BUF_INIT;
    slu_error err = SLU_ERROR_INIT;
    slu_order_key(version, key);
    int n = 0, rc = slu_store_get(s, SLU_FAMILY_ORDER, key, sizeof key, &value, &err);
    ck_assert(rc == 0 || rc == SLU_ENOTFOUND);
    slu_order_reader *r = NULL;
    slu_order_run run;
    if (!rc)
        OK(slu_order_open(value.data, value.len, &r, err));
    while (r && slu_order_next(r, &run, &err) == 1)
        for (uint64_t i = 0; i < run.count && n < cap; i++)
            offsets[n++] = run.start + (int64_t)i;
    ck_assert_int_eq(err.code, 0);
    slu_order_close(r);
    slu_buf_free(&value);
    return rc ? -1 : n;
}

static bool has(slu_store *s, uint64_t version)
{
    return offsets_of(s, version, NULL, 0) >= 0;
}

START_TEST(test_keys)
{
    uint8_t key[9] = {0};
    slu_order_key(0x0102030405060708, key);
    ck_assert_mem_eq(key, "\1\2\3\4\5\6\7\10", 8);
    ck_assert_uint_eq(slu_order_key_parse(key, 8), 0x0102030405060708);
    ck_assert_uint_eq(slu_order_key_parse(key, 7), 0);
    ck_assert_uint_eq(slu_order_key_parse(key, 9), 0);
    ck_assert_uint_eq(slu_order_key_parse(NULL, 0), 0);
}
END_TEST

/* ---- what a commit has ---- */

/* Each version has what was added since the flush before it, also what came while its commit was on its way
 * or had to be written again. */
START_TEST(test_every_record_is_in_one_commit)
{
    slu_store *s = open_store();
    slu_order_log *l = open_log(s, 1 << 20, 7);
    slu_commit *c = slu_commit_begin(s);
    int64_t got[16];
    add(l, 10);
    add(l, 11);
    OK(slu_order_log_flush(l, c, 1, err));
    add(l, 12); /* of the next one */
    memory_store_fail(1);
    ck_assert_int_eq(slu_commit_write(c, NULL), SLU_EIO);
    add(l, 13);
    ck_assert_int_eq(offsets_of(s, 1, got, 16), -1);
    OK(slu_commit_write(c, err)); /* that very commit again */
    slu_order_log_committed(l);
    ck_assert_int_eq(offsets_of(s, 1, got, 16), 2);
    ck_assert(got[0] == 10 && got[1] == 11);
    OK(slu_order_log_flush(l, c, 2, err));
    OK(slu_commit_write(c, err));
    slu_order_log_committed(l);
    ck_assert_int_eq(offsets_of(s, 2, got, 16), 2);
    ck_assert(got[0] == 12 && got[1] == 13);
    OK(slu_order_log_flush(l, c, 3, err)); /* a commit without records is a version all the same */
    OK(slu_commit_write(c, err));
    ck_assert_int_eq(offsets_of(s, 3, got, 16), 0);
    add(l, 14); /* never committed: it comes again, perhaps otherwise */
    slu_order_log_close(l);
    l = open_log(s, 1 << 20, 7);
    add(l, 15);
    OK(slu_order_log_flush(l, c, 4, err));
    OK(slu_commit_write(c, err));
    ck_assert_int_eq(offsets_of(s, 4, got, 16), 1);
    ck_assert_int_eq(got[0], 15);
    slu_order_log_close(l);
    slu_store_close(s);
}
END_TEST

/* Off it writes nothing at all. */
START_TEST(test_off)
{
    slu_store *s = open_store();
    slu_order_log *l = open_log(s, 0, 7);
    for (uint64_t v = 1; v <= 3; v++)
        commit(s, l, v);
    ck_assert_uint_eq(memory_store_count(), 0);
    slu_order_log_close(l);
    slu_store_close(s);
}
END_TEST

/* ---- the bound ---- */

START_TEST(test_it_is_bounded)
{
    slu_store *s = open_store();
    slu_order_log *l = open_log(s, 4000, 7);
    char before[33], after[33];
    OK(slu_store_digest(s, SLU_MODEL_FAMILIES, before, err));
    for (uint64_t v = 1; v <= 5; v++)
        commit(s, l, v);
    ck_assert(has(s, 1) && has(s, 5));
    for (uint64_t v = 6; v <= 100; v++)
        commit(s, l, v);
    ck_assert(!has(s, 1) && !has(s, 80) && has(s, 95) && has(s, 100));
    OK(slu_store_digest(s, SLU_MODEL_FAMILIES, after, err));
    ck_assert_str_eq(before, after); /* it tells where commits fell: digests leave it out */
    slu_order_log_close(l);

    /* A smaller limit is reached over time; off keeps nothing. */
    l = open_log(s, 500, 7);
    commit(s, l, 101);
    ck_assert(!has(s, 99) && has(s, 101));
    slu_order_log_close(l);
    l = open_log(s, 0, 7);
    commit(s, l, 102);
    ck_assert(!has(s, 101) && !has(s, 102));
    slu_order_log_close(l);
    l = open_log(s, 1, 7); /* the newest stays in any case */
    commit(s, l, 103);
    ck_assert(has(s, 103));
    slu_order_log_close(l);
    slu_store_close(s);
}
END_TEST

static uint64_t stored_bytes(slu_store *s)
{
    uint64_t bytes = 0, told;
    for (size_t i = 0; i < memory_store_count(); i++)
        if (memory_store_at(i)->family == SLU_FAMILY_ORDER)
            bytes += memory_store_at(i)->value_len;
    OK(slu_state_get_u64(s, "~order.bytes", 0, &told, err));
    ck_assert_uint_eq(told, bytes);
    return bytes;
}

/* Through commits of any size, limits of any size and restarts: the bytes are counted right, the newest is
 * there, the oldest go first, and what is over the limit goes by 64 versions a commit. */
START_TEST(test_any_limits)
{
    printf("seed %u\n", SEED);
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    slu_store *s = open_store();
    uint64_t version = 0, keep = 1;
    slu_order_log *l = open_log(s, keep, 7);
    bool reached_it_at_once = false, took_several = false;
    for (int round = 0; round < 1500; round++) {
        if (slu_rng_below(&rng, 100) == 0) {
            slu_order_log_close(l);
            keep = 1 + (slu_rng_below(&rng, 2) ? slu_rng_below(&rng, 3000) : slu_rng_below(&rng, 100000));
            l = open_log(s, keep, 7);
        }
        size_t had = memory_store_count();
        for (uint64_t n = slu_rng_below(&rng, 100), at = slu_rng_below(&rng, 1000); n; n--)
            add(l, (int64_t)(at += slu_rng_below(&rng, 3)));
        slu_commit *c = slu_commit_begin(s);
        OK(slu_order_log_flush(l, c, ++version, err));
        OK(slu_commit_write(c, err));
        slu_order_log_committed(l);
        slu_commit_abandon(c);
        uint64_t oldest, bytes = stored_bytes(s);
        OK(slu_state_get_u64(s, "~order.oldest", 0, &oldest, err));
        ck_assert(has(s, version) && has(s, oldest));
        ck_assert(oldest == 1 || !has(s, oldest - 1));
        size_t dropped = had + 1 > memory_store_count() ? had + 1 - memory_store_count() : 0;
        if (round)
            ck_assert_uint_le(dropped, 64);
        ck_assert(bytes <= keep || oldest == version || dropped == 64);
        took_several |= dropped == 64;
        reached_it_at_once |= dropped > 1 && dropped < 64;
    }
    ck_assert(reached_it_at_once && took_several);
    slu_order_log_close(l);
    slu_store_close(s);
}
END_TEST

/* Exactly full is not too much, a byte less is. */
START_TEST(test_exactly_full)
{
    slu_store *s = open_store();
    slu_order_log *l = open_log(s, 1 << 20, 7);
    commit(s, l, 1);
    commit(s, l, 2);
    uint64_t bytes = stored_bytes(s);
    slu_commit *c = slu_commit_begin(s);
    OK(slu_order_log_flush(l, c, 3, err));
    OK(slu_commit_write(c, err));
    uint64_t empty = stored_bytes(s) - bytes; /* of a version without records */
    for (uint64_t less = 0; less < 2; less++) {
        slu_order_log_close(l);
        l = open_log(s, bytes + (2 + less) * empty - less, 7);
        OK(slu_order_log_flush(l, c, 4 + less, err));
        OK(slu_commit_write(c, err));
        ck_assert(has(s, 1) == !less && has(s, 2));
    }
    slu_order_log_close(l);
    slu_store_close(s);
}
END_TEST

/* ---- configurations ---- */

static uint64_t other_config(slu_store *s, uint64_t from, uint64_t until, uint64_t config, uint64_t *other)
{
    uint64_t version;
    OK(slu_order_other_config(s, from, until, config, &version, other, err));
    return version;
}

/* Versions 1, 2 under 7; 3, 4 under 8; 5 under 8 again after a restart; 6 under 7. */
START_TEST(test_knows_configurations)
{
    slu_store *s = open_store();
    static const uint64_t configs[] = {7, 8, 8, 7}, until[] = {2, 4, 5, 6};
    uint64_t version = 0, other;
    ck_assert_uint_eq(other_config(s, 1, 9, 7, &other), 0); /* of before configurations were noted */
    for (int i = 0; i < 4; i++) {
        slu_order_log *l = open_log(s, 1 << 20, configs[i]);
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
}
END_TEST

/* Random runs of versions under three configurations, against an array. */
START_TEST(test_any_configurations)
{
    enum { VERSIONS = 60 };
    uint64_t config_of[VERSIONS + 1] = {0}, version = 0, config = 0, other;
    printf("seed %u\n", SEED);
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    slu_store *s = open_store();
    slu_order_log *l = NULL;
    while (version < VERSIONS) {
        if (!l || slu_rng_below(&rng, 4) == 0) {
            slu_order_log_close(l);
            config = slu_rng_below(&rng, 3);
            l = open_log(s, 1 << 20, config);
        }
        commit(s, l, ++version);
        config_of[version] = config;
    }
    slu_order_log_close(l);
    for (uint64_t from = 1; from <= VERSIONS; from++)
        for (uint64_t until = from; until <= VERSIONS; until++)
            for (config = 0; config < 3; config++) {
                uint64_t first = from;
                while (first <= until && config_of[first] == config)
                    first++;
                uint64_t got = other_config(s, from, until, config, &other);
                if (got != (first <= until ? first : 0) || (got && other != config_of[got]))
                    ck_abort_msg("from %llu until %llu under %llu: %llu", (unsigned long long)from,
                                 (unsigned long long)until, (unsigned long long)config,
                                 (unsigned long long)got);
            }
    slu_store_close(s);
}
END_TEST

/* A commit that never came about has noted nothing, so the next one does. */
START_TEST(test_a_lost_commit_notes_nothing)
{
    slu_store *s = open_store();
    slu_order_log *l = open_log(s, 1 << 20, 7);
    uint64_t other;
    commit(s, l, 1);
    slu_order_log_close(l);
    l = open_log(s, 1 << 20, 8);
    slu_commit *c = slu_commit_begin(s);
    OK(slu_order_log_flush(l, c, 2, err));
    slu_commit_abandon(c);
    commit(s, l, 2);
    commit(s, l, 3);
    slu_order_log_close(l);
    ck_assert_uint_eq(other_config(s, 1, 3, 7, &other), 2);
    ck_assert_uint_eq(other, 8);
    ck_assert_uint_eq(memory_store_count(), 3 + 2 + 2); /* versions, notes, bytes and oldest */
    slu_store_close(s);
}
END_TEST

/* ---- failures ---- */

START_TEST(test_failures_are_told)
{
    slu_store *s = open_store();
    slu_error err = SLU_ERROR_INIT;
    slu_order_log *l = open_log(s, 400, 7);
    for (uint64_t v = 1; v <= 3; v++)
        commit(s, l, v);
    slu_commit *c = slu_commit_begin(s);
    add_some(l, 4);
    memory_store_fail(1); /* trimming reads how long the oldest is */
    ck_assert_int_eq(slu_order_log_flush(l, c, 4, &err), SLU_EIO);
    slu_order_log_close(l);
    for (unsigned nth = 1; nth <= 3; nth++) { /* bytes, oldest, configurations */
        slu_error_clear(&err);
        memory_store_fail(nth);
        ck_assert_int_eq(slu_order_log_open(s, 400, 7, &l, &err), SLU_EIO);
        ck_assert_ptr_null(l);
    }
    static const struct {
        const char *name;
        size_t len;
    } bad[] = {{"~config/00000000000000000002", 7}, {"~config/2", 8}};
    for (int i = 0; i < 2; i++) {
        slu_error_clear(&err);
        memory_store_put(SLU_FAMILY_META, bad[i].name, strlen(bad[i].name), "\7\0\0\0\0\0\0", bad[i].len);
        ck_assert_int_eq(slu_order_log_open(s, 400, 7, &l, &err), SLU_ECORRUPT);
        ck_assert_ptr_null(l);
        ck_assert_msg(strstr(err.message, "fingerprint is damaged"), "%s", err.message);
        memory_store_delete(SLU_FAMILY_META, bad[i].name, strlen(bad[i].name));
    }
    slu_order_log_close(open_log(s, 400, 7));
    slu_order_log_close(NULL);
    slu_store_close(s);
}
END_TEST

int main(void)
{
    return run_suite("order_log",
                     (const TTest *[]){test_keys, test_every_record_is_in_one_commit, test_off,
                                       test_it_is_bounded, test_exactly_full, test_any_limits,
                                       test_knows_configurations, test_any_configurations,
                                       test_a_lost_commit_notes_nothing, test_failures_are_told, NULL});
}
