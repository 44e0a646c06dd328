#include "trainer/pipeline.h"
#include "base/log.h"
#include "trainer/clock_check.h"
#include "trainer/dead_letter.h"
#include "trainer/pipeline_state.h"
#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Bounds what gathers between two commits when event time leaps, and how long the record behind a leap waits.
 * An event closes few, twice what an impression can ever arm, so that reading goes on at a good pace while
 * many are due; records that bring nothing close more. Part of what is learned: other numbers close windows
 * elsewhere. */
enum { TIMERS_PER_EVENT = 2 * SLU_MAX_STEPS, TIMERS_PER_RECORD = 64 };

/* ---- learning ---- */

static int note_prediction(void *ctx, slu_hash128 key, const float *logits, slu_error *err)
{
    slu_pipeline *p = ctx;
    return slu_joiner_predicted(p->joiner, key, logits, err);
}

static int learn(slu_pipeline *p, slu_error *err)
{
    uint32_t n = slu_batch_count(p->batch), said;
    double loss;
    if (!n)
        return 0;
    int rc = slu_learner_step(p->learner, p->batch, slu_watermark_now(p->watermark), note_prediction, p,
                              &loss, &said, err);
    if (rc)
        return rc;
    slu_batch_clear(p->batch);
    p->samples += said;
    p->batches++;
    p->learned_through_us = p->newest_arrival_us;
    if (said && isfinite(loss)) {
        double mean = loss / said;
        p->loss_mean = p->loss_mean ? 0.999 * p->loss_mean + 0.001 * mean : mean;
    }
    return 0;
}

static int on_sample(void *ctx, const slu_sample *s, slu_error *err)
{
    slu_pipeline *p = ctx;
    /* A stored batch may be as large as a smaller training.batch_size allows. */
    int rc = slu_batch_full(p->batch) ? learn(p, err) : 0;
    if (rc)
        return rc;
    if (!slu_batch_count(p->batch))
        p->batch_arrival_us = p->newest_arrival_us;
    slu_batch_add(p->batch, s, slu_watermark_newest(p->watermark));
    slu_learner_expect(p->learner, s->x);
    return slu_batch_full(p->batch) ? learn(p, err) : 0;
}

static int on_settled(void *ctx, int64_t time_us, uint32_t steps, const float *logits, uint32_t events,
                      slu_error *err)
{
    slu_pipeline *p = ctx;
    (void)err;
    p->counts.learned += events;
    if (logits && time_us >= p->config.eval_from_us)
        slu_progress_add(p->progress, logits, steps);
    return 0;
}

/* ---- dead letters ---- */

static void count_dead(slu_pipeline *p, slu_dead_reason why)
{
    p->counts.dead++;
    p->counts.dead_by_reason[why]++;
}

static const char *explain(slu_dead_reason why)
{
    switch (why) {
    case SLU_DEAD_TOO_LARGE:
        return "larger than kafka.max_message_bytes";
    case SLU_DEAD_LATE:
        return "every attribution window that it could speak about has closed; join.allowed_lateness widens "
               "them";
    case SLU_DEAD_OUTSIDE_WINDOW:
        return "not between its impression and the end of the step's attribution window";
    case SLU_DEAD_ORPHAN:
        return "its impression did not come within join.orphan_wait, or was settled before";
    case SLU_DEAD_DUPLICATE:
        return "this id was seen before";
    case SLU_DEAD_REPEATED:
        return "the impression already has this step";
    default:
        return "cannot be used";
    }
}

static void bury(slu_pipeline *p, slu_dead_reason why, const char *message, const slu_partition *part,
                 const slu_record *raw, int64_t arrival_us)
{
    slu_record record = *raw, *r = &record;
    r->arrival_us = arrival_us;
    count_dead(p, why);
    if (!p->config.sink)
        return;
    slu_buf_clear(&p->scratch);
    slu_dead_letter_write(&p->scratch, why, message, part, r);
    slu_outbox_add(p->outbox, SLU_CHANNEL_DEAD_LETTERS, p->scratch.data, p->scratch.len);
}

static int on_dead_step(void *ctx, slu_dead_reason why, const slu_dead_step *s, slu_error *err)
{
    slu_pipeline *p = ctx;
    (void)err;
    count_dead(p, why);
    if (!p->config.sink)
        return 0;
    slu_buf_clear(&p->scratch);
    slu_dead_letter_step(&p->scratch, why, explain(why), p->options->steps[s->step].name, s->id,
                         s->impression_id, s->time_us);
    slu_outbox_add(p->outbox, SLU_CHANNEL_DEAD_LETTERS, p->scratch.data, p->scratch.len);
    return 0;
}

/* ---- records ---- */

/* By event time; and by arrival, because one event from not too far a future (join.max_future) would else
 * stop the clock by which batches age until all others have caught up with it. */
static bool batch_is_old(const slu_pipeline *p, int64_t opened_us)
{
    int64_t delay = p->options->training.max_batch_delay_us,
            waited = p->newest_arrival_us - p->batch_arrival_us;
    return slu_watermark_newest(p->watermark) - opened_us >= delay || waited >= delay || waited < 0;
}

/* Event time has moved: a batch that is old enough is learned, windows close. Done before the event that
 * moved it is looked at, so that it is predicted with all that could be known. */
static int advance(slu_pipeline *p, uint32_t most, slu_error *err)
{
    int64_t opened = slu_batch_opened_us(p->batch);
    int rc = 0;
    if (opened != INT64_MAX && batch_is_old(p, opened))
        rc = learn(p, err);
    int64_t watermark = slu_watermark_now(p->watermark);
    if (!rc && watermark != INT64_MIN)
        rc = slu_joiner_advance(p->joiner, watermark, most, err);
    return rc;
}

bool slu_pipeline_more_due(const slu_pipeline *p)
{
    int64_t watermark = slu_watermark_now(p->watermark);
    return watermark != INT64_MIN && slu_join_timer_count(p->join_table) &&
           slu_join_timer_next(p->join_table) <= watermark;
}

/* Fills |event| from the record, or says why not. */
static slu_dead_reason open_record(slu_pipeline *p, const slu_record *r, slu_event *event,
                                   const char **message, slu_error *bad)
{
    *message = r->message ? r->message : "";
    if (r->dead != SLU_DEAD_NONE)
        return r->dead;
    if (r->event) {
        *event = *r->event;
        return SLU_DEAD_NONE;
    }
    slu_dead_reason why = SLU_DEAD_NONE;
    if (r->len > p->options->kafka.max_message_bytes)
        why = SLU_DEAD_TOO_LARGE;
    else if (slu_event_decode(p->config.schema, r->encoding, p->options->training.unknown_features, r->bytes,
                              r->len, p->arena, event, &why, bad))
        *message = bad->message;
    if (why == SLU_DEAD_TOO_LARGE && !bad->code)
        *message = explain(why);
    return why;
}

/* The newest of all, but what a clock of ours that was once wrong let pass is forgotten. */
static void note_arrival(slu_pipeline *p, int64_t arrival_us)
{
    if (arrival_us > p->newest_arrival_us ||
        (arrival_us && p->newest_arrival_us > slu_watermark_latest_arrival(p->watermark)))
        p->newest_arrival_us = arrival_us;
}

static int take_event(slu_pipeline *p, const slu_record *r, const slu_event *e, int64_t arrival_us,
                      slu_dead_reason *why, slu_error *err)
{
    slu_watermark_event(p->watermark, r->partition, e->time_us);
    int rc = advance(p, TIMERS_PER_EVENT, err);
    if (rc)
        return rc;
    int64_t watermark = slu_watermark_now(p->watermark);
    note_arrival(p, arrival_us);
    if (e->kind == SLU_EVENT_STEP)
        return slu_joiner_step(p->joiner, e, watermark, why, err);
    slu_encode(p->encoder, e->fields, p->encoded);
    return slu_joiner_impression(p->joiner, e, p->encoded, watermark, why, err);
}

static void count_kind(slu_pipeline *p, const slu_event *e)
{
    if (e->kind == SLU_EVENT_IMPRESSION)
        p->counts.impressions++;
    else
        p->counts.steps[e->step]++;
}

/* What the joiner found too late: blames the partition's clock where that is to blame. */
static void blame_clock(const slu_pipeline *p, const slu_record *r, const slu_event *e, int64_t arrival_us,
                        slu_dead_reason *why, char *text)
{
    slu_partition_time time = slu_watermark_time_of(p->watermark, r->partition);
    *why = slu_clock_late(p->options, e, arrival_us, slu_watermark_now(p->watermark), &time, text);
}

static int feed_event(slu_pipeline *p, const slu_partition *part, const slu_record *r, slu_error *err)
{
    slu_error bad = SLU_ERROR_INIT;
    slu_event event;
    const char *message;
    char text[SLU_CLOCK_TEXT];
    int64_t arrival = slu_watermark_arrival(p->watermark, r->partition, r->arrival_us);
    slu_arena_reset(p->arena);
    p->counts.received++;
    p->events_since_commit++;
    slu_watermark_offset(p->watermark, r->partition, r->offset + 1, r->mark);
    slu_dead_reason why = open_record(p, r, &event, &message, &bad);
    if (why == SLU_DEAD_NONE) {
        count_kind(p, &event);
        if ((why = slu_clock_check(p->options, &event, arrival, text)) != SLU_DEAD_NONE)
            message = text;
    }
    int rc = 0;
    if (why != SLU_DEAD_NONE) {
        slu_watermark_unusable(p->watermark, r->partition);
        rc = advance(p, TIMERS_PER_EVENT, err);
    } else {
        rc = take_event(p, r, &event, arrival, &why, err);
        message = explain(why);
        if (!rc && why == SLU_DEAD_LATE) {
            blame_clock(p, r, &event, arrival, &why, text);
            message = text;
        }
    }
    if (rc)
        return rc;
    if (why != SLU_DEAD_NONE)
        bury(p, why, message, part, r, arrival);
    /* With nothing waiting in the batch, all that arrived has been learned. */
    if (!slu_batch_count(p->batch))
        p->learned_through_us = p->newest_arrival_us;
    return 0;
}

int slu_pipeline_feed(slu_pipeline *p, const slu_partition *part, const slu_record *r, slu_error *err)
{
    slu_watermark_partition(p->watermark, r->partition, part);
    p->changed = true;
    if (p->order)
        slu_order_log_add(p->order, r, part);
    switch (r->kind) {
    case SLU_RECORD_PARTITION:
        slu_watermark_hold(p->watermark, r->partition);
        return 0;
    case SLU_RECORD_EVENT:
        return feed_event(p, part, r, err);
    case SLU_RECORD_IDLE:
        slu_watermark_idle(p->watermark, r->partition);
        return advance(p, TIMERS_PER_RECORD, err);
    case SLU_RECORD_FLUSH: {
        int rc = learn(p, err);
        return rc ? rc : advance(p, TIMERS_PER_RECORD, err);
    }
    case SLU_RECORD_CLOCK:
        slu_watermark_clock(p->watermark, r->arrival_us);
        return 0;
    case SLU_RECORD_END:
        slu_watermark_end(p->watermark, r->partition, r->arrival_us);
        return 0;
    }
    return 0;
}

/* Everything that changed has to pass through a commit, and what did cannot be evicted before. Begun a third
 * before the bound, a commit is written while learning goes on; with one on its way the bound is the bound.
 */
static bool memory_wants_commit(const slu_pipeline *p)
{
    slu_row_table_stats rows;
    slu_join_table_stats join;
    uint64_t thirds = p->config.background && p->flight == SLU_FLIGHT_NONE ? 2 : 3;
    slu_row_table_get_stats(slu_learner_rows(p->learner), &rows);
    slu_join_table_get_stats(p->join_table, &join);
    uint64_t row_room = slu_row_table_dirty_room(slu_learner_rows(p->learner));
    return rows.dirty_bytes > row_room / 3 * thirds ||
           (join.cached_bytes > p->options->join.cache_bytes &&
            join.dirty_bytes > p->options->join.cache_bytes / 12 * thirds) ||
           rows.dirty_bytes + join.dirty_bytes > slu_memory_dirty_limit(&p->options->memory) / 3 * thirds;
}

bool slu_pipeline_commit_due(const slu_pipeline *p)
{
    return p->events_since_commit >= p->options->training.commit_events ||
           (p->events_since_commit && memory_wants_commit(p));
}

int slu_pipeline_finish(slu_pipeline *p, slu_error *err)
{
    int rc = learn(p, err); /* first, so that what is settled now has its prediction */
    if (!rc)
        rc = slu_joiner_advance(p->joiner, INT64_MAX, SLU_JOINER_ALL, err);
    if (!rc)
        rc = learn(p, err);
    p->changed = true;
    if (!rc)
        rc = slu_pipeline_commit(p, err);
    slu_pipeline_refresh_stats(p, true);
    return rc;
}

uint32_t slu_pipeline_partitions(const slu_pipeline *p)
{
    return slu_watermark_count(p->watermark);
}

void slu_pipeline_partition(const slu_pipeline *p, uint32_t i, slu_partition *part, slu_partition_time *time)
{
    int64_t next;
    slu_watermark_at(p->watermark, i, part, &next);
    *time = slu_watermark_time(p->watermark, i);
}

slu_partition_time slu_pipeline_time_of(const slu_pipeline *p, uint32_t index)
{
    return slu_watermark_time_of(p->watermark, index);
}

int64_t slu_pipeline_watermark(const slu_pipeline *p)
{
    return slu_watermark_now(p->watermark);
}

int64_t slu_pipeline_newest_arrival_us(const slu_pipeline *p)
{
    return p->newest_arrival_us;
}

/* ---- life ---- */

static bool is_read(const slu_options *o, const char *topic)
{
    for (uint32_t i = 0; i < o->kafka.n_topics; i++)
        if (strcmp(o->kafka.topics[i], topic) == 0)
            return true;
    for (uint32_t i = 0; i < o->n_files; i++)
        if (strcmp(o->files[i].path, topic) == 0)
            return true;
    return false;
}

/* A topic that was taken out of the config would hold event time, and with it every window, for ever. That it
 * lets go is a record like those of the source, so that the order tells it. */
static int retire_partitions(slu_pipeline *p, slu_error *err)
{
    int rc = 0;
    for (uint32_t i = 0; !rc && i < slu_watermark_count(p->watermark); i++) {
        slu_partition part;
        int64_t next;
        slu_watermark_at(p->watermark, i, &part, &next);
        if (is_read(p->options, part.topic) || !slu_watermark_retire(p->watermark, i))
            continue;
        SLU_WARN("trainer", "a partition of the store is read no more; event time goes on without it",
                 SLU_STR("topic", part.topic), SLU_I64("partition", part.partition));
        slu_record r = {.kind = SLU_RECORD_IDLE, .partition = SLU_ORDER_UNNUMBERED, .offset = -1};
        if (p->order)
            slu_order_log_add(p->order, &r, &part);
        p->changed = true;
        rc = advance(p, TIMERS_PER_EVENT, err);
    }
    return rc;
}

int slu_pipeline_open(const slu_pipeline_config *config, slu_pipeline **pp, slu_error *err)
{
    *pp = NULL;
    assert(!config->deltas || config->sink);
    slu_pipeline *p = calloc(1, sizeof *p);
    if (!p)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the pipeline");
    pthread_mutex_init(&p->stats_lock, NULL);
    p->config = *config;
    p->options = config->options;
    p->store = config->store;
    if (config->sink)
        p->sink = *config->sink;
    p->arena = slu_arena_new(0, 0);
    p->encoder = slu_encoder_new(config->schema);
    p->encoded = malloc(slu_encoded_max(config->schema) + 8);
    p->watermark = slu_watermark_new(p->options->join.allowed_lateness_us, p->options->join.max_behind_us);
    p->batch = slu_batch_new(config->schema, p->options->training.batch_size);
    p->progress = slu_progress_new(p->options->n_steps);
    p->commit = slu_commit_begin(p->store);
    int rc = slu_writer_start(config->background, &p->writer, err);
    if (!rc &&
        (!p->arena || !p->encoder || !p->encoded || !p->watermark || !p->batch || !p->progress || !p->commit))
        rc = slu_fail(err, SLU_ENOMEM, "out of memory for the pipeline");
    slu_join_table_config join = {p->options->join.cache_bytes};
    if (!rc)
        rc = slu_join_table_open(p->store, &join, &p->join_table, err);
    slu_joiner_out out = {on_sample, on_settled, on_dead_step, p};
    if (!rc)
        rc = slu_joiner_new(p->options, config->schema, p->join_table, config->oracle, &out, &p->joiner, err);
    if (!rc)
        rc = slu_learner_open(p->options, config->schema, p->store, &p->learner, err);
    if (!rc && config->predict_as_served)
        rc = slu_learner_predict_as_served(p->learner, err);
    if (!rc && config->background)
        rc = slu_learner_read_ahead(p->learner, err);
    if (!rc)
        rc = slu_outbox_open(p->store, &p->outbox, err);
    if (!rc)
        rc = slu_pipeline_load(p, err);
    if (!rc)
        rc = retire_partitions(p, err);
    if (rc) {
        slu_pipeline_close(p);
        return rc;
    }
    slu_pipeline_refresh_stats(p, true);
    *pp = p;
    return 0;
}

void slu_pipeline_close(slu_pipeline *p)
{
    if (!p)
        return;
    slu_writer_stop(p->writer); /* first: it has the commit */
    slu_base_close(p->base);
    slu_delta_builder_free(p->delta);
    slu_order_log_close(p->order);
    slu_outbox_close(p->outbox);
    slu_learner_close(p->learner);
    slu_joiner_free(p->joiner);
    slu_join_table_close(p->join_table);
    if (p->commit)
        slu_commit_abandon(p->commit);
    slu_progress_free(p->progress);
    slu_batch_free(p->batch);
    slu_watermark_free(p->watermark);
    slu_encoder_free(p->encoder);
    free(p->encoded);
    slu_arena_free(p->arena);
    slu_buf_free(&p->scratch);
    free(p->rows);
    free(p->flying.next_offsets);
    free(p->durable.next_offsets);
    pthread_mutex_destroy(&p->stats_lock);
    free(p);
}

/* ---- for people ---- */

void slu_pipeline_refresh_stats(slu_pipeline *p, bool metrics)
{
    slu_row_table_stats rows;
    slu_row_table_get_stats(slu_learner_rows(p->learner), &rows);
    slu_join_table_stats join;
    slu_join_table_get_stats(p->join_table, &join);
    slu_metric_row fresh[2 * SLU_MAX_STEPS];
    uint32_t n = metrics ? slu_progress_rows(p->progress, fresh) : 0;
    pthread_mutex_lock(&p->stats_lock);
    slu_pipeline_stats *s = &p->stats;
    s->events = p->counts;
    s->events.waiting = slu_joiner_waiting(p->joiner);
    s->samples = p->samples;
    s->batches = p->batches;
    s->dense_steps = slu_learner_dense_steps(p->learner);
    s->commits = p->commits;
    s->version = p->durable.version;
    s->committed_through_us = p->durable.learned_through_us;
    s->commit_us = p->commit_us;
    s->commit_wait_us = p->commit_wait_us;
    s->watermark_us = slu_watermark_now(p->watermark);
    s->newest_event_us = slu_watermark_newest(p->watermark);
    s->learned_through_us = p->learned_through_us;
    s->pending_samples = slu_batch_count(p->batch);
    s->rows_cached = rows.cached_rows;
    s->rows_created = rows.created;
    s->rows_read_ahead = rows.read_ahead;
    s->row_wait_us = rows.wait_us;
    s->rows_expired = rows.deleted;
    s->row_cache_bytes = rows.cached_bytes;
    s->join_cache_bytes = join.cached_bytes;
    s->join_records = slu_join_table_count(p->join_table);
    s->join_timers = slu_join_timer_count(p->join_table);
    s->outbox_waiting = slu_outbox_waiting(p->outbox, SLU_CHANNEL_DELTAS) +
                        slu_outbox_waiting(p->outbox, SLU_CHANNEL_DEAD_LETTERS);
    s->loss_mean = p->loss_mean;
    if (metrics) {
        s->n_metrics = n;
        memcpy(s->metrics, fresh, n * sizeof *fresh);
    }
    pthread_mutex_unlock(&p->stats_lock);
}

void slu_pipeline_refresh(slu_pipeline *p)
{
    slu_pipeline_refresh_stats(p, false);
}

void slu_pipeline_refresh_metrics(slu_pipeline *p)
{
    slu_pipeline_refresh_stats(p, true);
}

int slu_pipeline_compare_schema(void *schema, const char *stored_text, slu_error *err)
{
    return slu_schema_compare(schema, stored_text, "this store", err);
}

void slu_pipeline_get_stats(slu_pipeline *p, slu_pipeline_stats *out)
{
    pthread_mutex_lock(&p->stats_lock);
    *out = p->stats;
    pthread_mutex_unlock(&p->stats_lock);
}
