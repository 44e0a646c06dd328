/* Score while versions are published under its eyes: every answer is one version's, whole. */
#include "base/cache_line.h"
#include "tests/score_crew.h"
#include "tests/score_fixture.h"
#include "tests/suite.h"
#include <pthread.h>

/* The model has two faces, that of even and that of odd versions: other rows (a fifth of them is missing in
 * each) and another dense vector. An answer that names version v must be, float by float, what the face of v
 * gives, over several chunks and over shared and item slots. */
enum { CANDIDATES = 600, MOST_ROWS = 20000 };

typedef struct row_name {
    uint32_t table;
    uint64_t id;
} row_name;

typedef struct faces {
    score_fixture f;
    row_name *rows; /* (n) */
    size_t n;
    uint8_t *request;
    size_t len;
    float *expected[2]; /* (floats) what each face answers */
    size_t floats;
    uint64_t answers, changed; /* by the asking thread */
    bool stop;                 /* atomic */
} faces;

static void note_rows(faces *t, const slu_encoded *e)
{
    const uint64_t *id = slu_encoded_ids(e);
    for (uint32_t i = 0; i < slu_schema_slots(t->f.schema); i++)
        for (uint32_t k = 0; k < slu_encoded_counts(e)[i]; k++) {
            ck_assert_uint_lt(t->n, MOST_ROWS);
            t->rows[t->n++] = (row_name){slu_schema_slot(t->f.schema, i)->table, *id++};
        }
}

/* A request, and the names of all rows that it touches. */
static void make_request(faces *t)
{
    static char item_name[] = "item", user_name[] = "user", user_text[] = "u1", text[CANDIDATES][8];
    const slu_schema *s = t->f.schema;
    char *texts[CANDIDATES], *user_texts[] = {user_text};
    Sluice__V1__Column column = SLUICE__V1__COLUMN__INIT, *columns[] = {&column};
    Sluice__V1__SharedFeature shared = SLUICE__V1__SHARED_FEATURE__INIT, *shareds[] = {&shared};
    Sluice__V1__ScoreRequest m = SLUICE__V1__SCORE_REQUEST__INIT;
    slu_encoder *encoder = slu_encoder_new(s);
    slu_encoded *e = slu_cache_lines_alloc(slu_encoded_max(s));
    slu_values *fields = calloc(slu_schema_fields(s), sizeof *fields);
    int user = slu_schema_field_find(s, "user", 4), item = slu_schema_field_find(s, "item", 4);
    slu_value u = slu_text_value(user_text, 2), v;
    ck_assert(user >= 0 && item >= 0);
    t->rows = calloc(MOST_ROWS, sizeof *t->rows);
    fields[user] = (slu_values){&u, 1};
    fields[item] = (slu_values){&v, 1};
    for (int i = 0; i < CANDIDATES; i++) {
        texts[i] = text[i];
        v = slu_text_value(text[i], (size_t)snprintf(text[i], sizeof text[i], "i%d", i));
        slu_encode(encoder, fields, e);
        note_rows(t, e);
    }
    free(fields);
    free(e);
    slu_encoder_free(encoder);

    column = (Sluice__V1__Column){PROTOBUF_C_MESSAGE_INIT(&sluice__v1__column__descriptor), .name = item_name,
                                  .text = texts, .n_text = CANDIDATES};
    shared.name = user_name;
    shared.text = user_texts;
    shared.n_text = 1;
    m.candidates = CANDIDATES;
    m.columns = columns;
    m.n_columns = 1;
    m.shared = shareds;
    m.n_shared = 1;
    t->len = sluice__v1__score_request__get_packed_size(&m);
    t->request = malloc(t->len);
    sluice__v1__score_request__pack(&m, t->request);
}

static void write_row(faces *t, row_name r, uint64_t face)
{
    slu_error err = SLU_ERROR_INIT;
    slu_rng rng;
    float v[128];
    int rc;
    slu_rng_seed(&rng, r.id * 2 + face);
    if (slu_rng_below(&rng, 5) == 0) {
        rc = slu_model_delete_row(t->f.table, r.table, r.id, &err);
    } else {
        for (uint32_t j = 0; j < slu_model_served(t->f.table, r.table); j++)
            v[j] = (float)slu_rng_normal(&rng) * 0.3f;
        rc = slu_model_put_row(t->f.table, r.table, r.id, v, &err);
    }
    if (rc)
        ck_abort_msg("%s", err.message);
}

static void write_version(faces *t, uint64_t version, bool base)
{
    slu_error err = SLU_ERROR_INIT;
    size_t P = slu_net_params(t->f.net);
    if (base)
        ck_assert_int_eq(slu_model_begin_base(t->f.table, &err), 0);
    for (size_t i = 0; i < t->n; i++)
        write_row(t, t->rows[i], version & 1);
    for (size_t i = 0; i < P; i++)
        t->f.dense[i] = -t->f.dense[i]; /* the faces take turns */
    fixture_publish(&t->f, version);
}

/* The probabilities of an answer. */
static size_t floats_of(const Sluice__V1__ScoreResponse *m, float *out)
{
    size_t n = 0;
    for (size_t k = 0; k < m->n_tasks; k++) {
        const Sluice__V1__TaskScores *s = m->tasks[k];
        ck_assert_uint_eq(s->n_conditional, CANDIDATES);
        ck_assert_uint_eq(s->n_entire_space, CANDIDATES);
        for (size_t i = 0; i < s->n_conditional; i++, n++)
            out[n] = s->conditional[i];
        for (size_t i = 0; i < s->n_entire_space; i++, n++)
            out[n] = s->entire_space[i];
    }
    return n;
}

static uint64_t ask(faces *t, float *out)
{
    char message[512];
    if (fixture_call(&t->f, t->request, t->len, INT64_MAX, message) != SLU_GRPC_OK)
        ck_abort_msg("%s", message);
    Sluice__V1__ScoreResponse *m =
        sluice__v1__score_response__unpack(NULL, t->f.response.len, t->f.response.data);
    ck_assert_ptr_nonnull(m);
    t->floats = floats_of(m, out);
    uint64_t version = m->model_version;
    sluice__v1__score_response__free_unpacked(m, NULL);
    return version;
}

static void *asking(void *arg)
{
    faces *t = arg;
    float *got = malloc(t->floats * sizeof *got);
    uint64_t last = 0;
    while (!__atomic_load_n(&t->stop, __ATOMIC_ACQUIRE) || !t->answers) {
        uint64_t version = ask(t, got);
        const float *expected = t->expected[version & 1];
        for (size_t i = 0; i < t->floats; i++)
            if (memcmp(&got[i], &expected[i], sizeof *got))
                ck_abort_msg("probability %zu of version %llu is %.9g, expected %.9g (the other face: %.9g)",
                             i, (unsigned long long)version, got[i], expected[i],
                             t->expected[~version & 1][i]);
        t->changed += version != last;
        last = version;
        t->answers++;
    }
    free(got);
    return NULL;
}

static void every_answer_is_one_version(const slu_options *options, slu_crew *crew)
{
    const uint64_t versions = (uint64_t)suite_share(120, 25);
    faces t = {0};
    pthread_t thread;
    fixture_begin(&t.f, options);
    t.f.crew = crew;
    make_request(&t);
    for (uint64_t version = 1; version <= 2; version++) {
        t.expected[version & 1] = calloc(CANDIDATES * 64, sizeof(float));
        write_version(&t, version, version == 1);
        ck_assert_uint_eq(ask(&t, t.expected[version & 1]), version);
    }
    ck_assert_int_ne(memcmp(t.expected[0], t.expected[1], t.floats * sizeof(float)), 0);
    ck_assert_int_eq(pthread_create(&thread, NULL, asking, &t), 0);
    for (uint64_t version = 3; version < versions; version++)
        write_version(&t, version, version % 20 == 0);
    __atomic_store_n(&t.stop, true, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    printf("%llu answers of %llu versions\n", (unsigned long long)t.answers, (unsigned long long)t.changed);
    free(t.expected[0]);
    free(t.expected[1]);
    free(t.request);
    free(t.rows);
    fixture_end(&t.f);
}

START_TEST(test_every_answer_is_one_version)
{
    every_answer_is_one_version(&sample_options, NULL);
}
END_TEST

/* Whoever helps reads the same version as the one he helps. */
START_TEST(test_of_several_threads_too)
{
    slu_feature_opts features[sizeof sample_features / sizeof *sample_features];
    slu_options o = options_without_lists(features);
    o.serving.split_above = 48;
    helper h;
    helper_start(&h);
    every_answer_is_one_version(&o, h.crew);
    helper_stop(&h);
    printf("%llu pieces by the other thread\n", (unsigned long long)h.did);
}
END_TEST

int main(void)
{
    return run_suite("score_versions", (const TTest *const[]){test_every_answer_is_one_version,
                                                              test_of_several_threads_too, NULL});
}
