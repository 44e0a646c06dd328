/* model/net_int8.h - a network's forward pass with its large products in 8-bit integers (model/int8.h).
 *
 * What changes is how dense layers of at least 32 inputs and outputs are multiplied: their inputs are rounded
 * to 7 bits, row by row, and their weights were rounded once per set of parameters. Gates, logits, norms and
 * small layers stay in fp32. The part of x that all rows share (slu_workspace_share) is rounded to 14 bits:
 * it is one row. Layers that only each other read run one behind the other over a few rows at a time, so that
 * what lies between them stays in the first-level cache and is never written to a buffer of the workspace.
 *
 * A row's logits have the same bits whatever rows are in the batch: where there are no kernels that pack
 * (slu_gemm_packs), layers that stay in fp32 are loops of dot products, and not left to OpenBLAS.
 *
 * An slu_net_int8 is immutable; any number of workspaces and threads use it. */
#pragma once
#include "model/net.h"

typedef struct slu_net_int8 slu_net_int8;

/* Columns [first, first + width) of x are those that workspaces share: their |n| is 1 in every pass, or
 * |width| is 0. NULL: out of memory. The net outlives it. */
slu_net_int8 *slu_net_int8_new(const slu_net *n, uint32_t first, uint32_t width);
void slu_net_int8_free(slu_net_int8 *q); /* NULL is fine */
/* Part of a row's multiply-adds that are done in integers, for logs; what all rows share is not counted. 0:
 * no layer is large enough. */
double slu_net_int8_share(const slu_net_int8 *q);

/* Packed weights: floats of memory for them (64-byte aligned), and making them. */
size_t slu_net_int8_packed(const slu_net_int8 *q);
void slu_net_int8_pack(const slu_net_int8 *q, const float *params, float *packed);

/* Lets a workspace that does not train use integers in SLU_INFER passes from the next
 * slu_workspace_use_int8() on. SLU_ENOMEM: nothing has changed. */
int slu_workspace_int8(slu_workspace *w, const slu_net_int8 *q);
/* From now on |packed| is multiplied with, beside what slu_workspace_use_packed() said; NULL: fp32 again. */
void slu_workspace_use_int8(slu_workspace *w, const float *packed);
