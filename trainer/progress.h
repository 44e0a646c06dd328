/* trainer/progress.h - progressive validation: predicted on arrival, scored when the label is known.
 *
 * Per task and space (entire: all impressions; conditional: those that reached the step before): count,
 * positives, AUC, log loss, normalised entropy (log loss over the entropy of the base rate; He et al., ADKDD
 * 2014), calibration (predicted over observed). Bounded memory: AUC comes from a histogram over the float's
 * leading 21 bits, i.e. probabilities that differ by less than one part in 4096 count as ties; against exact
 * AUC that is below 1e-5. */
#pragma once
#include "trainer/pipeline.h"

typedef struct slu_progress slu_progress;

slu_progress *slu_progress_new(uint32_t tasks);
void slu_progress_free(slu_progress *p);
/* One impression: logits (tasks) as predicted on arrival, |steps| the mask of steps that it reached in their
 * windows. */
void slu_progress_add(slu_progress *p, const float *logits, uint32_t steps);
/* Fills up to 2 * tasks - 1 rows (the first task has one space only) and returns how many. */
uint32_t slu_progress_rows(const slu_progress *p, slu_metric_row *out);
