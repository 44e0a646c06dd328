/* model/net.h - a network described once, used by training and scoring.
 *
 * An architecture is one file, model/arch_<name>.c: a function that adds nodes to an slu_graph
 * (model/graph.h) from the input x to one logit per task. Everything else is derived: parameter and
 * activation arenas, the forward order, the backward order. To add an architecture, add a file and its line
 * in model/arch.c.
 *
 * Letters: B rows in the batch, K inputs, T tasks, P parameters. Row-major throughout.
 *
 * An slu_net is immutable once built: any number of threads may run it, each with a workspace of its own and
 * any parameter vector of length P, so a scorer swaps parameters by swapping a pointer. No I/O, no clock, no
 * globals; threads are the caller's (slu_workspace_parallel); the same inputs give the same bytes on one
 * machine, whatever B they were batched with is NOT promised (GEMM kernels differ by shape), whatever the
 * thread count is. */
#pragma once
#include "base/error.h"
#include "base/parallel.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLU_NET_MAX_TASKS   64
#define SLU_NET_MAX_EXPERTS 256

typedef enum slu_net_norm { SLU_NET_NORM_NONE, SLU_NET_NORM_BATCH, SLU_NET_NORM_LAYER } slu_net_norm;

typedef struct slu_net_spec {
    const char *architecture; /* "shared_bottom" | "esmm" | "mmoe" */
    uint32_t inputs;          /* K */
    uint32_t tasks;           /* T */
    const uint32_t *bottom;   /* (n_bottom) shared_bottom */
    uint32_t n_bottom;
    const uint32_t *towers; /* (n_towers) hidden widths of each tower, before its logit */
    uint32_t n_towers;
    uint32_t experts;              /* mmoe */
    const uint32_t *expert_layers; /* (n_expert_layers) mmoe */
    uint32_t n_expert_layers;
    slu_net_norm norm;
    uint64_t seed; /* of the initial parameters; each node draws from a stream of its own */
} slu_net_spec;

typedef struct slu_net slu_net;

/* Returns 0, SLU_EINVAL (unknown architecture, a size that makes no sense; the message names it) or
 * SLU_ENOMEM. */
int slu_net_build(const slu_net_spec *spec, slu_net **np, slu_error *err);
void slu_net_free(slu_net *n);
/* Names of all architectures, NULL-terminated. */
const char *const *slu_net_architectures(void);

uint32_t slu_net_inputs(const slu_net *n); /* K */
uint32_t slu_net_tasks(const slu_net *n);  /* T */
size_t slu_net_params(const slu_net *n);   /* P: all floats that make up the network */
size_t slu_net_trainable(
    const slu_net *n); /* the first so many of them have gradients; the rest are running statistics */
bool slu_net_has_batch_stats(const slu_net *n); /* batch norm: training-mode logits are not what is served */
double slu_net_flops(const slu_net *n);         /* multiply-adds of one row's forward pass */

/* A named piece of the parameter vector, for dumps and tests. */
typedef struct slu_net_param {
    const char *name;    /* "tower.0.1.weight" (task 0, layer 1), "tower.0.logit.bias", "expert.3.0.weight",
                            "gate.0.weight" */
    size_t offset, size; /* floats */
    uint32_t rows, cols; /* (rows, cols); vectors: (1, cols) */
} slu_net_param;
size_t slu_net_param_count(const slu_net *n);
const slu_net_param *slu_net_param_at(const slu_net *n, size_t i);

/* Fills params (P) with initial values: He uniform for weights before a ReLU, Xavier before logits and gates,
 * zero biases, norm gains 1. A function of the spec alone. */
void slu_net_init(const slu_net *n, float *params);

/* Activations (and their gradients, when |train|) for up to |max_rows| rows. One thread at a time. */
typedef struct slu_workspace slu_workspace;
slu_workspace *slu_workspace_new(const slu_net *n, uint32_t max_rows, bool train); /* NULL: out of memory */
void slu_workspace_free(slu_workspace *w);
uint32_t slu_workspace_rows(const slu_workspace *w);
float *
slu_workspace_x(slu_workspace *w); /* (max_rows, K): the caller writes the first B rows before forward */
float *slu_workspace_logits(
    slu_workspace *w); /* (max_rows, T): after forward; the wide part is added here by the caller */
float *slu_workspace_dlogits(slu_workspace *w); /* (max_rows, T): the caller writes before backward */
float *slu_workspace_dx(slu_workspace *w);      /* (max_rows, K): after backward */

/* Announces that many rows of x may agree in the columns [first, first + width), and returns the place to say
 * how, batch by batch (model/shared.h): the caller sets n and of and writes x (n, width) before forward, and
 * reads dx (n, width) after backward; those columns of the workspace's own x and dx then mean nothing. n 0 is
 * a plain batch. NULL: out of memory, or something else than a dense layer reads x, or one of its products is
 * in bf16. A workspace that does not train has no dx. */
struct slu_shared *slu_workspace_share(slu_workspace *w, uint32_t first, uint32_t width);
/* Whether it can: only dense layers read x. */
bool slu_net_shares(const slu_net *n);

/* Who does the pieces of passes in |w| from now on: |p|, or with NULL, as in a new workspace, the calling
 * thread alone. The bits are the same. */
void slu_workspace_parallel(slu_workspace *w, const slu_parallel *p);

/* How a training workspace computes its large products (model/products.h), from its next slu_workspace_pack()
 * on: in bf16, or in fp32 as suits the machine best. To be called once, after slu_workspace_parallel() and
 * before slu_workspace_share(); parameters, gradients and sums are floats either way. Without it they are
 * computed as in any other workspace. SLU_ENOMEM: nothing has changed. */
int slu_workspace_precision(slu_workspace *w, bool bf16);
const char *slu_workspace_products(const slu_workspace *w); /* what computes them, for logs */
/* Why bf16 is slower than fp32 would be on this machine; NULL: it is not, or it was not asked for. */
const char *slu_workspace_slow(const slu_workspace *w);

/* Products read weights that lie in their own order faster. slu_workspace_pack copies |params| into it, for
 * all passes of this (training) workspace: to be called again after every change of weights, before the next
 * pass. SLU_ENOMEM: nothing is packed, passes go on as before. */
int slu_workspace_pack(slu_workspace *w, const float *params);
/* For serving: a copy that many workspaces read, made once per set of parameters. Floats of it (0: this
 * machine has no use for one), making it, and reading it from now on (NULL: no longer). */
size_t slu_net_packed(const slu_net *n);
void slu_net_pack(const slu_net *n, const float *params, float *packed);
void slu_workspace_use_packed(slu_workspace *w, const float *packed);

typedef enum slu_net_mode { SLU_INFER, SLU_TRAIN } slu_net_mode;

/* x -> logits for B rows. SLU_TRAIN uses and updates batch statistics in |params|, so training passes its own
 * vector; SLU_INFER leaves params alone. */
void slu_net_forward(const slu_net *n, float *params, slu_workspace *w, uint32_t B, slu_net_mode mode);
/* dlogits -> dx (overwritten), and adds into grads (slu_net_trainable floats). Wants the activations of the
 * SLU_TRAIN forward just before it. */
void slu_net_backward(const slu_net *n, const float *params, float *grads, slu_workspace *w, uint32_t B);

/* Mean gate weight per (task, expert) of the last forward, for metrics: out (T, experts); false when the net
 * has no gates. */
bool slu_net_gate_means(const slu_net *n, const slu_workspace *w, uint32_t B, float *out);
