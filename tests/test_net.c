#include "model/loss.h"
#include "model/net.h"
#include "model/optim.h"
#include "tests/net_reference.h"
#include "tests/numeric.h"
#include <string.h>

static const char *const architectures[] = {"shared_bottom", "esmm", "mmoe"};

/* A network and all that training needs. */
typedef struct bed {
    slu_net_spec spec;
    uint32_t bottom[3], towers[3], layers[3];
    slu_net *net;
    slu_workspace *w;
    size_t P, trainable;
    float *params, *grads, *m, *v;
} bed;

static void open_bed(bed *b, uint32_t max_rows)
{
    slu_error err = SLU_ERROR_INIT;
    b->spec.bottom = b->bottom;
    b->spec.towers = b->towers;
    b->spec.expert_layers = b->layers;
    ck_assert_msg(slu_net_build(&b->spec, &b->net, &err) == 0, "%s", err.message);
    b->P = slu_net_params(b->net);
    b->trainable = slu_net_trainable(b->net);
    b->params = floats(b->P);
    b->grads = floats(b->P);
    b->m = floats(b->P);
    b->v = floats(b->P);
    slu_net_init(b->net, b->params);
    b->w = slu_workspace_new(b->net, max_rows, true);
    ck_assert_ptr_nonnull(b->w);
}

static void close_bed(bed *b)
{
    slu_workspace_free(b->w);
    slu_net_free(b->net);
    free(b->params);
    free(b->grads);
    free(b->m);
    free(b->v);
}

static uint32_t between(slu_rng *r, uint32_t low, uint32_t high)
{
    return low + (uint32_t)slu_rng_below(r, high - low + 1);
}

/* A random small network; everything follows from |seed|. */
static bed random_bed(const char *architecture, slu_net_norm norm, slu_rng *r)
{
    bed b = {.spec = {.architecture = architecture, .norm = norm}};
    b.spec.inputs = between(r, 1, 19);
    b.spec.tasks = between(r, 1, 4);
    b.spec.experts = between(r, 1, 5);
    b.spec.n_bottom = between(r, 1, 3);
    b.spec.n_towers = between(r, 0, 3);
    b.spec.n_expert_layers = between(r, 1, 3);
    b.spec.seed = slu_rng_u64(r);
    for (int i = 0; i < 3; i++) {
        b.bottom[i] = between(r, 2, 9);
        b.towers[i] = between(r, 2, 9);
        b.layers[i] = between(r, 2, 9);
    }
    return b;
}

/* Start values have zero biases and unit gains, which would hide mistakes in them. */
static void shake(bed *b, slu_rng *r)
{
    for (size_t i = 0; i < b->P; i++)
        b->params[i] += (float)(.2 * (2 * slu_rng_unit(r) - 1));
}

typedef struct judge {
    reference r;
    double *params, *x, *logits;
    const float *dlogits;
} judge;

/* sum of logits * dlogits by the reference: its gradient is what backward must find. */
static double judged(judge *j)
{
    ref_forward(&j->r, j->x, j->logits);
    double sum = 0;
    for (uint32_t i = 0; i < j->r.B * j->r.spec->tasks; i++)
        sum += j->logits[i] * j->dlogits[i];
    return sum;
}

static double slope(judge *j, double *p)
{
    const double h = 1e-6, keep = *p;
    *p = keep + h;
    double up = judged(j);
    *p = keep - h;
    double down = judged(j);
    *p = keep;
    return (up - down) / (2 * h);
}

/* Random shapes, each architecture and norm: forward, served forward, gate means, and gradients: about 20
 * elements of each piece of the parameters, and all of x. */
START_TEST(test_against_reference)
{
    const uint64_t seed = 500 + (uint64_t)_i;
    slu_rng r;
    slu_rng_seed(&r, seed);
    bed b = random_bed(architectures[_i % 3], (slu_net_norm)(_i / 3 % 3), &r);
    uint32_t B = between(&r, _i / 3 % 3 == SLU_NET_NORM_BATCH ? 4 : 1, 11), K = b.spec.inputs,
             T = b.spec.tasks;
    open_bed(&b, B + between(&r, 0, 5));
    shake(&b, &r);
    float *x = slu_workspace_x(b.w), *dlogits = slu_workspace_dlogits(b.w), dy[64];
    fill(x, (size_t)B * K, &r);
    judge j = {.r = {.spec = &b.spec, .net = b.net, .B = B, .train = true}, .dlogits = dy};
    j.params = calloc(b.P, sizeof *j.params);
    j.x = calloc((size_t)B * K, sizeof *j.x);
    j.logits = calloc((size_t)B * T, sizeof *j.logits);
    j.r.params = j.params;
    for (size_t i = 0; i < b.P; i++)
        j.params[i] = b.params[i] = i < b.trainable ? b.params[i] : .5f + fabsf(b.params[i]);
    for (size_t i = 0; i < (size_t)B * K; i++)
        j.x[i] = x[i];
    fill(dy, (size_t)B * T, &r);

    float *before = floats(b.P);
    memcpy(before, b.params, b.P * sizeof *before);
    j.r.train = false;
    judged(&j);
    slu_net_forward(b.net, b.params, b.w, B, SLU_INFER);
    ck_assert_mem_eq(before, b.params, b.P * sizeof *before);
    for (uint32_t i = 0; i < B * T; i++)
        ck_near(slu_workspace_logits(b.w)[i], j.logits[i], 1e-4, "seed %d served logit %u", (int)seed, i);
    float means[64];
    bool gated = strcmp(b.spec.architecture, "mmoe") == 0;
    ck_assert(slu_net_gate_means(b.net, b.w, B, means) == gated);
    for (uint32_t i = 0; gated && i < T * b.spec.experts; i++)
        ck_near(means[i], j.r.gates[i], 1e-5, "seed %d gate %u", (int)seed, i);

    j.r.train = true;
    judged(&j);
    slu_net_forward(b.net, b.params, b.w, B, SLU_TRAIN);
    ck_assert_mem_eq(before, b.params, b.trainable * sizeof *before);
    for (uint32_t i = 0; i < B * T; i++)
        ck_near(slu_workspace_logits(b.w)[i], j.logits[i], 1e-4, "seed %d logit %u", (int)seed, i);

    memcpy(dlogits, dy, (size_t)B * T * sizeof *dy);
    for (size_t i = 0; i < b.trainable; i++)
        b.grads[i] = 1; /* backward adds */
    slu_net_backward(b.net, before, b.grads, b.w, B);
    for (size_t i = 0; i < slu_net_param_count(b.net); i++) {
        const slu_net_param *p = slu_net_param_at(b.net, i);
        for (size_t k = p->offset; k < p->offset + p->size && k < b.trainable; k += 1 + p->size / 20)
            ck_near(b.grads[k] - 1, slope(&j, &j.params[k]), 1e-3, "seed %d B=%u d %s[%zu]", (int)seed, B,
                    p->name, k - p->offset);
    }
    for (size_t i = 0; i < (size_t)B * K; i++)
        ck_near(slu_workspace_dx(b.w)[i], slope(&j, &j.x[i]), 1e-3, "seed %d dx[%zu]", (int)seed, i);
    free(before);
    free(j.params);
    free(j.x);
    free(j.logits);
    close_bed(&b);
}
END_TEST

/* ---- learning ---- */

static bed plain_bed(const char *architecture, slu_net_norm norm)
{
    return (bed){.spec = {.architecture = architecture,
                          .norm = norm,
                          .inputs = 13,
                          .tasks = 3,
                          .n_bottom = 1,
                          .n_towers = 2,
                          .experts = 3,
                          .n_expert_layers = 1,
                          .seed = 21},
                 .bottom = {24},
                 .towers = {16, 8},
                 .layers = {24}};
}

static void random_batch(slu_rng *r, uint32_t B, uint32_t K, float *x, float *labels, uint8_t *say)
{
    fill(x, (size_t)B * K, r);
    for (uint32_t i = 0; i < B; i++) {
        bool on = true;
        for (uint32_t t = 0; t < 3; t++) {
            on = on && slu_rng_unit(r) < .6;
            labels[i * 3 + t] = on;
            say[i * 3 + t] = SLU_SAY_LABEL;
        }
    }
}

static double learn(bed *b, slu_workspace *w, uint32_t B, const float *labels, const uint8_t *say, uint64_t t)
{
    static const slu_adam adam = {.rate = .01, .beta1 = .9, .beta2 = .999, .epsilon = 1e-8, .clip = 5};
    const float weights[3] = {1, 1, 1};
    slu_net_forward(b->net, b->params, w, B, SLU_TRAIN);
    double loss =
        slu_funnel_loss(slu_workspace_dlogits(w), slu_workspace_logits(w), labels, say, weights, B, 3);
    slu_net_backward(b->net, b->params, b->grads, w, B);
    slu_adam_step(&adam, b->params, b->m, b->v, b->grads, b->trainable, t, 1.0 / B, NULL);
    return loss / B;
}

/* A network that cannot learn one batch by heart cannot learn. */
START_TEST(test_overfits_one_batch)
{
    bed b = plain_bed(architectures[_i % 3], (slu_net_norm)(_i / 3));
    open_bed(&b, 24);
    slu_rng r;
    slu_rng_seed(&r, 31);
    float labels[24 * 3];
    uint8_t say[24 * 3];
    random_batch(&r, 24, 13, slu_workspace_x(b.w), labels, say);
    double first = learn(&b, b.w, 24, labels, say, 1), last = first;
    for (uint64_t t = 2; t <= 500; t++)
        last = learn(&b, b.w, 24, labels, say, t);
    ck_assert_msg(first > .5 && last < .02, "%s norm %d: loss %g -> %g", b.spec.architecture, _i / 3, first,
                  last);
    close_bed(&b);
}
END_TEST

/* Batches of changing size in a workspace made for more: twice the same bytes, with a fresh workspace each
 * time, also one whose memory held something else. */
START_TEST(test_deterministic)
{
    static const uint32_t sizes[] = {1, 17, 2, 64, 33, 5};
    float *first = NULL;
    for (int round = 0; round < 2; round++) {
        bed b = plain_bed(architectures[_i % 3], (slu_net_norm)(_i / 3));
        open_bed(&b, 64);
        slu_workspace *w = round ? slu_workspace_new(b.net, 64, true) : b.w;
        if (round) { /* spoil what an earlier batch could have left */
            slu_net_forward(b.net, first, w, 64, SLU_INFER);
            fill(slu_workspace_dx(w), 64 * 13, &(slu_rng){{1, 2, 3, 4}});
        }
        slu_rng r;
        slu_rng_seed(&r, 32);
        for (uint64_t t = 1; t <= 18; t++) {
            float labels[64 * 3];
            uint8_t say[64 * 3];
            uint32_t B = sizes[t % 6];
            random_batch(&r, B, 13, slu_workspace_x(w), labels, say);
            learn(&b, w, B, labels, say, t);
        }
        if (round == 0) {
            first = floats(b.P);
            memcpy(first, b.params, b.P * sizeof *first);
        } else {
            ck_assert_mem_eq(first, b.params, b.P * sizeof *first);
            slu_workspace_free(w);
        }
        close_bed(&b);
    }
    free(first);
}
END_TEST

/* Rows beyond B do not matter, nor does how many the workspace could hold. */
START_TEST(test_rows_beyond_the_batch)
{
    bed b = plain_bed(architectures[_i], SLU_NET_NORM_LAYER);
    open_bed(&b, 9);
    slu_workspace *large = slu_workspace_new(b.net, 100, false);
    slu_rng r;
    slu_rng_seed(&r, 33);
    fill(slu_workspace_x(b.w), 9 * 13, &r);
    fill(slu_workspace_x(large), 100 * 13, &r);
    memcpy(slu_workspace_x(large), slu_workspace_x(b.w), 9 * 13 * sizeof(float));
    slu_net_forward(b.net, b.params, b.w, 9, SLU_INFER);
    slu_net_forward(b.net, b.params, large, 9, SLU_INFER);
    ck_assert_mem_eq(slu_workspace_logits(b.w), slu_workspace_logits(large), 9 * 3 * sizeof(float));
    ck_assert_uint_eq(slu_workspace_rows(large), 100);
    ck_assert_ptr_null(slu_workspace_dx(large));
    slu_workspace_free(large);
    close_bed(&b);
}
END_TEST

/* MMoE with one expert is the shared bottom: its gate is always 1. */
START_TEST(test_one_expert_is_a_shared_bottom)
{
    bed moe = plain_bed("mmoe", SLU_NET_NORM_NONE), bottom = plain_bed("shared_bottom", SLU_NET_NORM_NONE);
    moe.spec.experts = 1;
    open_bed(&moe, 5);
    open_bed(&bottom, 5);
    for (size_t i = 0; i < slu_net_param_count(bottom.net); i++) {
        const slu_net_param *to = slu_net_param_at(bottom.net, i);
        char name[64];
        bool shared = strncmp(to->name, "bottom.", 7) == 0;
        snprintf(name, sizeof name, "%s%s", shared ? "expert.0." : "", to->name + (shared ? 7 : 0));
        bool found = false;
        for (size_t k = 0; k < slu_net_param_count(moe.net); k++) {
            const slu_net_param *from = slu_net_param_at(moe.net, k);
            if (strcmp(from->name, name) == 0) {
                memcpy(bottom.params + to->offset, moe.params + from->offset, to->size * sizeof(float));
                found = true;
            }
        }
        ck_assert_msg(found, "%s", name);
    }
    slu_rng r;
    slu_rng_seed(&r, 34);
    fill(slu_workspace_x(moe.w), 5 * 13, &r);
    memcpy(slu_workspace_x(bottom.w), slu_workspace_x(moe.w), 5 * 13 * sizeof(float));
    slu_net_forward(moe.net, moe.params, moe.w, 5, SLU_INFER);
    slu_net_forward(bottom.net, bottom.params, bottom.w, 5, SLU_INFER);
    for (int i = 0; i < 15; i++)
        ck_near(slu_workspace_logits(moe.w)[i], slu_workspace_logits(bottom.w)[i], 1e-5, "logit %d", i);
    close_bed(&moe);
    close_bed(&bottom);
}
END_TEST

/* ---- description ---- */

/* Names are unique and their pieces tile the vector; statistics come after what is trained. */
START_TEST(test_params_tile_the_vector)
{
    bed b = plain_bed(architectures[_i % 3], (slu_net_norm)(_i / 3));
    open_bed(&b, 1);
    size_t end = 0;
    for (size_t i = 0; i < slu_net_param_count(b.net); i++) {
        const slu_net_param *p = slu_net_param_at(b.net, i);
        ck_assert_uint_eq(p->offset, end);
        ck_assert_uint_eq(p->size, (size_t)p->rows * p->cols);
        end += p->size;
        bool statistic = strstr(p->name, ".mean") || strstr(p->name, ".variance");
        ck_assert(statistic == (p->offset >= b.trainable));
        for (size_t k = 0; k < i; k++)
            ck_assert_str_ne(p->name, slu_net_param_at(b.net, k)->name);
    }
    ck_assert_uint_eq(end, b.P);
    ck_assert(slu_net_has_batch_stats(b.net) == (_i / 3 == SLU_NET_NORM_BATCH));
    ck_assert_ptr_null(slu_net_param_at(b.net, slu_net_param_count(b.net)));
    ck_assert_uint_eq(slu_net_inputs(b.net), 13);
    ck_assert_uint_eq(slu_net_tasks(b.net), 3);
    close_bed(&b);
}
END_TEST

START_TEST(test_flops)
{
    static const double expected[] = {13 * 24 + 3 * (24 * 16 + 16 * 8 + 8), 3 * (13 * 16 + 16 * 8 + 8),
                                      3 * 13 * 24 + 3 * (13 * 3 + 3 * 24) + 3 * (24 * 16 + 16 * 8 + 8)};
    bed b = plain_bed(architectures[_i], SLU_NET_NORM_NONE);
    open_bed(&b, 1);
    ck_assert_double_eq(slu_net_flops(b.net), expected[_i]);
    close_bed(&b);
}
END_TEST

/* Initial values follow from seed and node alone: within their bounds, different for equal experts, the same
 * whatever else the network has. */
START_TEST(test_init)
{
    bed three = plain_bed("mmoe", SLU_NET_NORM_BATCH), two = plain_bed("mmoe", SLU_NET_NORM_BATCH);
    two.spec.tasks = 2;
    open_bed(&three, 1);
    open_bed(&two, 1);
    const float *experts[3];
    for (size_t i = 0, e = 0; i < slu_net_param_count(three.net); i++) {
        const slu_net_param *p = slu_net_param_at(three.net, i);
        const float *v = three.params + p->offset;
        const char *part = strrchr(p->name, '.');
        double bound = 0, value = strcmp(part, ".gain") == 0 || strcmp(part, ".variance") == 0;
        if (strcmp(part, ".weight") == 0) {
            bool relu = strncmp(p->name, "gate", 4) != 0 && !strstr(p->name, "logit");
            bound = sqrt(6.0 / (relu ? p->cols : p->cols + p->rows));
        }
        double largest = 0;
        for (size_t k = 0; k < p->size; k++)
            largest = fmax(largest, fabs(v[k] - value));
        ck_assert_msg(largest <= bound * 1.000001 && largest >= bound * .5, "%s: %g, bound %g", p->name,
                      largest, bound);
        if (strncmp(p->name, "expert.", 7) == 0 && strcmp(part, ".weight") == 0)
            experts[e++] = v;
        for (size_t k = 0; k < slu_net_param_count(two.net); k++) {
            const slu_net_param *q = slu_net_param_at(two.net, k);
            if (strcmp(q->name, p->name) == 0)
                ck_assert_mem_eq(v, two.params + q->offset, p->size * sizeof *v);
        }
    }
    ck_assert_mem_ne(experts[0], experts[1], 24 * 13 * sizeof(float));
    ck_assert_mem_ne(experts[1], experts[2], 24 * 13 * sizeof(float));
    close_bed(&three);
    close_bed(&two);
}
END_TEST

static void refused(const bed *b, const char *message)
{
    slu_error err = SLU_ERROR_INIT;
    slu_net *net = (slu_net *)&err;
    slu_net_spec s = b->spec;
    s.bottom = b->bottom;
    s.towers = b->towers;
    s.expert_layers = b->layers;
    ck_assert_int_eq(slu_net_build(&s, &net, &err), SLU_EINVAL);
    ck_assert_ptr_null(net);
    ck_assert_msg(strstr(err.message, message) != NULL, "'%s' lacks '%s'", err.message, message);
}

START_TEST(test_refusals)
{
    bed b = plain_bed("esm", SLU_NET_NORM_NONE);
    refused(&b, "did you mean 'esmm'?); allowed: shared_bottom, esmm, mmoe");
    b = plain_bed(NULL, SLU_NET_NORM_NONE);
    refused(&b, "unknown architecture");
    b = plain_bed("esmm", (slu_net_norm)9);
    refused(&b, "norm");
    b = plain_bed("esmm", SLU_NET_NORM_NONE);
    b.spec.inputs = 0;
    refused(&b, "0 inputs");
    b = plain_bed("esmm", SLU_NET_NORM_NONE);
    b.spec.tasks = 65;
    refused(&b, "65 tasks");
    b = plain_bed("esmm", SLU_NET_NORM_NONE);
    b.towers[1] = 0;
    refused(&b, "layer 1 of 'towers'");
    b = plain_bed("esmm", SLU_NET_NORM_NONE);
    b.spec.n_towers = 99;
    refused(&b, "99 layers in 'towers'");
    b = plain_bed("shared_bottom", SLU_NET_NORM_NONE);
    b.spec.n_bottom = 0;
    refused(&b, "'bottom'");
    b = plain_bed("mmoe", SLU_NET_NORM_NONE);
    b.spec.experts = 0;
    refused(&b, "0 experts; allowed: 1 to 256");
    b.spec.experts = 2;
    b.spec.n_expert_layers = 0;
    refused(&b, "'expert_layers'");
    b = plain_bed("esmm", SLU_NET_NORM_NONE);
    b.spec.inputs = 1 << 20;
    b.towers[0] = 1 << 16;
    refused(&b, "parameters; at most");
}
END_TEST

START_TEST(test_architectures_all_build)
{
    uint32_t n = 0;
    for (const char *const *name = slu_net_architectures(); *name; name++, n++) {
        bed b = plain_bed(*name, SLU_NET_NORM_NONE);
        open_bed(&b, 2);
        slu_net_forward(b.net, b.params, b.w, 0, SLU_TRAIN); /* an empty batch is fine */
        slu_net_backward(b.net, b.params, b.grads, b.w, 0);
        close_bed(&b);
    }
    ck_assert_uint_eq(n, 3);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("net");
    TCase *t = tcase_create("reference");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, test_against_reference, 0, 90);
    suite_add_tcase(s, t);
    t = tcase_create("learning");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, test_overfits_one_batch, 0, 9);
    tcase_add_loop_test(t, test_deterministic, 0, 9);
    tcase_add_loop_test(t, test_rows_beyond_the_batch, 0, 3);
    tcase_add_test(t, test_one_expert_is_a_shared_bottom);
    suite_add_tcase(s, t);
    t = tcase_create("description");
    tcase_add_loop_test(t, test_params_tile_the_vector, 0, 9);
    tcase_add_loop_test(t, test_flops, 0, 3);
    tcase_add_test(t, test_init);
    tcase_add_test(t, test_refusals);
    tcase_add_test(t, test_architectures_all_build);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
