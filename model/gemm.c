#include "model/gemm.h"
#include "model/gemm_avx2.h"
#include <cblas.h>
#include <pthread.h>
#include <stdio.h>

/* Where three passes over a matrix still cost less than packing it once (measured on towers of 304-128-64).
 */
#define FEW 3

static pthread_once_t once = PTHREAD_ONCE_INIT;
static char openblas[80], backend[160];
static bool own; /* AVX2 kernels are used */

static void name_backend(void)
{
    snprintf(backend, sizeof backend, own ? "avx2 kernels (%s)" : "%s", openblas);
}

static bool wider_than_avx2(void)
{
#ifdef __x86_64__
    return __builtin_cpu_supports("avx512f");
#else
    return false;
#endif
}

/* OpenBLAS would otherwise start a thread per core, and its results would depend on how many it got. */
static void set_up(void)
{
    openblas_set_num_threads(1);
    char version[32] = "?";
    sscanf(openblas_get_config(), "%*s %31s", version); /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..." */
    snprintf(openblas, sizeof openblas, "openblas %s %s", version, openblas_get_corename());
    own = slu_gemm_avx2_works() && !wider_than_avx2();
    name_backend();
}

const char *slu_gemm_backend(void)
{
    pthread_once(&once, set_up);
    return backend;
}

bool slu_gemm_choose(slu_gemm_kind kind)
{
    pthread_once(&once, set_up);
    if (kind == SLU_GEMM_AVX2 && !slu_gemm_avx2_works())
        return false;
    own = kind == SLU_GEMM_AVX2 || (kind == SLU_GEMM_BEST && slu_gemm_avx2_works() && !wider_than_avx2());
    name_backend();
    return true;
}

bool slu_gemm_packs(void)
{
    pthread_once(&once, set_up);
    return own;
}

void slu_gemm_pack(float *out, size_t stride, bool transpose_b, uint32_t K, uint32_t N, const float *B,
                   uint32_t ldb)
{
    slu_gemm_avx2_pack(out, stride, transpose_b, B, ldb, K, N);
}

void slu_gemm_panels(uint32_t M, uint32_t N, uint32_t K, const float *A, uint32_t lda, slu_panels b, bool add,
                     float *C, uint32_t ldc, slu_finish finish)
{
    slu_gemm_avx2_panels(M, N, K, A, lda, b, add, C, ldc, finish);
}

void slu_gemm(bool transpose_a, bool transpose_b, uint32_t M, uint32_t N, uint32_t K, float alpha,
              const float *A, uint32_t lda, const float *B, uint32_t ldb, float beta, float *C, uint32_t ldc)
{
    if (M == 0 || N == 0)
        return;
    pthread_once(&once, set_up);
    /* A few rows, one column, or a few inner elements are matrix-vector and outer products: packing whole
     * panels for them, as a matrix product does, would cost more than the work. */
    if (M <= FEW && N > 1 && K > 0) {
        for (uint32_t i = 0; i < M; i++)
            cblas_sgemv(CblasRowMajor, transpose_b ? CblasNoTrans : CblasTrans, (int)(transpose_b ? N : K),
                        (int)(transpose_b ? K : N), alpha, B, (int)ldb,
                        A + (transpose_a ? i : (size_t)i * lda), (int)(transpose_a ? lda : 1), beta,
                        C + (size_t)i * ldc, 1);
    } else if (N == 1 && K > 0) {
        cblas_sgemv(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans, (int)(transpose_a ? K : M),
                    (int)(transpose_a ? M : K), alpha, A, (int)lda, B, (int)(transpose_b ? 1 : ldb), beta, C,
                    (int)ldc);
    } else if (K <= FEW && beta == 1) {
        for (uint32_t k = 0; k < K; k++)
            cblas_sger(CblasRowMajor, (int)M, (int)N, alpha, A + (transpose_a ? (size_t)k * lda : k),
                       (int)(transpose_a ? 1 : lda), B + (transpose_b ? k : (size_t)k * ldb),
                       (int)(transpose_b ? ldb : 1), C, (int)ldc);
    } else if (own && alpha == 1 && (beta == 0 || beta == 1)) {
        slu_gemm_avx2(transpose_a, transpose_b, M, N, K, A, lda, B, ldb, beta == 1, C, ldc);
    } else {
        cblas_sgemm(CblasRowMajor, transpose_a ? CblasTrans : CblasNoTrans,
                    transpose_b ? CblasTrans : CblasNoTrans, (int)M, (int)N, (int)K, alpha, A, (int)lda, B,
                    (int)ldb, beta, C, (int)ldc);
    }
}

void slu_gemm_ref(bool transpose_a, bool transpose_b, uint32_t M, uint32_t N, uint32_t K, float alpha,
                  const float *A, uint32_t lda, const float *B, uint32_t ldb, float beta, float *C,
                  uint32_t ldc)
{
    for (uint32_t i = 0; i < M; i++)
        for (uint32_t j = 0; j < N; j++) {
            double sum = 0;
            for (uint32_t k = 0; k < K; k++) {
                double a = transpose_a ? A[(size_t)k * lda + i] : A[(size_t)i * lda + k];
                double b = transpose_b ? B[(size_t)j * ldb + k] : B[(size_t)k * ldb + j];
                sum += a * b;
            }
            float *c = C + (size_t)i * ldc + j;
            *c = (float)(alpha * sum + (beta == 0 ? 0 : beta * (double)*c)); /* beta 0 overwrites, NaN too */
        }
}
