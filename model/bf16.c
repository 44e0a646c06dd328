#include "model/bf16.h"
#include "model/simd.h"
#include <math.h>

#define INFINITE 0x7f800000u
#define QUIET    0x00400000u

/* Half of the last place that stays, less one where that place is even: then a tie goes down. */
SLU_INLINE uint32_t rounded(uint32_t bits)
{
    uint32_t nearest = bits + 0x7fff + (bits >> 16 & 1), quiet = bits | QUIET;
    return ((bits & ~0x80000000u) > INFINITE ? quiet : nearest) & 0xffff0000u;
}

SLU_INLINE uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

slu_bf16 slu_bf16_of(float x)
{
    return (slu_bf16)(rounded(bits_of(x)) >> 16);
}

float slu_bf16_float(slu_bf16 x)
{
    uint32_t bits = (uint32_t)x << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

SLU_CLONES
void slu_bf16_narrow(slu_bf16 *out, size_t ldo, const float *in, size_t ldi, uint32_t rows, uint32_t cols)
{
    for (uint32_t i = 0; i < rows; i++) {
        slu_bf16 *restrict to = out + i * ldo;
        const float *restrict from = in + i * ldi;
        for (uint32_t j = 0; j < cols; j++)
            to[j] = (slu_bf16)(rounded(bits_of(from[j])) >> 16);
    }
}

SLU_CLONES
void slu_bf16_round(float *out, size_t ldo, const float *in, size_t ldi, uint32_t rows, uint32_t cols)
{
    for (uint32_t i = 0; i < rows; i++) {
        float *restrict to = out + i * ldo;
        const float *restrict from = in + i * ldi;
        for (uint32_t j = 0; j < cols; j++) {
            uint32_t bits = rounded(bits_of(from[j]));
            memcpy(&to[j], &bits, sizeof bits);
        }
    }
}

/* Two numbers at any even address; the first one is the lower half, on the little-endian machines that this
 * is for. */
typedef uint32_t pair __attribute__((may_alias, aligned(2)));

SLU_CLONES
void slu_bf16_pairs(slu_bf16 *out, const float *a, const float *b, uint32_t n)
{
    pair *restrict to = (pair *)out;
    const float *restrict first = a, *restrict second = b;
    for (uint32_t i = 0; i < n; i++)
        to[i] = rounded(bits_of(first[i])) >> 16 | rounded(bits_of(second[i]));
}

slu_bf16 slu_bf16_of_ref(float x)
{
    uint32_t bits = bits_of(x);
    slu_bf16 toward = (slu_bf16)(bits >> 16), away = (slu_bf16)(toward + 1);
    if (isnan(x))
        return toward | QUIET >> 16;
    if (isinf(x))
        return toward;
    double low = fabs((double)slu_bf16_float(toward)), size = fabs((double)x);
    /* Above the largest one the next step would have been 2^128. */
    double high = (away & 0x7fff) == INFINITE >> 16 ? ldexp(1, 128) : fabs((double)slu_bf16_float(away));
    if (size - low == high - size)
        return toward % 2 ? away : toward;
    return size - low < high - size ? toward : away;
}
