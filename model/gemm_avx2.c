#include "model/gemm_avx2.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define WIDE   __attribute__((target("avx2,fma")))
#define ALWAYS static inline __attribute__((always_inline, target("avx2,fma")))

/* A block of B's panel (KC * 16 floats) stays in the first-level cache, a block of A (MC * KC) in the second.
 * A longer KC means that C is read and written less often. A tile of 6 rows and 2 vectors needs 12 of 16
 * registers for its sums. */
enum { MR = 6, VECTOR = 8, KC = 384, MC = 120, NC = 512, PACK_ROWS = 32 };

/* ---- scratch ---- */

typedef struct scratch {
    float a[MC * KC]; /* MR rows side by side */
    float b[KC * NC]; /* panels */
} scratch;

static pthread_key_t key;
static pthread_once_t once = PTHREAD_ONCE_INIT;
static _Thread_local scratch *mine;

static void make_key(void)
{
    if (pthread_key_create(&key, free))
        abort();
}

/* One per thread that multiplies, made at its first product and freed when it ends. */
static scratch *scratch_of_thread(void)
{
    if (mine)
        return mine;
    pthread_once(&once, make_key);
    mine = aligned_alloc(64, sizeof *mine);
    if (!mine || pthread_setspecific(key, mine))
        abort(); /* 1 MB at start-up; a product cannot fail */
    return mine;
}

/* ---- one tile ---- */

/* How a tile ends. */
typedef struct ending {
    bool add, relu;
    const float *bias; /* of the tile's first column */
    uint32_t cols;     /* at most vectors * 8 */
} ending;

ALWAYS __m256i lanes_below(int n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* Writes a tile. All flags are constants where this is called: no branch is left between the rows. */
ALWAYS void write_tile(const int rows, const int vectors, __m256 sum[MR][4], float *c, size_t ldc,
                       const ending *e, const bool whole, const bool add, const bool finish)
{
#pragma GCC unroll 4
    for (int v = 0; v < vectors; v++) {
        const int at = v * VECTOR;
        const __m256i mask = whole ? _mm256_setzero_si256() : lanes_below((int)e->cols - at);
        __m256 bias = _mm256_setzero_ps();
        if (finish && e->bias)
            bias = whole ? _mm256_loadu_ps(e->bias + at) : _mm256_maskload_ps(e->bias + at, mask);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            float *p = c + (size_t)i * ldc + at;
            __m256 y = sum[i][v];
            if (add)
                y = _mm256_add_ps(y, whole ? _mm256_loadu_ps(p) : _mm256_maskload_ps(p, mask));
            if (finish)
                y = e->relu ? _mm256_max_ps(_mm256_add_ps(y, bias), _mm256_setzero_ps())
                            : _mm256_add_ps(y, bias);
            if (whole)
                _mm256_storeu_ps(p, y);
            else
                _mm256_maskstore_ps(p, mask, y);
        }
    }
}

/* |rows| x |vectors| sums over K. Element (i, k) of A is a[i * rs + k * ks]; vectors 2 and 3 are of the next
 * panel. */
ALWAYS void tile(const int rows, const int vectors, const float *a, size_t rs, const size_t ks,
                 const float *b, const float *next, uint32_t K, float *c, size_t ldc, const ending *e)
{
    __m256 sum[MR][4];
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
        for (int v = 0; v < vectors; v += 2) /* the result's lines come while the sums are made */
            _mm_prefetch((const char *)(c + (size_t)i * ldc + v * VECTOR), _MM_HINT_T0);
#pragma GCC unroll 6
    for (int i = 0; i < rows; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[i][v] = _mm256_setzero_ps();
    for (uint32_t k = 0; k<K; k++, a += ks, b += SLU_PANEL, next += vectors> 2 ? SLU_PANEL : 0) {
        __m256 column[4];
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            column[v] = _mm256_loadu_ps((v < 2 ? b : next) + v % 2 * VECTOR);
#pragma GCC unroll 6
        for (int i = 0; i < rows; i++) {
            __m256 x = _mm256_broadcast_ss(a + (size_t)i * rs);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                sum[i][v] = _mm256_fmadd_ps(x, column[v], sum[i][v]);
        }
    }
    const bool finish = e->bias || e->relu;
    if (e->cols != (uint32_t)vectors * VECTOR) {
        if (e->add)
            write_tile(rows, vectors, sum, c, ldc, e, false, true, true);
        else
            write_tile(rows, vectors, sum, c, ldc, e, false, false, true);
    } else if (e->add) {
        if (finish)
            write_tile(rows, vectors, sum, c, ldc, e, true, true, true);
        else
            write_tile(rows, vectors, sum, c, ldc, e, true, true, false);
    } else if (finish) {
        write_tile(rows, vectors, sum, c, ldc, e, true, false, true);
    } else {
        write_tile(rows, vectors, sum, c, ldc, e, true, false, false);
    }
}

typedef void (*tile_fn)(const float *a, size_t rs, const float *b, const float *next, uint32_t K, float *c,
                        size_t ldc, const ending *e);

#define TILE(name, rows, vectors, row_stride, ks)                                                            \
    WIDE static void name(const float *a, size_t rs, const float *b, const float *next, uint32_t K,          \
                          float *c, size_t ldc, const ending *e)                                             \
    {                                                                                                        \
        (void)rs;                                                                                            \
        tile(rows, vectors, a, row_stride, ks, b, next, K, c, ldc, e);                                       \
    }
/* Of A as it lies, and of A packed. Few rows take two panels at once: else too few sums hide the latency. */
TILE(plain_1, 1, 4, rs, 1)
TILE(plain_2, 2, 4, rs, 1)
TILE(plain_3, 3, 4, rs, 1)
TILE(plain_4, 4, 2, rs, 1)
TILE(plain_5, 5, 2, rs, 1)
TILE(plain_6, 6, 2, rs, 1)
TILE(packed_1, 1, 4, 1, MR)
TILE(packed_2, 2, 4, 1, MR)
TILE(packed_3, 3, 4, 1, MR)
TILE(packed_4, 4, 2, 1, MR)
TILE(packed_5, 5, 2, 1, MR)
TILE(packed_6, 6, 2, 1, MR)
/* Few rows, and one panel is left. */
TILE(plain_1_last, 1, 2, rs, 1)
TILE(plain_2_last, 2, 2, rs, 1)
TILE(plain_3_last, 3, 2, rs, 1)
TILE(packed_1_last, 1, 2, 1, MR)
TILE(packed_2_last, 2, 2, 1, MR)
TILE(packed_3_last, 3, 2, 1, MR)

static const tile_fn tiles[2][MR] = {{plain_1, plain_2, plain_3, plain_4, plain_5, plain_6},
                                     {packed_1, packed_2, packed_3, packed_4, packed_5, packed_6}};
static const tile_fn last_tiles[2][3] = {{plain_1_last, plain_2_last, plain_3_last},
                                         {packed_1_last, packed_2_last, packed_3_last}};

/* ---- packing ---- */

/* 8 rows of 8 floats become 8 columns. */
ALWAYS void transpose_8x8(float *out, size_t ldo, const float *in, size_t ldi)
{
    __m256 r[8], t[8];
    for (int i = 0; i < 8; i++)
        r[i] = _mm256_loadu_ps(in + (size_t)i * ldi);
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4) {
        r[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
        r[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
        r[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
        r[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
    }
    for (int i = 0; i < 4; i++) {
        _mm256_storeu_ps(out + (size_t)i * ldo, _mm256_permute2f128_ps(r[i], r[i + 4], 0x20));
        _mm256_storeu_ps(out + (size_t)(i + 4) * ldo, _mm256_permute2f128_ps(r[i], r[i + 4], 0x31));
    }
}

/* One panel of B transposed: |cols| rows of B, K long. */
WIDE static void pack_transposed(float *out, const float *B, size_t ldb, uint32_t K, uint32_t cols)
{
    uint32_t k = 0;
    if (cols == SLU_PANEL)
        for (; k + VECTOR <= K; k += VECTOR) {
            transpose_8x8(out + k * SLU_PANEL, SLU_PANEL, B + k, ldb);
            transpose_8x8(out + k * SLU_PANEL + VECTOR, SLU_PANEL, B + VECTOR * ldb + k, ldb);
        }
    for (; k < K; k++)
        for (uint32_t j = 0; j < SLU_PANEL; j++)
            out[k * SLU_PANEL + j] = j < cols ? B[j * ldb + k] : 0;
}

void slu_gemm_avx2_pack(float *out, size_t stride, bool transpose_b, const float *B, uint32_t ldb, uint32_t K,
                        uint32_t N)
{
    const uint32_t whole = N / SLU_PANEL, rest = N % SLU_PANEL;
    if (transpose_b) {
        for (uint32_t j = 0; j * SLU_PANEL < N; j++)
            pack_transposed(out + j * stride, B + (size_t)j * SLU_PANEL * ldb, ldb, K,
                            j < whole ? SLU_PANEL : rest);
        return;
    }
    /* Panels lie far apart, often a power of two: a few rows at a time, so that a panel is written in one go
     * and its neighbours are still in the cache when their turn comes. */
    for (uint32_t at = 0; at < K; at += PACK_ROWS) {
        const uint32_t end = K - at < PACK_ROWS ? K : at + PACK_ROWS;
        for (uint32_t j = 0; j < whole; j++)
            for (uint32_t k = at; k < end; k++)
                memcpy(out + j * stride + k * SLU_PANEL, B + (size_t)k * ldb + j * SLU_PANEL,
                       SLU_PANEL * sizeof *out);
        for (uint32_t k = at; rest && k < end; k++)
            for (uint32_t j = 0; j < SLU_PANEL; j++)
                out[whole * stride + k * SLU_PANEL + j] =
                    j < rest ? B[(size_t)k * ldb + whole * SLU_PANEL + j] : 0;
    }
}

/* Rows [0, M) of A transposed, K of its rows: MR of them side by side, K times, then the next MR. */
static void pack_a(float *out, const float *A, size_t lda, uint32_t M, uint32_t K)
{
    const uint32_t whole = M / MR * MR;
    for (uint32_t k = 0; k < K; k++) {
        const float *in = A + k * lda;
        float *to = out + (size_t)k * MR;
        for (uint32_t i = 0; i < whole; i += MR, to += (size_t)K * MR)
            memcpy(to, in + i, MR * sizeof *to);
        for (uint32_t i = whole; i < M; i++)
            to[i - whole] = in[i];
    }
}

/* ---- blocks ---- */

/* |total| in equal pieces of at most |most|, a multiple of |unit|. */
static uint32_t piece_of(uint32_t total, uint32_t most, uint32_t unit)
{
    uint32_t pieces = (total + most - 1) / most, piece = (total + pieces - 1) / pieces;
    return (piece + unit - 1) / unit * unit;
}

/* A (M, K) block times panels. |packed|: A is in MR-row strips of K. */
static void multiply_block(bool packed, uint32_t M, uint32_t N, uint32_t K, const float *A, size_t lda,
                           slu_panels b, float *C, size_t ldc, const ending *how)
{
    const size_t strip = packed ? (size_t)K * MR : lda * MR;
    for (uint32_t j = 0; j < N; j += SLU_PANEL) {
        const float *panel = b.p + j / SLU_PANEL * b.stride;
        ending e = *how;
        e.bias = how->bias ? how->bias + j : NULL;
        e.cols = N - j < SLU_PANEL ? N - j : SLU_PANEL;
        const float *a = A;
        uint32_t i = 0;
        for (; i + MR <= M; i += MR, a += strip)
            tiles[packed][MR - 1](a, lda, panel, panel, K, C + i * ldc + j, ldc, &e);
        const uint32_t rows = M - i;
        if (rows > 3)
            tiles[packed][rows - 1](a, lda, panel, panel, K, C + i * ldc + j, ldc, &e);
    }
    const uint32_t few = M % MR, i = M - few;
    if (few == 0 || few > 3)
        return;
    const float *a = A + M / MR * strip;
    for (uint32_t j = 0; j < N; j += 2 * SLU_PANEL) {
        const float *panel = b.p + j / SLU_PANEL * b.stride;
        ending e = *how;
        e.bias = how->bias ? how->bias + j : NULL;
        e.cols = N - j < 2 * SLU_PANEL ? N - j : 2 * SLU_PANEL;
        tile_fn f = e.cols > SLU_PANEL ? tiles[packed][few - 1] : last_tiles[packed][few - 1];
        f(a, lda, panel, panel + b.stride, K, C + i * ldc + j, ldc, &e);
    }
}

/* All of M against panels of K in [k, k + n): the first piece overwrites unless |add|, the last one finishes.
 */
static void multiply_piece(bool ta, uint32_t M, uint32_t N, uint32_t n, const float *A, size_t lda,
                           slu_panels b, float *C, size_t ldc, const ending *how)
{
    const uint32_t rows = piece_of(M, MC, MR);
    for (uint32_t i = 0; i < M; i += rows) {
        uint32_t m = M - i < rows ? M - i : rows;
        if (ta) {
            float *strips = scratch_of_thread()->a;
            pack_a(strips, A + i, lda, m, n);
            multiply_block(true, m, N, n, strips, lda, b, C + i * ldc, ldc, how);
        } else {
            multiply_block(false, m, N, n, A + i * lda, lda, b, C + i * ldc, ldc, how);
        }
    }
}

void slu_gemm_avx2_panels(uint32_t M, uint32_t N, uint32_t K, const float *A, uint32_t lda, slu_panels b,
                          bool add, float *C, uint32_t ldc, slu_finish finish)
{
    if (M == 0 || N == 0)
        return;
    const uint32_t piece = K ? piece_of(K, KC, VECTOR) : 1;
    uint32_t k = 0;
    do {
        uint32_t n = K - k < piece ? K - k : piece;
        bool last = k + n == K;
        ending how = {.add = add || k, .relu = last && finish.relu, .bias = last ? finish.bias : NULL};
        slu_panels part = {b.p + (size_t)k * SLU_PANEL, b.stride};
        multiply_piece(false, M, N, n, A + k, lda, part, C, ldc, &how);
        k += n;
    } while (k < K);
}

void slu_gemm_avx2(bool ta, bool tb, uint32_t M, uint32_t N, uint32_t K, const float *A, uint32_t lda,
                   const float *B, uint32_t ldb, bool add, float *C, uint32_t ldc)
{
    if (M == 0 || N == 0)
        return;
    const uint32_t piece = K ? piece_of(K, KC, VECTOR) : 1, cols = piece_of(N, NC, SLU_PANEL);
    float *panels = scratch_of_thread()->b;
    for (uint32_t j = 0; j < N; j += cols) {
        uint32_t m = N - j < cols ? N - j : cols, k = 0;
        do {
            uint32_t n = K - k < piece ? K - k : piece;
            ending how = {.add = add || k};
            slu_panels b = {panels, (size_t)n * SLU_PANEL};
            slu_gemm_avx2_pack(panels, b.stride, tb, tb ? B + (size_t)j * ldb + k : B + (size_t)k * ldb + j,
                               ldb, n, m);
            multiply_piece(ta, M, m, n, ta ? A + (size_t)k * lda : A + k, lda, b, C + j, ldc, &how);
            k += n;
        } while (k < K);
    }
}

bool slu_gemm_avx2_works(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

#else /* never called */

bool slu_gemm_avx2_works(void)
{
    return false;
}

void slu_gemm_avx2_pack(float *out, size_t stride, bool tb, const float *B, uint32_t ldb, uint32_t K,
                        uint32_t N)
{
    (void)out, (void)stride, (void)tb, (void)B, (void)ldb, (void)K, (void)N;
    abort();
}

void slu_gemm_avx2_panels(uint32_t M, uint32_t N, uint32_t K, const float *A, uint32_t lda, slu_panels b,
                          bool add, float *C, uint32_t ldc, slu_finish finish)
{
    (void)M, (void)N, (void)K, (void)A, (void)lda, (void)b, (void)add, (void)C, (void)ldc, (void)finish;
    abort();
}

void slu_gemm_avx2(bool ta, bool tb, uint32_t M, uint32_t N, uint32_t K, const float *A, uint32_t lda,
                   const float *B, uint32_t ldb, bool add, float *C, uint32_t ldc)
{
    (void)ta, (void)tb, (void)M, (void)N, (void)K, (void)A, (void)lda, (void)B, (void)ldb, (void)add, (void)C;
    (void)ldc;
    abort();
}
#endif
