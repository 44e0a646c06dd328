/* sluice-scorer: answers Score over gRPC with the newest model that the trainer has published. */
#include "base/admin.h"
#include "base/background.h"
#include "base/clock.h"
#include "base/daemon.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/page.h"
#include "model/spec.h"
#include "serving/delta_topic.h"
#include "serving/grpc_server.h"
#include "serving/score.h"
#include "serving/scorer_memory.h"
#include "serving/scorer_page.h"
#include "serving/served.h"
#include "serving/subscriber.h"
#include "serving/tls.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#define TICK_MS          100
#define STATUS_US        (5 * SLU_SECOND_US)
#define REFRESH_US       (5 * SLU_SECOND_US)
#define CHECK_TIMEOUT_MS 5000
#define CLOSE_SECONDS    15
#define OTHER_FILES      512 /* descriptors beside connections */

typedef struct scorer_metrics {
    slu_metric *version, *freshness, *rows, *bytes, *disk, *current;
    slu_metric *applied, *skipped, *gaps, *refused, *mismatches, *verified, *commits;
} scorer_metrics;

typedef struct scorer {
    slu_options *options;
    slu_schema *schema;
    slu_net *net;
    slu_scorer_memory memory;
    slu_model_table *table;
    slu_subscriber *subscriber;
    slu_scorer *score;
    slu_grpc_server *server;
    slu_admin *admin;
    scorer_page *page;
    scorer_metrics m;
    bool serving;
    bool ready; /* atomic: what the admin page says */
    int64_t status_at_us, refresh_at_us;
} scorer;

/* ---- metrics and the admin page ---- */

static void make_metrics(scorer_metrics *m)
{
    m->version = slu_gauge("sluice_scorer_version", NULL, "Version of the model that serves; 0: none.");
    m->freshness =
        slu_gauge("sluice_scorer_freshness_seconds", NULL,
                  "Now minus the broker time of the newest event that the model has learned; -1: unknown.");
    m->rows = slu_gauge("sluice_scorer_rows", NULL, "Embedding rows in memory.");
    m->bytes = slu_gauge("sluice_scorer_model_bytes", NULL, "Memory of rows and their indexes.");
    m->disk = slu_gauge("sluice_scorer_store_bytes", NULL, "Size of the scorer's store on disk.");
    m->current = slu_gauge("sluice_scorer_current", NULL,
                           "1 when there is a model and the delta topic has been read to its end.");
    m->applied = slu_counter("sluice_scorer_versions_applied_total", NULL, "Model versions applied.");
    m->skipped =
        slu_counter("sluice_scorer_chunks_skipped_total", NULL, "Delta messages of versions known already.");
    m->gaps = slu_counter("sluice_scorer_gaps_total", NULL, "Times that a base had to be waited for.");
    m->refused = slu_counter("sluice_scorer_refused_total", NULL,
                             "Delta messages of another schema, malformed, or over a limit.");
    m->mismatches = slu_counter("sluice_scorer_mismatches_total", NULL,
                                "Model versions that did not add up to what the trainer says; not applied.");
    m->verified = slu_gauge("sluice_scorer_verified_version", NULL,
                            "Newest version that adds up to what the trainer says; 0: none since the start.");
    m->commits = slu_counter("sluice_scorer_commits_total", NULL, "Commits of the scorer's store.");
}

static double freshness(int64_t learned_through_us)
{
    int64_t age_us = slu_wall_us(&slu_system_clock) - learned_through_us;
    return !learned_through_us ? -1 : age_us > 0 ? (double)age_us * 1e-6 : 0; /* clocks may be set back */
}

static void set_metrics(const scorer_metrics *m, const slu_subscriber_stats *s)
{
    slu_metric_set(m->version, (double)s->version);
    slu_metric_set(m->freshness, freshness(s->learned_through_us));
    slu_metric_set(m->rows, (double)s->rows);
    slu_metric_set(m->bytes, (double)s->bytes);
    slu_metric_set(m->disk, (double)s->disk_bytes);
    slu_metric_set(m->current, s->current);
    slu_metric_set(m->applied, (double)s->applied);
    slu_metric_set(m->skipped, (double)s->skipped);
    slu_metric_set(m->gaps, (double)s->gaps);
    slu_metric_set(m->refused, (double)s->refused);
    slu_metric_set(m->mismatches, (double)s->mismatches);
    slu_metric_set(m->verified, (double)s->verified);
    slu_metric_set(m->commits, (double)s->commits);
}

static bool is_ready(void *ctx, slu_buf *why)
{
    scorer *s = ctx;
    if (__atomic_load_n(&s->ready, __ATOMIC_ACQUIRE))
        return true;
    const char *text = "no model yet, or stopping";
    slu_put_bytes(why, text, strlen(text));
    return false;
}

static void digest(void *ctx, slu_buf *text)
{
    slu_subscriber_stats s;
    slu_subscriber_get_stats(((scorer *)ctx)->subscriber, &s);
    slu_page_put(text,
                 "version=%llu rows=%llu row_sum=%016llx%016llx dense_digest=%016llx%016llx lineage=%016llx "
                 "verified=%llu\n",
                 (unsigned long long)s.version, (unsigned long long)s.rows,
                 (unsigned long long)s.sums.rows.hi, (unsigned long long)s.sums.rows.lo,
                 (unsigned long long)s.sums.dense.hi, (unsigned long long)s.sums.dense.lo,
                 (unsigned long long)s.lineage, (unsigned long long)s.verified);
}

static void status(void *ctx, slu_buf *html)
{
    scorer_page_html(((scorer *)ctx)->page, html);
}

/* ---- setting up ---- */

/* Each connection is a descriptor, and the store and Kafka need theirs beside them, whoever connects. */
static void fit_connections(slu_serving_opts *o)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files))
        return;
    rlim_t wanted = (rlim_t)o->max_connections + OTHER_FILES, had = files.rlim_cur;
    files.rlim_cur = wanted < files.rlim_max ? wanted : files.rlim_max;
    if (had >= wanted)
        return;
    if (files.rlim_cur < had || setrlimit(RLIMIT_NOFILE, &files))
        files.rlim_cur = had;
    if (files.rlim_cur >= wanted)
        return;
    rlim_t fit = files.rlim_cur > 2 * OTHER_FILES ? files.rlim_cur - OTHER_FILES : files.rlim_cur / 2;
    SLU_WARN("scorer", "fewer connections than serving.max_connections: the system limits open files",
             SLU_U64("files", files.rlim_cur), SLU_U64("connections", fit));
    o->max_connections = fit > 1 ? (uint32_t)fit : 1;
}

/* Everything that needs neither disk nor network. */
static int make_model(scorer *s, slu_error *err)
{
    int rc = slu_schema_new(s->options, &s->schema, err);
    if (!rc)
        rc = slu_net_of(s->options, slu_schema_inputs(s->schema), &s->net, err);
    if (!rc)
        rc = slu_scorer_memory_of(s->options, &s->memory, err);
    return rc;
}

static int start(scorer *s, slu_error *err)
{
    int rc = slu_served_table(s->options, s->schema, s->net, s->memory.model, &s->table, err);
    if (rc)
        return rc;
    fit_connections(&s->options->serving);
    slu_scorer_config config = {.options = s->options,
                                .schema = s->schema,
                                .net = s->net,
                                .table = s->table,
                                .clock = &slu_system_clock,
                                .threads = s->options->serving.threads};
    slu_admin_opts admin = {.listen = s->options->scorer_admin,
                            .program = "sluice-scorer",
                            .ready = is_ready,
                            .status = status,
                            .digest = digest,
                            .ctx = s};
    make_metrics(&s->m);
    rc = slu_scorer_new(&config, &s->score, err);
    if (rc)
        return rc;
    s->page = scorer_page_new(s->options, slu_schema_fingerprint(s->schema), slu_scorer_products(s->score));
    if (!s->page)
        return slu_fail(err, SLU_ENOMEM, "no memory for the status page");
    rc = slu_subscriber_start(s->options, s->schema, s->table, s->memory.delta, &s->subscriber, err);
    if (!rc) {
        s->options->serving.held_bytes = s->memory.held;
        const slu_grpc_method methods[] = {{SLU_SCORE_PATH, slu_score, s->score}, {NULL, NULL, NULL}};
        rc = slu_grpc_server_start(&s->options->serving, methods, &s->server, err);
    }
    if (!rc && admin.listen)
        rc = slu_admin_start(&admin, &s->admin, err);
    return rc;
}

/* ---- running ---- */

static void tell_systemd(scorer *s, const slu_subscriber_stats *st)
{
    char line[400];
    if (st->problem[0])
        snprintf(line, sizeof line, "STATUS=version %llu, %.0f s old: %s", (unsigned long long)st->version,
                 freshness(st->learned_through_us), st->problem);
    else
        snprintf(line, sizeof line, "STATUS=version %llu, %.1f s old, %llu rows",
                 (unsigned long long)st->version, freshness(st->learned_through_us),
                 (unsigned long long)st->rows);
    slu_daemon_notify(line);
    slu_daemon_notify("WATCHDOG=1");
    s->status_at_us = slu_mono_us(&slu_system_clock) + STATUS_US;
}

static void tick(scorer *s)
{
    slu_subscriber_stats st;
    slu_subscriber_get_stats(s->subscriber, &st);
    set_metrics(&s->m, &st);
    scorer_page_update(s->page, &st, freshness(st.learned_through_us), slu_mono_us(&slu_system_clock));
    if (st.version && !s->serving) {
        s->serving = true;
        slu_grpc_server_set_serving(s->server, true);
        __atomic_store_n(&s->ready, true, __ATOMIC_RELEASE);
        SLU_INFO("scorer", "serving", SLU_U64("version", st.version),
                 SLU_I64("port", slu_grpc_server_port(s->server)));
    }
    if (slu_mono_us(&slu_system_clock) >= s->status_at_us)
        tell_systemd(s, &st);
}

/* Certificates: at once on SIGHUP, else some seconds after their files have changed. */
static void refresh(scorer *s)
{
    int64_t now = slu_mono_us(&slu_system_clock);
    bool asked = slu_reload_requested;
    if (!asked && now < s->refresh_at_us)
        return;
    slu_reload_requested = 0;
    s->refresh_at_us = now + REFRESH_US;
    if (asked && !s->options->serving.tls_certificate)
        SLU_INFO("scorer", "nothing to load again: serving.tls.certificate is not set");
    slu_grpc_server_refresh_tls(s->server, asked);
}

static void run(scorer *s)
{
    SLU_INFO("scorer", "listening", SLU_STR("model", s->options->name), SLU_STR("version", SLU_VERSION),
             SLU_I64("port", slu_grpc_server_port(s->server)),
             SLU_I64("admin_port", s->admin ? slu_admin_port(s->admin) : 0),
             SLU_U64("threads", s->options->serving.threads),
             SLU_STR("products", slu_scorer_products(s->score)));
    slu_daemon_notify("READY=1");
    while (!slu_stop_requested) {
        tick(s);
        refresh(s);
        slu_background_watch(slu_mono_us(&slu_system_clock)); /* updates are late, but they come */
        nanosleep(&(struct timespec){.tv_nsec = TICK_MS * 1000000L}, NULL);
    }
}

static int stop(scorer *s)
{
    slu_error err = SLU_ERROR_INIT;
    SLU_INFO("scorer", "stopping");
    slu_daemon_notify("STOPPING=1");
    __atomic_store_n(&s->ready, false, __ATOMIC_RELEASE);
    slu_grpc_server_set_serving(s->server, false);
    uint32_t cut = slu_grpc_server_drain(s->server, s->options->serving.drain_us);
    /* The last commit takes no time; closing Kafka's handle may wait for a broker that is gone. */
    slu_daemon_exit_within(CLOSE_SECONDS, 0);
    slu_subscriber *subscriber = s->subscriber;
    s->subscriber = NULL;
    int rc = slu_subscriber_stop(subscriber, &err);
    if (rc)
        SLU_ERROR("scorer", "the last commit failed; the next start goes on from the one before",
                  SLU_STR("reason", err.message));
    SLU_INFO("scorer", "stopped", SLU_U64("calls_cut_off", cut));
    return rc ? 1 : 0;
}

static void clear(scorer *s)
{
    slu_admin_stop(s->admin); /* before what its page shows */
    scorer_page_free(s->page);
    if (s->server)
        slu_grpc_server_free(s->server);
    slu_subscriber_stop(s->subscriber, NULL);
    slu_scorer_free(s->score);
    slu_model_table_free(s->table);
    if (s->net)
        slu_net_free(s->net);
    slu_schema_free(s->schema);
    slu_options_free(s->options);
}

static int fail(scorer *s, const slu_error *err)
{
    fprintf(stderr, "sluice-scorer: %s\n", err->message);
    clear(s);
    return err->code == SLU_ECONFIG ? 2 : 1;
}

static int dump(scorer *s)
{
    char *text = slu_options_dump(s->options);
    fputs(text, stdout);
    free(text);
    clear(s);
    return 0;
}

static int check_tls(const slu_serving_opts *o, slu_error *err)
{
    slu_tls_facts facts;
    if (!o->tls_certificate)
        return 0;
    int rc = slu_tls_check(o, &facts, err);
    if (facts.advice[0])
        fprintf(stderr, "sluice-scorer: warning: %s\n", facts.advice);
    return rc;
}

static int check(scorer *s)
{
    slu_error err = SLU_ERROR_INIT;
    if (check_tls(&s->options->serving, &err) || delta_topic_check(s->options, CHECK_TIMEOUT_MS, &err))
        return fail(s, &err);
    printf("sluice-scorer: the configuration is fine: %u features, %zu dense parameters, schema %016llx\n",
           s->options->n_features, slu_net_params(s->net),
           (unsigned long long)slu_schema_fingerprint(s->schema));
    clear(s);
    return 0;
}

int main(int argc, char **argv)
{
    scorer s = {0};
    slu_error err = SLU_ERROR_INIT;
    slu_cli cli = {
        .program = "sluice-scorer",
        .summary = "Serves scores over gRPC (sluice.v1.Scoring) with the newest model that sluice-trainer "
                   "has published "
                   "to the delta topic.",
        .example = "  sluice-scorer --config /etc/sluice/ads.yaml\n"
                   "  sluice-scorer --config examples/ads.yaml --set serving.listen=0.0.0.0:7070 --check\n",
        .needs_config = true,
    };
    slu_cli_parse(&cli, argc, argv);
    int rc = slu_options_load(cli.config_path, cli.sets, cli.n_sets, &s.options, &err);
    bool only_check = cli.check, only_dump = cli.dump_config;
    slu_cli_free(&cli);
    if (rc)
        return fail(&s, &err);
    if (only_dump)
        return dump(&s);
    slu_log_setup((slu_log_level)s.options->log.level, (slu_log_format)s.options->log.format);
    if (make_model(&s, &err))
        return fail(&s, &err);
    if (only_check)
        return check(&s);
    slu_daemon_signals();
    slu_daemon_reloads();
    if (start(&s, &err))
        return fail(&s, &err);
    run(&s);
    rc = stop(&s);
    clear(&s);
    return rc;
}
