/* model/products.h - the large products of a network's training passes, in bf16 or by another library.
 *
 * A dense step's products are y = x W^T, dx = dy W and dW += dy^T x. Those of at least 32 inputs and outputs
 * can be taken over by one of three kinds: BF16     by oneDNN on the machine's bf16 unit: operands are
 * rounded to bf16 (model/bf16.h), sums are floats ROUNDED  the same arithmetic on any machine: operands are
 * rounded, then multiplied as floats, which is exact; slower than fp32, because it rounds besides FP32     by
 * oneDNN in floats The parameters stay floats; what is rounded of them is made anew after each change
 * (slu_products_pack). Of a step with gates the gates' columns are not taken, nor are logits: they and
 * everything else are computed as ever.
 *
 * What a product reads is rounded once a pass: x stays for dW, dy serves dx and dW. Rows are taken 128, 64
 * and 32 at a time and filled up to whole pieces, so that oneDNN is asked for a handful of shapes, all of
 * which are made here and none while training. Pieces are cut at places that do not depend on who does them,
 * so neither do the bits.
 *
 * Letters: B rows, K inputs and N taken outputs of a step. A slu_products belongs to one workspace. */
#pragma once
#include "model/graph.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum slu_products_kind {
    SLU_PRODUCTS_NONE,
    SLU_PRODUCTS_BF16,
    SLU_PRODUCTS_ROUNDED,
    SLU_PRODUCTS_FP32
} slu_products_kind;

typedef struct slu_products slu_products;

#define SLU_PRODUCTS_LEAST 32u /* inputs and outputs of what is taken */
#define SLU_PRODUCTS_ROWS  32u /* buffers of values and gradients have room for B rows filled up to this */

/* What this machine is best served with, in bf16 or fp32: NONE where the products are best left as they are.
 * With bf16 and ROUNDED, |*why| (may be NULL) says what the machine lacks. */
slu_products_kind slu_products_best(bool bf16, const char **why);

/* For tests and benchmarks, before a workspace is given its precision: |kind| is best for the precision that
 * it is of, whatever the machine. NONE: as ever. */
void slu_products_choose(slu_products_kind kind);

/* For up to |rows| rows and the threads of |p|. |*out| may be NULL for a kind that takes nothing of this
 * network. 0, SLU_ENOMEM, SLU_ENOTFOUND: this machine cannot. */
int slu_products_new(const slu_graph *g, uint32_t rows, slu_products_kind kind, const slu_parallel *p,
                     slu_products **out);
void slu_products_free(slu_products *p);              /* NULL is fine */
bool slu_products_round(const slu_products *p);       /* operands: BF16 and ROUNDED */
const char *slu_products_name(const slu_products *p); /* "bf16: onednn 2.6.3, brg:avx512_core_amx_bf16" */

/* Leading columns of step |i| of the graph that are taken, 0 or N. */
uint32_t slu_products_columns(const slu_products *p, uint32_t i);
/* The parameters from now on. */
void slu_products_pack(slu_products *p, const float *params, const slu_parallel *parallel);

/* One of step |i|'s operands: a (B, columns) block, |ld| floats from row to row. */
typedef struct slu_block {
    float *p;
    uint32_t ld;
} slu_block;
/* y = x W^T, with bias and ReLU where they follow at once (slu_step.followed). What it writes into columns of
 * the step that are not taken means nothing, so those come after it. Behind row B, x and y may be written to
 * up to whole SLU_PRODUCTS_ROWS, and so may all blocks below. */
void slu_products_forward(slu_products *p, uint32_t i, uint32_t B, slu_block x, slu_block y,
                          const slu_parallel *parallel);
/* dx = dy W, or dx += where others add to it, and dW (N, K) += dy^T x, with the x of the last forward. */
void slu_products_backward(slu_products *p, uint32_t i, uint32_t B, slu_block x, slu_block dy, slu_block dx,
                           float *dw, const slu_parallel *parallel);
