/* Scores in int8 through the whole Score method: near fp32's, and the same for a candidate whoever is scored
 * with it. */
#include "base/cache_line.h"
#include "tests/score_fixture.h"
#include "tests/suite.h"

#define SEED 97u

static uint32_t towers[] = {64, 40}, experts[] = {72, 48};
enum { MOST = 600, ITEM_FIELDS = 4 };
static const char *const item_fields[ITEM_FIELDS] = {"item_name", "item_category", "list_index", "price"};

static slu_options options_of(const char *architecture, slu_precision precision)
{
    slu_options o = store_options();
    o.model.architecture = (char *)(uintptr_t)architecture;
    o.model.towers = towers;
    o.model.n_towers = 2;
    o.model.bottom = experts;
    o.model.n_bottom = 2;
    o.model.experts = 3;
    o.model.expert_layers = experts;
    o.model.n_expert_layers = 2;
    o.serving.precision = precision;
    return o;
}

/* Values of every candidate's item fields and of the user. */
typedef struct sample {
    char text[ITEM_FIELDS][MOST][8], user[8];
} sample;

static void fill_sample(sample *s, slu_rng *r)
{
    for (int f = 0; f < ITEM_FIELDS; f++)
        for (int i = 0; i < MOST; i++)
            snprintf(s->text[f][i], sizeof s->text[f][i], "%u", (unsigned)slu_rng_below(r, 200));
    snprintf(s->user, sizeof s->user, "u%u", (unsigned)slu_rng_below(r, 9));
}

/* Rows for all candidates' ids. */
static void add_rows(score_fixture *f, const sample *s)
{
    slu_encoder *encoder = slu_encoder_new(f->schema);
    slu_encoded *e = slu_cache_lines_alloc(slu_encoded_max(f->schema));
    slu_value v[ITEM_FIELDS + 1];
    slu_values fields[64] = {0};
    for (int i = 0; i < MOST; i++) {
        for (int k = 0; k < ITEM_FIELDS; k++) {
            v[k] = slu_text_value(s->text[k][i], strlen(s->text[k][i]));
            fields[sample_field(f->schema, item_fields[k])] = (slu_values){&v[k], 1};
        }
        v[ITEM_FIELDS] = slu_text_value(s->user, strlen(s->user));
        fields[sample_field(f->schema, "user_pseudo_id")] = (slu_values){&v[ITEM_FIELDS], 1};
        slu_encode(encoder, fields, e);
        fixture_add_rows(f, e);
    }
    free(e);
    slu_encoder_free(encoder);
}

/* p(click), p(next step over it) of candidates of[0 .. n) into out (n, 2). */
static void ask(score_fixture *f, sample *s, const uint32_t *of, uint32_t n, float *out)
{
    static char *texts[ITEM_FIELDS][MOST];
    Sluice__V1__ScoreRequest m = SLUICE__V1__SCORE_REQUEST__INIT;
    Sluice__V1__Column columns[ITEM_FIELDS], *columns_at[ITEM_FIELDS];
    Sluice__V1__SharedFeature user = SLUICE__V1__SHARED_FEATURE__INIT, *users[] = {&user};
    char name[] = "user_pseudo_id", *user_text[] = {s->user}, message[512];
    for (int k = 0; k < ITEM_FIELDS; k++) {
        columns[k] = (Sluice__V1__Column)SLUICE__V1__COLUMN__INIT;
        columns_at[k] = &columns[k];
        for (uint32_t i = 0; i < n; i++)
            texts[k][i] = s->text[k][of[i]];
        columns[k].name = (char *)(uintptr_t)item_fields[k];
        columns[k].text = texts[k];
        columns[k].n_text = n;
    }
    user.name = name;
    user.text = user_text;
    user.n_text = 1;
    m.candidates = n;
    m.columns = columns_at;
    m.n_columns = ITEM_FIELDS;
    m.shared = users;
    m.n_shared = 1;
    size_t len = sluice__v1__score_request__get_packed_size(&m);
    uint8_t *bytes = malloc(len);
    sluice__v1__score_request__pack(&m, bytes);
    ck_assert_msg(fixture_call(f, bytes, len, INT64_MAX, message) == SLU_GRPC_OK, "%s", message);
    free(bytes);
    Sluice__V1__ScoreResponse *a =
        sluice__v1__score_response__unpack(NULL, f->response.len, f->response.data);
    ck_assert(a && a->n_tasks >= 2 && a->tasks[0]->n_conditional == n);
    for (uint32_t i = 0; i < n; i++) {
        out[2 * i] = a->tasks[0]->conditional[i];
        out[2 * i + 1] = a->tasks[1]->conditional[i];
    }
    sluice__v1__score_response__free_unpacked(a, NULL);
}

static const char *const architectures[] = {"shared_bottom", "esmm", "mmoe"};

static void near_fp32_and_alike(const char *architecture)
{
    slu_options o[2] = {options_of(architecture, SLU_FP32), options_of(architecture, SLU_INT8)};
    static sample s;
    static score_fixture f[2];
    static float fp32[2 * MOST], int8[2 * MOST], some[2 * MOST];
    uint32_t all[MOST], of[MOST];
    slu_rng r;
    slu_rng_seed(&r, SEED);
    fill_sample(&s, &r);
    for (uint32_t i = 0; i < MOST; i++)
        all[i] = i;
    for (int p = 0; p < 2; p++) {
        fixture_begin(&f[p], &o[p]);
        add_rows(&f[p], &s);
        fixture_publish(&f[p], 1);
        ask(&f[p], &s, all, MOST, p ? int8 : fp32);
    }
    double most = 0;
    for (int i = 0; i < 2 * MOST; i++)
        most = fmax(most, fabs((double)fp32[i] - (double)int8[i]));
    ck_assert_msg(most > 1e-6 && most < .02, "%s: %g off", architecture, most);
    for (uint32_t n = 1; n <= MOST; n = n * 3 + 1) {
        for (uint32_t i = 0; i < n; i++)
            of[i] = (uint32_t)slu_rng_below(&r, MOST);
        ask(&f[1], &s, of, n, some);
        for (uint32_t i = 0; i < n; i++)
            ck_assert_msg(memcmp(some + 2 * i, int8 + 2 * of[i], 2 * sizeof *some) == 0,
                          "%s: candidate %u of %u has another score", architecture, i, n);
    }
    /* What is compared with the trainer is the model, not how it is multiplied. */
    slu_model_sums a = slu_model_current_sums(f[0].table), b = slu_model_current_sums(f[1].table);
    ck_assert(memcmp(&a.dense, &b.dense, sizeof a.dense) == 0);
    for (int p = 0; p < 2; p++)
        fixture_end(&f[p]);
}

START_TEST(test_near_fp32_and_alike)
{
    for (size_t i = 0; i < sizeof architectures / sizeof *architectures; i++)
        near_fp32_and_alike(architectures[i]);
}
END_TEST

/* A new version brings new integers. */
START_TEST(test_weights_follow_the_version)
{
    slu_options o = options_of("esmm", SLU_INT8);
    o.model.wide = false; /* nothing but the network speaks */
    static sample s;
    score_fixture f;
    static float before[2 * MOST], after[2 * MOST];
    uint32_t all[MOST];
    slu_rng r;
    slu_rng_seed(&r, SEED + 1);
    fill_sample(&s, &r);
    for (uint32_t i = 0; i < MOST; i++)
        all[i] = i;
    fixture_begin(&f, &o);
    add_rows(&f, &s);
    fixture_publish(&f, 1);
    ask(&f, &s, all, MOST, before);
    for (size_t i = 0; i < slu_net_params(f.net); i++)
        f.dense[i] = 0;
    fixture_publish(&f, 2);
    ask(&f, &s, all, MOST, after);
    int moved = 0, half = 0;
    for (int i = 0; i < 2 * MOST; i++) {
        moved += after[i] != before[i];
        half += after[i] == .5f;
    }
    ck_assert_int_gt(moved, MOST);
    ck_assert_int_eq(half, 2 * MOST);
    fixture_end(&f);
}
END_TEST

int main(void)
{
    return run_suite("score_int8",
                     (const TTest *const[]){test_near_fp32_and_alike, test_weights_follow_the_version, NULL});
}
