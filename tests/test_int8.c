#include "base/cache_line.h"
#include "model/int8.h"
#include "tests/numeric.h"
#include <string.h>

/* Shapes with and without whole groups, panels and tiles, and holes at both ends and in the middle. */
static const uint32_t shapes[][5] = {
    /* B, N, K, first, width */
    {1, 1, 1, 0, 0},     {1, 8, 16, 0, 0},        {2, 9, 17, 0, 0},    {3, 7, 31, 5, 7},
    {8, 16, 64, 0, 16},  {9, 23, 65, 60, 5},      {16, 40, 200, 0, 0}, {17, 33, 129, 33, 31},
    {7, 64, 1500, 0, 3}, {31, 5, 2100, 1030, 64}, {5, 12, 80, 33, 15},
};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* Rows and weights that are quantised, and what they were. */
typedef struct bed {
    uint32_t B, N;
    slu_int8_inputs in;
    uint32_t K; /* inputs that are read */
    float *x, *w, *bias;
    void *packed;
    slu_int8_weights weights;
    slu_int8_rows rows;
} bed;

static slu_int8_rows rows_new(uint32_t B, uint32_t K)
{
    uint32_t ld = slu_int8_row(K);
    slu_int8_rows r = {slu_cache_lines_alloc((size_t)B * ld + SLU_INT8_SLACK), ld, floats(B),
                       calloc(B, sizeof(int32_t))};
    ck_assert(r.q && r.zero);
    memset(r.q, 0xee, (size_t)B * ld + SLU_INT8_SLACK);
    return r;
}

static void rows_free(slu_int8_rows r)
{
    free(r.q);
    free(r.step);
    free(r.zero);
}

static bed open_bed(const uint32_t shape[5], slu_rng *r)
{
    bed b = {.B = shape[0], .N = shape[1], .in = {shape[2], shape[3], shape[4]}};
    b.K = slu_int8_count(b.in);
    b.x = floats((size_t)b.B * b.in.K);
    b.w = floats((size_t)b.N * b.in.K);
    b.bias = floats(b.N);
    fill(b.x, (size_t)b.B * b.in.K, r);
    fill(b.w, (size_t)b.N * b.in.K, r);
    fill(b.bias, b.N, r);
    b.packed = aligned_alloc(64, slu_int8_packed(b.K, b.N));
    ck_assert_uint_eq(slu_int8_packed(b.K, b.N) % 64, 0);
    b.rows = rows_new(b.B, b.K);
    return b;
}

static void prepare(bed *b)
{
    slu_int8_pack(b->packed, b->w, b->in.K, b->in, b->N);
    b->weights = slu_int8_weights_at(b->packed, b->K, b->N);
    slu_int8_quantise(b->x, b->in.K, b->B, b->in, b->rows);
}

static void close_bed(bed *b)
{
    free(b->x);
    free(b->w);
    free(b->bias);
    free(b->packed);
    rows_free(b->rows);
}

static uint32_t column_of(const bed *b, uint32_t k)
{
    return k < b->in.first ? k : k + b->in.width;
}

static int weight_at(const bed *b, uint32_t k, uint32_t j)
{
    size_t padded = (b->K + SLU_INT8_GROUP - 1) / SLU_INT8_GROUP * SLU_INT8_GROUP;
    return b->weights.panel[j / 8 * padded * 8 + k / 4 * 32 + j % 8 * 4 + k % 4];
}

static int value_at(const bed *b, uint32_t i, uint32_t k)
{
    return b->rows.q[(size_t)i * b->rows.ld + k];
}

/* An integer stands for what was there to within half a step, on both sides. */
START_TEST(test_rounding)
{
    slu_rng r;
    slu_rng_seed(&r, 700 + (uint64_t)_i);
    bed b = open_bed(shapes[_i], &r);
    for (uint32_t k = 0; k < b.in.K; k++) /* the first row is one after a ReLU */
        b.x[k] = fmaxf(b.x[k], 0);
    prepare(&b);
    ck_assert_int_eq(b.rows.zero[0], 0);
    for (uint32_t i = 0; i < b.B; i++)
        for (uint32_t k = b.K; k < b.rows.ld; k++) /* what a product multiplies by zeros, or leaves */
            ck_assert_int_le(value_at(&b, i, k), SLU_INT8_LEVELS);
    for (uint32_t i = 0; i < b.B; i++)
        for (uint32_t k = 0; k < b.K; k++) {
            int q = value_at(&b, i, k);
            ck_assert_int_le(q, SLU_INT8_LEVELS);
            double back = (double)b.rows.step[i] * (q - b.rows.zero[i]);
            ck_assert(fabs(back - b.x[(size_t)i * b.in.K + column_of(&b, k)]) <=
                      .501 * (double)b.rows.step[i]);
            ck_assert(b.rows.step[i] <= 2.01f / SLU_INT8_LEVELS);
        }
    for (uint32_t j = 0; j < b.N; j++) {
        int sum = 0;
        for (uint32_t k = 0; k < b.K; k++) {
            int q = weight_at(&b, k, j);
            double back = (double)b.weights.step[j] * q;
            ck_assert(fabs(back - b.w[(size_t)j * b.in.K + column_of(&b, k)]) <=
                      .501 * (double)b.weights.step[j]);
            sum += q;
        }
        ck_assert_int_eq(sum, b.weights.sum[j]);
        ck_assert(b.weights.step[j] > 0 && b.weights.step[j] <= 1 / 30.f);
    }
    close_bed(&b);
}
END_TEST

/* The kernel's element as the header says it, in integers and double. */
static double slow(const bed *b, uint32_t i, uint32_t j, bool relu)
{
    int64_t sum = 0;
    for (uint32_t k = 0; k < b->K; k++)
        sum += (value_at(b, i, k) - b->rows.zero[i]) * weight_at(b, k, j);
    double y = (double)sum * b->rows.step[i] * b->weights.step[j] + b->bias[j];
    return relu ? fmax(y, 0) : y;
}

/* All kinds give the same bits, those of the slow twin but for its last rounding, and leave alone what is not
 * theirs. */
static void compare(const bed *b)
{
    const uint32_t ld = b->N + 3;
    const size_t n = (size_t)b->B * ld;
    float *y = floats(n), *plain = floats(n);
    for (int relu = 0; relu < 2; relu++) {
        for (size_t i = 0; i < n; i++)
            plain[i] = 77;
        ck_assert(slu_int8_choose(SLU_INT8_PLAIN));
        slu_int8_product(b->rows, b->B, b->weights, b->bias, relu, plain, ld);
        for (size_t i = 0; i < n; i++)
            if (i % ld < b->N)
                ck_near(plain[i], slow(b, (uint32_t)(i / ld), (uint32_t)(i % ld), relu), 1e-5, "y[%zu]", i);
            else
                ck_assert(plain[i] == 77);
        for (slu_int8_kind kind = SLU_INT8_AVX2; kind <= SLU_INT8_VNNI; kind++) {
            if (!slu_int8_choose(kind))
                continue;
            for (size_t i = 0; i < n; i++)
                y[i] = 77;
            slu_int8_product(b->rows, b->B, b->weights, b->bias, relu, y, ld);
            ck_assert_msg(memcmp(y, plain, n * sizeof *y) == 0, "%s differ from plain loops",
                          slu_int8_backend());
        }
        ck_assert(slu_int8_choose(SLU_INT8_BEST));
    }
    free(y);
    free(plain);
}

START_TEST(test_products)
{
    slu_rng r;
    slu_rng_seed(&r, 720 + (uint64_t)_i);
    bed b = open_bed(shapes[_i], &r);
    prepare(&b);
    compare(&b);
    close_bed(&b);
}
END_TEST

/* What adds up to the most: all weights alike, of one sign or of two, one far above the others; and the
 * largest activations. 16 bits have to hold it. */
START_TEST(test_nothing_overflows)
{
    slu_rng r;
    slu_rng_seed(&r, 740);
    for (int s = 0; s < SHAPES; s++) {
        bed b = open_bed(shapes[s], &r);
        for (size_t i = 0; i < (size_t)b.N * b.in.K; i++)
            b.w[i] = _i == 0   ? 1
                     : _i == 1 ? -1
                     : _i == 2 ? (i % 2 ? 1 : -1)
                     : _i == 3 ? (i % 29 ? .01f : 1)
                               : powf(b.w[i], 9);
        prepare(&b);
        for (uint32_t i = 0; i < b.B; i++)
            for (uint32_t k = 0; k < b.K; k++)
                b.rows.q[(size_t)i * b.rows.ld + k] = i % 2 || slu_rng_below(&r, 2) ? SLU_INT8_LEVELS : 0;
        compare(&b);
        close_bed(&b);
    }
}
END_TEST

/* Rounding gives the same bytes either way, also of values that are no numbers, and of none but zeros. */
START_TEST(test_kinds_round_alike)
{
    static const float odd[] = {0, -0.f, NAN, -NAN, INFINITY, -INFINITY, 1e-38f, 1e38f, -3e38f, 1e-45f, 5};
    slu_rng r;
    slu_rng_seed(&r, 760 + (uint64_t)_i);
    bed b = open_bed(shapes[_i], &r);
    slu_int8_rows plain = rows_new(b.B, b.K);
    for (int round = 0; round < 60; round++) {
        fill(b.x, (size_t)b.B * b.in.K, &r);
        for (uint32_t i = 0; i < b.B && round; i++)
            for (uint32_t n = 0; n < 2; n++)
                b.x[(size_t)i * b.in.K + slu_rng_below(&r, b.in.K)] = odd[slu_rng_below(&r, sizeof odd / 4)];
        if (round == 1)
            memset(b.x, 0, (size_t)b.B * b.in.K * sizeof *b.x);
        slu_int8_choose(SLU_INT8_PLAIN);
        slu_int8_quantise(b.x, b.in.K, b.B, b.in, plain);
        slu_int8_choose(SLU_INT8_BEST);
        slu_int8_quantise(b.x, b.in.K, b.B, b.in, b.rows);
        for (uint32_t i = 0; i < b.B; i++) {
            size_t at = (size_t)i * plain.ld;
            ck_assert(memcmp(b.rows.q + at, plain.q + at, b.K) == 0);
            ck_assert(memcmp(&b.rows.step[i], &plain.step[i], sizeof(float)) == 0);
            ck_assert_int_eq(b.rows.zero[i], plain.zero[i]);
        }
    }
    for (size_t i = 0; i < (size_t)b.N * b.in.K; i++)
        b.w[i] = odd[slu_rng_below(&r, sizeof odd / 4)];
    prepare(&b);
    compare(&b);
    rows_free(plain);
    close_bed(&b);
}
END_TEST

/* Two rows for one: together they are as near as a hundredth of a step of the first. */
START_TEST(test_twice)
{
    slu_rng r;
    slu_rng_seed(&r, 790);
    for (uint32_t K = 1; K < 300; K += 13) {
        float *x = floats(K), *rest = floats(K);
        slu_int8_rows rows = rows_new(2, K);
        fill(x, K, &r);
        slu_int8_quantise_twice(x, K, rest, rows);
        for (uint32_t k = 0; k < K; k++) {
            double first = (double)rows.step[0] * (rows.q[k] - rows.zero[0]),
                   both = first + (double)rows.step[1] * (rows.q[rows.ld + k] - rows.zero[1]);
            ck_assert(fabs(both - x[k]) <= .01 * (double)rows.step[0]);
        }
        rows_free(rows);
        free(x);
        free(rest);
    }
}
END_TEST

START_TEST(test_rows_are_independent)
{
    slu_rng r;
    slu_rng_seed(&r, 780 + (uint64_t)_i);
    bed b = open_bed(shapes[_i], &r);
    prepare(&b);
    float *all = floats((size_t)b.B * b.N), *one = floats(b.N);
    slu_int8_product(b.rows, b.B, b.weights, b.bias, true, all, b.N);
    slu_int8_rows row = rows_new(1, b.K);
    for (uint32_t i = 0; i < b.B; i++) {
        slu_int8_quantise(b.x + (size_t)i * b.in.K, b.in.K, 1, b.in, row);
        slu_int8_product(row, 1, b.weights, b.bias, true, one, b.N);
        ck_assert(memcmp(one, all + (size_t)i * b.N, b.N * sizeof *one) == 0);
    }
    rows_free(row);
    free(all);
    free(one);
    close_bed(&b);
}
END_TEST

START_TEST(test_backend_has_a_name)
{
    ck_assert(slu_int8_choose(SLU_INT8_PLAIN));
    ck_assert_str_eq(slu_int8_backend(), "plain int8 loops");
    if (slu_int8_choose(SLU_INT8_AVX2))
        ck_assert_str_eq(slu_int8_backend(), "avx2 int8 kernels");
    if (slu_int8_choose(SLU_INT8_VNNI))
        ck_assert_str_eq(slu_int8_backend(), "avx512-vnni int8 kernels");
    else
        printf("skipped: products by AVX-512 VNNI, which this CPU lacks\n");
}
END_TEST

int main(void)
{
    Suite *s = suite_create("int8");
    TCase *t = tcase_create("int8");
    tcase_add_loop_test(t, test_rounding, 0, SHAPES);
    tcase_add_loop_test(t, test_products, 0, SHAPES);
    tcase_add_loop_test(t, test_nothing_overflows, 0, 5);
    tcase_add_loop_test(t, test_kinds_round_alike, 0, SHAPES);
    tcase_add_test(t, test_twice);
    tcase_add_loop_test(t, test_rows_are_independent, 0, SHAPES);
    tcase_add_test(t, test_backend_has_a_name);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
