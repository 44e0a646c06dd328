#include "trainer/trainer_page.h"
#include "base/text.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* From here on an operator should look. */
#define LAG_SECONDS      10.0
#define FRESH_SECONDS    30.0
#define DEAD_SHARE       0.02
#define CALIBRATION_OFF  0.25
#define ENOUGH_POSITIVES 500
#define OUTBOX_WAITING   1000
#define STUCK_SECONDS    20.0

static double behind_seconds(const slu_trainer_view *v)
{
    if (v->facts.lag <= 0)
        return 0;
    return v->events_per_s > 0 ? (double)v->facts.lag / v->events_per_s : INFINITY;
}

static bool calibrated(const slu_metric_row *r)
{
    return r->positives < ENOUGH_POSITIVES || isnan(r->calibration) ||
           fabs(log(r->calibration)) < log(1 + CALIBRATION_OFF);
}

static const char *space_of(const slu_trainer_view *v, const slu_metric_row *r)
{
    return r->entire_space ? "impressions" : v->options->steps[r->step - 1].name;
}

static void put_verdict(const slu_trainer_view *v, slu_buf *out)
{
    const slu_pipeline_stats *s = &v->stats;
    slu_buf problems = SLU_BUF_INIT;
    if (v->facts.partitions == 0)
        slu_page_put(&problems, "No partition is read: no broker answers, or there is no topic.\n");
    if (behind_seconds(v) > LAG_SECONDS)
        slu_page_put(&problems, "%" PRId64 " messages are not read yet.\n", v->facts.lag);
    if (v->fresh_seconds > FRESH_SECONDS)
        slu_page_put(&problems, "The newest event was %.0f s old when it was learned.\n", v->fresh_seconds);
    if (v->dead_per_s > DEAD_SHARE * v->events_per_s && v->dead_per_s > 0.01)
        slu_page_put(&problems, "%.1f %% of the events are dead letters now.\n",
                     v->events_per_s > 0 ? 100 * v->dead_per_s / v->events_per_s : 100.0);
    if (s->outbox_waiting > OUTBOX_WAITING || v->outbox_stuck_seconds > STUCK_SECONDS)
        slu_page_put(&problems, "%" PRIu64 " messages wait for Kafka to acknowledge them: does it answer?\n",
                     s->outbox_waiting);
    if (s->events.received != s->events.learned + s->events.waiting + s->events.dead)
        slu_page_put(&problems, "The events do not balance.\n");
    for (uint32_t i = 0; i < s->n_metrics; i++)
        if (s->metrics[i].entire_space && !calibrated(&s->metrics[i]))
            slu_page_put(&problems, "%s is predicted %.2f times as often as it happens.\n",
                         v->options->steps[s->metrics[i].step].name, s->metrics[i].calibration);
    slu_put_u8(&problems, 0);
    slu_page_verdict(out, (const char *)problems.data,
                     v->events_per_s > 0 ? "Events are read as they come, and each is accounted for."
                                         : "All events that came have been read, and each is accounted for.");
    slu_buf_free(&problems);
}

static void put_cards(const slu_trainer_view *v, slu_buf *out)
{
    char value[32], note[128], a[32], b[32];
    slu_page_cards_begin(out, 4);
    int len = snprintf(note, sizeof note, "%u partition%s read", v->facts.partitions,
                       v->facts.partitions == 1 ? "" : "s");
    if (v->facts.waiting)
        snprintf(note + len, sizeof note - (size_t)len, "; %u wait%s, ahead of the slowest", v->facts.waiting,
                 v->facts.waiting == 1 ? "s" : "");
    slu_page_card(
        out,
        &(slu_card){"Lag, messages",
                    v->facts.lag < 0 ? "unknown" : slu_page_count((double)v->facts.lag, value, sizeof value),
                    note, behind_seconds(v) > LAG_SECONDS ? SLU_TONE_WARN : SLU_TONE_PLAIN, &v->lag, NAN});
    snprintf(note, sizeof note, "p50 \xe2\x89\xa4 %s, p99 \xe2\x89\xa4 %s since the start",
             slu_page_seconds(v->fresh_p50, a, sizeof a), slu_page_seconds(v->fresh_p99, b, sizeof b));
    slu_page_card(out, &(slu_card){"Freshness: event to commit",
                                   slu_page_seconds(v->fresh_seconds, value, sizeof value), note,
                                   v->fresh_seconds > FRESH_SECONDS ? SLU_TONE_WARN : SLU_TONE_PLAIN,
                                   &v->fresh, NAN});
    snprintf(note, sizeof note, "%s learned in all", slu_page_count((double)v->stats.samples, a, sizeof a));
    slu_page_card(out, &(slu_card){"Samples a second",
                                   slu_page_count(round(v->samples_per_s), value, sizeof value), note,
                                   SLU_TONE_PLAIN, &v->samples, NAN});
    snprintf(note, sizeof note, "%s commits, p99 \xe2\x89\xa4 %s",
             slu_page_count((double)v->stats.commits, a, sizeof a),
             slu_page_seconds(v->commit_p99, b, sizeof b));
    slu_page_card(out,
                  &(slu_card){"Model version", slu_page_count((double)v->stats.version, value, sizeof value),
                              note, SLU_TONE_PLAIN, NULL, NAN});
    slu_page_cards_end(out);
}

static void put_number(slu_buf *out, double v)
{
    slu_page_put(out, isnan(v) ? "<td class=n>-" : "<td class=n>%.4f", v);
}

static void put_tasks(const slu_trainer_view *v, slu_buf *out)
{
    char text[32];
    slu_page_put(out, "<h2>Predictions, made on arrival and compared when the label is known</h2>"
                      "<div class=table><table><tr><th>task<th>of<th class=n>compared<th class=n>positive"
                      "<th class=n>AUC<th class=n>log loss<th class=n>norm. entropy<th class=n>calibration"
                      "<th>last 5 min</tr>");
    for (uint32_t i = 0; i < v->stats.n_metrics; i++) {
        const slu_metric_row *r = &v->stats.metrics[i];
        if (!r->entire_space && r->step == 0)
            continue;
        slu_page_put(out, "<tr><td>");
        slu_page_text(out, v->options->steps[r->step].name);
        slu_page_put(out, "<td>");
        slu_page_text(out, space_of(v, r));
        slu_page_put(out, "<td class=n>%s", slu_page_count((double)r->count, text, sizeof text));
        slu_page_put(out, "<td class=n>%s", slu_page_count((double)r->positives, text, sizeof text));
        put_number(out, r->auc);
        put_number(out, r->logloss);
        put_number(out, r->ne);
        put_number(out, r->calibration);
        slu_page_put(out, "<td>");
        if (r->entire_space)
            slu_page_curve(out, &v->calibration[r->step], 1);
        slu_page_put(out, "</tr>\n");
    }
    slu_page_put(out, "</table></div>");
}

static void put_events(const slu_trainer_view *v, slu_buf *out)
{
    const slu_event_counts *e = &v->stats.events;
    char text[32];
    slu_page_put(out, "<h2>Events: %s received = learned + waiting + dead</h2>",
                 slu_page_count((double)e->received, text, sizeof text));
    const slu_share shares[] = {{"learned", (double)e->learned},
                                {"waiting for their windows", (double)e->waiting},
                                {"dead letters", (double)e->dead}};
    slu_page_bar(out, shares, 3);
    if (!e->dead)
        return;
    slu_page_put(out, "<div class=table><table><tr><th>dead letters by reason<th class=n>events</tr>");
    for (int i = SLU_DEAD_NONE + 1; i < SLU_DEAD_REASONS; i++)
        if (e->dead_by_reason[i])
            slu_page_put(out, "<tr><td>%s<td class=n>%s</tr>", slu_dead_reason_name((slu_dead_reason)i),
                         slu_page_count((double)e->dead_by_reason[i], text, sizeof text));
    slu_page_put(out, "</table></div>");
}

static void put_row(slu_buf *out, const char *name, const char *value)
{
    slu_page_put(out, "<tr><td>%s<td>", name);
    slu_page_text(out, value);
    slu_page_put(out, "</tr>");
}

static const char *time_of(int64_t us, char *out, size_t size)
{
    if (us <= 0)
        snprintf(out, size, "-");
    else
        slu_format_time(us, out, size);
    return out;
}

static void put_details(const slu_trainer_view *v, slu_buf *out)
{
    const slu_pipeline_stats *s = &v->stats;
    char text[64], a[32], b[32];
    slu_page_put(out, "<h2>Inside</h2><div class=table><table class=facts>");
    put_row(out, "model", v->options->name);
    snprintf(text, sizeof text, "%016" PRIx64, v->schema_fingerprint);
    put_row(out, "schema", text);
    snprintf(text, sizeof text, "%016" PRIx64, slu_options_fingerprint(v->options));
    put_row(out, "configuration", text);
    put_row(out, "running since", time_of(v->started_us, text, sizeof text));
    put_row(out, "newest event", time_of(s->newest_event_us, text, sizeof text));
    put_row(out, "watermark", time_of(s->watermark_us, text, sizeof text));
    snprintf(text, sizeof text, "%s / %s", slu_page_count((double)s->batches, a, sizeof a),
             slu_page_count((double)s->dense_steps, b, sizeof b));
    put_row(out, "batches / dense steps", text);
    snprintf(text, sizeof text, "%s in %s", slu_page_count((double)s->rows_cached, a, sizeof a),
             slu_page_bytes((double)s->row_cache_bytes, b, sizeof b));
    put_row(out, "embedding rows in memory", text);
    snprintf(text, sizeof text, "%s / %s", slu_page_count((double)s->join_records, a, sizeof a),
             slu_page_count((double)s->join_timers, b, sizeof b));
    put_row(out, "waiting to be joined / open windows", text);
    put_row(out, "messages that Kafka has not acknowledged",
            slu_page_count((double)s->outbox_waiting, text, sizeof text));
    slu_page_put(out, "</table></div>");
}

void slu_trainer_page(const slu_trainer_view *v, slu_buf *out)
{
    put_verdict(v, out);
    put_cards(v, out);
    put_events(v, out);
    put_tasks(v, out);
    put_details(v, out);
}
