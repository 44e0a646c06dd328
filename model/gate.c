#include "model/gate.h"
#include <math.h>
#include <stddef.h>

static float largest(const float *a, uint32_t n)
{
    float m = a[0];
    for (uint32_t i = 1; i < n; i++)
        m = a[i] > m ? a[i] : m;
    return m;
}

void slu_softmax_forward(float *g, uint32_t ldg, const float *a, uint32_t lda, uint32_t B, uint32_t n)
{
    for (uint32_t b = 0; b < B; b++, g += ldg, a += lda) {
        float m = largest(a, n), sum = 0;
        for (uint32_t i = 0; i < n; i++)
            sum += g[i] = expf(a[i] - m);
        float inverse = 1 / sum; /* sum >= 1: the largest logit adds e^0 */
        for (uint32_t i = 0; i < n; i++)
            g[i] *= inverse;
    }
}

void slu_softmax_backward(float *da, uint32_t ldda, const float *dg, uint32_t lddg, const float *g,
                          uint32_t ldg, uint32_t B, uint32_t n)
{
    for (uint32_t b = 0; b < B; b++, da += ldda, dg += lddg, g += ldg) {
        float mean = 0;
        for (uint32_t i = 0; i < n; i++)
            mean += g[i] * dg[i];
        for (uint32_t i = 0; i < n; i++)
            da[i] += g[i] * (dg[i] - mean);
    }
}

void slu_softmax_forward_ref(float *g, uint32_t ldg, const float *a, uint32_t lda, uint32_t B, uint32_t n)
{
    for (uint32_t b = 0; b < B; b++, g += ldg, a += lda) {
        double m = largest(a, n), sum = 0;
        for (uint32_t i = 0; i < n; i++)
            sum += exp(a[i] - m);
        for (uint32_t i = 0; i < n; i++)
            g[i] = (float)(exp(a[i] - m) / sum);
    }
}
