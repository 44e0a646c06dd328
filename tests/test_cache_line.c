#include "base/cache_line.h"
#include "tests/suite.h"
#include <stdint.h>
#include <string.h>

START_TEST(test_sizes_round_up_to_lines)
{
    ck_assert_uint_eq(slu_cache_lines(0), 0);
    ck_assert_uint_eq(slu_cache_lines(1), 64);
    ck_assert_uint_eq(slu_cache_lines(64), 64);
    ck_assert_uint_eq(slu_cache_lines(65), 128);
}
END_TEST

START_TEST(test_memory_starts_at_a_line_and_holds_what_was_asked)
{
    for (size_t bytes = 0; bytes < 300; bytes++) {
        char *p = slu_cache_lines_alloc(bytes);
        ck_assert_ptr_nonnull(p);
        ck_assert_uint_eq((uintptr_t)p % SLU_CACHE_LINE, 0);
        memset(p, 7, bytes);
        free(p);
    }
}
END_TEST

int main(void)
{
    return run_suite("cache_line",
                     (const TTest *[]){test_sizes_round_up_to_lines,
                                       test_memory_starts_at_a_line_and_holds_what_was_asked, NULL});
}
