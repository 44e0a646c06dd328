/* sluice-replay: recorded events through the very pipeline of the trainer, and what the model knew when they
 * arrived; or a live run once more, from the topics, in the order that its store tells. */
#include "base/clock.h"
#include "base/daemon.h"
#include "base/log.h"
#include "replay/report.h"
#include "store/state.h"
#include "trainer/oracle.h"
#include "trainer/order_source.h"
#include "trainer/publisher.h"
#include <ctype.h>
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct arguments {
    const char *data, *json, *store, *eval_from, *dead_letters, *from_store, *until;
    int64_t eval_from_us;
    uint64_t until_version; /* 0: the newest */
} arguments;

typedef struct replay {
    slu_options *options;
    slu_schema *schema;
    slu_store *store;
    slu_store *from; /* of the live run that is repeated; NULL: recorded files are replayed */
    slu_source *source;
    slu_oracle *oracle;
    slu_publisher *publisher;
    slu_pipeline *pipeline;
    char scratch_dir[256]; /* "" when --store was given */
    int64_t started_us;
    int64_t shown_us;
    bool tty; /* standard error is a terminal; asked once, not for every event */
} replay;

static void remove_tree(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        char path[512];
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        if (unlink(path) != 0)
            remove_tree(path);
    }
    closedir(d);
    rmdir(dir);
}

/* ---- progress ---- */

static void show_progress(replay *r, bool last)
{
    int64_t now = slu_mono_us(&slu_system_clock);
    bool tty = r->tty;
    if (!last && now - r->shown_us < (tty ? 200000 : 5000000))
        return;
    r->shown_us = now;
    double fraction = last ? 1 : 0;
    if (!last && r->source->ops->lag)
        r->source->ops->lag(r->source, &fraction);
    slu_pipeline_refresh(r->pipeline);
    slu_pipeline_stats s;
    slu_pipeline_get_stats(r->pipeline, &s);
    double seconds = (double)(now - r->started_us) / 1e6;
    char bar[31];
    for (int i = 0; i < 30; i++)
        bar[i] = i < (int)(fraction * 30) ? '#' : '.';
    bar[30] = 0;
    double left = fraction > 0.01 ? seconds / fraction - seconds : 0;
    fprintf(stderr, "%s[%s] %3.0f%%  %" PRIu64 " events  %.0f samples/s  loss %.4f  %.0f s left%s",
            tty ? "\r" : "", bar, fraction * 100, s.events.received,
            seconds > 0 ? (double)s.samples / seconds : 0, s.loss_mean, left, tty ? "\033[K" : "\n");
    if (last && tty)
        fputc('\n', stderr);
    fflush(stderr);
}

/* ---- the run ---- */

static int open_store(replay *r, const char *path, slu_error *err)
{
    if (!path) {
        const char *tmp = getenv("TMPDIR");
        snprintf(r->scratch_dir, sizeof r->scratch_dir, "%s/sluice-replay-XXXXXX", tmp ? tmp : "/tmp");
        if (!mkdtemp(r->scratch_dir)) {
            r->scratch_dir[0] = 0;
            return slu_fail(err, SLU_EIO,
                            "cannot make a directory below %s for the replay's store; set TMPDIR or --store",
                            tmp ? tmp : "/tmp");
        }
        path = r->scratch_dir;
    }
    slu_store_config config = {
        .path = path,
        .block_cache_bytes = r->options->store.block_cache_bytes,
        .sync = path != r->scratch_dir && r->options->store.sync,
        .create = true,
        .schema_text = slu_schema_text(r->schema),
        .compare = slu_pipeline_compare_schema,
        .compare_ctx = r->schema,
    };
    return slu_store_open(&config, &r->store, err);
}

static int read_oracle(replay *r, const arguments *a, slu_error *err)
{
    if (a->from_store)
        return slu_fail(
            err, SLU_ECONFIG,
            "training.label_policy: oracle cannot have been used by a live run; give --from-store the "
            "configuration of that run");
    slu_source *ahead;
    fprintf(stderr, "oracle: reading all events ahead for their final labels\n");
    int rc = slu_file_source_open(r->options, r->schema, a->data, NULL, &ahead, err);
    if (rc)
        return rc;
    rc = slu_oracle_read(ahead, r->options, r->schema, &r->oracle, err);
    ahead->ops->close(ahead);
    return rc;
}

/* The store of the live run, also beside it. */
static int open_from(replay *r, const char *path, slu_error *err)
{
    slu_store_config config = {
        .path = path,
        .block_cache_bytes = r->options->store.block_cache_bytes,
        .read_only = true,
        .schema_text = slu_schema_text(r->schema),
        .compare = slu_pipeline_compare_schema,
        .compare_ctx = r->schema,
    };
    int rc = slu_store_open(&config, &r->from, err);
    return rc ? slu_error_context(err, "--from-store") : 0;
}

static int open_source(replay *r, const arguments *a, slu_error *err)
{
    if (!a->from_store)
        return slu_file_source_open(r->options, r->schema, a->data, r->store, &r->source, err);
    return slu_order_source_open(r->options, r->from, r->store, a->until_version, &r->source, err);
}

static int open_all(replay *r, const arguments *a, slu_error *err)
{
    int rc = slu_schema_new(r->options, &r->schema, err);
    if (!rc && r->options->training.label_policy == SLU_POLICY_ORACLE)
        rc = read_oracle(r, a, err);
    if (!rc && a->from_store)
        rc = open_from(r, a->from_store, err);
    if (!rc)
        rc = open_store(r, a->store, err);
    if (!rc)
        rc = open_source(r, a, err);
    if (!rc && a->dead_letters)
        rc = slu_publisher_open(r->options, false, a->dead_letters, &r->publisher, err);
    slu_sink sink = slu_publisher_sink(r->publisher);
    slu_pipeline_config config = {
        .options = r->options,
        .schema = r->schema,
        .store = r->store,
        .sink = r->publisher ? &sink : NULL,
        .clock = &slu_system_clock,
        .eval_from_us = a->eval_from_us,
        .predict_as_served = r->options->serving.precision == SLU_INT8,
        .oracle = r->oracle,
    };
    if (!rc)
        rc = slu_pipeline_open(&config, &r->pipeline, err);
    return rc;
}

static bool commit_due(const replay *r)
{
    return r->from ? slu_order_source_commit_due(r->source) : slu_pipeline_commit_due(r->pipeline);
}

/* The windows stay open, as they were in the live run. */
static int end_of_order(replay *r, slu_error *err)
{
    slu_pipeline_refresh_metrics(r->pipeline);
    show_progress(r, true);
    slu_pipeline_stats s;
    slu_pipeline_get_stats(r->pipeline, &s);
    uint64_t until = slu_order_source_until(r->source);
    return s.version == until ? 0
                              : slu_fail(err, SLU_ECORRUPT,
                                         "the order ended at version %" PRIu64 ", the replay is at %" PRIu64
                                         ": --store is not of the same run",
                                         until, s.version);
}

static int run(replay *r, slu_error *err)
{
    r->started_us = slu_mono_us(&slu_system_clock);
    r->tty = isatty(STDERR_FILENO);
    for (;;) {
        slu_record record;
        int rc = slu_stop_requested ? SLU_ECLOSED : slu_source_next(r->source, 1000, &record, err);
        if (rc == SLU_ECLOSED)
            break;
        if (rc == 1) {
            slu_partition part = r->source->ops->partition(r->source, record.partition);
            rc = slu_pipeline_feed(r->pipeline, &part, &record, err);
        }
        if (rc >= 0 && commit_due(r))
            rc = slu_pipeline_commit(r->pipeline, err);
        if (rc < 0)
            return rc;
        show_progress(r, false);
    }
    if (slu_stop_requested) {
        fprintf(stderr, "\nstopped on request: the report covers what was replayed so far\n");
        if (r->from) /* versions are those of the live run, so none ends here */
            return 0;
        return slu_pipeline_commit(r->pipeline, err);
    }
    if (r->from)
        return end_of_order(r, err);
    int rc = slu_pipeline_finish(r->pipeline, err);
    show_progress(r, true);
    return rc;
}

static void close_all(replay *r)
{
    slu_pipeline_close(r->pipeline);
    if (r->publisher)
        slu_publisher_close(r->publisher);
    if (r->source)
        r->source->ops->close(r->source);
    slu_oracle_free(r->oracle);
    slu_store_close(r->store);
    slu_store_close(r->from);
    slu_schema_free(r->schema);
    slu_options_free(r->options);
    if (r->scratch_dir[0])
        remove_tree(r->scratch_dir);
}

/* ---- the end ---- */

/* What the live run's store had at the version that was reached, when that is its newest: "" when unknown. */
static int digest_of_live(replay *r, uint64_t version, char out[33], slu_error *err)
{
    uint64_t newest;
    out[0] = 0;
    if (!r->from)
        return 0;
    int rc = slu_state_get_u64(r->from, "~version", 0, &newest, err);
    return rc || newest != version ? rc : slu_store_digest(r->from, SLU_MODEL_FAMILIES, out, err);
}

static int report(replay *r, const arguments *a, slu_error *err)
{
    slu_report report = {.options = r->options,
                         .eval_from_us = a->eval_from_us,
                         .data = r->from ? slu_store_path(r->from) : a->data};
    report.seconds = (double)(slu_mono_us(&slu_system_clock) - r->started_us) / 1e6;
    slu_pipeline_get_stats(r->pipeline, &report.stats);
    int rc = slu_pipeline_digest(r->pipeline, report.digest, err);
    if (!rc)
        rc = digest_of_live(r, report.stats.version, report.live_digest, err);
    if (!rc)
        slu_report_print(&report, a->json && strcmp(a->json, "-") == 0 ? stderr : stdout);
    if (!rc && a->json)
        rc = slu_report_json(&report, a->json, err);
    if (!rc && report.live_digest[0] && strcmp(report.digest, report.live_digest) != 0)
        rc = slu_fail(
            err, SLU_ECORRUPT,
            "the model is not that of %s at version %" PRIu64
            ": the run was made with another configuration or program, or one of the stores is damaged",
            report.data, report.stats.version);
    return rc;
}

static int check(replay *r, const arguments *a, slu_error *err)
{
    int rc = slu_schema_new(r->options, &r->schema, err);
    if (!rc && a->from_store)
        rc = open_from(r, a->from_store, err);
    else if (!rc)
        rc = slu_file_source_open(r->options, r->schema, a->data, NULL, &r->source, err);
    if (!rc)
        puts(a->from_store ? "configuration and store OK" : "configuration and files OK");
    return rc;
}

static int parse_arguments(arguments *a, slu_error *err)
{
    if (a->eval_from && slu_parse_time(a->eval_from, &a->eval_from_us))
        return slu_fail(err, SLU_ECONFIG, "--eval-from %s: write a time like 2020-12-05T00:00:00Z",
                        a->eval_from);
    if (!a->until)
        return 0;
    char *end;
    a->until_version = strtoull(a->until, &end, 10);
    if (*end || !isdigit((unsigned char)*a->until) || !a->until_version)
        return slu_fail(err, SLU_ECONFIG, "--until %s: write the number of a version, from 1", a->until);
    return a->from_store ? 0 : slu_fail(err, SLU_ECONFIG, "--until goes with --from-store");
}

int main(int argc, char **argv)
{
    arguments a = {.data = ".", .eval_from_us = INT64_MIN};
    const slu_cli_option own[] = {
        {"--data", "DIR", "directory of the recorded files (default: .)", &a.data},
        {"--from-store", "DIR",
         "instead of files: repeat the live run of this trainer's store (or a copy) from Kafka",
         &a.from_store},
        {"--until", "VERSION", "with --from-store: up to this version (default: its newest)", &a.until},
        {"--json", "FILE", "write the report as JSON; - for standard output", &a.json},
        {"--eval-from", "TIME", "count metrics for impressions from this time on, e.g. 2020-12-05T00:00:00Z",
         &a.eval_from},
        {"--store", "DIR", "keep the model here and continue from it (default: a temporary store)", &a.store},
        {"--dead-letters", "FILE", "append what could not be used, one JSON object a line", &a.dead_letters},
        {NULL, NULL, NULL, NULL},
    };
    slu_cli cli = {
        .program = "sluice-replay",
        .summary =
            "Replays recorded events through the trainer's own pipeline. Each impression is predicted on "
            "arrival, with what\n"
            "the model knew then, and scored when its label is known: AUC, log loss, normalised entropy and "
            "calibration\n"
            "per task. The same events and config always end with the same digest. With serving.precision "
            "int8 "
            "predictions\n"
            "are those of a scorer in int8, to see what rounding costs; the model is the same.\n"
            "With --from-store it rebuilds the model of a live run: the order of events comes from the run's "
            "store, the events\n"
            "from Kafka. At the newest version the digest must be that of the store, or it exits 1.",
        .example =
            "  sluice-replay --config examples/storefront.yaml --data ../shared/data/storefront "
            "--json out.json\n"
            "  sluice-replay --config examples/storefront.yaml --data DIR --set "
            "model.architecture=mmoe --eval-from 2020-12-05\n"
            "  sluice-replay --config ads.yaml --from-store /var/lib/sluice/trainer --until 1200 --store "
            "/tmp/rebuilt\n",
        .options = own,
        .needs_config = true,
    };
    slu_cli_parse(&cli, argc, argv);
    replay r = {0};
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_options_load(cli.config_path, cli.sets, cli.n_sets, &r.options, &err);
    if (!rc && cli.dump_config) {
        char *text = slu_options_dump(r.options);
        fputs(text, stdout);
        free(text);
        goto done;
    }
    if (!rc)
        rc = parse_arguments(&a, &err);
    if (!rc && cli.check) {
        rc = check(&r, &a, &err);
        goto done;
    }
    if (rc)
        goto done;
    slu_log_setup((slu_log_level)r.options->log.level, (slu_log_format)r.options->log.format);
    slu_daemon_signals();
    rc = open_all(&r, &a, &err);
    if (!rc)
        rc = run(&r, &err);
    if (!rc)
        rc = report(&r, &a, &err);
done:
    if (rc)
        fprintf(stderr, "sluice-replay: %s\n", err.message);
    close_all(&r);
    slu_cli_free(&cli);
    return rc ? 1 : 0;
}
