#include "serving/score_pass.h"
#include "base/cache_line.h"
#include "model/loss.h"
#include "model/pooling.h"
#include "model/shared.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Scratch of one thread. */
struct score_scratch {
    slu_model_reader *reader;
    slu_encoder *encoder;
    slu_workspace *work; /* SCORE_PASS rows */
    slu_values *fields;  /* (fields) of the candidate being encoded */
    char *encoded;       /* SCORE_PASS records, stride bytes apart */
    uint32_t *at;        /* (SCORE_PASS) ids of each record passed so far */
    uint64_t *ids;       /* (SCORE_PASS * max_ids of a slot) of one slot, all candidates */
    uint64_t *columns;   /* (slots, SCORE_PASS) the same of all slots, where each gives one */
    const float **rows;  /* (SCORE_PASS * max_ids of a slot) */
    slu_shared *shared; /* of the workspace: what all rows have in [first, first + width); NULL: width is 0 */
    uint32_t *zeros;    /* (SCORE_PASS) row 0 of it, for each candidate */
    float *shared_x;    /* (K) pooled columns of the shared slots */
    float *shared_wide; /* (T) */
    float *wide;        /* (SCORE_PASS, T) */
    float *conditional; /* (SCORE_PASS, T) */
    float *entire;      /* (SCORE_PASS, T) */
};

/* ---- plans ---- */

/* What the schema says about the slots, once and for all. */
static bool plan_slots(score_plan *p)
{
    p->looked_up = calloc(p->slots + 1, sizeof *p->looked_up);
    for (uint32_t i = 0; p->looked_up && i < p->slots; i++) {
        const slu_slot *slot = slu_schema_slot(p->c.schema, i);
        if (slot->shared)
            p->rest |= slot->width && (slot->input < p->first || slot->input >= p->first + p->width);
        else if (slot->table != SLU_NO_TABLE)
            p->looked_up[p->n_looked_up++] = i;
    }
    return p->looked_up != NULL;
}

static bool plan_weights(score_plan *p)
{
    const bool int8 = p->c.options->serving.precision == SLU_INT8;
    p->packed = (slu_net_packed(p->c.net) + 15) & ~(size_t)15;
    p->int8 = int8 ? slu_net_int8_new(p->c.net, p->first, p->width) : NULL;
    return p->int8 || !int8;
}

bool score_plan_init(score_plan *p, const slu_scorer_config *config)
{
    *p = (score_plan){.c = *config,
                      .K = slu_net_inputs(config->net),
                      .T = slu_net_tasks(config->net),
                      .slots = slu_schema_slots(config->schema),
                      .fields = slu_schema_fields(config->schema),
                      .stride = (slu_encoded_max(config->schema) + 7) & ~(size_t)7};
    assert(p->K == slu_schema_inputs(config->schema) && p->T == slu_schema_steps(config->schema));
    if (slu_net_shares(config->net))
        slu_schema_shared_columns(config->schema, &p->first, &p->width);
    return plan_slots(p) && plan_weights(p);
}

void score_plan_clear(score_plan *p)
{
    free(p->looked_up);
    slu_net_int8_free(p->int8);
}

size_t score_plan_derived(const score_plan *p)
{
    return p->packed + (p->int8 ? slu_net_int8_packed(p->int8) : 0);
}

void score_plan_derive(void *plan, const float *dense, float *derived)
{
    const score_plan *p = plan;
    if (p->packed)
        slu_net_pack(p->c.net, dense, derived);
    if (p->int8)
        slu_net_int8_pack(p->int8, dense, derived + p->packed);
}

static void use_weights(const score_plan *p, score_scratch *t, const float *derived)
{
    slu_workspace_use_packed(t->work, p->packed ? derived : NULL);
    if (p->int8)
        slu_workspace_use_int8(t->work, derived ? derived + p->packed : NULL);
}

/* ---- scratch ---- */

static uint32_t widest_slot(const slu_schema *schema)
{
    uint32_t widest = 1;
    for (uint32_t i = 0; i < slu_schema_slots(schema); i++)
        if (slu_schema_slot(schema, i)->max_ids > widest)
            widest = slu_schema_slot(schema, i)->max_ids;
    return widest;
}

static bool scratch_init(const score_plan *p, score_scratch *t)
{
    size_t ids = (size_t)SCORE_PASS * widest_slot(p->c.schema), tasks = (size_t)SCORE_PASS * p->T;
    t->reader = slu_model_reader_new(p->c.table);
    t->encoder = slu_encoder_new(p->c.schema);
    t->work = slu_workspace_new(p->c.net, SCORE_PASS, false);
    t->fields = calloc(p->fields + 1, sizeof *t->fields);
    t->encoded = slu_cache_lines_alloc((size_t)SCORE_PASS * p->stride);
    t->at = calloc(SCORE_PASS, sizeof *t->at);
    t->ids = calloc(ids, sizeof *t->ids);
    t->columns = calloc((size_t)p->slots * SCORE_PASS + 1, sizeof *t->columns);
    t->rows = calloc(ids, sizeof *t->rows);
    t->zeros = calloc(SCORE_PASS, sizeof *t->zeros);
    t->shared = t->work && p->width ? slu_workspace_share(t->work, p->first, p->width) : NULL;
    if (t->shared) {
        t->shared->n = 1;
        t->shared->of = t->zeros;
    }
    if ((p->width && !t->shared) || (p->int8 && t->work && slu_workspace_int8(t->work, p->int8)))
        return false;
    t->shared_x = calloc(p->K, sizeof *t->shared_x);
    t->shared_wide = calloc(p->T, sizeof *t->shared_wide);
    t->wide = calloc(tasks, sizeof *t->wide);
    t->conditional = calloc(tasks, sizeof *t->conditional);
    t->entire = calloc(tasks, sizeof *t->entire);
    return t->reader && t->encoder && t->work && t->fields && t->encoded && t->at && t->ids && t->columns &&
           t->rows && t->zeros && t->shared_x && t->shared_wide && t->wide && t->conditional && t->entire;
}

score_scratch *score_scratch_new(const score_plan *p)
{
    score_scratch *t = calloc(1, sizeof *t);
    if (t && scratch_init(p, t))
        return t;
    score_scratch_free(t);
    return NULL;
}

void score_scratch_free(score_scratch *t)
{
    if (!t)
        return;
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
    free(t);
}

slu_model_reader *score_scratch_reader(score_scratch *t)
{
    return t->reader;
}

/* ---- from candidates to network inputs ---- */

static slu_encoded *record(const score_plan *p, const score_scratch *t, uint32_t b)
{
    return (slu_encoded *)(void *)(t->encoded + b * p->stride);
}

static bool is_wide(const score_plan *p, const slu_slot *slot)
{
    return slot->wide && slot->table != SLU_NO_TABLE && p->c.options->model.wide;
}

/* Looks up the ids of one slot in B of the owner's records and pools them into x (B, K) and wide (B, T).
 * t->at says where in each record the slot's ids begin. */
static void pool_slot(const score_plan *p, score_scratch *t, uint32_t i, uint32_t B, float *x, float *wide)
{
    const slu_slot *slot = slu_schema_slot(p->c.schema, i);
    int mean = slot->opts->pooling == SLU_POOL_MEAN;
    uint32_t n = 0, dim = slu_schema_table(p->c.schema, slot->table)->dimension;

    for (uint32_t b = 0; b < B; b++) {
        const slu_encoded *e = record(p, t, b);
        const uint64_t *ids = slu_encoded_ids(e) + t->at[b];
        for (uint32_t k = 0; k < slu_encoded_counts(e)[i]; k++)
            t->ids[n++] = ids[k];
    }
    slu_model_find_rows(t->reader, slot->table, t->ids, n, t->rows);
    const float *const *rows = t->rows;
    for (uint32_t b = 0; b < B; b++) {
        uint32_t count = slu_encoded_counts(record(p, t, b))[i];
        if (slot->width)
            slu_pool_forward(x + (size_t)b * p->K + slot->input, rows, count, slot->width, mean);
        if (is_wide(p, slot))
            slu_wide_forward(wide + (size_t)b * p->T, rows, count, dim, p->T, mean);
        rows += count;
    }
}

/* Inputs of the slots that are shared or not, for B of the owner's records. */
static void pool_slots(const score_plan *p, score_scratch *t, bool shared, uint32_t B, float *x, float *wide)
{
    memset(t->at, 0, B * sizeof *t->at);
    for (uint32_t i = 0; i < p->slots; i++) {
        const slu_slot *slot = slu_schema_slot(p->c.schema, i);
        if (slot->table == SLU_NO_TABLE) {
            for (uint32_t b = 0; slot->shared == shared && b < B; b++)
                x[(size_t)b * p->K + slot->input] = slu_encoded_numbers(record(p, t, b))[slot->number];
            continue;
        }
        if (slot->shared == shared)
            pool_slot(p, t, i, B, x, wide);
        for (uint32_t b = 0; b < B; b++)
            t->at[b] += slu_encoded_counts(record(p, t, b))[i];
    }
}

static void encode_records(const score_scored *r, uint32_t B)
{
    score_scratch *t = r->owner;
    for (uint32_t b = 0; b < B; b++) {
        score_job_next(r->job, t->fields);
        slu_encode_candidate(t->encoder, t->fields, record(r->plan, t, b));
    }
}

/* ---- the same, a slot at a time ---- */

/* Candidates [first, first + B) of a request. */
typedef struct range {
    uint32_t first, B;
} range;

/* The values of a field for the candidates: |*n| of them, or one for all. */
static const slu_value *values_of(const score_scored *r, uint32_t field, range of, uint32_t *n)
{
    static const slu_value missing = {.kind = SLU_VALUE_TEXT, .v.text = {"", 0}};
    const slu_value *column = score_job_column(r->job, field);
    const slu_values *one = &r->owner->fields[field];
    *n = column ? of.B : 1;
    return column ? column + of.first : one->n ? one->v : &missing;
}

static uint64_t *column_at(const score_scratch *t, uint32_t slot)
{
    return t->columns + (size_t)slot * SCORE_PASS;
}

/* Ids of all slots that are looked up. */
static void encode_columns(const score_scored *r, score_scratch *t, range of)
{
    const score_plan *p = r->plan;
    for (uint32_t k = 0; k < p->n_looked_up; k++) {
        const uint32_t i = p->looked_up[k];
        const slu_slot *slot = slu_schema_slot(p->c.schema, i);
        uint64_t *ids = column_at(t, i);
        if (slot->opts->kind == SLU_CROSS)
            continue;
        uint32_t n;
        const slu_value *v = values_of(r, slot->field, of, &n);
        slu_encode_column_ids(r->owner->encoder, i, v, n, ids);
        for (; n < of.B; n++)
            ids[n] = ids[0];
    }
    for (uint32_t k = 0; k < p->n_looked_up; k++)
        if (slu_schema_slot(p->c.schema, p->looked_up[k])->opts->kind == SLU_CROSS)
            slu_encode_column_cross(r->owner->encoder, p->looked_up[k], t->columns, SCORE_PASS, of.B);
}

static void put_numbers(const score_scored *r, uint32_t i, range of, float *x)
{
    const score_plan *p = r->plan;
    const slu_slot *slot = slu_schema_slot(p->c.schema, i);
    uint32_t n;
    const slu_value *v = values_of(r, slot->field, of, &n);
    slu_encode_column_numbers(r->owner->encoder, i, v, n, x + slot->input, p->K);
    for (; n < of.B; n++)
        x[(size_t)n * p->K + slot->input] = x[slot->input];
}

/* Rows of slot |i|, one for each candidate, into x (B, K) and wide (B, T). */
static void put_rows(const score_scored *r, score_scratch *t, uint32_t i, uint32_t B, float *x, float *wide)
{
    const score_plan *p = r->plan;
    const slu_slot *slot = slu_schema_slot(p->c.schema, i);
    const uint32_t dim = slu_schema_table(p->c.schema, slot->table)->dimension;
    slu_model_find_rows(r->owner->reader, slot->table, column_at(t, i), B, t->rows);
    if (slot->width)
        slu_pool_rows(x + slot->input, p->K, t->rows, B, slot->width);
    for (uint32_t b = 0; is_wide(p, slot) && b < B; b++)
        slu_wide_forward(wide + (size_t)b * p->T, t->rows + b, 1, dim, p->T, 0);
}

static void call_rows(const score_scored *r, score_scratch *t, uint32_t i, uint32_t B)
{
    slu_model_call_rows(r->owner->reader, slu_schema_slot(r->plan->c.schema, i)->table, column_at(t, i), B);
}

/* What pool_slots() does for slots that are not shared, without records, where any order will do. While the
 * rows of one slot are looked up, the index entries of the next one come. */
static void pool_columns(const score_scored *r, score_scratch *t, range of, float *x, float *wide)
{
    const score_plan *p = r->plan;
    encode_columns(r, t, of);
    for (uint32_t k = 0; k < p->n_looked_up; k++) {
        if (k + 1 < p->n_looked_up)
            call_rows(r, t, p->looked_up[k + 1], of.B);
        put_rows(r, t, p->looked_up[k], of.B, x, wide);
    }
    for (uint32_t i = 0; i < p->slots; i++)
        if (!slu_schema_slot(p->c.schema, i)->shared &&
            slu_schema_slot(p->c.schema, i)->table == SLU_NO_TABLE)
            put_numbers(r, i, of, x);
}

/* ---- probabilities ---- */

bool score_any_order(const score_scored *r)
{
    return r->job->plain && slu_encode_has_columns(r->owner->encoder);
}

void score_share(const score_scored *r)
{
    const score_plan *p = r->plan;
    score_scratch *t = r->owner;
    memcpy(t->fields, r->job->fields, p->fields * sizeof *t->fields);
    slu_encode_shared(t->encoder, t->fields);
    slu_encode_candidate(t->encoder, t->fields, record(p, t, 0)); /* for what it shares */
    memset(t->shared_wide, 0, p->T * sizeof(float));
    pool_slots(p, t, true, 1, t->shared_x, t->shared_wide);
}

/* Shared columns into one row of x, but for those that are multiplied apart. */
static void copy_shared(const score_plan *p, const float *shared_x, float *x)
{
    const uint32_t behind = p->first + p->width;
    memcpy(x, shared_x, p->first * sizeof *x);
    memcpy(x + behind, shared_x + behind, (p->K - behind) * sizeof *x);
}

/* What is the same for all, and what is each candidate's own, into x (B, K) and t->wide (B, T). */
static void fill_inputs(const score_scored *r, score_scratch *t, range of, float *x)
{
    const score_plan *p = r->plan;
    if (t->shared)
        memcpy(t->shared->x, r->owner->shared_x + p->first, p->width * sizeof(float));
    for (uint32_t b = 0; b < of.B; b++) {
        if (p->rest)
            copy_shared(p, r->owner->shared_x, x + (size_t)b * p->K);
        memcpy(t->wide + (size_t)b * p->T, r->owner->shared_wide, p->T * sizeof(float));
    }
    if (score_any_order(r)) {
        pool_columns(r, t, of, x, t->wide);
        return;
    }
    assert(t == r->owner);
    encode_records(r, of.B);
    pool_slots(p, t, false, of.B, x, t->wide);
}

void score_pass(const score_scored *r, score_scratch *t, uint32_t first, uint32_t B,
                const float **conditional, const float **entire)
{
    const score_plan *p = r->plan;
    float *logits = slu_workspace_logits(t->work);
    assert(B <= SCORE_PASS);

    fill_inputs(r, t, (range){first, B}, slu_workspace_x(t->work));
    use_weights(p, t, r->view.derived);
    slu_net_forward(p->c.net, r->view.dense, t->work, B, SLU_INFER);
    for (uint32_t i = 0; i < B * p->T; i++)
        logits[i] += t->wide[i];
    slu_funnel_probabilities(t->conditional, t->entire, logits, B, p->T);
    *conditional = t->conditional;
    *entire = t->entire;
}
