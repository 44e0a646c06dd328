#include "model/int8_avx2.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define WIDE   __attribute__((target("avx2")))
#define ALWAYS static inline __attribute__((always_inline, target("avx2")))
#define VNNI   __attribute__((target("avx2,avx512f,avx512bw,avx512vl,avx512vnni")))

/* Rows of a tile, whose sums lie in the first-level cache: so the weights of a group, of two panels, fill
 * half of the registers, and a row's inputs are read once for both. */
enum { ROWS = SLU_INT8_ROWS, VECTOR = 8 };

ALWAYS __m256i lanes_below(uint32_t n)
{
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

/* ---- activations ---- */

/* Floats [at, at + 8) of n, zeros behind them. */
ALWAYS __m256 load_some(const float *x, uint32_t at, uint32_t n)
{
    if (at + VECTOR <= n)
        return _mm256_loadu_ps(x + at);
    return at < n ? _mm256_maskload_ps(x + at, lanes_below(n - at)) : _mm256_setzero_ps();
}

/* Comparisons are the plain loop's: what is no number is passed over. */
ALWAYS void widen(const float *x, uint32_t n, __m256 *low, __m256 *high)
{
    __m256 l[4], h[4];
    uint32_t i = 0;
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        l[k] = *low;
        h[k] = *high;
    }
    for (; i + 4 * VECTOR <= n; i += 4 * VECTOR)
#pragma GCC unroll 4
        for (int k = 0; k < 4; k++) {
            const __m256 v = _mm256_loadu_ps(x + i + k * VECTOR);
            l[k] = _mm256_min_ps(v, l[k]);
            h[k] = _mm256_max_ps(v, h[k]);
        }
    for (; i < n; i += VECTOR) {
        const __m256 v = load_some(x, i, n);
        l[0] = _mm256_min_ps(v, l[0]);
        h[0] = _mm256_max_ps(v, h[0]);
    }
    *low = _mm256_min_ps(_mm256_min_ps(l[0], l[1]), _mm256_min_ps(l[2], l[3]));
    *high = _mm256_max_ps(_mm256_max_ps(h[0], h[1]), _mm256_max_ps(h[2], h[3]));
}

ALWAYS float least_of(__m256 v)
{
    __m128 a = _mm_min_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_min_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_min_ss(a, _mm_movehdup_ps(a)));
}

ALWAYS float most_of(__m256 v)
{
    __m128 a = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
    a = _mm_max_ps(a, _mm_movehl_ps(a, a));
    return _mm_cvtss_f32(_mm_max_ss(a, _mm_movehdup_ps(a)));
}

ALWAYS __m256i integers(__m256 v, __m256 inverse, __m256i offset)
{
    v = _mm256_add_ps(_mm256_mul_ps(v, inverse), _mm256_set1_ps(SLU_INT8_MAGIC));
    return _mm256_add_epi32(_mm256_castps_si256(v), offset);
}

/* 32 values from |at| on of n, with zeros behind them unless |whole|. */
ALWAYS __m256i quantise_some(const bool whole, const float *x, uint32_t at, uint32_t n, __m256 inverse,
                             __m256i offset)
{
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7); /* packing works in halves */
    __m256i v[4];
#pragma GCC unroll 4
    for (uint32_t k = 0; k < 4; k++) {
        const uint32_t i = at + k * VECTOR;
        v[k] = integers(whole ? _mm256_loadu_ps(x + i) : load_some(x, i, n), inverse, offset);
    }
    const __m256i bytes = _mm256_packus_epi16(_mm256_packs_epi32(v[0], v[1]), _mm256_packs_epi32(v[2], v[3]));
    return _mm256_permutevar8x32_epi32(_mm256_min_epu8(bytes, _mm256_set1_epi8(SLU_INT8_LEVELS)), order);
}

ALWAYS void quantise(uint8_t *q, const float *x, uint32_t n, slu_int8_scale s)
{
    const __m256 inverse = _mm256_set1_ps(s.inverse);
    const __m256i offset = _mm256_set1_epi32(s.zero - SLU_INT8_MAGIC_BITS);
    uint32_t i = 0;
    for (; i + 4 * VECTOR <= n; i += 4 * VECTOR)
        _mm256_storeu_si256((__m256i *)(void *)(q + i), quantise_some(true, x, i, n, inverse, offset));
    if (i < n)
        _mm256_storeu_si256((__m256i *)(void *)(q + i), quantise_some(false, x, i, n, inverse, offset));
}

/* Both parts end with up to 31 bytes too many: the next part, the next row or the slack has them. What a
 * product reads behind the last input may lie beyond both: it is multiplied by zeros, but set all the same.
 */
WIDE void slu_int8_avx2_quantise(const float *x, uint32_t ldx, uint32_t B, slu_int8_inputs in,
                                 slu_int8_rows out)
{
    const uint32_t behind = in.first + in.width, last = slu_int8_row(slu_int8_count(in)) - 4 * VECTOR;
    for (uint32_t b = 0; b < B; b++, x += ldx) {
        uint8_t *q = out.q + (size_t)b * out.ld;
        _mm256_storeu_si256((__m256i *)(void *)(q + last), _mm256_setzero_si256());
        __m256 low = _mm256_setzero_ps(), high = low;
        widen(x, in.first, &low, &high);
        widen(x + behind, in.K - behind, &low, &high);
        slu_int8_scale s = slu_int8_scale_of(least_of(low), most_of(high));
        quantise(q, x, in.first, s);
        quantise(q + in.first, x + behind, in.K - behind, s);
        out.step[b] = s.step;
        out.zero[b] = s.zero;
    }
}

/* ---- products ---- */

/* What all tiles of a product share. */
typedef struct product {
    slu_int8_rows x;
    slu_int8_weights w;
    const float *bias;
    bool relu;
    float *y;
    size_t ldy;
    uint32_t padded; /* K, to whole groups */
} product;

ALWAYS __m256i quad(const uint8_t *q)
{
    int32_t v;
    memcpy(&v, q, sizeof v);
    return _mm256_set1_epi32(v);
}

/* Adds a group's products of one row to |sums| (panels), or sets them. */
ALWAYS void multiply_group(const int panels, const uint8_t *q, const __m256i w[2][4], bool first,
                           __m256i *sums)
{
    const __m256i ones = _mm256_set1_epi16(1);
    __m256i s[2];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        const __m256i x = quad(q + 4 * i);
#pragma GCC unroll 2
        for (int v = 0; v < panels; v++) {
            const __m256i pairs = _mm256_maddubs_epi16(x, w[v][i]);
            s[v] = i ? _mm256_add_epi16(s[v], pairs) : pairs;
        }
    }
#pragma GCC unroll 2
    for (int v = 0; v < panels; v++) {
        const __m256i n = _mm256_madd_epi16(s[v], ones);
        sums[v] = first ? n : _mm256_add_epi32(n, sums[v]);
    }
}

/* Integer sums of |rows| rows from |b| on and the panels that begin with column |j|: (rows, panels). */
ALWAYS void multiply(const int panels, const product *p, uint32_t b, uint32_t rows, uint32_t j, __m256i *sums)
{
    const int8_t *w = p->w.panel + (size_t)j * p->padded;
    const size_t ld = p->x.ld, next = (size_t)p->padded * SLU_INT8_PANEL;
    for (uint32_t k = 0; k < p->padded; k += SLU_INT8_GROUP, w += SLU_INT8_GROUP * SLU_INT8_PANEL) {
        __m256i group[2][4];
#pragma GCC unroll 2
        for (int v = 0; v < panels; v++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                group[v][i] = _mm256_load_si256((const __m256i *)(const void *)(w + v * next + 32 * i));
        const uint8_t *q = p->x.q + b * ld + k;
        if (k)
            for (uint32_t i = 0; i < rows; i++, q += ld)
                multiply_group(panels, q, group, false, sums + i * (size_t)panels);
        else
            for (uint32_t i = 0; i < rows; i++, q += ld)
                multiply_group(panels, q, group, true, sums + i * (size_t)panels);
    }
}

/* Sums of one panel, (rows) of them |panels| apart, into y. Masked stores take many cycles on some CPUs, so
 * the last panel alone has them. */
ALWAYS void finish(const int panels, const bool whole, const product *p, uint32_t b, uint32_t rows,
                   uint32_t j, const __m256i *sums)
{
    const __m256i mask = lanes_below(whole ? VECTOR : p->w.N - j),
                  column = _mm256_load_si256((const __m256i *)(const void *)(p->w.sum + j));
    const __m256 step = _mm256_load_ps(p->w.step + j),
                 bias = !p->bias ? _mm256_setzero_ps()
                        : whole  ? _mm256_loadu_ps(p->bias + j)
                                 : _mm256_maskload_ps(p->bias + j, mask),
                 least = _mm256_set1_ps(p->relu ? 0 : -INFINITY);
    const int32_t *zero = p->x.zero + b;
    const float *x_step = p->x.step + b;
    float *y = p->y + b * p->ldy + j;
    const size_t ldy = p->ldy;
    for (uint32_t i = 0; i < rows; i++, y += ldy, sums += panels) {
        __m256i n = _mm256_sub_epi32(*sums, _mm256_mullo_epi32(_mm256_set1_epi32(zero[i]), column));
        __m256 v = _mm256_mul_ps(_mm256_cvtepi32_ps(n), _mm256_mul_ps(_mm256_set1_ps(x_step[i]), step));
        v = _mm256_max_ps(least, _mm256_add_ps(v, bias));
        if (whole)
            _mm256_storeu_ps(y, v);
        else
            _mm256_maskstore_ps(y, mask, v);
    }
}

/* Of two panels whose sums lie beside each other; the second may be cut off. */
ALWAYS void finish_two(const product *p, uint32_t b, uint32_t rows, uint32_t j, const __m256i *sums)
{
    finish(2, true, p, b, rows, j, sums);
    if (j + 2 * SLU_INT8_PANEL <= p->w.N)
        finish(2, true, p, b, rows, j + SLU_INT8_PANEL, sums + 1);
    else
        finish(2, false, p, b, rows, j + SLU_INT8_PANEL, sums + 1);
}

/* A tile of two panels and of the last one alone. */
WIDE static void two_panels(const product *p, uint32_t b, uint32_t rows, uint32_t j)
{
    __m256i sums[2 * ROWS];
    multiply(2, p, b, rows, j, sums);
    finish_two(p, b, rows, j, sums);
}

WIDE static void last_panel(const product *p, uint32_t b, uint32_t rows, uint32_t j)
{
    __m256i sums[ROWS];
    multiply(1, p, b, rows, j, sums);
    finish(1, false, p, b, rows, j, sums);
}

/* ---- the same with an instruction for it ---- */

/* vpdpbusd adds four products to each 32-bit sum, so nothing has to be widened: the same integers. Two panels
 * are one vector. */
VNNI static void vnni_multiply_two(const product *p, uint32_t b, uint32_t rows, uint32_t j, __m512i *sums)
{
    const int8_t *w = p->w.panel + (size_t)j * p->padded;
    const size_t ld = p->x.ld, next = (size_t)p->padded * SLU_INT8_PANEL;
    for (uint32_t k = 0; k < p->padded; k += SLU_INT8_GROUP, w += SLU_INT8_GROUP * SLU_INT8_PANEL) {
        __m512i group[4];
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++) {
            const __m256i first = _mm256_load_si256((const __m256i *)(const void *)(w + 32 * i)),
                          second = _mm256_load_si256((const __m256i *)(const void *)(w + next + 32 * i));
            group[i] = _mm512_inserti64x4(_mm512_castsi256_si512(first), second, 1);
        }
        const uint8_t *q = p->x.q + b * ld + k;
        for (uint32_t r = 0; r < rows; r++, q += ld) {
            __m512i s = k ? sums[r] : _mm512_setzero_si512();
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++) {
                int32_t four;
                memcpy(&four, q + 4 * i, sizeof four);
                s = _mm512_dpbusd_epi32(s, _mm512_set1_epi32(four), group[i]);
            }
            sums[r] = s;
        }
    }
}

VNNI static void vnni_multiply_one(const product *p, uint32_t b, uint32_t rows, uint32_t j, __m256i *sums)
{
    const int8_t *w = p->w.panel + (size_t)j * p->padded;
    for (uint32_t r = 0; r < rows; r++) {
        const uint8_t *q = p->x.q + (b + r) * (size_t)p->x.ld;
        __m256i s = _mm256_setzero_si256();
        for (uint32_t k = 0; k < p->padded; k += 4)
            s = _mm256_dpbusd_epi32(s, quad(q + k),
                                    _mm256_load_si256((const __m256i *)(const void *)(w + (size_t)k * 8)));
        sums[r] = s;
    }
}

VNNI static void vnni_two_panels(const product *p, uint32_t b, uint32_t rows, uint32_t j)
{
    __m512i sums[ROWS];
    vnni_multiply_two(p, b, rows, j, sums);
    finish_two(p, b, rows, j, (const __m256i *)(const void *)sums);
}

VNNI static void vnni_last_panel(const product *p, uint32_t b, uint32_t rows, uint32_t j)
{
    __m256i sums[ROWS];
    vnni_multiply_one(p, b, rows, j, sums);
    finish(1, false, p, b, rows, j, sums);
}

/* ---- tiles ---- */

typedef void (*tile)(const product *p, uint32_t b, uint32_t rows, uint32_t j);

/* Tiles of ROWS rows, |two| for two panels and |one| for the last one alone. */
static void run_tiles(const product *p, uint32_t B, tile two, tile one)
{
    for (uint32_t b = 0; b < B; b += ROWS) {
        const uint32_t rows = B - b < ROWS ? B - b : ROWS;
        for (uint32_t j = 0; j < p->w.N; j += 2 * SLU_INT8_PANEL)
            (j + SLU_INT8_PANEL < p->w.N ? two : one)(p, b, rows, j);
    }
}

static uint32_t padded_of(slu_int8_weights w)
{
    return (w.K + SLU_INT8_GROUP - 1) / SLU_INT8_GROUP * SLU_INT8_GROUP;
}

void slu_int8_vnni_product(slu_int8_rows x, uint32_t B, slu_int8_weights w, const float *bias, bool relu,
                           float *y, uint32_t ldy)
{
    const product p = {x, w, bias, relu, y, ldy, padded_of(w)};
    run_tiles(&p, B, vnni_two_panels, vnni_last_panel);
}

void slu_int8_avx2_product(slu_int8_rows x, uint32_t B, slu_int8_weights w, const float *bias, bool relu,
                           float *y, uint32_t ldy)
{
    const product p = {x, w, bias, relu, y, ldy, padded_of(w)};
    run_tiles(&p, B, two_panels, last_panel);
}

bool slu_int8_avx2_works(void)
{
    return __builtin_cpu_supports("avx2");
}

bool slu_int8_vnni_works(void)
{
    return slu_int8_avx2_works() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vnni");
}

#else /* never called */

bool slu_int8_avx2_works(void)
{
    return false;
}

bool slu_int8_vnni_works(void)
{
    return false;
}

void slu_int8_vnni_product(slu_int8_rows x, uint32_t B, slu_int8_weights w, const float *bias, bool relu,
                           float *y, uint32_t ldy)
{
    (void)x, (void)B, (void)w, (void)bias, (void)relu, (void)y, (void)ldy;
    abort();
}

void slu_int8_avx2_quantise(const float *x, uint32_t ldx, uint32_t B, slu_int8_inputs in, slu_int8_rows out)
{
    (void)x, (void)ldx, (void)B, (void)in, (void)out;
    abort();
}

void slu_int8_avx2_product(slu_int8_rows x, uint32_t B, slu_int8_weights w, const float *bias, bool relu,
                           float *y, uint32_t ldy)
{
    (void)x, (void)B, (void)w, (void)bias, (void)relu, (void)y, (void)ldy;
    abort();
}
#endif
