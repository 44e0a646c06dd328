/* tests/suite.h - one line instead of Check's usual main(). CK_FORK=no and CK_RUN_CASE work as always. */
#pragma once
#include <check.h>
#include <stdlib.h>

/* Where everything takes many times as long: 5 under ThreadSanitizer, SLU_TEST_SHARE under valgrind
 * (deploy/valgrind.sh), else 1. */
static inline unsigned suite_slowness(void)
{
    const char *share = getenv("SLU_TEST_SHARE");
#if defined(__SANITIZE_THREAD__)
    return share ? (unsigned)atoi(share) : 5;
#else
    return share ? (unsigned)atoi(share) : 1;
#endif
}

/* |n| repetitions, fewer there, but at least |least|. */
static inline int suite_share(int n, int least)
{
    unsigned slow = suite_slowness();
    int share = n / (int)(slow ? slow : 1);
    return share > least ? share : least;
}

/* Runs |tests| (ends with NULL), each in a process of its own. The result is main()'s. */
static inline int run_suite(const char *name, const TTest *const *tests)
{
    Suite *suite = suite_create(name);
    const char *seconds = getenv("SLU_TEST_TIMEOUT"); /* of one test */
    for (; *tests; tests++) {
        TCase *one = tcase_create((*tests)->name);
        tcase_set_timeout(one, seconds ? atof(seconds) : 60 * suite_slowness());
        tcase_add_test(one, *tests);
        suite_add_tcase(suite, one);
    }
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
