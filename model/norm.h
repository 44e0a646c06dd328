/* model/norm.h - batch and layer normalisation, y = gain * (x - mean) * rstd + shift.
 *
 * Letters: B rows, N columns. x, y, dx, dy are (B, N) views with ld floats from row to row; gain, shift (N).
 * What backward needs (mean, rstd) is an output of forward. Backward adds into dx, dgain, dshift. */
#pragma once
#include <stdint.h>

#define SLU_NORM_EPSILON 1e-5f
/* Rows that the running statistics of a batch norm look back on. They move by B / (B + rows) per batch, so
 * how a stream was cut into batches hardly matters to them. */
#define SLU_NORM_MEMORY 5000.0f

/* Statistics over the rows of each column; mean, rstd (N). running_mean, running_var (N) move towards those
 * of this batch (unbiased variance). With a single row there is no spread to divide by: the running
 * statistics are used as they are. */
void slu_batch_norm_forward(float *y, uint32_t ldy, float *mean, float *rstd, float *running_mean,
                            float *running_var, const float *x, uint32_t ldx, const float *gain,
                            const float *shift, uint32_t B, uint32_t N);
/* Serving: running statistics only. */
void slu_batch_norm_infer(float *y, uint32_t ldy, const float *running_mean, const float *running_var,
                          const float *x, uint32_t ldx, const float *gain, const float *shift, uint32_t B,
                          uint32_t N);
/* |sums| is scratch (2 N). */
void slu_batch_norm_backward(float *dx, uint32_t lddx, float *dgain, float *dshift, float *sums,
                             const float *dy, uint32_t lddy, const float *x, uint32_t ldx, const float *mean,
                             const float *rstd, const float *gain, uint32_t B, uint32_t N);

/* Statistics over the columns of each row; mean, rstd (B), both may be NULL when backward will not be called.
 */
void slu_layer_norm_forward(float *y, uint32_t ldy, float *mean, float *rstd, const float *x, uint32_t ldx,
                            const float *gain, const float *shift, uint32_t B, uint32_t N);
void slu_layer_norm_backward(float *dx, uint32_t lddx, float *dgain, float *dshift, const float *dy,
                             uint32_t lddy, const float *x, uint32_t ldx, const float *mean,
                             const float *rstd, const float *gain, uint32_t B, uint32_t N);

/* Twins of the forward passes in double precision, without running statistics. */
void slu_batch_norm_forward_ref(float *y, uint32_t ldy, const float *x, uint32_t ldx, const float *gain,
                                const float *shift, uint32_t B, uint32_t N);
void slu_layer_norm_forward_ref(float *y, uint32_t ldy, const float *x, uint32_t ldx, const float *gain,
                                const float *shift, uint32_t B, uint32_t N);
