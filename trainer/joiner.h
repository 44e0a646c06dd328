/* trainer/joiner.h - joins steps to impressions and decides when which label is learned.
 *
 * State is one record per impression (join_table), from its arrival until its last attribution window has
 * closed, and one per group of steps whose impression has not come yet. Everything is driven by events and
 * the watermark; there is no clock. What a policy emits: fnw     on arrival a fake negative for every task; a
 * positive for a task the moment its event makes it true window  on arrival a prediction-only sample; each
 * task's label when its own window closes oracle  on arrival the final labels (from an slu_oracle; replay
 * only) An entire-space label of task t is true when all steps 0..t happened inside their windows. Whatever
 * the policy, when the last window closes the impression is *settled*: its prediction on arrival meets its
 * labels, and its record goes.
 *
 * Accounting: an impression and its joined steps are waiting until settled, then learned. @thread the
 * pipeline's */
#pragma once
#include "base/options.h"
#include "feature/encode.h"
#include "store/join_table.h"
#include "trainer/batch.h"

struct slu_oracle;

typedef struct slu_dead_step {
    slu_span id, impression_id; /* ids as they came */
    uint32_t step;
    int64_t time_us;
} slu_dead_step;

/* How the joiner speaks. Each may fail with a code that ends the run (SLU_EIO). */
typedef struct slu_joiner_out {
    int (*sample)(void *ctx, const slu_sample *s, slu_error *err);
    /* |steps|: mask; |logits| (tasks): prediction on arrival, NULL when it was never predicted. |events|: how
     * many events (impression and steps) are learned with this. */
    int (*settled)(void *ctx, int64_t time_us, uint32_t steps, const float *logits, uint32_t events,
                   slu_error *err);
    /* A step that waited for its impression in vain. */
    int (*dead_step)(void *ctx, slu_dead_reason why, const slu_dead_step *step, slu_error *err);
    void *ctx;
} slu_joiner_out;

typedef struct slu_joiner slu_joiner;

int slu_joiner_new(const slu_options *options, const slu_schema *schema, slu_join_table *table,
                   const struct slu_oracle *oracle, const slu_joiner_out *out, slu_joiner **jp,
                   slu_error *err);
void slu_joiner_free(slu_joiner *j);

slu_hash128 slu_impression_key(slu_span id);

/* Takes an impression (encoded as |x|) or a step. |*why| is SLU_DEAD_NONE when it was taken, else the event
 * is dead and nothing changed. Returns 0 or a fatal code. |watermark_us| may be INT64_MIN. */
int slu_joiner_impression(slu_joiner *j, const slu_event *event, const slu_encoded *x, int64_t watermark_us,
                          slu_dead_reason *why, slu_error *err);
int slu_joiner_step(slu_joiner *j, const slu_event *event, int64_t watermark_us, slu_dead_reason *why,
                    slu_error *err);
/* The watermark moved: closes windows, gives up on orphans; |most| timers at a time, because each is memory
 * until the next commit. What is left is due the next time; SLU_JOINER_ALL: all. */
#define SLU_JOINER_ALL UINT32_MAX
int slu_joiner_advance(slu_joiner *j, int64_t watermark_us, uint32_t most, slu_error *err);
/* Keeps the prediction on arrival, (tasks) logits. */
int slu_joiner_predicted(slu_joiner *j, slu_hash128 key, const float *logits, slu_error *err);

/* Events held: impressions, their joined steps, steps that wait. */
uint64_t slu_joiner_waiting(const slu_joiner *j);

void slu_joiner_save(const slu_joiner *j, slu_buf *out); /* counters; records are the table's */
int slu_joiner_load(slu_joiner *j, const void *p, size_t n, slu_error *err);
