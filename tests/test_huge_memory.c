/* Memory from malloc and from the system: zeroed, aligned, and gone when it is freed. */
#include "serving/huge_memory.h"
#include "tests/suite.h"
#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static const size_t sizes[] = {
    1,         HUGE_MEMORY_MAPPED - 1, HUGE_MEMORY_MAPPED, HUGE_MEMORY_MAPPED + 1, HUGE_PAGE - 1,
    HUGE_PAGE, HUGE_PAGE + 1,          2 * HUGE_PAGE,      5 * HUGE_PAGE - 4097};
enum { SIZES = sizeof sizes / sizeof *sizes, ROUNDS = 8 };

static bool is_mapped(const void *page)
{
    unsigned char resident;
    void *at = (void *)((uintptr_t)page & ~(uintptr_t)4095);
    return !mincore(at, 4096, &resident) || errno != ENOMEM;
}

/* Several of each size at once: pieces that were cut off too generously would be another's. */
START_TEST(test_memory_is_zeroed_and_nobody_elses)
{
    static char *p[SIZES][ROUNDS];
    for (int k = 0; k < ROUNDS; k++)
        for (int i = 0; i < SIZES; i++) {
            const size_t n = sizes[i];
            p[i][k] = huge_memory_new(n);
            ck_assert_ptr_nonnull(p[i][k]);
            ck_assert(!p[i][k][0] && !memcmp(p[i][k], p[i][k] + 1, n - 1));
            memset(p[i][k], 1 + i * ROUNDS + k, n);
            if (n >= HUGE_PAGE)
                ck_assert_uint_eq((uintptr_t)p[i][k] % HUGE_PAGE, 0);
        }
    for (int k = 0; k < ROUNDS; k++)
        for (int i = 0; i < SIZES; i++) {
            ck_assert_int_eq(p[i][k][0], 1 + i * ROUNDS + k);
            ck_assert(!memcmp(p[i][k], p[i][k] + 1, sizes[i] - 1));
            huge_memory_free(p[i][k], sizes[i]);
        }
    huge_memory_free(NULL, 1);
    huge_memory_free(NULL, HUGE_PAGE);
}
END_TEST

START_TEST(test_what_is_freed_is_the_systems)
{
    for (int i = 0; i < SIZES; i++) {
        const size_t n = sizes[i];
        char *p = huge_memory_new(n);
        if (n < HUGE_MEMORY_MAPPED) {
            huge_memory_free(p, n);
            continue;
        }
        ck_assert(is_mapped(p) && is_mapped(p + n - 1));
        huge_memory_free(p, n);
        ck_assert_msg(!is_mapped(p) && !is_mapped(p + n - 1), "%zu bytes are not all gone", n);
    }
}
END_TEST

static unsigned long address_space(void) /* in pages */
{
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    ck_assert(f && fscanf(f, "%lu", &pages) == 1);
    fclose(f);
    return pages;
}

/* What is cut off in front and behind for the sake of alignment is the system's at once. */
START_TEST(test_alignment_costs_nothing)
{
    enum { TIMES = 500 };
    const unsigned long before = address_space();
    static char *p[TIMES], *between[TIMES]; /* after which it is another part that has to be cut off */
    for (int i = 0; i < TIMES; i++) {
        p[i] = huge_memory_new(HUGE_PAGE);
        between[i] = i % 2 ? huge_memory_new(HUGE_MEMORY_MAPPED) : NULL;
    }
    ck_assert_uint_lt(address_space() - before, TIMES * (HUGE_PAGE / 4096) * 5 / 4);
    for (int i = 0; i < TIMES; i++) {
        huge_memory_free(p[i], HUGE_PAGE);
        huge_memory_free(between[i], HUGE_MEMORY_MAPPED);
    }
    ck_assert_uint_lt(address_space() - before, TIMES * (HUGE_PAGE / 4096) / 4);
}
END_TEST

START_TEST(test_pages)
{
    ck_assert_uint_eq(huge_memory_pages(0), 0);
    ck_assert_uint_eq(huge_memory_pages(1), 4096);
    ck_assert_uint_eq(huge_memory_pages(4096), 4096);
    ck_assert_uint_eq(huge_memory_pages(4097), 8192);
}
END_TEST

/* Whether the system was asked to give huge pages to what is at |p|: "hg" among its flags. */
static bool was_asked(const void *p)
{
    char line[1024];
    bool within = false, asked = false;
    FILE *f = fopen("/proc/self/smaps", "r");
    ck_assert_ptr_nonnull(f);
    while (fgets(line, sizeof line, f)) {
        unsigned long from, to;
        if (sscanf(line, "%lx-%lx ", &from, &to) == 2)
            within = from <= (uintptr_t)p && (uintptr_t)p < to;
        else if (within && !strncmp(line, "VmFlags:", 8))
            asked = strstr(line, " hg") != NULL;
    }
    fclose(f);
    return asked;
}

START_TEST(test_huge_pages_are_asked_for)
{
    const bool has = !access("/sys/kernel/mm/transparent_hugepage/enabled", F_OK); /* else nobody can ask */
    char *a = huge_memory_new(2 * HUGE_PAGE), *b = huge_memory_new(HUGE_PAGE);
    ck_assert(!was_asked(a) && !was_asked(b));
    huge_memory_ask(a, 2 * HUGE_PAGE);
    ck_assert_int_eq(was_asked(a), has);
    ck_assert_int_eq(was_asked(a + 2 * HUGE_PAGE - 1), has);
    ck_assert(!was_asked(b));
    for (size_t i = 0; i < HUGE_PAGE; i += 4096)
        b[i] = (char)(i >> 12 | 1);
    huge_memory_merge(b, HUGE_PAGE);
    ck_assert_int_eq(was_asked(b), has);
    for (size_t i = 0; i < HUGE_PAGE; i += 4096) /* what was there is */
        ck_assert_int_eq(b[i], (char)(i >> 12 | 1));
    huge_memory_free(a, 2 * HUGE_PAGE);
    huge_memory_free(b, HUGE_PAGE);
}
END_TEST

int main(void)
{
    return run_suite("huge_memory",
                     (const TTest *[]){test_memory_is_zeroed_and_nobody_elses,
                                       test_what_is_freed_is_the_systems, test_alignment_costs_nothing,
                                       test_pages, test_huge_pages_are_asked_for, NULL});
}
