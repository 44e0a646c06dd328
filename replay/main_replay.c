/* sluice-replay: recorded events through the very pipeline of the trainer, and what the model knew when they
 * arrived. */
#include "base/clock.h"
#include "base/daemon.h"
#include "base/log.h"
#include "replay/report.h"
#include "trainer/oracle.h"
#include "trainer/publisher.h"
#include <dirent.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct replay {
    slu_options *options;
    slu_schema *schema;
    slu_store *store;
    slu_source *source;
    slu_oracle *oracle;
    slu_publisher *publisher;
    slu_pipeline *pipeline;
    char scratch_dir[256]; /* "" when --store was given */
    int64_t started_us;
    int64_t shown_us;
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
    bool tty = isatty(STDERR_FILENO);
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

static int open_all(replay *r, const char *data, const char *store, const char *dead_letters,
                    int64_t eval_from_us, slu_error *err)
{
    int rc = slu_schema_new(r->options, &r->schema, err);
    if (!rc && r->options->training.label_policy == SLU_POLICY_ORACLE) {
        slu_source *ahead;
        fprintf(stderr, "oracle: reading all events ahead for their final labels\n");
        rc = slu_file_source_open(r->options, r->schema, data, NULL, &ahead, err);
        if (!rc) {
            rc = slu_oracle_read(ahead, r->options, r->schema, &r->oracle, err);
            ahead->ops->close(ahead);
        }
    }
    if (!rc)
        rc = open_store(r, store, err);
    if (!rc)
        rc = slu_file_source_open(r->options, r->schema, data, r->store, &r->source, err);
    if (!rc && dead_letters)
        rc = slu_publisher_open(r->options, false, dead_letters, &r->publisher, err);
    slu_sink sink = slu_publisher_sink(r->publisher);
    slu_pipeline_config config = {
        .options = r->options,
        .schema = r->schema,
        .store = r->store,
        .sink = r->publisher ? &sink : NULL,
        .clock = &slu_system_clock,
        .eval_from_us = eval_from_us,
        .oracle = r->oracle,
    };
    if (!rc)
        rc = slu_pipeline_open(&config, &r->pipeline, err);
    return rc;
}

static int run(replay *r, slu_error *err)
{
    r->started_us = slu_mono_us(&slu_system_clock);
    for (;;) {
        slu_record record;
        int rc = slu_stop_requested ? SLU_ECLOSED : slu_source_next(r->source, 1000, &record, err);
        if (rc == SLU_ECLOSED)
            break;
        if (rc == 1) {
            slu_partition part = r->source->ops->partition(r->source, record.partition);
            rc = slu_pipeline_feed(r->pipeline, &part, &record, err);
        }
        if (rc >= 0 && slu_pipeline_commit_due(r->pipeline))
            rc = slu_pipeline_commit(r->pipeline, err);
        if (rc < 0)
            return rc;
        show_progress(r, false);
    }
    if (slu_stop_requested) {
        fprintf(stderr, "\nstopped on request: the report covers what was replayed so far\n");
        return slu_pipeline_commit(r->pipeline, err);
    }
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
    slu_schema_free(r->schema);
    slu_options_free(r->options);
    if (r->scratch_dir[0])
        remove_tree(r->scratch_dir);
}

int main(int argc, char **argv)
{
    const char *data = ".", *json = NULL, *store = NULL, *from = NULL, *dead_letters = NULL;
    const slu_cli_option own[] = {
        {"--data", "DIR", "directory of the recorded files (default: .)", &data},
        {"--json", "FILE", "write the report as JSON; - for standard output", &json},
        {"--eval-from", "TIME", "count metrics for impressions from this time on, e.g. 2020-12-05T00:00:00Z",
         &from},
        {"--store", "DIR", "keep the model here and continue from it (default: a temporary store)", &store},
        {"--dead-letters", "FILE", "append what could not be used, one JSON object a line", &dead_letters},
        {NULL, NULL, NULL, NULL},
    };
    slu_cli cli = {
        .program = "sluice-replay",
        .summary = "Replays recorded events through the trainer's own pipeline. Each impression is predicted "
                   "on arrival, with what\n"
                   "the model knew then, and scored when its label is known: AUC, log loss, normalised "
                   "entropy and calibration\n"
                   "per task. The same events and config always end with the same digest.",
        .example = "  sluice-replay --config examples/storefront.yaml --data ../shared/data/storefront "
                   "--json out.json\n"
                   "  sluice-replay --config examples/storefront.yaml --data DIR --set "
                   "model.architecture=mmoe --eval-from 2020-12-05\n",
        .options = own,
        .needs_config = true,
    };
    slu_cli_parse(&cli, argc, argv);
    replay r = {0};
    slu_error err = SLU_ERROR_INIT;
    int64_t eval_from_us = INT64_MIN;
    slu_report report = {0};
    int rc = slu_options_load(cli.config_path, cli.sets, cli.n_sets, &r.options, &err);
    if (!rc && cli.dump_config) {
        char *text = slu_options_dump(r.options);
        fputs(text, stdout);
        free(text);
        goto done;
    }
    if (!rc && from && slu_parse_time(from, &eval_from_us))
        rc = slu_fail(&err, SLU_ECONFIG, "--eval-from %s: write a time like 2020-12-05T00:00:00Z", from);
    if (!rc && cli.check) {
        rc = slu_schema_new(r.options, &r.schema, &err);
        if (!rc)
            rc = slu_file_source_open(r.options, r.schema, data, NULL, &r.source, &err);
        if (!rc)
            puts("configuration and files OK");
        goto done;
    }
    if (rc)
        goto done;
    slu_log_setup((slu_log_level)r.options->log.level, (slu_log_format)r.options->log.format);
    slu_daemon_signals();
    rc = open_all(&r, data, store, dead_letters, eval_from_us, &err);
    if (!rc)
        rc = run(&r, &err);
    if (rc)
        goto done;
    report = (slu_report){.options = r.options, .eval_from_us = eval_from_us, .data = data};
    report.seconds = (double)(slu_mono_us(&slu_system_clock) - r.started_us) / 1e6;
    slu_pipeline_get_stats(r.pipeline, &report.stats);
    rc = slu_pipeline_digest(r.pipeline, report.digest, &err);
    if (!rc)
        slu_report_print(&report, json && strcmp(json, "-") == 0 ? stderr : stdout);
    if (!rc && json)
        rc = slu_report_json(&report, json, &err);
done:
    if (rc)
        fprintf(stderr, "sluice-replay: %s\n", err.message);
    close_all(&r);
    slu_cli_free(&cli);
    return rc ? 1 : 0;
}
