/* Score requests: read by our own reader and by protobuf-c, which must agree, and then answered. */
#include "model/spec.h"
#include "serving/score.h"
#include "serving/score_request.h"
#include "serving/served.h"
#include "sluice/v1/score.pb-c.h"
#include "tests/feature_sample.h"
#include <math.h>
#include <stdlib.h>

static slu_options options;
static slu_schema *schema;
static slu_net *net;
static slu_model_table *table;
static slu_scorer *scorer;
static slu_arena *arena;
static slu_buf response;

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void set_up(void)
{
    options = sample_options;
    options.serving.max_candidates = 300;
    must(!slu_schema_new(&options, &schema, NULL));
    must(!slu_net_of(&options, slu_schema_inputs(schema), &net, NULL));
    must(!slu_served_table(&options, schema, net, 0, &table, NULL));
    float *dense = calloc(slu_net_params(net), sizeof *dense);
    slu_net_init(net, dense);
    must(!slu_model_publish(table, dense, 1, 1, NULL));
    free(dense);
    slu_scorer_config config = {&options, schema, net, table, &slu_system_clock, 1};
    must(!slu_scorer_new(&config, &scorer, NULL));
    arena = slu_arena_new(0, 16 << 20);
}

static bool same_text(const char *theirs, slu_span ours)
{
    return strlen(theirs) == strnlen(ours.p, ours.n) && !memcmp(theirs, ours.p, strlen(theirs));
}

static void same_feature(const score_feature *f, const char *name, size_t n_text, char **text,
                         size_t n_integers, const int64_t *integers, size_t n_numbers, const double *numbers)
{
    must(same_text(name, f->name));
    must(f->n == n_text + n_integers + n_numbers);
    for (size_t i = 0; i < n_text; i++)
        must(f->v[i].kind == SLU_VALUE_TEXT && same_text(text[i], f->v[i].v.text));
    for (size_t i = 0; i < n_integers; i++)
        must(f->v[n_text + i].v.integer == integers[i]);
    for (size_t i = 0; i < n_numbers; i++)
        must(!memcmp(&f->v[n_text + n_integers + i].v.number, &numbers[i], sizeof(double)));
}

/* What protobuf-c can read, ours reads the same. (Ours also joins nothing that proto3 would merge: messages
 * are repeated fields here, so there is nothing to merge.) */
static void compare(const uint8_t *data, size_t size)
{
    score_request ours;
    slu_error err = SLU_ERROR_INIT;
    Sluice__V1__ScoreRequest *theirs = sluice__v1__score_request__unpack(NULL, size, data);
    int rc = score_request_decode(data, size, arena, &ours, &err);
    if (theirs && !rc) {
        must(theirs->candidates == ours.candidates);
        must(theirs->n_shared == ours.n_shared && theirs->n_columns == ours.n_columns &&
             theirs->n_tasks == ours.n_tasks);
        for (size_t i = 0; i < theirs->n_shared; i++) {
            const Sluice__V1__SharedFeature *t = theirs->shared[i];
            same_feature(&ours.shared[i], t->name, t->n_text, t->text, t->n_integers, t->integers,
                         t->n_numbers, t->numbers);
        }
        for (size_t i = 0; i < theirs->n_columns; i++) {
            const Sluice__V1__Column *t = theirs->columns[i];
            same_feature(&ours.columns[i], t->name, t->n_text, t->text, t->n_integers, t->integers,
                         t->n_numbers, t->numbers);
            must(t->n_lengths == ours.columns[i].n_lengths);
            for (size_t k = 0; k < t->n_lengths; k++)
                must(t->lengths[k] == ours.columns[i].lengths[k]);
        }
    }
    if (theirs)
        sluice__v1__score_request__free_unpacked(theirs, NULL);
    slu_arena_reset(arena);
}

static void answer(const uint8_t *data, size_t size)
{
    slu_grpc_call call = {.request = data,
                          .request_len = size,
                          .deadline_us = INT64_MAX,
                          .arena = arena,
                          .response = &response};
    slu_buf_clear(&response);
    slu_grpc_status status = slu_score(scorer, &call);
    must((status == SLU_GRPC_OK) == (response.len > 0));
    must((status == SLU_GRPC_OK) == (call.message[0] == 0));
    if (status == SLU_GRPC_OK) {
        Sluice__V1__ScoreResponse *r = sluice__v1__score_response__unpack(NULL, response.len, response.data);
        must(r && r->n_tasks > 0 && r->model_version == 1);
        for (size_t i = 0; i < r->n_tasks; i++)
            for (size_t k = 0; k < r->tasks[i]->n_entire_space; k++)
                must(isfinite(r->tasks[i]->entire_space[k]) && isfinite(r->tasks[i]->conditional[k]));
        sluice__v1__score_response__free_unpacked(r, NULL);
    }
    slu_arena_reset(arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!scorer)
        set_up();
    compare(data, size);
    answer(data, size);
    return 0;
}
