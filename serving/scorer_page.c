#include "serving/scorer_page.h"
#include "base/metrics.h"
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define FRESH_SECONDS 60.0

/* What the gRPC side counts, gathered from the registry. */
typedef struct calls {
    double ok, failed, refused, candidates, connections, in_flight, scored;
    double p50, p99;
} calls;

struct scorer_page {
    const slu_options *options;
    uint64_t schema_fingerprint;
    const char *products;
    pthread_mutex_t lock; /* of what follows */
    slu_subscriber_stats stats;
    calls calls;
    double fresh_seconds, calls_per_s, candidates_per_s, failed_per_s, versions_per_s;
    slu_history fresh, rate, candidates, versions;
    int64_t point_us;
    calls point;
    uint64_t point_applied;
};

scorer_page *scorer_page_new(const slu_options *options, uint64_t schema_fingerprint, const char *products)
{
    scorer_page *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->options = options;
    p->schema_fingerprint = schema_fingerprint;
    p->products = products;
    p->fresh_seconds = -1;
    pthread_mutex_init(&p->lock, NULL);
    return p;
}

void scorer_page_free(scorer_page *p)
{
    if (!p)
        return;
    pthread_mutex_destroy(&p->lock);
    free(p);
}

/* ---- gathering ---- */

static void gather(void *ctx, const char *name, const char *type, const char *help, const char *labels,
                   const slu_metric *m)
{
    calls *c = ctx;
    (void)type;
    (void)help;
    if (!strcmp(name, "sluice_grpc_calls_total") && strstr(labels, "/Score\""))
        *(strstr(labels, "\"OK\"") ? &c->ok : &c->failed) += slu_metric_value(m);
    else if (!strcmp(name, "sluice_grpc_refused_total"))
        c->refused += slu_metric_value(m);
    else if (!strcmp(name, "sluice_score_candidates_total"))
        c->candidates = slu_metric_value(m);
    else if (!strcmp(name, "sluice_grpc_connections"))
        c->connections = slu_metric_value(m);
    else if (!strcmp(name, "sluice_grpc_calls_in_flight"))
        c->in_flight = slu_metric_value(m);
    else if (!strcmp(name, "sluice_score_seconds")) {
        c->scored = slu_metric_value(m);
        c->p50 = slu_metric_quantile(m, 0.5);
        c->p99 = slu_metric_quantile(m, 0.99);
    }
}

static void remember(scorer_page *p, int64_t now_us)
{
    double seconds = (double)(now_us - p->point_us) / 1e6;
    if (p->point_us) {
        p->calls_per_s = (p->calls.ok + p->calls.failed - p->point.ok - p->point.failed) / seconds;
        p->failed_per_s = (p->calls.failed + p->calls.refused - p->point.failed - p->point.refused) / seconds;
        p->candidates_per_s = (p->calls.candidates - p->point.candidates) / seconds;
        p->versions_per_s = (double)(p->stats.applied - p->point_applied) / seconds;
        slu_history_push(&p->rate, p->calls_per_s);
        slu_history_push(&p->candidates, p->candidates_per_s);
        slu_history_push(&p->versions, p->versions_per_s);
        slu_history_push(&p->fresh, p->fresh_seconds < 0 ? NAN : p->fresh_seconds);
    }
    p->point_us = now_us;
    p->point = p->calls;
    p->point_applied = p->stats.applied;
}

void scorer_page_update(scorer_page *p, const slu_subscriber_stats *s, double fresh_seconds, int64_t now_us)
{
    calls now = {0};
    bool due = !p->point_us || now_us - p->point_us >= SLU_HISTORY_STEP_US;
    if (due)
        slu_metrics_each(gather, &now);
    pthread_mutex_lock(&p->lock);
    p->stats = *s;
    p->fresh_seconds = fresh_seconds;
    if (due) {
        p->calls = now;
        remember(p, now_us);
    }
    pthread_mutex_unlock(&p->lock);
}

/* ---- drawing ---- */

static void put_verdict(const scorer_page *p, slu_buf *out)
{
    slu_buf problems = SLU_BUF_INIT;
    if (!p->stats.version)
        slu_page_put(&problems, "No model yet: waiting for a base of the trainer.\n");
    else if (!p->stats.current)
        slu_page_put(&problems, "The delta topic has not been read to its end.\n");
    if (p->stats.problem[0])
        slu_page_put(&problems, "%s\n", p->stats.problem);
    if (p->stats.version && p->fresh_seconds > FRESH_SECONDS)
        slu_page_put(&problems,
                     "The model has learned nothing newer than %.0f s: the trainer has stopped, lags, "
                     "or no events come.\n",
                     p->fresh_seconds);
    if (p->failed_per_s > 0.01)
        slu_page_put(&problems, "%.1f requests a second are refused or fail.\n", p->failed_per_s);
    slu_put_u8(&problems, 0);
    slu_page_verdict(out, (const char *)problems.data,
                     "A current model serves, and every request is answered.");
    slu_buf_free(&problems);
}

static void put_cards(const scorer_page *p, slu_buf *out)
{
    char value[32], note[128], a[32], b[32];
    slu_page_cards_begin(out, 3);
    bool stale = p->fresh_seconds > FRESH_SECONDS;
    slu_page_card(out, &(slu_card){"Freshness: age of the newest event learned",
                                   slu_page_seconds(p->fresh_seconds, value, sizeof value),
                                   p->stats.current ? "read to the end of the delta topic" : "still reading",
                                   stale ? SLU_TONE_WARN : SLU_TONE_PLAIN, &p->fresh, NAN});
    snprintf(note, sizeof note, "%s answered, %s failed", slu_page_count(p->calls.ok, a, sizeof a),
             slu_page_count(p->calls.failed, b, sizeof b));
    slu_page_card(out, &(slu_card){"Requests a second", slu_page_count(p->calls_per_s, value, sizeof value),
                                   note, SLU_TONE_PLAIN, &p->rate, NAN});
    snprintf(note, sizeof note, "%s scored in all", slu_page_count(p->calls.candidates, a, sizeof a));
    slu_page_card(out, &(slu_card){"Candidates a second",
                                   slu_page_count(round(p->candidates_per_s), value, sizeof value), note,
                                   SLU_TONE_PLAIN, &p->candidates, NAN});
    snprintf(note, sizeof note, "p50 \xe2\x89\xa4 %s, since the start",
             slu_page_seconds(p->calls.scored > 0 ? p->calls.p50 : NAN, a, sizeof a));
    slu_page_card(out,
                  &(slu_card){"Latency, p99 \xe2\x89\xa4",
                              slu_page_seconds(p->calls.scored > 0 ? p->calls.p99 : NAN, value, sizeof value),
                              note, SLU_TONE_PLAIN, NULL, NAN});
    snprintf(note, sizeof note, "%s versions a second", slu_page_count(p->versions_per_s, a, sizeof a));
    slu_page_card(out,
                  &(slu_card){"Model version", slu_page_count((double)p->stats.version, value, sizeof value),
                              note, SLU_TONE_PLAIN, &p->versions, NAN});
    snprintf(note, sizeof note, "%s in memory, %s on disk",
             slu_page_bytes((double)p->stats.bytes, a, sizeof a),
             slu_page_bytes((double)p->stats.disk_bytes, b, sizeof b));
    slu_page_card(out,
                  &(slu_card){"Embedding rows", slu_page_count((double)p->stats.rows, value, sizeof value),
                              note, SLU_TONE_PLAIN, NULL, NAN});
    slu_page_cards_end(out);
}

static void put_row(slu_buf *out, const char *name, const char *value)
{
    slu_page_put(out, "<tr><td>%s<td>", name);
    slu_page_text(out, value);
    slu_page_put(out, "</tr>");
}

static void put_details(const scorer_page *p, slu_buf *out)
{
    const struct {
        const char *name;
        double value;
    } rows[] = {
        {"versions applied", (double)p->stats.applied},
        {"delta messages already known and skipped", (double)p->stats.skipped},
        {"delta messages refused", (double)p->stats.refused},
        {"waits for a base", (double)p->stats.gaps},
        {"versions that did not add up to what the trainer says", (double)p->stats.mismatches},
        {"newest version that did", (double)p->stats.verified},
        {"commits of the scorer's store", (double)p->stats.commits},
        {"connections open", p->calls.connections},
        {"calls in flight", p->calls.in_flight},
        {"calls and connections refused", p->calls.refused},
    };
    char text[64];
    slu_page_put(out, "<h2>Inside</h2><div class=table><table class=facts>");
    put_row(out, "model", p->options->name);
    snprintf(text, sizeof text, "%016" PRIx64, p->schema_fingerprint);
    put_row(out, "schema", text);
    snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, p->stats.sums.rows.hi, p->stats.sums.rows.lo);
    put_row(out, "rows add up to", text);
    snprintf(text, sizeof text, "%016" PRIx64 "%016" PRIx64, p->stats.sums.dense.hi, p->stats.sums.dense.lo);
    put_row(out, "digest of the dense parameters", text);
    put_row(out, "delta topic", p->options->kafka.delta_topic);
    put_row(out, "gRPC", p->options->serving.listen);
    put_row(out, "products", p->products);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        put_row(out, rows[i].name, slu_page_count(rows[i].value, text, sizeof text));
    slu_page_put(out, "</table></div>");
}

void scorer_page_html(scorer_page *p, slu_buf *out)
{
    pthread_mutex_lock(&p->lock);
    put_verdict(p, out);
    put_cards(p, out);
    put_details(p, out);
    pthread_mutex_unlock(&p->lock);
}
