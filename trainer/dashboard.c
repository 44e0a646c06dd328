#include "trainer/dashboard.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "trainer/trainer_page.h"
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECEIVED, LEARNED, WAITING, DEAD, STATES };
static const char *const states[STATES] = {"received", "learned", "waiting", "dead"};

typedef struct task_metrics {
    slu_metric *auc, *logloss, *ne, *calibration, *count, *positives;
} task_metrics;

struct slu_dashboard {
    const slu_options *options;
    slu_metric *events[STATES], *dead[SLU_DEAD_REASONS];
    slu_metric *samples, *batches, *dense_steps, *commits, *commit_seconds, *commit_wait, *row_wait,
        *freshness;
    slu_metric *lag, *partitions, *partitions_paused, *watermark_behind, *event_behind, *version, *loss;
    slu_metric *rows, *rows_created, *rows_expired, *cache_bytes, *join_records, *join_timers, *outbox,
        *outbox_bytes, *paused, *pending;
    task_metrics tasks[2 * SLU_MAX_STEPS];

    pthread_mutex_t lock; /* of the view, for readers on other threads; only the owner writes */
    slu_trainer_view view;
    struct { /* when the histories last got a point */
        int64_t us;
        uint64_t received, samples, dead, outbox;
    } point;

    uint64_t logged_events, logged_samples; /* at the last line */
    int64_t logged_us;                      /* monotonic */
};

/* ---- metrics ----------------------------------------------------------------------------------------------
 */

static void register_tasks(slu_dashboard *d)
{
    for (uint32_t i = 0; i < 2 * d->options->n_steps; i++) {
        uint32_t step = i / 2;
        const slu_step_opts *steps = d->options->steps;
        char label[256];
        snprintf(label, sizeof label, "task=\"%s\",space=\"%s\"", steps[step].name,
                 i % 2 == 0 || step == 0 ? "impression" : steps[step - 1].name);
        d->tasks[i] = (task_metrics){
            slu_gauge("sluice_trainer_auc", label,
                      "Progressive AUC: predicted on arrival, scored when the label is "
                      "known."),
            slu_gauge("sluice_trainer_logloss", label, "Progressive log loss."),
            slu_gauge("sluice_trainer_ne", label, "Progressive normalised entropy."),
            slu_gauge("sluice_trainer_calibration", label, "Predicted over observed probability."),
            slu_gauge("sluice_trainer_scored", label, "Impressions whose label is known and was compared."),
            slu_gauge("sluice_trainer_positives", label, "Positive labels among them."),
        };
    }
}

slu_dashboard *slu_dashboard_new(const slu_options *options, const slu_schema *schema)
{
    slu_dashboard *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->options = options;
    pthread_mutex_init(&d->lock, NULL);
    d->view.options = options;
    d->view.schema_fingerprint = slu_schema_fingerprint(schema);
    d->view.started_us = slu_wall_us(&slu_system_clock);
    d->view.fresh_seconds = NAN;
    d->logged_us = slu_mono_us(&slu_system_clock);
    char label[64];
    for (int i = 0; i < STATES; i++) {
        snprintf(label, sizeof label, "state=\"%s\"", states[i]);
        d->events[i] = slu_gauge("sluice_trainer_events_total", label,
                                 "Events since the store was made; received = learned + waiting + dead.");
    }
    for (int i = SLU_DEAD_NONE + 1; i < SLU_DEAD_REASONS; i++) {
        snprintf(label, sizeof label, "reason=\"%s\"", slu_dead_reason_name((slu_dead_reason)i));
        d->dead[i] = slu_counter("sluice_trainer_dead_letters_total", label, "Dead events by reason.");
    }
    d->samples = slu_counter("sluice_trainer_samples_total", NULL, "Samples learned.");
    d->batches = slu_counter("sluice_trainer_batches_total", NULL, "Batches learned.");
    d->dense_steps = slu_counter("sluice_trainer_dense_steps_total", NULL, "Steps of the dense parameters.");
    d->commits = slu_counter("sluice_trainer_commits_total", NULL, "Commits of this process.");
    d->commit_seconds = slu_histogram("sluice_trainer_commit_seconds", NULL,
                                      "Duration of a commit: gathering and writing it.", 0.0005, 2, 16);
    d->commit_wait = slu_counter("sluice_trainer_commit_wait_seconds_total", NULL,
                                 "Time that the training thread has waited for commits to be written.");
    d->row_wait = slu_counter("sluice_trainer_row_wait_seconds_total", NULL,
                              "Time that the training thread has waited for rows from the store.");
    d->freshness = slu_histogram(
        "sluice_trainer_freshness_seconds", NULL,
        "From the broker's time of the newest event to the commit that has learned it.", 0.01, 2, 16);
    d->lag =
        slu_gauge("sluice_trainer_lag", NULL, "Messages in the topics that were not read yet; -1 unknown.");
    d->partitions = slu_gauge("sluice_trainer_partitions", NULL, "Partitions that are read.");
    d->watermark_behind = slu_gauge("sluice_trainer_watermark_behind_seconds", NULL,
                                    "How far the watermark is behind the wall clock.");
    d->event_behind = slu_gauge("sluice_trainer_newest_event_behind_seconds", NULL,
                                "How far the newest event time is behind the wall clock.");
    d->version = slu_gauge("sluice_trainer_version", NULL, "Version of the last commit.");
    d->loss = slu_gauge("sluice_trainer_loss", NULL, "Loss per sample, smoothed.");
    d->rows = slu_gauge("sluice_trainer_rows_cached", NULL, "Embedding rows in memory.");
    d->rows_created =
        slu_counter("sluice_trainer_rows_created_total", NULL, "Embedding rows made by this process.");
    d->rows_expired = slu_counter("sluice_trainer_rows_expired_total", NULL,
                                  "Embedding rows deleted because their time to live was over.");
    d->cache_bytes = slu_gauge("sluice_trainer_row_cache_bytes", NULL, "Memory of the row cache.");
    d->join_records =
        slu_gauge("sluice_trainer_join_records", NULL, "Impressions and steps that wait to be joined.");
    d->join_timers = slu_gauge("sluice_trainer_join_timers", NULL, "Windows that are open.");
    d->outbox =
        slu_gauge("sluice_trainer_outbox", NULL, "Deltas and dead letters that Kafka has not acknowledged.");
    d->outbox_bytes =
        slu_gauge("sluice_trainer_outbox_bytes", NULL, "Their bytes on disk; bound publish.outbox.");
    d->partitions_paused = slu_gauge("sluice_trainer_partitions_paused", NULL,
                                     "Partitions that wait because they are far ahead of the slowest.");
    d->paused =
        slu_gauge("sluice_trainer_paused", NULL, "1 while reading pauses because the outbox is full.");
    d->pending = slu_gauge("sluice_trainer_pending_samples", NULL, "Samples of the open batch.");
    register_tasks(d);
    return d;
}

void slu_dashboard_free(slu_dashboard *d)
{
    if (!d)
        return;
    pthread_mutex_destroy(&d->lock);
    free(d);
}

static void show_tasks(slu_dashboard *d, const slu_pipeline_stats *s)
{
    for (uint32_t i = 0; i < s->n_metrics; i++) {
        const slu_metric_row *r = &s->metrics[i];
        if (r->step >= d->options->n_steps)
            continue;
        const task_metrics *t = &d->tasks[2 * r->step + (r->entire_space ? 0 : 1)];
        slu_metric_set(t->auc, r->auc);
        slu_metric_set(t->logloss, r->logloss);
        slu_metric_set(t->ne, r->ne);
        slu_metric_set(t->calibration, r->calibration);
        slu_metric_set(t->count, (double)r->count);
        slu_metric_set(t->positives, (double)r->positives);
    }
}

static double behind(int64_t now_us, int64_t t_us)
{
    return t_us == INT64_MIN || t_us == 0 ? NAN : (double)(now_us - t_us) / 1e6;
}

/* A point of the curves every few seconds; the first call has nothing to compare with. */
static void remember(slu_dashboard *d)
{
    slu_trainer_view *v = &d->view;
    const slu_event_counts *e = &v->stats.events;
    int64_t now = slu_mono_us(&slu_system_clock);
    double seconds = (double)(now - d->point.us) / 1e6;
    if (d->point.us && now - d->point.us < SLU_HISTORY_STEP_US)
        return;
    if (d->point.us) {
        v->events_per_s = (double)(e->received - d->point.received) / seconds;
        v->samples_per_s = (double)(v->stats.samples - d->point.samples) / seconds;
        v->dead_per_s = (double)(e->dead - d->point.dead) / seconds;
        bool stuck = v->stats.outbox_waiting && v->stats.outbox_waiting >= d->point.outbox;
        v->outbox_stuck_seconds = stuck ? v->outbox_stuck_seconds + seconds : 0;
        slu_history_push(&v->events, v->events_per_s);
        slu_history_push(&v->samples, v->samples_per_s);
        slu_history_push(&v->lag, v->facts.lag < 0 ? NAN : (double)v->facts.lag);
        slu_history_push(&v->fresh, v->fresh_seconds);
        for (uint32_t i = 0; i < v->stats.n_metrics; i++)
            if (v->stats.metrics[i].entire_space && !isnan(v->stats.metrics[i].calibration))
                slu_history_push(&v->calibration[v->stats.metrics[i].step],
                                 fmin(fmax(v->stats.metrics[i].calibration, 0.5), 2));
    }
    d->point.us = now;
    d->point.received = e->received;
    d->point.samples = v->stats.samples;
    d->point.dead = e->dead;
    d->point.outbox = v->stats.outbox_waiting;
}

void slu_dashboard_update(slu_dashboard *d, slu_pipeline *p, const slu_dashboard_facts *facts)
{
    slu_pipeline_stats s;
    slu_pipeline_refresh(p);
    slu_pipeline_get_stats(p, &s);
    const struct {
        slu_metric *metric;
        double value;
    } mirrored[] = {
        {d->events[RECEIVED], (double)s.events.received},
        {d->events[LEARNED], (double)s.events.learned},
        {d->events[WAITING], (double)s.events.waiting},
        {d->events[DEAD], (double)s.events.dead},
        {d->samples, (double)s.samples},
        {d->batches, (double)s.batches},
        {d->dense_steps, (double)s.dense_steps},
        {d->commits, (double)s.commits},
        {d->commit_wait, (double)s.commit_wait_us / 1e6},
        {d->row_wait, (double)s.row_wait_us / 1e6},
        {d->lag, (double)facts->lag},
        {d->partitions, facts->partitions},
        {d->partitions_paused, facts->waiting},
        {d->watermark_behind, behind(facts->now_us, s.watermark_us)},
        {d->event_behind, behind(facts->now_us, s.newest_event_us)},
        {d->version, (double)s.version},
        {d->loss, s.loss_mean},
        {d->rows, (double)s.rows_cached},
        {d->rows_created, (double)s.rows_created},
        {d->rows_expired, (double)s.rows_expired},
        {d->cache_bytes, (double)s.row_cache_bytes},
        {d->join_records, (double)s.join_records},
        {d->join_timers, (double)s.join_timers},
        {d->outbox, (double)s.outbox_waiting},
        {d->outbox_bytes, (double)slu_pipeline_outbox_bytes(p)},
        {d->pending, s.pending_samples},
    };
    for (size_t i = 0; i < sizeof mirrored / sizeof *mirrored; i++)
        slu_metric_set(mirrored[i].metric, mirrored[i].value);
    for (int i = SLU_DEAD_NONE + 1; i < SLU_DEAD_REASONS; i++)
        slu_metric_set(d->dead[i], (double)s.events.dead_by_reason[i]);
    show_tasks(d, &s);
    pthread_mutex_lock(&d->lock);
    d->view.stats = s;
    d->view.facts = *facts;
    remember(d);
    pthread_mutex_unlock(&d->lock);
}

void slu_dashboard_paused(slu_dashboard *d, bool paused)
{
    slu_metric_set(d->paused, paused);
}

void slu_dashboard_commit(slu_dashboard *d, double seconds, int64_t fresh_us)
{
    slu_metric_observe(d->commit_seconds, seconds);
    if (fresh_us < 0)
        return;
    slu_metric_observe(d->freshness, (double)fresh_us / 1e6);
    pthread_mutex_lock(&d->lock);
    d->view.fresh_seconds = (double)fresh_us / 1e6;
    pthread_mutex_unlock(&d->lock);
}

/* ---- log --------------------------------------------------------------------------------------------------
 */

static const char *time_or_dash(int64_t us, char *out, size_t size)
{
    if (us <= 0)
        snprintf(out, size, "-");
    else
        slu_format_time(us, out, size);
    return out;
}

void slu_dashboard_log(slu_dashboard *d)
{
    const slu_pipeline_stats *s = &d->view.stats;
    int64_t now = slu_mono_us(&slu_system_clock);
    double seconds = (double)(now - d->logged_us) / 1e6;
    if (seconds <= 0)
        return;
    char watermark[40];
    SLU_INFO("trainer", "progress",
             SLU_F64("events_per_s", (double)(s->events.received - d->logged_events) / seconds),
             SLU_F64("samples_per_s", (double)(s->samples - d->logged_samples) / seconds),
             SLU_I64("lag", d->view.facts.lag),
             SLU_STR("watermark", time_or_dash(s->watermark_us, watermark, sizeof watermark)),
             SLU_U64("received", s->events.received), SLU_U64("learned", s->events.learned),
             SLU_U64("waiting", s->events.waiting), SLU_U64("dead", s->events.dead),
             SLU_U64("version", s->version));
    d->logged_us = now;
    d->logged_events = s->events.received;
    d->logged_samples = s->samples;
    for (uint32_t i = 0; i < s->n_metrics; i++) {
        const slu_metric_row *r = &s->metrics[i];
        if (r->count && (r->entire_space || r->step > 0))
            SLU_INFO("trainer", "task", SLU_STR("task", d->options->steps[r->step].name),
                     SLU_STR("space", r->entire_space ? "impression" : d->options->steps[r->step - 1].name),
                     SLU_U64("count", r->count), SLU_F64("auc", r->auc), SLU_F64("logloss", r->logloss),
                     SLU_F64("calibration", r->calibration));
    }
}

/* ---- page ---- */

void slu_dashboard_html(slu_dashboard *d, slu_buf *out)
{
    slu_trainer_view *v = malloc(sizeof *v); /* too large for the small stack of an HTTP thread */
    if (!v)
        return;
    pthread_mutex_lock(&d->lock);
    *v = d->view;
    pthread_mutex_unlock(&d->lock);
    v->fresh_p50 = slu_metric_quantile(d->freshness, 0.5);
    v->fresh_p99 = slu_metric_quantile(d->freshness, 0.99);
    v->commit_p99 = slu_metric_quantile(d->commit_seconds, 0.99);
    slu_trainer_page(v, out);
    free(v);
}
