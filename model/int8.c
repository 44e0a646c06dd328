#include "model/int8.h"
#include "model/int8_avx2.h"
#include "model/simd.h"
#include <math.h>
#include <pthread.h>

/* This file and its twin are compiled without contraction: a * b + c rounds twice everywhere, so that the
 * bits are the same on all machines. */

#define QUADS (SLU_INT8_GROUP / 4)

/* What the weights of a 16-bit sum may add up to, of either sign, less what rounding may add to 8 of them. */
#define GROUP_SUM ((float)(INT16_MAX / SLU_INT8_LEVELS - 4))
#define MOST      127

static uint32_t up(uint32_t n, uint32_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* ---- weights ---- */

uint32_t slu_int8_row(uint32_t K)
{
    return up(K, 32);
}

static size_t columns(uint32_t N)
{
    return up(N, 16); /* so that every part begins at a cache line */
}

size_t slu_int8_packed(uint32_t K, uint32_t N)
{
    return columns(N) * (sizeof(float) + sizeof(int32_t)) + columns(N) * up(K, SLU_INT8_GROUP);
}

slu_int8_weights slu_int8_weights_at(const void *packed, uint32_t K, uint32_t N)
{
    const float *step = packed;
    const int32_t *sum = (const int32_t *)(const void *)(step + columns(N));
    return (slu_int8_weights){K, N, step, sum, (const int8_t *)(sum + columns(N))};
}

enum { PIECE = 1024 };

typedef float four __attribute__((vector_size(16)));
typedef int32_t four_bits __attribute__((vector_size(16)));

SLU_INLINE four where(four_bits mask, four v)
{
    return (four)((four_bits)v & mask);
}

SLU_INLINE four larger(four a, four b)
{
    return (four)(((four_bits)a & (a > b)) | ((four_bits)b & ~(a > b)));
}

/* The 16-bit sums of a group are those of lanes 0 and 1, and of 2 and 3. */
SLU_INLINE four pairs(four v)
{
    return v + __builtin_shufflevector(v, v, 1, 0, 3, 2);
}

SLU_INLINE float largest(four v)
{
    float most = 0;
    for (int i = 0; i < 4; i++)
        most = v[i] > most ? v[i] : most;
    return most;
}

/* The largest weight and the largest group sum of a column, whole groups, decide on its step. */
static float step_of(const float *w, uint32_t K)
{
    const four none = {0, 0, 0, 0};
    four most = none, group = none;
    for (uint32_t k = 0; k < K; k += SLU_INT8_GROUP) {
        four plus = none, minus = none;
        for (uint32_t i = 0; i < SLU_INT8_GROUP; i += 4) {
            four v;
            memcpy(&v, w + k + i, sizeof v);
            four p = where(v > none, v), m = where(v < none, -v);
            most = larger(p + m, most);
            plus += p;
            minus += m;
        }
        group = larger(pairs(plus), group);
        group = larger(pairs(minus), group);
    }
    float by_one = largest(most) / MOST, by_group = largest(group) / GROUP_SUM;
    float step = by_one > by_group ? by_one : by_group;
    return step >= 1e-30f && step <= 1e30f ? step : 0;
}

/* Integers of K weights; what is no number becomes 0. Returns their sum. */
SLU_CLONES
static int32_t integers(int8_t *restrict q, const float *restrict w, uint32_t K, float inverse)
{
    int32_t sum = 0;
    for (uint32_t k = 0; k < K; k++) {
        int32_t v = slu_int8_nearest(w[k] * inverse);
        v = v > MOST ? 0 : v < -MOST ? 0 : v;
        q[k] = (int8_t)v;
        sum += v;
    }
    return sum;
}

/* A column's part of K weights, whole groups, into its place in a panel. */
static int32_t pack_column(int8_t *out, const float *w, uint32_t K, float step)
{
    int8_t q[PIECE];
    int32_t sum = integers(q, w, K, step > 0 ? 1 / step : 0);
    for (uint32_t k = 0; k < K; k += 4)
        memcpy(out + (size_t)k * SLU_INT8_PANEL, q + k, 4);
    return sum;
}

/* The inputs of one column that are read, padded with zeros to whole groups, a piece at a time. */
static const float *gather(float out[PIECE], const float *w, slu_int8_inputs in, uint32_t from)
{
    const uint32_t K = slu_int8_count(in), n = K - from < PIECE ? K - from : PIECE;
    const uint32_t before = from >= in.first ? 0 : in.first - from < n ? in.first - from : n;
    memcpy(out, w + from, before * sizeof *out);
    memcpy(out + before, w + from + before + in.width, (n - before) * sizeof *out);
    memset(out + n, 0, (PIECE - n) * sizeof *out);
    return out;
}

void slu_int8_pack(void *packed, const float *w, size_t ldw, slu_int8_inputs in, uint32_t N)
{
    const uint32_t K = slu_int8_count(in), padded = up(K, SLU_INT8_GROUP);
    memset(packed, 0, slu_int8_packed(K, N));
    float *steps = packed, piece[PIECE];
    int32_t *sums = (int32_t *)(void *)(steps + columns(N));
    int8_t *panels = (int8_t *)(sums + columns(N));
    for (uint32_t j = 0; j < N; j++, w += ldw) {
        int8_t *out =
            panels + (size_t)(j / SLU_INT8_PANEL * padded) * SLU_INT8_PANEL + j % SLU_INT8_PANEL * 4;
        for (uint32_t k = 0; k < padded; k += PIECE) {
            float step = step_of(gather(piece, w, in, k), padded - k < PIECE ? padded - k : PIECE);
            steps[j] = step > steps[j] ? step : steps[j];
        }
        for (uint32_t k = 0; k < padded; k += PIECE)
            sums[j] += pack_column(out + (size_t)k * SLU_INT8_PANEL, gather(piece, w, in, k),
                                   padded - k < PIECE ? padded - k : PIECE, steps[j]);
    }
}

/* ---- activations ---- */

static void widen(const float *x, uint32_t n, float *low, float *high)
{
    for (uint32_t i = 0; i < n; i++) {
        *low = x[i] < *low ? x[i] : *low;
        *high = x[i] > *high ? x[i] : *high;
    }
}

static void quantise(uint8_t *q, const float *x, uint32_t n, slu_int8_scale s)
{
    for (uint32_t i = 0; i < n; i++) {
        int32_t v = slu_int8_nearest(x[i] * s.inverse) + s.zero;
        q[i] = (uint8_t)(v < 0 ? 0 : v > SLU_INT8_LEVELS ? SLU_INT8_LEVELS : v);
    }
}

static void plain_quantise(const float *x, uint32_t ldx, uint32_t B, slu_int8_inputs in, slu_int8_rows out)
{
    const uint32_t K = slu_int8_count(in), behind = in.first + in.width;
    for (uint32_t b = 0; b < B; b++, x += ldx) {
        uint8_t *q = out.q + (size_t)b * out.ld;
        float low = 0, high = 0;
        widen(x, in.first, &low, &high);
        widen(x + behind, in.K - behind, &low, &high);
        slu_int8_scale s = slu_int8_scale_of(low, high);
        quantise(q, x, in.first, s);
        quantise(q + in.first, x + behind, in.K - behind, s);
        memset(q + K, 0, out.ld - K);
        out.step[b] = s.step;
        out.zero[b] = s.zero;
    }
}

/* ---- products ---- */

static int32_t sum_of(const uint8_t *q, const int8_t *w, uint32_t K)
{
    int32_t sum = 0;
    for (uint32_t k = 0; k < K; k++)
        sum += q[k] * w[k / 4 * 4 * SLU_INT8_PANEL + k % 4];
    return sum;
}

static void plain_product(slu_int8_rows x, uint32_t B, slu_int8_weights w, const float *bias, bool relu,
                          float *y, uint32_t ldy)
{
    const uint32_t padded = up(w.K, SLU_INT8_GROUP);
    const float least = relu ? 0 : -INFINITY;
    for (uint32_t j = 0; j < w.N; j++) {
        const int8_t *column =
            w.panel + (size_t)(j / SLU_INT8_PANEL * padded) * SLU_INT8_PANEL + j % SLU_INT8_PANEL * 4;
        for (uint32_t b = 0; b < B; b++) {
            int32_t sum = sum_of(x.q + (size_t)b * x.ld, column, w.K) - x.zero[b] * w.sum[j];
            float v = (float)sum * (x.step[b] * w.step[j]) + (bias ? bias[j] : 0);
            y[(size_t)b * ldy + j] = least > v ? least : v;
        }
    }
}

/* ---- choosing ---- */

static pthread_once_t once = PTHREAD_ONCE_INIT;
static slu_int8_kind used;

static bool works(slu_int8_kind kind)
{
    return kind == SLU_INT8_VNNI ? slu_int8_vnni_works() : kind != SLU_INT8_AVX2 || slu_int8_avx2_works();
}

static slu_int8_kind best(void)
{
    return works(SLU_INT8_VNNI) ? SLU_INT8_VNNI : works(SLU_INT8_AVX2) ? SLU_INT8_AVX2 : SLU_INT8_PLAIN;
}

static void set_up(void)
{
    used = best();
}

bool slu_int8_choose(slu_int8_kind kind)
{
    pthread_once(&once, set_up);
    if (!works(kind))
        return false;
    used = kind == SLU_INT8_BEST ? best() : kind;
    return true;
}

const char *slu_int8_backend(void)
{
    pthread_once(&once, set_up);
    return used == SLU_INT8_VNNI   ? "avx512-vnni int8 kernels"
           : used == SLU_INT8_AVX2 ? "avx2 int8 kernels"
                                   : "plain int8 loops";
}

void slu_int8_quantise(const float *x, uint32_t ldx, uint32_t B, slu_int8_inputs in, slu_int8_rows out)
{
    pthread_once(&once, set_up);
    (used == SLU_INT8_PLAIN ? plain_quantise : slu_int8_avx2_quantise)(x, ldx, B, in, out);
}

void slu_int8_product(slu_int8_rows x, uint32_t B, slu_int8_weights w, const float *bias, bool relu, float *y,
                      uint32_t ldy)
{
    pthread_once(&once, set_up);
    (used == SLU_INT8_VNNI   ? slu_int8_vnni_product
     : used == SLU_INT8_AVX2 ? slu_int8_avx2_product
                             : plain_product)(x, B, w, bias, relu, y, ldy);
}

void slu_int8_quantise_twice(const float *x, uint32_t K, float *rest, slu_int8_rows out)
{
    const slu_int8_inputs all = {K, 0, 0};
    slu_int8_rows second = {out.q + out.ld, out.ld, out.step + 1, out.zero + 1};
    slu_int8_quantise(x, K, 1, all, out);
    for (uint32_t k = 0; k < K; k++)
        rest[k] = x[k] - out.step[0] * (float)(out.q[k] - out.zero[0]);
    slu_int8_quantise(rest, K, 1, all, second);
}
