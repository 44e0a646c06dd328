/* trainer/pipeline.h - records in, a trained and committed model out: the one path of trainer and replay.
 *
 *   record -> decode -> encode -> joiner -> samples -> batch -> learner step -> ... -> commit
 *
 * The pipeline is a pure function of its records and its config: the same records in the same order give the
 * same bytes, however often it was stopped and wherever it was committed. A commit takes everything at a
 * record boundary: rows, optimizer state, dense parameters and gathered gradients, join state, the samples
 * that wait in the batch, counters, offsets, outbox.
 *
 * INVARIANT 9 (docs/architecture.md): with |background| the owner waits for the disk only where memory or
 * training.commit_events leave no other choice. Threads inside write commits and read rows; what is learned,
 * and with it every byte of a commit, is the same with and without. @thread one, the owner;
 * slu_pipeline_get_stats from any thread */
#pragma once
#include "base/clock.h"
#include "base/error.h"
#include "base/options.h"
#include "feature/schema.h"
#include "trainer/sink.h"
#include "trainer/source.h"
#include "trainer/watermark.h"
#include <stdbool.h>

typedef struct slu_pipeline slu_pipeline;

/* The sink is called on the owner's thread after the commit is durable. */
typedef struct slu_pipeline_config {
    const slu_options *options;
    const slu_schema *schema;
    slu_store *store;
    const slu_sink *sink; /* copied; takes dead letters and deltas; NULL: dead letters are only counted */
    /* Whether the sink has room for a message now, with its ctx; NULL: always. What finds none stays in the
     * store. */
    bool (*room_for)(void *ctx, slu_channel ch, size_t len);
    bool deltas;     /* build and publish model deltas; wants a sink */
    bool order;      /* keep the order of records in the store, so that it can be repeated */
    bool background; /* commits are written and rows are read ahead by a thread of the pipeline's own; else
                      * all is done by the owner's
                      */
    const slu_clock *clock; /* for committed_us in deltas and for metrics only */
    bool predict_as_served; /* predictions on arrival are those of a scorer with serving.precision int8; what
                             * is learned is the same */
    int64_t eval_from_us;   /* progressive metrics count impressions from this event time on */
    const struct slu_oracle *oracle; /* final labels, for label_policy oracle (replay only); else NULL */
} slu_pipeline_config;

int slu_pipeline_open(const slu_pipeline_config *config, slu_pipeline **pp, slu_error *err);
/* Drops what is not committed; a commit that is on its way is written to its end. */
void slu_pipeline_close(slu_pipeline *p);

/* Takes one record. |part| names its partition for the stored offset. Returns 0 or a fatal code (SLU_EIO,
 * ...): bad input is not an error but a dead letter. */
int slu_pipeline_feed(slu_pipeline *p, const slu_partition *part, const slu_record *r, slu_error *err);
/* True when options->training.commit_events or memory pressure asks for a commit; wall time is the caller's
 * business. */
bool slu_pipeline_commit_due(const slu_pipeline *p);
/* Commits all that was fed, and the commit that is on its way before. Failing (SLU_EIO, SLU_EAGAIN as
 * slu_commit_write) it can be repeated: the same commit is written again first. */
int slu_pipeline_commit(slu_pipeline *p, slu_error *err);
/* The same without waiting for the disk. Begin takes a copy of all that was fed; feed goes on; poll settles
 * it once it is durable: then, not before, messages go to the sink, and offsets and statistics tell of it.
 * While one is on its way begin does nothing. */
int slu_pipeline_commit_begin(slu_pipeline *p, slu_error *err);
/* Call often. Returns 1: the commit is durable and settled; 0: there is none, or it is still being written; a
 * code: writing failed, the next poll or commit writes it again. Waits when the next commit is due already:
 * memory and what a crash costs have their bounds. */
int slu_pipeline_commit_poll(slu_pipeline *p, slu_error *err);
bool slu_pipeline_committing(const slu_pipeline *p); /* begun and not settled */
/* True when windows are due that the last record left open: one record closes some dozens at most, so that
 * a leap of event time fits into memory, and the next records go on. Where none come the caller feeds
 * SLU_RECORD_FLUSH. */
bool slu_pipeline_more_due(const slu_pipeline *p);
/* Hands to the sink what found no room before; cheap when there is nothing. Call often. */
int slu_pipeline_pump(slu_pipeline *p, slu_error *err);
/* Bytes in the outbox that nobody has acknowledged. */
uint64_t slu_pipeline_outbox_bytes(const slu_pipeline *p);
/* End of recorded files: closes all windows, learns what waits, commits. */
int slu_pipeline_finish(slu_pipeline *p, slu_error *err);
/* A base: the whole model for scorers that have none. It begins with a commit, whose model it is, and is then
 * read and sent in pieces between records, each of them short; learning and commits go on. Deltas of later
 * commits wait in the outbox until the base is complete, because scorers take one version at a time. Begun
 * again while one is on its way: nothing happens. */
int slu_pipeline_base_begin(slu_pipeline *p, slu_error *err);
/* Sends the next piece unless the sink has no room. Returns 1: go on, 0: it is complete, or there was none;
 * SLU_EAGAIN: it had to be given up, begin again; any other code is fatal, SLU_ECORRUPT when the store does
 * not hold what was committed. */
int slu_pipeline_base_next(slu_pipeline *p, slu_error *err);
bool slu_pipeline_base_going(const slu_pipeline *p);
/* Gives it up and sends the deltas that waited. */
int slu_pipeline_base_abandon(slu_pipeline *p, slu_error *err);
/* All of it now, whatever room there is. */
int slu_pipeline_publish_base(slu_pipeline *p, slu_error *err);
/* Next offset to read per partition of |source| as of the last durable commit, into next (n), -1 unknown: for
 * slu_source_ops.committed. */
void slu_pipeline_offsets(const slu_pipeline *p, slu_source *source, int64_t *next, uint32_t n);

/* Partitions that the pipeline knows, and how each stands in time. @thread owner */
uint32_t slu_pipeline_partitions(const slu_pipeline *p);
void slu_pipeline_partition(const slu_pipeline *p, uint32_t i, slu_partition *part, slu_partition_time *time);
/* The same of the source's partition |index|, which was announced; and event time itself, INT64_MIN none. */
slu_partition_time slu_pipeline_time_of(const slu_pipeline *p, uint32_t index);
int64_t slu_pipeline_watermark(const slu_pipeline *p);
/* When the newest record that was used arrived, by the broker's clock; 0: none was. @thread owner */
int64_t slu_pipeline_newest_arrival_us(const slu_pipeline *p);

/* Counters of events; exact, part of every commit. received = learned + waiting + dead, always. */
typedef struct slu_event_counts {
    uint64_t received, learned, waiting, dead;
    uint64_t dead_by_reason[SLU_DEAD_REASONS];
    uint64_t impressions, steps[SLU_MAX_STEPS]; /* received, by kind */
} slu_event_counts;

/* One (task, space) of progressive validation: predicted on arrival, scored when the label is known. */
typedef struct slu_metric_row {
    uint32_t step;
    bool entire_space; /* over impressions; else over the rows that reached the step before */
    uint64_t count, positives;
    double auc, logloss, ne, calibration; /* NaN when undefined */
} slu_metric_row;

typedef struct slu_pipeline_stats {
    slu_event_counts events;
    uint64_t samples, batches, dense_steps;
    uint64_t commits, version;    /* durable ones */
    int64_t committed_through_us; /* learned_through_us of the last commit */
    int64_t commit_us;            /* how long it took to gather and to write */
    int64_t commit_wait_us;       /* how long the owner has waited for commits, in all */
    uint64_t rows_read_ahead;     /* of the rows that were not in memory */
    int64_t row_wait_us;          /* how long the owner has waited for rows */
    int64_t watermark_us, newest_event_us, learned_through_us; /* the last by arrival clock */
    uint32_t pending_samples;
    uint64_t rows_cached, rows_created, rows_expired, row_cache_bytes, join_cache_bytes, join_records,
        join_timers, outbox_waiting;
    double loss_mean; /* per sample, exponentially smoothed */
    uint32_t n_metrics;
    slu_metric_row metrics[2 * SLU_MAX_STEPS];
} slu_pipeline_stats;
void slu_pipeline_get_stats(slu_pipeline *p, slu_pipeline_stats *out);
/* Brings the statistics up to date between commits (without metric rows). @thread owner */
void slu_pipeline_refresh(slu_pipeline *p);
void slu_pipeline_refresh_metrics(slu_pipeline *p); /* with metric rows, which is costly. @thread owner */

/* For slu_store_config.compare, with the slu_schema as its context. */
int slu_pipeline_compare_schema(void *schema, const char *stored_text, slu_error *err);

/* Hex digest of the model and everything that decides its future, as of the last commit; waits for one that
 * is on its way. */
int slu_pipeline_digest(slu_pipeline *p, char out[33], slu_error *err);
