#include "serving/score.h"
#include "base/cache_line.h"
#include "base/metrics.h"
#include "feature/encode.h"
#include "model/gemm.h"
#include "model/int8.h"
#include "model/loss.h"
#include "model/net_int8.h"
#include "model/pooling.h"
#include "model/shared.h"
#include "serving/score_job.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Candidates of one forward pass: enough to fill the matrix kernels, few enough that their activations stay
 * in the second-level cache. */
#define CHUNK 256u

/* Scratch of one thread. */
typedef struct score_thread {
    slu_model_reader *reader;
    slu_encoder *encoder;
    slu_workspace *work; /* CHUNK rows */
    slu_values *fields;  /* (fields) of the candidate being encoded */
    char *encoded;       /* CHUNK records, stride bytes apart */
    uint32_t *at;        /* (CHUNK) ids of each record passed so far */
    uint64_t *ids;       /* (CHUNK * max_ids of a slot) of one slot, all candidates */
    uint64_t *columns;   /* (slots, CHUNK) the same of all slots, where each gives one */
    const float **rows;  /* (CHUNK * max_ids of a slot) */
    slu_shared *shared; /* of the workspace: what all rows have in [first, first + width); NULL: width is 0 */
    uint32_t *zeros;    /* (CHUNK) row 0 of it, for each candidate */
    float *shared_x;    /* (K) pooled columns of the shared slots */
    float *shared_wide; /* (T) */
    float *wide;        /* (CHUNK, T) */
    float *conditional; /* (CHUNK, T) */
    float *entire;      /* (CHUNK, T) */
} score_thread;

struct slu_scorer {
    slu_scorer_config c;
    uint32_t K, T, slots, fields;
    uint32_t first, width; /* columns of x that are the same for all candidates and are multiplied apart */
    bool rest;             /* there are such columns beside them */
    uint32_t *looked_up;   /* (n_looked_up) of them, those with a table */
    uint32_t n_looked_up;
    size_t stride;      /* bytes of an encoded record */
    slu_net_int8 *int8; /* NULL: fp32 */
    size_t packed;      /* floats of fp32 weights in what is derived; those in integers follow */
    slu_metric *candidates, *seconds;
    score_names names;
    char products[240];    /* how they are computed, in words */
    score_thread *threads; /* (c.threads) */
};

/* ---- making ---- */

static uint32_t widest_slot(const slu_schema *schema)
{
    uint32_t widest = 1;
    for (uint32_t i = 0; i < slu_schema_slots(schema); i++)
        if (slu_schema_slot(schema, i)->max_ids > widest)
            widest = slu_schema_slot(schema, i)->max_ids;
    return widest;
}

static bool thread_init(const slu_scorer *s, score_thread *t)
{
    size_t ids = (size_t)CHUNK * widest_slot(s->c.schema), tasks = (size_t)CHUNK * s->T;
    t->reader = slu_model_reader_new(s->c.table);
    t->encoder = slu_encoder_new(s->c.schema);
    t->work = slu_workspace_new(s->c.net, CHUNK, false);
    t->fields = calloc(s->fields + 1, sizeof *t->fields);
    t->encoded = slu_cache_lines_alloc((size_t)CHUNK * s->stride);
    t->at = calloc(CHUNK, sizeof *t->at);
    t->ids = calloc(ids, sizeof *t->ids);
    t->columns = calloc((size_t)s->slots * CHUNK + 1, sizeof *t->columns);
    t->rows = calloc(ids, sizeof *t->rows);
    t->zeros = calloc(CHUNK, sizeof *t->zeros);
    t->shared = t->work && s->width ? slu_workspace_share(t->work, s->first, s->width) : NULL;
    if (t->shared) {
        t->shared->n = 1;
        t->shared->of = t->zeros;
    }
    if ((s->width && !t->shared) || (s->int8 && t->work && slu_workspace_int8(t->work, s->int8)))
        return false;
    t->shared_x = calloc(s->K, sizeof *t->shared_x);
    t->shared_wide = calloc(s->T, sizeof *t->shared_wide);
    t->wide = calloc(tasks, sizeof *t->wide);
    t->conditional = calloc(tasks, sizeof *t->conditional);
    t->entire = calloc(tasks, sizeof *t->entire);
    return t->reader && t->encoder && t->work && t->fields && t->encoded && t->at && t->ids && t->columns &&
           t->rows && t->zeros && t->shared_x && t->shared_wide && t->wide && t->conditional && t->entire;
}

static void thread_clear(score_thread *t)
{
    slu_model_reader_free(t->reader);
    if (t->encoder)
        slu_encoder_free(t->encoder);
    if (t->work)
        slu_workspace_free(t->work);
    free(t->fields);
    free(t->encoded);
    free(t->at);
    free(t->ids);
    free(t->columns);
    free(t->rows);
    free(t->zeros);
    free(t->shared_x);
    free(t->shared_wide);
    free(t->wide);
    free(t->conditional);
    free(t->entire);
}

/* What the schema says about the slots, once and for all. */
static bool plan_slots(slu_scorer *s)
{
    s->looked_up = calloc(s->slots + 1, sizeof *s->looked_up);
    for (uint32_t i = 0; s->looked_up && i < s->slots; i++) {
        const slu_slot *slot = slu_schema_slot(s->c.schema, i);
        if (slot->shared)
            s->rest |= slot->width && (slot->input < s->first || slot->input >= s->first + s->width);
        else if (slot->table != SLU_NO_TABLE)
            s->looked_up[s->n_looked_up++] = i;
    }
    return s->looked_up != NULL;
}

/* Weights as the products want them, behind each other at cache lines. */
static void pack(void *ctx, const float *dense, float *packed)
{
    const slu_scorer *s = ctx;
    if (s->packed)
        slu_net_pack(s->c.net, dense, packed);
    if (s->int8)
        slu_net_int8_pack(s->int8, dense, packed + s->packed);
}

static bool plan_weights(slu_scorer *s)
{
    s->packed = (slu_net_packed(s->c.net) + 15) & ~(size_t)15;
    if (s->c.options->serving.precision == SLU_INT8)
        s->int8 = slu_net_int8_new(s->c.net, s->first, s->width);
    return s->int8 || s->c.options->serving.precision != SLU_INT8;
}

static void name_products(slu_scorer *s)
{
    if (s->int8)
        snprintf(s->products, sizeof s->products, "int8: %.0f %% of the products by %s, the rest fp32 by %s",
                 100 * slu_net_int8_share(s->int8), slu_int8_backend(), slu_gemm_backend());
    else
        snprintf(s->products, sizeof s->products, "fp32: %s", slu_gemm_backend());
}

const char *slu_scorer_products(const slu_scorer *s)
{
    return s->products;
}

static int derive_weights(slu_scorer *s, slu_error *err)
{
    size_t floats = s->packed + (s->int8 ? slu_net_int8_packed(s->int8) : 0);
    return floats ? slu_model_derive(s->c.table, floats, pack, s, err) : 0;
}

static void use_weights(const slu_scorer *s, score_thread *t, const float *derived)
{
    slu_workspace_use_packed(t->work, s->packed ? derived : NULL);
    if (s->int8)
        slu_workspace_use_int8(t->work, derived ? derived + s->packed : NULL);
}

int slu_scorer_new(const slu_scorer_config *config, slu_scorer **sp, slu_error *err)
{
    *sp = NULL;
    slu_scorer *s = calloc(1, sizeof *s);
    if (!s)
        goto no_memory;
    s->c = *config;
    s->K = slu_net_inputs(config->net);
    s->T = slu_net_tasks(config->net);
    s->slots = slu_schema_slots(config->schema);
    s->fields = slu_schema_fields(config->schema);
    s->stride = (slu_encoded_max(config->schema) + 7) & ~(size_t)7;
    assert(s->K == slu_schema_inputs(config->schema) && s->T == slu_schema_steps(config->schema));
    s->candidates = slu_counter("sluice_score_candidates_total", NULL, "Candidates scored.");
    s->seconds = slu_histogram("sluice_score_seconds", NULL,
                               "Time from a whole request to its answer, for requests that were answered.",
                               20e-6, 1.5, 32);
    if (slu_net_shares(config->net))
        slu_schema_shared_columns(config->schema, &s->first, &s->width);
    if (!plan_slots(s) || !plan_weights(s) || !score_names_init(&s->names, config->options, config->schema))
        goto no_memory;
    s->threads = calloc(config->threads + 1, sizeof *s->threads);
    if (!s->threads)
        goto no_memory;
    for (uint32_t i = 0; i < config->threads; i++)
        if (!thread_init(s, &s->threads[i]))
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
    for (uint32_t i = 0; s->threads && i < s->c.threads; i++)
        thread_clear(&s->threads[i]);
    free(s->threads);
    free(s->looked_up);
    slu_net_int8_free(s->int8);
    score_names_clear(&s->names);
    free(s);
}

/* ---- from candidates to network inputs ---- */

static slu_encoded *record(const slu_scorer *s, const score_thread *t, uint32_t b)
{
    return (slu_encoded *)(void *)(t->encoded + b * s->stride);
}

static bool is_wide(const slu_scorer *s, const slu_slot *slot)
{
    return slot->wide && slot->table != SLU_NO_TABLE && s->c.options->model.wide;
}

/* Looks up the ids of one slot in B records and pools them into x (B, K) and wide (B, T). t->at says where in
 * each record the slot's ids begin. */
static void pool_slot(const slu_scorer *s, score_thread *t, uint32_t i, uint32_t B, float *x, float *wide)
{
    const slu_slot *slot = slu_schema_slot(s->c.schema, i);
    int mean = slot->opts->pooling == SLU_POOL_MEAN;
    uint32_t n = 0, dim = slu_schema_table(s->c.schema, slot->table)->dimension;

    for (uint32_t b = 0; b < B; b++) {
        const slu_encoded *e = record(s, t, b);
        const uint64_t *ids = slu_encoded_ids(e) + t->at[b];
        for (uint32_t k = 0; k < slu_encoded_counts(e)[i]; k++)
            t->ids[n++] = ids[k];
    }
    slu_model_find_rows(t->reader, slot->table, t->ids, n, t->rows);
    const float *const *rows = t->rows;
    for (uint32_t b = 0; b < B; b++) {
        uint32_t count = slu_encoded_counts(record(s, t, b))[i];
        if (slot->width)
            slu_pool_forward(x + (size_t)b * s->K + slot->input, rows, count, slot->width, mean);
        if (is_wide(s, slot))
            slu_wide_forward(wide + (size_t)b * s->T, rows, count, dim, s->T, mean);
        rows += count;
    }
}

/* Inputs of the slots that are shared or not, for B records. */
static void pool_slots(const slu_scorer *s, score_thread *t, bool shared, uint32_t B, float *x, float *wide)
{
    memset(t->at, 0, B * sizeof *t->at);
    for (uint32_t i = 0; i < s->slots; i++) {
        const slu_slot *slot = slu_schema_slot(s->c.schema, i);
        if (slot->table == SLU_NO_TABLE) {
            for (uint32_t b = 0; slot->shared == shared && b < B; b++)
                x[(size_t)b * s->K + slot->input] = slu_encoded_numbers(record(s, t, b))[slot->number];
            continue;
        }
        if (slot->shared == shared)
            pool_slot(s, t, i, B, x, wide);
        for (uint32_t b = 0; b < B; b++)
            t->at[b] += slu_encoded_counts(record(s, t, b))[i];
    }
}

static void encode_chunk(const slu_scorer *s, score_thread *t, score_job *job, uint32_t B)
{
    for (uint32_t b = 0; b < B; b++) {
        score_job_next(job, t->fields);
        slu_encode_candidate(t->encoder, t->fields, record(s, t, b));
    }
}

/* ---- the same, a slot at a time ---- */

/* The values of a field for the next B candidates: |*n| of them, or one for all. */
static const slu_value *values_of(const score_thread *t, const score_job *job, uint32_t field, uint32_t B,
                                  uint32_t *n)
{
    static const slu_value missing = {.kind = SLU_VALUE_TEXT, .v.text = {"", 0}};
    const slu_value *column = score_job_column(job, field);
    *n = column ? B : 1;
    return column ? column : t->fields[field].n ? t->fields[field].v : &missing;
}

static uint64_t *column_at(const score_thread *t, uint32_t slot)
{
    return t->columns + (size_t)slot * CHUNK;
}

/* Ids of all slots that are looked up. */
static void encode_columns(const slu_scorer *s, score_thread *t, const score_job *job, uint32_t B)
{
    for (uint32_t k = 0; k < s->n_looked_up; k++) {
        const uint32_t i = s->looked_up[k];
        const slu_slot *slot = slu_schema_slot(s->c.schema, i);
        uint64_t *ids = column_at(t, i);
        if (slot->opts->kind == SLU_CROSS)
            continue;
        uint32_t n;
        const slu_value *v = values_of(t, job, slot->field, B, &n);
        slu_encode_column_ids(t->encoder, i, v, n, ids);
        for (; n < B; n++)
            ids[n] = ids[0];
    }
    for (uint32_t k = 0; k < s->n_looked_up; k++)
        if (slu_schema_slot(s->c.schema, s->looked_up[k])->opts->kind == SLU_CROSS)
            slu_encode_column_cross(t->encoder, s->looked_up[k], t->columns, CHUNK, B);
}

static void put_numbers(const slu_scorer *s, score_thread *t, const score_job *job, uint32_t i, uint32_t B,
                        float *x)
{
    const slu_slot *slot = slu_schema_slot(s->c.schema, i);
    uint32_t n;
    const slu_value *v = values_of(t, job, slot->field, B, &n);
    slu_encode_column_numbers(t->encoder, i, v, n, x + slot->input, s->K);
    for (; n < B; n++)
        x[(size_t)n * s->K + slot->input] = x[slot->input];
}

/* Rows of slot |i|, one for each candidate, into x (B, K) and wide (B, T). */
static void put_rows(const slu_scorer *s, score_thread *t, uint32_t i, uint32_t B, float *x, float *wide)
{
    const slu_slot *slot = slu_schema_slot(s->c.schema, i);
    const uint32_t dim = slu_schema_table(s->c.schema, slot->table)->dimension;
    slu_model_find_rows(t->reader, slot->table, column_at(t, i), B, t->rows);
    if (slot->width)
        slu_pool_rows(x + slot->input, s->K, t->rows, B, slot->width);
    for (uint32_t b = 0; is_wide(s, slot) && b < B; b++)
        slu_wide_forward(wide + (size_t)b * s->T, t->rows + b, 1, dim, s->T, 0);
}

static void call_rows(const slu_scorer *s, score_thread *t, uint32_t i, uint32_t B)
{
    slu_model_call_rows(t->reader, slu_schema_slot(s->c.schema, i)->table, column_at(t, i), B);
}

/* What pool_slots() does for slots that are not shared, of a plain job and without records. While the rows of
 * one slot are looked up, the index entries of the next one come. */
static void pool_columns(const slu_scorer *s, score_thread *t, score_job *job, uint32_t B, float *x,
                         float *wide)
{
    encode_columns(s, t, job, B);
    for (uint32_t k = 0; k < s->n_looked_up; k++) {
        if (k + 1 < s->n_looked_up)
            call_rows(s, t, s->looked_up[k + 1], B);
        put_rows(s, t, s->looked_up[k], B, x, wide);
    }
    for (uint32_t i = 0; i < s->slots; i++)
        if (!slu_schema_slot(s->c.schema, i)->shared &&
            slu_schema_slot(s->c.schema, i)->table == SLU_NO_TABLE)
            put_numbers(s, t, job, i, B, x);
    score_job_pass(job, B);
}

/* ---- probabilities ---- */

/* Shared columns into one row of x, but for those that are multiplied apart. */
static void copy_shared(const slu_scorer *s, const score_thread *t, float *x)
{
    uint32_t behind = t->shared ? s->first + s->width : 0;
    if (t->shared)
        memcpy(x, t->shared_x, s->first * sizeof *x);
    memcpy(x + behind, t->shared_x + behind, (s->K - behind) * sizeof *x);
}

/* Probabilities of the next B candidates into t->conditional and t->entire. */
static void score_chunk(const slu_scorer *s, score_thread *t, score_job *job, slu_model_view view, bool first,
                        uint32_t B)
{
    float *x = slu_workspace_x(t->work), *logits = slu_workspace_logits(t->work);

    const bool columns = job->plain && slu_encode_has_columns(t->encoder);
    if (columns && first)
        slu_encode_candidate(t->encoder, t->fields, record(s, t, 0)); /* for what it shares */
    if (!columns)
        encode_chunk(s, t, job, B);
    if (first) {
        memset(t->shared_wide, 0, s->T * sizeof(float));
        pool_slots(s, t, true, 1, t->shared_x, t->shared_wide);
        if (t->shared)
            memcpy(t->shared->x, t->shared_x + s->first, s->width * sizeof(float));
    }
    for (uint32_t b = 0; b < B; b++) {
        if (s->rest)
            copy_shared(s, t, x + (size_t)b * s->K);
        memcpy(t->wide + (size_t)b * s->T, t->shared_wide, s->T * sizeof(float));
    }
    if (columns)
        pool_columns(s, t, job, B, x, t->wide);
    else
        pool_slots(s, t, false, B, x, t->wide);
    use_weights(s, t, view.derived);
    slu_net_forward(s->c.net, view.dense, t->work, B, SLU_INFER);
    for (uint32_t i = 0; i < B * s->T; i++)
        logits[i] += t->wide[i];
    slu_funnel_probabilities(t->conditional, t->entire, logits, B, s->T);
}

static bool too_late(const slu_scorer *s, const slu_grpc_call *call)
{
    return call->deadline_us != INT64_MAX && slu_mono_us(s->c.clock) >= call->deadline_us;
}

static slu_grpc_status late(slu_grpc_call *call, uint32_t done, uint32_t of)
{
    snprintf(call->message, sizeof call->message,
             "the deadline passed after %u of %u candidates; allow more time or send fewer candidates", done,
             of);
    return SLU_GRPC_DEADLINE_EXCEEDED;
}

static slu_grpc_status score_all(const slu_scorer *s, score_thread *t, score_job *job, slu_grpc_call *call,
                                 slu_model_view view, score_answer *answer)
{
    uint32_t of = job->request.candidates;

    memcpy(t->fields, job->fields, s->fields * sizeof *t->fields);
    slu_encode_shared(t->encoder, t->fields);
    for (uint32_t done = 0; done < of;) {
        if (too_late(s, call))
            return late(call, done, of);
        uint32_t B = of - done < CHUNK ? of - done : CHUNK;
        score_chunk(s, t, job, view, done == 0, B);
        score_answer_put(answer, t->conditional, t->entire, done, B, s->T);
        done += B;
    }
    return SLU_GRPC_OK;
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
    assert(call->thread < s->c.threads);
    score_thread *t = &s->threads[call->thread];
    slu_error err = SLU_ERROR_INIT;
    score_job job;
    score_answer answer;

    if (score_job_read(&job, &s->names, call->request, call->request_len, call->arena, &err))
        return refused(call, &err);

    slu_model_view view = slu_model_read_begin(t->reader);
    slu_grpc_status status = SLU_GRPC_UNAVAILABLE;
    if (view.version) {
        score_answer_begin(&answer, &job, &s->names, call->response);
        status = score_all(s, t, &job, call, view, &answer);
    } else {
        no_model(call);
    }
    slu_model_read_end(t->reader);
    if (status != SLU_GRPC_OK) {
        slu_buf_clear(call->response);
        return status;
    }
    score_answer_end(&answer, view.version, view.learned_through_us, slu_wall_us(s->c.clock));
    slu_metric_add(s->candidates, job.request.candidates);
    slu_metric_observe(s->seconds, (double)(slu_mono_us(s->c.clock) - call->received_us) * 1e-6);
    return SLU_GRPC_OK;
}
