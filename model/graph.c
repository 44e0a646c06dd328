#include "model/graph.h"
#include "model/weights.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- builder ---- */

slu_graph *slu_graph_new(uint32_t inputs, uint32_t tasks)
{
    slu_graph *g = calloc(1, sizeof *g);
    if (g) {
        g->K = inputs;
        g->T = tasks;
    }
    return g;
}

void slu_graph_free(slu_graph *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; i < g->n_params; i++)
        free((char *)g->params[i].name);
    free(g->params);
    free(g->columns);
    free(g->members);
    free(g->steps);
    free(g->gates);
    free(g->inputs);
    free(g->nodes);
    free(g);
}

/* Makes room for |extra| more elements of |size| in *|p|. False, with the error set, when there is none. */
static bool grow(slu_graph *g, void *p, uint32_t n, uint32_t *cap, uint32_t extra, size_t size)
{
    if (n + extra <= *cap)
        return true;
    uint32_t wanted = (n + extra) * 2 + 8;
    void *old, *new;
    memcpy(&old, p, sizeof old);
    new = realloc(old, wanted * size);
    if (!new) {
        slu_fail(&g->error, SLU_ENOMEM, "no memory for the network's graph");
        return false;
    }
    memcpy(p, &new, sizeof new);
    *cap = wanted;
    return true;
}

static slu_node_id add_node(slu_graph *g, slu_op op, uint32_t width, const slu_node_id *inputs, uint32_t n,
                            const char *name, va_list args)
{
    if (g->error.code)
        return 0;
    if (!grow(g, &g->nodes, g->n_nodes, &g->cap_nodes, 1, sizeof *g->nodes) ||
        !grow(g, &g->inputs, g->n_inputs, &g->cap_inputs, n, sizeof *g->inputs))
        return 0;
    slu_node *node = &g->nodes[g->n_nodes];
    memset(node, 0, sizeof *node);
    int length = vsnprintf(node->name, sizeof node->name, name, args);
    if (length < 0 || (size_t)length >= sizeof node->name) {
        slu_fail(&g->error, SLU_EINVAL, "network node '%s...': name longer than %d bytes", node->name,
                 SLU_NODE_NAME - 1);
        return 0;
    }
    node->op = op;
    node->width = width;
    node->first_input = g->n_inputs;
    node->n_inputs = n;
    node->weight = node->bias = node->mean = node->variance = SLU_NO_PARAM;
    for (uint32_t i = 0; i < n; i++)
        g->inputs[g->n_inputs++] = inputs[i];
    return g->n_nodes++;
}

static slu_node_id add_named(slu_graph *g, slu_op op, uint32_t width, const slu_node_id *inputs, uint32_t n,
                             const char *name, ...)
{
    va_list args;
    va_start(args, name);
    slu_node_id id = add_node(g, op, width, inputs, n, name, args);
    va_end(args);
    return id;
}

slu_node_id slu_graph_input(slu_graph *g)
{
    return add_named(g, SLU_OP_INPUT, g->K, NULL, 0, "x");
}

static slu_node_id add_dense(slu_graph *g, slu_node_id in, uint32_t width, slu_dense_kind kind,
                             const char *name, va_list args)
{
    slu_node_id id = add_node(g, SLU_OP_DENSE, width, &in, 1, name, args);
    if (!g->error.code) {
        g->nodes[id].kind = kind;
        g->nodes[id].relu = kind == SLU_DENSE_RELU;
    }
    return id;
}

slu_node_id slu_graph_dense(slu_graph *g, slu_node_id in, uint32_t width, slu_dense_kind kind,
                            const char *name, ...)
{
    va_list args;
    va_start(args, name);
    slu_node_id id = add_dense(g, in, width, kind, name, args);
    va_end(args);
    return id;
}

void slu_graph_logit(slu_graph *g, slu_node_id in, const char *name, ...)
{
    va_list args;
    va_start(args, name);
    slu_node_id id = add_dense(g, in, 1, SLU_DENSE_LINEAR, name, args);
    va_end(args);
    if (!g->error.code)
        g->nodes[id].logit = true;
}

slu_node_id slu_graph_norm_relu(slu_graph *g, slu_node_id in, slu_net_norm norm, const char *name, ...)
{
    if (g->error.code)
        return 0;
    slu_op op = norm == SLU_NET_NORM_BATCH ? SLU_OP_BATCH_NORM : SLU_OP_LAYER_NORM;
    va_list args;
    va_start(args, name);
    slu_node_id id = add_node(g, op, g->nodes[in].width, &in, 1, name, args);
    va_end(args);
    if (!g->error.code)
        g->nodes[id].relu = true;
    return id;
}

slu_node_id slu_graph_softmax(slu_graph *g, slu_node_id in, const char *name, ...)
{
    if (g->error.code)
        return 0;
    va_list args;
    va_start(args, name);
    slu_node_id id = add_node(g, SLU_OP_SOFTMAX, g->nodes[in].width, &in, 1, name, args);
    va_end(args);
    return id;
}

slu_node_id slu_graph_mixture(slu_graph *g, slu_node_id gate, const slu_node_id *experts, uint32_t n,
                              const char *name, ...)
{
    if (g->error.code)
        return 0;
    slu_node_id *inputs = malloc((n + 1) * sizeof *inputs);
    if (!inputs) {
        slu_fail(&g->error, SLU_ENOMEM, "no memory for the network's graph");
        return 0;
    }
    inputs[0] = gate;
    memcpy(inputs + 1, experts, n * sizeof *inputs);
    va_list args;
    va_start(args, name);
    slu_node_id id = add_node(g, SLU_OP_MIXTURE, g->nodes[experts[0]].width, inputs, n + 1, name, args);
    va_end(args);
    free(inputs);
    if (!g->error.code && g->nodes[gate].width != n)
        slu_fail(&g->error, SLU_EINVAL, "network node '%s': a gate of width %u for %u experts",
                 g->nodes[id].name, g->nodes[gate].width, n);
    for (uint32_t i = 1; i < n && !g->error.code; i++)
        if (g->nodes[experts[i]].width != g->nodes[experts[0]].width)
            slu_fail(&g->error, SLU_EINVAL, "network node '%s': experts of different widths",
                     g->nodes[id].name);
    return id;
}

slu_node_id slu_graph_mlp(slu_graph *g, slu_node_id in, const uint32_t *widths, uint32_t n, slu_net_norm norm,
                          const char *name, ...)
{
    char prefix[SLU_NODE_NAME];
    va_list args;
    va_start(args, name);
    vsnprintf(prefix, sizeof prefix, name, args);
    va_end(args);
    for (uint32_t i = 0; i < n; i++) {
        slu_dense_kind kind = norm == SLU_NET_NORM_NONE ? SLU_DENSE_RELU : SLU_DENSE_HIDDEN;
        in = slu_graph_dense(g, in, widths[i], kind, "%s.%u", prefix, i);
        if (norm != SLU_NET_NORM_NONE)
            in = slu_graph_norm_relu(g, in, norm, "%s.%u.norm", prefix, i);
    }
    return in;
}

slu_node_id slu_graph_gate(slu_graph *g, slu_node_id in, uint32_t n, const char *name, ...)
{
    char prefix[SLU_NODE_NAME];
    va_list args;
    va_start(args, name);
    vsnprintf(prefix, sizeof prefix, name, args);
    va_end(args);
    in = slu_graph_dense(g, in, n, SLU_DENSE_GATE, "%s", prefix);
    slu_node_id id = slu_graph_softmax(g, in, "%s.softmax", prefix);
    if (!g->error.code && grow(g, &g->gates, g->n_gates, &g->cap_gates, 1, sizeof *g->gates))
        g->gates[g->n_gates++] = id;
    return id;
}

/* ---- plan ---- */

static int check(slu_graph *g)
{
    uint32_t logits = 0;
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        logits += g->nodes[i].logit;
        for (uint32_t j = 0; j < i; j++)
            if (strcmp(g->nodes[i].name, g->nodes[j].name) == 0)
                return slu_fail(&g->error, SLU_EINVAL, "two network nodes are named '%s'", g->nodes[i].name);
    }
    if (logits != g->T)
        return slu_fail(&g->error, SLU_EINVAL, "the architecture makes %u logits for %u tasks", logits, g->T);
    return 0;
}

/* A dense node joins the first one that reads the same input. Logits stay alone: their columns are those of
 * the logits buffer. */
static bool same_bundle(const slu_graph *g, const slu_node *a, const slu_node *b)
{
    return a->op == SLU_OP_DENSE && b->op == SLU_OP_DENSE && !a->logit && !b->logit &&
           g->inputs[a->first_input] == g->inputs[b->first_input];
}

/* Steps in the order of their first node: all members of a bundle are ready when their input is. */
static void plan_steps(slu_graph *g, bool *taken)
{
    uint32_t used = 0;
    for (slu_node_id i = 0; i < g->n_nodes; i++) {
        if (taken[i] || g->nodes[i].op == SLU_OP_INPUT)
            continue;
        slu_step *s = &g->steps[g->n_steps++];
        *s = (slu_step){.op = g->nodes[i].op, .first = used};
        for (slu_node_id j = i; j < g->n_nodes; j++)
            if (j == i || (!taken[j] && same_bundle(g, &g->nodes[i], &g->nodes[j]))) {
                taken[j] = true;
                g->members[used++] = j;
                s->n++;
                s->width += g->nodes[j].width;
            }
    }
}

static void plan_buffers(slu_graph *g)
{
    g->columns[SLU_BUFFER_X] = g->K;
    g->columns[SLU_BUFFER_LOGITS] = g->T;
    g->n_buffers = 2;
    uint32_t logits = 0;
    /* Logits take their columns in the order of the nodes, which need not be that of the steps. */
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].logit) {
            g->nodes[i].buffer = SLU_BUFFER_LOGITS;
            g->nodes[i].column = logits++;
        }
    for (uint32_t i = 0; i < g->n_steps; i++) {
        const slu_step *s = &g->steps[i];
        if (g->nodes[g->members[s->first]].logit)
            continue;
        uint32_t column = 0;
        for (uint32_t j = 0; j < s->n; j++) {
            slu_node *node = &g->nodes[g->members[s->first + j]];
            node->buffer = g->n_buffers;
            node->column = column;
            column += node->width;
        }
        g->columns[g->n_buffers++] = column;
    }
}

/* Appends a named piece to the parameter vector and returns its offset. */
static size_t add_param(slu_graph *g, const slu_node *node, const char *part, uint32_t rows, uint32_t cols)
{
    if (g->error.code || !grow(g, &g->params, g->n_params, &g->cap_params, 1, sizeof *g->params))
        return 0;
    char *name = NULL;
    if (asprintf(&name, "%s.%s", node->name, part) < 0) {
        slu_fail(&g->error, SLU_ENOMEM, "no memory for the network's graph");
        return 0;
    }
    size_t at = g->n_floats, size = (size_t)rows * cols;
    g->params[g->n_params++] = (slu_net_param){name, at, size, rows, cols};
    g->n_floats += size;
    return at;
}

static void plan_params(slu_graph *g)
{
    for (uint32_t i = 0; i < g->n_steps; i++) {
        const slu_step *s = &g->steps[i];
        for (uint32_t j = 0; j < s->n; j++) {
            slu_node *node = &g->nodes[g->members[s->first + j]];
            if (s->op == SLU_OP_DENSE)
                node->weight =
                    add_param(g, node, "weight", node->width, slu_graph_input_of(g, node, 0)->width);
            else if (s->op == SLU_OP_BATCH_NORM || s->op == SLU_OP_LAYER_NORM)
                node->weight = add_param(g, node, "gain", 1, node->width);
        }
        for (uint32_t j = 0; j < s->n; j++) {
            slu_node *node = &g->nodes[g->members[s->first + j]];
            if (s->op == SLU_OP_DENSE && node->kind != SLU_DENSE_GATE)
                node->bias = add_param(g, node, "bias", 1, node->width);
            else if (s->op == SLU_OP_BATCH_NORM || s->op == SLU_OP_LAYER_NORM)
                node->bias = add_param(g, node, "shift", 1, node->width);
        }
    }
    g->n_trainable = g->n_floats;
    for (uint32_t i = 0; i < g->n_nodes; i++)
        if (g->nodes[i].op == SLU_OP_BATCH_NORM) {
            g->nodes[i].mean = add_param(g, &g->nodes[i], "mean", 1, g->nodes[i].width);
            g->nodes[i].variance = add_param(g, &g->nodes[i], "variance", 1, g->nodes[i].width);
        }
}

/* What forward leaves for backward, and the arithmetic of a row. */
static void plan_costs(slu_graph *g)
{
    for (uint32_t i = 0; i < g->n_nodes; i++) {
        slu_node *node = &g->nodes[i];
        node->saved_row = g->saved_row;
        node->saved_fixed = g->saved_fixed;
        if (node->op == SLU_OP_LAYER_NORM)
            g->saved_row += 2; /* mean, rstd of each row */
        else if (node->op == SLU_OP_BATCH_NORM)
            g->saved_fixed += 4 * (size_t)node->width; /* mean, rstd of each column, scratch of backward */
        else if (node->op == SLU_OP_DENSE)
            g->flops += (double)node->width * slu_graph_input_of(g, node, 0)->width;
        else if (node->op == SLU_OP_MIXTURE)
            g->flops += (double)node->width * (node->n_inputs - 1);
    }
}

static const slu_node *member(const slu_graph *g, const slu_step *s, uint32_t i)
{
    return &g->nodes[g->members[s->first + i]];
}

/* Leading columns that have a bias each, one behind the other in the parameters, and the same ReLU or none.
 */
static uint32_t followed_columns(const slu_graph *g, const slu_step *s)
{
    const slu_node *first = member(g, s, 0);
    uint32_t columns = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const slu_node *node = member(g, s, i);
        if (node->bias == SLU_NO_PARAM || node->bias != first->bias + columns || node->relu != first->relu)
            break;
        columns += node->width;
    }
    return columns == s->width || columns % SLU_PANEL == 0 ? columns : 0;
}

/* Where packed weights lie: all forward forms first, which is all that serving needs. */
static void plan_packing(slu_graph *g)
{
    for (int backward = 0; backward < 2; backward++) {
        for (uint32_t i = 0; i < g->n_steps; i++) {
            slu_step *s = &g->steps[i];
            s->forward = backward ? s->forward : SLU_NO_PARAM;
            s->backward = SLU_NO_PARAM;
            if (s->op != SLU_OP_DENSE)
                continue;
            uint32_t K = slu_graph_input_of(g, member(g, s, 0), 0)->width;
            size_t floats =
                backward ? slu_weights_backward_floats(K, s->width) : slu_weights_forward_floats(K, s->width);
            if (floats)
                *(backward ? &s->backward : &s->forward) = g->packed_all;
            g->packed_all += floats;
        }
        if (!backward)
            g->packed_forward = g->packed_all;
    }
}

static void plan_dense(slu_graph *g)
{
    for (uint32_t i = 0; i < g->n_steps; i++) {
        slu_step *s = &g->steps[i];
        const slu_node *first = member(g, s, 0);
        for (uint32_t k = 0; k < first->n_inputs; k++) {
            slu_node *in = &g->nodes[g->inputs[first->first_input + k]];
            in->readers++;
            in->overwritten = in->readers == 1 && s->op == SLU_OP_DENSE;
        }
        if (s->op == SLU_OP_DENSE)
            s->followed = followed_columns(g, s);
    }
    plan_packing(g);
}

int slu_graph_finish(slu_graph *g, slu_error *err)
{
    bool *taken = NULL;
    if (g->error.code || check(g))
        goto out;
    taken = calloc(g->n_nodes, sizeof *taken);
    g->steps = calloc(g->n_nodes, sizeof *g->steps);
    g->members = calloc(g->n_nodes, sizeof *g->members);
    g->columns = calloc(g->n_nodes + 2, sizeof *g->columns);
    if (!taken || !g->steps || !g->members || !g->columns) {
        slu_fail(&g->error, SLU_ENOMEM, "no memory for the network's graph");
        goto out;
    }
    plan_steps(g, taken);
    plan_buffers(g);
    plan_params(g);
    plan_costs(g);
    plan_dense(g);
out:
    free(taken);
    return g->error.code ? slu_fail(err, g->error.code, "%s", g->error.message) : 0;
}
