#include "tests/suite.h"
#include "trainer/commit_pace.h"

#define S 1000000

START_TEST(test_keeping_up_commits_as_configured)
{
    ck_assert_int_eq(slu_commit_interval_us(S / 4, 0), S / 4);
    ck_assert_int_eq(slu_commit_interval_us(S / 4, -5 * S), S / 4);
    ck_assert_int_eq(slu_commit_interval_us(S / 4, S), S / 4);
}
END_TEST

START_TEST(test_catching_up_waits_for_a_quarter_of_what_it_is_behind)
{
    ck_assert_int_eq(slu_commit_interval_us(S / 4, 2 * S), S / 2);
    ck_assert_int_eq(slu_commit_interval_us(S / 4, 3 * S), S / 4 * 3);
    ck_assert_int_eq(slu_commit_interval_us(S / 4, 15 * S), S / 4 * 15);
}
END_TEST

START_TEST(test_never_more_than_sixteen_times_as_long)
{
    ck_assert_int_eq(slu_commit_interval_us(S / 4, 16 * S), 4 * S);
    ck_assert_int_eq(slu_commit_interval_us(S / 4, 86400ll * S), 4 * S);
    ck_assert_int_eq(slu_commit_interval_us(3600ll * S, INT64_MAX), 16 * 3600ll * S);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_keeping_up_commits_as_configured,
                                  test_catching_up_waits_for_a_quarter_of_what_it_is_behind,
                                  test_never_more_than_sixteen_times_as_long, NULL};
    return run_suite("commit_pace", tests);
}
