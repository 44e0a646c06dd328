#include "sim/ranking.h"
#include <math.h>
#include <stdlib.h>

static int by_prediction(const void *pa, const void *pb)
{
    const slu_ranked *a = pa, *b = pb;
    return (a->prediction > b->prediction) - (a->prediction < b->prediction);
}

static int by_truth(const void *pa, const void *pb)
{
    const slu_ranked *a = pa, *b = pb;
    return (a->truth > b->truth) - (a->truth < b->truth);
}

/* P(score of a random positive > score of a random negative), ties count half. |r| is sorted by |key|. */
static double weighted_auc(const slu_ranked *r, size_t n, double (*key)(const slu_ranked *))
{
    double below = 0, pairs = 0, positives = 0;
    for (size_t i = 0; i < n;) {
        double group_positive = 0, group_negative = 0, k = key(&r[i]);
        for (; i < n && key(&r[i]) == k; i++) {
            group_positive += r[i].positive;
            group_negative += r[i].negative;
        }
        pairs += group_positive * (below + group_negative / 2);
        below += group_negative;
        positives += group_positive;
    }
    return positives > 0 && below > 0 ? pairs / positives / below : NAN;
}

static double prediction_of(const slu_ranked *r)
{
    return r->prediction;
}

static double truth_of(const slu_ranked *r)
{
    return r->truth;
}

static double loss_at(double p, const slu_ranked *r)
{
    p = fmin(fmax(p, 1e-9), 1 - 1e-9);
    return -r->positive * log(p) - r->negative * log1p(-p);
}

void slu_rank(slu_ranked *r, size_t n, slu_ranking *out)
{
    double weight = 0, predicted = 0, positive = 0, loss = 0, floor_loss = 0;
    qsort(r, n, sizeof *r, by_truth);
    out->ceiling = weighted_auc(r, n, truth_of);
    qsort(r, n, sizeof *r, by_prediction);
    out->auc = weighted_auc(r, n, prediction_of);
    for (size_t i = 0; i < n; i++) {
        double w = r[i].positive + r[i].negative;
        weight += w;
        predicted += w * r[i].prediction;
        positive += r[i].positive;
        loss += loss_at(r[i].prediction, &r[i]);
        floor_loss += loss_at(r[i].truth, &r[i]);
    }
    out->logloss = loss / weight;
    out->floor_logloss = floor_loss / weight;
    out->calibration = predicted / positive;
}

void slu_deciles(const slu_ranked *r, size_t n, slu_decile out[10])
{
    for (size_t d = 0; d < 10; d++) {
        double weight = 0, predicted = 0, positive = 0;
        for (size_t i = n * d / 10; i < n * (d + 1) / 10; i++) {
            double w = r[i].positive + r[i].negative;
            weight += w;
            predicted += w * r[i].prediction;
            positive += r[i].positive;
        }
        out[d] = (slu_decile){predicted / weight, positive / weight, weight};
    }
}
