/* model/shared.h - a dense layer over x when its rows agree in a range of columns.
 *
 * y = x W^T splits over the columns of x. In the range [first, first + width) only |n| different rows occur,
 * row of[b] in row b of x, so their products are computed n times instead of B times and added where they
 * belong; backward sums the gradients of equal rows before it multiplies. Exact but for the order of sums. */
#pragma once
#include <stdint.h>

typedef struct slu_shared {
    uint32_t first, width;
    uint32_t n;         /* different rows; 0: nothing is shared, x is read as it is */
    const uint32_t *of; /* (B) */
    float *x;           /* (n, width): read instead of these columns of x */
    float *dx;          /* (n, width): added to instead of these columns of dx */
    float *scratch;     /* (n, N) for the widest layer */
} slu_shared;

/* y = x W^T; x (B, K), w (N, K), y (B, N). */
void slu_shared_forward(float *y, uint32_t ldy, const float *x, uint32_t ldx, const float *w,
                        const slu_shared *s, uint32_t B, uint32_t K, uint32_t N);
/* dx += dy W, dW += dy^T x. */
void slu_shared_backward(float *dx, uint32_t lddx, float *dw, const float *dy, uint32_t lddy, const float *x,
                         uint32_t ldx, const float *w, const slu_shared *s, uint32_t B, uint32_t K,
                         uint32_t N);
