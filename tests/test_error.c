#include "base/error.h"
#include "tests/suite.h"
#include <string.h>

START_TEST(test_first_error_survives)
{
    slu_error e = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_fail(&e, SLU_EIO, "disk %d is full", 7), SLU_EIO);
    ck_assert_int_eq(slu_fail(&e, SLU_EINVAL, "while closing"), SLU_EINVAL);
    ck_assert_int_eq(e.code, SLU_EIO);
    ck_assert_str_eq(e.message, "disk 7 is full");
    slu_error_clear(&e);
    ck_assert_int_eq(e.code, 0);
    ck_assert_str_eq(e.message, "");
    ck_assert_int_eq(slu_fail(NULL, SLU_EINVAL, "nobody listens"), SLU_EINVAL);
}
END_TEST

START_TEST(test_context_goes_in_front)
{
    slu_error e = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_error_context(&e, "store %s", "/x"), 0);
    ck_assert_str_eq(e.message, "");
    slu_fail(&e, SLU_EIO, "no space");
    ck_assert_int_eq(slu_error_context(&e, "store %s", "/x"), SLU_EIO);
    ck_assert_str_eq(e.message, "store /x: no space");
}
END_TEST

START_TEST(test_long_messages_are_cut)
{
    slu_error e = SLU_ERROR_INIT;
    char longest[3000];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    slu_fail(&e, SLU_EIO, "%s", longest);
    ck_assert_uint_eq(strlen(e.message), sizeof e.message - 1);
    memset(longest, 'b', sizeof longest - 1);
    slu_error_context(&e, "%s", longest);
    ck_assert_uint_lt(strlen(e.message), sizeof e.message);
    ck_assert_ptr_nonnull(strstr(e.message, "bbb: aaa")); /* the cause is still there */
}
END_TEST

START_TEST(test_code_names)
{
    ck_assert_str_eq(slu_code_name(0), "OK");
    for (int code = SLU_EINVAL; code >= SLU_ECLOSED; code--)
        ck_assert_str_ne(slu_code_name(code), "E?");
    ck_assert_str_eq(slu_code_name(SLU_ECONFIG), "ECONFIG");
    ck_assert_str_eq(slu_code_name(-99), "E?");
}
END_TEST

int main(void)
{
    return run_suite("error", (const TTest *[]){test_first_error_survives, test_context_goes_in_front,
                                                test_long_messages_are_cut, test_code_names, NULL});
}
