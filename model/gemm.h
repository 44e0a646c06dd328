/* model/gemm.h - the one door to matrix products, so that libraries and precisions can be chosen behind it.
 *
 * Row-major. C (M,N) = alpha * op(A) (M,K) op(B) (K,N) + beta * C. Single-threaded by design: parallelism
 * belongs to the pipeline, so that results do not depend on the thread count. */
#pragma once
#include <stdbool.h>
#include <stdint.h>

void slu_gemm(bool transpose_a, bool transpose_b, uint32_t M, uint32_t N, uint32_t K, float alpha,
              const float *A, uint32_t lda, const float *B, uint32_t ldb, float beta, float *C, uint32_t ldc);
/* Plain loops, double accumulator. */
void slu_gemm_ref(bool transpose_a, bool transpose_b, uint32_t M, uint32_t N, uint32_t K, float alpha,
                  const float *A, uint32_t lda, const float *B, uint32_t ldb, float beta, float *C,
                  uint32_t ldc);
/* "openblas 0.3.21 (Zen)": for logs and bench output. */
const char *slu_gemm_backend(void);
