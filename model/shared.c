#include "model/shared.h"
#include "model/simd.h"
#include <stddef.h>

SLU_CLONES
static void spread(float *y, uint32_t ldy, const float *rows, const uint32_t *of, uint32_t B, uint32_t N)
{
    for (uint32_t b = 0; b < B; b++)
        memcpy(y + (size_t)b * ldy, rows + (size_t)of[b] * N, N * sizeof *y);
}

SLU_CLONES
static void gather(float *rows, const float *dy, uint32_t lddy, const uint32_t *of, uint32_t n, uint32_t B,
                   uint32_t N)
{
    memset(rows, 0, (size_t)n * N * sizeof *rows);
    for (uint32_t b = 0; b < B; b++) {
        float *restrict row = rows + (size_t)of[b] * N;
        const float *restrict in = dy + (size_t)b * lddy;
        for (uint32_t j = 0; j < N; j++)
            row[j] += in[j];
    }
}

static void add_up(float *restrict sum, const float *restrict a, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        sum[i] += a[i];
}

/* One row for all: it is a bias like any other, which the last product adds as it finishes. */
static slu_follow with_row(slu_follow f, float *row, uint32_t N)
{
    if (f.finish.bias)
        add_up(row, f.finish.bias, f.cols);
    f.finish.bias = row;
    f.rest = f.cols < N ? row + f.cols : NULL;
    return f;
}

void slu_shared_forward(float *y, uint32_t ldy, const float *x, uint32_t ldx, const slu_weights *w,
                        const slu_shared *s, uint32_t B, slu_follow f)
{
    const uint32_t behind = s->first + s->width, K = w->K, N = w->N;
    const slu_follow nothing = {.cols = 0};
    if (!s->first && behind == K) { /* the whole input */
        slu_weights_forward(w, 0, K, s->n, s->x, s->width, false, s->scratch, N, f);
        spread(y, ldy, s->scratch, s->of, B, N);
        return;
    }
    slu_weights_forward(w, s->first, s->width, s->n, s->x, s->width, false, s->scratch, N, nothing);
    const bool one = s->n == 1;
    if (one)
        f = with_row(f, s->scratch, N);
    else
        spread(y, ldy, s->scratch, s->of, B, N);
    if (s->first)
        slu_weights_forward(w, 0, s->first, B, x, ldx, !one, y, ldy, behind < K ? nothing : f);
    if (behind < K)
        slu_weights_forward(w, behind, K - behind, B, x + behind, ldx, !one || s->first, y, ldy, f);
}

void slu_shared_backward(float *dx, uint32_t lddx, bool add, float *dw, const float *dy, uint32_t lddy,
                         const float *x, uint32_t ldx, const slu_weights *w, const slu_shared *s, uint32_t B)
{
    const uint32_t behind = s->first + s->width, K = w->K, N = w->N;
    gather(s->scratch, dy, lddy, s->of, s->n, B, N);
    slu_weights_gradient(w, s->first, s->width, s->n, s->scratch, N, s->x, s->width, dw);
    slu_weights_backward(w, s->first, s->width, s->n, s->scratch, N, true, s->dx, s->width);
    if (s->first) {
        slu_weights_gradient(w, 0, s->first, B, dy, lddy, x, ldx, dw);
        slu_weights_backward(w, 0, s->first, B, dy, lddy, add, dx, lddx);
    }
    if (behind < K) {
        slu_weights_gradient(w, behind, K - behind, B, dy, lddy, x + behind, ldx, dw);
        slu_weights_backward(w, behind, K - behind, B, dy, lddy, add, dx + behind, lddx);
    }
}
