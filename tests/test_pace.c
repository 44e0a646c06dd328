#include "base/rng.h"
#include "tests/suite.h"
#include "trainer/pace.h"
#include <stdio.h>

#define SKEW 100
#define MAX  12

static slu_pace_partition at(int64_t newest, bool backlog)
{
    return (slu_pace_partition){.newest_us = newest, .backlog = backlog};
}

static uint32_t decide(const slu_pace_partition *parts, uint32_t n, int64_t unknown, bool *pause)
{
    return slu_pace_decide(parts, n, SKEW, unknown, pause);
}

START_TEST(test_the_one_ahead_waits)
{
    bool pause[3];
    slu_pace_partition p[] = {at(1000, true), at(1100, true), at(1101, true)};
    ck_assert_uint_eq(decide(p, 3, INT64_MIN, pause), 1);
    ck_assert(!pause[0] && !pause[1] && pause[2]);
    /* It goes on at half of the distance, not at once. */
    p[2].paused = true;
    p[0].newest_us = p[1].newest_us = 1050;
    decide(p, 3, INT64_MIN, pause);
    ck_assert(pause[2]);
    p[0].newest_us = p[1].newest_us = 1051;
    ck_assert_uint_eq(decide(p, 3, INT64_MIN, pause), 0);
    /* One at its living end is ahead as well. */
    p[2] = at(9000, false);
    decide(p, 3, INT64_MIN, pause);
    ck_assert(pause[2]);
}
END_TEST

START_TEST(test_who_holds_nobody)
{
    bool pause[3];
    slu_pace_partition ended[] = {at(1000, false), at(9000, true)};
    ck_assert_uint_eq(decide(ended, 2, INT64_MIN, pause), 0);
    slu_pace_partition wrong[] = {at(1000, true), at(9000, true), at(9001, true)};
    wrong[0].behind = true;
    ck_assert_uint_eq(decide(wrong, 3, INT64_MIN, pause), 0);
    /* When all are behind they are old events produced anew, and wait for each other. */
    wrong[1].behind = wrong[2].behind = true;
    ck_assert_uint_eq(decide(wrong, 3, INT64_MIN, pause), 2);
    ck_assert(!pause[0]);
    ck_assert_uint_eq(slu_pace_decide(wrong, 3, 0, INT64_MIN, pause), 0); /* off */
}
END_TEST

START_TEST(test_one_that_has_yet_to_deliver)
{
    bool pause[2];
    slu_pace_partition p[] = {at(INT64_MIN, true), at(1101, true)};
    ck_assert_uint_eq(decide(p, 2, INT64_MIN, pause), 0); /* nobody knows where it stands */
    ck_assert_uint_eq(decide(p, 2, 1000, pause), 1);
    ck_assert(pause[1]);
    p[0].backlog = false;
    p[1].paused = true;
    ck_assert_uint_eq(decide(p, 2, 1000, pause), 0);
}
END_TEST

START_TEST(test_when_only_paused_ones_are_left_the_slowest_goes_on)
{
    bool pause[3];
    slu_pace_partition p[] = {at(5000, false), at(9000, false), at(1000, false)};
    p[0].paused = p[1].paused = true;
    ck_assert_uint_eq(decide(p, 3, INT64_MIN, pause), 1);
    ck_assert(!pause[0] && pause[1]);
}
END_TEST

static int64_t random_time(slu_rng *rng)
{
    static const int64_t odd[] = {INT64_MIN, -SLU_MAX_TIME_US, SLU_MAX_TIME_US, 0};
    return slu_rng_below(rng, 8) ? (int64_t)slu_rng_below(rng, 6 * SKEW) : odd[slu_rng_below(rng, 4)];
}

START_TEST(test_any_partitions_keep_the_rules)
{
    const uint64_t seed = 20261125;
    slu_rng rng;
    slu_rng_seed(&rng, seed);
    for (int round = 0; round < 200000; round++) {
        slu_pace_partition p[MAX];
        bool pause[MAX];
        uint32_t n = 1 + (uint32_t)slu_rng_below(&rng, MAX), paused = 0;
        for (uint32_t i = 0; i < n; i++)
            p[i] = (slu_pace_partition){.newest_us = random_time(&rng),
                                        .backlog = slu_rng_below(&rng, 2),
                                        .behind = slu_rng_below(&rng, 4) == 0,
                                        .paused = slu_rng_below(&rng, 3) == 0};
        int64_t unknown = slu_rng_below(&rng, 2) ? INT64_MIN : random_time(&rng);
        uint32_t told = slu_pace_decide(p, n, SKEW, unknown, pause);
        bool sound = false;
        for (uint32_t i = 0; i < n; i++) {
            paused += pause[i];
            sound = sound || (p[i].backlog && !p[i].behind && p[i].newest_us != INT64_MIN);
        }
        ck_assert_uint_eq(told, paused);
        /* Whoever is paused waits for one that is not, which has something to read. */
        for (uint32_t i = 0; i < n; i++) {
            bool reason = false;
            for (uint32_t j = 0; j < n && !reason; j++) {
                int64_t stands = p[j].newest_us == INT64_MIN ? unknown : p[j].newest_us;
                reason = !pause[j] && (p[j].backlog || p[j].paused) && !(sound && p[j].behind) &&
                         stands != INT64_MIN && p[i].newest_us != INT64_MIN &&
                         p[i].newest_us - SKEW / 2 > stands;
            }
            ck_assert_msg(!pause[i] || reason, "seed %llu round %d: %u waits for nobody",
                          (unsigned long long)seed, round, i);
        }
    }
}
END_TEST

/* A partition of the simulation: events of rising times, and a broker that delivers by chance. */
typedef struct sim {
    int64_t next_us;
    uint32_t left;
    int64_t step;
} sim;

/* Partitions with backlogs of any length, from any time on, are read to their ends in a bounded number of
 * turns, and none is ever further ahead of the slowest that has more to read than allowed. */
static void read_all(uint64_t seed)
{
    slu_rng rng;
    slu_rng_seed(&rng, seed);
    sim s[MAX];
    slu_pace_partition p[MAX];
    bool pause[MAX];
    uint32_t n = 2 + (uint32_t)slu_rng_below(&rng, MAX - 1);
    uint64_t left = 0, turns = 0;
    for (uint32_t i = 0; i < n; i++) {
        s[i] = (sim){.next_us = (int64_t)slu_rng_below(&rng, 20 * SKEW),
                     .left = (uint32_t)slu_rng_below(&rng, 300),
                     .step = 1 + (int64_t)slu_rng_below(&rng, SKEW / 4)};
        p[i] = at(s[i].next_us - 1, s[i].left > 0);
        left += s[i].left;
    }
    for (uint64_t limit = 400 * left + 1000; left; turns++) {
        ck_assert_msg(turns < limit, "seed %llu: it stands still", (unsigned long long)seed);
        decide(p, n, INT64_MIN, pause);
        for (uint32_t i = 0; i < n; i++) {
            p[i].paused = pause[i];
            p[i].backlog = !pause[i] && s[i].left;
        }
        uint32_t i = (uint32_t)slu_rng_below(&rng, n);
        if (pause[i] || !s[i].left)
            continue;
        p[i].newest_us = s[i].next_us;
        s[i].next_us += 1 + (int64_t)slu_rng_below(&rng, (uint64_t)s[i].step);
        s[i].left--;
        left--;
        for (uint32_t j = 0; j < n; j++)
            ck_assert_msg(!s[j].left || p[i].newest_us <= p[j].newest_us + SKEW + s[i].step,
                          "seed %llu: %u read at %lld while %u stands at %lld", (unsigned long long)seed, i,
                          (long long)p[i].newest_us, j, (long long)p[j].newest_us);
    }
}

START_TEST(test_reading_ends_and_stays_together)
{
    for (uint64_t seed = 1; seed <= 60; seed++)
        read_all(seed);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_the_one_ahead_waits,
                                  test_who_holds_nobody,
                                  test_one_that_has_yet_to_deliver,
                                  test_when_only_paused_ones_are_left_the_slowest_goes_on,
                                  test_any_partitions_keep_the_rules,
                                  test_reading_ends_and_stays_together,
                                  NULL};
    return run_suite("pace", tests);
}
