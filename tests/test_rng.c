#include "base/rng.h"
#include "tests/suite.h"
#include <math.h>

START_TEST(test_same_everywhere)
{
    /* splitmix64 of 0, as its authors' code prints it first; the rest pins our own streams. */
    ck_assert_uint_eq(slu_mix64(0), 0xe220a8397b1dcdafULL);
    slu_rng a, b;
    slu_rng_seed(&a, 0);
    ck_assert_uint_eq(a.s[0], 0xe220a8397b1dcdafULL);
    ck_assert_uint_eq(a.s[1], 0x6e789e6aa1b965f4ULL);
    ck_assert_uint_eq(slu_rng_u64(&a), 0x99ec5f36cb75f2b4ULL);
    slu_rng_seed(&a, 12345);
    slu_rng_seed(&b, 12345);
    for (int i = 0; i < 100; i++)
        ck_assert_uint_eq(slu_rng_u64(&a), slu_rng_u64(&b));
    slu_rng_seed(&b, 12346);
    ck_assert_uint_ne(slu_rng_u64(&a), slu_rng_u64(&b));
}
END_TEST

START_TEST(test_weighted)
{
    enum { N = 100000 };
    static const double weights[] = {3, 0, 1, 0.5, 0, 5.5};
    double sums[6], sum = 0;
    int drawn[6] = {0};
    slu_rng r;
    slu_rng_seed(&r, 9);
    for (int i = 0; i < 6; i++)
        sums[i] = sum += weights[i];
    for (int i = 0; i < N; i++)
        drawn[slu_rng_weighted(&r, sums, 6)]++;
    for (int i = 0; i < 6; i++) { /* five standard errors, and what weighs nothing never comes */
        double p = weights[i] / sum;
        ck_assert(fabs(drawn[i] - N * p) <= 5 * sqrt(N * p * (1 - p)));
    }
    ck_assert_uint_eq(slu_rng_weighted(&r, sums, 1), 0);
}
END_TEST

START_TEST(test_moments)
{
    enum { N = 400000 };
    slu_rng r;
    slu_rng_seed(&r, 3);
    double u = 0, u2 = 0, g = 0, g2 = 0, g4 = 0, e = 0, e2 = 0;
    for (int i = 0; i < N; i++) {
        double x = slu_rng_unit(&r), y = slu_rng_normal(&r), z = slu_rng_exponential(&r);
        ck_assert(x >= 0 && x < 1 && isfinite(y) && z >= 0 && isfinite(z));
        u += x;
        u2 += x * x;
        g += y;
        g2 += y * y;
        g4 += y * y * y * y;
        e += z;
        e2 += z * z;
    }
    /* Five standard errors: the stream is fixed, so this either always passes or never. */
    ck_assert_double_eq_tol(u / N, 0.5, 5 * 0.289 / sqrt(N));
    ck_assert_double_eq_tol(u2 / N, 1.0 / 3, 5 * 0.3 / sqrt(N));
    ck_assert_double_eq_tol(g / N, 0, 5 / sqrt(N));
    ck_assert_double_eq_tol(g2 / N, 1, 5 * 1.42 / sqrt(N));
    ck_assert_double_eq_tol(g4 / N, 3, 5 * 9.8 / sqrt(N));
    ck_assert_double_eq_tol(e / N, 1, 5 / sqrt(N));
    ck_assert_double_eq_tol(e2 / N, 2, 5 * 4.5 / sqrt(N));
}
END_TEST

START_TEST(test_exponential_is_a_true_logarithm)
{
    slu_rng a, b;
    slu_rng_seed(&a, 9);
    slu_rng_seed(&b, 9);
    for (int i = 0; i < 100000; i++) {
        double expected = -log(1 - slu_rng_unit(&a)), got = slu_rng_exponential(&b);
        ck_assert_msg(fabs(got - expected) <= 1e-15 + 4e-16 * 4 * expected, "draw %d: %.17g, log gives %.17g",
                      i, got, expected);
    }
}
END_TEST

START_TEST(test_below)
{
    slu_rng r;
    slu_rng_seed(&r, 5);
    int counts[7] = {0};
    for (int i = 0; i < 70000; i++)
        counts[slu_rng_below(&r, 7)]++;
    for (int i = 0; i < 7; i++)
        ck_assert_int_lt(abs(counts[i] - 10000), 500);
    for (int i = 0; i < 100; i++) {
        ck_assert_uint_eq(slu_rng_below(&r, 1), 0);
        ck_assert_uint_lt(slu_rng_below(&r, UINT64_MAX), UINT64_MAX);
    }
}
END_TEST

int main(void)
{
    return run_suite("rng", (const TTest *[]){test_same_everywhere, test_weighted, test_moments,
                                              test_exponential_is_a_true_logarithm, test_below, NULL});
}
