#include "model/mixture.h"
#include "model/simd.h"
#include <stddef.h>

SLU_CLONES
void slu_mixture_forward(float *m, uint32_t ldm, const float *g, uint32_t ldg, const float *const *f,
                         const uint32_t *ldf, uint32_t B, uint32_t n, uint32_t H)
{
    for (uint32_t b = 0; b < B; b++, m += ldm, g += ldg) {
        float *restrict out = m;
        const float *restrict first = f[0] + (size_t)b * ldf[0];
        for (uint32_t j = 0; j < H; j++)
            out[j] = g[0] * first[j];
        for (uint32_t i = 1; i < n; i++) {
            const float *restrict in = f[i] + (size_t)b * ldf[i];
            const float weight = g[i];
            for (uint32_t j = 0; j < H; j++)
                out[j] += weight * in[j];
        }
    }
}

SLU_CLONES
void slu_mixture_backward(float *dg, uint32_t lddg, float *const *df, const uint32_t *lddf, const float *dm,
                          uint32_t lddm, const float *g, uint32_t ldg, const float *const *f,
                          const uint32_t *ldf, uint32_t B, uint32_t n, uint32_t H)
{
    for (uint32_t b = 0; b < B; b++, dg += lddg, dm += lddm, g += ldg)
        for (uint32_t i = 0; i < n; i++) {
            float *restrict din = df[i] + (size_t)b * lddf[i];
            const float *restrict dout = dm;
            const float weight = g[i];
            for (uint32_t j = 0; j < H; j++)
                din[j] += weight * dout[j];
            dg[i] += slu_dot(dm, f[i] + (size_t)b * ldf[i], H);
        }
}

void slu_mixture_forward_ref(float *m, uint32_t ldm, const float *g, uint32_t ldg, const float *const *f,
                             const uint32_t *ldf, uint32_t B, uint32_t n, uint32_t H)
{
    for (uint32_t b = 0; b < B; b++)
        for (uint32_t j = 0; j < H; j++) {
            double sum = 0;
            for (uint32_t i = 0; i < n; i++)
                sum += (double)g[(size_t)b * ldg + i] * f[i][(size_t)b * ldf[i] + j];
            m[(size_t)b * ldm + j] = (float)sum;
        }
}

void slu_mixture_backward_ref(float *dg, uint32_t lddg, float *const *df, const uint32_t *lddf,
                              const float *dm, uint32_t lddm, const float *g, uint32_t ldg,
                              const float *const *f, const uint32_t *ldf, uint32_t B, uint32_t n, uint32_t H)
{
    for (uint32_t b = 0; b < B; b++)
        for (uint32_t i = 0; i < n; i++) {
            double dot = 0;
            for (uint32_t j = 0; j < H; j++) {
                double d = dm[(size_t)b * lddm + j];
                dot += d * f[i][(size_t)b * ldf[i] + j];
                df[i][(size_t)b * lddf[i] + j] += (float)(g[(size_t)b * ldg + i] * d);
            }
            dg[(size_t)b * lddg + i] += (float)dot;
        }
}
