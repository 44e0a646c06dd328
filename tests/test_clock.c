#include "base/clock.h"
#include "base/error.h"
#include "tests/suite.h"
#include <string.h>

START_TEST(test_times)
{
    static const struct {
        const char *text;
        int64_t us;
    } good[] = {{"1970-01-01", 0},
                {"2020-12-05T00:00:00Z", 1607126400000000},
                {"2020-12-05", 1607126400000000},
                {"2020-12-05 00:00:00", 1607126400000000},
                {"2020-12-05T00:00:00.25Z", 1607126400250000},
                {"2020-12-05T01:30Z", 1607131800000000},
                {"1607126400", 1607126400000000},
                {"1607126400.5", 1607126400500000},
                {"1607126400123456", 1607126400123456},
                {"0", 0},
                {"2024-02-29", 1709164800000000}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t us = -1;
        ck_assert_msg(!slu_parse_time(good[i].text, &us), "%s", good[i].text);
        ck_assert_msg(us == good[i].us, "%s: %lld", good[i].text, (long long)us);
    }
    static const char *const bad[] = {"",
                                      "yesterday",
                                      "2020-13-01",
                                      "2020-02-30",
                                      "2023-02-29",
                                      "2020-12-05T25:00:00Z",
                                      "2020-12-05T00:00:00+01:00",
                                      "1607126400123",
                                      "2020-12-05x",
                                      "-5",
                                      "99999999999999999999",
                                      "2020-12-05T00:00:00.Z",
                                      "2020-1-5",
                                      "1607126400.",
                                      "5s"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t us;
        ck_assert_msg(slu_parse_time(bad[i], &us) == SLU_EINVAL, "%s", bad[i]);
    }
}
END_TEST

START_TEST(test_time_text)
{
    char out[40];
    ck_assert_str_eq(slu_format_time(1607126400123456, out, sizeof out), "2020-12-05T00:00:00.123Z");
    ck_assert_str_eq(slu_format_time(0, out, sizeof out), "1970-01-01T00:00:00.000Z");
    ck_assert_str_eq(slu_format_time(-1, out, sizeof out), "1969-12-31T23:59:59.999Z");
    slu_format_time(INT64_MAX, out, sizeof out); /* far, but no crash */
    slu_format_time(INT64_MIN, out, sizeof out);
}
END_TEST

START_TEST(test_durations)
{
    static const struct {
        const char *text;
        int64_t us;
        const char *back;
    } good[] = {{"250ms", 250000, "250ms"},
                {"1s", 1000000, "1s"},
                {"60s", 60000000, "1m"},
                {"90m", 5400000000, "90m"},
                {"1h", 3600000000, "1h"},
                {"7d", 604800000000, "7d"},
                {"25h", 90000000000, "25h"},
                {"0", 0, "0s"},
                {"0s", 0, "0s"},
                {"15us", 15, "15us"},
                {"106751991d", 9223372022400000000, "106751991d"}};
    char out[40];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        int64_t us = -1;
        ck_assert_msg(!slu_parse_duration(good[i].text, &us), "%s", good[i].text);
        ck_assert_int_eq(us, good[i].us);
        ck_assert_str_eq(slu_format_duration(us, out, sizeof out), good[i].back);
    }
    static const char *const bad[] = {"",    "s",     "1",     "1.5h",       "-1s",
                                      "1 h", "1hour", "1h30m", "106751992d", "99999999999999999999s"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int64_t us;
        ck_assert_msg(slu_parse_duration(bad[i], &us) == SLU_EINVAL, "%s", bad[i]);
    }
    ck_assert_str_eq(slu_format_duration(-1500000, out, sizeof out), "-1500ms");
    slu_format_duration(INT64_MIN, out, sizeof out);
}
END_TEST

START_TEST(test_sizes)
{
    static const struct {
        const char *text;
        uint64_t bytes;
        const char *back;
    } good[] = {{"512", 512, "512"},
                {"512B", 512, "512"},
                {"64KiB", 65536, "64KiB"},
                {"4MiB", 4194304, "4MiB"},
                {"2GiB", 2147483648, "2GiB"},
                {"1024KiB", 1048576, "1MiB"},
                {"0", 0, "0"},
                {"1025", 1025, "1025"},
                {"1536MiB", 1610612736, "1536MiB"},
                {"16777215TiB", 16777215ULL << 40, "16777215TiB"}};
    char out[40];
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        uint64_t bytes = 1;
        ck_assert_msg(!slu_parse_size(good[i].text, &bytes), "%s", good[i].text);
        ck_assert_uint_eq(bytes, good[i].bytes);
        ck_assert_str_eq(slu_format_size(bytes, out, sizeof out), good[i].back);
    }
    static const char *const bad[] = {"",   "KiB",    "1kb",         "1.5GiB",
                                      "-1", "64 MiB", "16777216TiB", "18446744073709551616"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        uint64_t bytes;
        ck_assert_msg(slu_parse_size(bad[i], &bytes) == SLU_EINVAL, "%s", bad[i]);
    }
}
END_TEST

static int64_t fixed(void *ctx)
{
    return *(int64_t *)ctx;
}

START_TEST(test_clocks)
{
    int64_t now = 42;
    slu_clock c = {fixed, fixed, &now};
    ck_assert_int_eq(slu_wall_us(&c), 42);
    ck_assert_int_eq(slu_mono_us(&c), 42);
    ck_assert_int_gt(slu_wall_us(&slu_system_clock), 1700000000000000);
    int64_t before = slu_mono_us(&slu_system_clock);
    ck_assert_int_ge(slu_mono_us(&slu_system_clock), before);
}
END_TEST

int main(void)
{
    return run_suite("clock", (const TTest *[]){test_times, test_time_text, test_durations, test_sizes,
                                                test_clocks, NULL});
}
