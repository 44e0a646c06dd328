#include "model/net.h"
#include "model/shared.h"
#include "tests/numeric.h"
#include <string.h>

static const char *const architectures[] = {"shared_bottom", "esmm", "mmoe"};

enum { K = 23, T = 2, MOST = 40 };

typedef struct runner {
    slu_workspace *w;
    float *grads;
} runner;

static runner runner_of(const slu_net *net)
{
    return (runner){slu_workspace_new(net, MOST, true), floats(slu_net_trainable(net))};
}

static void run(const runner *r, const slu_net *net, float *params, const float *dlogits, uint32_t B)
{
    slu_net_forward(net, params, r->w, B, SLU_TRAIN);
    memcpy(slu_workspace_dlogits(r->w), dlogits, B * T * sizeof *dlogits);
    slu_net_backward(net, params, r->grads, r->w, B);
}

/* The same rows once as they are and once with their equal part apart: one is the other's slow twin. What the
 * shared columns of the workspace's own x hold must not matter. */
static void compare(const char *architecture, uint32_t first, uint32_t width, uint32_t B, uint32_t n,
                    slu_rng *r)
{
    const uint32_t hidden[] = {7, 5};
    slu_net_spec spec = {.architecture = architecture,
                         .inputs = K,
                         .tasks = T,
                         .bottom = hidden,
                         .n_bottom = 2,
                         .towers = hidden,
                         .n_towers = 2,
                         .experts = 3,
                         .expert_layers = hidden,
                         .n_expert_layers = 1,
                         .seed = slu_rng_u64(r)};
    slu_error err = SLU_ERROR_INIT;
    slu_net *net;
    ck_assert_msg(slu_net_build(&spec, &net, &err) == 0, "%s", err.message);
    float *params = floats(slu_net_params(net));
    slu_net_init(net, params);
    runner plain = runner_of(net), apart = runner_of(net);
    slu_shared *s = slu_workspace_share(apart.w, first, width);
    ck_assert_ptr_nonnull(s);
    uint32_t of[MOST];
    for (uint32_t b = 0; b < B; b++)
        of[b] = b < n ? b : (uint32_t)slu_rng_below(r, n);
    s->n = n;
    s->of = of;
    fill(s->x, (size_t)n * width, r);
    float *x = slu_workspace_x(plain.w), dlogits[MOST * T];
    fill(x, B * K, r);
    fill(dlogits, B * T, r);
    memcpy(slu_workspace_x(apart.w), x, B * K * sizeof *x);
    for (uint32_t b = 0; b < B; b++)
        memcpy(x + b * K + first, s->x + of[b] * width, width * sizeof *x);
    run(&plain, net, params, dlogits, B);
    run(&apart, net, params, dlogits, B);

    for (uint32_t i = 0; i < B * T; i++)
        ck_near(slu_workspace_logits(apart.w)[i], slu_workspace_logits(plain.w)[i], 1e-5, "logit %u", i);
    for (size_t i = 0; i < slu_net_trainable(net); i++)
        ck_near(apart.grads[i], plain.grads[i], 1e-5, "gradient %zu", i);
    const float *dx = slu_workspace_dx(plain.w), *own = slu_workspace_dx(apart.w);
    float *sums = floats((size_t)n * width);
    for (uint32_t b = 0; b < B; b++)
        for (uint32_t j = 0; j < K; j++)
            if (j >= first && j < first + width)
                sums[of[b] * width + j - first] += dx[b * K + j];
            else
                ck_near(own[b * K + j], dx[b * K + j], 1e-5, "dx %u %u", b, j);
    for (uint32_t i = 0; i < n * width; i++)
        ck_near(s->dx[i], sums[i], 1e-5, "shared dx %u", i);
    free(sums);
    free(plain.grads);
    free(apart.grads);
    slu_workspace_free(plain.w);
    slu_workspace_free(apart.w);
    free(params);
    slu_net_free(net);
}

START_TEST(test_against_plain_rows)
{
    slu_rng r;
    slu_rng_seed(&r, 900 + (uint64_t)_i);
    static const uint32_t ranges[][2] = {{0, 9}, {7, 9}, {K - 9, 9}, {0, K}, {5, 1}};
    static const uint32_t sizes[][2] = {{1, 1}, {2, 1}, {5, 2}, {17, 1}, {33, 9}, {MOST, 20}, {6, 6}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        compare(architectures[_i / 5], ranges[_i % 5][0], ranges[_i % 5][1], sizes[i][0], sizes[i][1], &r);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("shared");
    TCase *t = tcase_create("shared");
    tcase_add_loop_test(t, test_against_plain_rows, 0, 15);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
