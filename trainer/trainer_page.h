/* trainer/trainer_page.h - the trainer's status page, drawn from a snapshot. Pure: no clock, no locks. */
#pragma once
#include "base/page.h"
#include "trainer/dashboard.h"

/* What the page shows. Rates are those of the last two seconds. */
typedef struct slu_trainer_view {
    const slu_options *options;
    slu_pipeline_stats stats;
    slu_dashboard_facts facts;
    uint64_t schema_fingerprint;
    int64_t started_us;
    double fresh_seconds;        /* of the last commit with news, NaN none yet */
    double outbox_stuck_seconds; /* since when the messages that wait for Kafka have not become fewer */
    double events_per_s, samples_per_s, dead_per_s;
    double fresh_p50, fresh_p99, commit_p99; /* since the start */
    slu_history events, samples, lag, fresh;
    slu_history calibration[SLU_MAX_STEPS]; /* over impressions */
} slu_trainer_view;

/* Appends the body of the page. */
void slu_trainer_page(const slu_trainer_view *v, slu_buf *out);
