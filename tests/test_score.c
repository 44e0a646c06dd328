/* Score: the batched answer against one candidate at a time, and everything that a client can get wrong. */
#include "base/cache_line.h"
#include "base/metrics.h"
#include "model/pooling.h"
#include "tests/score_crew.h"
#include "tests/score_fixture.h"
#include "tests/suite.h"

#define SEED    4711u
#define S(text) ((char *)(text))

typedef Sluice__V1__ScoreRequest score_pb;
typedef Sluice__V1__SharedFeature shared_pb;
typedef Sluice__V1__Column column_pb;

/* ---- requests as structures, and the same fields for the reference ---- */

/* Raw values of one field of one candidate; text only has few spellings so that rows meet again. */
typedef struct field_values {
    slu_value v[8];
    char text[8][16];
    uint32_t n;
} field_values;

enum { MAX_FIELDS = 16 };

static void random_value(slu_rng *rng, const char *field, field_values *out, uint32_t i, uint32_t style)
{
    switch (style) {
    case 0: {
        int n = snprintf(out->text[i], sizeof out->text[i], "%s%u", field, (unsigned)slu_rng_below(rng, 9));
        if (slu_rng_below(rng, 12) == 0)
            n = 0; /* empty: missing */
        out->text[i][n] = 0;
        out->v[i] = slu_text_value(out->text[i], (size_t)n);
        break;
    }
    case 1:
        out->v[i] = slu_integer_value((int64_t)slu_rng_below(rng, 40) - 3);
        break;
    default:
        out->v[i] = slu_number_value((double)slu_rng_below(rng, 400) / 4 - 5);
    }
}

typedef struct sample_request {
    uint32_t candidates;
    uint32_t style[MAX_FIELDS];
    bool plain; /* no column is listed */
    bool column[MAX_FIELDS], given[MAX_FIELDS], listed[MAX_FIELDS];
    field_values shared[MAX_FIELDS];
    field_values *cells; /* (candidates, MAX_FIELDS) */
} sample_request;

static void fill_sample(sample_request *r, const slu_schema *s, slu_rng *rng, uint32_t candidates, bool plain)
{
    uint32_t fields = slu_schema_fields(s);
    ck_assert_uint_le(fields, MAX_FIELDS);
    memset(r, 0, sizeof *r);
    r->candidates = candidates;
    r->plain = plain;
    r->cells = calloc((size_t)candidates * MAX_FIELDS, sizeof *r->cells);
    for (uint32_t i = 0; i < fields; i++) {
        const char *name = slu_schema_field_name(s, i);
        r->given[i] = slu_rng_below(rng, 8) != 0;
        r->column[i] = slu_schema_field_side(s, i) == SLU_ITEM && slu_rng_below(rng, 6) != 0;
        r->listed[i] = slu_schema_field_multi(s, i) || slu_rng_below(rng, 5) == 0;
        r->listed[i] &= !(plain && r->column[i]);
        r->style[i] = (uint32_t)slu_rng_below(rng, 3);
        for (uint32_t c = 0; r->given[i] && c < (r->column[i] ? candidates : 1); c++) {
            field_values *v = r->column[i] ? &r->cells[c * MAX_FIELDS + i] : &r->shared[i];
            v->n = r->listed[i] ? (uint32_t)slu_rng_below(rng, 6) : 1;
            for (uint32_t k = 0; k < v->n; k++)
                random_value(rng, name, v, k, r->style[i]);
        }
    }
}

static const field_values *cell(const sample_request *r, uint32_t field, uint32_t candidate)
{
    return r->column[field] ? &r->cells[candidate * MAX_FIELDS + field] : &r->shared[field];
}

static void merged(const sample_request *r, const slu_schema *s, uint32_t candidate, slu_values *out)
{
    for (uint32_t i = 0; i < slu_schema_fields(s); i++) {
        const field_values *v = cell(r, i, candidate);
        out[i] = (slu_values){v->v, v->n};
    }
}

/* Packs with protobuf-c, whose reading of the contract is not ours. */
static size_t pack(const sample_request *r, const slu_schema *s, char **tasks, size_t n_tasks, uint8_t **out)
{
    score_pb m = SLUICE__V1__SCORE_REQUEST__INIT;
    shared_pb shared[MAX_FIELDS], *shared_at[MAX_FIELDS];
    column_pb columns[MAX_FIELDS], *columns_at[MAX_FIELDS];
    slu_arena *a = slu_arena_new(1 << 16, 0);
    size_t total = (size_t)r->candidates * 8;

    m.candidates = r->candidates;
    m.shared = shared_at;
    m.columns = columns_at;
    m.tasks = tasks;
    m.n_tasks = n_tasks;
    for (uint32_t i = 0; i < slu_schema_fields(s); i++) {
        if (!r->given[i])
            continue;
        char **text = slu_arena_alloc(a, total * sizeof *text);
        int64_t *integers = slu_arena_alloc(a, total * sizeof *integers);
        double *numbers = slu_arena_alloc(a, total * sizeof *numbers);
        uint32_t *lengths = slu_arena_alloc(a, total * sizeof *lengths);
        size_t n = 0;
        uint32_t rows = r->column[i] ? r->candidates : 1;
        for (uint32_t c = 0; c < rows; c++) {
            const field_values *v = cell(r, i, c);
            lengths[c] = v->n;
            for (uint32_t k = 0; k < v->n; k++, n++) {
                text[n] = (char *)v->text[k];
                integers[n] = v->v[k].v.integer;
                numbers[n] = v->v[k].v.number;
            }
        }
#define FILL(x)                                                                                              \
    do {                                                                                                     \
        (x).name = (char *)slu_schema_field_name(s, i);                                                      \
        if (r->style[i] == 0)                                                                                \
            (x).text = text, (x).n_text = n;                                                                 \
        else if (r->style[i] == 1)                                                                           \
            (x).integers = integers, (x).n_integers = n;                                                     \
        else                                                                                                 \
            (x).numbers = numbers, (x).n_numbers = n;                                                        \
    } while (0)
        if (r->column[i]) {
            column_pb *x = columns_at[m.n_columns] = &columns[m.n_columns];
            m.n_columns++;
            *x = (column_pb)SLUICE__V1__COLUMN__INIT;
            FILL(*x);
            if (r->listed[i])
                x->lengths = lengths, x->n_lengths = rows;
        } else {
            shared_pb *x = shared_at[m.n_shared] = &shared[m.n_shared];
            m.n_shared++;
            *x = (shared_pb)SLUICE__V1__SHARED_FEATURE__INIT;
            FILL(*x);
        }
    }
    size_t len = sluice__v1__score_request__get_packed_size(&m);
    *out = malloc(len + 1);
    sluice__v1__score_request__pack(&m, *out);
    slu_arena_free(a);
    return len;
}

/* ---- the slow, obvious twin ---- */

static void reference(score_fixture *f, slu_model_reader *reader, const slu_values *fields,
                      double *conditional, double *entire)
{
    slu_encoder *encoder = slu_encoder_new(f->schema);
    slu_encoded *e = slu_cache_lines_alloc(slu_encoded_max(f->schema));
    slu_workspace *w = slu_workspace_new(f->net, 1, false);
    uint32_t T = slu_net_tasks(f->net);
    double wide[SLU_MAX_STEPS] = {0};
    float row[128];

    slu_encode(encoder, fields, e);
    const uint64_t *id = slu_encoded_ids(e);
    slu_model_view view = slu_model_read_begin(reader);
    for (uint32_t i = 0; i < slu_schema_slots(f->schema); i++) {
        const slu_slot *slot = slu_schema_slot(f->schema, i);
        float *x = slu_workspace_x(w) + slot->input;
        if (slot->table == SLU_NO_TABLE) {
            *x = slu_encoded_numbers(e)[slot->number];
            continue;
        }
        uint32_t n = slu_encoded_counts(e)[i], dim = slu_schema_table(f->schema, slot->table)->dimension;
        double sum[64] = {0}, scale = slot->opts->pooling == SLU_POOL_MEAN && n ? 1.0 / n : 1.0;
        for (uint32_t k = 0; k < n; k++, id++) {
            slu_model_read_rows(reader, slot->table, id, 1, row);
            for (uint32_t j = 0; j < slot->width; j++)
                sum[j] += scale * row[j];
            for (uint32_t t = 0; slot->wide && t < T; t++)
                wide[t] += scale * row[dim + t];
        }
        for (uint32_t j = 0; j < slot->width; j++)
            x[j] = (float)sum[j];
    }
    slu_net_forward(f->net, view.dense, w, 1, SLU_INFER);
    slu_model_read_end(reader);
    double product = 1;
    for (uint32_t t = 0; t < T; t++) {
        conditional[t] = 1 / (1 + exp(-(slu_workspace_logits(w)[t] + wide[t])));
        product *= conditional[t];
        entire[t] = product;
    }
    slu_workspace_free(w);
    free(e);
    slu_encoder_free(encoder);
}

static const char *const task_names[] = {"click", "conversion"};

static void check_answer(score_fixture *f, const sample_request *r, char **tasks, size_t n_tasks)
{
    Sluice__V1__ScoreResponse *a =
        sluice__v1__score_response__unpack(NULL, f->response.len, f->response.data);
    slu_model_reader *reader = slu_model_reader_new(f->table);
    slu_values fields[MAX_FIELDS];

    ck_assert_ptr_nonnull(a);
    ck_assert_uint_eq(a->n_tasks, n_tasks ? n_tasks : 2);
    ck_assert_uint_eq(a->model_version, 42);
    ck_assert_int_eq(a->learned_through_us, f->now_us - 250000);
    ck_assert_int_eq(a->freshness_us, 250000);
    for (size_t k = 0; k < a->n_tasks; k++) {
        ck_assert_str_eq(a->tasks[k]->task, n_tasks ? tasks[k] : task_names[k]);
        ck_assert_uint_eq(a->tasks[k]->n_conditional, r->candidates);
        ck_assert_uint_eq(a->tasks[k]->n_entire_space, r->candidates);
    }
    for (uint32_t c = 0; c < r->candidates; c++) {
        double conditional[SLU_MAX_STEPS], entire[SLU_MAX_STEPS];
        merged(r, f->schema, c, fields);
        reference(f, reader, fields, conditional, entire);
        for (size_t k = 0; k < a->n_tasks; k++) {
            int t = !strcmp(a->tasks[k]->task, "conversion");
            double dc = a->tasks[k]->conditional[c] - conditional[t],
                   de = a->tasks[k]->entire_space[c] - entire[t];
            if (!(fabs(dc) < 1e-6 && fabs(de) < 1e-6))
                ck_abort_msg("candidate %u of %u, task %s: off by %g and %g", c, r->candidates,
                             a->tasks[k]->task, dc, de);
        }
    }
    slu_model_reader_free(reader);
    sluice__v1__score_response__free_unpacked(a, NULL);
}

/* Sizes below, at and above a chunk of the forward pass. */
static const uint32_t sizes[] = {1, 2, 7, 64, 255, 256, 257, 700};

static void add_all_rows(score_fixture *f, const sample_request *r)
{
    slu_encoder *encoder = slu_encoder_new(f->schema);
    slu_encoded *e = slu_cache_lines_alloc(slu_encoded_max(f->schema));
    slu_values fields[MAX_FIELDS];
    for (uint32_t c = 0; c < r->candidates; c++) {
        merged(r, f->schema, c, fields);
        slu_encode(encoder, fields, e);
        fixture_add_rows(f, e);
    }
    free(e);
    slu_encoder_free(encoder);
}

/* |plain|: columns have one value for each candidate. */
static void twin_of(const slu_options *options, uint64_t seed, bool plain)
{
    score_fixture f;
    slu_rng rng;
    char message[512];
    fixture_begin(&f, options);
    slu_rng_seed(&rng, seed);
    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        sample_request r;
        uint8_t *bytes;
        char *only[] = {(char *)"conversion"}, *both[] = {(char *)"conversion", (char *)"click"};
        char **tasks = i % 3 == 1 ? only : i % 3 == 2 ? both : NULL;
        size_t n_tasks = i % 3;
        fill_sample(&r, f.schema, &rng, sizes[i], plain);
        add_all_rows(&f, &r);
        fixture_publish(&f, 42);
        size_t len = pack(&r, f.schema, tasks, n_tasks, &bytes);
        ck_assert_msg(fixture_call(&f, bytes, len, INT64_MAX, message) == SLU_GRPC_OK, "%s", message);
        check_answer(&f, &r, tasks, n_tasks);
        free(bytes);
        free(r.cells);
    }
    fixture_end(&f);
}

START_TEST(test_twin)
{
    for (uint64_t seed = SEED; seed < SEED + 6; seed++)
        twin_of(&sample_options, seed, seed % 2);
}
END_TEST

START_TEST(test_twin_without_wide)
{
    slu_options o = sample_options;
    o.model.wide = false;
    twin_of(&o, SEED, false);
}
END_TEST

START_TEST(test_twin_mmoe)
{
    slu_options o = sample_options;
    uint32_t layers[] = {12};
    o.model.architecture = S("mmoe");
    o.model.experts = 3;
    o.model.expert_layers = layers;
    o.model.n_expert_layers = 1;
    o.model.norm = SLU_NORM_LAYER;
    twin_of(&o, SEED, false);
}
END_TEST

START_TEST(test_twin_slot_by_slot)
{
    slu_feature_opts features[COUNT_OF(sample_features)];
    slu_options o = options_without_lists(features);
    for (uint64_t seed = SEED; seed < SEED + 4; seed++)
        twin_of(&o, seed, true);
    o.model.wide = false;
    twin_of(&o, SEED, true);
}
END_TEST

/* Which way it is done cannot be seen: lists of one value each are no plain columns, and give the same bits.
 */
START_TEST(test_slot_by_slot_is_record_by_record)
{
    slu_feature_opts features[COUNT_OF(sample_features)];
    const slu_options o = options_without_lists(features);
    score_fixture f;
    slu_rng rng;
    char message[512];
    slu_rng_seed(&rng, SEED + 9);
    fixture_begin(&f, &o);
    slu_encoder *encoder = slu_encoder_new(f.schema);
    ck_assert(slu_encode_has_columns(encoder));
    slu_encoder_free(encoder);
    for (int round = 0; round < 12; round++) {
        sample_request r;
        uint8_t *bytes;
        slu_buf plain = SLU_BUF_INIT;
        fill_sample(&r, f.schema, &rng, 1 + (uint32_t)slu_rng_below(&rng, 600), true);
        add_all_rows(&f, &r);
        fixture_publish(&f, 42 + (uint64_t)round);
        size_t len = pack(&r, f.schema, NULL, 0, &bytes);
        ck_assert_msg(fixture_call(&f, bytes, len, INT64_MAX, message) == SLU_GRPC_OK, "%s", message);
        slu_put_bytes(&plain, f.response.data, f.response.len);
        free(bytes);
        bool any = false;
        for (uint32_t i = 0; i < slu_schema_fields(f.schema); i++)
            any |= r.listed[i] = r.given[i] && r.column[i];
        len = pack(&r, f.schema, NULL, 0, &bytes);
        ck_assert_msg(fixture_call(&f, bytes, len, INT64_MAX, message) == SLU_GRPC_OK, "%s", message);
        ck_assert_uint_eq(f.response.len, plain.len);
        ck_assert_msg(!memcmp(f.response.data, plain.data, plain.len), "round %d%s", round,
                      any ? "" : ", without columns");
        slu_buf_free(&plain);
        free(bytes);
        free(r.cells);
    }
    fixture_end(&f);
}
END_TEST

/* Who scores a candidate cannot be seen: requests that another thread helps with have the answers of those
 * that one thread does alone. */
START_TEST(test_split_is_whole)
{
    static const uint32_t candidates[] = {47, 48, 71, 96, 97, 200, 613, 1999};
    slu_feature_opts features[COUNT_OF(sample_features)];
    slu_options o = options_without_lists(features);
    o.serving.split_above = 48;
    score_fixture f;
    slu_rng rng;
    helper h;
    char message[512];
    slu_metric *split = slu_counter("sluice_score_split_total", NULL, "");
    slu_metric *helped = slu_counter("sluice_score_helped_candidates_total", NULL, "");
    slu_rng_seed(&rng, SEED + 21);
    helper_start(&h);
    fixture_begin(&f, &o);
    const int rounds = suite_share(25, 5);
    for (int round = 0; round < rounds || !slu_metric_value(helped); round++) {
        sample_request r;
        uint8_t *bytes;
        const uint32_t n = candidates[(size_t)round % COUNT_OF(candidates)];
        fill_sample(&r, f.schema, &rng, n, true);
        add_all_rows(&f, &r);
        fixture_publish(&f, 42);
        size_t len = pack(&r, f.schema, NULL, 0, &bytes);
        ck_assert_msg(fixture_call(&f, bytes, len, INT64_MAX, message) == SLU_GRPC_OK, "%s", message);
        slu_buf alone = SLU_BUF_INIT;
        slu_put_bytes(&alone, f.response.data, f.response.len);
        f.crew = h.crew;
        helper_settle(&h);
        const double before = slu_metric_value(split);
        ck_assert_msg(fixture_call(&f, bytes, len, INT64_MAX, message) == SLU_GRPC_OK, "%s", message);
        ck_assert_double_eq(slu_metric_value(split) - before, n >= 48);
        f.crew = NULL;
        ck_assert_uint_eq(f.response.len, alone.len);
        ck_assert_msg(memcmp(f.response.data, alone.data, alone.len) == 0, "%u candidates, round %d", n,
                      round);
        check_answer(&f, &r, NULL, 0);
        slu_buf_free(&alone);
        free(bytes);
        free(r.cells);
    }
    fixture_end(&f);
    helper_stop(&h);
    ck_assert_uint_gt(h.did, 0);
}
END_TEST

/* Lists are read in order, so such requests stay whole. */
START_TEST(test_lists_are_not_split)
{
    slu_options o = sample_options;
    o.serving.split_above = 48;
    score_fixture f;
    slu_rng rng;
    helper h;
    sample_request r;
    uint8_t *bytes;
    char message[512];
    slu_metric *split = slu_counter("sluice_score_split_total", NULL, "");
    slu_rng_seed(&rng, SEED + 22);
    helper_start(&h);
    fixture_begin(&f, &o);
    fill_sample(&r, f.schema, &rng, 300, false);
    add_all_rows(&f, &r);
    fixture_publish(&f, 42);
    size_t len = pack(&r, f.schema, NULL, 0, &bytes);
    f.crew = h.crew;
    helper_settle(&h);
    ck_assert_msg(fixture_call(&f, bytes, len, INT64_MAX, message) == SLU_GRPC_OK, "%s", message);
    ck_assert_double_eq(slu_metric_value(split), 0);
    check_answer(&f, &r, NULL, 0);
    free(bytes);
    free(r.cells);
    fixture_end(&f);
    helper_stop(&h);
}
END_TEST

/* ---- what is refused, and how it is said ---- */

static slu_grpc_status ask(score_fixture *f, score_pb *m, char message[512])
{
    uint8_t bytes[65536];
    size_t len = sluice__v1__score_request__get_packed_size(m);
    ck_assert_uint_le(len, sizeof bytes);
    sluice__v1__score_request__pack(m, bytes);
    return fixture_call(f, bytes, len, INT64_MAX, message);
}

static void refused(score_fixture *f, score_pb *m, const char *expected)
{
    char message[512];
    ck_assert_int_eq(ask(f, m, message), SLU_GRPC_INVALID_ARGUMENT);
    ck_assert_msg(strstr(message, expected) != NULL, "expected '%s' in '%s'", expected, message);
    ck_assert_uint_eq(f->response.len, 0);
}

START_TEST(test_refused)
{
    score_fixture f;
    char message[512];
    fixture_begin(&f, &sample_options);
    fixture_publish(&f, 42);
    f.options.serving.unknown_features = SLU_UNKNOWN_REJECT;

    char *text[] = {S("a"), S("b"), S("c")}, *bad[] = {S("\xff")};
    int64_t integers[] = {1, 2, 3};
    double nan[] = {NAN};
    uint32_t lengths[] = {1, 1}, wrong[] = {1, 3}, many[] = {5000, 1};
    shared_pb shared = SLUICE__V1__SHARED_FEATURE__INIT, *shareds[] = {&shared, &shared};
    column_pb column = SLUICE__V1__COLUMN__INIT, *columns[] = {&column, &column};
    score_pb m = SLUICE__V1__SCORE_REQUEST__INIT;
    m.shared = shareds;
    m.columns = columns;

    refused(&f, &m, "no candidates");
    m.candidates = 100000;
    refused(&f, &m, "100000 candidates, this scorer takes at most 2000");
    m.candidates = 2;

    char *tasks[] = {S("clik"), S("click"), S("click")};
    m.tasks = tasks;
    m.n_tasks = 1;
    refused(&f, &m, "task 'clik' is not a step of the funnel; known tasks: click, conversion");
    m.tasks = tasks + 1;
    m.n_tasks = 2;
    refused(&f, &m, "task 'click' is asked for twice");
    m.n_tasks = 0;

    m.n_columns = 1;
    column.text = text;
    column.n_text = 2;
    refused(&f, &m, "a column has no name");
    column.name = S("itm");
    refused(&f, &m, "column 'itm' is not in the scorer's config; did you mean 'item'?");
    column.name = S("user");
    refused(&f, &m, "column 'user' is a user feature, the same for all candidates; send it once, in shared");
    column.name = S("slot");
    refused(&f, &m, "is a context feature");
    column.name = S("item");
    column.n_text = 3;
    refused(&f, &m, "column 'item' has 3 values for 2 candidates");
    column.n_text = 0;
    refused(&f, &m, "column 'item' has 0 values for 2 candidates");
    column.n_text = 2;
    column.integers = integers;
    column.n_integers = 2;
    refused(&f, &m, "column 'item' uses more than one of text, integers and numbers");
    column.n_integers = 0;
    column.n_lengths = 1;
    column.lengths = lengths;
    refused(&f, &m, "column 'item' has 1 lengths for 2 candidates");
    column.n_lengths = 2;
    column.lengths = wrong;
    refused(&f, &m, "column 'item' has 2 values but its lengths sum to 4");
    column.lengths = many;
    refused(&f, &m, "column 'item' has 5000 values where at most 4096");
    column.n_lengths = 0;
    m.n_columns = 2;
    refused(&f, &m, "feature 'item' is given twice");
    m.n_columns = 1;
    m.n_shared = 1;
    shared.name = S("item");
    refused(&f, &m, "feature 'item' is given twice");
    shared.name = S("user");
    shared.text = bad;
    shared.n_text = 1;
    refused(&f, &m, "feature 'user': value 0 is not valid UTF-8");
    shared.n_text = 0;
    shared.name = S("age");
    shared.numbers = nan;
    shared.n_numbers = 1;
    refused(&f, &m, "feature 'age': value 0 is not a finite number");
    shared.name = S("\x1b[31m");
    refused(&f, &m, "feature '?[31m' is not in");

    f.options.serving.unknown_features = SLU_UNKNOWN_IGNORE;
    ck_assert_int_eq(ask(&f, &m, message), SLU_GRPC_OK);
    m.n_shared = 0;
    column.name = S("no such thing");
    ck_assert_int_eq(ask(&f, &m, message), SLU_GRPC_OK);

    ck_assert_int_eq(fixture_call(&f, "\xff\xff", 2, INT64_MAX, message), SLU_GRPC_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(message, "not a sluice.v1.ScoreRequest"));
    fixture_end(&f);
}
END_TEST

/* A NUL inside a text ends protobuf-c's strings, so this one is made by hand. */
START_TEST(test_text_with_nul)
{
    static const uint8_t bytes[] = {0x08, 1, 0x12, 11, 0x0a, 4, 'u', 's', 'e', 'r', 0x12, 3, 'a', 0, 'b'};
    score_fixture f;
    char message[512];
    fixture_begin(&f, &sample_options);
    fixture_publish(&f, 1);
    ck_assert_int_eq(fixture_call(&f, bytes, sizeof bytes, INT64_MAX, message), SLU_GRPC_INVALID_ARGUMENT);
    ck_assert_ptr_nonnull(strstr(message, "without NUL"));
    fixture_end(&f);
}
END_TEST

/* A request whose user is a text of n bytes, the |at|th of them |odd|; the feature is |short_by| bytes
 * shorter than what it holds. */
static void put_text(slu_buf *b, uint32_t n, uint32_t at, uint8_t odd, uint32_t short_by)
{
    slu_buf_clear(b);
    slu_put_u8(b, 0x08);
    slu_put_u8(b, 1);
    slu_put_u8(b, 0x12);
    slu_put_varint(b, 6 + 1 + (n < 128 ? 1 : 2) + n - short_by);
    slu_put_u8(b, 0x0a);
    slu_put_str(b, "user", 4);
    slu_put_u8(b, 0x12);
    slu_put_varint(b, n);
    for (uint32_t k = 0; k < n; k++)
        slu_put_u8(b, k == at ? odd : (uint8_t)(1 + k % 127));
}

/* Texts of all lengths around those that have ways of their own, with something wrong at each place. */
START_TEST(test_texts_of_all_lengths)
{
    static const uint32_t lengths[] = {0,  1,  2,  3,  4,   5,   7,   8,   9,  12,
                                       15, 16, 17, 31, 126, 127, 128, 129, 300};
    static const uint8_t odd[] = {0, 0xe9, 'x'};
    score_fixture f;
    char message[512];
    slu_buf b = SLU_BUF_INIT;
    fixture_begin(&f, &sample_options);
    fixture_publish(&f, 1);
    for (size_t i = 0; i < COUNT_OF(lengths); i++) {
        const uint32_t n = lengths[i];
        for (uint32_t at = 0; at <= n; at++)
            for (size_t k = 0; k < COUNT_OF(odd); k++) {
                put_text(&b, n, at, odd[k], 0);
                slu_grpc_status status = fixture_call(&f, b.data, b.len, INT64_MAX, message);
                ck_assert_msg((status == SLU_GRPC_OK) == (at == n || odd[k] == 'x'),
                              "length %u, place %u: %s", n, at, message);
            }
        if (!n)
            continue;
        put_text(&b, n, n - 1, 'x', 1); /* the last byte is beyond the feature, and with the next a field */
        slu_put_u8(&b, 1);
        ck_assert_int_eq(fixture_call(&f, b.data, b.len, INT64_MAX, message), SLU_GRPC_INVALID_ARGUMENT);
    }
    slu_buf_free(&b);
    fixture_end(&f);
}
END_TEST

START_TEST(test_no_model_yet)
{
    score_fixture f;
    char message[512];
    score_pb m = SLUICE__V1__SCORE_REQUEST__INIT;
    fixture_begin(&f, &sample_options);
    m.candidates = 3;
    ck_assert_int_eq(ask(&f, &m, message), SLU_GRPC_UNAVAILABLE);
    ck_assert_ptr_nonnull(strstr(message, "no model yet"));
    fixture_publish(&f, 1);
    ck_assert_int_eq(ask(&f, &m, message), SLU_GRPC_OK);
    fixture_end(&f);
}
END_TEST

START_TEST(test_deadline)
{
    static const uint8_t three[] = {0x08, 3};
    score_fixture f;
    char message[512];
    fixture_begin(&f, &sample_options);
    fixture_publish(&f, 1);
    ck_assert_int_eq(fixture_call(&f, three, 2, f.now_us + 1, message), SLU_GRPC_OK);
    ck_assert_int_eq(fixture_call(&f, three, 2, f.now_us, message), SLU_GRPC_DEADLINE_EXCEEDED);
    ck_assert_ptr_nonnull(strstr(message, "after 0 of 3 candidates"));
    ck_assert_uint_eq(f.response.len, 0);
    fixture_end(&f);
}
END_TEST

/* The clock goes on while a large request is scored: it ends between two chunks, with nothing to show for it.
 */
START_TEST(test_deadline_between_chunks)
{
    static const uint8_t many[] = {0x08, 0xd8, 0x04}; /* 600 candidates */
    score_fixture f;
    char message[512];
    fixture_begin(&f, &sample_options);
    fixture_publish(&f, 1);
    slu_metric *scored = slu_counter("sluice_score_candidates_total", NULL, "Candidates scored.");
    double before = slu_metric_value(scored);
    f.step_us = 10;
    ck_assert_int_eq(fixture_call(&f, many, 3, f.now_us + 15, message), SLU_GRPC_DEADLINE_EXCEEDED);
    ck_assert_msg(strstr(message, "after 256 of 600 candidates") != NULL, "%s", message);
    ck_assert_uint_eq(f.response.len, 0);
    ck_assert_double_eq(slu_metric_value(scored), before);
    ck_assert_int_eq(fixture_call(&f, many, 3, f.now_us + 1000, message), SLU_GRPC_OK);
    ck_assert_double_eq(slu_metric_value(scored), before + 600);
    fixture_end(&f);
}
END_TEST

/* The same of one that several score: whoever sees that it is too late, all stop. */
START_TEST(test_deadline_of_a_split)
{
    static const uint8_t many[] = {0x08, 0xd8, 0x04}; /* 600 candidates */
    slu_feature_opts features[COUNT_OF(sample_features)];
    slu_options o = options_without_lists(features);
    o.serving.split_above = 96;
    score_fixture f;
    helper h;
    char message[512];
    helper_start(&h);
    fixture_begin(&f, &o);
    fixture_publish(&f, 1);
    f.crew = h.crew;
    f.step_us = 10;
    for (int round = 0; round < 50; round++) {
        helper_settle(&h);
        ck_assert_int_eq(fixture_call(&f, many, 3, f.now_us + 35, message), SLU_GRPC_DEADLINE_EXCEEDED);
        /* The fourth look at the clock is too late, so three pieces of 72 to 96 were done. */
        unsigned done = 0;
        ck_assert_int_eq(sscanf(message, "the deadline passed after %u of 600 candidates", &done), 1);
        ck_assert_msg(done >= 3 * 72 && done <= 3 * 96, "%s", message);
        ck_assert_uint_eq(f.response.len, 0);
        helper_settle(&h);
        ck_assert_int_eq(fixture_call(&f, many, 3, f.now_us + 1000, message), SLU_GRPC_OK);
    }
    fixture_end(&f);
    helper_stop(&h);
}
END_TEST

/* Numbers may come one by one as well as packed, and fields that are newer than this scorer are passed over.
 */
START_TEST(test_other_spellings_of_the_wire)
{
    static const uint8_t packed[] = {0x08, 2, 0x1a, 10, 0x0a, 4, 'i', 't', 'e', 'm', 0x1a, 2, 2, 4};
    static const uint8_t loose[] = {0x08, 2,   0xfa, 0x06, 2,   'x',  'y', 0x1a, 10, 0x0a,
                                    4,    'i', 't',  'e',  'm', 0x18, 2,   0x18, 4};
    score_fixture f;
    char message[512];
    fixture_begin(&f, &sample_options);
    fixture_publish(&f, 1);
    ck_assert_msg(fixture_call(&f, packed, sizeof packed, INT64_MAX, message) == SLU_GRPC_OK, "%s", message);
    slu_buf keep = SLU_BUF_INIT;
    slu_put_bytes(&keep, f.response.data, f.response.len);
    ck_assert_msg(fixture_call(&f, loose, sizeof loose, INT64_MAX, message) == SLU_GRPC_OK, "%s", message);
    ck_assert_uint_eq(keep.len, f.response.len);
    ck_assert_mem_eq(keep.data, f.response.data, keep.len);
    slu_buf_free(&keep);
    fixture_end(&f);
}
END_TEST

int main(void)
{
    return run_suite(
        "score",
        (const TTest *const[]){test_twin, test_twin_without_wide, test_twin_mmoe, test_twin_slot_by_slot,
                               test_slot_by_slot_is_record_by_record, test_split_is_whole,
                               test_lists_are_not_split, test_deadline_of_a_split, test_texts_of_all_lengths,
                               test_refused, test_text_with_nul, test_no_model_yet, test_deadline,
                               test_deadline_between_chunks, test_other_spellings_of_the_wire, NULL});
}
