#include "model/shared.h"
#include "model/gemm.h"
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

void slu_shared_forward(float *y, uint32_t ldy, const float *x, uint32_t ldx, const float *w,
                        const slu_shared *s, uint32_t B, uint32_t K, uint32_t N)
{
    const uint32_t behind = s->first + s->width;
    slu_gemm(false, true, s->n, N, s->width, 1, s->x, s->width, w + s->first, K, 0, s->scratch, N);
    spread(y, ldy, s->scratch, s->of, B, N);
    if (s->first)
        slu_gemm(false, true, B, N, s->first, 1, x, ldx, w, K, 1, y, ldy);
    if (behind < K)
        slu_gemm(false, true, B, N, K - behind, 1, x + behind, ldx, w + behind, K, 1, y, ldy);
}

void slu_shared_backward(float *dx, uint32_t lddx, float *dw, const float *dy, uint32_t lddy, const float *x,
                         uint32_t ldx, const float *w, const slu_shared *s, uint32_t B, uint32_t K,
                         uint32_t N)
{
    const uint32_t behind = s->first + s->width;
    gather(s->scratch, dy, lddy, s->of, s->n, B, N);
    slu_gemm(true, false, N, s->width, s->n, 1, s->scratch, N, s->x, s->width, 1, dw + s->first, K);
    slu_gemm(false, false, s->n, s->width, N, 1, s->scratch, N, w + s->first, K, 1, s->dx, s->width);
    if (s->first) {
        slu_gemm(true, false, N, s->first, B, 1, dy, lddy, x, ldx, 1, dw, K);
        slu_gemm(false, false, B, s->first, N, 1, dy, lddy, w, K, 1, dx, lddx);
    }
    if (behind < K) {
        slu_gemm(true, false, N, K - behind, B, 1, dy, lddy, x + behind, ldx, 1, dw + behind, K);
        slu_gemm(false, false, B, K - behind, N, 1, dy, lddy, w + behind, K, 1, dx + behind, lddx);
    }
}
