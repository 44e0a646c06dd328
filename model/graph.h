/* model/graph.h - the one description of a network: nodes with names, from the input x to a logit per task.
 *
 * An architecture calls the builder functions below in any order that has inputs before their users. A node
 * may have several users; their gradients add up. Nothing is checked call by call: the first failure sticks,
 * later calls become no-ops that return a harmless node, and slu_graph_finish() reports it.
 *
 * slu_graph_finish() then plans the whole network:
 *   bundles  dense nodes that read the same input run as one matrix product. Their weights lie on top of each
 * other in the parameter vector and their outputs are column slices of one buffer. buffers  each bundle, and
 * each other node, owns a (rows, columns) buffer for values and one for gradients. The logits share one
 * buffer (rows, T), in the order in which they were added. params   the parameter vector: everything
 * trainable first, running statistics after it. steps    what forward runs first to last, and backward last
 * to first.
 *
 * Letters: B rows, K inputs of a node, N its width. */
#pragma once
#include "base/error.h"
#include "model/net.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct slu_graph slu_graph;
typedef uint32_t slu_node_id;

#define SLU_NODE_NAME 48

/* How initial weights are drawn: by what follows the product. */
typedef enum slu_dense_kind {
    SLU_DENSE_LINEAR, /* bias, Xavier uniform: logits */
    SLU_DENSE_RELU,   /* bias and ReLU in the same pass, He uniform */
    SLU_DENSE_HIDDEN, /* bias, He uniform: a norm with ReLU follows */
    SLU_DENSE_GATE,   /* no bias, Xavier uniform: a softmax follows */
} slu_dense_kind;

/* ---- builder: what architectures use. Names are printf formats; a node's name is unique. ---- */
slu_node_id slu_graph_input(slu_graph *g);
slu_node_id slu_graph_dense(slu_graph *g, slu_node_id in, uint32_t width, slu_dense_kind kind,
                            const char *name, ...) __attribute__((format(printf, 5, 6)));
/* Normalisation, then ReLU. */
slu_node_id slu_graph_norm_relu(slu_graph *g, slu_node_id in, slu_net_norm norm, const char *name, ...)
    __attribute__((format(printf, 4, 5)));
slu_node_id slu_graph_softmax(slu_graph *g, slu_node_id in, const char *name, ...)
    __attribute__((format(printf, 3, 4)));
/* sum_i gate_i experts[i]; the gate is (B, n), the experts (n) are of one width. */
slu_node_id slu_graph_mixture(slu_graph *g, slu_node_id gate, const slu_node_id *experts, uint32_t n,
                              const char *name, ...) __attribute__((format(printf, 5, 6)));
/* The logit of the next task: call once per task, in task order. */
void slu_graph_logit(slu_graph *g, slu_node_id in, const char *name, ...)
    __attribute__((format(printf, 3, 4)));

/* Composites. Layer i of "tower.click" is named "tower.click.i". */
/* Hidden layers of |widths| (n), each dense, norm (if any), ReLU. */
slu_node_id slu_graph_mlp(slu_graph *g, slu_node_id in, const uint32_t *widths, uint32_t n, slu_net_norm norm,
                          const char *name, ...) __attribute__((format(printf, 6, 7)));
/* softmax(in Wg) over n experts; its means are what slu_net_gate_means() reports, in the order of these
 * calls. */
slu_node_id slu_graph_gate(slu_graph *g, slu_node_id in, uint32_t n, const char *name, ...)
    __attribute__((format(printf, 4, 5)));

/* ---- what net.c and ops.c use ---- */
typedef enum slu_op {
    SLU_OP_INPUT,
    SLU_OP_DENSE,
    SLU_OP_BATCH_NORM,
    SLU_OP_LAYER_NORM,
    SLU_OP_SOFTMAX,
    SLU_OP_MIXTURE
} slu_op;

#define SLU_NO_PARAM SIZE_MAX

typedef struct slu_node {
    char name[SLU_NODE_NAME];
    slu_op op;
    slu_dense_kind kind; /* dense */
    bool relu;           /* dense, norms: ReLU at the end */
    bool logit;
    uint32_t width;                 /* N */
    uint32_t first_input, n_inputs; /* into slu_graph.inputs */
    uint32_t buffer, column;        /* where its value (and gradient) lies */
    size_t weight, bias;            /* offsets in params: dense; norms: gain, shift */
    size_t mean, variance;          /* batch norm */
    uint32_t readers;               /* steps that read it */
    bool overwritten;               /* its one reader is dense and sets its gradient: nothing to clear */
    size_t saved_row, saved_fixed; /* offsets into what forward leaves for backward: floats per row, floats */
} slu_node;

typedef struct slu_step {
    slu_op op;
    uint32_t first, n; /* into slu_graph.members: one node, or the nodes of a bundle */
    uint32_t width;    /* sum of theirs */
    /* Dense: leading columns whose bias and ReLU follow the product at once, all of them or whole panels. */
    uint32_t followed;
    size_t forward, backward; /* where its packed weights lie; SLU_NO_PARAM: not packed */
} slu_step;

struct slu_graph {
    uint32_t K, T;
    slu_node *nodes;
    uint32_t n_nodes, cap_nodes;
    slu_node_id *inputs;
    uint32_t n_inputs, cap_inputs;
    slu_node_id *gates; /* softmax nodes whose means are reported */
    uint32_t n_gates, cap_gates;
    slu_error error; /* the first thing that went wrong */
    /* the plan */
    slu_step *steps;
    uint32_t n_steps;
    slu_node_id *members; /* (n_nodes) */
    uint32_t *columns;    /* (n_buffers) of each buffer. Buffer 0 is x, buffer 1 the logits */
    uint32_t n_buffers;
    slu_net_param *params;
    uint32_t n_params, cap_params;
    size_t n_trainable, n_floats; /* of the parameter vector */
    size_t saved_row, saved_fixed;
    size_t packed_forward, packed_all; /* floats of packed weights: for serving, and for training */
    double flops;                      /* multiply-adds per row */
};

#define SLU_BUFFER_X      0
#define SLU_BUFFER_LOGITS 1

/* NULL: out of memory. */
slu_graph *slu_graph_new(uint32_t inputs, uint32_t tasks);
void slu_graph_free(slu_graph *g);
/* Plans. Returns 0, SLU_ENOMEM or SLU_EINVAL (what the builder did wrong). */
int slu_graph_finish(slu_graph *g, slu_error *err);
static inline const slu_node *slu_graph_input_of(const slu_graph *g, const slu_node *node, uint32_t i)
{
    return &g->nodes[g->inputs[node->first_input + i]];
}
