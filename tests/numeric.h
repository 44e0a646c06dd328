/* tests/numeric.h - small help for tests of arithmetic: seeded values, comparisons that print what differs,
 * and the end of a main() whose suite has loop tests. */
#pragma once
#include "base/rng.h"
#include <check.h>
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

/* Uniform in [-1, 1). */
static inline void fill(float *p, size_t n, slu_rng *r)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (float)(2 * slu_rng_unit(r) - 1);
}

static inline float *floats(size_t n)
{
    float *p = calloc(n ? n : 1, sizeof *p);
    ck_assert_ptr_nonnull(p);
    return p;
}

/* |a - b| <= tolerance * max(1, |a|, |b|). */
static inline int near(double a, double b, double tolerance)
{
    return fabs(a - b) <= tolerance * fmax(1, fmax(fabs(a), fabs(b)));
}

#define ck_near(a, b, tolerance, ...)                                                                        \
    do {                                                                                                     \
        double ck_a = (a), ck_b = (b);                                                                       \
        if (!near(ck_a, ck_b, tolerance)) {                                                                  \
            char ck_where[200];                                                                              \
            snprintf(ck_where, sizeof ck_where, __VA_ARGS__);                                                \
            ck_abort_msg("%s: %.9g is not %.9g", ck_where, ck_a, ck_b);                                      \
        }                                                                                                    \
    } while (0)

static inline int finish_suite(Suite *s)
{
    SRunner *runner = srunner_create(s);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
