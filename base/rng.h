/* base/rng.h - seeded random numbers, the same on every machine. splitmix64 (Steele, Lea, Flood 2014) for
 * seeding and for values that are a function of (seed, id); xoshiro256** (Blackman, Vigna 2018) for streams.
 */
#pragma once
#include <stdint.h>

static inline uint64_t slu_mix64(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ULL;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
    return x ^ (x >> 31);
}

typedef struct slu_rng {
    uint64_t s[4];
} slu_rng;

void slu_rng_seed(slu_rng *r, uint64_t seed);
uint64_t slu_rng_u64(slu_rng *r);
double slu_rng_unit(slu_rng *r);                /* uniform in [0, 1), 53 bits */
double slu_rng_normal(slu_rng *r);              /* mean 0, deviation 1 */
double slu_rng_exponential(slu_rng *r);         /* mean 1 */
uint64_t slu_rng_below(slu_rng *r, uint64_t n); /* uniform in 0..n-1, n > 0, unbiased */
/* An index below |n|, each as likely as its weight; |sums| (n) are the running sums of the weights. */
uint32_t slu_rng_weighted(slu_rng *r, const double *sums, uint32_t n);
