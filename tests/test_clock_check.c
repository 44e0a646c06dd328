/* Times that can be believed and times that cannot, on both sides of every bound, and what is said about the
 * others. */
#include "base/clock.h"
#include "tests/suite.h"
#include "trainer/clock_check.h"
#include <string.h>

#define S   SLU_SECOND_US
#define DAY (86400 * S)
/* 2023-11-14T22:13:20Z */
#define ARRIVAL (1700000000 * S)

enum { CANARY = 0x5a };

static char message[SLU_CLOCK_TEXT + 64]; /* what lies behind stays as it was */

static void clear(void)
{
    memset(message, CANARY, sizeof message);
}

/* The message ends within its room. */
static void expect_text(const char *part)
{
    size_t n = strnlen(message, sizeof message);
    ck_assert_uint_lt(n, SLU_CLOCK_TEXT);
    for (size_t i = n + 1; i < sizeof message; i++)
        if (message[i] != CANARY)
            ck_abort_msg("something was written behind the end of the message");
    ck_assert_msg(strstr(message, part) != NULL, "no '%s' in: %s", part, message);
}

static void expect_no_text(void)
{
    for (size_t i = 0; i < sizeof message; i++)
        if (message[i] != CANARY)
            ck_abort_msg("a message of an event that is fine: %.100s", message);
}

static slu_dead_reason check(int64_t max_future, int64_t time, int64_t arrival)
{
    slu_options o = {.join = {.max_future_us = max_future}};
    slu_event e = {.time_us = time};
    clear();
    slu_dead_reason why = slu_clock_check(&o, &e, arrival, message);
    if (why == SLU_DEAD_NONE)
        expect_no_text();
    return why;
}

START_TEST(test_future)
{
    ck_assert_int_eq(check(60 * S, ARRIVAL - 300 * DAY, ARRIVAL),
                     SLU_DEAD_NONE); /* the past is late, not wrong */
    ck_assert_int_eq(check(60 * S, ARRIVAL + 60 * S, ARRIVAL), SLU_DEAD_NONE);
    ck_assert_int_eq(check(60 * S, ARRIVAL + 60 * S + 1, ARRIVAL), SLU_DEAD_FUTURE);
    expect_text("2023-11-14T22:14:20.000Z is 1m 0s ahead of its arrival at 2023-11-14T22:13:20.000Z");
    expect_text("join.max_future allows 1m");
    ck_assert_int_eq(check(1, ARRIVAL + 1, ARRIVAL), SLU_DEAD_NONE);
    ck_assert_int_eq(check(1, ARRIVAL + 2, ARRIVAL), SLU_DEAD_FUTURE);
    /* Not checked, and where arrival is not known. */
    ck_assert_int_eq(check(0, ARRIVAL + 5000 * DAY, ARRIVAL), SLU_DEAD_NONE);
    ck_assert_int_eq(check(60 * S, SLU_MAX_TIME_US, 0), SLU_DEAD_NONE);
    ck_assert_int_eq(check(60 * S, 1, 0), SLU_DEAD_NONE);
    ck_assert_int_eq(check(1, SLU_MAX_TIME_US, 1), SLU_DEAD_FUTURE);
    expect_text("9999-12-31T23:59:59.999Z");
    /* Nanoseconds. */
    ck_assert_int_eq(check(60 * S, ARRIVAL * 100, ARRIVAL), SLU_DEAD_FUTURE);
}
END_TEST

START_TEST(test_wrong_unit)
{
    const int64_t near = 400 * DAY; /* so far from its arrival a wrong unit still explains it */
    static const struct {
        int64_t times;
        const char *unit;
    } units[] = {{1000, "looks like milliseconds"}, {1000000, "looks like seconds"}};
    for (int u = 0; u < 2; u++) {
        const int64_t k = units[u].times, time = ARRIVAL / k;
        static const int64_t distances[] = {0, 1, S, DAY};
        for (size_t i = 0; i < sizeof distances / sizeof *distances; i++)
            for (int sign = -1; sign <= 1; sign += 2) {
                ck_assert_int_eq(check(60 * S, time, ARRIVAL + sign * distances[i]), SLU_DEAD_MALFORMED);
                expect_text(units[u].unit);
                expect_text("send microseconds since 1970");
            }
        ck_assert_int_eq(check(60 * S, time, ARRIVAL + near - 1), SLU_DEAD_MALFORMED);
        ck_assert_int_eq(check(60 * S, time, ARRIVAL + near), SLU_DEAD_NONE);
        ck_assert_int_eq(check(60 * S, time, ARRIVAL - near + 1), SLU_DEAD_MALFORMED);
        ck_assert_int_eq(check(60 * S, time, ARRIVAL - near), SLU_DEAD_NONE);
    }
    expect_no_text();
    ck_assert_int_eq(check(60 * S, 1700000000, ARRIVAL), SLU_DEAD_MALFORMED);
    expect_text("time_us is 1700000000, which is 1970-01-01T00:28:20.000Z in microseconds; it arrived at "
                "2023-11-14T22:13:20.000Z");
    /* From 1973 on times are what they say, however well another unit would fit. */
    const int64_t plausible = 100000000000000;
    ck_assert_int_eq(check(0, plausible, plausible * 1000), SLU_DEAD_NONE);
    ck_assert_int_eq(check(0, plausible - 1, plausible * 1000), SLU_DEAD_MALFORMED);
    ck_assert_int_eq(check(0, plausible / 1000, plausible * 1000), SLU_DEAD_NONE);
    ck_assert_int_eq(check(0, plausible / 1000 - 1, plausible * 1000), SLU_DEAD_MALFORMED);
    expect_text("looks like seconds");
}
END_TEST

/* How far away, as exact as a person wants it. */
START_TEST(test_spans)
{
    static const struct {
        int64_t us;
        const char *text;
    } spans[] = {{2, " 2e-06 s "},
                 {1500000, " 1.5 s "},
                 {59 * S, " 59 s "},
                 {60 * S, " 1m 0s "},
                 {3600 * S - 1, " 59m 59s "},
                 {3600 * S, " 1h 0m "},
                 {DAY - 1, " 23h 59m "},
                 {DAY, " 1d 0h "},
                 {3 * DAY + 4 * 3600 * S + 59 * 60 * S, " 3d 4h "}};
    for (size_t i = 0; i < sizeof spans / sizeof *spans; i++) {
        ck_assert_int_eq(check(1, ARRIVAL + spans[i].us, ARRIVAL), SLU_DEAD_FUTURE);
        expect_text(spans[i].text);
    }
}
END_TEST

static slu_dead_reason late(int64_t arrival, bool behind)
{
    slu_options o = {.join = {.max_behind_us = 3600 * S, .allowed_lateness_us = 5 * S}};
    slu_event e = {.time_us = ARRIVAL - DAY};
    slu_partition_time part = {.newest_us = ARRIVAL - DAY + S, .arrival_us = arrival, .behind = behind};
    clear();
    return slu_clock_late(&o, &e, arrival, ARRIVAL - 3600 * S, &part, message);
}

START_TEST(test_late)
{
    ck_assert_int_eq(late(ARRIVAL, true), SLU_DEAD_BEHIND);
    expect_text("event time 2023-11-13T22:13:20.000Z is 1d 0h older than its arrival at "
                "2023-11-14T22:13:20.000Z");
    expect_text("newest event is of 2023-11-13T22:13:21.000Z; join.max_behind allows 1h");
    expect_text("event time (2023-11-14T21:13:20.000Z) went on without it");
    ck_assert_int_eq(late(ARRIVAL, false), SLU_DEAD_LATE);
    expect_text("event time 2023-11-13T22:13:20.000Z is 23h 0m behind event time 2023-11-14T21:13:20.000Z");
    expect_text("join.allowed_lateness (5s) widens");
    ck_assert(!strstr(message, "clock"));
    ck_assert_int_eq(late(0, true), SLU_DEAD_LATE); /* without an arrival no clock can be blamed */
}
END_TEST

/* The longest texts that there can be. */
START_TEST(test_extremes)
{
    slu_options o = {.join = {.max_behind_us = INT64_MAX - 1, .allowed_lateness_us = INT64_MAX - 1}};
    slu_event e = {.time_us = 1};
    slu_partition_time part = {.newest_us = INT64_MIN, .behind = true};
    clear();
    ck_assert_int_eq(slu_clock_late(&o, &e, SLU_MAX_TIME_US, SLU_MAX_TIME_US, &part, message),
                     SLU_DEAD_BEHIND);
    expect_text("check the clock of the producers that write to this partition");
    part.behind = false;
    clear();
    ck_assert_int_eq(slu_clock_late(&o, &e, SLU_MAX_TIME_US, SLU_MAX_TIME_US, &part, message), SLU_DEAD_LATE);
    expect_text("widens them");
    ck_assert_int_eq(check(1, SLU_MAX_TIME_US, 2), SLU_DEAD_FUTURE);
    expect_text("(and this machine's)");
}
END_TEST

int main(void)
{
    return run_suite("clock_check", (const TTest *[]){test_future, test_wrong_unit, test_spans, test_late,
                                                      test_extremes, NULL});
}
