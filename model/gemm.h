/* model/gemm.h - the one door to matrix products, so that libraries and precisions can be chosen behind it.
 *
 * Row-major. C (M,N) = alpha * op(A) (M,K) op(B) (K,N) + beta * C. Nothing here starts a thread. Who has some
 * hands them in (base/parallel.h); then C is cut into rows or columns, never K, so that its bits do not
 * depend on them: our own kernels give an element the same bits wherever it is cut, and what OpenBLAS does is
 * cut at the same places for any number of threads, none included.
 *
 * Behind it are our own kernels on CPUs with AVX2 and FMA (model/gemm_avx2.h), which beat OpenBLAS by 4 to 8
 * % on large products and by a third and more on batches of 16 rows, and OpenBLAS on all others, also
 * where its kernels are those for AVX-512. */
#pragma once
#include "base/parallel.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

void slu_gemm(bool transpose_a, bool transpose_b, uint32_t M, uint32_t N, uint32_t K, float alpha,
              const float *A, uint32_t lda, const float *B, uint32_t ldb, float beta, float *C, uint32_t ldc);
void slu_gemm_on(const slu_parallel *p, bool transpose_a, bool transpose_b, uint32_t M, uint32_t N,
                 uint32_t K, float alpha, const float *A, uint32_t lda, const float *B, uint32_t ldb,
                 float beta, float *C, uint32_t ldc);
/* Plain loops, double accumulator. */
void slu_gemm_ref(bool transpose_a, bool transpose_b, uint32_t M, uint32_t N, uint32_t K, float alpha,
                  const float *A, uint32_t lda, const float *B, uint32_t ldb, float beta, float *C,
                  uint32_t ldc);

/* Panels of a (K, N) matrix: element (k, j) is p[j / 16 * stride + k * 16 + j % 16], zeros behind column N.
 */
#define SLU_PANEL 16u
typedef struct slu_panels {
    const float *p;
    size_t stride; /* floats from panel to panel, at least 16 K */
} slu_panels;

/* What happens to finished elements: + bias (N; NULL: none), then ReLU. */
typedef struct slu_finish {
    const float *bias;
    bool relu;
} slu_finish;

/* True when products with panels are at hand: weights that are packed once are then read faster. */
bool slu_gemm_packs(void);
/* op(B) (K, N) into panels at |out|, |stride| floats apart. */
void slu_gemm_pack(float *out, size_t stride, bool transpose_b, uint32_t K, uint32_t N, const float *B,
                   uint32_t ldb);
/* C (M, N) = A (M, K) times panels, finished; C is added to before that with |add|. */
void slu_gemm_panels(uint32_t M, uint32_t N, uint32_t K, const float *A, uint32_t lda, slu_panels b, bool add,
                     float *C, uint32_t ldc, slu_finish finish);

void slu_gemm_panels_on(const slu_parallel *p, uint32_t M, uint32_t N, uint32_t K, const float *A,
                        uint32_t lda, slu_panels b, bool add, float *C, uint32_t ldc, slu_finish finish);

/* "avx2 kernels (openblas 0.3.21 Zen)": for logs and bench output. */
const char *slu_gemm_backend(void);
/* Which products are used: for tests and benchmarks, before any other thread multiplies and before anything
 * is packed. False, with nothing changed: this machine cannot. */
typedef enum slu_gemm_kind { SLU_GEMM_BEST, SLU_GEMM_OPENBLAS, SLU_GEMM_AVX2 } slu_gemm_kind;
bool slu_gemm_choose(slu_gemm_kind kind);
