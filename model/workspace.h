/* model/workspace.h - what net.c and ops.c share about one run of a network. */
#pragma once
#include "model/graph.h"
#include "model/products.h"
#include "model/shared.h"

struct slu_net {
    slu_graph *g;
    uint64_t seed;
};

struct slu_workspace {
    const slu_net *net;
    uint32_t max_rows;
    bool train;
    const slu_parallel *parallel; /* NULL: the caller does everything */
    float **value;                /* (n_buffers): (max_rows, columns) */
    float **grad;                 /* (n_buffers); NULL unless train */
    float *saved_row;             /* (saved_row, max_rows): one vector of max_rows per saved float */
    float *saved_fixed;           /* (saved_fixed) */
    const float *packed; /* weights in panels (slu_graph.packed_*), or NULL: weights are read as they lie */
    float *own_packed;   /* (packed_all) or NULL: made by slu_workspace_pack */
    slu_products *products; /* NULL: all products are model/weights.h's */
    const char *slow;       /* why bf16 is slow here; NULL: it is not */
    slu_shared shared;      /* width 0: no columns of x may be shared; n is the caller's, batch by batch */
    float *shared_block;
    struct slu_int8_scratch *int8; /* NULL: fp32 only */
    float *block;                  /* the one allocation behind them, but for shared_block */
};

/* Everything an op needs, besides its node. */
typedef struct slu_run {
    const slu_graph *g;
    slu_workspace *w;
    const float *params;
    float *statistics; /* params where running statistics may be written (training), NULL otherwise */
    float *grads;      /* backward */
    uint32_t B;
} slu_run;

/* A (B, N) block in a wider buffer: ld floats from row to row. */
typedef struct slu_view {
    float *p;
    uint32_t ld;
} slu_view;

static inline slu_view slu_run_value(const slu_run *r, const slu_node *node)
{
    return (slu_view){r->w->value[node->buffer] + node->column, r->g->columns[node->buffer]};
}
static inline slu_view slu_run_grad(const slu_run *r, const slu_node *node)
{
    return (slu_view){r->w->grad[node->buffer] + node->column, r->g->columns[node->buffer]};
}

/* model/net_int8.c: whether integers are to be used, and step |i| of a pass with them. */
bool slu_workspace_has_int8(const slu_workspace *w);
void slu_net_int8_step(const slu_run *r, uint32_t i);
