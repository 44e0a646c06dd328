#include "bench/floor.h"
#include "base/cache_line.h"
#include "bench/measure.h"
#include "model/gemm.h"
#include <cblas.h>
#include <stdbool.h>
#include <string.h>
#ifdef SLU_DNNL
#include <dnnl.h>
#endif

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

#ifdef SLU_DNNL
static double onednn(const product *p, const float *A, const float *X, float *C)
{
    double before = seconds();
    dnnl_sgemm(p->ta ? 'T' : 'N', p->tb ? 'T' : 'N', p->M, p->N, p->K, 1, A, p->ta ? p->M : p->K, X,
               p->tb ? p->K : p->N, 0, C, p->N);
    return seconds() - before;
}

#if DNNL_VERSION_MAJOR == 2
/* bf16 in, fp32 out, both operands already in bf16 and in the layout that the library likes best: kinder than
 * any real step can be. Below 0 where this machine has no such product. */
static double onednn_bf16(const product *p, const float *A, const float *X, float *C)
{
    static dnnl_engine_t engine;
    static dnnl_stream_t stream;
    (void)A, (void)X;
    if (!engine && (dnnl_engine_create(&engine, dnnl_cpu, 0) ||
                    dnnl_stream_create(&stream, engine, dnnl_stream_default_flags)))
        return -1;
    dnnl_memory_desc_t a, w, c;
    dnnl_matmul_desc_t desc;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t primitive = NULL;
    dnnl_memory_t memory[3] = {NULL};
    double took = -1;
    dnnl_memory_desc_init_by_tag(&a, 2, (dnnl_dims_t){p->M, p->K}, dnnl_bf16, dnnl_ab);
    dnnl_memory_desc_init_by_tag(&w, 2, (dnnl_dims_t){p->K, p->N}, dnnl_bf16, dnnl_format_tag_any);
    dnnl_memory_desc_init_by_tag(&c, 2, (dnnl_dims_t){p->M, p->N}, dnnl_f32, dnnl_ab);
    if (dnnl_matmul_desc_init(&desc, &a, &w, NULL, &c) ||
        dnnl_primitive_desc_create(&pd, &desc, NULL, engine, NULL))
        return -1;
    if (!dnnl_primitive_create(&primitive, pd) &&
        !dnnl_memory_create(&memory[0], dnnl_primitive_desc_query_md(pd, dnnl_query_src_md, 0), engine,
                            DNNL_MEMORY_ALLOCATE) &&
        !dnnl_memory_create(&memory[1], dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0), engine,
                            DNNL_MEMORY_ALLOCATE) &&
        !dnnl_memory_create(&memory[2], &c, engine, C)) {
        dnnl_exec_arg_t args[] = {
            {DNNL_ARG_SRC, memory[0]}, {DNNL_ARG_WEIGHTS, memory[1]}, {DNNL_ARG_DST, memory[2]}};
        dnnl_primitive_execute(primitive, stream, 3, args);
        dnnl_stream_wait(stream);
        double before = seconds();
        dnnl_primitive_execute(primitive, stream, 3, args);
        dnnl_stream_wait(stream);
        took = seconds() - before;
    }
    for (int i = 0; i < 3; i++)
        dnnl_memory_destroy(memory[i]);
    dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(pd);
    return took;
}
#endif
#endif

static const struct {
    const char *name;
    timing time;
} libraries[] = {
    {"openblas_fp32", openblas},
    {"sluice_fp32", sluice},
#ifdef SLU_DNNL
    {"onednn_fp32", onednn},
#if DNNL_VERSION_MAJOR == 2
    {"onednn_bf16", onednn_bf16},
#endif
#endif
};
enum { LIBRARIES = sizeof libraries / sizeof *libraries };

/* Seconds of a step's products in one library, a layer's product as often as it occurs; what is best of all
 * goes into |best| (LAYERS * PRODUCTS). Below 0: this machine does not have it. */
static double step_products(timing time, double *best, const float *A, const float *X, float *C)
{
    double sum = 0;
    for (int i = 0; i < LAYERS; i++)
        for (int k = 0; k < PRODUCTS; k++) {
            product p = product_of(&layers[i], k);
            double runs[ROUNDS * 8];
            for (int r = 0; r < ROUNDS * 8; r++)
                if ((runs[r] = time(&p, A, X, C)) < 0)
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
    double best[LAYERS * PRODUCTS], sum = 0, flops = 0;
    for (int i = 0; i < LAYERS * PRODUCTS; i++)
        best[i] = 1e9;
    for (int i = 0; i < LAYERS; i++)
        flops += 6.0 * B * layers[i].K * layers[i].N * layers[i].times;
    printf("{\"threads\": %u, \"gflop\": %.3f", threads, flops * 1e-9);
    for (int i = 0; i < LIBRARIES; i++) {
        double took = step_products(libraries[i].time, best, A, X, C);
        if (took >= 0)
            printf(", \"%s_ms\": %.4f", libraries[i].name, took * 1e3);
    }
    for (int i = 0; i < LAYERS * PRODUCTS; i++)
        sum += best[i];
    /* Parameters, both moments and gradients are read and written once, rows and their state too. */
    size_t P = parameters();
    double bytes = 8.0 * (double)P * sizeof(float) + 2.0 * LOOKUPS * ROW_FLOATS * sizeof(float);
    double rate = bandwidth(P);
    printf(", \"products_ms\": %.4f, \"bytes\": %.0f, \"bandwidth\": %.4g, \"memory_ms\": %.4f, "
           "\"floor_ms\": %.4f}\n",
           sum * 1e3, bytes, rate, bytes / rate * 1e3, (sum + bytes / rate) * 1e3);
    free(A);
    free(X);
    free(C);
    return 0;
}
