#include "trainer/progress.h"
#include "model/loss.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bins are the float's bits without the lowest 11: monotone in p, 4096 per power of two, from 2^-32 to 1. */
#define SHIFT   11
#define LOWEST  ((127u - 32u) << (23 - SHIFT))
#define HIGHEST (127u << (23 - SHIFT))
#define BINS    (HIGHEST - LOWEST + 1)

typedef struct tally {
    uint64_t count, positives;
    double logloss, predicted;
    uint64_t *bins; /* (BINS, 2): negatives, positives */
} tally;

struct slu_progress {
    uint32_t tasks;
    tally *entire;      /* (tasks) */
    tally *conditional; /* (tasks), the first is unused */
};

static uint32_t bin_of(float p)
{
    uint32_t bits;
    memcpy(&bits, &p, sizeof bits);
    bits >>= SHIFT;
    return bits <= LOWEST ? 0 : bits >= HIGHEST ? BINS - 1 : bits - LOWEST;
}

slu_progress *slu_progress_new(uint32_t tasks)
{
    slu_progress *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->tasks = tasks;
    p->entire = calloc(tasks, sizeof *p->entire);
    p->conditional = calloc(tasks, sizeof *p->conditional);
    if (!p->entire || !p->conditional) {
        slu_progress_free(p);
        return NULL;
    }
    for (uint32_t t = 0; t < tasks; t++) {
        p->entire[t].bins = calloc(BINS, 2 * sizeof(uint64_t));
        p->conditional[t].bins = t ? calloc(BINS, 2 * sizeof(uint64_t)) : NULL;
        if (!p->entire[t].bins || (t && !p->conditional[t].bins)) {
            slu_progress_free(p);
            return NULL;
        }
    }
    return p;
}

void slu_progress_free(slu_progress *p)
{
    if (!p)
        return;
    for (uint32_t t = 0; t < p->tasks; t++) {
        if (p->entire)
            free(p->entire[t].bins);
        if (p->conditional)
            free(p->conditional[t].bins);
    }
    free(p->entire);
    free(p->conditional);
    free(p);
}

static void count(tally *t, float p, bool label)
{
    double q = fmin(fmax(p, 1e-7), 1 - 1e-7);
    t->count++;
    t->positives += label;
    t->predicted += p;
    t->logloss -= label ? log(q) : log1p(-q);
    t->bins[2 * bin_of(p) + label]++;
}

void slu_progress_add(slu_progress *p, const float *logits, uint32_t steps)
{
    float conditional[SLU_MAX_STEPS], entire[SLU_MAX_STEPS];
    assert(p->tasks <= SLU_MAX_STEPS);
    slu_funnel_probabilities(conditional, entire, logits, 1, p->tasks);
    bool reached = true; /* every step before t */
    for (uint32_t t = 0; t < p->tasks; t++) {
        bool now = reached && (steps >> t & 1);
        count(&p->entire[t], entire[t], now);
        if (t && reached)
            count(&p->conditional[t], conditional[t], now);
        reached = now;
    }
}

/* Probability that a positive ranks above a negative, ties half. */
static double auc_of(const tally *t)
{
    uint64_t negatives = t->count - t->positives;
    if (!t->positives || !negatives)
        return NAN;
    double below = 0, wins = 0;
    for (uint32_t b = 0; b < BINS; b++) {
        uint64_t neg = t->bins[2 * b], pos = t->bins[2 * b + 1];
        wins += (double)pos * (below + 0.5 * (double)neg);
        below += (double)neg;
    }
    return wins / ((double)t->positives * (double)negatives);
}

static slu_metric_row row_of(const tally *t, uint32_t step, bool entire)
{
    slu_metric_row r = {.step = step, .entire_space = entire, .count = t->count, .positives = t->positives};
    r.auc = auc_of(t);
    r.logloss = t->count ? t->logloss / (double)t->count : NAN;
    double base = t->count ? (double)t->positives / (double)t->count : 0;
    double entropy = base > 0 && base < 1 ? -base * log(base) - (1 - base) * log1p(-base) : NAN;
    r.ne = r.logloss / entropy;
    r.calibration = t->positives ? t->predicted / (double)t->positives : NAN;
    return r;
}

uint32_t slu_progress_rows(const slu_progress *p, slu_metric_row *out)
{
    uint32_t n = 0;
    for (uint32_t t = 0; t < p->tasks; t++) {
        out[n++] = row_of(&p->entire[t], t, true);
        if (t)
            out[n++] = row_of(&p->conditional[t], t, false);
    }
    return n;
}
