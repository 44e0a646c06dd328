/* The library's log() picks a kernel by CPU (with or without fused multiply-add) and may differ in the last
 * bit between machines. The distributions below therefore use a logarithm of their own, made of operations
 * that IEEE 754 rounds in one way only, and contraction into fused operations is off. */
#ifdef __clang__
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif
#include "base/rng.h"
#include <assert.h>
#include <math.h>

/* Natural logarithm of a positive normal x, accurate to a few units in the last place: x = m 2^e with m
 * within [sqrt(1/2), sqrt(2)), ln m = 2 atanh((m-1)/(m+1)), whose argument is below 0.172, so 11 terms reach
 * 1e-17. */
static double portable_log(double x)
{
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) {
        m *= 2;
        e--;
    }
    double t = (m - 1) / (m + 1), t2 = t * t, sum = 0;
    for (int k = 21; k >= 1; k -= 2)
        sum = sum * t2 + 1.0 / k;
    return e * 0.69314718055994531 + 2 * t * sum;
}

static uint64_t rotl(uint64_t x, int k)
{
    return x << k | x >> (64 - k);
}

void slu_rng_seed(slu_rng *r, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        r->s[i] = slu_mix64(seed);
        seed += 0x9e3779b97f4a7c15ULL;
    }
}

uint64_t slu_rng_u64(slu_rng *r)
{
    uint64_t *s = r->s, result = rotl(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotl(s[3], 45);
    return result;
}

double slu_rng_unit(slu_rng *r)
{
    return (double)(slu_rng_u64(r) >> 11) * 0x1p-53;
}

/* Marsaglia's polar method; the second value of a pair is dropped to keep the state plain. */
double slu_rng_normal(slu_rng *r)
{
    double x, y, s;
    do {
        x = 2 * slu_rng_unit(r) - 1;
        y = 2 * slu_rng_unit(r) - 1;
        s = x * x + y * y;
    } while (s >= 1 || s == 0);
    return x * sqrt(-2 * portable_log(s) / s);
}

double slu_rng_exponential(slu_rng *r)
{
    return -portable_log(1 - slu_rng_unit(r));
}

uint64_t slu_rng_below(slu_rng *r, uint64_t n)
{
    assert(n > 0);
    /* Values under 2^64 mod n would make small results more likely: draw again. */
    uint64_t reject = -n % n, v;
    do {
        v = slu_rng_u64(r);
    } while (v < reject);
    return v % n;
}

uint32_t slu_rng_weighted(slu_rng *r, const double *sums, uint32_t n)
{
    double u = slu_rng_unit(r) * sums[n - 1];
    uint32_t low = 0, high = n - 1;
    while (low < high) { /* the first sum beyond u */
        uint32_t middle = (low + high) / 2;
        if (sums[middle] > u)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}
