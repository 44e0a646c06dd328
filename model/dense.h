/* model/dense.h - fully connected layer, y = x w^T (bias and ReLU follow: activation.h).
 *
 * Letters: B rows of the batch, K inputs, N outputs. Row-major: x (B, K) with ldx floats from row to row, y
 * (B, N) with ldy, w (N, K). Several layers that read the same x are one product with their weights on top of
 * each other. */
#pragma once
#include <stdint.h>

/* Overwrites y. */
void slu_dense_forward(float *y, uint32_t ldy, const float *x, uint32_t ldx, const float *w, uint32_t B,
                       uint32_t K, uint32_t N);
/* Adds into dx (may be NULL) and dw. */
void slu_dense_backward(float *dx, uint32_t lddx, float *dw, const float *dy, uint32_t lddy, const float *x,
                        uint32_t ldx, const float *w, uint32_t B, uint32_t K, uint32_t N);
/* Twins: plain loops, double accumulators. */
void slu_dense_forward_ref(float *y, uint32_t ldy, const float *x, uint32_t ldx, const float *w, uint32_t B,
                           uint32_t K, uint32_t N);
void slu_dense_backward_ref(float *dx, uint32_t lddx, float *dw, const float *dy, uint32_t lddy,
                            const float *x, uint32_t ldx, const float *w, uint32_t B, uint32_t K, uint32_t N);
