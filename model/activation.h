/* model/activation.h - element-wise functions and their gradients.
 *
 * Views: a (B, N) block of a wider matrix, ld floats from row to row. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

/* y = y + b [N] (b may be NULL), then max(y, 0) when |relu|. In place, so that a product's epilogue is one
 * pass. */
void slu_bias_relu_forward(float *y, uint32_t ld, const float *b, bool relu, uint32_t B, uint32_t N);
/* Undoes it: dy is set to 0 where |relu| and y <= 0; then db (N, may be NULL) += column sums of dy. At the
 * kink the gradient is 0. y (ldy) is the output of forward; it is not read without relu. */
void slu_bias_relu_backward(float *dy, uint32_t ld, float *db, const float *y, uint32_t ldy, bool relu,
                            uint32_t B, uint32_t N);

/* log of the logistic function, exact in both tails. */
double slu_log_sigmoid(double a);
double slu_sigmoid(double a);
