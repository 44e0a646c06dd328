#include "base/cache_line.h"
#include "model/gemm.h"
#include "model/int8.h"
#include "model/net_int8.h"
#include "model/shared.h"
#include "tests/numeric.h"
#include <string.h>

static const char *const architectures[] = {"shared_bottom", "esmm", "mmoe"};

enum { MOST = 70, T = 3, NETS = 27 };

/* A random network that has layers to put into integers, in fp32 and in int8. */
typedef struct bed {
    slu_net *net;
    uint32_t K, first, width;
    float *params, *packed, *packed_int8;
    slu_net_int8 *q;
    slu_workspace *fp32, *int8;
    float *shared_x[2]; /* of both */
} bed;

static uint32_t between(slu_rng *r, uint32_t low, uint32_t high)
{
    return low + (uint32_t)slu_rng_below(r, high - low + 1);
}

static float *lines(size_t n)
{
    float *p = slu_cache_lines_alloc(n * sizeof *p);
    ck_assert_ptr_nonnull(p);
    return p;
}

static slu_workspace *workspace(bed *b, const uint32_t *zeros, float **shared_x)
{
    slu_workspace *w = slu_workspace_new(b->net, MOST, false);
    ck_assert_ptr_nonnull(w);
    if (b->width) {
        slu_shared *s = slu_workspace_share(w, b->first, b->width);
        ck_assert_ptr_nonnull(s);
        s->n = 1;
        s->of = zeros;
        *shared_x = s->x;
    }
    if (b->packed)
        slu_workspace_use_packed(w, b->packed);
    return w;
}

/* Architecture, norm and where x is shared follow from |i|, the rest from |r|. */
static bed open_bed(int i, slu_rng *r)
{
    static const uint32_t zeros[MOST];
    uint32_t hidden[3] = {between(r, 33, 90), between(r, 8, 70), between(r, 32, 40)};
    slu_net_spec spec = {.architecture = architectures[i % 3],
                         .norm = (slu_net_norm)(i / 3 % 3),
                         .inputs = between(r, 60, 150),
                         .tasks = T,
                         .bottom = hidden,
                         .n_bottom = between(r, 1, 3),
                         .towers = hidden,
                         .n_towers = between(r, 1, 3),
                         .experts = between(r, 1, 5),
                         .expert_layers = hidden,
                         .n_expert_layers = between(r, 1, 3),
                         .seed = slu_rng_u64(r)};
    slu_error err = SLU_ERROR_INIT;
    bed b = {.K = spec.inputs};
    b.width = i / 9 ? between(r, 1, 25) : 0;
    b.first = i / 9 == 1 ? 0 : between(r, 0, b.K - b.width);
    ck_assert_msg(slu_net_build(&spec, &b.net, &err) == 0, "%s", err.message);
    b.params = floats(slu_net_params(b.net));
    slu_net_init(b.net, b.params);
    for (size_t k = 0; k < slu_net_params(b.net); k++)
        if (b.params[k] == 0)
            b.params[k] = .1f * (float)(2 * slu_rng_unit(r) - 1);
    if (slu_net_packed(b.net)) {
        b.packed = lines(slu_net_packed(b.net));
        slu_net_pack(b.net, b.params, b.packed);
    }
    b.q = slu_net_int8_new(b.net, b.first, b.width);
    ck_assert_ptr_nonnull(b.q);
    b.packed_int8 = lines(slu_net_int8_packed(b.q));
    slu_net_int8_pack(b.q, b.params, b.packed_int8);
    b.fp32 = workspace(&b, zeros, &b.shared_x[0]);
    b.int8 = workspace(&b, zeros, &b.shared_x[1]);
    ck_assert_int_eq(slu_workspace_int8(b.int8, b.q), 0);
    slu_workspace_use_int8(b.int8, b.packed_int8);
    return b;
}

static void close_bed(bed *b)
{
    slu_workspace_free(b->fp32);
    slu_workspace_free(b->int8);
    slu_net_int8_free(b->q);
    slu_net_free(b->net);
    free(b->params);
    free(b->packed);
    free(b->packed_int8);
}

/* Logits (B, T) of rows of x (B, K), whose shared columns are those of the first one. */
static void run(const bed *b, slu_workspace *w, const float *x, uint32_t B, float *logits)
{
    if (b->width)
        memcpy(b->shared_x[w == b->int8], x + b->first, b->width * sizeof *x);
    memcpy(slu_workspace_x(w), x, (size_t)B * b->K * sizeof *x);
    slu_net_forward(b->net, b->params, w, B, SLU_INFER);
    memcpy(logits, slu_workspace_logits(w), B * T * sizeof *logits);
}

static float *rows_of_x(const bed *b, uint32_t B, slu_rng *r)
{
    float *x = floats((size_t)B * b->K);
    fill(x, (size_t)B * b->K, r);
    for (uint32_t i = 1; i < B; i++)
        memcpy(x + i * b->K + b->first, x + b->first, b->width * sizeof *x);
    return x;
}

/* How far int8 is from fp32, as a part of how far fp32's logits of different rows are from each other. */
static double distance(const float *fp32, const float *int8, uint32_t B)
{
    double off = 0, spread = 0;
    for (uint32_t t = 0; t < T; t++) {
        double mean = 0;
        for (uint32_t b = 0; b < B; b++)
            mean += fp32[b * T + t] / (double)B;
        for (uint32_t b = 0; b < B; b++) {
            off += pow(fp32[b * T + t] - int8[b * T + t], 2);
            spread += pow(fp32[b * T + t] - mean, 2);
        }
    }
    return sqrt(off / spread);
}

/* Every architecture and norm: near fp32, and not fp32 itself. */
START_TEST(test_near_fp32)
{
    slu_rng r;
    slu_rng_seed(&r, 800 + (uint64_t)_i);
    bed b = open_bed(_i, &r);
    float *x = rows_of_x(&b, MOST, &r), fp32[MOST * T], int8[MOST * T];
    run(&b, b.fp32, x, MOST, fp32);
    run(&b, b.int8, x, MOST, int8);
    ck_assert(slu_net_int8_share(b.q) > .2 && slu_net_int8_share(b.q) <= 1);
    double d = distance(fp32, int8, MOST);
    ck_assert_msg(d > 1e-4 && d < .08, "%s, norm %d: %.4f of the spread off", architectures[_i % 3],
                  _i / 3 % 3, d);
    slu_workspace_use_int8(b.int8, NULL);
    run(&b, b.int8, x, MOST, int8);
    ck_assert(memcmp(int8, fp32, sizeof fp32) == 0);
    free(x);
    close_bed(&b);
}
END_TEST

/* A row has the same bits alone, among others, and in another order: with packed weights, and without, as on
 * a CPU with AVX-512. */
START_TEST(test_rows_are_independent)
{
    slu_rng r;
    slu_rng_seed(&r, 840 + (uint64_t)(_i % NETS));
    slu_gemm_choose(_i / NETS ? SLU_GEMM_OPENBLAS : SLU_GEMM_BEST);
    bed b = open_bed(_i % NETS, &r);
    float *x = rows_of_x(&b, MOST, &r), all[MOST * T], some[MOST * T], *y = floats((size_t)MOST * b.K);
    run(&b, b.int8, x, MOST, all);
    for (uint32_t n = 1; n <= MOST; n += between(&r, 1, 9)) {
        uint32_t from[MOST];
        for (uint32_t i = 0; i < n; i++) {
            from[i] = (uint32_t)slu_rng_below(&r, MOST);
            memcpy(y + i * b.K, x + from[i] * b.K, b.K * sizeof *y);
        }
        run(&b, b.int8, y, n, some);
        for (uint32_t i = 0; i < n; i++)
            ck_assert_msg(memcmp(some + i * T, all + from[i] * T, T * sizeof *all) == 0, "row %u among %u", i,
                          n);
    }
    free(x);
    free(y);
    close_bed(&b);
    slu_gemm_choose(SLU_GEMM_BEST);
}
END_TEST

/* Without the kernels the same integers are summed: nothing changes. */
START_TEST(test_plain_loops_agree)
{
    slu_rng r;
    slu_rng_seed(&r, 880 + (uint64_t)_i);
    bed b = open_bed(_i, &r);
    float *x = rows_of_x(&b, MOST, &r), best[MOST * T], plain[MOST * T];
    run(&b, b.int8, x, MOST, best);
    ck_assert(slu_int8_choose(SLU_INT8_PLAIN));
    run(&b, b.int8, x, MOST, plain);
    ck_assert(memcmp(best, plain, sizeof best) == 0);
    ck_assert(slu_int8_choose(SLU_INT8_BEST));
    free(x);
    close_bed(&b);
}
END_TEST

START_TEST(test_small_layers_stay)
{
    const uint32_t small[] = {16, 8};
    slu_net_spec spec = {.architecture = architectures[_i],
                         .inputs = 30,
                         .tasks = T,
                         .bottom = small,
                         .n_bottom = 2,
                         .towers = small,
                         .n_towers = 2,
                         .experts = 2,
                         .expert_layers = small,
                         .n_expert_layers = 2,
                         .seed = 3};
    slu_error err = SLU_ERROR_INIT;
    slu_net *net;
    ck_assert_int_eq(slu_net_build(&spec, &net, &err), 0);
    slu_net_int8 *q = slu_net_int8_new(net, 0, 0);
    ck_assert_ptr_nonnull(q);
    ck_assert(slu_net_int8_share(q) == 0);
    ck_assert_uint_eq(slu_net_int8_packed(q), 0);
    slu_net_int8_free(q);
    slu_net_free(net);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("net_int8");
    TCase *t = tcase_create("net_int8");
    tcase_add_loop_test(t, test_near_fp32, 0, NETS);
    tcase_add_loop_test(t, test_rows_are_independent, 0, 2 * NETS);
    tcase_add_loop_test(t, test_plain_loops_agree, 0, NETS);
    tcase_add_loop_test(t, test_small_layers_stay, 0, 3);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
