#include "bench/floor.h"
#include "base/cache_line.h"
#include "bench/measure.h"
#include "model/bf16.h"
#include "model/gemm.h"
#include "model/onednn.h"
#include <cblas.h>
#include <stdbool.h>
#include <string.h>

/* The network of bench/mmoe24.yaml with batches of 512: a layer's three products are y = x W^T (B, N, K),
 * dW = dy^T x (N, K, B) and dx = dy W (B, K, N). */
enum { B = 512, ROUNDS = 5, PRODUCTS = 3, ROW_FLOATS = 32, LOOKUPS = B * 24 };
typedef struct layer {
    int K, N, times;
} layer;
static const layer layers[] = {{384, 8 * 256 + 2 * 8, 1}, {256, 128, 8}, {128, 64, 2}, {64, 1, 2}};
enum { LAYERS = sizeof layers / sizeof *layers };

typedef struct product {
    bool ta, tb;
    int M, N, K;
} product;

static product product_of(const layer *l, int which)
{
    switch (which) {
    case 0:
        return (product){false, true, B, l->N, l->K};
    case 1:
        return (product){true, false, l->N, l->K, B};
    default:
        return (product){false, false, B, l->K, l->N};
    }
}

static size_t parameters(void)
{
    size_t n = 0;
    for (int i = 0; i < LAYERS; i++)
        n += (size_t)layers[i].times * (size_t)layers[i].N * (size_t)(layers[i].K + 1);
    return n;
}

static float *filled(size_t n)
{
    float *p = slu_cache_lines_alloc(n * sizeof *p);
    must(p != NULL, "out of memory");
    for (size_t i = 0; i < n; i++)
        p[i] = (float)(i % 97) * 0.01f - 0.5f;
    return p;
}

/* One thread: CPU time, which a busy machine disturbs little. More: what the clock on the wall says. */
static uint32_t threads;
static double seconds(void)
{
    return threads == 1 ? cpu_seconds() : wall_seconds();
}

typedef double (*timing)(const product *p, const float *A, const float *X, float *C);

static double openblas(const product *p, const float *A, const float *X, float *C)
{
    double before = seconds();
    cblas_sgemm(CblasRowMajor, p->ta ? CblasTrans : CblasNoTrans, p->tb ? CblasTrans : CblasNoTrans, p->M,
                p->N, p->K, 1, A, p->ta ? p->M : p->K, X, p->tb ? p->K : p->N, 0, C, p->N);
    return seconds() - before;
}

static double sluice(const product *p, const float *A, const float *X, float *C)
{
    double before = seconds();
    slu_gemm(p->ta, p->tb, (uint32_t)p->M, (uint32_t)p->N, (uint32_t)p->K, 1, A,
             (uint32_t)(p->ta ? p->M : p->K), X, (uint32_t)(p->tb ? p->K : p->N), 0, C, (uint32_t)p->N);
    return seconds() - before;
}

/* The right-hand matrix lies in the order that the library likes best, and in bf16 both are rounded already:
 * kinder than any real step can be. Below 0 where this machine has no such product. */
static double onednn(const product *p, bool bf16, const float *A, const float *X, float *C)
{
    static slu_matmul *m;
    static const product *of;
    static bool in_bf16;
    static void *packed;
    static slu_bf16 *narrow;
    if (of != p || in_bf16 != bf16) { /* the first of many calls */
        slu_matmul_spec s = {.M = (uint32_t)p->M,
                             .N = (uint32_t)p->N,
                             .K = (uint32_t)p->K,
                             .lda = (uint32_t)(p->ta ? p->M : p->K),
                             .ldc = (uint32_t)p->N,
                             .bf16 = bf16,
                             .transpose_a = p->ta,
                             .packed = true};
        slu_matmul_free(m);
        free(packed);
        free(narrow);
        packed = NULL;
        narrow = NULL;
        of = p;
        in_bf16 = bf16;
        m = slu_matmul_new(&s, NULL, 1);
        if (m) {
            packed = slu_cache_lines_alloc(slu_matmul_packed(m));
            must(packed != NULL, "out of memory");
            memset(packed, 0, slu_matmul_packed(m));
            slu_matmul_pack(m, packed, p->tb, X, (uint32_t)(p->tb ? p->K : p->N));
            narrow = slu_cache_lines_alloc((size_t)p->M * (size_t)p->K * sizeof *narrow);
            must(narrow != NULL, "out of memory");
            slu_bf16_narrow(narrow, (size_t)p->K, A, (size_t)p->K, (uint32_t)p->M, (uint32_t)p->K);
        }
    }
    if (!m)
        return -1;
    double before = seconds();
    slu_matmul_run(m, bf16 ? (const void *)narrow : A, packed, NULL, C);
    return seconds() - before;
}

static double onednn_fp32(const product *p, const float *A, const float *X, float *C)
{
    return onednn(p, false, A, X, C);
}

static double onednn_bf16(const product *p, const float *A, const float *X, float *C)
{
    return onednn(p, true, A, X, C);
}

static const struct {
    const char *name;
    timing time;
    bool bf16;
} libraries[] = {{"openblas_fp32", openblas, false},
                 {"sluice_fp32", sluice, false},
                 {"onednn_fp32", onednn_fp32, false},
                 {"onednn_bf16", onednn_bf16, true}};
enum { LIBRARIES = sizeof libraries / sizeof *libraries };

/* Seconds of a step's products in one library, a layer's product as often as it occurs; what is best of all
 * goes into |best| (LAYERS * PRODUCTS). Below 0: this machine does not have it. */
static double step_products(timing time, double *best, const float *A, const float *X, float *C)
{
    static product all[LAYERS * PRODUCTS];
    double sum = 0;
    for (int i = 0; i < LAYERS; i++)
        for (int k = 0; k < PRODUCTS; k++) {
            product *p = &all[i * PRODUCTS + k];
            *p = product_of(&layers[i], k);
            double runs[ROUNDS * 8];
            for (int r = 0; r < ROUNDS * 8; r++)
                if ((runs[r] = time(p, A, X, C)) < 0)
                    return -1;
            double median = median_of(runs, ROUNDS * 8) * layers[i].times;
            sum += median;
            if (median < best[i * PRODUCTS + k])
                best[i * PRODUCTS + k] = median;
        }
    return sum;
}

/* Bytes a second of a += s b over four vectors of the parameters' size, as Adam has them. */
static double bandwidth(size_t n)
{
    float *a = filled(2 * n), *b = filled(2 * n);
    double runs[ROUNDS * 4];
    for (int r = 0; r < ROUNDS * 4; r++) {
        double before = cpu_seconds();
        for (size_t i = 0; i < 2 * n; i++)
            a[i] += 0.5f * b[i];
        __asm__ volatile("" ::"r"(a) : "memory");
        runs[r] = cpu_seconds() - before;
    }
    free(a);
    free(b);
    return 3.0 * 2 * (double)n * sizeof(float) / median_of(runs, ROUNDS * 4);
}

int floor_print(uint32_t n_threads)
{
    threads = n_threads;
    openblas_set_num_threads((int)threads);
    size_t largest = (size_t)B * 2064 + 2064 * 384;
    float *A = filled(largest), *X = filled(largest), *C = filled(largest);
    double best[2][LAYERS * PRODUCTS], sum[2] = {0}, flops = 0; /* of any precision, and of fp32 */
    for (int i = 0; i < LAYERS * PRODUCTS; i++)
        best[0][i] = best[1][i] = 1e9;
    for (int i = 0; i < LAYERS; i++)
        flops += 6.0 * B * layers[i].K * layers[i].N * layers[i].times;
    printf("{\"threads\": %u, \"gflop\": %.3f", threads, flops * 1e-9);
    for (int i = 0; i < LIBRARIES; i++) {
        double took = step_products(libraries[i].time, best[!libraries[i].bf16], A, X, C);
        if (took >= 0)
            printf(", \"%s_ms\": %.4f", libraries[i].name, took * 1e3);
    }
    for (int i = 0; i < LAYERS * PRODUCTS; i++) {
        sum[1] += best[1][i];
        sum[0] += best[0][i] < best[1][i] ? best[0][i] : best[1][i];
    }
    /* Parameters, both moments and gradients are read and written once, rows and their state too. */
    size_t P = parameters();
    double bytes = 8.0 * (double)P * sizeof(float) + 2.0 * LOOKUPS * ROW_FLOATS * sizeof(float);
    double rate = bandwidth(P);
    printf(", \"products_ms\": %.4f, \"bytes\": %.0f, \"bandwidth\": %.4g, \"memory_ms\": %.4f, "
           "\"floor_ms\": %.4f, \"floor_fp32_ms\": %.4f}\n",
           sum[0] * 1e3, bytes, rate, bytes / rate * 1e3, (sum[0] + bytes / rate) * 1e3,
           (sum[1] + bytes / rate) * 1e3);
    free(A);
    free(X);
    free(C);
    return 0;
}
