/* model/int8_avx2.h - the functions of model/int8.h for CPUs with AVX2, and products for those that have
 * AVX-512 VNNI as well. */
#pragma once
#include "model/int8.h"
#include <string.h>

/* A float in [-2^21, 2^21] plus this has its nearest integer (ties to even) in the low bits. What is no
 * number becomes an integer far outside. */
#define SLU_INT8_MAGIC      12582912.0f
#define SLU_INT8_MAGIC_BITS 0x4b400000

static inline int32_t slu_int8_nearest(float x)
{
    float shifted = x + SLU_INT8_MAGIC;
    int32_t bits;
    memcpy(&bits, &shifted, sizeof bits);
    return bits - SLU_INT8_MAGIC_BITS;
}

/* How the values of a row become integers: round(x * inverse) + zero. */
typedef struct slu_int8_scale {
    float inverse, step;
    int32_t zero;
} slu_int8_scale;

/* Of values in [low, high], low <= 0 <= high. */
static inline slu_int8_scale slu_int8_scale_of(float low, float high)
{
    const float range = high - low;
    if (!(range >= 1e-30f && range <= 1e30f))
        return (slu_int8_scale){0, 0, 0};
    slu_int8_scale s = {SLU_INT8_LEVELS / range, range / SLU_INT8_LEVELS, 0};
    s.zero = slu_int8_nearest(-low * s.inverse);
    return s;
}

bool slu_int8_avx2_works(void);
void slu_int8_avx2_quantise(const float *x, uint32_t ldx, uint32_t B, slu_int8_inputs in, slu_int8_rows out);
void slu_int8_avx2_product(slu_int8_rows x, uint32_t B, slu_int8_weights w, const float *bias, bool relu,
                           float *y, uint32_t ldy);
bool slu_int8_vnni_works(void); /* then slu_int8_avx2_works(), too */
void slu_int8_vnni_product(slu_int8_rows x, uint32_t B, slu_int8_weights w, const float *bias, bool relu,
                           float *y, uint32_t ldy);
