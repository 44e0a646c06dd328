/* What evaluation predicts in int8 is what a scorer computes, bit for bit. */
#include "base/cache_line.h"
#include "model/net_int8.h"
#include "model/shared.h"
#include "model/spec.h"
#include "tests/feature_sample.h"
#include "tests/numeric.h"
#include "tests/suite.h"
#include "trainer/as_served.h"
#include <string.h>

enum { B = 30, TASKS = 4 };

static uint32_t widths[] = {64, 40};

/* The scorer's way: all candidates at once, what they share apart. */
static void as_a_request(const slu_schema *schema, const slu_net *net, float *params, const float *x,
                         float *logits)
{
    static const uint32_t zeros[B];
    uint32_t K = slu_net_inputs(net), first, width;
    slu_schema_shared_columns(schema, &first, &width);
    ck_assert_uint_gt(width, 0);
    slu_net_int8 *q = slu_net_int8_new(net, first, width);
    slu_workspace *w = slu_workspace_new(net, B, false);
    slu_shared *s = slu_workspace_share(w, first, width);
    float *packed = slu_cache_lines_alloc(slu_net_int8_packed(q) * sizeof *packed), *fp32 = NULL;
    s->n = 1;
    s->of = zeros;
    memcpy(s->x, x + first, width * sizeof *x);
    if (slu_net_packed(net)) {
        fp32 = slu_cache_lines_alloc(slu_net_packed(net) * sizeof *fp32);
        slu_net_pack(net, params, fp32);
        slu_workspace_use_packed(w, fp32);
    }
    slu_net_int8_pack(q, params, packed);
    ck_assert_int_eq(slu_workspace_int8(w, q), 0);
    slu_workspace_use_int8(w, packed);
    memcpy(slu_workspace_x(w), x, (size_t)B * K * sizeof *x);
    slu_net_forward(net, params, w, B, SLU_INFER);
    memcpy(logits, slu_workspace_logits(w), B * slu_net_tasks(net) * sizeof *logits);
    slu_workspace_free(w);
    slu_net_int8_free(q);
    free(packed);
    free(fp32);
}

static void compare(const char *architecture)
{
    slu_error err = SLU_ERROR_INIT;
    slu_options o = store_options();
    slu_schema *schema;
    slu_net *net;
    slu_net_spec spec;
    slu_rng r;
    slu_rng_seed(&r, 11);
    o.model.architecture = (char *)(uintptr_t)architecture;
    o.model.towers = o.model.bottom = o.model.expert_layers = widths;
    o.model.n_towers = o.model.n_bottom = o.model.n_expert_layers = 2;
    o.model.experts = 3;
    ck_assert_msg(!slu_schema_new(&o, &schema, &err), "%s", err.message);
    ck_assert_msg(!slu_net_spec_of(&o, slu_schema_inputs(schema), &spec, &err), "%s", err.message);
    ck_assert_msg(!slu_net_build(&spec, &net, &err), "%s", err.message);
    const uint32_t K = slu_net_inputs(net), T = slu_net_tasks(net);
    float *params = floats(slu_net_params(net)), *x = floats((size_t)B * K), one[TASKS], all[B * TASKS];
    ck_assert_uint_le(T, TASKS);
    slu_as_served *s = slu_as_served_new(schema, net);
    ck_assert_ptr_nonnull(s);
    for (int version = 0; version < 2; version++) {
        slu_net_init(net, params);
        for (size_t i = 0; version && i < slu_net_params(net); i++)
            params[i] *= -1.5f;
        fill(x, (size_t)B * K, &r);
        uint32_t first, width;
        slu_schema_shared_columns(schema, &first, &width);
        for (uint32_t b = 1; b < B; b++)
            memcpy(x + b * K + first, x + first, width * sizeof *x);
        slu_as_served_weights(s, params);
        as_a_request(schema, net, params, x, all);
        for (uint32_t b = 0; b < B; b++) {
            slu_as_served_logits(s, params, x + b * K, one);
            ck_assert_msg(memcmp(one, all + b * T, T * sizeof *one) == 0, "%s: row %u", architecture, b);
        }
    }
    slu_as_served_free(s);
    slu_net_free(net);
    slu_schema_free(schema);
    free(params);
    free(x);
}

START_TEST(test_as_a_scorer)
{
    compare("shared_bottom");
    compare("esmm");
    compare("mmoe");
}
END_TEST

int main(void)
{
    return run_suite("as_served", (const TTest *const[]){test_as_a_scorer, NULL});
}
