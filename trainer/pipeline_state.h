/* trainer/pipeline_state.h - the inside of a pipeline, shared by pipeline.c (records in, learning) and
 * pipeline_commit.c (what reaches disk and Kafka). Nobody else includes it. */
#pragma once
#include "store/outbox.h"
#include "trainer/base.h"
#include "trainer/batch.h"
#include "trainer/delta.h"
#include "trainer/joiner.h"
#include "trainer/learner.h"
#include "trainer/order_log.h"
#include "trainer/pipeline.h"
#include "trainer/progress.h"
#include "trainer/watermark.h"
#include <pthread.h>

struct slu_pipeline {
    slu_pipeline_config config;
    const slu_options *options;
    slu_store *store;
    slu_sink sink; /* when config.sink */

    /* The way of a record. */
    slu_arena *arena; /* emptied per record */
    slu_encoder *encoder;
    slu_encoded *encoded; /* the impression at hand */
    slu_watermark *watermark;
    slu_join_table *join_table;
    slu_joiner *joiner;
    slu_batch *batch;
    slu_learner *learner;
    slu_progress *progress;

    /* What a commit takes along. */
    slu_commit *commit;
    slu_outbox *outbox;
    slu_delta_builder *delta; /* NULL without config.deltas */
    slu_order_log *order;     /* NULL without config.order */
    uint64_t *rows;           /* (tables) rows that scorers get, as of the last flush */
    slu_buf scratch;
    slu_event_counts counts; /* waiting is filled in when read */
    uint64_t lineage, version;
    int64_t
        committed_us; /* wall clock of the last commit: with the version it names one state of the model */
    uint64_t acked[SLU_CHANNELS];
    bool changed; /* since the last commit */
    uint64_t events_since_commit;

    slu_base *base; /* on its way; NULL: none. Deltas behind it wait in the outbox, see slu_pipeline_room */

    /* Arrival clock (broker time), for freshness. */
    int64_t newest_arrival_us, learned_through_us;
    int64_t batch_arrival_us; /* newest_arrival_us when the open batch got its first sample */

    /* For people. */
    uint64_t samples, batches, commits;
    double loss_mean;
    int64_t metrics_at_us; /* monotonic, when the metric rows were last computed */
    pthread_mutex_t stats_lock;
    slu_pipeline_stats stats;
};

/* Restores everything that a commit wrote, or starts afresh. Sends what the last process left in the outbox.
 */
int slu_pipeline_load(slu_pipeline *p, slu_error *err);
/* Refreshes what slu_pipeline_get_stats hands out; |metrics|: also the costly metric rows. */
void slu_pipeline_refresh_stats(slu_pipeline *p, bool metrics);
/* For the deltas and bases of the version at hand. */
slu_delta_head slu_pipeline_head(const slu_pipeline *p, bool base);
void slu_pipeline_count_rows(slu_pipeline *p); /* into p->rows, after a flush */
/* Whether a message of the outbox may be sent now, and sending it. |ctx|: the pipeline. */
bool slu_pipeline_room(void *ctx, slu_channel ch, size_t len);
void slu_pipeline_send(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len);
