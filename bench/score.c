/* score: what it costs to score N candidates of one user in process, with the network of bench/mmoe24.yaml.
 *
 *   score FILE [RUNS [fp32|int8]]      writes parameters, rows and ids (bench/train_data.h, one batch of
 * 1,000) to FILE for the peers, scores 1, 50, 200 and 1,000 candidates, prints JSON: microseconds and
 * probabilities
 *
 * A call is the whole Score method (serving/score.h): the request's bytes are read, values hashed, rows
 * looked up in tables of 1,000,008 rows, the answer is written. Every request brings another user and other
 * candidates, so rows are as cold as in a server. bench/score.py compares with ONNX Runtime. */
#include "serving/score.h"
#include "base/rng.h"
#include "bench/measure.h"
#include "bench/train_data.h"
#include "feature/encode.h"
#include "feature/value.h"
#include "model/gemm.h"
#include "model/spec.h"
#include "serving/served.h"
#include "sluice/v1/score.pb-c.h"
#include <string.h>

enum { MOST = 1000, USER_SLOTS = 12, ITEM_SLOTS = TRAIN_SLOTS - USER_SLOTS, MOST_RUNS = 1001 };
static const uint32_t sizes[] = {1, 50, 200, 1000};

typedef struct bench {
    slu_options *options;
    slu_schema *schema;
    slu_net *net;
    slu_model_table *table;
    slu_scorer *scorer;
    slu_arena *arena;
    slu_buf response;
    train_data d; /* one batch: MOST candidates of one user */
} bench;

static void need(int rc, const slu_error *err)
{
    must(rc >= 0, err->message);
}

static void open_scorer(bench *b, const char *precision)
{
    char set[64];
    const char *sets[] = {set};
    slu_error err = SLU_ERROR_INIT;
    snprintf(set, sizeof set, "serving.precision=%s", precision);
    need(slu_options_load("bench/mmoe24.yaml", sets, 1, &b->options, &err), &err);
    need(slu_schema_new(b->options, &b->schema, &err), &err);
    must(slu_schema_tables(b->schema) == TRAIN_SLOTS, "the config has other features than this program");
    need(slu_net_of(b->options, slu_schema_inputs(b->schema), &b->net, &err), &err);
    need(slu_served_table(b->options, b->schema, b->net, 0, &b->table, &err), &err);
    slu_scorer_config config = {b->options, b->schema, b->net, b->table, &slu_system_clock, 1};
    need(slu_scorer_new(&config, &b->scorer, &err), &err);
    b->arena = slu_arena_new(0, 64 << 20);
    must(b->arena != NULL, "out of memory");
}

/* ---- the model ---- */

static void put_rows(bench *b)
{
    slu_error err = SLU_ERROR_INIT;
    slu_encoder *encoder = slu_encoder_new(b->schema);
    slu_encoded *x = malloc(slu_encoded_max(b->schema));
    slu_rng r;
    slu_rng_seed(&r, 1);
    must(encoder && x, "out of memory");
    for (size_t i = 0; i < (size_t)TRAIN_SLOTS * TRAIN_IDS * b->d.dim; i++)
        b->d.rows[i] = 0.3f * (float)slu_rng_normal(&r);
    for (uint32_t i = 0; i < TRAIN_IDS; i++) {
        char text[12];
        slu_value value = slu_text_value(text, (size_t)snprintf(text, sizeof text, "%u", i));
        slu_values fields[TRAIN_SLOTS];
        for (uint32_t s = 0; s < TRAIN_SLOTS; s++)
            fields[s] = (slu_values){&value, 1};
        slu_encode(encoder, fields, x);
        for (uint32_t s = 0; s < TRAIN_SLOTS; s++)
            need(slu_model_put_row(b->table, s, slu_encoded_ids(x)[s],
                                   b->d.rows + ((size_t)s * TRAIN_IDS + i) * b->d.dim, &err),
                 &err);
    }
    slu_encoder_free(encoder);
    free(x);
}

/* Biases are zero in a new network; small random ones show whether they are used. */
static void make_model(bench *b)
{
    slu_error err = SLU_ERROR_INIT;
    slu_rng r;
    slu_rng_seed(&r, 2);
    b->d = (train_data){.batches = 1, .B = MOST, .dim = 16, .n_dense = (uint32_t)slu_net_params(b->net)};
    b->d.rows = malloc((size_t)TRAIN_SLOTS * TRAIN_IDS * b->d.dim * sizeof *b->d.rows);
    b->d.dense = malloc(b->d.n_dense * sizeof *b->d.dense);
    b->d.ids = malloc((size_t)MOST * TRAIN_SLOTS * sizeof *b->d.ids);
    b->d.labels = calloc((size_t)MOST * TRAIN_TASKS, 1);
    must(b->d.rows && b->d.dense && b->d.ids && b->d.labels, "out of memory");
    slu_net_init(b->net, b->d.dense);
    for (size_t i = 0; i < b->d.n_dense; i++)
        if (b->d.dense[i] == 0)
            b->d.dense[i] = 0.1f * (float)slu_rng_normal(&r);
    put_rows(b);
    need(slu_model_publish(b->table, b->d.dense, 1, 0, &err), &err);
}

/* ---- requests ---- */

typedef struct request {
    uint8_t *bytes;
    size_t len;
} request;

static void draw_ids(uint32_t *ids, uint32_t n, slu_rng *r)
{
    for (uint32_t b = 0; b < n; b++)
        for (uint32_t s = 0; s < TRAIN_SLOTS; s++)
            ids[b * TRAIN_SLOTS + s] =
                b && s < USER_SLOTS ? ids[s] : s * TRAIN_IDS + (uint32_t)slu_rng_below(r, TRAIN_IDS);
}

static request make_request(const uint32_t *ids, uint32_t n)
{
    static char names[TRAIN_SLOTS][8], texts[ITEM_SLOTS][MOST][8], shared_texts[USER_SLOTS][8];
    static char *columns_text[ITEM_SLOTS][MOST], *shared_text[USER_SLOTS];
    Sluice__V1__SharedFeature shared[USER_SLOTS], *shared_p[USER_SLOTS];
    Sluice__V1__Column columns[ITEM_SLOTS], *columns_p[ITEM_SLOTS];
    Sluice__V1__ScoreRequest m = SLUICE__V1__SCORE_REQUEST__INIT;
    for (uint32_t s = 0; s < TRAIN_SLOTS; s++)
        snprintf(names[s], sizeof names[s], "%c%02u", s < USER_SLOTS ? 'u' : 'i', s % USER_SLOTS);
    for (uint32_t s = 0; s < USER_SLOTS; s++) {
        sluice__v1__shared_feature__init(&shared[s]);
        snprintf(shared_texts[s], sizeof shared_texts[s], "%u", ids[s] - s * TRAIN_IDS);
        shared_text[s] = shared_texts[s];
        shared[s].name = names[s];
        shared[s].text = &shared_text[s];
        shared[s].n_text = 1;
        shared_p[s] = &shared[s];
    }
    for (uint32_t s = 0; s < ITEM_SLOTS; s++) {
        sluice__v1__column__init(&columns[s]);
        for (uint32_t b = 0; b < n; b++) {
            uint32_t slot = USER_SLOTS + s;
            snprintf(texts[s][b], sizeof texts[s][b], "%u", ids[b * TRAIN_SLOTS + slot] - slot * TRAIN_IDS);
            columns_text[s][b] = texts[s][b];
        }
        columns[s].name = names[USER_SLOTS + s];
        columns[s].text = columns_text[s];
        columns[s].n_text = n;
        columns_p[s] = &columns[s];
    }
    m.candidates = n;
    m.shared = shared_p;
    m.n_shared = USER_SLOTS;
    m.columns = columns_p;
    m.n_columns = ITEM_SLOTS;
    request r = {.len = sluice__v1__score_request__get_packed_size(&m)};
    r.bytes = malloc(r.len);
    must(r.bytes != NULL, "out of memory");
    sluice__v1__score_request__pack(&m, r.bytes);
    return r;
}

static void call(bench *b, const request *r)
{
    slu_grpc_call c = {.request = r->bytes,
                       .request_len = r->len,
                       .deadline_us = INT64_MAX,
                       .arena = b->arena,
                       .response = &b->response,
                       .thread = 0};
    slu_buf_clear(&b->response);
    must(slu_score(b->scorer, &c) == SLU_GRPC_OK, c.message);
    slu_arena_reset(b->arena);
}

/* Median microseconds of CPU of a call with n candidates, and the fewest; each call has a request of its own.
 */
static double measure(bench *b, uint32_t n, uint32_t runs, double *fewest)
{
    double us[MOST_RUNS];
    uint32_t *ids = malloc((size_t)n * TRAIN_SLOTS * sizeof *ids);
    must(ids != NULL, "out of memory");
    slu_rng r;
    slu_rng_seed(&r, n);
    for (uint32_t i = 0; i < runs + 3; i++) {
        draw_ids(ids, n, &r);
        request q = make_request(ids, n);
        double before = cpu_seconds();
        call(b, &q);
        if (i >= 3)
            us[i - 3] = (cpu_seconds() - before) * 1e6;
        free(q.bytes);
    }
    free(ids);
    double median = median_of(us, runs); /* sorts */
    *fewest = us[0];
    return median;
}

static void print_answer(bench *b)
{
    request q = make_request(b->d.ids, MOST);
    call(b, &q);
    Sluice__V1__ScoreResponse *m =
        sluice__v1__score_response__unpack(NULL, b->response.len, b->response.data);
    must(m && m->n_tasks == TRAIN_TASKS, "no answer that can be read");
    printf("\"conditional\": [");
    for (uint32_t i = 0; i < MOST; i++)
        printf("%s[%.9g, %.9g]", i ? ", " : "", m->tasks[0]->conditional[i], m->tasks[1]->conditional[i]);
    printf("]");
    sluice__v1__score_response__free_unpacked(m, NULL);
    free(q.bytes);
}

static void close_scorer(bench *b)
{
    slu_scorer_free(b->scorer);
    slu_model_table_free(b->table);
    slu_net_free(b->net);
    slu_schema_free(b->schema);
    slu_options_free(b->options);
    slu_arena_free(b->arena);
    slu_buf_free(&b->response);
    train_data_free(&b->d);
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        fprintf(stderr, "usage: score FILE [RUNS [fp32|int8]]\n");
        return 2;
    }
    bench b = {.options = NULL};
    uint32_t runs = argc > 2 ? (uint32_t)atoi(argv[2]) : 51;
    if (runs < 1 || runs > MOST_RUNS)
        runs = 51;
    slu_rng r;
    slu_rng_seed(&r, 3);
    open_scorer(&b, argc > 3 ? argv[3] : "fp32");
    make_model(&b);
    draw_ids(b.d.ids, MOST, &r);
    train_data_write(&b.d, argv[1]);
    train_data_write_names(b.net, argv[1]);
    printf("{\"backend\": \"%s\", \"us\": {", slu_gemm_backend());
    double fewest[sizeof sizes / sizeof *sizes];
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        printf("%s\"%u\": %.2f", i ? ", " : "", sizes[i], measure(&b, sizes[i], runs, &fewest[i]));
    printf("}, \"fewest\": {");
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        printf("%s\"%u\": %.2f", i ? ", " : "", sizes[i], fewest[i]);
    printf("},\n ");
    print_answer(&b);
    puts("}");
    close_scorer(&b);
    return 0;
}
