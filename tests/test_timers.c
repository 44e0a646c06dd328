/* Timers over a store in memory against a sorted list: every pop gives the earliest, whatever was committed,
 * lost, read back or let go of in between. */
#include "base/rng.h"
#include "store/state.h"
#include "store/timers.h"
#include "tests/memory_store.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

#define SEED 20261126u
/* The least that timers.c keeps in memory: with memory_bytes 0. */
enum { KEEP = 256, MAX = 1 << 16 };

typedef struct entry {
    int64_t deadline;
    uint64_t sequence;
    slu_hash128 key;
} entry;

/* What should be there, in order. */
typedef struct list {
    entry *v; /* (MAX) */
    size_t n;
} list;

static list list_new(void)
{
    list l = {malloc(MAX * sizeof *l.v), 0};
    ck_assert_ptr_nonnull(l.v);
    return l;
}

static bool before(const entry *a, const entry *b)
{
    return a->deadline != b->deadline ? a->deadline < b->deadline : a->sequence < b->sequence;
}

static void list_add(list *l, entry e)
{
    size_t low = 0, high = l->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        if (before(&l->v[mid], &e))
            low = mid + 1;
        else
            high = mid;
    }
    if (l->n == MAX)
        ck_abort_msg("too many timers for the test");
    memmove(&l->v[low + 1], &l->v[low], (l->n - low) * sizeof e);
    l->v[low] = e;
    l->n++;
}

static void list_pop(list *l)
{
    l->n--;
    memmove(&l->v[0], &l->v[1], l->n * sizeof *l->v);
}

static void list_copy(list *to, const list *from)
{
    memcpy(to->v, from->v, from->n * sizeof *from->v);
    to->n = from->n;
}

typedef struct bench {
    slu_timers_config config;
    slu_store *store;
    slu_timers *t;
    slu_commit *c;
    list now, flushed, stored; /* all timers; those of the flush on its way; those of the last commit */
    uint64_t next_sequence;
    slu_rng rng;
} bench;

static void open_timers(bench *b)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_timers_open(b->store, &b->config, &b->t, &err), "%s", err.message);
}

static void set_up(bench *b, bool keys)
{
    const slu_store_config config = {.path = "memory", .create = true, .schema_text = "s"};
    *b = (bench){.config = {.family = keys ? SLU_FAMILY_TIMERS : SLU_FAMILY_EXPIRY,
                            .count_name = "timers",
                            .keys = keys},
                 .now = list_new(),
                 .flushed = list_new(),
                 .stored = list_new()};
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_store_open(&config, &b->store, &err), "%s", err.message);
    b->c = slu_commit_begin(b->store);
    open_timers(b);
}

static void tear_down(bench *b)
{
    slu_timers_close(b->t);
    slu_store_close(b->store);
    memory_store_clear();
    free(b->now.v);
    free(b->flushed.v);
    free(b->stored.v);
}

static void add(bench *b, int64_t deadline, uint64_t sequence)
{
    entry e = {deadline, sequence, {0, 0}};
    if (b->config.keys)
        e.key = (slu_hash128){slu_mix64(sequence), slu_mix64((uint64_t)deadline)};
    /* One that has no key in the store has none in memory either way. */
    slu_timers_add(b->t, deadline, sequence, e.key);
    list_add(&b->now, e);
}

static void add_new(bench *b, int64_t deadline)
{
    /* Later ones do not sort behind earlier ones of the same deadline. */
    add(b, deadline, slu_mix64(b->next_sequence++));
}

/* Pops at |now| and compares; false when nothing was due. */
static bool pop(bench *b, int64_t now, int at)
{
    const entry *want = b->now.n && now >= 0 && b->now.v[0].deadline <= now ? &b->now.v[0] : NULL;
    entry got = {-1, 0, {0, 0}};
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_timers_pop(b->t, now, &got.deadline, &got.sequence, &got.key, &err);
    if (rc != (want ? 0 : SLU_ENOTFOUND))
        ck_abort_msg("action %d: pop gives %d %s, %s was due", at, rc, err.message, want ? "one" : "none");
    if (!want)
        return false;
    if (got.deadline != want->deadline || got.sequence != want->sequence || got.key.lo != want->key.lo ||
        got.key.hi != want->key.hi)
        ck_abort_msg("action %d: pop gives (%lld, %llu) instead of (%lld, %llu)", at, (long long)got.deadline,
                     (unsigned long long)got.sequence, (long long)want->deadline,
                     (unsigned long long)want->sequence);
    list_pop(&b->now);
    return true;
}

static void check(bench *b, int at)
{
    int64_t next = b->now.n ? b->now.v[0].deadline : INT64_MAX;
    if (slu_timers_count(b->t) != b->now.n)
        ck_abort_msg("action %d: %llu timers instead of %zu", at, (unsigned long long)slu_timers_count(b->t),
                     b->now.n);
    if (slu_timers_next(b->t) != next)
        ck_abort_msg("action %d: the next is not at %lld", at, (long long)next);
}

static void flush(bench *b)
{
    slu_timers_flush(b->t, b->c);
    list_copy(&b->flushed, &b->now);
}

static void write_commit(bench *b)
{
    if (slu_commit_write(b->c, NULL))
        ck_abort_msg("a commit failed");
    list_copy(&b->stored, &b->flushed);
}

static void commit(bench *b)
{
    flush(b);
    write_commit(b);
    slu_timers_committed(b->t);
}

static void lose_commit(bench *b)
{
    slu_commit_abandon(b->c);
    b->c = slu_commit_begin(b->store);
}

static void restart(bench *b)
{
    lose_commit(b);
    slu_timers_close(b->t);
    open_timers(b);
    list_copy(&b->now, &b->stored);
}

/* ---- random ---- */

/* Most are near, so that many share a deadline; a few are as far as can be. */
static int64_t some_deadline(bench *b)
{
    uint64_t what = slu_rng_below(&b->rng, 50);
    if (what == 0)
        return slu_rng_below(&b->rng, 2) ? INT64_MAX : 0;
    return (int64_t)slu_rng_below(&b->rng, what < 25 ? 40 : 4000);
}

static void some_pops(bench *b, int at)
{
    int64_t now = slu_rng_below(&b->rng, 3) ? some_deadline(b) : INT64_MAX;
    uint64_t most = slu_rng_below(&b->rng, slu_rng_below(&b->rng, 10) ? 30 : 900);
    entry last = {.deadline = -1};
    for (uint64_t i = 0; i < most; i++) {
        if (b->now.n)
            last = b->now.v[0];
        if (!pop(b, now, at))
            return;
    }
    if (last.deadline >= 0 && slu_rng_below(&b->rng, 3) == 0)
        add(b, last.deadline, last.sequence); /* what has gone may come again */
}

static void some_adds(bench *b)
{
    uint64_t n = slu_rng_below(&b->rng, slu_rng_below(&b->rng, 10) ? 40 : 1500);
    int64_t all = slu_rng_below(&b->rng, 4) ? -1 : some_deadline(b);
    while (n-- && b->now.n < MAX / 16)
        add_new(b, all >= 0 ? all : some_deadline(b));
}

typedef enum flight { NONE, FLUSHED, WRITTEN } flight;

static void random_history(bool keys)
{
    bench b;
    set_up(&b, keys);
    slu_rng_seed(&b.rng, SEED + keys);
    flight at = NONE;
    uint64_t popped = 0;
    const int actions = suite_share(6000, 1500);
    for (int i = 0; i < actions; i++) {
        uint64_t what = slu_rng_below(&b.rng, 24), had = b.now.n;
        if (what < 6) {
            some_adds(&b);
        } else if (what < 13) {
            some_pops(&b, i);
            popped += had - b.now.n;
        } else if (what < 16 && at == NONE) {
            flush(&b);
            at = FLUSHED;
        } else if (what < 19 && at == FLUSHED) {
            write_commit(&b);
            at = WRITTEN;
        } else if (what < 22 && at == WRITTEN) {
            slu_timers_committed(b.t);
            at = NONE;
        } else if (what == 22 && at == FLUSHED) {
            lose_commit(&b);
            at = NONE;
        } else if (what == 23 && slu_rng_below(&b.rng, 8) == 0) {
            restart(&b);
            at = NONE;
        }
        check(&b, i);
    }
    ck_assert_uint_gt(popped, (uint64_t)actions);
    while (pop(&b, INT64_MAX, actions))
        continue;
    check(&b, actions);
    if (at == NONE)
        commit(&b);
    tear_down(&b);
}

START_TEST(test_against_a_sorted_list)
{
    printf("seed %u\n", SEED);
    random_history(true);
    random_history(false);
}
END_TEST

/* ---- by hand ---- */

/* Nothing but the count is written for what came and went between two commits, and all bytes are as the
 * header says. */
START_TEST(test_what_is_written)
{
    bench b;
    set_up(&b, true);
    for (int i = 0; i < 100; i++)
        add_new(&b, i);
    while (pop(&b, INT64_MAX, 0))
        continue;
    commit(&b);
    ck_assert_uint_eq(memory_store_count(), 1);
    slu_timers_add(b.t, 0x0102030405060708, 0x1112131415161718,
                   (slu_hash128){.hi = 0x2122232425262728, .lo = 0x3132333435363738});
    flush(&b);
    write_commit(&b);
    ck_assert_uint_eq(memory_store_count(), 2);
    const memory_entry *e = memory_store_at(1);
    ck_assert_int_eq(e->family, SLU_FAMILY_TIMERS);
    static const uint8_t key[] = {1, 2, 3, 4, 5, 6, 7, 8, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18},
                         value[] = {0x21, 0x22, 0x23, 0x24, 0x25, 0x26, 0x27, 0x28,
                                    0x31, 0x32, 0x33, 0x34, 0x35, 0x36, 0x37, 0x38};
    ck_assert_uint_eq(e->key_len, sizeof key);
    ck_assert_uint_eq(e->value_len, sizeof value);
    ck_assert_mem_eq(e->key, key, sizeof key);
    ck_assert_mem_eq(e->value, value, sizeof value);
    uint8_t made[SLU_TIMER_KEY_BYTES];
    slu_timer_key(made, 0x0102030405060708, 0x1112131415161718);
    ck_assert_mem_eq(made, key, sizeof key);
    tear_down(&b);

    set_up(&b, false);
    slu_timers_add(b.t, 5, 6, (slu_hash128){7, 8});
    flush(&b);
    write_commit(&b);
    ck_assert_uint_eq(memory_store_at(1)->value_len, 0);
    tear_down(&b);
}
END_TEST

/* However many there are, once they are committed only about twice as many as are kept stay in memory. */
START_TEST(test_memory_is_bounded)
{
    bench b;
    set_up(&b, true);
    for (int i = 0; i < 20 * KEEP; i++)
        add_new(&b, (i * 7919) % 5000);
    ck_assert_uint_eq(slu_timers_in_memory(b.t), 20 * KEEP); /* nobody else has them */
    commit(&b);
    ck_assert_uint_le(slu_timers_in_memory(b.t), 2 * KEEP);
    for (int i = 0; i < 20 * KEEP; i++) {
        pop(&b, INT64_MAX, i);
        ck_assert_uint_le(slu_timers_in_memory(b.t), 2 * KEEP + 1);
    }
    restart(&b);
    ck_assert_uint_eq(slu_timers_in_memory(b.t), 0);
    check(&b, 0); /* asks for the next */
    ck_assert_uint_eq(slu_timers_in_memory(b.t), KEEP);
    tear_down(&b);
}
END_TEST

/* A later one is popped, then earlier ones fill the memory: what is let go of must not bring it back out of
 * the store, which has it until the next commit. */
START_TEST(test_popped_does_not_come_back)
{
    bench b;
    set_up(&b, true);
    for (int i = 0; i < 4; i++)
        add_new(&b, 1000 + i);
    commit(&b);
    pop(&b, INT64_MAX, 0);
    for (int i = 0; i < 4 * KEEP; i++)
        add_new(&b, i % 900);
    flush(&b); /* on its way: the store still has it */
    for (int i = 0; i < KEEP; i++)
        add_new(&b, i % 900);
    while (pop(&b, INT64_MAX, 1))
        check(&b, 1);
    write_commit(&b);
    slu_timers_committed(b.t);
    check(&b, 2);

    /* Until the commit all stay in memory for its sake, behind it they go. */
    for (int i = 0; i < 4; i++)
        add_new(&b, 1000 + i);
    commit(&b);
    pop(&b, INT64_MAX, 3);
    for (int i = 0; i < 4 * KEEP; i++)
        add_new(&b, i % 900);
    ck_assert_uint_ge(slu_timers_in_memory(b.t), 4 * KEEP);
    commit(&b);
    add_new(&b, 1);
    ck_assert_uint_le(slu_timers_in_memory(b.t), KEEP + 1);
    tear_down(&b);
}
END_TEST

/* ---- failures ---- */

/* A disk that fails once loses nothing: the same call again gives what it should have given. */
START_TEST(test_a_disk_that_fails_once)
{
    bench b;
    set_up(&b, true);
    for (int i = 0; i < 3 * KEEP; i++)
        add_new(&b, 1 + i);
    commit(&b);
    restart(&b);
    int64_t deadline;
    uint64_t sequence;
    slu_hash128 key;
    int failures = 0;
    while (b.now.n) {
        slu_error err = SLU_ERROR_INIT;
        memory_store_fail(1);
        /* From memory it needs no disk. */
        int64_t next = slu_timers_next(b.t), want = b.now.v[0].deadline;
        if (next != want) {
            ck_assert_int_eq(next, 0);
            memory_store_fail(1);
            ck_assert_int_eq(slu_timers_pop(b.t, INT64_MAX, &deadline, &sequence, &key, &err), SLU_EIO);
            ck_assert_int_eq(err.code, SLU_EIO);
            failures++;
        }
        memory_store_fail(0);
        pop(&b, INT64_MAX, failures);
    }
    ck_assert_int_eq(failures, 3); /* a stretch is KEEP of them */
    memory_store_fail(1);
    slu_error err = SLU_ERROR_INIT;
    slu_timers *t;
    ck_assert_int_eq(slu_timers_open(b.store, &b.config, &t, &err), SLU_EIO);
    ck_assert_ptr_null(t);
    tear_down(&b);
}
END_TEST

static void expect_corrupt(bench *b, const char *part)
{
    int64_t deadline;
    uint64_t sequence;
    slu_hash128 key;
    slu_error err = SLU_ERROR_INIT;
    restart(b);
    ck_assert_int_eq(slu_timers_next(b->t), 0); /* so that pop is called and tells */
    ck_assert_int_eq(slu_timers_pop(b->t, 0, &deadline, &sequence, &key, &err), SLU_ECORRUPT);
    ck_assert_msg(strstr(err.message, part) && strstr(err.message, "family timers"), "%s", err.message);
}

START_TEST(test_damage_is_noticed)
{
    uint8_t at[SLU_TIMER_KEY_BYTES + 1] = {1};
    const struct {
        size_t key_len, value_len;
    } bad[] = {{SLU_TIMER_KEY_BYTES - 1, 16},
               {SLU_TIMER_KEY_BYTES + 1, 16},
               {SLU_TIMER_KEY_BYTES, 15},
               {SLU_TIMER_KEY_BYTES, 17},
               {SLU_TIMER_KEY_BYTES, 0}};
    bench b;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint8_t value[17] = {0};
        set_up(&b, true);
        add_new(&b, 5);
        commit(&b);
        memory_store_put(SLU_FAMILY_TIMERS, at, bad[i].key_len, value, bad[i].value_len);
        expect_corrupt(&b, "cannot be read");
        tear_down(&b);
    }
    set_up(&b, true);
    for (int i = 0; i < 3; i++)
        add(&b, 7, (uint64_t)i);
    commit(&b);
    for (uint64_t i = 0; i < 3; i++) {
        slu_timer_key(at, 7, i);
        memory_store_delete(SLU_FAMILY_TIMERS, at, SLU_TIMER_KEY_BYTES);
    }
    expect_corrupt(&b, "3 timers");
    tear_down(&b);
}
END_TEST

int main(void)
{
    return run_suite("timers", (const TTest *[]){test_against_a_sorted_list, test_what_is_written,
                                                 test_memory_is_bounded, test_popped_does_not_come_back,
                                                 test_a_disk_that_fails_once, test_damage_is_noticed, NULL});
}
