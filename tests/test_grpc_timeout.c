/* The grpc-timeout header: values by hand, and every short text against the words of its definition. */
#include "base/error.h"
#include "serving/grpc_timeout.h"
#include "tests/suite.h"
#include <stdbool.h>
#include <string.h>

enum { UNTOUCHED = -77 };

START_TEST(test_by_hand)
{
    static const struct {
        const char *text;
        int64_t us; /* UNTOUCHED: refused */
    } cases[] = {{"1S", 1000000},
                 {"0m", 0},
                 {"100m", 100000},
                 {"7u", 7},
                 {"1n", 1}, /* a positive time-out never becomes none */
                 {"0n", 0},
                 {"1000n", 1},
                 {"1001n", 2},
                 {"2M", 120000000},
                 {"3H", 10800000000},
                 {"00000001S", 1000000},
                 {"99999999H", 359999996400000000},
                 {"99999999M", 5999999940000000},
                 {"99999999S", 99999999000000},
                 {"99999999m", 99999999000},
                 {"99999999u", 99999999},
                 {"99999999n", 100000},
                 {"100000000n", UNTOUCHED}, /* nine digits */
                 {"000000001S", UNTOUCHED},
                 {"", UNTOUCHED},
                 {"S", UNTOUCHED},
                 {"5", UNTOUCHED},
                 {"-1S", UNTOUCHED},
                 {"+1S", UNTOUCHED},
                 {" 1S", UNTOUCHED},
                 {"1S ", UNTOUCHED},
                 {"1 S", UNTOUCHED},
                 {"1.5S", UNTOUCHED},
                 {"0x1S", UNTOUCHED},
                 {"1SS", UNTOUCHED},
                 {"1\xd9\xa1S", UNTOUCHED}}; /* an Arabic digit */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t us = UNTOUCHED;
        int rc = slu_grpc_timeout_parse(cases[i].text, strlen(cases[i].text), &us);
        ck_assert_msg(us == cases[i].us && rc == (us == UNTOUCHED ? SLU_EINVAL : 0), "'%s' gave %d, %lld",
                      cases[i].text, rc, (long long)us);
    }
}
END_TEST

/* A digit and one more byte, then one, two and so on up to ten digits before each byte. */
START_TEST(test_every_unit_and_length)
{
    for (int unit = 0; unit < 256; unit++)
        for (size_t digits = 0; digits < 11; digits++) {
            char text[12] = "11111111111";
            int64_t us = UNTOUCHED;
            text[digits] = (char)unit;
            /* A longer text with the same beginning: what lies behind is not looked at. */
            int rc = slu_grpc_timeout_parse(text, digits + 1, &us);
            bool fine = digits >= 1 && digits <= 8 && unit && strchr("HMSmun", unit);
            if (rc != (fine ? 0 : SLU_EINVAL) || (us == UNTOUCHED) == fine)
                ck_abort_msg("%zu digits and byte %d gave %d, %lld", digits, unit, rc, (long long)us);
        }
}
END_TEST

/* Each place of the number takes the ten digits and nothing else. */
START_TEST(test_every_byte_at_every_place)
{
    for (int byte = 0; byte < 256; byte++)
        for (int at = 0; at < 8; at++) {
            char text[] = "00000000u";
            int64_t us = UNTOUCHED, want = byte - '0';
            text[at] = (char)byte;
            for (int i = at; i < 7; i++)
                want *= 10;
            bool fine = byte >= '0' && byte <= '9';
            int rc = slu_grpc_timeout_parse(text, 9, &us);
            if (rc != (fine ? 0 : SLU_EINVAL) || us != (fine ? want : UNTOUCHED))
                ck_abort_msg("byte %d at %d gave %d, %lld", byte, at, rc, (long long)us);
        }
}
END_TEST

int main(void)
{
    return run_suite("grpc_timeout", (const TTest *[]){test_by_hand, test_every_unit_and_length,
                                                       test_every_byte_at_every_place, NULL});
}
