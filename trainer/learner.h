/* trainer/learner.h - one training step: a batch of samples in, rows and dense parameters moved.
 *
 *   ids of the batch, each once -> rows (fetched) -> pooled into x -> net -> + wide -> loss -> back -> rows,
 * dense
 *
 * Rows learn with every batch from the sum of their samples' gradients; dense gradients are gathered until
 * training.dense_every samples have contributed and then step with their mean (Adam on a handful of rows at a
 * time diverges under fake-negative weights). The logits of arriving impressions are handed out before
 * anything is learned from them. A value is counted (admission) once per impression, not once per sample.
 *
 * Durable state: the dense one (trainer/dense.h). Rows belong to the row table.
 * @thread the pipeline's */
#pragma once
#include "base/options.h"
#include "feature/schema.h"
#include "model/net.h"
#include "model/optim.h"
#include "store/row_table.h"
#include "trainer/batch.h"

typedef struct slu_learner slu_learner;

/* Opens the row table of |store| and loads the dense state, or initialises it from the config's seed. */
int slu_learner_open(const slu_options *options, const slu_schema *schema, slu_store *store, slu_learner **lp,
                     slu_error *err);
void slu_learner_close(slu_learner *l);

/* With read_ahead a thread reads the rows of expected samples, those of the next batch, while it fills.
 * Changes nothing but time. SLU_ENOMEM, SLU_EIO. */
int slu_learner_read_ahead(slu_learner *l, slu_error *err);
void slu_learner_expect(slu_learner *l, const slu_encoded *x);

/* From now on predictions are those of a scorer in int8 (trainer/as_served.h). What is learned is the same.
 * SLU_ENOMEM. */
int slu_learner_predict_as_served(slu_learner *l, slu_error *err);

/* Called for each arriving impression with its logits (tasks). */
typedef int (*slu_predicted_fn)(void *ctx, slu_hash128 key, const float *logits, slu_error *err);
/* Learns |batch| (1 .. batch_size samples). |*loss| receives the summed loss and |*said| how many samples had
 * a label. Before that, rows that have expired at event time |now_us| (INT64_MIN: unknown) are deleted, as
 * many as keep up with those that come. */
int slu_learner_step(slu_learner *l, const slu_batch *batch, int64_t now_us, slu_predicted_fn predicted,
                     void *ctx, double *loss, uint32_t *said, slu_error *err);

/* Writes rows and dense state that changed since the last commit; |each_row| as in slu_row_table_flush. Steps
 * may go on before slu_learner_committed(): what they change is of the next commit. */
int slu_learner_flush(slu_learner *l, slu_commit *c,
                      void (*each_row)(void *ctx, uint32_t table, const slu_row *row), void *ctx);
void slu_learner_committed(slu_learner *l);

const char *slu_learner_products(const slu_learner *l); /* what computes them: "bf16: onednn 2.6.3, ..." */
const float *slu_learner_dense(const slu_learner *l, size_t *n); /* (n) parameters now */
bool slu_learner_dense_changed(const slu_learner *l); /* since the last commit that was confirmed */
slu_hash128 slu_learner_dense_digest(slu_learner *l); /* of all parameters now */
uint32_t slu_learner_tables(const slu_learner *l);
const uint32_t *slu_learner_served(const slu_learner *l); /* (tables) floats of a row that scorers need */
const slu_row_layout *slu_learner_layout(const slu_learner *l, uint32_t table);
slu_row_table *slu_learner_rows(const slu_learner *l);
uint64_t slu_learner_dense_steps(const slu_learner *l);
