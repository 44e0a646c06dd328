#include "model/gemm.h"
#include "model/gemm_avx2.h"
#include <cblas.h>
#include <pthread.h>
#include <stdio.h>
#include <strings.h>

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

/* By the kernels that OpenBLAS has chosen, not by the CPU: OPENBLAS_CORETYPE may have told it not to use
 * AVX-512, and an old one may not know the CPU. */
static bool openblas_is_wider(void)
{
    static const char *const avx512[] = {"SkylakeX", "Cooperlake", "SapphireRapids"};
    for (size_t i = 0; i < sizeof avx512 / sizeof *avx512; i++)
        if (strcasecmp(openblas_get_corename(), avx512[i]) == 0)
            return true;
    return false;
}

/* OpenBLAS would otherwise start a thread per core, and its results would depend on how many it got. */
static void set_up(void)
{
    openblas_set_num_threads(1);
    char version[32] = "?";
    sscanf(openblas_get_config(), "%*s %31s", version); /* "OpenBLAS 0.3.21 NO_LAPACKE DYNAMIC_ARCH ..." */
    snprintf(openblas, sizeof openblas, "openblas %s %s", version, openblas_get_corename());
    own = slu_gemm_avx2_works() && !openblas_is_wider();
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
    own = kind == SLU_GEMM_AVX2 || (kind == SLU_GEMM_BEST && slu_gemm_avx2_works() && !openblas_is_wider());
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

/* ---- products in pieces ---- */

/* Multiply-adds below which threads would cost more than they save, and rows of C that OpenBLAS gets at once.
 */
#define SMALL       (1u << 20)
#define BLAS_PIECES 2u
/* A piece has whole tiles of our kernels in both directions. */
#define TILE_ROWS 6u

/* op(A) op(B), or op(A) times panels, of which a piece has |rows| x |cols| elements. */
typedef struct product {
    bool ta, tb, add;
    uint32_t M, N, K, lda, ldb, ldc;
    float alpha, beta;
    const float *A, *B;
    float *C;
    slu_panels panels;
    slu_finish finish;
    uint32_t rows, cols, across; /* |across| pieces beside each other */
} product;

static uint32_t cut(uint32_t total, uint32_t pieces, uint32_t unit)
{
    uint32_t piece = (total + pieces - 1) / pieces;
    return (piece + unit - 1) / unit * unit;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

static uint32_t pieces_of(const slu_parallel *p, const product *c)
{
    bool small = (uint64_t)c->M * c->N * c->K < SMALL;
    return small || slu_parallel_threads(p) == 1 ? 1 : 4 * slu_parallel_threads(p);
}

static void run_pieces(const slu_parallel *p, slu_piece_fn fn, product *c)
{
    c->across = (c->N + c->cols - 1) / c->cols;
    slu_parallel_run(p, fn, c, c->across * ((c->M + c->rows - 1) / c->rows));
}

static const float *row_of_a(const product *c, uint32_t i)
{
    return c->A + (c->ta ? i : (size_t)i * c->lda);
}

static void panels_piece(void *ctx, uint32_t piece)
{
    const product *c = ctx;
    uint32_t i = piece / c->across * c->rows, j = piece % c->across * c->cols;
    slu_panels b = {c->panels.p + j / SLU_PANEL * c->panels.stride, c->panels.stride};
    slu_finish finish = {c->finish.bias ? c->finish.bias + j : NULL, c->finish.relu};
    slu_gemm_avx2_panels(least(c->rows, c->M - i), least(c->cols, c->N - j), c->K, row_of_a(c, i), c->lda, b,
                         c->add, c->C + (size_t)i * c->ldc + j, c->ldc, finish);
}

/* Columns are cut where there are enough of them: then a thread reads its part of the weights only. */
void slu_gemm_panels_on(const slu_parallel *p, uint32_t M, uint32_t N, uint32_t K, const float *A,
                        uint32_t lda, slu_panels b, bool add, float *C, uint32_t ldc, slu_finish finish)
{
    product c = {.M = M,
                 .N = N,
                 .K = K,
                 .A = A,
                 .lda = lda,
                 .panels = b,
                 .add = add,
                 .C = C,
                 .ldc = ldc,
                 .finish = finish};
    if (M == 0 || N == 0)
        return;
    uint32_t pieces = pieces_of(p, &c), panels = (N + SLU_PANEL - 1) / SLU_PANEL;
    bool columns = panels >= pieces;
    c.rows = columns ? M : cut(M, pieces, TILE_ROWS);
    c.cols = columns ? cut(N, pieces, SLU_PANEL) : N;
    run_pieces(p, panels_piece, &c);
}

static void own_piece(void *ctx, uint32_t piece)
{
    const product *c = ctx;
    uint32_t i = piece * c->rows;
    slu_gemm_avx2(c->ta, c->tb, least(c->rows, c->M - i), c->N, c->K, row_of_a(c, i), c->lda, c->B, c->ldb,
                  c->add, c->C + (size_t)i * c->ldc, c->ldc);
}

static void blas_piece(void *ctx, uint32_t piece)
{
    const product *c = ctx;
    uint32_t i = piece * c->rows;
    cblas_sgemm(CblasRowMajor, c->ta ? CblasTrans : CblasNoTrans, c->tb ? CblasTrans : CblasNoTrans,
                (int)least(c->rows, c->M - i), (int)c->N, (int)c->K, c->alpha, row_of_a(c, i), (int)c->lda,
                c->B, (int)c->ldb, c->beta, c->C + (size_t)i * c->ldc, (int)c->ldc);
}

static void multiply(const slu_parallel *p, product *c)
{
    c->cols = c->N;
    if (own && c->alpha == 1 && (c->beta == 0 || c->beta == 1)) {
        c->add = c->beta == 1;
        /* Each piece packs B again: two for a thread are enough to even out. */
        uint32_t pieces = pieces_of(p, c);
        c->rows = cut(c->M, pieces > 1 ? pieces / 2 : 1, TILE_ROWS);
        run_pieces(p, own_piece, c);
        return;
    }
    bool small = c->K == 0 || (uint64_t)c->M * c->N * c->K < SMALL;
    c->rows = cut(c->M, small ? 1 : BLAS_PIECES, 16);
    run_pieces(p, blas_piece, c);
}

void slu_gemm_on(const slu_parallel *p, bool transpose_a, bool transpose_b, uint32_t M, uint32_t N,
                 uint32_t K, float alpha, const float *A, uint32_t lda, const float *B, uint32_t ldb,
                 float beta, float *C, uint32_t ldc)
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
    } else {
        product c = {.ta = transpose_a,
                     .tb = transpose_b,
                     .M = M,
                     .N = N,
                     .K = K,
                     .alpha = alpha,
                     .A = A,
                     .lda = lda,
                     .B = B,
                     .ldb = ldb,
                     .beta = beta,
                     .C = C,
                     .ldc = ldc};
        multiply(p, &c);
    }
}

void slu_gemm(bool transpose_a, bool transpose_b, uint32_t M, uint32_t N, uint32_t K, float alpha,
              const float *A, uint32_t lda, const float *B, uint32_t ldb, float beta, float *C, uint32_t ldc)
{
    slu_gemm_on(NULL, transpose_a, transpose_b, M, N, K, alpha, A, lda, B, ldb, beta, C, ldc);
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
