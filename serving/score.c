#include "serving/score.h"
#include "base/metrics.h"
#include "model/gemm.h"
#include "model/int8.h"
#include "serving/crew.h"
#include "serving/score_job.h"
#include "serving/score_pass.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>

/* Candidates: what the kernels take at once, so that no piece of a request ends in the middle of that; and
 * the most of a piece, so that who helps looks at requests of his own every millisecond or so. */
enum { UNIT = 24, LARGEST_PIECE = 96 };

struct slu_scorer {
    score_plan plan;
    slu_metric *candidates, *split, *helped, *seconds;
    score_names names;
    char products[240];      /* how they are computed, in words */
    score_scratch **threads; /* (plan.c.threads) */
};

/* ---- making ---- */

static void name_products(slu_scorer *s)
{
    const slu_net_int8 *int8 = s->plan.int8;
    if (int8)
        snprintf(s->products, sizeof s->products, "int8: %.0f %% of the products by %s, the rest fp32 by %s",
                 100 * slu_net_int8_share(int8), slu_int8_backend(), slu_gemm_backend());
    else
        snprintf(s->products, sizeof s->products, "fp32: %s", slu_gemm_backend());
}

const char *slu_scorer_products(const slu_scorer *s)
{
    return s->products;
}

static void make_metrics(slu_scorer *s)
{
    s->candidates = slu_counter("sluice_score_candidates_total", NULL, "Candidates scored.");
    s->split = slu_counter("sluice_score_split_total", NULL,
                           "Requests that were cut into pieces for threads that had nothing to do.");
    s->helped = slu_counter("sluice_score_helped_candidates_total", NULL,
                            "Candidates of such requests that another thread than the request's scored.");
    s->seconds = slu_histogram("sluice_score_seconds", NULL,
                               "Time from a whole request to its answer, for requests that were answered.",
                               20e-6, 1.5, 32);
}

static bool make_threads(slu_scorer *s)
{
    s->threads = calloc(s->plan.c.threads + 1, sizeof *s->threads);
    for (uint32_t i = 0; s->threads && i < s->plan.c.threads; i++)
        if (!(s->threads[i] = score_scratch_new(&s->plan)))
            return false;
    return s->threads != NULL;
}

static int derive_weights(slu_scorer *s, slu_error *err)
{
    size_t floats = score_plan_derived(&s->plan);
    return floats ? slu_model_derive(s->plan.c.table, floats, score_plan_derive, &s->plan, err) : 0;
}

int slu_scorer_new(const slu_scorer_config *config, slu_scorer **sp, slu_error *err)
{
    *sp = NULL;
    slu_scorer *s = calloc(1, sizeof *s);
    if (!s)
        goto no_memory;
    make_metrics(s);
    if (!score_plan_init(&s->plan, config) || !score_names_init(&s->names, config->options, config->schema) ||
        !make_threads(s))
        goto no_memory;
    if (derive_weights(s, err)) /* the last that can fail: from here on the table knows this scorer */
        goto no_memory;
    name_products(s);
    *sp = s;
    return 0;

no_memory:
    slu_scorer_free(s);
    return slu_fail(err, SLU_ENOMEM, "no memory for the scratch of %u scoring threads", config->threads);
}

void slu_scorer_free(slu_scorer *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; s->threads && i < s->plan.c.threads; i++)
        score_scratch_free(s->threads[i]);
    free(s->threads);
    score_plan_clear(&s->plan);
    score_names_clear(&s->names);
    free(s);
}

/* ---- one request ---- */

/* A request, cut or whole. */
typedef struct scoring {
    score_scored of;
    slu_scorer *s;
    const slu_grpc_call *call;
    score_answer *answer;
    uint32_t candidates, pieces;
    _Atomic uint32_t done; /* candidates */
    atomic_bool late;      /* the deadline has passed: nobody goes on */
} scoring;

static bool too_late(const scoring *g)
{
    return g->call->deadline_us != INT64_MAX && slu_mono_us(g->s->plan.c.clock) >= g->call->deadline_us;
}

/* Where piece |i| begins; all in whole units, the last has the rest. */
static uint32_t beginning(const scoring *g, uint32_t i)
{
    const uint64_t units = g->candidates / UNIT;
    return i == g->pieces ? g->candidates : (uint32_t)(units * i / g->pieces) * UNIT;
}

/* An slu_pieces_fn; |who| is the thread that does it. */
static void score_piece(void *ctx, uint32_t who, uint32_t piece)
{
    scoring *g = ctx;
    score_scratch *t = g->s->threads[who];
    const uint32_t end = beginning(g, piece + 1);

    for (uint32_t first = beginning(g, piece), B; first < end; first += B) {
        const float *conditional, *entire;
        if (atomic_load(&g->late))
            return;
        if (too_late(g)) {
            atomic_store(&g->late, true);
            return;
        }
        B = end - first < SCORE_PASS ? end - first : SCORE_PASS;
        score_pass(&g->of, t, first, B, &conditional, &entire);
        score_answer_put(g->answer, conditional, entire, first, B, g->s->plan.T);
        atomic_fetch_add(&g->done, B);
        if (who != g->call->thread)
            slu_metric_add(g->s->helped, B);
    }
}

/* Two for each thread that is free, so that one that comes late, or is slower, leaves the other more; but
 * none so small that what every piece costs (a thread to wake, the user's products) would show. */
static uint32_t pieces_for(const scoring *g)
{
    const uint32_t above = g->s->plan.c.options->serving.split_above;
    if (!g->call->crew || !above || g->candidates < above || !score_any_order(&g->of))
        return 1;
    const uint32_t idle = slu_crew_idle(g->call->crew);
    const uint32_t least = above / 2 > UNIT ? above / 2 : UNIT;
    const uint32_t most = least > LARGEST_PIECE ? least : LARGEST_PIECE;
    uint32_t pieces = 2 * (idle + 1);
    if (pieces < (g->candidates + most - 1) / most)
        pieces = (g->candidates + most - 1) / most;
    if (pieces > g->candidates / least)
        pieces = g->candidates / least;
    return idle && pieces ? pieces : 1;
}

static slu_grpc_status score_all(scoring *g, slu_grpc_call *call)
{
    score_share(&g->of);
    g->pieces = pieces_for(g);
    if (g->pieces == 1) {
        score_piece(g, call->thread, 0);
    } else {
        slu_crew_run(call->crew, call->thread, score_piece, g, g->pieces);
        slu_metric_add(g->s->split, 1);
    }
    if (!atomic_load(&g->late))
        return SLU_GRPC_OK;
    snprintf(call->message, sizeof call->message,
             "the deadline passed after %u of %u candidates; allow more time or send fewer candidates",
             atomic_load(&g->done), g->candidates);
    return SLU_GRPC_DEADLINE_EXCEEDED;
}

static slu_grpc_status no_model(slu_grpc_call *call)
{
    snprintf(call->message, sizeof call->message,
             "this scorer has no model yet: it waits for the first base from the trainer; try again later");
    return SLU_GRPC_UNAVAILABLE;
}

static slu_grpc_status refused(slu_grpc_call *call, const slu_error *err)
{
    snprintf(call->message, sizeof call->message, "%s", err->message);
    return err->code == SLU_ELIMIT ? SLU_GRPC_RESOURCE_EXHAUSTED : SLU_GRPC_INVALID_ARGUMENT;
}

slu_grpc_status slu_score(void *ctx, slu_grpc_call *call)
{
    slu_scorer *s = ctx;
    assert(call->thread < s->plan.c.threads);
    score_scratch *t = s->threads[call->thread];
    slu_error err = SLU_ERROR_INIT;
    score_job job;
    score_answer answer;

    if (score_job_read(&job, &s->names, call->request, call->request_len, call->arena, &err))
        return refused(call, &err);

    slu_model_view view = slu_model_read_begin(score_scratch_reader(t));
    slu_grpc_status status = SLU_GRPC_UNAVAILABLE;
    if (view.version) {
        scoring g = {.of = {&s->plan, t, view, &job},
                     .s = s,
                     .call = call,
                     .answer = &answer,
                     .candidates = job.request.candidates};
        score_answer_begin(&answer, &job, &s->names, call->response);
        status = score_all(&g, call);
    } else {
        no_model(call);
    }
    slu_model_read_end(score_scratch_reader(t));
    if (status != SLU_GRPC_OK) {
        slu_buf_clear(call->response);
        return status;
    }
    score_answer_end(&answer, view.version, view.learned_through_us, slu_wall_us(s->plan.c.clock));
    slu_metric_add(s->candidates, job.request.candidates);
    slu_metric_observe(s->seconds, (double)(slu_mono_us(s->plan.c.clock) - call->received_us) * 1e-6);
    return SLU_GRPC_OK;
}
