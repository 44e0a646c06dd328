#include "model/weights.h"
#include "model/activation.h"

/* A panel of 16 columns for one or two of them would be mostly zeros. */
#define NARROW 4

static size_t panels_of(uint32_t columns)
{
    return (columns + SLU_PANEL - 1) / SLU_PANEL * SLU_PANEL;
}

size_t slu_weights_forward_floats(uint32_t K, uint32_t N)
{
    return N < NARROW ? 0 : panels_of(N) * K;
}

size_t slu_weights_backward_floats(uint32_t K, uint32_t N)
{
    return N < NARROW ? 0 : panels_of(K) * N;
}

void slu_weights_pack_forward(float *out, const float *w, uint32_t K, uint32_t N)
{
    slu_gemm_pack(out, (size_t)SLU_PANEL * K, true, K, N, w, K);
}

void slu_weights_pack_backward(float *out, const float *w, uint32_t K, uint32_t N)
{
    slu_gemm_pack(out, (size_t)SLU_PANEL * N, false, N, K, w, K);
}

static void plain_forward(const slu_weights *w, uint32_t first, uint32_t width, uint32_t B, const float *x,
                          uint32_t ldx, bool add, float *y, uint32_t ldy, slu_follow f)
{
    slu_gemm_on(w->parallel, false, true, B, w->N, width, 1, x, ldx, w->w + first, w->K, add, y, ldy);
    if (f.cols)
        slu_bias_relu_forward(y, ldy, f.finish.bias, f.finish.relu, B, f.cols);
    if (f.rest)
        slu_bias_relu_forward(y + f.cols, ldy, f.rest, false, B, w->N - f.cols);
}

void slu_weights_forward(const slu_weights *w, uint32_t first, uint32_t width, uint32_t B, const float *x,
                         uint32_t ldx, bool add, float *y, uint32_t ldy, slu_follow f)
{
    if (!w->forward) {
        plain_forward(w, first, width, B, x, ldx, add, y, ldy, f);
        return;
    }
    slu_panels b = {w->forward + (size_t)first * SLU_PANEL, (size_t)SLU_PANEL * w->K};
    if (f.cols)
        slu_gemm_panels_on(w->parallel, B, f.cols, width, x, ldx, b, add, y, ldy, f.finish);
    b.p += f.cols / SLU_PANEL * b.stride;
    if (f.cols < w->N)
        slu_gemm_panels_on(w->parallel, B, w->N - f.cols, width, x, ldx, b, add, y + f.cols, ldy,
                           (slu_finish){f.rest, false});
}

void slu_weights_backward(const slu_weights *w, uint32_t first, uint32_t width, uint32_t B, const float *dy,
                          uint32_t lddy, bool add, float *dx, uint32_t lddx)
{
    if (!w->backward || first % SLU_PANEL) {
        slu_gemm_on(w->parallel, false, false, B, width, w->N, 1, dy, lddy, w->w + first, w->K, add, dx,
                    lddx);
        return;
    }
    slu_panels b = {w->backward + (size_t)first * w->N, (size_t)SLU_PANEL * w->N};
    slu_gemm_panels_on(w->parallel, B, width, w->N, dy, lddy, b, add, dx, lddx, (slu_finish){NULL, false});
}

void slu_weights_gradient(const slu_weights *w, uint32_t first, uint32_t width, uint32_t B, const float *dy,
                          uint32_t lddy, const float *x, uint32_t ldx, float *dw)
{
    slu_gemm_on(w->parallel, true, false, w->N, width, B, 1, dy, lddy, x, ldx, 1, dw + first, w->K);
}
