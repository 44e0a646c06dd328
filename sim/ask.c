/* sluice-sim ask: a client that asks a scorer, and looks at how fast, how fresh and how right the answers
 * are. */
#include "base/clock.h"
#include "sim/command.h"
#include "sim/exchange.h"
#include "sim/grpc_client.h"
#include "sim/question.h"
#include "sim/ranking.h"
#include "sluice/v1/score.pb-c.h"
#include "trainer/source.h"
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { UNAVAILABLE = 14, DEADLINE_MS = 2000, RETRY_MS = 100, WARM_SHOWINGS = 300000, MAX_FAILURES_TOLD = 3 };

/* A growing list of numbers, for percentiles. */
typedef struct sample {
    double *x; /* (n) */
    size_t n, cap;
} sample;

/* The three probabilities whose truth is known. */
typedef enum space { CLICK, CONVERSION, CLICK_AND_CONVERSION, SPACES } space;
static const char *const space_titles[SPACES] = {"click", "conversion | click", "click and conversion"};
static const char *const space_keys[SPACES] = {"click", "conversion", "entire"};

typedef struct asker {
    const slu_options *options;
    const slu_schema *schema;
    const char *address;
    slu_client_tls_files tls; /* ca NULL: plain */
    slu_grpc_client *client;
    slu_arena *arena; /* of one question */
    slu_buf request, response;
    uint32_t candidates;
    const slu_values **fields; /* (candidates) of the question at hand */
    slu_rng rng;
    /* The simulated world, or recorded impressions. */
    slu_world *world;
    int64_t world_time_us;
    slu_world_values *values; /* (candidates) */
    slu_values *own_fields;   /* (candidates * fields) */
    slu_showing *showings;    /* (candidates) */
    slu_source *source;
    /* What was seen. */
    uint64_t asked, answered, failed;
    sample latency_us, freshness_us;
    uint64_t first_version, last_version;
    slu_ranked *ranked[SPACES]; /* (n_ranked) */
    size_t n_ranked, ranked_cap;
} asker;

static void *grown(void *p, size_t n, size_t size)
{
    p = realloc(p, n * size);
    if (!p) {
        fprintf(stderr, "sluice-sim ask: out of memory\n");
        exit(1);
    }
    return p;
}

static void sample_add(sample *s, double x)
{
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 4096;
        s->x = grown(s->x, s->cap, sizeof *s->x);
    }
    s->x[s->n++] = x;
}

static int by_size(const void *pa, const void *pb)
{
    double a = *(const double *)pa, b = *(const double *)pb;
    return (a > b) - (a < b);
}

/* NAN when empty. */
static double quantile(sample *s, double q)
{
    if (!s->n)
        return NAN;
    qsort(s->x, s->n, sizeof *s->x, by_size);
    return s->x[(size_t)(q * (double)(s->n - 1) + .5)];
}

/* ---- questions ---- */

static void imagine(asker *a)
{
    /* The hour before the given time: a scorer is asked about the present. */
    int64_t back = (int64_t)(slu_rng_unit(&a->rng) * 3600) * SLU_SECOND_US;
    uint32_t n_fields = slu_schema_fields(a->schema);
    slu_showing s;
    slu_world_show(a->world, &a->rng, a->world_time_us - back, &s);
    for (uint32_t c = 0; c < a->candidates; c++) {
        if (c)
            slu_world_next_candidate(a->world, &a->rng, &s);
        a->showings[c] = s;
        slu_values *fields = &a->own_fields[c * n_fields];
        slu_exchange_fields(a->world, a->schema, &s, &a->values[c], fields);
        a->fields[c] = fields;
    }
}

/* The next impressions of the recording: the user of the first, the items of all. SLU_ECLOSED at its end. */
static int recall(asker *a, slu_error *err)
{
    slu_record r;
    for (uint32_t c = 0; c < a->candidates;) {
        int rc = slu_source_next(a->source, 100, &r, err);
        if (rc < 0)
            return rc;
        if (!rc || r.kind != SLU_RECORD_EVENT || !r.event || r.dead || r.event->kind != SLU_EVENT_IMPRESSION)
            continue;
        a->fields[c] = slu_question_keep(a->schema, r.event->fields, a->arena);
        if (!a->fields[c++])
            return slu_fail(err, SLU_ENOMEM, "question: out of memory");
    }
    return 0;
}

static int next_question(asker *a, slu_error *err)
{
    slu_arena_reset(a->arena);
    slu_buf_clear(&a->request);
    if (a->source) {
        int rc = recall(a, err);
        if (rc)
            return rc;
    } else {
        imagine(a);
    }
    return slu_question_pack(a->schema, a->fields, a->candidates, a->arena, &a->request, err);
}

/* ---- answers ---- */

static void remember_truth(asker *a, const Sluice__V1__ScoreResponse *r)
{
    if (!a->world || a->n_ranked + a->candidates > a->ranked_cap) {
        if (!a->world)
            return;
        a->ranked_cap = 2 * a->ranked_cap + a->candidates;
        for (int k = 0; k < SPACES; k++)
            a->ranked[k] = grown(a->ranked[k], a->ranked_cap, sizeof *a->ranked[k]);
    }
    for (uint32_t c = 0; c < a->candidates; c++) {
        double click = a->showings[c].p_click, conversion = a->showings[c].p_conversion,
               both = click * conversion;
        bool deep = r->n_tasks > 1;
        a->ranked[CLICK][a->n_ranked] = (slu_ranked){r->tasks[0]->entire_space[c], click, click, 1 - click};
        a->ranked[CONVERSION][a->n_ranked] =
            (slu_ranked){deep ? r->tasks[1]->conditional[c] : 0, conversion, both, click - both};
        a->ranked[CLICK_AND_CONVERSION][a->n_ranked++] =
            (slu_ranked){deep ? r->tasks[1]->entire_space[c] : 0, both, both, 1 - both};
    }
}

static int whole(const asker *a, const Sluice__V1__ScoreResponse *r, slu_error *err)
{
    if (r->n_tasks != slu_schema_steps(a->schema))
        return slu_fail(err, SLU_EFORMAT, "answer speaks of %zu tasks instead of %u", r->n_tasks,
                        slu_schema_steps(a->schema));
    for (size_t t = 0; t < r->n_tasks; t++) {
        const Sluice__V1__TaskScores *s = r->tasks[t];
        if (s->n_conditional != a->candidates || s->n_entire_space != a->candidates)
            return slu_fail(err, SLU_EFORMAT, "task %s: %zu scores for %u candidates", s->task,
                            s->n_conditional, a->candidates);
        for (uint32_t c = 0; c < a->candidates; c++)
            if (!(s->conditional[c] >= 0 && s->conditional[c] <= 1) ||
                !(s->entire_space[c] >= 0 && s->entire_space[c] <= s->conditional[c] * 1.0001f))
                return slu_fail(err, SLU_EFORMAT, "task %s: %g and %g are no probabilities", s->task,
                                (double)s->conditional[c], (double)s->entire_space[c]);
    }
    return 0;
}

static int take_answer(asker *a, double latency_us, bool compare, slu_error *err)
{
    Sluice__V1__ScoreResponse *r =
        sluice__v1__score_response__unpack(NULL, a->response.len, a->response.data);
    if (!r)
        return slu_fail(err, SLU_EFORMAT, "the answer is not a sluice.v1.ScoreResponse");
    int rc = whole(a, r, err);
    if (!rc) {
        a->answered++;
        sample_add(&a->latency_us, latency_us);
        if (r->freshness_us >= 0)
            sample_add(&a->freshness_us, (double)r->freshness_us);
        if (!a->first_version)
            a->first_version = r->model_version;
        a->last_version = r->model_version;
        if (compare)
            remember_truth(a, r);
    }
    sluice__v1__score_response__free_unpacked(r, NULL);
    return rc;
}

static int call(asker *a, char *message, size_t size)
{
    slu_error err = SLU_ERROR_INIT;
    const slu_client_tls_files *tls = a->tls.ca ? &a->tls : NULL;
    if (!a->client && slu_grpc_client_connect_tls(a->address, tls, DEADLINE_MS * 1000, &a->client, &err)) {
        snprintf(message, size, "%s", err.message);
        return -1;
    }
    int status = slu_grpc_client_call(a->client, "/sluice.v1.Scoring/Score", a->request.data, a->request.len,
                                      DEADLINE_MS * 1000, &a->response, message, size);
    if (status < 0) { /* broken: the next call begins anew */
        slu_grpc_client_free(a->client);
        a->client = NULL;
    }
    return status;
}

/* Asks until the scorer has a model, at most until |until_us|. */
static int wait_for_model(asker *a, int64_t until_us, slu_error *err)
{
    char message[512] = "";
    int rc = next_question(a, err);
    while (!rc && !slu_stop_requested) {
        int status = call(a, message, sizeof message);
        if (!status)
            return 0;
        if (status > 0 && status != UNAVAILABLE)
            return slu_fail(err, SLU_EINVAL, "%s: status %d: %s", a->address, status, message);
        if (slu_mono_us(&slu_system_clock) > until_us)
            return slu_fail(err, SLU_EAGAIN, "%s: no scores yet: %s", a->address, message);
        usleep(RETRY_MS * 1000);
    }
    return rc ? rc : slu_fail(err, SLU_ECLOSED, "stopped on request");
}

static int ask_once(asker *a, bool compare, slu_error *err)
{
    char message[512] = "";
    int rc = next_question(a, err);
    if (rc)
        return rc;
    int64_t before = slu_mono_us(&slu_system_clock);
    int status = call(a, message, sizeof message);
    double latency = (double)(slu_mono_us(&slu_system_clock) - before);
    a->asked++;
    if (!status)
        return take_answer(a, latency, compare, err);
    if (a->failed++ < MAX_FAILURES_TOLD)
        fprintf(stderr, "sluice-sim ask: %s: status %d: %s\n", a->address, status, message);
    if (status < 0)
        usleep(RETRY_MS * 1000);
    return 0;
}

/* ---- report ---- */

static void print_deciles(asker *a, uint32_t spaces)
{
    slu_decile d[SPACES][10];
    printf("\ncalibration    predicted / true, by decile of the prediction\n     ");
    for (uint32_t k = 0; k < spaces; k++) {
        slu_deciles(a->ranked[k], a->n_ranked, d[k]);
        printf("%-28s", space_titles[k]);
    }
    printf("\n");
    for (int i = 9; i >= 0; i--) {
        printf("%4d ", i + 1);
        for (uint32_t k = 0; k < spaces; k++) {
            char bar[11] = "";
            int length = (int)lround(10 * d[k][i].predicted / d[k][9].predicted);
            memset(bar, '#', (size_t)(length > 10 ? 10 : length));
            printf("%.4f / %.4f %-11s ", d[k][i].predicted, d[k][i].observed, bar);
        }
        printf("\n");
    }
}

static void print_truth(asker *a, slu_ranking ranking[SPACES])
{
    uint32_t spaces = slu_schema_steps(a->schema) > 1 ? SPACES : 1;
    printf("\n                        AUC    of truth    log loss   of truth   predicted / true\n");
    for (uint32_t k = 0; k < spaces; k++) {
        slu_rank(a->ranked[k], a->n_ranked, &ranking[k]);
        printf("%-21s %.4f    %.4f      %.5f    %.5f    %.3f\n", space_titles[k], ranking[k].auc,
               ranking[k].ceiling, ranking[k].logloss, ranking[k].floor_logloss, ranking[k].calibration);
    }
    print_deciles(a, spaces);
}

/* The same as lines of key=value, for scripts. */
static int write_values(asker *a, const char *path, const slu_ranking *ranking, slu_error *err)
{
    FILE *f = fopen(path, "w");
    if (!f)
        return slu_fail(err, SLU_EIO, "%s: cannot be written", path);
    fprintf(f, "asked=%" PRIu64 "\nanswered=%" PRIu64 "\nfailed=%" PRIu64 "\n", a->asked, a->answered,
            a->failed);
    fprintf(f, "latency_p50_us=%.0f\nlatency_p99_us=%.0f\n", quantile(&a->latency_us, .5),
            quantile(&a->latency_us, .99));
    fprintf(f, "freshness_p50_us=%.0f\nfreshness_p99_us=%.0f\n", quantile(&a->freshness_us, .5),
            quantile(&a->freshness_us, .99));
    fprintf(f, "first_version=%" PRIu64 "\nlast_version=%" PRIu64 "\n", a->first_version, a->last_version);
    for (int k = 0; k < SPACES && a->n_ranked; k++)
        fprintf(f, "%s_auc=%.5f\n%s_ceiling=%.5f\n%s_calibration=%.4f\n", space_keys[k], ranking[k].auc,
                space_keys[k], ranking[k].ceiling, space_keys[k], ranking[k].calibration);
    return fclose(f) ? slu_fail(err, SLU_EIO, "%s: cannot be written", path) : 0;
}

static int report(asker *a, const char *values_path, slu_error *err)
{
    slu_ranking ranking[SPACES] = {{0}};
    printf("scores         %" PRIu64 " requests of %u candidates, %" PRIu64 " failed; model versions %" PRIu64
           " to %" PRIu64 "\n",
           a->asked, a->candidates, a->failed, a->first_version, a->last_version);
    printf("latency        p50 %.2f ms   p99 %.2f ms\n", quantile(&a->latency_us, .5) / 1e3,
           quantile(&a->latency_us, .99) / 1e3);
    printf("freshness      p50 %.2f s    p99 %.2f s    (age of the newest event that the score knows)\n",
           quantile(&a->freshness_us, .5) / 1e6, quantile(&a->freshness_us, .99) / 1e6);
    if (a->n_ranked)
        print_truth(a, ranking);
    return values_path ? write_values(a, values_path, ranking, err) : 0;
}

/* ---- command ---- */

static int open_asker(asker *a, const char *data, uint64_t seed, slu_error *err)
{
    uint32_t n_fields = slu_schema_fields(a->schema);
    a->arena = slu_arena_new(1 << 16, 1 << 28);
    a->fields = grown(NULL, a->candidates, sizeof *a->fields);
    if (!a->arena)
        return slu_fail(err, SLU_ENOMEM, "out of memory");
    if (data)
        return slu_file_source_open(a->options, a->schema, data, NULL, &a->source, err);
    a->values = grown(NULL, a->candidates, sizeof *a->values);
    a->own_fields = grown(NULL, (size_t)a->candidates * n_fields, sizeof *a->own_fields);
    a->showings = grown(NULL, a->candidates, sizeof *a->showings);
    int rc = slu_world_new(&(slu_world_opts){.seed = seed}, &a->world, err);
    if (rc)
        return rc;
    slu_rng_seed(&a->rng, slu_mix64(seed ^ 0x61736bULL));
    /* Users as they are some way into a run: with recent clicks of their own. */
    for (int i = 0; i < WARM_SHOWINGS; i++) {
        slu_showing s;
        slu_world_show(a->world, &a->rng, a->world_time_us, &s);
        if (slu_rng_unit(&a->rng) < s.p_click)
            slu_world_clicked(a->world, s.user, s.item);
    }
    return 0;
}

static void close_asker(asker *a)
{
    slu_grpc_client_free(a->client);
    if (a->source)
        a->source->ops->close(a->source);
    slu_world_free(a->world);
    slu_arena_free(a->arena);
    slu_buf_free(&a->request);
    slu_buf_free(&a->response);
    for (int k = 0; k < SPACES; k++)
        free(a->ranked[k]);
    free(a->latency_us.x);
    free(a->freshness_us.x);
    free(a->values);
    free(a->own_fields);
    free(a->showings);
    free(a->fields);
}

/* The rounds of questions: until |requests| are asked or |for_us| is over, |rate| of them a second. */
static int ask_all(asker *a, uint64_t requests, int64_t for_us, double rate, bool compare, slu_error *err)
{
    int64_t start = slu_mono_us(&slu_system_clock);
    int rc = 0;
    for (uint64_t i = 0; !rc && i < requests && !slu_stop_requested; i++) {
        int64_t now = slu_mono_us(&slu_system_clock) - start;
        int64_t due = rate > 0 ? (int64_t)((double)i / rate * 1e6) : now;
        if (for_us && now > for_us)
            break;
        if (due > now)
            usleep((useconds_t)(due - now));
        rc = ask_once(a, compare, err);
    }
    if (rc != SLU_ECLOSED) /* that would be the end of the recording */
        return rc;
    slu_error_clear(err);
    return 0;
}

int slu_sim_ask(int argc, char **argv)
{
    const char *address = NULL, *candidates = NULL, *requests = NULL, *duration = NULL, *rate = NULL,
               *wait = NULL;
    const char *tls_ca = NULL, *tls_certificate = NULL, *tls_key = NULL;
    const char *seed = NULL, *time = NULL, *load = NULL, *data = NULL, *values = NULL;
    const slu_cli_option options[] = {
        {"--to", "HOST:PORT", "the scorer (default: serving.listen)", &address},
        {"--requests", "N", "how many (default 2000; with --for: no limit)", &requests},
        {"--candidates", "N", "items per request (default 20)", &candidates},
        {"--for", "DURATION", "stop after so much time", &duration},
        {"--rate", "N", "requests per second (default: one after the other)", &rate},
        {"--wait", "DURATION", "wait so long for the scorer to have a model (default 10s)", &wait},
        {"--seed", "N", "of the world, as in produce (default 1)", &seed},
        {"--world-time", "TIME", "world time of the questions (default now); produce prints it", &time},
        {"--load", NULL, "latency and freshness only: do not compare with the truth", &load},
        {"--data", "DIRECTORY", "ask about recorded impressions instead of simulated ones", &data},
        {"--tls-ca", "FILE", "speak TLS; the PEM file of who may sign the scorer", &tls_ca},
        {"--tls-cert", "FILE", "show this certificate (PEM), for serving.tls.client_ca", &tls_certificate},
        {"--tls-key", "FILE", "its private key (default: in the same file)", &tls_key},
        {"--values", "FILE", "also write the results as lines of key=value", &values},
        {NULL, NULL, NULL, NULL},
    };
    slu_cli cli = {
        .program = "sluice-sim ask",
        .summary =
            "Asks a scorer for the probabilities of random users and items and reports latency and\n"
            "freshness. The simulated world knows the true probabilities, so the report compares: AUC\n"
            "against the AUC of the truth, log loss, calibration by decile. Exit status 1 when a\n"
            "request failed.",
        .example = "  sluice-sim ask --config examples/ads.yaml --to 127.0.0.1:7070 --requests 5000\n",
        .options = options,
        .needs_config = true};
    slu_cli_parse(&cli, argc, argv);
    const char *p = cli.program;
    int64_t for_us = slu_sim_duration(p, "--for", duration, 0);
    int64_t wait_us = slu_sim_duration(p, "--wait", wait, 10 * SLU_SECOND_US);
    uint64_t n = (uint64_t)slu_sim_number(p, "--requests", requests, for_us ? 1e15 : 2000, 1, 1e15);
    double per_second = slu_sim_number(p, "--rate", rate, 0, 0, 1e6);
    asker a = {.candidates = (uint32_t)slu_sim_number(p, "--candidates", candidates, 20, 1, 100000),
               .world_time_us = slu_wall_us(&slu_system_clock)};
    if (time && slu_parse_time(time, &a.world_time_us)) {
        fprintf(stderr, "%s: --world-time takes a time like 2026-01-31T00:00:00Z, not '%s'\n", p, time);
        slu_cli_free(&cli);
        return 2;
    }
    if (!tls_ca && (tls_certificate || tls_key)) {
        fprintf(stderr, "%s: --tls-cert and --tls-key have no meaning without --tls-ca\n", p);
        slu_cli_free(&cli);
        return 2;
    }
    a.tls = (slu_client_tls_files){tls_ca, tls_certificate, tls_key};
    slu_options *o;
    slu_schema *schema;
    slu_sim_load(&cli, &o, &schema);
    slu_daemon_signals();
    a.options = o;
    a.schema = schema;
    a.address = address ? address : o->serving.listen;
    slu_error err = SLU_ERROR_INIT;
    int rc = open_asker(&a, data, (uint64_t)slu_sim_number(p, "--seed", seed, 1, 0, 1e15), &err);
    if (!rc)
        rc = wait_for_model(&a, slu_mono_us(&slu_system_clock) + wait_us, &err);
    if (!rc)
        rc = ask_all(&a, n, for_us, per_second, !load && !data, &err);
    if (!rc)
        rc = report(&a, values, &err);
    if (rc)
        fprintf(stderr, "%s: %s\n", p, err.message);
    int status = rc || a.failed || !a.answered;
    close_asker(&a);
    slu_schema_free(schema);
    slu_options_free(o);
    slu_cli_free(&cli);
    return status;
}
