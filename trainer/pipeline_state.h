/* trainer/pipeline_state.h - the inside of a pipeline, shared by pipeline.c (records in, learning) and
 * pipeline_commit.c (what reaches disk and Kafka), pipeline_flight.c (when) and pipeline_base.c. Nobody else
 * includes it. */
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
#include "trainer/writer.h"
#include <pthread.h>

/* What a commit says that others may know of once it is durable. */
typedef struct slu_commit_facts {
    uint64_t version;
    int64_t learned_through_us;
    int64_t *next_offsets; /* (n of cap) by the source's number of the partition */
    uint32_t n, cap;
} slu_commit_facts;

typedef enum slu_flight {
    SLU_FLIGHT_NONE,
    SLU_FLIGHT_WRITING, /* the writer has the commit, or had it and was not asked yet */
    SLU_FLIGHT_FAILED,  /* |commit| is complete and is to be written again */
} slu_flight;

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
    slu_commit *commit; /* the writer's while one is on its way */
    slu_writer *writer;
    slu_flight flight;
    slu_commit_facts flying, durable;
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
    bool changed; /* since the last commit was begun, as are the events */
    uint64_t events_since_commit;

    slu_base *base; /* on its way; NULL: none. Deltas behind it wait in the outbox, see slu_pipeline_room */

    /* Arrival clock (broker time), for freshness. */
    int64_t newest_arrival_us, learned_through_us;
    int64_t batch_arrival_us; /* newest_arrival_us when the open batch got its first sample */

    /* For people. */
    uint64_t samples, batches, commits;
    double loss_mean;
    int64_t gather_us, commit_us; /* the last commit: the owner's part of it, and all of it */
    int64_t commit_wait_us;       /* the owner waited for commits */
    int64_t metrics_at_us;        /* monotonic, when the metric rows were last computed */
    pthread_mutex_t stats_lock;
    slu_pipeline_stats stats;
};

/* Restores everything that a commit wrote, or starts afresh. Sends what the last process left in the outbox.
 */
int slu_pipeline_load(slu_pipeline *p, slu_error *err);
/* Refreshes what slu_pipeline_get_stats hands out; |metrics|: also the costly metric rows. */
void slu_pipeline_refresh_stats(slu_pipeline *p, bool metrics);
/* Puts all that changed into p->commit: the owner's part of a commit. */
int slu_pipeline_gather(slu_pipeline *p, slu_error *err);
/* That commit is durable: memory takes note, and what waited for it goes out. */
void slu_pipeline_settle(slu_pipeline *p);
/* Learns from the publisher what Kafka has; true when there is something to forget. */
bool slu_pipeline_collect_acks(slu_pipeline *p);
void slu_pipeline_facts(const slu_pipeline *p, slu_commit_facts *out); /* of the state at hand */
/* For the deltas and bases of the version at hand. */
slu_delta_head slu_pipeline_head(const slu_pipeline *p, bool base);
void slu_pipeline_count_rows(slu_pipeline *p); /* into p->rows, after a flush */
/* Whether a message of the outbox may be sent now, and sending it. |ctx|: the pipeline. */
bool slu_pipeline_room(void *ctx, slu_channel ch, size_t len);
void slu_pipeline_send(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len);
