#include "model/dense.h"
#include "model/gemm.h"

void slu_dense_forward(float *y, uint32_t ldy, const float *x, uint32_t ldx, const float *w, uint32_t B,
                       uint32_t K, uint32_t N)
{
    slu_gemm(false, true, B, N, K, 1, x, ldx, w, K, 0, y, ldy);
}

void slu_dense_backward(float *dx, uint32_t lddx, float *dw, const float *dy, uint32_t lddy, const float *x,
                        uint32_t ldx, const float *w, uint32_t B, uint32_t K, uint32_t N)
{
    slu_gemm(true, false, N, K, B, 1, dy, lddy, x, ldx, 1, dw, K);
    if (dx)
        slu_gemm(false, false, B, K, N, 1, dy, lddy, w, K, 1, dx, lddx);
}

void slu_dense_forward_ref(float *y, uint32_t ldy, const float *x, uint32_t ldx, const float *w, uint32_t B,
                           uint32_t K, uint32_t N)
{
    slu_gemm_ref(false, true, B, N, K, 1, x, ldx, w, K, 0, y, ldy);
}

void slu_dense_backward_ref(float *dx, uint32_t lddx, float *dw, const float *dy, uint32_t lddy,
                            const float *x, uint32_t ldx, const float *w, uint32_t B, uint32_t K, uint32_t N)
{
    slu_gemm_ref(true, false, N, K, B, 1, dy, lddy, x, ldx, 1, dw, K);
    if (dx)
        slu_gemm_ref(false, false, B, K, N, 1, dy, lddy, w, K, 1, dx, lddx);
}
