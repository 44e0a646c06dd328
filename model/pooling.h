/* model/pooling.h - embedding rows into network inputs, and gradients back.
 *
 * Letters: B rows of the batch, K columns of x, D embedding dimension, T tasks. The rows of one (sample,
 * slot) are |n| pointers to floats whose first D are the embedding and next T the wide weights; NULL means
 * "no row": zeros. */
#pragma once
#include <stdint.h>

/* x (D) = sum or mean of the embeddings; mean divides by n, missing rows included. Overwrites. */
void slu_pool_forward(float *x, const float *const *rows, uint32_t n, uint32_t D, int mean);
/* The same for B samples with a row each: x (B, D), |ldx| floats from one to the next. */
void slu_pool_rows(float *x, uint32_t ldx, const float *const *rows, uint32_t B, uint32_t D);
/* drow[i] (D) += dx (D) [/ n]; NULL entries are passed over. */
void slu_pool_backward(float *const *drows, const float *dx, uint32_t n, uint32_t D, int mean);
/* logits (T) += sum or mean of rows' wide weights at rows[i][at .. at+T). */
void slu_wide_forward(float *logits, const float *const *rows, uint32_t n, uint32_t at, uint32_t T, int mean);
/* dwide[i] (T) += dlogits (T) [/ n]. */
void slu_wide_backward(float *const *dwides, const float *dlogits, uint32_t n, uint32_t T, int mean);
