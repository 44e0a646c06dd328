/* model/loss.h - the entire-space funnel loss (ESMM, Ma et al., SIGIR 2018, for K steps).
 *
 * Logit a_t belongs to the conditional probability c_t = sigmoid(a_t) = P(step t | step t-1). The
 * entire-space probability is P_t = c_0 * ... * c_t, and the loss of a row is sum over tasks t that the row
 * speaks about of  w * weight_t * BCE(y_t, P_t) in the stable form of logits: lp_t = sum_{s<=t}
 * log_sigmoid(a_s) <= 0, log(1-P_t) by log1p or expm1. dL/da_s = sum_{t>=s} w * (P_t - y_t)/(1 - P_t) * (1 -
 * c_s).
 *
 * Labels are read where a row says SLU_SAY_LABEL; the FNW kinds are 0 and 1 by name.
 *
 * Letters: B rows, T tasks (at most 64). All arrays (B, T) row-major. */
#pragma once
#include <stdint.h>

/* What a row says about a task, and how it is weighted. Detached weights use the model's own P_t, clipped to
 * [1e-6, 1-1e-6] (fake-negative weighting: Ktena et al., RecSys 2019). */
typedef enum slu_say {
    SLU_SAY_NOTHING = 0,  /* no loss */
    SLU_SAY_LABEL,        /* a settled label, weight 1 */
    SLU_SAY_FNW_NEGATIVE, /* negative on arrival that may still turn: weight 1 - [P_t] */
    SLU_SAY_FNW_POSITIVE, /* the positive that follows it: weight 1 (same optimum as the paper's 1+[P],
                             (1-[P])(1+[P])) */
} slu_say;

/* Returns the summed loss and overwrites dlogits. |task_weight| (T). A row with nothing to say gets zeros. */
double slu_funnel_loss(float *dlogits, const float *logits, const float *labels, const uint8_t *say,
                       const float *task_weight, uint32_t B, uint32_t T);
/* Conditional and entire-space probabilities (B, T); either may be NULL. */
void slu_funnel_probabilities(float *conditional, float *entire, const float *logits, uint32_t B, uint32_t T);

/* Twins in double precision with plain loops, for tests. */
double slu_funnel_loss_ref(double *dlogits, const double *logits, const float *labels, const uint8_t *say,
                           const float *task_weight, uint32_t B, uint32_t T);
