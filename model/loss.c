#include "model/loss.h"
#include "model/activation.h"
#include <assert.h>
#include <math.h>
#include <stddef.h>

#define MAX_TASKS 64

static double clip_probability(double p)
{
    return p < 1e-6 ? 1e-6 : p > 1 - 1e-6 ? 1 - 1e-6 : p;
}

/* log(e^a + e^b) for a, b <= 0, either may be -infinity. */
static double log_add(double a, double b)
{
    double high = a > b ? a : b, low = a > b ? b : a;
    return isinf(high) ? high : high + log1p(exp(low - high));
}

/* What one row says about a task: the label and the weight it is learned with, given the model's own P. */
static void settle(slu_say say, float label, float task_weight, double log_p, double *y, double *weight)
{
    *y = label;
    *weight = task_weight;
    switch (say) {
    case SLU_SAY_NOTHING:
        *weight = 0;
        break;
    case SLU_SAY_LABEL:
        break;
    case SLU_SAY_FNW_NEGATIVE:
        *y = 0;
        *weight *= 1 - clip_probability(exp(log_p));
        break;
    case SLU_SAY_FNW_POSITIVE:
        *y = 1;
        break;
    }
}

/* One row. log(1 - P_t) comes from 1 - P_t = (1 - P_{t-1}) + P_{t-1} (1 - c_t), a sum of positive terms, so
 * nothing cancels however close P is to 0 or 1. With it dL/da_s = sum_{t>=s} w_t (-y_t (1 - c_s) + (1 - y_t)
 * P_t (1 - c_s)/(1 - P_t)), and the quotient, at most 1, is the exponential of a difference of logs. */
static double row_loss(double *restrict da, const double *restrict a, const float *labels, const uint8_t *say,
                       const float *task_weight, uint32_t T)
{
    double log_not_c[MAX_TASKS], log_p = 0, log_not_p = -INFINITY, loss = 0;
    for (uint32_t t = 0; t < T; t++) {
        double tail = log1p(exp(-fabs(a[t])));
        double log_c = (a[t] < 0 ? a[t] : 0) - tail;
        log_not_c[t] = (a[t] > 0 ? -a[t] : 0) - tail;
        log_not_p = log_add(log_not_p, log_p + log_not_c[t]);
        log_p += log_c;
        da[t] = 0;
        double y, w;
        settle((slu_say)say[t], labels[t], task_weight[t], log_p, &y, &w);
        if (w == 0)
            continue;
        loss -= w * (y == 0 ? log_not_p : y == 1 ? log_p : y * log_p + (1 - y) * log_not_p);
        for (uint32_t s = 0; s <= t; s++) {
            if (y != 0)
                da[s] -= w * y * exp(log_not_c[s]);
            if (y != 1)
                da[s] += w * (1 - y) * exp(log_p + log_not_c[s] - log_not_p);
        }
    }
    return loss;
}

static int speaks(const uint8_t *say, uint32_t T)
{
    for (uint32_t t = 0; t < T; t++)
        if (say[t] != SLU_SAY_NOTHING)
            return 1;
    return 0;
}

double slu_funnel_loss(float *dlogits, const float *logits, const float *labels, const uint8_t *say,
                       const float *task_weight, uint32_t B, uint32_t T)
{
    assert(T <= MAX_TASKS);
    double loss = 0, a[MAX_TASKS], da[MAX_TASKS];
    for (size_t at = 0, end = (size_t)B * T; at < end; at += T) {
        if (!speaks(say + at, T)) {
            for (uint32_t t = 0; t < T; t++)
                dlogits[at + t] = 0;
            continue;
        }
        for (uint32_t t = 0; t < T; t++)
            a[t] = logits[at + t];
        loss += row_loss(da, a, labels + at, say + at, task_weight, T);
        for (uint32_t t = 0; t < T; t++)
            dlogits[at + t] = (float)da[t];
    }
    return loss;
}

void slu_funnel_probabilities(float *conditional, float *entire, const float *logits, uint32_t B, uint32_t T)
{
    for (size_t at = 0, end = (size_t)B * T; at < end; at += T) {
        double p = 1;
        for (uint32_t t = 0; t < T; t++) {
            double c = slu_sigmoid(logits[at + t]);
            p *= c;
            if (conditional)
                conditional[at + t] = (float)c;
            if (entire)
                entire[at + t] = (float)p;
        }
    }
}

/* Written from the definition, with the log1p/expm1 form of log(1 - P). */
double slu_funnel_loss_ref(double *dlogits, const double *logits, const float *labels, const uint8_t *say,
                           const float *task_weight, uint32_t B, uint32_t T)
{
    double loss = 0;
    for (uint32_t b = 0; b < B; b++)
        for (uint32_t t = 0; t < T; t++) {
            dlogits[b * T + t] = 0;
            const double *a = logits + b * T;
            double lp = 0;
            for (uint32_t s = 0; s <= t; s++)
                lp += slu_log_sigmoid(a[s]);
            double log_not = lp < -M_LN2 ? log1p(-exp(lp)) : log(-expm1(lp)), P = exp(lp);
            double y, w;
            settle((slu_say)say[b * T + t], labels[b * T + t], task_weight[t], lp, &y, &w);
            if (w == 0)
                continue;
            loss -= w * (y * lp + (1 - y) * log_not);
            for (uint32_t s = 0; s <= t; s++)
                dlogits[b * T + s] += w * (P - y) / -expm1(lp) * slu_sigmoid(-a[s]);
        }
    return loss;
}
