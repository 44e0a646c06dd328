#include "model/net.h"
#include "base/cache_line.h"
#include "base/digest.h"
#include "base/rng.h"
#include "base/text.h"
#include "model/arch.h"
#include "model/ops.h"
#include <assert.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WIDTH  (1u << 16)
#define MAX_INPUTS (1u << 20)
#define MAX_LAYERS 16
#define MAX_PARAMS ((size_t)1 << 30)

/* ---- building ---- */

static int check_widths(const char *what, const uint32_t *widths, uint32_t n, slu_error *err)
{
    if (n > MAX_LAYERS)
        return slu_fail(err, SLU_EINVAL, "network: %u layers in '%s'; at most %d", n, what, MAX_LAYERS);
    for (uint32_t i = 0; i < n; i++)
        if (widths[i] == 0 || widths[i] > MAX_WIDTH)
            return slu_fail(err, SLU_EINVAL, "network: width %u of layer %u of '%s'; allowed: 1 to %u",
                            widths[i], i, what, MAX_WIDTH);
    return 0;
}

static int check_spec(const slu_net_spec *spec, slu_error *err)
{
    if (spec->inputs == 0 || spec->inputs > MAX_INPUTS)
        return slu_fail(err, SLU_EINVAL, "network: %u inputs; allowed: 1 to %u", spec->inputs, MAX_INPUTS);
    if (spec->tasks == 0 || spec->tasks > SLU_NET_MAX_TASKS)
        return slu_fail(err, SLU_EINVAL, "network: %u tasks; allowed: 1 to %d", spec->tasks,
                        SLU_NET_MAX_TASKS);
    if (spec->norm < SLU_NET_NORM_NONE || spec->norm > SLU_NET_NORM_LAYER)
        return slu_fail(err, SLU_EINVAL, "network: unknown norm %d", (int)spec->norm);
    int rc = check_widths("bottom", spec->bottom, spec->n_bottom, err);
    if (!rc)
        rc = check_widths("towers", spec->towers, spec->n_towers, err);
    if (!rc)
        rc = check_widths("expert_layers", spec->expert_layers, spec->n_expert_layers, err);
    return rc;
}

static int find_architecture(const char *name, const slu_arch **arch, slu_error *err)
{
    *arch = name ? slu_arch_find(name) : NULL;
    if (*arch)
        return 0;
    char allowed[200] = "";
    for (const char *const *n = slu_net_architectures(); *n; n++)
        snprintf(allowed + strlen(allowed), sizeof allowed - strlen(allowed), "%s%s", *allowed ? ", " : "",
                 *n);
    const char *near = name ? slu_text_nearest(name, slu_net_architectures()) : NULL;
    return slu_fail(err, SLU_EINVAL, "unknown architecture '%s'%s%s%s; allowed: %s", name ? name : "",
                    near ? " (did you mean '" : "", near ? near : "", near ? "'?)" : "", allowed);
}

int slu_net_build(const slu_net_spec *spec, slu_net **np, slu_error *err)
{
    *np = NULL;
    const slu_arch *arch;
    int rc = find_architecture(spec->architecture, &arch, err);
    if (!rc)
        rc = check_spec(spec, err);
    if (!rc)
        rc = arch->check(spec, err);
    if (rc)
        return rc;
    slu_net *n = calloc(1, sizeof *n);
    if (!n)
        return slu_fail(err, SLU_ENOMEM, "no memory for the network");
    n->seed = spec->seed;
    n->g = slu_graph_new(spec->inputs, spec->tasks);
    if (!n->g) {
        rc = slu_fail(err, SLU_ENOMEM, "no memory for the network's graph");
        goto fail;
    }
    arch->build(n->g, spec);
    rc = slu_graph_finish(n->g, err);
    if (!rc && n->g->n_floats > MAX_PARAMS)
        rc = slu_fail(err, SLU_EINVAL, "network: %zu parameters; at most %zu", n->g->n_floats, MAX_PARAMS);
    if (rc)
        goto fail;
    *np = n;
    return 0;
fail:
    slu_net_free(n);
    return rc;
}

void slu_net_free(slu_net *n)
{
    if (!n)
        return;
    slu_graph_free(n->g);
    free(n);
}

uint32_t slu_net_inputs(const slu_net *n)
{
    return n->g->K;
}
uint32_t slu_net_tasks(const slu_net *n)
{
    return n->g->T;
}
size_t slu_net_params(const slu_net *n)
{
    return n->g->n_floats;
}
size_t slu_net_trainable(const slu_net *n)
{
    return n->g->n_trainable;
}
bool slu_net_has_batch_stats(const slu_net *n)
{
    return n->g->n_floats > n->g->n_trainable;
}
double slu_net_flops(const slu_net *n)
{
    return n->g->flops;
}
size_t slu_net_param_count(const slu_net *n)
{
    return n->g->n_params;
}
const slu_net_param *slu_net_param_at(const slu_net *n, size_t i)
{
    return i < n->g->n_params ? &n->g->params[i] : NULL;
}

/* ---- initial values ---- */

/* Every node draws from a stream of its own, so equal experts start different and adding a node moves no
 * other. */
static void init_weight(const slu_net *n, const slu_node *node, float *w)
{
    const uint32_t K = slu_graph_input_of(n->g, node, 0)->width;
    const bool he = node->kind == SLU_DENSE_RELU || node->kind == SLU_DENSE_HIDDEN;
    const double bound = sqrt(6.0 / (he ? (double)K : (double)K + node->width));
    slu_rng stream;
    slu_rng_seed(&stream, slu_hash64(node->name, strlen(node->name), n->seed));
    for (size_t i = 0, count = (size_t)K * node->width; i < count; i++)
        w[i] = (float)(bound * (2 * slu_rng_unit(&stream) - 1));
}

static void fill_ones(float *p, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        p[i] = 1;
}

void slu_net_init(const slu_net *n, float *params)
{
    memset(params, 0, n->g->n_floats * sizeof *params);
    for (uint32_t i = 0; i < n->g->n_nodes; i++) {
        const slu_node *node = &n->g->nodes[i];
        if (node->op == SLU_OP_DENSE)
            init_weight(n, node, params + node->weight);
        else if (node->weight != SLU_NO_PARAM)
            fill_ones(params + node->weight, node->width); /* gain of a norm */
        if (node->variance != SLU_NO_PARAM)
            fill_ones(params + node->variance, node->width);
    }
}

/* ---- workspace ---- */

/* Buffers start at cache lines. */
static size_t aligned(size_t floats)
{
    return slu_cache_lines(floats * sizeof(float)) / sizeof(float);
}

slu_workspace *slu_workspace_new(const slu_net *n, uint32_t max_rows, bool train)
{
    const slu_graph *g = n->g;
    size_t floats = 16, rows = max_rows ? max_rows : 1;
    if (train) /* products may take a few rows more than there are */
        rows = (rows + SLU_PRODUCTS_ROWS - 1) / SLU_PRODUCTS_ROWS * SLU_PRODUCTS_ROWS;
    for (uint32_t i = 0; i < g->n_buffers; i++)
        floats += aligned(rows * g->columns[i]) * (train ? 2 : 1);
    if (train)
        floats += aligned(rows * g->saved_row) + aligned(g->saved_fixed);
    slu_workspace *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->net = n;
    w->max_rows = max_rows;
    w->train = train;
    w->value = calloc(g->n_buffers, sizeof *w->value);
    w->grad = train ? calloc(g->n_buffers, sizeof *w->grad) : NULL;
    w->block = slu_cache_lines_alloc(floats * sizeof *w->block);
    if (!w->value || (train && !w->grad) || !w->block) {
        slu_workspace_free(w);
        return NULL;
    }
    memset(w->block, 0, floats * sizeof *w->block);
    float *next = w->block;
    for (uint32_t i = 0; i < g->n_buffers; i++) {
        w->value[i] = next;
        next += aligned(rows * g->columns[i]);
        if (train) {
            w->grad[i] = next;
            next += aligned(rows * g->columns[i]);
        }
    }
    if (train) {
        w->saved_row = next;
        w->saved_fixed = next + aligned(rows * g->saved_row);
    }
    return w;
}

void slu_workspace_free(slu_workspace *w)
{
    if (!w)
        return;
    free(w->block);
    free(w->int8);
    slu_products_free(w->products);
    free(w->shared_block);
    free(w->own_packed);
    free(w->grad);
    free(w->value);
    free(w);
}

uint32_t slu_workspace_rows(const slu_workspace *w)
{
    return w->max_rows;
}
float *slu_workspace_x(slu_workspace *w)
{
    return w->value[SLU_BUFFER_X];
}
float *slu_workspace_logits(slu_workspace *w)
{
    return w->value[SLU_BUFFER_LOGITS];
}
float *slu_workspace_dlogits(slu_workspace *w)
{
    return w->train ? w->grad[SLU_BUFFER_LOGITS] : NULL;
}
float *slu_workspace_dx(slu_workspace *w)
{
    return w->train ? w->grad[SLU_BUFFER_X] : NULL;
}

/* Widest step that reads x, 0 when one of them is no dense layer. */
static uint32_t widest_reader_of_x(const slu_graph *g)
{
    uint32_t widest = 0;
    for (uint32_t i = 0; i < g->n_steps; i++) {
        const slu_node *node = &g->nodes[g->members[g->steps[i].first]];
        for (uint32_t k = 0; k < node->n_inputs; k++) {
            if (slu_graph_input_of(g, node, k)->op != SLU_OP_INPUT)
                continue;
            if (g->steps[i].op != SLU_OP_DENSE)
                return 0;
            if (g->steps[i].width > widest)
                widest = g->steps[i].width;
        }
    }
    return widest;
}

bool slu_net_shares(const slu_net *n)
{
    return widest_reader_of_x(n->g) > 0;
}

struct slu_shared *slu_workspace_share(slu_workspace *w, uint32_t first, uint32_t width)
{
    uint32_t widest = widest_reader_of_x(w->net->g);
    assert(!w->shared_block && first + width <= w->net->g->K);
    if (!widest || !width || (w->products && slu_products_round(w->products)))
        return NULL;
    size_t x = aligned((size_t)w->max_rows * width);
    w->shared_block = calloc(2 * x + (size_t)w->max_rows * widest, sizeof *w->shared_block);
    if (!w->shared_block)
        return NULL;
    w->shared = (slu_shared){.first = first,
                             .width = width,
                             .x = w->shared_block,
                             .dx = w->train ? w->shared_block + x : NULL,
                             .scratch = w->shared_block + 2 * x};
    return &w->shared;
}

void slu_workspace_parallel(slu_workspace *w, const slu_parallel *p)
{
    w->parallel = p;
}

/* ---- products ---- */

int slu_workspace_precision(slu_workspace *w, bool bf16)
{
    assert(w->train && !w->products);
    slu_products_kind kind = slu_products_best(bf16, &w->slow);
    int rc = slu_products_new(w->net->g, w->max_rows, kind, w->parallel, &w->products);
    if (rc == SLU_ENOTFOUND) { /* the library has no kernel for a shape */
        w->slow = "oneDNN has no kernel for one of the network's shapes";
        kind = bf16 ? SLU_PRODUCTS_ROUNDED : SLU_PRODUCTS_NONE;
        rc = slu_products_new(w->net->g, w->max_rows, kind, w->parallel, &w->products);
    }
    if (kind != SLU_PRODUCTS_ROUNDED || !w->products)
        w->slow = NULL;
    return rc;
}

const char *slu_workspace_products(const slu_workspace *w)
{
    return w->products ? slu_products_name(w->products) : slu_gemm_backend();
}

const char *slu_workspace_slow(const slu_workspace *w)
{
    return w->slow;
}

/* ---- packed weights ---- */

typedef struct packing {
    const slu_graph *g;
    const float *params;
    float *packed;
    uint32_t forms;               /* of each step: 1 forward, 2 also backward */
    const slu_products *products; /* whose steps are not packed; NULL: none */
} packing;

static void pack_piece(void *ctx, uint32_t piece)
{
    const packing *p = ctx;
    const slu_step *s = &p->g->steps[piece / p->forms];
    if (s->op != SLU_OP_DENSE || (p->products && slu_products_columns(p->products, piece / p->forms)))
        return;
    const slu_node *first = &p->g->nodes[p->g->members[s->first]];
    uint32_t K = slu_graph_input_of(p->g, first, 0)->width;
    bool backward = piece % p->forms;
    if (!backward && s->forward != SLU_NO_PARAM)
        slu_weights_pack_forward(p->packed + s->forward, p->params + first->weight, K, s->width);
    if (backward && s->backward != SLU_NO_PARAM)
        slu_weights_pack_backward(p->packed + s->backward, p->params + first->weight, K, s->width);
}

size_t slu_net_packed(const slu_net *n)
{
    return slu_gemm_packs() ? n->g->packed_forward : 0;
}

void slu_net_pack(const slu_net *n, const float *params, float *packed)
{
    packing p = {n->g, params, packed, 1, NULL};
    slu_parallel_run(NULL, pack_piece, &p, n->g->n_steps);
}

void slu_workspace_use_packed(slu_workspace *w, const float *packed)
{
    assert(!w->train || !packed);
    w->packed = packed;
}

int slu_workspace_pack(slu_workspace *w, const float *params)
{
    const slu_graph *g = w->net->g;
    assert(w->train);
    if (w->products)
        slu_products_pack(w->products, params, w->parallel);
    if (!slu_gemm_packs() || !g->packed_all)
        return 0;
    if (!w->own_packed)
        w->own_packed = slu_cache_lines_alloc(g->packed_all * sizeof *w->own_packed);
    w->packed = w->own_packed;
    if (!w->packed)
        return SLU_ENOMEM;
    packing p = {g, params, w->own_packed, 2, w->products};
    slu_parallel_run(w->parallel, pack_piece, &p, 2 * g->n_steps);
    return 0;
}

/* ---- running ---- */

void slu_net_forward(const slu_net *n, float *params, slu_workspace *w, uint32_t B, slu_net_mode mode)
{
    assert(w->net == n && B <= w->max_rows && (mode == SLU_INFER || w->train));
    const slu_graph *g = n->g;
    slu_run r = {.g = g, .w = w, .params = params, .statistics = mode == SLU_TRAIN ? params : NULL, .B = B};
    if (B == 0)
        return;
    const bool int8 = mode == SLU_INFER && slu_workspace_has_int8(w);
    for (uint32_t i = 0; i < g->n_steps; i++)
        if (int8)
            slu_net_int8_step(&r, i);
        else
            slu_op_of(g->steps[i].op)->forward(&r, &g->steps[i]);
}

/* Gradients that several readers add into begin with zero. */
static void clear_gradient(const slu_run *r, const slu_node *node)
{
    slu_view d = slu_run_grad(r, node);
    for (uint32_t b = 0; b < r->B; b++)
        memset(d.p + (size_t)b * d.ld, 0, node->width * sizeof *d.p);
}

void slu_net_backward(const slu_net *n, const float *params, float *grads, slu_workspace *w, uint32_t B)
{
    assert(w->net == n && B <= w->max_rows && w->train);
    const slu_graph *g = n->g;
    slu_run r = {.g = g, .w = w, .params = params, .grads = grads, .B = B};
    if (B == 0)
        return;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i].overwritten && !g->nodes[i].logit)
            clear_gradient(&r, &g->nodes[i]);
    if (w->shared.n)
        memset(w->shared.dx, 0, (size_t)w->shared.n * w->shared.width * sizeof(float));
    for (uint32_t i = g->n_steps; i-- > 0;)
        slu_op_of(g->steps[i].op)->backward(&r, &g->steps[i]);
}

bool slu_net_gate_means(const slu_net *n, const slu_workspace *w, uint32_t B, float *out)
{
    const slu_graph *g = n->g;
    for (uint32_t i = 0; i < g->n_gates; i++) {
        const slu_node *gate = &g->nodes[g->gates[i]];
        const float *p = w->value[gate->buffer] + gate->column;
        for (uint32_t e = 0; e < gate->width; e++) {
            double sum = 0;
            for (uint32_t b = 0; b < B; b++)
                sum += p[(size_t)b * g->columns[gate->buffer] + e];
            *out++ = B ? (float)(sum / B) : 0;
        }
    }
    return g->n_gates > 0;
}
