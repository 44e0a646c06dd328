/* model/weights.h - the weights of a dense step in products: as they lie in the parameters, or packed.
 *
 * Letters: B rows, K inputs, N outputs, w (N, K). Every function takes a range of w's columns [first, first +
 * width), because parts of the input may be computed apart (model/shared.h); x and dx begin with column
 * |first|. */
#pragma once
#include "model/gemm.h"

typedef struct slu_weights {
    const float *w; /* (N, K) */
    uint32_t K, N;
    const float *forward, *backward; /* w^T (K, N) and w (N, K) in panels; NULL: not packed */
    const slu_parallel *parallel;    /* who does the products; NULL: the caller alone */
} slu_weights;

/* Floats of one packed form; 0: this step is better left as it is. */
size_t slu_weights_forward_floats(uint32_t K, uint32_t N);
size_t slu_weights_backward_floats(uint32_t K, uint32_t N);
void slu_weights_pack_forward(float *out, const float *w, uint32_t K, uint32_t N);
void slu_weights_pack_backward(float *out, const float *w, uint32_t K, uint32_t N);

/* What follows the product in the first |cols| columns of y, N or a multiple of SLU_PANEL, and a bias for the
 * rest of them (NULL: none). */
typedef struct slu_follow {
    slu_finish finish;
    uint32_t cols;
    const float *rest; /* (N - cols) */
} slu_follow;

/* y (B, N) = x w^T, added to y with |add|, then followed by |f|. */
void slu_weights_forward(const slu_weights *w, uint32_t first, uint32_t width, uint32_t B, const float *x,
                         uint32_t ldx, bool add, float *y, uint32_t ldy, slu_follow f);
/* dx (B, width) = dy w, added to dx with |add|. */
void slu_weights_backward(const slu_weights *w, uint32_t first, uint32_t width, uint32_t B, const float *dy,
                          uint32_t lddy, bool add, float *dx, uint32_t lddx);
/* dw (N, K) += dy^T x in its columns [first, first + width). */
void slu_weights_gradient(const slu_weights *w, uint32_t first, uint32_t width, uint32_t B, const float *dy,
                          uint32_t lddy, const float *x, uint32_t ldx, float *dw);
