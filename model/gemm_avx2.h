/* model/gemm_avx2.h - matrix products of our own for CPUs with AVX2 and FMA.
 *
 * The right-hand matrix is read in panels (model/gemm.h): weights are packed once per update; what changes
 * with every product is packed on the way, in scratch of the calling thread. The left-hand matrix is read
 * where it lies (transposed: packed on the way).
 *
 * Every element is one chain of fused multiply-adds over k in order, cut at places that depend on K alone:
 * its value does not depend on how many rows or columns are computed with it, nor by which thread. */
#pragma once
#include "model/gemm.h"

/* True when this CPU has what the functions below need. */
bool slu_gemm_avx2_works(void);
/* op(B) (K, N) into panels at |out|. */
void slu_gemm_avx2_pack(float *out, size_t stride, bool transpose_b, const float *B, uint32_t ldb, uint32_t K,
                        uint32_t N);
/* C (M, N) = A (M, K) times panels, or C += with |add|, then finished. */
void slu_gemm_avx2_panels(uint32_t M, uint32_t N, uint32_t K, const float *A, uint32_t lda, slu_panels b,
                          bool add, float *C, uint32_t ldc, slu_finish finish);
/* C (M, N) = op(A) op(B), or C += with |add|. */
void slu_gemm_avx2(bool transpose_a, bool transpose_b, uint32_t M, uint32_t N, uint32_t K, const float *A,
                   uint32_t lda, const float *B, uint32_t ldb, bool add, float *C, uint32_t ldc);
