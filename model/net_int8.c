#include "model/net_int8.h"
#include "base/cache_line.h"
#include "model/activation.h"
#include "model/int8.h"
#include "model/ops.h"
#include "model/simd.h"
#include "model/workspace.h"
#include <assert.h>
#include <stdlib.h>

/* Layers smaller than this in one direction would not win what rounding their inputs costs. */
#define LEAST 32u
/* Rows that run through a chain of layers together: their hidden activations stay in the first-level cache.
 */
#define BLOCK SLU_INT8_ROWS
#define NONE  UINT32_MAX

/* What becomes of a dense node. */
typedef struct layer {
    bool int8;
    uint32_t next; /* node that follows in its chain, or NONE */
    size_t at;     /* bytes into the packed form */
    size_t shared; /* the same of the weights for the columns that all rows share */
} layer;

typedef enum step_kind {
    STEP_PLAIN,   /* as ever */
    STEP_HEAD,    /* some of its nodes begin chains */
    STEP_COVERED, /* runs within the chain of an earlier step */
} step_kind;

struct slu_net_int8 {
    const slu_net *net;
    uint32_t first, width;
    layer *layers;    /* (n_nodes) */
    step_kind *steps; /* (n_steps) */
    size_t bytes;     /* packed */
    double share;
    uint32_t widest_in, widest, widest_step; /* inputs and outputs of a layer, columns of a step */
};

/* Scratch of a workspace. */
typedef struct slu_int8_scratch {
    const slu_net_int8 *q;
    const char *packed;
    slu_int8_rows x;      /* (max_rows) inputs of the step that runs */
    slu_int8_rows hidden; /* (BLOCK) */
    slu_int8_rows shared; /* (2) the one row that all rows share, twice */
    float *between;       /* (BLOCK, widest) what |hidden| is made of */
    float *bias;          /* (columns) of the step that runs, the shared columns' products included */
    float *twice;         /* (2, columns) products of |shared|, and scratch for rounding it */
    uint32_t columns;     /* of the widest step, or |width| */
} slu_int8_scratch;

/* ---- planning ---- */

static const slu_node *node_at(const slu_graph *g, uint32_t i)
{
    return &g->nodes[i];
}

static uint32_t member_of(const slu_graph *g, const slu_step *s, uint32_t i)
{
    return g->members[s->first + i];
}

static bool reads_x(const slu_graph *g, const slu_node *node)
{
    return slu_graph_input_of(g, node, 0)->op == SLU_OP_INPUT;
}

static slu_int8_inputs inputs_of(const slu_net_int8 *q, const slu_node *node)
{
    const slu_graph *g = q->net->g;
    const bool x = reads_x(g, node);
    return (slu_int8_inputs){slu_graph_input_of(g, node, 0)->width, x ? q->first : 0, x ? q->width : 0};
}

static bool large(const slu_net_int8 *q, const slu_node *node)
{
    const uint32_t K = slu_int8_count(inputs_of(q, node));
    return node->op == SLU_OP_DENSE && node->kind != SLU_DENSE_GATE && !node->logit && node->width >= LEAST &&
           K >= LEAST && K <= SLU_INT8_MAX_K;
}

static void plan_layers(slu_net_int8 *q)
{
    const slu_graph *g = q->net->g;
    double done = 0, all = g->flops;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const slu_node *node = node_at(g, i);
        layer *l = &q->layers[i];
        if (node->op == SLU_OP_DENSE && reads_x(g, node)) /* once for all rows */
            all -= (double)q->width * node->width;
        *l = (layer){.int8 = node->op == SLU_OP_DENSE && large(q, node), .next = NONE, .at = q->bytes};
        if (!l->int8)
            continue;
        const uint32_t K = slu_int8_count(inputs_of(q, node));
        q->bytes += slu_int8_packed(K, node->width);
        l->shared = q->bytes;
        if (reads_x(g, node) && q->width)
            q->bytes += slu_int8_packed(q->width, node->width);
        q->widest_in = K > q->widest_in ? K : q->widest_in;
        q->widest = node->width > q->widest ? node->width : q->widest;
        done += (double)K * node->width;
    }
    q->share = all > 0 ? done / all : 0;
}

/* A layer that is alone in its step and whose input nobody else reads runs right behind what makes it. */
static void plan_steps(slu_net_int8 *q)
{
    const slu_graph *g = q->net->g;
    for (uint32_t i = 0; i < g->n_steps; i++) {
        const slu_step *s = &g->steps[i];
        const uint32_t first = member_of(g, s, 0);
        q->steps[i] = STEP_PLAIN;
        if (s->op != SLU_OP_DENSE)
            continue;
        for (uint32_t k = 0; k < s->n; k++)
            if (q->layers[member_of(g, s, k)].int8)
                q->steps[i] = STEP_HEAD;
        q->widest_step = s->width > q->widest_step ? s->width : q->widest_step;
        const uint32_t in = g->inputs[node_at(g, first)->first_input];
        if (s->n == 1 && q->layers[first].int8 && q->layers[in].int8 && node_at(g, in)->readers == 1) {
            q->layers[in].next = first;
            q->steps[i] = STEP_COVERED;
        }
    }
}

slu_net_int8 *slu_net_int8_new(const slu_net *n, uint32_t first, uint32_t width)
{
    slu_net_int8 *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    *q = (slu_net_int8){.net = n, .first = first, .width = width};
    q->layers = calloc(n->g->n_nodes, sizeof *q->layers);
    q->steps = calloc(n->g->n_steps + 1, sizeof *q->steps);
    if (!q->layers || !q->steps) {
        slu_net_int8_free(q);
        return NULL;
    }
    plan_layers(q);
    plan_steps(q);
    return q;
}

void slu_net_int8_free(slu_net_int8 *q)
{
    if (!q)
        return;
    free(q->layers);
    free(q->steps);
    free(q);
}

double slu_net_int8_share(const slu_net_int8 *q)
{
    return q->share;
}

/* ---- packing ---- */

size_t slu_net_int8_packed(const slu_net_int8 *q)
{
    return q->bytes / sizeof(float);
}

void slu_net_int8_pack(const slu_net_int8 *q, const float *params, float *packed)
{
    const slu_graph *g = q->net->g;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        const slu_node *node = node_at(g, i);
        const layer *l = &q->layers[i];
        if (!l->int8)
            continue;
        const slu_int8_inputs in = inputs_of(q, node);
        const float *w = params + node->weight;
        slu_int8_pack((char *)packed + l->at, w, in.K, in, node->width);
        if (in.width)
            slu_int8_pack((char *)packed + l->shared, w + in.first, in.K, (slu_int8_inputs){in.width, 0, 0},
                          node->width);
    }
}

/* ---- workspaces ---- */

static slu_int8_rows rows_from(slu_int8_rows x, uint32_t row)
{
    return (slu_int8_rows){x.q + (size_t)row * x.ld, x.ld, x.step + row, x.zero + row};
}

/* A block of memory that is cut into pieces at cache lines; without |base| only its size is found out. */
typedef struct block {
    char *base;
    size_t used;
} block;

static char *take(block *b, size_t bytes)
{
    char *piece = b->base ? b->base + b->used : NULL;
    b->used += slu_cache_lines(bytes);
    return piece;
}

static slu_int8_rows take_rows(block *b, uint32_t rows, uint32_t inputs)
{
    slu_int8_rows r = {.ld = slu_int8_row(inputs)};
    r.q = (uint8_t *)take(b, (size_t)rows * r.ld + SLU_INT8_SLACK);
    r.step = (float *)(void *)take(b, rows * sizeof *r.step);
    r.zero = (int32_t *)(void *)take(b, rows * sizeof *r.zero);
    return r;
}

static float *take_floats(block *b, size_t floats)
{
    return (float *)(void *)take(b, floats * sizeof(float));
}

static size_t scratch_at(slu_int8_scratch *t, char *base, const slu_net_int8 *q, uint32_t max_rows)
{
    const uint32_t columns = q->widest_step > q->width ? q->widest_step : q->width;
    block b = {base, slu_cache_lines(sizeof *t)};
    *t = (slu_int8_scratch){.q = q, .columns = columns};
    t->x = take_rows(&b, max_rows, q->widest_in);
    t->hidden = take_rows(&b, BLOCK, q->widest);
    t->shared = take_rows(&b, 2, q->width);
    t->between = take_floats(&b, (size_t)BLOCK * q->widest);
    t->bias = take_floats(&b, columns);
    t->twice = take_floats(&b, 2 * (size_t)columns);
    return b.used;
}

int slu_workspace_int8(slu_workspace *w, const slu_net_int8 *q)
{
    assert(!w->train && !w->int8 && q->net == w->net);
    assert(w->shared.width == q->width && (!q->width || w->shared.first == q->first));
    slu_int8_scratch t;
    char *p = slu_cache_lines_alloc(scratch_at(&t, NULL, q, w->max_rows));
    if (!p)
        return SLU_ENOMEM;
    scratch_at(&t, p, q, w->max_rows);
    w->int8 = (slu_int8_scratch *)(void *)p;
    *w->int8 = t;
    return 0;
}

void slu_workspace_use_int8(slu_workspace *w, const float *packed)
{
    assert(w->int8);
    w->int8->packed = (const char *)packed;
}

bool slu_workspace_has_int8(const slu_workspace *w)
{
    return w->int8 && w->int8->packed;
}

/* ---- running ---- */

static slu_int8_weights weights_of(const slu_int8_scratch *t, uint32_t node)
{
    const slu_node *n = node_at(t->q->net->g, node);
    return slu_int8_weights_at(t->packed + t->q->layers[node].at, slu_int8_count(inputs_of(t->q, n)),
                               n->width);
}

/* |bias| of the chain's first node is the step's; the others have theirs in the parameters. */
static void run_chain(const slu_run *r, uint32_t head, const float *bias)
{
    const slu_int8_scratch *t = r->w->int8;
    for (uint32_t b = 0; b < r->B; b += BLOCK) {
        const uint32_t rows = r->B - b < BLOCK ? r->B - b : BLOCK;
        slu_int8_rows x = rows_from(t->x, b);
        const float *add = bias;
        for (uint32_t i = head;; i = t->q->layers[i].next) {
            const slu_node *node = node_at(r->g, i);
            if (i != head)
                add = r->params + node->bias;
            if (t->q->layers[i].next == NONE) {
                slu_view y = slu_run_value(r, node);
                slu_int8_product(x, rows, weights_of(t, i), add, node->relu, y.p + (size_t)b * y.ld, y.ld);
                break;
            }
            slu_int8_product(x, rows, weights_of(t, i), add, node->relu, t->between, node->width);
            slu_int8_quantise(t->between, node->width, rows, (slu_int8_inputs){node->width, 0, 0}, t->hidden);
            x = t->hidden;
        }
    }
}

/* Columns [column, column + n) of a step's weights. */
static slu_weights columns_of(const slu_weights *whole, uint32_t column, uint32_t n)
{
    return (slu_weights){
        .w = whole->w + (size_t)column * whole->K,
        .K = whole->K,
        .N = n,
        .forward =
            whole->forward && column % SLU_PANEL == 0 ? whole->forward + (size_t)column * whole->K : NULL,
    };
}

/* The products of the columns that all rows share, of a layer in integers: two rows, so that nearly nothing
 * of the one row is lost in rounding. */
static void shared_product(const slu_run *r, uint32_t node, float *out)
{
    const slu_int8_scratch *t = r->w->int8;
    const uint32_t N = node_at(r->g, node)->width;
    slu_int8_weights w = slu_int8_weights_at(t->packed + t->q->layers[node].shared, t->q->width, N);
    slu_int8_product(t->shared, 2, w, NULL, false, t->twice, t->columns);
    for (uint32_t j = 0; j < N; j++)
        out[j] = t->twice[j] + t->twice[t->columns + j];
}

/* Biases of a step (zeros where a node has none) and, where x is read, the products of what all rows share.
 */
static void make_bias(const slu_run *r, const slu_step *s, const slu_weights *w, bool shared)
{
    const slu_int8_scratch *t = r->w->int8;
    const slu_shared *sh = &r->w->shared;
    if (shared)
        slu_int8_quantise_twice(sh->x, sh->width, t->twice, t->shared);
    for (uint32_t i = 0, column = 0; i < s->n; i++) {
        const uint32_t id = member_of(r->g, s, i);
        const slu_node *node = node_at(r->g, id);
        float *bias = t->bias + column;
        if (!shared) {
            memset(bias, 0, node->width * sizeof *bias);
        } else if (t->q->layers[id].int8) {
            shared_product(r, id, bias);
        } else {
            slu_weights part = columns_of(w, column, node->width);
            slu_weights_forward(&part, sh->first, sh->width, 1, sh->x, sh->width, false, bias, node->width,
                                (slu_follow){.cols = 0});
        }
        for (uint32_t j = 0; node->bias != SLU_NO_PARAM && j < node->width; j++)
            bias[j] += r->params[node->bias + j];
        column += node->width;
    }
}

/* Dot products: for layers that are not worth packing, and the same for a row wherever it is. */
SLU_CLONES
static void dot_rows(const float *x, uint32_t ldx, uint32_t B, slu_int8_inputs in, const float *w, uint32_t N,
                     const float *bias, bool relu, float *y, uint32_t ldy)
{
    const uint32_t behind = in.first + in.width;
    for (uint32_t b = 0; b < B; b++, x += ldx, y += ldy)
        for (uint32_t j = 0; j < N; j++) {
            const float *column = w + (size_t)j * in.K;
            float v = slu_dot(x, column, in.first) + slu_dot(x + behind, column + behind, in.K - behind);
            v += bias[j];
            y[j] = relu && !(v > 0) ? 0 : v;
        }
}

/* Columns [column, column + n) of a step in fp32. */
static void run_plain(const slu_run *r, const slu_node *node, const slu_weights *whole, uint32_t column,
                      uint32_t n, slu_int8_inputs in)
{
    slu_view x = slu_run_value(r, slu_graph_input_of(r->g, node, 0)), y = slu_run_value(r, node);
    const float *bias = r->w->int8->bias + column;
    const slu_weights w = columns_of(whole, column, n);
    if (!w.forward) {
        dot_rows(x.p, x.ld, r->B, in, w.w, n, bias, node->relu, y.p, y.ld);
        return;
    }
    const uint32_t behind = in.first + in.width;
    const slu_follow f = {.finish = {bias, node->relu}, .cols = n}, nothing = {.cols = 0};
    if (in.first)
        slu_weights_forward(&w, 0, in.first, r->B, x.p, x.ld, false, y.p, y.ld, behind < in.K ? nothing : f);
    if (behind < in.K)
        slu_weights_forward(&w, behind, in.K - behind, r->B, x.p + behind, x.ld, in.first, y.p, y.ld, f);
}

/* Neighbours from |i| on that stay in fp32 and end alike are one product. Returns how many. */
static uint32_t plain_run(const slu_run *r, const slu_step *s, uint32_t i, uint32_t *columns)
{
    const uint32_t first = member_of(r->g, s, i);
    uint32_t n = 0;
    *columns = 0;
    for (; i + n < s->n; n++) {
        const uint32_t id = member_of(r->g, s, i + n);
        if (r->w->int8->q->layers[id].int8 || node_at(r->g, id)->relu != node_at(r->g, first)->relu)
            break;
        *columns += node_at(r->g, id)->width;
    }
    return n;
}

/* |integers|: some of its layers begin chains. */
static void run_dense(const slu_run *r, const slu_step *s, bool integers)
{
    const slu_int8_scratch *t = r->w->int8;
    const slu_node *first = node_at(r->g, member_of(r->g, s, 0)), *in = slu_graph_input_of(r->g, first, 0);
    const slu_int8_inputs inputs = inputs_of(t->q, first);
    slu_weights w = {.w = r->params + first->weight, .K = in->width, .N = s->width};
    if (r->w->packed && s->forward != SLU_NO_PARAM)
        w.forward = r->w->packed + s->forward;
    slu_view x = slu_run_value(r, in);
    make_bias(r, s, &w, inputs.width);
    if (integers)
        slu_int8_quantise(x.p, x.ld, r->B, inputs, t->x);
    for (uint32_t i = 0, column = 0, columns, n; i < s->n; i += n, column += columns) {
        const uint32_t id = member_of(r->g, s, i);
        if (t->q->layers[id].int8) {
            n = 1;
            columns = node_at(r->g, id)->width;
            run_chain(r, id, t->bias + column);
        } else {
            n = plain_run(r, s, i, &columns);
            run_plain(r, node_at(r->g, id), &w, column, columns, inputs);
        }
    }
}

static void run_logit(const slu_run *r, const slu_node *node)
{
    const slu_node *in = slu_graph_input_of(r->g, node, 0);
    slu_view x = slu_run_value(r, in), y = slu_run_value(r, node);
    dot_rows(x.p, x.ld, r->B, (slu_int8_inputs){in->width, 0, 0}, r->params + node->weight, node->width,
             r->params + node->bias, node->relu, y.p, y.ld);
}

void slu_net_int8_step(const slu_run *r, uint32_t i)
{
    const slu_net_int8 *q = r->w->int8->q;
    const slu_step *s = &r->g->steps[i];
    const slu_node *first = node_at(r->g, member_of(r->g, s, 0));
    assert(!q->width || r->w->shared.n == 1);
    if (q->steps[i] == STEP_COVERED)
        return;
    if (q->steps[i] == STEP_HEAD)
        run_dense(r, s, true);
    else if (first->logit && !reads_x(r->g, first))
        run_logit(r, first);
    else if (s->op == SLU_OP_DENSE && !slu_gemm_packs()) /* a library's sums depend on the number of rows */
        run_dense(r, s, false);
    else
        slu_op_of(s->op)->forward(r, s);
}
