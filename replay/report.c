#include "replay/report.h"
#include "base/clock.h"
#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char *space_of(const slu_report *r, const slu_metric_row *m)
{
    return m->entire_space ? "impression" : r->options->steps[m->step - 1].name;
}

/* Undefined numbers (an AUC without positives) print as a dash. */
static const char *number(double v, int digits, char *out, size_t size)
{
    if (isnan(v))
        snprintf(out, size, "-");
    else
        snprintf(out, size, "%.*f", digits, v);
    return out;
}

static void print_counts(const slu_report *r, FILE *out)
{
    const slu_event_counts *c = &r->stats.events;
    fprintf(out,
            "events   %" PRIu64 " received = %" PRIu64 " learned + %" PRIu64 " waiting + %" PRIu64 " dead\n",
            c->received, c->learned, c->waiting, c->dead);
    for (int i = 1; i < SLU_DEAD_REASONS; i++)
        if (c->dead_by_reason[i])
            fprintf(out, "         dead: %" PRIu64 " %s\n", c->dead_by_reason[i],
                    slu_dead_reason_name((slu_dead_reason)i));
    fprintf(out, "samples  %" PRIu64 " in %" PRIu64 " batches, %" PRIu64 " dense steps, %" PRIu64 " rows\n",
            r->stats.samples, r->stats.batches, r->stats.dense_steps, r->stats.rows_created);
    fprintf(out, "speed    %.1f s, %.0f events/s, %.0f samples/s\n", r->seconds,
            (double)c->received / r->seconds, (double)r->stats.samples / r->seconds);
}

static bool equals_live(const slu_report *r)
{
    return strcmp(r->digest, r->live_digest) == 0;
}

static const char *says_live(const slu_report *r)
{
    return !r->live_digest[0] ? ""
           : equals_live(r)   ? ", equal to the live run"
                              : ", NOT that of the live run";
}

void slu_report_print(const slu_report *r, FILE *out)
{
    char from[40] = "the beginning";
    if (r->eval_from_us != INT64_MIN)
        slu_format_time(r->eval_from_us, from, sizeof from);
    fprintf(out, "\n%s  %s, %s on %s\n", r->options->name, r->options->model.architecture,
            (const char *[]){"fnw", "window", "oracle"}[r->options->training.label_policy], r->data);
    print_counts(r, out);
    fprintf(out, "digest   %s at version %" PRIu64 "%s\n\npredicted on arrival, impressions from %s\n",
            r->digest, r->stats.version, says_live(r), from);
    fprintf(out, "%-12s %-12s %10s %10s %8s %8s %8s %8s\n", "step", "space", "count", "positives", "AUC",
            "logloss", "NE", "calib.");
    for (uint32_t i = 0; i < r->stats.n_metrics; i++) {
        const slu_metric_row *m = &r->stats.metrics[i];
        char auc[32], logloss[32], ne[32], calibration[32];
        fprintf(out, "%-12s %-12s %10" PRIu64 " %10" PRIu64 " %8s %8s %8s %8s\n",
                r->options->steps[m->step].name, space_of(r, m), m->count, m->positives,
                number(m->auc, 4, auc, sizeof auc), number(m->logloss, 5, logloss, sizeof logloss),
                number(m->ne, 4, ne, sizeof ne), number(m->calibration, 4, calibration, sizeof calibration));
    }
}

static json_t *real_or_null(double v)
{
    return isnan(v) || isinf(v) ? json_null() : json_real(v);
}

static json_t *metrics_json(const slu_report *r)
{
    json_t *list = json_array();
    for (uint32_t i = 0; i < r->stats.n_metrics; i++) {
        const slu_metric_row *m = &r->stats.metrics[i];
        json_array_append_new(list,
                              json_pack("{s:s, s:s, s:I, s:I, s:o, s:o, s:o, s:o}", "step",
                                        r->options->steps[m->step].name, "space", space_of(r, m), "count",
                                        (json_int_t)m->count, "positives", (json_int_t)m->positives, "auc",
                                        real_or_null(m->auc), "logloss", real_or_null(m->logloss), "ne",
                                        real_or_null(m->ne), "calibration", real_or_null(m->calibration)));
    }
    return list;
}

static json_t *counters_json(const slu_report *r)
{
    const slu_event_counts *c = &r->stats.events;
    json_t *dead = json_object(), *steps = json_object();
    for (int i = 1; i < SLU_DEAD_REASONS; i++)
        json_object_set_new(dead, slu_dead_reason_name((slu_dead_reason)i),
                            json_integer((json_int_t)c->dead_by_reason[i]));
    for (uint32_t i = 0; i < r->options->n_steps; i++)
        json_object_set_new(steps, r->options->steps[i].name, json_integer((json_int_t)c->steps[i]));
    return json_pack("{s:I, s:I, s:I, s:I, s:o, s:I, s:o, s:I, s:I, s:I, s:I}", "received",
                     (json_int_t)c->received, "learned", (json_int_t)c->learned, "waiting",
                     (json_int_t)c->waiting, "dead", (json_int_t)c->dead, "dead_by_reason", dead,
                     "impressions", (json_int_t)c->impressions, "steps", steps, "samples",
                     (json_int_t)r->stats.samples, "batches", (json_int_t)r->stats.batches, "dense_steps",
                     (json_int_t)r->stats.dense_steps, "rows_created", (json_int_t)r->stats.rows_created);
}

static char *report_text(const slu_report *r)
{
    char fingerprint[20], from[40];
    snprintf(fingerprint, sizeof fingerprint, "%016" PRIx64, slu_options_fingerprint(r->options));
    json_t *doc =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:f, s:o, s:o}", "name", r->options->name, "version",
                  SLU_VERSION, "config_fingerprint", fingerprint, "data", r->data, "architecture",
                  r->options->model.architecture, "model_version", (json_int_t)r->stats.version, "digest",
                  r->digest, "seconds", r->seconds, "counters", counters_json(r), "metrics", metrics_json(r));
    if (r->live_digest[0])
        json_object_set_new(doc, "equals_live", json_boolean(equals_live(r)));
    if (r->eval_from_us != INT64_MIN)
        json_object_set_new(doc, "eval_from",
                            json_string(slu_format_time(r->eval_from_us, from, sizeof from)));
    char *text = json_dumps(doc, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(doc);
    return text;
}

int slu_report_json(const slu_report *r, const char *path, slu_error *err)
{
    char *text = report_text(r);
    if (!text)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the report");
    if (strcmp(path, "-") == 0) {
        puts(text);
        free(text);
        return 0;
    }
    char temporary[4096];
    snprintf(temporary, sizeof temporary, "%s.tmp", path);
    FILE *f = fopen(temporary, "w");
    int rc = 0;
    if (!f || fprintf(f, "%s\n", text) < 0)
        rc = slu_fail(err, SLU_EIO, "--json %s: %s", path, strerror(errno));
    if (f && fclose(f) && !rc)
        rc = slu_fail(err, SLU_EIO, "--json %s: %s", path, strerror(errno));
    if (!rc && rename(temporary, path))
        rc = slu_fail(err, SLU_EIO, "--json %s: %s", path, strerror(errno));
    free(text);
    return rc;
}
