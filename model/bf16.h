/* model/bf16.h - numbers of 16 bits with the range of a float and 8 bits of precision.
 *
 * Rounding is to nearest, ties to even, denormals included; what is too large becomes infinite; NaN stays
 * NaN, made quiet. Whatever machine computes it, the bits are the same. A product of two such numbers is
 * exact in a float.
 *
 * @thread any */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef uint16_t slu_bf16; /* the upper half of a float */

slu_bf16 slu_bf16_of(float x);
float slu_bf16_float(slu_bf16 x);

/* (rows, cols), |ldo| and |ldi| numbers from row to row. |in| and |out| do not overlap. */
void slu_bf16_narrow(slu_bf16 *out, size_t ldo, const float *in, size_t ldi, uint32_t rows, uint32_t cols);
/* The same values as floats: their lower halves are zero. */
void slu_bf16_round(float *out, size_t ldo, const float *in, size_t ldi, uint32_t rows, uint32_t cols);
/* a[0], b[0], a[1], b[1], ... a[n - 1], b[n - 1]. */
void slu_bf16_pairs(slu_bf16 *out, const float *a, const float *b, uint32_t n);
/* Twin: looks at both neighbours and takes the nearer one. */
slu_bf16 slu_bf16_of_ref(float x);
