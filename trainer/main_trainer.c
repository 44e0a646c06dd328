/* sluice-trainer: reads events from Kafka, learns, commits, publishes. One thread decides all of it in order;
 * what librdkafka, the scout of the source, the admin page and the pipeline's own threads (trainer/writer.h)
 * do beside it never changes the model. */
#include "base/admin.h"
#include "base/clock.h"
#include "base/daemon.h"
#include "base/log.h"
#include "base/process.h"
#include "store/keeper.h"
#include "trainer/commit_pace.h"
#include "trainer/dashboard.h"
#include "trainer/memory_watch.h"
#include "trainer/pace.h"
#include "trainer/partition_board.h"
#include "trainer/publisher.h"
#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define CHECK_TIMEOUT_MS 5000
#define DRAIN_TIMEOUT_MS 10000
#define CLOSE_SECONDS    10
#define LONGEST_WAIT_MS  100
#define LOG_EVERY_US     (10 * SLU_SECOND_US)
#define MIRROR_EVERY_US  (SLU_SECOND_US / 4)
#define PACE_EVERY_US    (SLU_SECOND_US / 50)
#define PACE_EVERY       256 /* records, whichever comes first */

typedef struct trainer {
    slu_options *options;
    slu_schema *schema;
    slu_store *store;
    slu_publisher *publisher;
    slu_source *source;
    slu_pipeline *pipeline;
    slu_dashboard *dashboard;
    slu_partition_board *board;
    slu_pace *pace;
    slu_memory_watch *memory;
    slu_admin *admin;
    slu_keeper *keeper;
    /* monotonic */
    int64_t committed_us, mirrored_us, logged_us, paced_us, base_us;
    int64_t base_began_us, base_next_us, base_worked_us, base_longest_us; /* of the base on its way */
    uint64_t base_bytes_before, deltas_before;
    bool base_sent, paused;
    uint64_t base_bytes, bytes_at_base; /* size of the last base; deltas published by then */
    int64_t learned_through_us;         /* as of the last durable commit */
    uint64_t commits;
    int64_t *offsets; /* (cap_offsets) scratch */
    uint32_t cap_offsets;
    uint32_t unpaced;            /* records since the partitions were last looked at */
    _Atomic uint32_t partitions; /* for the HTTP thread */
    atomic_bool stopping;
} trainer;

static int64_t mono(void)
{
    return slu_mono_us(&slu_system_clock);
}

/* ---- the admin page
 * ---------------------------------------------------------------------------------------- */

static bool ready(void *ctx, slu_buf *why)
{
    trainer *t = ctx;
    const char *reason = NULL;
    if (atomic_load(&t->stopping))
        reason = "stopping";
    else if (atomic_load(&t->partitions) == 0)
        reason = "no partition is read yet: no broker, or no topic";
    if (reason)
        slu_put_bytes(why, reason, strlen(reason));
    return !reason;
}

static void status(void *ctx, slu_buf *html)
{
    slu_dashboard_html(((trainer *)ctx)->dashboard, html);
}

static int start_admin(trainer *t, slu_error *err)
{
    if (!t->options->trainer_admin || !*t->options->trainer_admin)
        return 0;
    slu_admin_opts o = {.listen = t->options->trainer_admin,
                        .program = "sluice-trainer",
                        .ready = ready,
                        .status = status,
                        .ctx = t};
    return slu_admin_start(&o, &t->admin, err);
}

/* ---- opening
 * ------------------------------------------------------------------------------------------------ */

static slu_store_config store_config(const trainer *t)
{
    return (slu_store_config){
        .path = t->options->store.path,
        .block_cache_bytes = t->options->store.block_cache_bytes,
        /* A flush begins when half of the room is used: what is being flushed has the other half. */
        .write_buffer_bytes = t->options->memory.bytes[SLU_MEM_WRITES] / 2,
        .sync = t->options->store.sync,
        .create = true,
        .schema_text = slu_schema_text(t->schema),
        .compare = slu_pipeline_compare_schema,
        .compare_ctx = t->schema,
    };
}

/* The nearest folder above |path| that exists must be one that can be written to. */
static int check_place(const char *path, slu_error *err)
{
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", path);
    while (access(dir, F_OK) != 0) {
        char *slash = strrchr(dir, '/');
        if (!slash)
            snprintf(dir, sizeof dir, ".");
        else if (slash == dir)
            dir[1] = 0;
        else
            *slash = 0;
    }
    struct stat st;
    if (stat(dir, &st) == 0 && !S_ISDIR(st.st_mode))
        return slu_fail(err, SLU_EIO, "store.path %s: %s is not a folder", path, dir);
    if (access(dir, W_OK | X_OK) != 0)
        return slu_fail(err, SLU_EIO, "store.path %s: cannot write to %s: %s", path, dir, strerror(errno));
    return 0;
}

/* --check: everything that a start would trip over, without changing anything. */
static int check(trainer *t, slu_error *err)
{
    int rc = check_place(t->options->store.path, err);
    if (!rc) {
        slu_store_config config = store_config(t);
        config.create = false;
        config.read_only = true;
        slu_error missing = SLU_ERROR_INIT;
        rc = slu_store_open(&config, &t->store, &missing);
        if (rc == SLU_ENOTFOUND)
            rc = 0;
        else if (rc)
            slu_fail(err, rc, "%s", missing.message);
    }
    if (!rc)
        rc = slu_kafka_source_open(t->options, NULL, CHECK_TIMEOUT_MS, &t->source, err);
    if (!rc)
        printf("configuration OK, store %s %s, broker at %s answers\n", t->options->store.path,
               t->store ? "fits" : "will be made", t->options->kafka.brokers);
    return rc;
}

static int refuse_oracle(const trainer *t, slu_error *err)
{
    if (t->options->training.label_policy != SLU_POLICY_ORACLE)
        return 0;
    return slu_fail(
        err, SLU_ECONFIG,
        "training.label_policy: oracle needs to know the future, so only sluice-replay can use it; "
        "choose fnw or window");
}

static int open_all(trainer *t, slu_error *err)
{
    slu_store_config config = store_config(t);
    int rc = slu_store_open(&config, &t->store, err);
    if (!rc)
        rc = slu_publisher_open(t->options, true, NULL, &t->publisher, err);
    slu_sink sink = slu_publisher_sink(t->publisher);
    slu_pipeline_config pipeline = {
        .options = t->options,
        .schema = t->schema,
        .store = t->store,
        .sink = &sink,
        .room_for = slu_publisher_room_for,
        .deltas = t->options->publish.enabled,
        .order = true,
        .background = true,
        .clock = &slu_system_clock,
        .eval_from_us = INT64_MIN,
    };
    if (!rc)
        rc = slu_pipeline_open(&pipeline, &t->pipeline, err);
    if (!rc)
        rc = slu_kafka_source_open(t->options, t->store, 0, &t->source, err);
    t->board = slu_partition_board_new();
    t->pace = slu_pace_new(t->options->join.max_skew_us);
    if (!rc && (!t->board || !t->pace || !(t->dashboard = slu_dashboard_new(t->options, t->schema))))
        rc = slu_fail(err, SLU_ENOMEM, "out of memory");
    slu_keeper_config keeper = {
        .store = t->store,
        .dir = t->options->backup.path,
        .below = "trainer",
        .every_us = t->options->backup.every_us,
        .keep = t->options->backup.keep,
    };
    if (!rc)
        rc = slu_keeper_start(&keeper, &t->keeper, err);
    return rc;
}

/* What is durable first; Kafka's handles last, because closing them may wait for a broker that is gone. */
static void close_all(trainer *t, int status)
{
    slu_admin_stop(t->admin); /* before what its page shows */
    slu_pipeline_close(t->pipeline);
    slu_keeper_stop(t->keeper);
    slu_store_close(t->store);
    slu_daemon_exit_within(CLOSE_SECONDS, status);
    if (t->source)
        t->source->ops->close(t->source);
    if (t->publisher)
        slu_publisher_close(t->publisher);
    slu_dashboard_free(t->dashboard);
    slu_partition_board_free(t->board);
    slu_pace_free(t->pace);
    slu_memory_watch_free(t->memory);
    slu_schema_free(t->schema);
    slu_options_free(t->options);
    free(t->offsets);
}

/* ---- the loop
 * ------------------------------------------------------------------------------------------------ */

static int report_offsets(trainer *t, slu_error *err)
{
    uint32_t n = t->source->ops->partitions(t->source);
    if (n > t->cap_offsets) {
        int64_t *more = realloc(t->offsets, n * sizeof *more);
        if (!more)
            return slu_fail(err, SLU_ENOMEM, "out of memory for %u partitions", n);
        t->offsets = more;
        t->cap_offsets = n;
    }
    slu_pipeline_offsets(t->pipeline, t->source, t->offsets, n);
    t->source->ops->committed(t->source, t->offsets, n);
    return 0;
}

/* Never negative: the broker's clock may be ahead of ours, or ours set back. */
static int64_t fresh_us(int64_t learned_through_us)
{
    int64_t us = slu_wall_us(&slu_system_clock) - learned_through_us;
    return us > 0 ? us : 0;
}

/* A commit is durable, or there was none to make. */
static int committed(trainer *t, slu_error *err)
{
    int rc = slu_publisher_check(t->publisher, err);
    if (rc)
        return rc;
    slu_pipeline_stats s;
    slu_pipeline_get_stats(t->pipeline, &s);
    if (s.commits > t->commits) {
        bool news = s.committed_through_us > t->learned_through_us;
        slu_dashboard_commit(t->dashboard, (double)s.commit_us / 1e6,
                             news ? fresh_us(s.committed_through_us) : -1);
        t->learned_through_us = s.committed_through_us;
        t->commits = s.commits;
    }
    return report_offsets(t, err);
}

static int commit_now(trainer *t, slu_error *err)
{
    int rc = slu_pipeline_commit(t->pipeline, err);
    return rc ? rc : committed(t, err);
}

static bool base_due(trainer *t)
{
    const slu_publish_opts *p = &t->options->publish;
    /* A base waits for nobody, so it waits until there is room for it. */
    if (!p->enabled || slu_pipeline_base_going(t->pipeline) ||
        !slu_publisher_room_for(t->publisher, SLU_CHANNEL_DELTAS, p->chunk_bytes))
        return false;
    if (!t->base_sent) { /* the first one as soon as there is a model: scorers of another lineage wait for it
                          */
        slu_pipeline_stats s;
        slu_pipeline_get_stats(t->pipeline, &s);
        return s.version > 0;
    }
    uint64_t limit = t->base_bytes > p->base_every_bytes ? t->base_bytes : p->base_every_bytes;
    return mono() - t->base_us >= p->base_every_us ||
           slu_publisher_delta_bytes(t->publisher) - t->bytes_at_base >= limit;
}

static int begin_base(trainer *t, slu_error *err)
{
    t->base_began_us = mono();
    t->base_worked_us = t->base_longest_us = 0;
    t->base_bytes_before = slu_publisher_base_bytes(t->publisher);
    t->deltas_before = slu_publisher_delta_bytes(t->publisher);
    return slu_pipeline_base_begin(t->pipeline, err);
}

static void base_is_out(trainer *t)
{
    t->base_sent = true;
    t->base_us = mono();
    t->base_bytes = slu_publisher_base_bytes(t->publisher) - t->base_bytes_before;
    t->bytes_at_base = t->deltas_before;
    SLU_INFO("trainer", "published base", SLU_U64("bytes", t->base_bytes),
             SLU_F64("seconds", (double)(t->base_us - t->base_began_us) / 1e6),
             SLU_F64("worked_seconds", (double)t->base_worked_us / 1e6),
             SLU_F64("longest_stall_seconds", (double)t->base_longest_us / 1e6));
}

/* A base takes at most a third of the time, in short pieces, so that learning goes on beside it. */
static int base_piece(trainer *t, slu_error *err)
{
    int64_t start = mono();
    if (!slu_pipeline_base_going(t->pipeline) || start < t->base_next_us)
        return 0;
    int rc = slu_pipeline_base_next(t->pipeline, err);
    int64_t took = mono() - start;
    t->base_worked_us += took;
    t->base_longest_us = took > t->base_longest_us ? took : t->base_longest_us;
    t->base_next_us = start + 3 * took;
    if (rc == 0)
        base_is_out(t);
    if (rc == SLU_EAGAIN) { /* still due: it begins again after the next commit */
        SLU_WARN("trainer", "the base is begun again", SLU_STR("reason", err->message));
        slu_error_clear(err);
    }
    return rc == 1 || rc == SLU_EAGAIN ? 0 : rc;
}

static uint32_t waiting_partitions(const trainer *t)
{
    uint32_t waiting = 0;
    for (uint32_t i = 0; i < t->source->ops->partitions(t->source); i++)
        waiting += t->source->ops->reading(t->source, i).paused;
    return waiting;
}

static void mirror(trainer *t, int64_t now)
{
    double fraction;
    t->mirrored_us = now;
    slu_dashboard_facts facts = {
        .lag = t->source->ops->lag(t->source, &fraction),
        .partitions = t->source->ops->partitions(t->source),
        .waiting = waiting_partitions(t),
        .now_us = slu_wall_us(&slu_system_clock),
    };
    atomic_store(&t->partitions, facts.partitions);
    slu_dashboard_update(t->dashboard, t->pipeline, &facts);
    slu_partition_board_update(t->board, t->pipeline, t->source);
    slu_pipeline_stats s;
    slu_pipeline_get_stats(t->pipeline, &s);
    slu_memory_watch_update(t->memory, t->store, &s);
    slu_daemon_notify("WATCHDOG=1");
    if (now - t->logged_us >= LOG_EVERY_US) {
        t->logged_us = now;
        slu_dashboard_log(t->dashboard);
    }
}

static int64_t next_commit_us(const trainer *t)
{
    int64_t newest = slu_pipeline_newest_arrival_us(t->pipeline);
    int64_t behind = newest ? slu_wall_us(&slu_system_clock) - newest : 0;
    return t->committed_us + slu_commit_interval_us(t->options->training.commit_every_us, behind);
}

static int feed_next(trainer *t, int64_t now, slu_error *err)
{
    slu_record record;
    int64_t left_ms = (next_commit_us(t) - now) / 1000;
    bool busy = slu_pipeline_base_going(t->pipeline) || slu_pipeline_committing(t->pipeline);
    int64_t longest_ms = busy ? 1 : LONGEST_WAIT_MS;
    int wait_ms = left_ms < 0 ? 0 : left_ms > longest_ms ? (int)longest_ms : (int)left_ms;
    if (!wait_ms && slu_pipeline_committing(t->pipeline))
        wait_ms = 1; /* the next commit is due, but the disk has the last one: no reason to spin */
    bool due = t->source->ops->partitions(t->source) && slu_pipeline_more_due(t->pipeline);
    int rc = slu_source_next(t->source, due ? 0 : wait_ms, &record, err);
    if (rc < 0 || (rc == 0 && !due))
        return rc;
    if (rc == 0) /* nothing comes, and windows are still to be closed: a record of our own lets them */
        record = (slu_record){.kind = SLU_RECORD_FLUSH, .offset = -1};
    slu_partition part = t->source->ops->partition(t->source, record.partition);
    return slu_pipeline_feed(t->pipeline, &part, &record, err);
}

/* Kafka takes less than is published: what waits for it has a bound, and beyond it nothing new is read. */
static bool paused(trainer *t)
{
    uint64_t bytes = slu_pipeline_outbox_bytes(t->pipeline), limit = t->options->publish.outbox_bytes;
    bool pause = bytes > (t->paused ? limit / 4 * 3 : limit);
    if (pause == t->paused)
        return pause;
    t->paused = pause;
    slu_dashboard_paused(t->dashboard, pause);
    if (pause)
        SLU_WARN("trainer",
                 "the outbox is full (publish.outbox); reading pauses until Kafka takes what waits",
                 SLU_U64("bytes", bytes), SLU_U64("limit", limit));
    else
        SLU_INFO("trainer", "the outbox has room again; reading goes on", SLU_U64("bytes", bytes));
    return pause;
}

/* One record, or a moment of waiting. */
static int advance(trainer *t, int64_t now, slu_error *err)
{
    int rc = slu_pipeline_pump(t->pipeline, err);
    if (rc)
        return rc;
    if (!paused(t)) {
        if (++t->unpaced >= PACE_EVERY || now - t->paced_us >= PACE_EVERY_US) {
            t->paced_us = now;
            t->unpaced = 0;
            rc = slu_pace_update(t->pace, t->source, t->pipeline, err);
        }
        return rc ? rc : feed_next(t, now, err);
    }
    usleep(20000);
    return slu_publisher_check(t->publisher, err);
}

/* Begins commits when they are due and looks after the one that is on its way. */
static int tend_commits(trainer *t, int64_t now, slu_error *err)
{
    int rc = slu_pipeline_commit_poll(t->pipeline, err);
    if (rc < 0)
        return rc;
    bool settled = rc == 1;
    if (!slu_pipeline_committing(t->pipeline) &&
        (slu_pipeline_commit_due(t->pipeline) || now >= next_commit_us(t))) {
        t->committed_us = mono();
        rc = slu_pipeline_commit_begin(t->pipeline, err);
        if (rc < 0)
            return rc;
        settled |= !slu_pipeline_committing(t->pipeline); /* nothing has changed */
    }
    if (!settled)
        return 0;
    rc = committed(t, err);
    return !rc && base_due(t) ? begin_base(t, err) : rc;
}

static int loop(trainer *t, slu_error *err)
{
    t->committed_us = t->base_us = t->logged_us = mono();
    while (!slu_stop_requested) {
        int64_t now = mono();
        int rc = advance(t, now, err);
        if (rc >= 0)
            rc = tend_commits(t, now, err);
        if (rc >= 0)
            rc = base_piece(t, err);
        if (rc < 0)
            return rc;
        if (now - t->mirrored_us >= MIRROR_EVERY_US)
            mirror(t, now);
    }
    return 0;
}

/* The state is good, so what was learned is kept; acknowledgements that came while draining are taken along.
 */
static int stop(trainer *t, slu_error *err)
{
    atomic_store(&t->stopping, true);
    slu_daemon_notify("STOPPING=1");
    int rc = slu_pipeline_base_abandon(t->pipeline, err);
    if (!rc)
        rc = commit_now(t, err);
    uint64_t left = slu_publisher_drain(t->publisher, DRAIN_TIMEOUT_MS);
    if (left)
        SLU_WARN("trainer", "not everything was acknowledged; it is sent again at the next start",
                 SLU_U64("messages", left));
    if (!rc)
        rc = commit_now(t, err);
    slu_pipeline_stats s;
    slu_pipeline_get_stats(t->pipeline, &s);
    SLU_INFO("trainer", "stopped", SLU_U64("version", s.version), SLU_U64("received", s.events.received),
             SLU_U64("learned", s.events.learned), SLU_U64("waiting", s.events.waiting),
             SLU_U64("dead", s.events.dead));
    return rc;
}

static void log_start(const trainer *t)
{
    char config[20], schema[20], admin[64] = "off";
    snprintf(config, sizeof config, "%016" PRIx64, slu_options_fingerprint(t->options));
    snprintf(schema, sizeof schema, "%016" PRIx64, slu_schema_fingerprint(t->schema));
    if (t->admin) {
        const char *listen = t->options->trainer_admin, *colon = strrchr(listen, ':');
        snprintf(admin, sizeof admin, "%.*s:%d", (int)(colon ? colon - listen : 0), listen,
                 slu_admin_port(t->admin));
    }
    slu_buf topics = SLU_BUF_INIT;
    for (uint32_t i = 0; i < t->options->kafka.n_topics; i++) {
        if (i)
            slu_put_u8(&topics, ',');
        slu_put_bytes(&topics, t->options->kafka.topics[i], strlen(t->options->kafka.topics[i]));
    }
    slu_put_u8(&topics, 0);
    slu_pipeline_stats s;
    slu_pipeline_get_stats(t->pipeline, &s);
    SLU_INFO("trainer", "started", SLU_STR("program_version", SLU_VERSION),
             SLU_STR("model", t->options->name), SLU_STR("config", config), SLU_STR("schema", schema),
             SLU_STR("store", t->options->store.path), SLU_U64("version", s.version),
             SLU_U64("received", s.events.received), SLU_STR("brokers", t->options->kafka.brokers),
             SLU_STR("topics", (const char *)topics.data), SLU_STR("admin", admin));
    slu_buf_free(&topics);
}

static int run(trainer *t, slu_error *err)
{
    int rc = open_all(t, err);
    if (rc)
        return rc;
    t->memory = slu_memory_watch_new(&t->options->memory);
    if (!t->memory)
        return slu_fail(err, SLU_ENOMEM, "out of memory");
    /* The page must never show an empty store, not even before the first turn of the loop: whoever reads it
     * then would see counters fall to zero. */
    t->logged_us = mono();
    mirror(t, mono());
    rc = start_admin(t, err);
    if (rc)
        return rc;
    log_start(t);
    slu_daemon_notify("READY=1");
    rc = loop(t, err);
    if (rc == 0 || rc == SLU_EKAFKA) { /* a model that is sound is committed, whatever became of Kafka */
        int stopped = stop(t, err);
        rc = rc ? rc : stopped;
    }
    return rc;
}

int main(int argc, char **argv)
{
    slu_cli cli = {
        .program = "sluice-trainer",
        .summary =
            "Learns click and conversion probabilities from a stream of events in Kafka, while it runs.\n"
            "Stopped by SIGTERM it commits and exits 0; killed at any moment it goes on where it was.",
        .example = "  sluice-trainer --config examples/ads.yaml --check\n"
                   "  sluice-trainer --config examples/ads.yaml --set kafka.brokers=broker:9092\n",
        .needs_config = true,
    };
    slu_cli_parse(&cli, argc, argv);
    slu_process_tame_malloc();
    trainer t = {0};
    slu_error err = SLU_ERROR_INIT;
    bool logging = false;
    int rc = slu_options_load(cli.config_path, cli.sets, cli.n_sets, &t.options, &err);
    if (!rc && cli.dump_config) {
        char *text = slu_options_dump(t.options);
        fputs(text, stdout);
        free(text);
        goto done;
    }
    if (!rc)
        rc = refuse_oracle(&t, &err);
    if (!rc)
        rc = slu_schema_new(t.options, &t.schema, &err);
    if (rc)
        goto done;
    slu_log_setup((slu_log_level)t.options->log.level, (slu_log_format)t.options->log.format);
    if (cli.check) {
        rc = check(&t, &err);
        goto done;
    }
    logging = true;
    slu_daemon_signals();
    rc = run(&t, &err);
done:
    if (rc && logging)
        SLU_ERROR("trainer", "cannot go on", SLU_STR("code", slu_code_name(rc)),
                  SLU_STR("reason", err.message));
    else if (rc)
        fprintf(stderr, "sluice-trainer: %s\n", err.message);
    close_all(&t, rc ? 1 : 0);
    slu_cli_free(&cli);
    return rc ? 1 : 0;
}
