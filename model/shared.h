/* model/shared.h - a dense layer over x when its rows agree in a range of columns.
 *
 * y = x W^T splits over the columns of x. In the range [first, first + width) only |n| different rows occur,
 * row of[b] in row b of x, so their products are computed n times instead of B times and added where they
 * belong; backward sums the gradients of equal rows before it multiplies. Exact but for the order of sums. */
#pragma once
#include "model/weights.h"

typedef struct slu_shared {
    uint32_t first, width;
    uint32_t n;         /* different rows; 0: nothing is shared, x is read as it is */
    const uint32_t *of; /* (B) */
    float *x;           /* (n, width): read instead of these columns of x */
    float *dx;          /* (n, width): added to instead of these columns of dx */
    float *scratch;     /* (n, N) for the widest layer */
} slu_shared;

/* y = x W^T, followed by |f|; x (B, K), y (B, N). */
void slu_shared_forward(float *y, uint32_t ldy, const float *x, uint32_t ldx, const slu_weights *w,
                        const slu_shared *s, uint32_t B, slu_follow f);
/* dx = dy W, or dx += with |add|; dW += dy^T x. Columns of the range are added to s->dx. */
void slu_shared_backward(float *dx, uint32_t lddx, bool add, float *dw, const float *dy, uint32_t lddy,
                         const float *x, uint32_t ldx, const slu_weights *w, const slu_shared *s, uint32_t B);
