/* Large products in bf16 and by oneDNN: each product against plain loops over the same rounded operands,
 * whole networks against fp32, any number of threads against one. What this machine cannot run is named in
 * the output. */
#include "base/pool.h"
#include "model/bf16.h"
#include "model/gemm.h"
#include "model/products.h"
#include "model/workspace.h"
#include "tests/numeric.h"
#include "tests/suite.h"
#include <string.h>

static const char *const kinds[] = {"none", "bf16 by oneDNN", "bf16 by rounding", "fp32 by oneDNN"};

static slu_net *build(const slu_net_spec *spec)
{
    slu_error err = SLU_ERROR_INIT;
    slu_net *net;
    ck_assert_msg(slu_net_build(spec, &net, &err) == 0, "%s", err.message);
    return net;
}

/* Whether this machine has such products; main() says of which it has none. */
static bool can(slu_products_kind kind)
{
    static const uint32_t tower[] = {64};
    slu_net_spec spec = {
        .architecture = "esmm", .inputs = 64, .tasks = 1, .towers = tower, .n_towers = 1, .seed = 1};
    slu_error err = SLU_ERROR_INIT;
    slu_net *net;
    slu_products *p;
    if (slu_net_build(&spec, &net, &err))
        return false;
    int rc = slu_products_new(net->g, 64, kind, NULL, &p);
    slu_net_free(net);
    slu_products_free(p);
    return rc == 0;
}

static void round_all(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = slu_bf16_float(slu_bf16_of_ref(x[i]));
}

/* One layer of odd and even sizes, batches that are whole pieces or not, buffers with more rows than the
 * batch. */
static void check_layer(slu_products_kind kind, uint64_t seed)
{
    static const uint32_t widths[] = {32, 33, 48, 64, 100, 130, 200, 261},
                          batches[] = {1, 5, 31, 32, 33, 64, 97, 128, 200, 330, 576};
    slu_rng r;
    slu_rng_seed(&r, seed);
    const uint32_t K = widths[slu_rng_below(&r, 8)], N = widths[slu_rng_below(&r, 8)],
                   B = batches[slu_rng_below(&r, 11)];
    const bool others = slu_rng_below(&r, 2); /* read x too, so dx is added to */
    slu_graph *g = slu_graph_new(K, 1 + others);
    slu_node_id in = slu_graph_input(g), id = slu_graph_dense(g, in, N, SLU_DENSE_RELU, "layer");
    slu_graph_logit(g, id, "logit");
    if (others)
        slu_graph_logit(g, slu_graph_norm_relu(g, in, SLU_NET_NORM_LAYER, "norm"), "other");
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_graph_finish(g, &err), 0);
    ck_assert_int_ne(g->nodes[in].overwritten, others);
    const uint32_t rows = (B + 31) / 32 * 32;
    slu_products *p;
    ck_assert_int_eq(slu_products_new(g, B, kind, NULL, &p), 0);
    ck_assert_uint_eq(slu_products_columns(p, 0), N);
    ck_assert_uint_eq(slu_products_columns(p, 1), 0); /* the logit */
    float *params = floats(g->n_floats);
    fill(params, g->n_floats, &r);
    slu_products_pack(p, params, NULL);
    float *x = floats((size_t)rows * K), *y = floats((size_t)rows * N), *dx = floats((size_t)rows * K),
          *dw = floats((size_t)N * K), *want = floats((size_t)rows * (N + K)),
          *want_dw = floats((size_t)N * K);
    fill(x, (size_t)rows * K, &r);
    fill(dx, (size_t)rows * K, &r);
    fill(dw, (size_t)N * K, &r);
    memcpy(want_dw, dw, (size_t)N * K * sizeof *dw);
    slu_products_forward(p, 0, B, (slu_block){x, K}, (slu_block){y, N}, NULL);
    float *w = params + g->nodes[id].weight, *bias = params + g->nodes[id].bias;
    if (slu_products_round(p)) {
        round_all(w, (size_t)N * K);
        round_all(x, (size_t)rows * K);
    }
    slu_gemm_ref(false, true, B, N, K, 1, x, K, w, K, 0, want, N);
    for (uint32_t i = 0; i < B * N; i++)
        ck_near(y[i], fmaxf(want[i] + bias[i % N], 0), 1e-5, "%s seed %llu B=%u K=%u N=%u y[%u]", kinds[kind],
                (unsigned long long)seed, B, K, N, i);
    float *dy = y;
    fill(dy, (size_t)rows * N, &r);
    float *held = floats((size_t)B * K);
    memcpy(held, dx, (size_t)B * K * sizeof *held);
    slu_products_backward(p, 0, B, (slu_block){x, K}, (slu_block){dy, N}, (slu_block){dx, K}, dw, NULL);
    if (slu_products_round(p))
        round_all(dy, (size_t)rows * N);
    memcpy(want, held, (size_t)B * K * sizeof *want);
    slu_gemm_ref(false, false, B, K, N, 1, dy, N, w, K, others, want, K);
    slu_gemm_ref(true, false, N, K, B, 1, dy, N, x, K, 1, want_dw, K);
    for (uint32_t i = 0; i < B * K; i++)
        ck_near(dx[i], want[i], 2e-5, "%s seed %llu B=%u K=%u N=%u dx[%u]", kinds[kind],
                (unsigned long long)seed, B, K, N, i);
    for (uint32_t i = 0; i < N * K; i++)
        ck_near(dw[i], want_dw[i], 5e-5, "%s seed %llu B=%u K=%u N=%u dw[%u]", kinds[kind],
                (unsigned long long)seed, B, K, N, i);
    slu_products_free(p);
    slu_graph_free(g);
    free(held);
    free(params);
    free(x);
    free(y);
    free(dx);
    free(dw);
    free(want);
    free(want_dw);
}

START_TEST(test_layers)
{
    const slu_products_kind kind = (slu_products_kind)(_i % 3 + 1);
    slu_gemm_choose(_i / 3 ? SLU_GEMM_OPENBLAS : SLU_GEMM_BEST);
    if (!can(kind))
        return;
    for (uint64_t seed = 0; seed < (uint64_t)suite_share(60, 4); seed++)
        check_layer(kind, seed + 1000);
}
END_TEST

/* ---- whole networks ---- */

enum { B = 200, INPUTS = 96, TASKS = 2, MOST = 60000 };

typedef struct result {
    float logits[B * TASKS], dx[B * INPUTS], grads[MOST];
} result;

static slu_net_spec spec_of(int which)
{
    static const char *const names[] = {"shared_bottom", "esmm", "mmoe"};
    static const uint32_t hidden[] = {80, 50}, tower[] = {40};
    return (slu_net_spec){.architecture = names[which % 3],
                          .inputs = INPUTS,
                          .tasks = TASKS,
                          .bottom = hidden,
                          .n_bottom = 2,
                          .towers = tower,
                          .n_towers = 1,
                          .experts = 3,
                          .expert_layers = hidden,
                          .n_expert_layers = 2,
                          .norm = (slu_net_norm)(which / 3),
                          .seed = 5};
}

static slu_workspace *workspace_of(const slu_net *net, slu_products_kind kind, const slu_parallel *p,
                                   float *params)
{
    slu_workspace *w = slu_workspace_new(net, B, true);
    ck_assert_ptr_nonnull(w);
    slu_workspace_parallel(w, p);
    slu_products_choose(kind);
    if (kind != SLU_PRODUCTS_NONE) {
        ck_assert_int_eq(slu_workspace_precision(w, kind != SLU_PRODUCTS_FP32), 0);
        ck_assert_ptr_nonnull(w->products);
    }
    slu_products_choose(SLU_PRODUCTS_NONE);
    ck_assert_int_eq(slu_workspace_pack(w, params), 0);
    return w;
}

/* Forward and backward for |rows| rows, after a pass over all of them, whose remains must not matter. */
static void run(const slu_net *net, slu_workspace *w, float *params, const float *x, uint32_t rows,
                result *out)
{
    for (int pass = 0; pass < 2; pass++) {
        uint32_t n = pass ? rows : B;
        memset(out, 0, sizeof *out);
        memcpy(slu_workspace_x(w), x, (size_t)n * INPUTS * sizeof *x);
        slu_net_forward(net, params, w, n, SLU_TRAIN);
        memcpy(out->logits, slu_workspace_logits(w), (size_t)n * TASKS * sizeof(float));
        for (uint32_t i = 0; i < n * TASKS; i++)
            slu_workspace_dlogits(w)[i] = (float)(i % 5) * .1f - .21f;
        slu_net_backward(net, params, out->grads, w, n);
        memcpy(out->dx, slu_workspace_dx(w), (size_t)n * INPUTS * sizeof(float));
    }
}

/* |a - b| over |b|, in length. */
static double distance(const float *a, const float *b, size_t n)
{
    double off = 0, all = 0;
    for (size_t i = 0; i < n; i++) {
        off += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        all += (double)b[i] * b[i];
    }
    return all > 0 ? sqrt(off / all) : off;
}

/* bf16 has 8 bits, so a rounded operand is off by 2^-9 at most, and logits by little more. Gradients are
 * further off, because a unit near 0 that rounding moves across it lets its whole gradient through, or none.
 * That they are off at all shows that something was rounded. */
START_TEST(test_networks)
{
    static result fp32, other;
    const slu_products_kind kind = (slu_products_kind)(_i % 3 + 1);
    if (!can(kind))
        return;
    slu_net_spec spec = spec_of(_i / 3);
    slu_net *net = build(&spec);
    const size_t P = slu_net_params(net), trainable = slu_net_trainable(net);
    ck_assert_uint_le(trainable, MOST);
    float *params = floats(P), *x = floats(B * INPUTS);
    slu_rng r;
    slu_rng_seed(&r, 3);
    slu_net_init(net, params);
    fill(x, B * INPUTS, &r);
    slu_workspace *plain = workspace_of(net, SLU_PRODUCTS_NONE, NULL, params),
                  *w = workspace_of(net, kind, NULL, params);
    static const uint32_t batches[] = {B, 123, 46};
    for (int i = 0; i < 3; i++) {
        const uint32_t rows = batches[i];
        run(net, plain, params, x, rows, &fp32);
        run(net, w, params, x, rows, &other);
        const bool exact = kind == SLU_PRODUCTS_FP32;
        double logits = distance(other.logits, fp32.logits, rows * TASKS);
        double dx = distance(other.dx, fp32.dx, rows * INPUTS),
               grads = distance(other.grads, fp32.grads, trainable);
        ck_assert_msg(logits < (exact ? 2e-6 : 1e-2) && dx < (exact ? 2e-6 : .15) &&
                          grads < (exact ? 2e-6 : .15),
                      "%s %s norm %d, %u rows: logits %g dx %g gradients %g", kinds[kind], spec.architecture,
                      (int)spec.norm, rows, logits, dx, grads);
        if (kind != SLU_PRODUCTS_FP32)
            ck_assert_msg(logits > 1e-5 && dx > 1e-5 && grads > 1e-5, "%s %s: nothing was rounded",
                          kinds[kind], spec.architecture);
    }
    slu_workspace_free(plain);
    slu_workspace_free(w);
    slu_net_free(net);
    free(params);
    free(x);
}
END_TEST

static double loss_of(const slu_net *net, slu_workspace *w, float *params, const float *x)
{
    double sum = 0;
    ck_assert_int_eq(slu_workspace_pack(w, params), 0);
    memcpy(slu_workspace_x(w), x, (size_t)B * INPUTS * sizeof *x);
    slu_net_forward(net, params, w, B, SLU_TRAIN);
    for (uint32_t i = 0; i < B * TASKS; i++)
        sum += .5 * (double)slu_workspace_logits(w)[i] * slu_workspace_logits(w)[i];
    return sum;
}

/* Along the gradient the loss changes by its square length. A step has to be long enough for rounding to even
 * out, so this is no proof of a digit, but a product with a wrong operand is far off. */
START_TEST(test_gradients)
{
    const slu_products_kind kind = (slu_products_kind)(_i % 3 + 1);
    if (!can(kind))
        return;
    slu_net_spec spec = spec_of(_i / 3);
    slu_net *net = build(&spec);
    const size_t P = slu_net_params(net), trainable = slu_net_trainable(net);
    float *params = floats(P), *moved = floats(P), *grads = floats(trainable), *x = floats(B * INPUTS);
    slu_rng r;
    slu_rng_seed(&r, 6);
    slu_net_init(net, params);
    fill(x, B * INPUTS, &r);
    slu_workspace *w = workspace_of(net, kind, NULL, params);
    loss_of(net, w, params, x);
    memcpy(slu_workspace_dlogits(w), slu_workspace_logits(w), B * TASKS * sizeof(float));
    slu_net_backward(net, params, grads, w, B);
    double square = 0;
    for (size_t i = 0; i < trainable; i++)
        square += (double)grads[i] * grads[i];
    double step = .02 / sqrt(square), change = 0;
    for (int sign = -1; sign <= 1; sign += 2) {
        memcpy(moved, params, P * sizeof *moved);
        for (size_t i = 0; i < trainable; i++)
            moved[i] += (float)(sign * step * grads[i]);
        change += sign * loss_of(net, w, moved, x);
    }
    double slope = change / (2 * step) / square;
    ck_assert_msg(fabs(slope - 1) < .03, "%s %s norm %d: the slope is %g of what the gradient says",
                  kinds[kind], spec.architecture, (int)spec.norm, slope);
    slu_workspace_free(w);
    slu_net_free(net);
    free(params);
    free(moved);
    free(grads);
    free(x);
}
END_TEST

START_TEST(test_threads_do_not_matter)
{
    static result one, more;
    const slu_products_kind kind = (slu_products_kind)(_i % 3 + 1);
    if (!can(kind))
        return;
    slu_net_spec spec = spec_of(_i / 3);
    slu_net *net = build(&spec);
    float *params = floats(slu_net_params(net)), *x = floats(B * INPUTS);
    slu_rng r;
    slu_rng_seed(&r, 9);
    slu_net_init(net, params);
    fill(x, B * INPUTS, &r);
    slu_workspace *w = workspace_of(net, kind, NULL, params);
    run(net, w, params, x, B - 9, &one);
    slu_workspace_free(w);
    for (uint32_t threads = 2; threads <= 3; threads++) {
        slu_pool *pool;
        slu_error err = SLU_ERROR_INIT;
        ck_assert_int_eq(slu_pool_new(threads, &pool, &err), 0);
        w = workspace_of(net, kind, slu_pool_parallel(pool), params);
        run(net, w, params, x, B - 9, &more);
        ck_assert_msg(!memcmp(&one, &more, sizeof one), "%s %s: other bits with %u threads", kinds[kind],
                      spec.architecture, threads);
        slu_workspace_free(w);
        slu_pool_free(pool);
    }
    slu_net_free(net);
    free(params);
    free(x);
}
END_TEST

/* What is asked for and what this machine has decide; a reason is given where it is slow. */
START_TEST(test_choice)
{
    slu_net_spec spec = spec_of(1);
    slu_net *net = build(&spec);
    const char *why = NULL;
    slu_products_kind best = slu_products_best(true, &why);
    slu_workspace *w = slu_workspace_new(net, B, true);
    ck_assert_int_eq(slu_workspace_precision(w, true), 0);
    ck_assert_ptr_nonnull(w->products);
    ck_assert_ptr_null(slu_workspace_share(w, 0, 48)); /* rows that agree are not multiplied apart */
    printf("bf16 here: %s\n", slu_workspace_products(w));
    if (best == SLU_PRODUCTS_BF16) {
        ck_assert_int_eq(strncmp(slu_workspace_products(w), "bf16: onednn", 12), 0);
        ck_assert_ptr_null(slu_workspace_slow(w));
    } else {
        ck_assert_int_eq(best, SLU_PRODUCTS_ROUNDED);
        ck_assert_ptr_nonnull(why);
        ck_assert_str_eq(slu_workspace_slow(w), why);
    }
    slu_workspace_free(w);
    w = slu_workspace_new(net, B, true);
    ck_assert_int_eq(slu_workspace_precision(w, false), 0);
    ck_assert_ptr_null(slu_workspace_slow(w));
    ck_assert_ptr_nonnull(slu_workspace_share(w, 0, 48));
    printf("fp32 here: %s\n", slu_workspace_products(w));
    if (slu_products_best(false, NULL) == SLU_PRODUCTS_NONE)
        ck_assert_ptr_null(w->products);
    slu_workspace_free(w);
    slu_net_free(net);
}
END_TEST

int main(void)
{
    for (int kind = SLU_PRODUCTS_BF16; kind <= SLU_PRODUCTS_FP32; kind++)
        if (!can((slu_products_kind)kind))
            printf("skipped: %s: this machine cannot\n", kinds[kind]);
    Suite *s = suite_create("products");
    TCase *t = tcase_create("products");
    tcase_set_timeout(t, 120 * suite_slowness());
    tcase_add_loop_test(t, test_layers, 0, 6);
    tcase_add_loop_test(t, test_networks, 0, 27);
    tcase_add_loop_test(t, test_gradients, 0, 27);
    tcase_add_test(t, test_choice);
    suite_add_tcase(s, t);
    t = tcase_create("threads");
    tcase_set_timeout(t, 120 * suite_slowness());
    tcase_add_loop_test(t, test_threads_do_not_matter, 0, 9);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
