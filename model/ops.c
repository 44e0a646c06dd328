#include "model/ops.h"
#include "model/activation.h"
#include "model/gate.h"
#include "model/mixture.h"
#include "model/norm.h"
#include "model/shared.h"
#include <assert.h>

#define MAX_MIXED SLU_NET_MAX_EXPERTS

static const slu_node *member(const slu_run *r, const slu_step *s, uint32_t i)
{
    return &r->g->nodes[r->g->members[s->first + i]];
}

static const float *param(const slu_run *r, size_t at)
{
    return at == SLU_NO_PARAM ? NULL : r->params + at;
}

static float *param_grad(const slu_run *r, size_t at)
{
    return at == SLU_NO_PARAM ? NULL : r->grads + at;
}

static bool shares(const slu_run *r, const slu_node *in)
{
    return in->op == SLU_OP_INPUT && r->w->shared.n;
}

static uint32_t index_of(const slu_run *r, const slu_step *s)
{
    return (uint32_t)(s - r->g->steps);
}

/* Leading columns that model/products.h takes of this pass. */
static uint32_t taken(const slu_run *r, const slu_step *s, const slu_node *in)
{
    return r->w->products && !shares(r, in) ? slu_products_columns(r->w->products, index_of(r, s)) : 0;
}

/* Of the columns from |first| on; packed are only whole steps that products never take. */
static slu_weights weights_of(const slu_run *r, const slu_step *s, uint32_t first)
{
    const slu_node *node = member(r, s, 0);
    const uint32_t K = slu_graph_input_of(r->g, node, 0)->width;
    const bool own = !r->w->products || !slu_products_columns(r->w->products, index_of(r, s));
    const float *packed = own ? r->w->packed : NULL;
    return (slu_weights){
        .w = param(r, node->weight) + (size_t)first * K,
        .K = K,
        .N = s->width - first,
        .forward = packed && s->forward != SLU_NO_PARAM ? packed + s->forward : NULL,
        .backward = packed && r->w->train && s->backward != SLU_NO_PARAM ? packed + s->backward : NULL,
        .parallel = r->w->parallel,
    };
}

static slu_block block(slu_view v)
{
    return (slu_block){v.p, v.ld};
}

/* The nodes of a bundle are neighbours in their buffer and in the parameters, so one product serves them all,
 * and one bias and ReLU most of them. Returns the columns that have had theirs. */
static uint32_t dense_products(const slu_run *r, const slu_step *s, const slu_node *in, slu_view x,
                               slu_view y)
{
    const slu_node *first = member(r, s, 0);
    const uint32_t done = taken(r, s, in);
    slu_weights w = weights_of(r, s, done);
    if (done) {
        slu_products_forward(r->w->products, index_of(r, s), r->B, block(x), block(y), r->w->parallel);
        if (done < s->width)
            slu_weights_forward(&w, 0, w.K, r->B, x.p, x.ld, false, y.p + done, y.ld,
                                (slu_follow){.cols = 0});
        return s->followed >= done ? done : 0;
    }
    slu_follow f = {.finish = {param(r, first->bias), first->relu}, .cols = s->followed};
    if (shares(r, in))
        slu_shared_forward(y.p, y.ld, x.p, x.ld, &w, &r->w->shared, r->B, f);
    else
        slu_weights_forward(&w, 0, w.K, r->B, x.p, x.ld, false, y.p, y.ld, f);
    return s->followed;
}

static void dense_forward(const slu_run *r, const slu_step *s)
{
    const slu_node *first = member(r, s, 0), *in = slu_graph_input_of(r->g, first, 0);
    const uint32_t followed = dense_products(r, s, in, slu_run_value(r, in), slu_run_value(r, first));
    for (uint32_t i = 0, column = 0; i < s->n; i++) {
        const slu_node *node = member(r, s, i);
        slu_view out = slu_run_value(r, node);
        if (column >= followed && (node->relu || node->bias != SLU_NO_PARAM))
            slu_bias_relu_forward(out.p, out.ld, param(r, node->bias), node->relu, r->B, node->width);
        column += node->width;
    }
}

/* An op over one step, for pieces. */
typedef struct op_work {
    const slu_run *r;
    const slu_step *s;
    uint32_t rows; /* of a piece */
} op_work;

/* A bias's gradient is a sum over rows: nodes are the pieces. */
static void bias_relu_piece(void *ctx, uint32_t piece)
{
    const op_work *w = ctx;
    const slu_run *r = w->r;
    const slu_node *node = member(r, w->s, piece);
    slu_view dy = slu_run_grad(r, node), y = slu_run_value(r, node);
    if (node->relu || node->bias != SLU_NO_PARAM)
        slu_bias_relu_backward(dy.p, dy.ld, param_grad(r, node->bias), y.p, y.ld, node->relu, r->B,
                               node->width);
}

static void dense_backward(const slu_run *r, const slu_step *s)
{
    const slu_node *first = member(r, s, 0), *in = slu_graph_input_of(r->g, first, 0);
    op_work work = {r, s, 0};
    slu_parallel_run(r->w->parallel, bias_relu_piece, &work, s->n);
    slu_view dy = slu_run_grad(r, first), x = slu_run_value(r, in), dx = slu_run_grad(r, in);
    const uint32_t done = taken(r, s, in);
    slu_weights w = weights_of(r, s, done);
    float *dw = param_grad(r, first->weight);
    bool add = !in->overwritten;
    if (done) {
        slu_products_backward(r->w->products, index_of(r, s), r->B, block(x), block(dy), block(dx), dw,
                              r->w->parallel);
        if (done == s->width)
            return;
        dy.p += done;
        dw += (size_t)done * w.K;
        add = true;
    } else if (shares(r, in)) {
        slu_shared_backward(dx.p, dx.ld, !in->overwritten, dw, dy.p, dy.ld, x.p, x.ld, &w, &r->w->shared,
                            r->B);
        return;
    }
    slu_weights_gradient(&w, 0, w.K, r->B, dy.p, dy.ld, x.p, x.ld, dw);
    slu_weights_backward(&w, 0, w.K, r->B, dy.p, dy.ld, add, dx.p, dx.ld);
}

static void batch_norm_forward(const slu_run *r, const slu_step *s)
{
    const slu_node *node = member(r, s, 0), *in = slu_graph_input_of(r->g, node, 0);
    slu_view y = slu_run_value(r, node), x = slu_run_value(r, in);
    const float *gain = param(r, node->weight), *shift = param(r, node->bias);
    if (r->statistics) {
        float *mean = r->w->saved_fixed + node->saved_fixed, *rstd = mean + node->width;
        slu_batch_norm_forward(y.p, y.ld, mean, rstd, r->statistics + node->mean,
                               r->statistics + node->variance, x.p, x.ld, gain, shift, r->B, node->width);
    } else {
        slu_batch_norm_infer(y.p, y.ld, param(r, node->mean), param(r, node->variance), x.p, x.ld, gain,
                             shift, r->B, node->width);
    }
    if (node->relu)
        slu_bias_relu_forward(y.p, y.ld, NULL, true, r->B, node->width);
}

static void batch_norm_backward(const slu_run *r, const slu_step *s)
{
    const slu_node *node = member(r, s, 0), *in = slu_graph_input_of(r->g, node, 0);
    slu_view dy = slu_run_grad(r, node), y = slu_run_value(r, node);
    slu_view dx = slu_run_grad(r, in), x = slu_run_value(r, in);
    const float *mean = r->w->saved_fixed + node->saved_fixed, *rstd = mean + node->width;
    float *scratch = r->w->saved_fixed + node->saved_fixed + 2 * (size_t)node->width;
    if (node->relu)
        slu_bias_relu_backward(dy.p, dy.ld, NULL, y.p, y.ld, true, r->B, node->width);
    slu_batch_norm_backward(dx.p, dx.ld, param_grad(r, node->weight), param_grad(r, node->bias), scratch,
                            dy.p, dy.ld, x.p, x.ld, mean, rstd, param(r, node->weight), r->B, node->width);
}

static float *layer_saved(const slu_run *r, const slu_node *node)
{
    return r->w->saved_row ? r->w->saved_row + node->saved_row * r->w->max_rows : NULL;
}

static void layer_norm_forward(const slu_run *r, const slu_step *s)
{
    const slu_node *node = member(r, s, 0), *in = slu_graph_input_of(r->g, node, 0);
    slu_view y = slu_run_value(r, node), x = slu_run_value(r, in);
    float *mean = layer_saved(r, node), *rstd = mean ? mean + r->w->max_rows : NULL;
    slu_layer_norm_forward(y.p, y.ld, mean, rstd, x.p, x.ld, param(r, node->weight), param(r, node->bias),
                           r->B, node->width);
    if (node->relu)
        slu_bias_relu_forward(y.p, y.ld, NULL, true, r->B, node->width);
}

static void layer_norm_backward(const slu_run *r, const slu_step *s)
{
    const slu_node *node = member(r, s, 0), *in = slu_graph_input_of(r->g, node, 0);
    slu_view dy = slu_run_grad(r, node), y = slu_run_value(r, node);
    slu_view dx = slu_run_grad(r, in), x = slu_run_value(r, in);
    const float *mean = layer_saved(r, node), *rstd = mean + r->w->max_rows;
    if (node->relu)
        slu_bias_relu_backward(dy.p, dy.ld, NULL, y.p, y.ld, true, r->B, node->width);
    slu_layer_norm_backward(dx.p, dx.ld, param_grad(r, node->weight), param_grad(r, node->bias), dy.p, dy.ld,
                            x.p, x.ld, mean, rstd, param(r, node->weight), r->B, node->width);
}

static void softmax_forward(const slu_run *r, const slu_step *s)
{
    const slu_node *node = member(r, s, 0);
    slu_view y = slu_run_value(r, node), x = slu_run_value(r, slu_graph_input_of(r->g, node, 0));
    slu_softmax_forward(y.p, y.ld, x.p, x.ld, r->B, node->width);
}

static void softmax_backward(const slu_run *r, const slu_step *s)
{
    const slu_node *node = member(r, s, 0);
    slu_view dx = slu_run_grad(r, slu_graph_input_of(r->g, node, 0));
    slu_view dy = slu_run_grad(r, node), y = slu_run_value(r, node);
    slu_softmax_backward(dx.p, dx.ld, dy.p, dy.ld, y.p, y.ld, r->B, node->width);
}

/* Rows of a mixture are independent: ROWS of them are a piece. */
enum { ROWS = 64 };

static void by_rows(const slu_run *r, const slu_step *s, slu_piece_fn fn)
{
    op_work work = {r, s, ROWS};
    slu_parallel_run(r->w->parallel, fn, &work, (r->B + ROWS - 1) / ROWS);
}

static float *row_of(slu_view v, uint32_t row)
{
    return v.p + (size_t)row * v.ld;
}

static void mixture_forward_piece(void *ctx, uint32_t piece)
{
    const op_work *work = ctx;
    const slu_run *r = work->r;
    const slu_node *node = member(r, work->s, 0);
    const uint32_t n = node->n_inputs - 1, row = piece * work->rows;
    const float *f[MAX_MIXED];
    uint32_t ld[MAX_MIXED];
    assert(n <= MAX_MIXED);
    for (uint32_t i = 0; i < n; i++) {
        slu_view in = slu_run_value(r, slu_graph_input_of(r->g, node, i + 1));
        f[i] = row_of(in, row);
        ld[i] = in.ld;
    }
    slu_view y = slu_run_value(r, node), gate = slu_run_value(r, slu_graph_input_of(r->g, node, 0));
    slu_mixture_forward(row_of(y, row), y.ld, row_of(gate, row), gate.ld, f, ld,
                        r->B - row < work->rows ? r->B - row : work->rows, n, node->width);
}

static void mixture_forward(const slu_run *r, const slu_step *s)
{
    by_rows(r, s, mixture_forward_piece);
}

static void mixture_backward_piece(void *ctx, uint32_t piece)
{
    const op_work *work = ctx;
    const slu_run *r = work->r;
    const slu_node *node = member(r, work->s, 0), *gate = slu_graph_input_of(r->g, node, 0);
    const uint32_t n = node->n_inputs - 1, row = piece * work->rows;
    const float *f[MAX_MIXED];
    float *df[MAX_MIXED];
    uint32_t ld[MAX_MIXED], ldd[MAX_MIXED];
    assert(n <= MAX_MIXED);
    for (uint32_t i = 0; i < n; i++) {
        const slu_node *in = slu_graph_input_of(r->g, node, i + 1);
        slu_view v = slu_run_value(r, in), d = slu_run_grad(r, in);
        f[i] = row_of(v, row);
        ld[i] = v.ld;
        df[i] = row_of(d, row);
        ldd[i] = d.ld;
    }
    slu_view dg = slu_run_grad(r, gate), g = slu_run_value(r, gate), dy = slu_run_grad(r, node);
    slu_mixture_backward(row_of(dg, row), dg.ld, df, ldd, row_of(dy, row), dy.ld, row_of(g, row), g.ld, f, ld,
                         r->B - row < work->rows ? r->B - row : work->rows, n, node->width);
}

static void mixture_backward(const slu_run *r, const slu_step *s)
{
    by_rows(r, s, mixture_backward_piece);
}

static const slu_op_pair pairs[] = {
    [SLU_OP_DENSE] = {dense_forward, dense_backward},
    [SLU_OP_BATCH_NORM] = {batch_norm_forward, batch_norm_backward},
    [SLU_OP_LAYER_NORM] = {layer_norm_forward, layer_norm_backward},
    [SLU_OP_SOFTMAX] = {softmax_forward, softmax_backward},
    [SLU_OP_MIXTURE] = {mixture_forward, mixture_backward},
};

const slu_op_pair *slu_op_of(slu_op op)
{
    return &pairs[op];
}
