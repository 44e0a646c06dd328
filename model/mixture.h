/* model/mixture.h - experts' outputs mixed by a gate, m = sum_i g_i f_i.
 *
 * Letters: B rows, n experts, H width of an expert. f[i] points to expert i's (B, H) with ldf[i] floats from
 * row to row; g (B, n), m (B, H). */
#pragma once
#include <stdint.h>

/* Overwrites m. */
void slu_mixture_forward(float *m, uint32_t ldm, const float *g, uint32_t ldg, const float *const *f,
                         const uint32_t *ldf, uint32_t B, uint32_t n, uint32_t H);
/* dg_i += <dm, f_i>; df[i] += g_i dm (lddf[i]). */
void slu_mixture_backward(float *dg, uint32_t lddg, float *const *df, const uint32_t *lddf, const float *dm,
                          uint32_t lddm, const float *g, uint32_t ldg, const float *const *f,
                          const uint32_t *ldf, uint32_t B, uint32_t n, uint32_t H);
/* Twins in double precision. */
void slu_mixture_forward_ref(float *m, uint32_t ldm, const float *g, uint32_t ldg, const float *const *f,
                             const uint32_t *ldf, uint32_t B, uint32_t n, uint32_t H);
void slu_mixture_backward_ref(float *dg, uint32_t lddg, float *const *df, const uint32_t *lddf,
                              const float *dm, uint32_t lddm, const float *g, uint32_t ldg,
                              const float *const *f, const uint32_t *ldf, uint32_t B, uint32_t n, uint32_t H);
