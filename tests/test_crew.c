/* Pieces of members' runs: each done once, by whoever; sleepers are woken, those who never sleep are not
 * needed. */
#include "base/rng.h"
#include "tests/score_crew.h"
#include "tests/suite.h"
#include <stdio.h>
#include <stdlib.h>

#define SEED 31u
enum { MEMBERS = 4, MOST = 40 };

typedef struct job {
    uint32_t n;
    _Atomic uint32_t times[MOST];
    uint64_t wrote[MOST]; /* plain: the end of the run must make it visible */
    uint32_t owner;
    _Atomic uint32_t others; /* pieces that others did */
} job;

static void piece(void *ctx, uint32_t who, uint32_t i)
{
    job *j = ctx;
    ck_assert_uint_lt(i, j->n);
    ck_assert_uint_lt(who, MEMBERS);
    j->wrote[i] = i * 7 + 1;
    atomic_fetch_add(&j->times[i], 1);
    atomic_fetch_add(&j->others, who != j->owner);
}

static uint32_t run_and_check(slu_crew *c, uint32_t member, uint32_t n)
{
    job j = {.n = n, .owner = member};
    slu_crew_run(c, member, piece, &j, n);
    for (uint32_t i = 0; i < n; i++) {
        ck_assert_uint_eq(atomic_load(&j.times[i]), 1);
        ck_assert_uint_eq(j.wrote[i], i * 7 + 1);
    }
    return atomic_load(&j.others);
}

/* Nobody else is there: the owner does it all, and nobody is written to. */
START_TEST(test_alone)
{
    slu_crew *c = slu_crew_new(MEMBERS);
    ck_assert_uint_eq(slu_crew_idle(c), 0);
    ck_assert(!slu_crew_help(c, 1));
    for (uint32_t n = 1; n < MOST; n++)
        ck_assert_uint_eq(run_and_check(c, 2, n), 0);
    slu_crew_free(c);
    slu_crew_free(NULL);
}
END_TEST

/* The states of a member, one by one. */
static void look_from_inside(void *ctx, uint32_t who, uint32_t i)
{
    slu_crew *c = ctx;
    if (i > 0 || who != 0)
        return;
    ck_assert(!slu_crew_sleep(c, 1)); /* pieces 1 and 2 are to be had */
    ck_assert_uint_eq(slu_crew_idle(c), 0);
    ck_assert(slu_crew_help(c, 1));
    ck_assert(slu_crew_help(c, 2));
    ck_assert(!slu_crew_help(c, 1));
    ck_assert(!slu_crew_help(c, 0)); /* nobody helps himself */
    ck_assert(slu_crew_sleep(c, 1));
    ck_assert_uint_eq(slu_crew_idle(c), 1);
    slu_crew_awake(c, 1);
    ck_assert_uint_eq(slu_crew_idle(c), 0);
}

START_TEST(test_states)
{
    slu_crew *c = slu_crew_new(3);
    slu_crew_run(c, 0, look_from_inside, c, 3);
    ck_assert(slu_crew_sleep(c, 2));
    ck_assert_uint_eq(slu_crew_idle(c), 1);
    slu_crew_awake(c, 2);
    slu_crew_awake(c, 2); /* was awake */
    ck_assert_uint_eq(slu_crew_idle(c), 0);
    slu_crew_free(c);
}
END_TEST

/* As many sleepers are woken as there is work for, each once. */
static void nothing(void *ctx, uint32_t who, uint32_t i)
{
    (void)ctx, (void)who, (void)i;
}

START_TEST(test_wakes_as_many_as_it_needs)
{
    slu_crew *c = slu_crew_new(MEMBERS);
    int wake[MEMBERS];
    for (uint32_t i = 1; i < MEMBERS; i++) {
        wake[i] = eventfd(0, EFD_NONBLOCK);
        slu_crew_enlist(c, i, wake[i]);
        ck_assert(slu_crew_sleep(c, i));
    }
    ck_assert_uint_eq(slu_crew_idle(c), 3);
    for (uint32_t expected = 3, n = 2; expected; expected--) { /* two pieces: one hand more */
        slu_crew_run(c, 0, nothing, NULL, n);
        ck_assert_uint_eq(slu_crew_idle(c), expected - 1);
    }
    slu_crew_run(c, 0, nothing, NULL, 2); /* nobody sleeps */
    for (uint32_t i = 1; i < MEMBERS; i++) {
        uint64_t times = 0;
        ck_assert_int_eq(read(wake[i], &times, sizeof times), sizeof times);
        ck_assert_uint_eq(times, 1);
        slu_crew_awake(c, i); /* says so, too, but counts no more */
        close(wake[i]);
    }
    ck_assert_uint_eq(slu_crew_idle(c), 0);
    slu_crew_free(c);
}
END_TEST

/* One piece per round: neither ends before two threads are inside. */
static void meet(void *ctx, uint32_t who, uint32_t i)
{
    _Atomic uint32_t *here = ctx;
    (void)who, (void)i;
    atomic_fetch_add(here, 1);
    while (atomic_load(here) < 2)
        slu_pieces_breathe();
}

START_TEST(test_a_sleeper_comes)
{
    helper h;
    helper_start(&h);
    for (int round = 0; round < 200; round++) {
        _Atomic uint32_t here = 0;
        helper_settle(&h);
        slu_crew_run(h.crew, 1, meet, &here, 2);
        ck_assert_uint_eq(atomic_load(&here), 2);
    }
    helper_stop(&h);
    ck_assert_uint_eq(h.did, 200);
}
END_TEST

/* Everybody has runs of his own, helps, and sleeps when there is nothing. */
typedef struct life {
    slu_crew *crew;
    uint32_t member;
    int wake;
    _Atomic uint32_t *done; /* members that have no more runs */
    uint64_t others;
} life;

static void *live(void *arg)
{
    life *l = arg;
    slu_rng rng;
    uint64_t count;
    slu_rng_seed(&rng, SEED + l->member);
    for (int round = 0; round < suite_share(3000, 600); round++) {
        l->others += run_and_check(l->crew, l->member, 1 + (uint32_t)slu_rng_below(&rng, 12));
        for (uint64_t k = slu_rng_below(&rng, 4); k > 0; k--)
            slu_crew_help(l->crew, l->member);
        if (slu_rng_below(&rng, 8) == 0 && slu_crew_sleep(l->crew, l->member)) {
            poll(&(struct pollfd){.fd = l->wake, .events = POLLIN}, 1, 1);
            slu_crew_awake(l->crew, l->member);
        }
        (void)!read(l->wake, &count, sizeof count);
    }
    atomic_fetch_add(l->done, 1);
    while (atomic_load(l->done) < MEMBERS)
        slu_crew_help(l->crew, l->member);
    return NULL;
}

START_TEST(test_all_at_once)
{
    slu_crew *c = slu_crew_new(MEMBERS);
    life l[MEMBERS];
    pthread_t threads[MEMBERS];
    _Atomic uint32_t done = 0;
    uint64_t others = 0;
    for (uint32_t i = 0; i < MEMBERS; i++) {
        l[i] = (life){.crew = c, .member = i, .wake = eventfd(0, EFD_NONBLOCK), .done = &done};
        slu_crew_enlist(c, i, l[i].wake);
    }
    for (uint32_t i = 0; i < MEMBERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, live, &l[i]), 0);
    for (uint32_t i = 0; i < MEMBERS; i++) {
        pthread_join(threads[i], NULL);
        others += l[i].others;
        close(l[i].wake);
    }
    ck_assert_uint_eq(slu_crew_idle(c), 0);
    printf("%llu pieces were done by others\n", (unsigned long long)others);
    slu_crew_free(c);
}
END_TEST

int main(void)
{
    return run_suite("crew", (const TTest *const[]){test_alone, test_states, test_wakes_as_many_as_it_needs,
                                                    test_a_sleeper_comes, test_all_at_once, NULL});
}
