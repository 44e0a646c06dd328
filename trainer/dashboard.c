#include "trainer/dashboard.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdarg.h>
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
    uint64_t schema_fingerprint;
    slu_metric *events[STATES], *dead[SLU_DEAD_REASONS];
    slu_metric *samples, *batches, *dense_steps, *commits, *commit_seconds, *freshness;
    slu_metric *lag, *partitions, *watermark_behind, *event_behind, *version, *loss;
    slu_metric *rows, *rows_created, *cache_bytes, *join_records, *join_timers, *outbox, *pending;
    task_metrics tasks[2 * SLU_MAX_STEPS];

    pthread_mutex_t lock; /* of what follows */
    slu_pipeline_stats stats;
    slu_dashboard_facts facts;
    int64_t started_us;

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
    d->schema_fingerprint = slu_schema_fingerprint(schema);
    pthread_mutex_init(&d->lock, NULL);
    d->started_us = slu_wall_us(&slu_system_clock);
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
    d->commit_seconds =
        slu_histogram("sluice_trainer_commit_seconds", NULL, "Duration of a commit.", 0.0005, 2, 16);
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
    d->cache_bytes = slu_gauge("sluice_trainer_row_cache_bytes", NULL, "Memory of the row cache.");
    d->join_records =
        slu_gauge("sluice_trainer_join_records", NULL, "Impressions and steps that wait to be joined.");
    d->join_timers = slu_gauge("sluice_trainer_join_timers", NULL, "Windows that are open.");
    d->outbox =
        slu_gauge("sluice_trainer_outbox", NULL, "Deltas and dead letters that Kafka has not acknowledged.");
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
        {d->lag, (double)facts->lag},
        {d->partitions, facts->partitions},
        {d->watermark_behind, behind(facts->now_us, s.watermark_us)},
        {d->event_behind, behind(facts->now_us, s.newest_event_us)},
        {d->version, (double)s.version},
        {d->loss, s.loss_mean},
        {d->rows, (double)s.rows_cached},
        {d->rows_created, (double)s.rows_created},
        {d->cache_bytes, (double)s.row_cache_bytes},
        {d->join_records, (double)s.join_records},
        {d->join_timers, (double)s.join_timers},
        {d->outbox, (double)s.outbox_waiting},
        {d->pending, s.pending_samples},
    };
    for (size_t i = 0; i < sizeof mirrored / sizeof *mirrored; i++)
        slu_metric_set(mirrored[i].metric, mirrored[i].value);
    for (int i = SLU_DEAD_NONE + 1; i < SLU_DEAD_REASONS; i++)
        slu_metric_set(d->dead[i], (double)s.events.dead_by_reason[i]);
    show_tasks(d, &s);
    pthread_mutex_lock(&d->lock);
    d->stats = s;
    d->facts = *facts;
    pthread_mutex_unlock(&d->lock);
}

void slu_dashboard_commit(slu_dashboard *d, double seconds, int64_t fresh_us)
{
    slu_metric_observe(d->commit_seconds, seconds);
    if (fresh_us >= 0)
        slu_metric_observe(d->freshness, (double)fresh_us / 1e6);
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
    const slu_pipeline_stats *s = &d->stats;
    int64_t now = slu_mono_us(&slu_system_clock);
    double seconds = (double)(now - d->logged_us) / 1e6;
    if (seconds <= 0)
        return;
    char watermark[40];
    SLU_INFO("trainer", "progress",
             SLU_F64("events_per_s", (double)(s->events.received - d->logged_events) / seconds),
             SLU_F64("samples_per_s", (double)(s->samples - d->logged_samples) / seconds),
             SLU_I64("lag", d->facts.lag),
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

/* ---- page
 * --------------------------------------------------------------------------------------------------- */

static void put(slu_buf *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(slu_buf *out, const char *fmt, ...)
{
    char text[512];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    slu_put_bytes(out, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

static void put_escaped(slu_buf *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("<>&\"", *text))
            put(out, "&#%d;", *text);
        else
            slu_put_u8(out, (uint8_t)*text);
    }
}

static void put_number(slu_buf *out, double v)
{
    if (isnan(v))
        put(out, "<td class=n>-");
    else
        put(out, "<td class=n>%.4f", v);
}

static void put_tasks(const slu_dashboard *d, const slu_pipeline_stats *s, slu_buf *out)
{
    put(out, "<h2>Tasks</h2><div class=table><table><tr><th>step<th>of<th class=n>scored<th class=n>positive"
             "<th class=n>AUC<th class=n>log loss<th class=n>NE<th class=n>calibration</tr>");
    for (uint32_t i = 0; i < s->n_metrics; i++) {
        const slu_metric_row *r = &s->metrics[i];
        if (!r->entire_space && r->step == 0)
            continue;
        put(out, "<tr><td>");
        put_escaped(out, d->options->steps[r->step].name);
        put(out, "<td>");
        put_escaped(out, r->entire_space ? "impressions" : d->options->steps[r->step - 1].name);
        put(out, "<td class=n>%" PRIu64 "<td class=n>%" PRIu64, r->count, r->positives);
        put_number(out, r->auc);
        put_number(out, r->logloss);
        put_number(out, r->ne);
        put_number(out, r->calibration);
        put(out, "</tr>");
    }
    put(out, "</table></div>");
}

static void put_dead(const slu_pipeline_stats *s, slu_buf *out)
{
    if (!s->events.dead)
        return;
    put(out, "<h2>Dead letters</h2><div class=table><table><tr><th>reason<th class=n>events</tr>");
    for (int i = SLU_DEAD_NONE + 1; i < SLU_DEAD_REASONS; i++)
        if (s->events.dead_by_reason[i])
            put(out, "<tr><td>%s<td class=n>%" PRIu64 "</tr>", slu_dead_reason_name((slu_dead_reason)i),
                s->events.dead_by_reason[i]);
    put(out, "</table></div>");
}

void slu_dashboard_html(slu_dashboard *d, slu_buf *out)
{
    pthread_mutex_lock(&d->lock);
    slu_pipeline_stats s = d->stats;
    slu_dashboard_facts f = d->facts;
    pthread_mutex_unlock(&d->lock);
    char watermark[40], newest[40], started[40], bytes[32];
    put(out, "<p>Model <b>");
    put_escaped(out, d->options->name);
    put(out, "</b>, version %" PRIu64 ", schema %016" PRIx64 ", config %016" PRIx64 ", running since %s.</p>",
        s.version, d->schema_fingerprint, slu_options_fingerprint(d->options),
        slu_format_time(d->started_us, started, sizeof started));
    put(out, "<h2>Events</h2><div class=table><table><tr><th class=n>received<th class=n>learned<th "
             "class=n>waiting"
             "<th class=n>dead<th class=n>lag<th class=n>partitions<th>newest event<th>watermark</tr>");
    put(out, "<tr><td class=n>%" PRIu64 "<td class=n>%" PRIu64 "<td class=n>%" PRIu64 "<td class=n>%" PRIu64,
        s.events.received, s.events.learned, s.events.waiting, s.events.dead);
    put(out, "<td class=n>%" PRId64 "<td class=n>%u<td>%s<td>%s</tr></table></div>", f.lag, f.partitions,
        time_or_dash(s.newest_event_us, newest, sizeof newest),
        time_or_dash(s.watermark_us, watermark, sizeof watermark));
    put_tasks(d, &s, out);
    put_dead(&s, out);
    put(out, "<h2>Training</h2><div class=table><table><tr><th class=n>samples<th class=n>batches<th "
             "class=n>dense steps"
             "<th class=n>commits<th class=n>rows in memory<th class=n>row cache<th class=n>open impressions"
             "<th class=n>unacknowledged</tr>");
    put(out,
        "<tr><td class=n>%" PRIu64 "<td class=n>%" PRIu64 "<td class=n>%" PRIu64 "<td class=n>%" PRIu64
        "<td class=n>%" PRIu64 "<td class=n>%s<td class=n>%" PRIu64 "<td class=n>%" PRIu64
        "</tr></table></div>",
        s.samples, s.batches, s.dense_steps, s.commits, s.rows_cached,
        slu_format_size(s.row_cache_bytes, bytes, sizeof bytes), s.join_records, s.outbox_waiting);
}
