/* tests/score_fixture.h - a scorer with a random model over tests/feature_sample.h, and random requests. */
#pragma once
#include "base/error.h"
#include "model/spec.h"
#include "serving/crew.h"
#include "serving/score.h"
#include "serving/served.h"
#include "sluice/v1/score.pb-c.h"
#include "tests/feature_sample.h"
#include <check.h>
#include <math.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct score_fixture {
    slu_options options;
    slu_schema *schema;
    slu_net *net;
    slu_model_table *table;
    slu_scorer *scorer;
    slu_arena *arena;
    slu_buf response;
    float *dense;
    _Atomic int64_t now_us; /* both clocks */
    int64_t step_us;        /* that they move with each look at them */
    slu_crew *crew;         /* of fixture_call(), which is its member 1; NULL: none */
    slu_clock clock;
} score_fixture;

static inline int64_t fixture_now(void *ctx)
{
    score_fixture *f = ctx;
    return atomic_fetch_add(&f->now_us, f->step_us) + f->step_us;
}

static inline void fixture_begin(score_fixture *f, const slu_options *options)
{
    slu_error err = SLU_ERROR_INIT;
    *f = (score_fixture){.options = *options, .now_us = 1000000000};
    f->clock = (slu_clock){fixture_now, fixture_now, f};
    if (!f->options.serving.max_candidates)
        f->options.serving.max_candidates = 2000;
    ck_assert_msg(!slu_schema_new(&f->options, &f->schema, &err), "%s", err.message);
    ck_assert_msg(!slu_net_of(&f->options, slu_schema_inputs(f->schema), &f->net, &err), "%s", err.message);
    ck_assert_msg(!slu_served_table(&f->options, f->schema, f->net, 0, &f->table, &err), "%s", err.message);
    f->dense = malloc((slu_net_params(f->net) + 1) * sizeof *f->dense);
    slu_net_init(f->net, f->dense);
    slu_scorer_config config = {&f->options, f->schema, f->net, f->table, &f->clock, 2};
    ck_assert_msg(!slu_scorer_new(&config, &f->scorer, &err), "%s", err.message);
    f->arena = slu_arena_new(0, 64 << 20);
}

static inline void fixture_end(score_fixture *f)
{
    slu_scorer_free(f->scorer);
    slu_model_table_free(f->table);
    slu_net_free(f->net);
    slu_schema_free(f->schema);
    slu_arena_free(f->arena);
    slu_buf_free(&f->response);
    free(f->dense);
}

/* Rows for about seven of ten ids of an encoded record; what a row holds depends on its id alone. */
static inline void fixture_add_rows(score_fixture *f, const slu_encoded *e)
{
    slu_error err = SLU_ERROR_INIT;
    const uint64_t *id = slu_encoded_ids(e);
    float v[128];
    for (uint32_t i = 0; i < slu_schema_slots(f->schema); i++) {
        uint32_t table = slu_schema_slot(f->schema, i)->table;
        for (uint32_t k = 0; k < slu_encoded_counts(e)[i]; k++, id++) {
            slu_rng rng;
            slu_rng_seed(&rng, *id + table);
            if (slu_rng_unit(&rng) > 0.7)
                continue;
            for (uint32_t j = 0; j < slu_model_served(f->table, table); j++)
                v[j] = (float)slu_rng_normal(&rng) * 0.3f;
            if (slu_model_put_row(f->table, table, *id, v, &err))
                ck_abort_msg("%s", err.message);
        }
    }
}

static inline void fixture_publish(score_fixture *f, uint64_t version)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_model_publish(f->table, f->dense, version, f->now_us - 250000, &err), "%s",
                  err.message);
}

/* Calls the handler. The response, if any, is in f->response. */
static inline slu_grpc_status fixture_call(score_fixture *f, const void *bytes, size_t len,
                                           int64_t deadline_us, char message[512])
{
    slu_grpc_call call = {.request = bytes,
                          .request_len = len,
                          .deadline_us = deadline_us,
                          .received_us = f->now_us,
                          .arena = f->arena,
                          .response = &f->response,
                          .thread = 1,
                          .crew = f->crew};
    slu_buf_clear(&f->response);
    slu_grpc_status status = slu_score(f->scorer, &call);
    memcpy(message, call.message, sizeof call.message);
    slu_arena_reset(f->arena);
    return status;
}

/* The sample's options without those features that have lists: slots are encoded and looked up one by one
 * then. |features| has room for all. */
static inline slu_options options_without_lists(slu_feature_opts *features)
{
    slu_options o = sample_options;
    o.features = features;
    o.n_features = 0;
    for (uint32_t i = 0; i < sample_options.n_features; i++)
        if (strcmp(sample_features[i].name, "tags") && strcmp(sample_features[i].name, "lists"))
            features[o.n_features++] = sample_features[i];
    return o;
}
