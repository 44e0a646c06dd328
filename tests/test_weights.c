/* Packed weights and kernels of our own against plain loops, and the promises of model/gemm_avx2.h. */
#include "model/activation.h"
#include "model/net.h"
#include "model/weights.h"
#include "tests/numeric.h"
#include <string.h>

typedef struct layer {
    uint32_t K, N;
    float *w, *bias, *forward, *backward;
} layer;

static layer make_layer(uint32_t K, uint32_t N, slu_rng *r)
{
    layer l = {K, N, floats((size_t)K * N), floats(N), NULL, NULL};
    fill(l.w, (size_t)K * N, r);
    fill(l.bias, N, r);
    if (slu_weights_forward_floats(K, N)) {
        l.forward = floats(slu_weights_forward_floats(K, N));
        l.backward = floats(slu_weights_backward_floats(K, N));
        slu_weights_pack_forward(l.forward, l.w, K, N);
        slu_weights_pack_backward(l.backward, l.w, K, N);
    }
    return l;
}

static void free_layer(layer *l)
{
    free(l->w);
    free(l->bias);
    free(l->forward);
    free(l->backward);
}

static uint32_t pick(slu_rng *r, const uint32_t *of, uint32_t n)
{
    return of[slu_rng_below(r, n)];
}

/* Shapes that reach every tile, cut K and rows into pieces, and leave partial panels; ranges of columns; with
 * and without bias, ReLU and what y held before. */
START_TEST(test_against_plain_loops)
{
    static const uint32_t rows[] = {1, 2, 3, 4, 5, 6, 7, 16, 17, 121, 125},
                          sizes[] = {1, 3, 5, 16, 17, 48, 64, 97, 300};
    if (!slu_gemm_choose(SLU_GEMM_AVX2))
        return;
    slu_rng r;
    slu_rng_seed(&r, 900 + (uint64_t)_i);
    uint32_t B = pick(&r, rows, 11), K = pick(&r, sizes, 9), N = pick(&r, sizes, 9);
    layer l = make_layer(K, N, &r);
    uint32_t first = (uint32_t)slu_rng_below(&r, K), width = 1 + (uint32_t)slu_rng_below(&r, K - first);
    uint32_t ldx = width + 3, ldy = N + 2;
    bool add = slu_rng_below(&r, 2), relu = slu_rng_below(&r, 2);
    const float *bias = slu_rng_below(&r, 2) ? l.bias : NULL;
    float *x = floats((size_t)B * ldx), *y = floats((size_t)B * ldy), *slow = floats((size_t)B * ldy);
    fill(x, (size_t)B * ldx, &r);
    fill(y, (size_t)B * ldy, &r);
    memcpy(slow, y, (size_t)B * ldy * sizeof *y);
    slu_weights w = {l.w, K, N, l.forward, l.backward, NULL};
    uint32_t cols = N > 16 && slu_rng_below(&r, 2) ? N / 16 * 16 : N;
    const float *rest = cols < N && slu_rng_below(&r, 2) ? l.bias + cols : NULL;
    slu_weights_forward(&w, first, width, B, x, ldx, add, y, ldy, (slu_follow){{bias, relu}, cols, rest});
    slu_gemm_ref(false, true, B, N, width, 1, x, ldx, l.w + first, K, add, slow, ldy);
    slu_bias_relu_forward(slow, ldy, bias, relu, B, cols);
    if (rest)
        slu_bias_relu_forward(slow + cols, ldy, rest, false, B, N - cols);
    for (size_t i = 0; i < (size_t)B * ldy; i++)
        ck_near(y[i], slow[i], 1e-5, "seed %d B=%u K=%u N=%u [%u,+%u) y[%zu]", 900 + _i, B, K, N, first,
                width, i);

    fill(x, (size_t)B * ldx, &r);
    float *old = floats((size_t)B * ldx);
    memcpy(old, x, (size_t)B * ldx * sizeof *x);
    slu_weights_backward(&w, first, width, B, y, ldy, add, x, ldx);
    slu_gemm_ref(false, false, B, width, N, 1, y, ldy, l.w + first, K, add, old, ldx);
    for (size_t i = 0; i < (size_t)B * ldx; i++)
        ck_near(x[i], old[i], 5e-5, "seed %d B=%u K=%u N=%u [%u,+%u) dx[%zu]", 900 + _i, B, K, N, first,
                width, i);
    free(x);
    free(y);
    free(slow);
    free(old);
    free_layer(&l);
}
END_TEST

/* A row's outputs have the same bits alone and among others, in every column range. */
START_TEST(test_rows_do_not_depend_on_their_neighbours)
{
    enum { B = 131, K = 530, N = 70 };
    if (!slu_gemm_choose(SLU_GEMM_AVX2))
        return;
    slu_rng r;
    slu_rng_seed(&r, 7);
    layer l = make_layer(K, N, &r);
    float *x = floats((size_t)B * K), *all = floats((size_t)B * N), one[N];
    fill(x, (size_t)B * K, &r);
    slu_weights w = {l.w, K, N, l.forward, l.backward, NULL};
    slu_follow f = {{l.bias, true}, N, NULL};
    slu_weights_forward(&w, 0, K, B, x, K, false, all, N, f);
    for (uint32_t b = 0; b < B; b++)
        for (uint32_t m = 1; m <= 5 && b + m <= B; m++) {
            float some[5 * N];
            slu_weights_forward(&w, 0, K, m, x + (size_t)b * K, K, false, some, N, f);
            memcpy(one, some + (m - 1) * N, sizeof one);
            ck_assert_msg(memcmp(one, all + (size_t)(b + m - 1) * N, sizeof one) == 0, "row %u of %u rows", b,
                          m);
        }
    free(x);
    free(all);
    free_layer(&l);
}
END_TEST

/* NaN in what beta 0 overwrites must not survive, and ReLU of NaN is 0 on every path. */
START_TEST(test_overwrites)
{
    if (!slu_gemm_choose(SLU_GEMM_AVX2))
        return;
    slu_rng r;
    slu_rng_seed(&r, 3);
    layer l = make_layer(9, 21, &r);
    float x[7 * 9], y[7 * 21];
    fill(x, 7 * 9, &r);
    for (int i = 0; i < 7 * 21; i++)
        y[i] = NAN;
    slu_weights w = {l.w, 9, 21, l.forward, l.backward, NULL};
    slu_weights_forward(&w, 0, 9, 7, x, 9, false, y, 21, (slu_follow){{l.bias, false}, 21, NULL});
    for (int i = 0; i < 7 * 21; i++)
        ck_assert(isfinite(y[i]));
    x[0] = NAN;
    slu_weights_forward(&w, 0, 9, 7, x, 9, false, y, 21, (slu_follow){{l.bias, true}, 21, NULL});
    for (int i = 0; i < 21; i++)
        ck_assert_float_eq(y[i], 0);
    free_layer(&l);
}
END_TEST

/* The same network, step after step: OpenBLAS, own kernels, own kernels with packed weights. */
typedef struct result {
    float logits[40 * 2], dx[40 * 48], grads[20000];
} result;

static void run_net(const slu_net *net, float *params, const float *x, slu_gemm_kind kind, bool packed,
                    result *out)
{
    enum { B = 40 };
    ck_assert(slu_gemm_choose(kind));
    slu_workspace *w = slu_workspace_new(net, B, true);
    if (packed)
        ck_assert_int_eq(slu_workspace_pack(w, params), 0);
    memset(out, 0, sizeof *out);
    ck_assert_uint_le(slu_net_trainable(net), 20000);
    memcpy(slu_workspace_x(w), x, B * slu_net_inputs(net) * sizeof *x);
    slu_net_forward(net, params, w, B, SLU_TRAIN);
    memcpy(out->logits, slu_workspace_logits(w), sizeof out->logits);
    for (int i = 0; i < B * 2; i++)
        slu_workspace_dlogits(w)[i] = (float)(i % 5) * .1f - .2f;
    slu_net_backward(net, params, out->grads, w, B);
    memcpy(out->dx, slu_workspace_dx(w), sizeof out->dx);
    slu_workspace_free(w);
}

static void compare(const float *a, const float *b, size_t n, const char *what)
{
    for (size_t i = 0; i < n; i++)
        ck_near(a[i], b[i], 1e-5, "%s %zu", what, i);
}

START_TEST(test_networks_agree)
{
    static const char *const names[] = {"shared_bottom", "esmm", "mmoe"};
    static result plain, own, packed;
    const uint32_t hidden[] = {32, 17}, tower[] = {20};
    slu_net_spec spec = {.architecture = names[_i % 3],
                         .inputs = 48,
                         .tasks = 2,
                         .bottom = hidden,
                         .n_bottom = 2,
                         .towers = tower,
                         .n_towers = 1,
                         .experts = 3,
                         .expert_layers = hidden,
                         .n_expert_layers = 2,
                         .norm = (slu_net_norm)(_i / 3),
                         .seed = 5};
    slu_error err = SLU_ERROR_INIT;
    slu_net *net;
    if (!slu_gemm_choose(SLU_GEMM_AVX2))
        return;
    ck_assert_msg(slu_net_build(&spec, &net, &err) == 0, "%s", err.message);
    float *params = floats(slu_net_params(net)), *x = floats(40 * 48);
    slu_rng r;
    slu_rng_seed(&r, 11);
    slu_net_init(net, params);
    fill(x, 40 * 48, &r);
    run_net(net, params, x, SLU_GEMM_OPENBLAS, false, &plain);
    run_net(net, params, x, SLU_GEMM_AVX2, false, &own);
    run_net(net, params, x, SLU_GEMM_AVX2, true, &packed);
    compare(own.logits, plain.logits, 80, "logit");
    compare(own.dx, plain.dx, 40 * 48, "dx");
    compare(own.grads, plain.grads, slu_net_trainable(net), "gradient");
    compare(packed.logits, plain.logits, 80, "packed logit");
    compare(packed.dx, plain.dx, 40 * 48, "packed dx");
    compare(packed.grads, plain.grads, slu_net_trainable(net), "packed gradient");
    slu_net_free(net);
    free(params);
    free(x);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("weights");
    TCase *t = tcase_create("weights");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, test_against_plain_loops, 0, 400);
    tcase_add_test(t, test_rows_do_not_depend_on_their_neighbours);
    tcase_add_test(t, test_overwrites);
    tcase_add_loop_test(t, test_networks_agree, 0, 9);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
