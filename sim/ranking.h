/* sim/ranking.h - how well predictions order what is known to happen with a given probability.
 *
 * With true probabilities at hand nobody needs to toss the coin: an example counts as a positive with weight
 * |positive| and as a negative with weight |negative|, which gives the expectation of AUC and log loss over
 * all outcomes, without the noise of one. The same with weights 0 and 1 is the ordinary AUC. */
#pragma once
#include "base/error.h"
#include <stddef.h>

typedef struct slu_ranked {
    double prediction;         /* 0..1 */
    double truth;              /* 0..1, for the ceiling */
    double positive, negative; /* weights, >= 0 */
} slu_ranked;

typedef struct slu_ranking {
    double auc, ceiling;           /* of the predictions, of the truth; NaN when undefined */
    double logloss, floor_logloss; /* per unit of weight */
    double calibration;            /* predicted over true mass */
} slu_ranking;

/* Sorts |r| (n) by prediction. */
void slu_rank(slu_ranked *r, size_t n, slu_ranking *out);

/* One tenth of the examples, by prediction, lowest first. */
typedef struct slu_decile {
    double predicted, observed; /* means */
    double weight;
} slu_decile;
/* Wants |r| (n) as slu_rank left it. */
void slu_deciles(const slu_ranked *r, size_t n, slu_decile out[10]);
