/* sluice-sim produce and pump: events into Kafka, from the simulated exchange or from recorded files. */
#include "base/clock.h"
#include "base/log.h"
#include "sim/command.h"
#include "sim/exchange.h"
#include "sim/feeder.h"
#include "trainer/source.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { BROKER_WAIT_MS = 15000 };
#define UNLIMITED 1e15

/* What both commands share: where to, how fast, how long. */
typedef struct run {
    const char *program;
    slu_options *options;
    slu_schema *schema;
    slu_feeder *feeder;
    int64_t start_us;
    int64_t drain_us;
} run;

typedef struct run_text {
    const char *rate, *outstanding, *bytes, *duration, *drain;
} run_text;

#define RUN_OPTIONS(t)                                                                                       \
    {"--rate", "N", "at most so many events per second (default: no limit)", &(t).rate},                     \
        {"--outstanding", "N",                                                                               \
         "at most so many events not yet committed by kafka.group (default 10000; 0: unpaced)",              \
         &(t).outstanding},                                                                                  \
        {"--outstanding-bytes", "N", "and so many bytes of them in a partition (default 3000000)",           \
         &(t).bytes},                                                                                        \
        {"--for", "DURATION", "stop after so much wall time", &(t).duration},                                \
    {                                                                                                        \
        "--drain", "DURATION", "wait so long for the group to commit all of it (default: do not wait)",      \
            &(t).drain                                                                                       \
    }

static int start(run *r, const slu_cli *cli, const run_text *t, slu_error *err)
{
    slu_feeder_opts pace = {.rate = slu_sim_number(cli->program, "--rate", t->rate, 0, 0, 1e9),
                            .max_outstanding = (uint64_t)slu_sim_number(cli->program, "--outstanding",
                                                                        t->outstanding, 10000, 0, UNLIMITED),
                            .max_bytes = (uint64_t)slu_sim_number(cli->program, "--outstanding-bytes",
                                                                  t->bytes, 3e6, 1, UNLIMITED)};
    r->program = cli->program;
    int64_t for_us = slu_sim_duration(cli->program, "--for", t->duration, 0);
    pace.until_us = for_us ? slu_mono_us(&slu_system_clock) + for_us : 0;
    r->drain_us = slu_sim_duration(cli->program, "--drain", t->drain, 0);
    slu_daemon_signals();
    int rc = slu_feeder_open(r->options, r->schema, &pace, BROKER_WAIT_MS, &r->feeder, err);
    r->start_us = slu_mono_us(&slu_system_clock);
    return rc;
}

/* Sees the last messages off and prints the line that ends every run. A stop on request is a good end. */
static int finish(run *r, int rc, slu_error *err, const char *counts)
{
    if (rc == SLU_ECLOSED)
        slu_error_clear(err), rc = 0;
    double seconds = (double)(slu_mono_us(&slu_system_clock) - r->start_us) / 1e6;
    if (!rc)
        rc = slu_feeder_drain(r->feeder, false, BROKER_WAIT_MS, err);
    if (!rc && r->drain_us)
        rc = slu_feeder_drain(r->feeder, true, (int)(r->drain_us / 1000), err);
    if (rc == SLU_ECLOSED)
        slu_error_clear(err), rc = 0;
    if (rc) {
        fprintf(stderr, "%s: %s\n", r->program, err->message);
        return 1;
    }
    slu_feeder_counts c = slu_feeder_count(r->feeder);
    printf("sent=%" PRIu64 " %s seconds=%.1f per_second=%.0f\n", c.acknowledged, counts, seconds,
           seconds > 0 ? (double)c.acknowledged / seconds : 0);
    return 0;
}

static void tidy(run *r, slu_cli *cli)
{
    slu_feeder_close(r->feeder);
    slu_schema_free(r->schema);
    slu_options_free(r->options);
    slu_cli_free(cli);
}

/* ---- produce ---- */

/* Instead of Kafka: JSON lines, as the file source reads them. */
static int record(const slu_exchange_opts *opts, const slu_schema *schema, const char *path, slu_error *err)
{
    slu_world *world = NULL;
    slu_exchange *x = NULL;
    slu_event event;
    slu_buf line = SLU_BUF_INIT;
    FILE *f = fopen(path, "w");
    int rc = f ? 0 : slu_fail(err, SLU_EIO, "%s: cannot be written", path);
    if (!rc)
        rc = slu_world_new(&(slu_world_opts){.seed = opts->seed}, &world, err);
    if (!rc)
        rc = slu_exchange_new(opts, world, schema, &x, err);
    while (!rc && !slu_stop_requested && slu_exchange_next(x, &event)) {
        slu_buf_clear(&line);
        rc = slu_event_encode(schema, SLU_ENCODING_JSON, &event, &line);
        slu_put_u8(&line, '\n');
        if (!rc && fwrite(line.data, line.len, 1, f) != 1)
            rc = slu_fail(err, SLU_EIO, "%s: cannot be written", path);
    }
    if (f && fclose(f))
        rc = slu_fail(err, SLU_EIO, "%s: cannot be written", path);
    slu_buf_free(&line);
    slu_exchange_free(x);
    slu_world_free(world);
    return rc;
}

typedef struct accidents {
    slu_rng rng;
    double malformed;
    uint64_t sent;
} accidents;

/* Bytes that are no event, now and then. */
static int maybe_malformed(accidents *a, slu_feeder *f, slu_error *err)
{
    static const char junk[] = "\xff\xfe this is not an event";
    if (!(a->malformed > 0) || slu_rng_unit(&a->rng) >= a->malformed)
        return 0;
    a->sent++;
    return slu_feeder_send_raw(f, junk, sizeof junk - 1, err);
}

static int produce(run *r, const slu_exchange_opts *opts, accidents *bad, slu_exchange_counts *counts,
                   slu_error *err)
{
    slu_world *world = NULL;
    slu_exchange *x = NULL;
    slu_event event;
    int rc = slu_world_new(&(slu_world_opts){.seed = opts->seed}, &world, err);
    if (!rc)
        rc = slu_exchange_new(opts, world, r->schema, &x, err);
    while (!rc && !slu_stop_requested && slu_exchange_next(x, &event)) {
        rc = slu_feeder_send(r->feeder, &event, err);
        if (!rc)
            rc = maybe_malformed(bad, r->feeder, err);
    }
    if (x)
        *counts = slu_exchange_count(x);
    slu_exchange_free(x);
    slu_world_free(world);
    return rc;
}

int slu_sim_produce(int argc, char **argv)
{
    const char *impressions = NULL, *seed = NULL, *span = NULL, *settle = NULL, *begin = NULL;
    const char *duplicates = NULL, *disorder = NULL, *late = NULL, *orphans = NULL, *malformed = NULL;
    const char *file = NULL;
    run_text t = {NULL, NULL, NULL, NULL, NULL};
    const slu_cli_option options[] = {
        {"--impressions", "N", "how many items are shown (default 1000000)", &impressions},
        {"--seed", "N", "of the world and its events (default 1)", &seed},
        {"--span", "DURATION", "world time that they take (default 12d)", &span},
        {"--settle", "DURATION", "world time after the last one in which steps are still told (default 10m)",
         &settle},
        {"--start", "TIME", "world time of the beginning (default: so that it ends now)", &begin},
        {"--duplicates", "SHARE", "of events that arrive twice (default 0.002)", &duplicates},
        {"--disorder", "SHARE", "of events that arrive up to 2 minutes late (default 0.02)", &disorder},
        {"--late", "SHARE", "of events that arrive 3 days late (default 0.0005)", &late},
        {"--orphans", "SHARE", "clicks without impression, per impression (default 0.0005)", &orphans},
        {"--malformed", "SHARE", "messages that are no events, per event (default 0.0001)", &malformed},
        {"--file", "FILE", "write JSON lines for sluice-replay instead of sending to Kafka", &file},
        RUN_OPTIONS(t),
        {NULL, NULL, NULL, NULL},
    };
    slu_cli cli = {
        .program = "sluice-sim produce",
        .summary = "Lets the simulated ad exchange run and sends its impressions, clicks and conversions to\n"
                   "kafka.topics: the first takes impressions, the next one each step. World time is\n"
                   "compressed into as little wall time as the trainer needs. Ends with a line of counts.",
        .example = "  sluice-sim produce --config examples/ads.yaml --impressions 200000 --rate 20000\n",
        .options = options,
        .needs_config = true};
    slu_cli_parse(&cli, argc, argv);
    const char *p = cli.program;
    slu_exchange_opts x = {.seed = (uint64_t)slu_sim_number(p, "--seed", seed, 1, 0, 1e15),
                           .impressions =
                               (uint64_t)slu_sim_number(p, "--impressions", impressions, 1e6, 1, 1e12),
                           .span_us = slu_sim_duration(p, "--span", span, 12 * 86400 * SLU_SECOND_US),
                           .settle_us = slu_sim_duration(p, "--settle", settle, 600 * SLU_SECOND_US),
                           .duplicates = slu_sim_number(p, "--duplicates", duplicates, .002, 0, 1),
                           .disorder = slu_sim_number(p, "--disorder", disorder, .02, 0, 1),
                           .late = slu_sim_number(p, "--late", late, .0005, 0, 1),
                           .orphans = slu_sim_number(p, "--orphans", orphans, .0005, 0, 1)};
    accidents bad = {.malformed = slu_sim_number(p, "--malformed", malformed, .0001, 0, 1)};
    slu_rng_seed(&bad.rng, slu_mix64(x.seed ^ 0x6a756e6bULL));
    x.start_us = slu_wall_us(&slu_system_clock) - x.span_us - x.settle_us;
    if (begin && slu_parse_time(begin, &x.start_us)) {
        fprintf(stderr, "%s: --start takes a time like 2026-01-31T00:00:00Z, not '%s'\n", p, begin);
        slu_cli_free(&cli);
        return 2;
    }
    run r = {0};
    slu_sim_load(&cli, &r.options, &r.schema);
    slu_error err = SLU_ERROR_INIT;
    slu_exchange_counts c = {0};
    char line[512], time[40];
    if (file) {
        int failed = record(&x, r.schema, file, &err);
        if (failed)
            fprintf(stderr, "%s: %s\n", p, err.message);
        tidy(&r, &cli);
        return failed != 0;
    }
    int rc = start(&r, &cli, &t, &err);
    if (!rc)
        rc = produce(&r, &x, &bad, &c, &err);
    snprintf(line, sizeof line,
             "impressions=%" PRIu64 " clicks=%" PRIu64 " conversions=%" PRIu64 " duplicates=%" PRIu64
             " disordered=%" PRIu64 " late=%" PRIu64 " orphans=%" PRIu64 " malformed=%" PRIu64
             " world_time=%s",
             c.impressions, c.steps[0], c.steps[1], c.duplicates, c.disordered, c.late, c.orphans, bad.sent,
             slu_format_time(c.time_us, time, sizeof time));
    int status = finish(&r, rc, &err, line);
    tidy(&r, &cli);
    return status;
}

/* ---- pump ---- */

static int pump(run *r, slu_source *source, uint64_t limit, uint64_t *unreadable, int64_t *reached_us,
                slu_error *err)
{
    slu_record record;
    uint64_t events = 0;
    while (!slu_stop_requested && events < limit) {
        int rc = slu_source_next(source, 100, &record, err);
        if (rc == SLU_ECLOSED) {
            slu_error_clear(err);
            break;
        }
        if (rc < 0)
            return rc;
        if (!rc || record.kind != SLU_RECORD_EVENT)
            continue;
        events++;
        if (record.event && !record.dead) {
            *reached_us = record.event->time_us;
            rc = slu_feeder_send(r->feeder, record.event, err);
        } else { /* the pipeline is the one to say why it is dead */
            *unreadable += record.dead != SLU_DEAD_NONE;
            rc = slu_feeder_send_raw(r->feeder, record.bytes, record.len, err);
        }
        if (rc)
            return rc;
    }
    return 0;
}

int slu_sim_pump(int argc, char **argv)
{
    const char *data = NULL, *events = NULL;
    run_text t = {NULL, NULL, NULL, NULL, NULL};
    const slu_cli_option options[] = {
        {"--data", "DIRECTORY", "where the config's files are", &data},
        {"--events", "N", "stop after so many events (default: all)", &events},
        RUN_OPTIONS(t),
        {NULL, NULL, NULL, NULL},
    };
    slu_cli cli = {
        .program = "sluice-sim pump",
        .summary = "Sends the recorded events of the config's files to kafka.topics, in the order of their\n"
                   "time and as fast as the trainer takes them. Ends with a line of counts.",
        .example = "  sluice-sim pump --config examples/storefront.yaml --data ../shared/data/storefront\n",
        .options = options,
        .needs_config = true};
    slu_cli_parse(&cli, argc, argv);
    uint64_t limit = (uint64_t)slu_sim_number(cli.program, "--events", events, UNLIMITED, 1, UNLIMITED);
    if (!data) {
        fprintf(stderr, "%s: --data is needed: the directory of the config's files\n", cli.program);
        slu_cli_free(&cli);
        return 2;
    }
    run r = {0};
    slu_sim_load(&cli, &r.options, &r.schema);
    slu_error err = SLU_ERROR_INIT;
    slu_source *source = NULL;
    uint64_t unreadable = 0;
    int64_t reached_us = 0;
    char line[128], time[40];
    int rc = slu_file_source_open(r.options, r.schema, data, NULL, &source, &err);
    if (!rc)
        rc = start(&r, &cli, &t, &err);
    if (!rc)
        rc = pump(&r, source, limit, &unreadable, &reached_us, &err);
    snprintf(line, sizeof line, "unreadable=%" PRIu64 " world_time=%s", unreadable,
             slu_format_time(reached_us, time, sizeof time));
    int status = finish(&r, rc, &err, line);
    if (source)
        source->ops->close(source);
    tidy(&r, &cli);
    return status;
}
