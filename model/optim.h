/* model/optim.h - optimizers: Adam for the dense vector, Adagrad for rows, FTRL-proximal or Adagrad for wide
 * weights.
 *
 * Plain loops over one array; the state lives beside the values and travels with them. */
#pragma once
#include "base/parallel.h"
#include <stddef.h>
#include <stdint.h>

/* Adam (Kingma, Ba 2015) with L2 added to the gradient and clipping by global norm. */
typedef struct slu_adam {
    double rate, beta1, beta2, epsilon, l2, clip; /* clip: largest norm of the scaled gradient, 0 off */
} slu_adam;
/* One step t = 1, 2, ... over params, m, v, grads (n). The gradient used is scale * grads; grads are zeroed
 * afterwards. Returns the norm of the scaled gradient before clipping. When that is not finite, grads are
 * zeroed and nothing else changes: the caller counts and reports it. The vector is cut at places that depend
 * on n alone: the bits do not depend on |p| (NULL: the caller does it all). */
double slu_adam_step(const slu_adam *a, float *params, float *m, float *v, float *grads, size_t n, uint64_t t,
                     double scale, const slu_parallel *p);

/* How rows learn. */
typedef struct slu_row_rules {
    int per_row; /* Adagrad with one accumulator per row (mean of squares) instead of one per element */
    double rate, epsilon, initial, l2,
        clip;      /* initial: accumulator of a new row; clip: norm of a row's gradient, 0 off */
    double init;   /* deviation of new elements */
    int wide_ftrl; /* FTRL-proximal (McMahan et al., KDD 2013), else Adagrad */
    double wide_rate, wide_beta, wide_l1, wide_l2;
} slu_row_rules;

/* The floats of one row: embedding (dim) | wide weights (tasks) | embedding state (dim or 1; 0 if dim is 0) |
 * wide state (ftrl: z (tasks), n (tasks); adagrad: n per task). The first `served` floats are what a scorer
 * needs.
 */
typedef struct slu_row_layout {
    uint32_t dim, tasks; /* tasks: 0 when the table has no wide part */
    uint32_t served, state_at, wide_state_at, floats;
} slu_row_layout;
slu_row_layout slu_row_layout_of(uint32_t dim, uint32_t wide_tasks, const slu_row_rules *r);

/* First value of a row: a function of (seed, table, id) only. row (layout->floats). */
void slu_row_init(const slu_row_layout *l, const slu_row_rules *r, uint64_t seed, uint32_t table, uint64_t id,
                  float *row);
/* One update from the summed gradient of a batch: |demb| (dim), |dwide| (tasks); either may be NULL. An
 * embedding gradient that is all zero, or not finite, leaves the embedding and its state bit for bit; so does
 * each wide coordinate. clip and l2 are for the embedding, wide_* for the wide part (Adagrad: wide_beta is
 * epsilon, state starts at 0). */
void slu_row_update(const slu_row_layout *l, const slu_row_rules *r, float *row, const float *demb,
                    const float *dwide);
