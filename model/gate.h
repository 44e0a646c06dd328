/* model/gate.h - softmax over each row: the weights that a gate gives its experts.
 *
 * Letters: B rows, n experts. Views with ld floats from row to row. */
#pragma once
#include <stdint.h>

/* g (B, n) = softmax(a (B, n)), the largest logit subtracted first. Overwrites g; g may be a. */
void slu_softmax_forward(float *g, uint32_t ldg, const float *a, uint32_t lda, uint32_t B, uint32_t n);
/* da += g * (dg - <g, dg>) per row. */
void slu_softmax_backward(float *da, uint32_t ldda, const float *dg, uint32_t lddg, const float *g,
                          uint32_t ldg, uint32_t B, uint32_t n);
/* Twin in double precision. */
void slu_softmax_forward_ref(float *g, uint32_t ldg, const float *a, uint32_t lda, uint32_t B, uint32_t n);
