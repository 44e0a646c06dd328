/* Letters: B samples, K inputs, T tasks, S slots, U different ids of a table in the batch, D its dimension.
 */
#include "trainer/learner.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/pool.h"
#include "model/loss.h"
#include "model/pooling.h"
#include "model/shared.h"
#include "model/spec.h"
#include "store/row_expiry.h"
#include "trainer/as_served.h"
#include "trainer/batch_rows.h"
#include "trainer/dense.h"
#include "trainer/sharing.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { EXPIRE_AT_LEAST = 128 };

struct slu_learner {
    const slu_options *options;
    const slu_schema *schema;
    slu_net *net;
    slu_workspace *work;
    slu_pool *pool; /* NULL: one thread */
    slu_row_table *rows;
    slu_row_expiry *expiry; /* NULL: rows live for ever */
    slu_row_rules rules;
    uint32_t tables, tasks, slots;
    slu_batch_rows *t; /* (tables) */
    uint32_t *served;  /* (tables) */
    slu_dense dense;
    /* Scratch of a step. */
    uint32_t *refs; /* (B * max_ids) position of each id occurrence in its table's ids */
    float *labels;  /* (B, T) */
    uint8_t *says;  /* (B, T) */
    slu_sharing sharing;
    slu_shared *shared;         /* of the workspace; NULL: this network shares nothing */
    slu_as_served *as_served;   /* NULL: predictions are the training pass's */
    bool as_served_due;         /* it has not seen the parameters since they stepped */
    float *served_x, *served_y; /* (K) and (B, T) of its predictions */
    const float **read;         /* (max ids of a slot) */
    float **write;
    float task_weight[SLU_MAX_STEPS];
};

static uint32_t wide_tasks(const slu_options *o, const slu_table *t)
{
    return o->model.wide && t->wide ? o->n_steps : 0;
}

static void init_row(void *ctx, uint32_t table, uint64_t id, float *v)
{
    const slu_learner *l = ctx;
    slu_row_init(&l->t[table].layout, &l->rules, l->options->model.seed, table, id, v);
}

static int open_expiry(slu_learner *l, slu_store *store, slu_error *err)
{
    int64_t *ttl_us = calloc(l->tables + 1, sizeof *ttl_us);
    if (!ttl_us)
        return slu_fail(err, SLU_ENOMEM, "out of memory for %u tables", l->tables);
    for (uint32_t i = 0; i < l->tables; i++)
        ttl_us[i] = slu_schema_table(l->schema, i)->ttl_us;
    int rc = slu_row_expiry_open(store, l->rows, ttl_us, l->tables, &l->expiry, err);
    free(ttl_us);
    return rc;
}

static int open_rows(slu_learner *l, slu_store *store, slu_error *err)
{
    slu_row_table_spec *specs = calloc(l->tables, sizeof *specs);
    if (!specs)
        return slu_fail(err, SLU_ENOMEM, "out of memory for %u tables", l->tables);
    for (uint32_t i = 0; i < l->tables; i++)
        specs[i] = (slu_row_table_spec){.floats = l->t[i].layout.floats,
                                        .admit_after = slu_schema_table(l->schema, i)->admit_after,
                                        .served = l->t[i].layout.served};
    slu_row_table_config config = {specs, l->tables, l->options->store.cache_bytes, init_row, l};
    int rc = slu_row_table_open(store, &config, &l->rows, err);
    free(specs);
    return rc ? rc : open_expiry(l, store, err);
}

/* Most ids of each table that a full batch can bring. */
static int size_tables(slu_learner *l, slu_error *err)
{
    uint32_t *ids = calloc(l->tables + 1, sizeof *ids);
    uint32_t widest = 1;
    int rc = ids ? 0 : SLU_ENOMEM;
    for (uint32_t i = 0; !rc && i < l->slots; i++) {
        const slu_slot *s = slu_schema_slot(l->schema, i);
        if (s->table == SLU_NO_TABLE)
            continue;
        ids[s->table] += s->max_ids;
        if (s->max_ids > widest)
            widest = s->max_ids;
    }
    for (uint32_t i = 0; !rc && i < l->tables; i++) {
        l->t[i].layout = slu_row_layout_of(slu_schema_table(l->schema, i)->dimension,
                                           wide_tasks(l->options, slu_schema_table(l->schema, i)), &l->rules);
        l->served[i] = l->t[i].layout.served;
        rc = slu_batch_rows_init(&l->t[i], l->options->training.batch_size * ids[i]);
    }
    free(ids);
    l->read = malloc(widest * sizeof *l->read);
    l->write = malloc(widest * sizeof *l->write);
    return !rc && l->read && l->write ? 0
                                      : slu_fail(err, SLU_ENOMEM, "out of memory for a batch of %u",
                                                 l->options->training.batch_size);
}

static int choose_precision(slu_learner *l, slu_error *err)
{
    if (slu_workspace_precision(l->work, l->options->training.precision == SLU_BF16))
        return slu_fail(err, SLU_ENOMEM, "out of memory for the products of batches of %u",
                        l->options->training.batch_size);
    const char *slow = slu_workspace_slow(l->work), *products = slu_workspace_products(l->work);
    if (slow)
        SLU_WARN("learner",
                 "training.precision bf16 is slower than fp32 on this machine: its products are rounded and "
                 "multiplied in "
                 "fp32; use fp32 here, or a CPU with AMX or AVX-512 BF16 and oneDNN (libdnnl2)",
                 SLU_STR("why", slow), SLU_STR("products", products));
    else if (strstr(products, "onednn"))
        SLU_INFO("learner", "large products are computed by oneDNN", SLU_STR("products", products));
    return 0;
}

int slu_learner_open(const slu_options *options, const slu_schema *schema, slu_store *store, slu_learner **lp,
                     slu_error *err)
{
    *lp = NULL;
    slu_learner *l = calloc(1, sizeof *l);
    if (!l)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the learner");
    l->options = options;
    l->schema = schema;
    l->rules = slu_row_rules_of(options);
    l->tables = slu_schema_tables(schema);
    l->slots = slu_schema_slots(schema);
    l->tasks = options->n_steps;
    for (uint32_t i = 0; i < l->tasks; i++)
        l->task_weight[i] = (float)options->steps[i].weight;
    uint32_t batch = options->training.batch_size;
    int rc = slu_net_of(options, slu_schema_inputs(schema), &l->net, err);
    if (rc)
        goto fail;
    l->t = calloc(l->tables + 1, sizeof *l->t);
    l->served = calloc(l->tables + 1, sizeof *l->served);
    l->work = slu_workspace_new(l->net, batch, true);
    l->refs = malloc((size_t)batch * (slu_schema_max_ids(schema) + 1) * sizeof *l->refs);
    l->labels = malloc((size_t)batch * l->tasks * sizeof *l->labels);
    l->says = malloc((size_t)batch * l->tasks);
    if (!l->t || !l->served || !l->work || !l->refs || !l->labels || !l->says) {
        rc = slu_fail(err, SLU_ENOMEM, "out of memory for a network of %zu parameters and batches of %u",
                      slu_net_params(l->net), batch);
        goto fail;
    }
    if (slu_sharing_init(&l->sharing, schema, batch)) {
        rc = slu_fail(err, SLU_ENOMEM, "out of memory for batches of %u", batch);
        goto fail;
    }
    if (options->training.threads > 1) {
        rc = slu_pool_new(options->training.threads, &l->pool, err);
        if (rc)
            goto fail;
        slu_workspace_parallel(l->work, slu_pool_parallel(l->pool));
    }
    rc = choose_precision(l, err);
    if (rc)
        goto fail;
    l->shared = slu_workspace_share(l->work, l->sharing.column, l->sharing.width);
    rc = size_tables(l, err);
    if (!rc)
        rc = open_rows(l, store, err);
    if (!rc)
        rc = slu_dense_open(&l->dense, options, l->net, store, err);
    if (!rc && slu_workspace_pack(l->work, l->dense.params))
        rc = slu_fail(err, SLU_ENOMEM, "out of memory for packed weights");
    if (rc)
        goto fail;
    *lp = l;
    return 0;
fail:
    slu_learner_close(l);
    return rc;
}

void slu_learner_close(slu_learner *l)
{
    if (!l)
        return;
    slu_row_expiry_close(l->expiry);
    slu_row_table_close(l->rows);
    for (uint32_t i = 0; l->t && i < l->tables; i++)
        slu_batch_rows_free(&l->t[i]);
    free(l->t);
    free(l->served);
    slu_workspace_free(l->work);
    slu_pool_free(l->pool);
    slu_net_free(l->net);
    slu_dense_free(&l->dense);
    free(l->refs);
    free(l->labels);
    free(l->says);
    slu_sharing_free(&l->sharing);
    slu_as_served_free(l->as_served);
    free(l->served_x);
    free(l->served_y);
    free(l->read);
    free(l->write);
    free(l);
}

/* ---- gathering ids ---- */

int slu_learner_read_ahead(slu_learner *l, slu_error *err)
{
    return slu_row_table_read_ahead(l->rows, err);
}

void slu_learner_expect(slu_learner *l, const slu_encoded *x)
{
    const uint16_t *counts = slu_encoded_counts(x);
    const uint64_t *ids = slu_encoded_ids(x);
    for (uint32_t i = 0; i < l->slots; i++) {
        if (counts[i])
            slu_row_table_expect(l->rows, slu_schema_slot(l->schema, i)->table, ids, counts[i]);
        ids += counts[i];
    }
}

static bool has_label(const slu_sample *s, uint32_t tasks)
{
    for (uint32_t i = 0; i < tasks; i++)
        if (s->say[i] != SLU_SAY_NOTHING)
            return true;
    return false;
}

/* Fills refs, labels and says. Returns how many samples have a label. */
static uint32_t gather(slu_learner *l, const slu_batch *batch)
{
    uint32_t B = slu_batch_count(batch), T = l->tasks, said = 0;
    for (uint32_t i = 0; i < l->tables; i++)
        slu_batch_rows_begin(&l->t[i]);
    slu_sharing_begin(&l->sharing, B);
    uint32_t *ref = l->refs;
    for (uint32_t b = 0; b < B; b++) {
        const slu_sample *s = slu_batch_at(batch, b);
        const uint16_t *counts = slu_encoded_counts(s->x);
        const uint64_t *ids = slu_encoded_ids(s->x);
        bool label = has_label(s, T);
        uint32_t seconds = s->time_us > 0 ? (uint32_t)(s->time_us / SLU_SECOND_US) : 0;
        said += label;
        const uint32_t *shared = ref;
        for (uint32_t i = 0; i < l->slots; i++) {
            if (i == l->sharing.slot)
                shared = ref;
            if (!counts[i])
                continue;
            slu_batch_rows *t = &l->t[slu_schema_slot(l->schema, i)->table];
            for (uint32_t k = 0; k < counts[i]; k++) {
                uint32_t at = slu_batch_rows_at(t, *ids++);
                t->arrivals[at] += s->arrival;
                t->learns[at] |= label;
                if (seconds > t->seen[at])
                    t->seen[at] = seconds;
                *ref++ = at;
            }
        }
        slu_sharing_add(&l->sharing, b, counts, shared);
        for (uint32_t i = 0; i < T; i++) {
            l->labels[b * T + i] = s->labels >> i & 1;
            l->says[b * T + i] = s->say[i];
        }
    }
    if (l->shared) {
        l->shared->of = l->sharing.of;
        l->shared->n = slu_sharing_end(&l->sharing, B) ? l->sharing.n : 0;
    }
    return said;
}

/* How the columns of slot |i| of sample |b| are to be treated: NULL when another sample does it for this one,
 * else where their part of x or dx begins: in |own|, the sample's row, or in its shared row in |rows|. */
static inline float *columns_of(const slu_learner *l, const slu_slot *s, uint32_t i, uint32_t b, float *own,
                                float *rows)
{
    const slu_sharing *h = &l->sharing;
    if (!l->shared || !l->shared->n || i < h->slot || i >= h->end)
        return own + s->input;
    uint32_t row = h->of[b];
    return h->sample[row] == b ? rows + (size_t)row * h->width + (s->input - h->column) : NULL;
}

static int fetch_rows(slu_learner *l, slu_error *err)
{
    for (uint32_t i = 0; i < l->tables; i++) {
        slu_batch_rows *t = &l->t[i];
        int rc = t->u ? slu_row_table_fetch(l->rows, i, t->ids, t->u, t->rows, err) : 0;
        if (rc)
            return rc;
        /* Count first: a value whose turn has come is learned from in this very batch. */
        for (uint32_t k = 0; k < t->u; k++) {
            slu_row *row = t->rows[k];
            if (!t->arrivals[k])
                continue;
            bool born = !row->count;
            slu_row_touch(l->rows, i, row, t->arrivals[k], t->seen[k]);
            if (born)
                slu_row_expiry_born(l->expiry, i, row->id, row->last_seen);
        }
    }
    return 0;
}

/* ---- forward and backward over the slots ---- */

static const float *readable(const slu_row *row)
{
    return row->admitted ? row->v : NULL;
}

static void pool_inputs(slu_learner *l, const slu_batch *batch)
{
    uint32_t B = slu_batch_count(batch), K = slu_net_inputs(l->net);
    float *x = slu_workspace_x(l->work); /* (B, K) */
    const uint32_t *ref = l->refs;
    for (uint32_t b = 0; b < B; b++, x += K) {
        const slu_encoded *e = slu_batch_at(batch, b)->x;
        const uint16_t *counts = slu_encoded_counts(e);
        const float *numbers = slu_encoded_numbers(e);
        for (uint32_t i = 0; i < l->slots; i++) {
            const slu_slot *s = slu_schema_slot(l->schema, i);
            if (s->table == SLU_NO_TABLE) {
                x[s->input] = numbers[s->number];
                continue;
            }
            const slu_batch_rows *t = &l->t[s->table];
            float *out = columns_of(l, s, i, b, x, l->shared ? l->shared->x : NULL);
            if (out && s->width) {
                for (uint32_t k = 0; k < counts[i]; k++)
                    l->read[k] = readable(t->rows[ref[k]]);
                slu_pool_forward(out, l->read, counts[i], s->width, s->opts->pooling == SLU_POOL_MEAN);
            }
            ref += counts[i];
        }
    }
}

static bool slot_is_wide(const slu_learner *l, const slu_slot *s)
{
    return s->table != SLU_NO_TABLE && s->wide && l->t[s->table].layout.tasks;
}

/* To logits (B, T). */
static void add_wide(slu_learner *l, const slu_batch *batch, float *logits)
{
    uint32_t B = slu_batch_count(batch), T = l->tasks;
    const uint32_t *ref = l->refs;
    for (uint32_t b = 0; b < B; b++, logits += T) {
        const uint16_t *counts = slu_encoded_counts(slu_batch_at(batch, b)->x);
        for (uint32_t i = 0; i < l->slots; i++) {
            const slu_slot *s = slu_schema_slot(l->schema, i);
            if (slot_is_wide(l, s)) {
                const slu_batch_rows *t = &l->t[s->table];
                for (uint32_t k = 0; k < counts[i]; k++)
                    l->read[k] = readable(t->rows[ref[k]]);
                slu_wide_forward(logits, l->read, counts[i], t->layout.dim, T,
                                 s->opts->pooling == SLU_POOL_MEAN);
            }
            ref += counts[i];
        }
    }
}

static void scatter_gradients(slu_learner *l, const slu_batch *batch)
{
    uint32_t B = slu_batch_count(batch), K = slu_net_inputs(l->net), T = l->tasks;
    float *dx = slu_workspace_dx(l->work);                 /* (B, K) */
    const float *dlogits = slu_workspace_dlogits(l->work); /* (B, T) */
    for (uint32_t i = 0; i < l->tables; i++) {
        slu_batch_rows *t = &l->t[i];
        memset(t->grads, 0, (size_t)t->u * (t->layout.dim + t->layout.tasks) * sizeof *t->grads);
    }
    const uint32_t *ref = l->refs;
    for (uint32_t b = 0; b < B; b++, dx += K, dlogits += T) {
        const uint16_t *counts = slu_encoded_counts(slu_batch_at(batch, b)->x);
        for (uint32_t i = 0; i < l->slots; i++) {
            if (!counts[i])
                continue;
            const slu_slot *s = slu_schema_slot(l->schema, i);
            slu_batch_rows *t = &l->t[s->table];
            uint32_t width = t->layout.dim + t->layout.tasks;
            int mean = s->opts->pooling == SLU_POOL_MEAN;
            for (uint32_t k = 0; k < counts[i]; k++)
                l->write[k] = t->grads + (size_t)ref[k] * width;
            const float *in = columns_of(l, s, i, b, dx, l->shared ? l->shared->dx : NULL);
            if (in && s->width)
                slu_pool_backward(l->write, in, counts[i], s->width, mean);
            if (slot_is_wide(l, s)) {
                for (uint32_t k = 0; k < counts[i]; k++)
                    l->write[k] += t->layout.dim;
                slu_wide_backward(l->write, dlogits, counts[i], T, mean);
            }
            ref += counts[i];
        }
    }
}

/* Since they were read, the products have driven rows out of the caches: they are called back some rows
 * before their turn. */
static void call_back(const slu_batch_rows *t, uint32_t k)
{
    enum { AHEAD = 12, LINE = 64 };
    if (k + AHEAD >= t->u)
        return;
    const char *row = (const char *)t->rows[k + AHEAD];
    for (size_t at = 0; at < sizeof(slu_row) + t->layout.floats * sizeof(float); at += LINE)
        __builtin_prefetch(row + at, 1);
}

static void update_rows(slu_learner *l)
{
    for (uint32_t i = 0; i < l->tables; i++) {
        slu_batch_rows *t = &l->t[i];
        uint32_t width = t->layout.dim + t->layout.tasks;
        for (uint32_t k = 0; k < t->u; k++) {
            slu_row *row = t->rows[k];
            call_back(t, k);
            /* Not counted: it expired between its impression and a late label, which does not bring it back.
             */
            if (!t->learns[k] || !row->admitted || !row->count)
                continue;
            const float *g = t->grads + (size_t)k * width;
            slu_row_mark(l->rows, i, row);
            slu_row_update(&t->layout, &l->rules, row->v, g, g + t->layout.dim);
        }
    }
}

static void step_dense(slu_learner *l, uint32_t said)
{
    if (!slu_dense_gathered(&l->dense, said, l->pool ? slu_pool_parallel(l->pool) : NULL))
        return;
    slu_workspace_pack(l->work, l->dense.params); /* has had its memory since the learner was opened */
    l->as_served_due = true;
}

int slu_learner_predict_as_served(slu_learner *l, slu_error *err)
{
    l->as_served = slu_as_served_new(l->schema, l->net);
    l->served_x = malloc(slu_net_inputs(l->net) * sizeof *l->served_x);
    l->served_y = malloc((size_t)l->options->training.batch_size * l->tasks * sizeof *l->served_y);
    l->as_served_due = true;
    if (!l->as_served || !l->served_x || !l->served_y)
        return slu_fail(err, SLU_ENOMEM, "out of memory for predictions in int8");
    return 0;
}

/* Logits (B, T) that a scorer would answer with. The inputs are those of the pass before. */
static const float *predict_as_served(slu_learner *l, const slu_batch *batch)
{
    const slu_sharing *h = &l->sharing;
    const uint32_t K = slu_net_inputs(l->net);
    if (l->as_served_due)
        slu_as_served_weights(l->as_served, l->dense.params);
    l->as_served_due = false;
    for (uint32_t b = 0; b < slu_batch_count(batch); b++) {
        memcpy(l->served_x, slu_workspace_x(l->work) + (size_t)b * K, K * sizeof *l->served_x);
        if (l->shared && l->shared->n)
            memcpy(l->served_x + h->column, l->shared->x + (size_t)h->of[b] * h->width,
                   h->width * sizeof *l->served_x);
        slu_as_served_logits(l->as_served, l->dense.params, l->served_x, l->served_y + (size_t)b * l->tasks);
    }
    add_wide(l, batch, l->served_y);
    return l->served_y;
}

static int hand_out_predictions(slu_learner *l, const slu_batch *batch, slu_predicted_fn predicted, void *ctx,
                                slu_error *err)
{
    const float *logits = l->as_served ? predict_as_served(l, batch) : slu_workspace_logits(l->work);
    int rc = 0;
    for (uint32_t b = 0; b < slu_batch_count(batch) && !rc; b++, logits += l->tasks)
        if (slu_batch_at(batch, b)->arrival)
            rc = predicted(ctx, slu_batch_at(batch, b)->key, logits, err);
    return rc;
}

/* Twice as many rows are looked at as the batch can make, so that those that are due never pile up, and a few
 * more, so that a backlog goes. */
static int expire_rows(slu_learner *l, int64_t now_us, slu_error *err)
{
    uint64_t most = EXPIRE_AT_LEAST;
    for (uint32_t i = 0; i < l->tables; i++)
        if (slu_row_expiry_has(l->expiry, i))
            most += 2 * (uint64_t)l->t[i].u;
    return slu_row_expiry_run(l->expiry, now_us, most, err);
}

int slu_learner_step(slu_learner *l, const slu_batch *batch, int64_t now_us, slu_predicted_fn predicted,
                     void *ctx, double *loss, uint32_t *said, slu_error *err)
{
    uint32_t B = slu_batch_count(batch);
    assert(B && B <= l->options->training.batch_size);
    *loss = 0;
    *said = gather(l, batch);
    int rc = expire_rows(l, now_us, err);
    slu_row_table_arrive(l->rows);
    if (!rc)
        rc = fetch_rows(l, err);
    slu_row_table_expected_done(l->rows);
    if (rc)
        return rc;
    pool_inputs(l, batch);
    /* With batch statistics the training pass does not compute what is served, so predictions get a pass of
     * their own. */
    bool separate = slu_net_has_batch_stats(l->net) || !*said;
    if (separate) {
        slu_net_forward(l->net, l->dense.params, l->work, B, SLU_INFER);
        add_wide(l, batch, slu_workspace_logits(l->work));
        rc = hand_out_predictions(l, batch, predicted, ctx, err);
    }
    if (!rc && *said) {
        slu_net_forward(l->net, l->dense.params, l->work, B, SLU_TRAIN);
        add_wide(l, batch, slu_workspace_logits(l->work));
        if (separate)
            slu_dense_params_changed(&l->dense); /* running statistics */
        else
            rc = hand_out_predictions(l, batch, predicted, ctx, err);
    }
    if (rc)
        return rc;
    if (*said) {
        *loss = slu_funnel_loss(slu_workspace_dlogits(l->work), slu_workspace_logits(l->work), l->labels,
                                l->says, l->task_weight, B, l->tasks);
        slu_net_backward(l->net, l->dense.params, l->dense.grads, l->work, B);
        scatter_gradients(l, batch);
        update_rows(l);
        step_dense(l, *said);
    }
    return slu_row_table_release(l->rows, err);
}

/* ---- commits ---- */

int slu_learner_flush(slu_learner *l, slu_commit *c,
                      void (*each_row)(void *ctx, uint32_t table, const slu_row *row), void *ctx)
{
    slu_dense_flush(&l->dense, c);
    slu_row_expiry_flush(l->expiry, c);
    return slu_row_table_flush(l->rows, c, each_row, ctx);
}

void slu_learner_committed(slu_learner *l)
{
    slu_dense_committed(&l->dense);
    slu_row_expiry_committed(l->expiry);
    slu_row_table_committed(l->rows);
}

const char *slu_learner_products(const slu_learner *l)
{
    return slu_workspace_products(l->work);
}

const float *slu_learner_dense(const slu_learner *l, size_t *n)
{
    *n = l->dense.n_params;
    return l->dense.params;
}

bool slu_learner_dense_changed(const slu_learner *l)
{
    return slu_dense_is_changed(&l->dense);
}

slu_hash128 slu_learner_dense_digest(slu_learner *l)
{
    return slu_dense_digest(&l->dense);
}

const uint32_t *slu_learner_served(const slu_learner *l)
{
    return l->served;
}

uint32_t slu_learner_tables(const slu_learner *l)
{
    return l->tables;
}

const slu_row_layout *slu_learner_layout(const slu_learner *l, uint32_t table)
{
    return &l->t[table].layout;
}

slu_row_table *slu_learner_rows(const slu_learner *l)
{
    return l->rows;
}

uint64_t slu_learner_dense_steps(const slu_learner *l)
{
    return l->dense.steps;
}
