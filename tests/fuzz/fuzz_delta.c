/* Messages of the delta topic, several in a row: each input byte string is cut at its length prefixes, so
 * that the fuzzer can play a whole history. Whatever comes, the model stays one whole version of finite
 * numbers: row by row and sum by sum what a plain list has that is kept from what the sink was told. */
#include "serving/delta_applier.h"
#include "serving/served.h"
#include "tests/feature_sample.h"
#include "tests/fuzz/delta_mutator.h"
#include "tests/fuzz/require.h"
#include <math.h>
#include <stdlib.h>

#define DENSE      20u
#define TABLES     2u
#define MOST_ROWS  (1u << 14)
#define MOST_BYTES (2u << 10) /* kept of one delta */

/* libFuzzer's own; NULL where the corpus alone is played. */
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most) __attribute__((weak));

static slu_options options; /* few tables: each run makes them anew */
static slu_schema *schema;
static uint32_t served[64];
static delta_shape shape;

/* ---- the plain list ---- */

typedef struct row {
    uint64_t id;
    uint32_t table;
    float v[16];
} row;

typedef struct rows {
    row *p;
    size_t n, cap;
} rows;

static struct {
    rows now, next; /* what serves, and with the changes that are not published yet */
    slu_delta_position at;
    float dense[DENSE];
    bool changing;
} plain;

static void copy_rows(rows *to, const rows *from)
{
    if (to->cap < from->n)
        to->p = realloc(to->p, (to->cap = from->n * 2) * sizeof *to->p);
    to->n = from->n;
    if (from->n)
        memcpy(to->p, from->p, from->n * sizeof *to->p);
}

static void plain_begin(void *ctx, bool base)
{
    (void)ctx;
    REQUIRE(!plain.changing);
    plain.changing = true;
    plain.next.n = 0;
    if (!base)
        copy_rows(&plain.next, &plain.now);
}

static void plain_abandon(void *ctx)
{
    (void)ctx;
    REQUIRE(plain.changing);
    plain.changing = false;
}

static void plain_row(void *ctx, uint32_t table, uint64_t id, const float *v)
{
    (void)ctx;
    rows *r = &plain.next;
    size_t i = 0;
    REQUIRE(plain.changing && table < slu_schema_tables(schema));
    while (i < r->n && (r->p[i].id != id || r->p[i].table != table))
        i++;
    if (!v) {
        if (i < r->n)
            r->p[i] = r->p[--r->n];
        return;
    }
    REQUIRE(i < MOST_ROWS && served[table] <= COUNT_OF(r->p->v));
    if (i == r->cap)
        r->p = realloc(r->p, (r->cap = i * 2 + 8) * sizeof *r->p);
    r->p[i].id = id, r->p[i].table = table;
    memcpy(r->p[i].v, v, served[table] * sizeof(float));
    r->n += i == r->n;
}

static void plain_published(void *ctx, const slu_delta_position *now, const float *dense)
{
    (void)ctx;
    REQUIRE(plain.changing);
    plain.changing = false;
    copy_rows(&plain.now, &plain.next);
    plain.at = *now;
    if (dense)
        memcpy(plain.dense, dense, sizeof plain.dense);
}

static const slu_delta_sink sink = {plain_begin, plain_abandon, plain_row, plain_published, NULL};

/* ---- compared ---- */

static void check_sums(const slu_model_table *t)
{
    slu_row_sum sum = {0, 0};
    for (size_t i = 0; i < plain.now.n; i++) {
        const row *r = &plain.now.p[i];
        slu_row_sum_add(&sum, r->table, r->id, r->v, served[r->table]);
    }
    slu_model_sums ours = slu_model_current_sums(t);
    REQUIRE(ours.rows.lo == sum.lo && ours.rows.hi == sum.hi);
}

static void check_rows(slu_model_reader *reader)
{
    slu_model_read_begin(reader);
    for (size_t i = 0; i < plain.now.n; i++) {
        const row *r = &plain.now.p[i];
        const float *found;
        REQUIRE(slu_model_find_rows(reader, r->table, &r->id, 1, &found) == 1);
        REQUIRE(!memcmp(found, r->v, served[r->table] * sizeof(float)));
    }
    slu_model_read_end(reader);
}

static void check(slu_model_table *t, const slu_delta_applier *a, slu_model_reader *reader)
{
    slu_delta_position at = slu_delta_applier_position(a);
    slu_model_view v = slu_model_current(t);
    REQUIRE(at.version == plain.at.version && at.lineage == plain.at.lineage && v.version == at.version);
    for (uint32_t i = 0; i < DENSE; i++)
        REQUIRE(isfinite(v.dense[i]));
    REQUIRE(!memcmp(v.dense, plain.dense, sizeof plain.dense));
    REQUIRE(slu_model_rows(t) == plain.now.n);
    if (!plain.changing)
        check_sums(t);
    if (reader)
        check_rows(reader);
}

static void play_one(slu_delta_applier *a, const uint8_t *data, size_t len)
{
    uint8_t *bytes = malloc(len + 1);
    memcpy(bytes, data, len);
    delta_patch(&shape, bytes, len);
    slu_error err = SLU_ERROR_INIT;
    slu_delta_counts before = slu_delta_applier_counts(a);
    int rc = slu_delta_apply(a, bytes, len, &err);
    slu_delta_counts after = slu_delta_applier_counts(a);
    REQUIRE((rc < 0) == (err.code < 0) && (rc >= 0 || err.message[0]));
    REQUIRE(after.applied - before.applied == (rc == 1));
    REQUIRE(after.mismatches - before.mismatches == (rc == SLU_ECORRUPT));
    REQUIRE(rc >= 0 || !slu_delta_applier_midway(a));
    REQUIRE(!plain.changing || slu_delta_applier_midway(a));
    free(bytes);
}

static void setup(void)
{
    options = sample_options;
    options.n_features = 2;
    if (slu_schema_new(&options, &schema, NULL))
        abort();
    served_floats(&options, schema, served);
    shape = (delta_shape){schema, served, DENSE};
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slu_model_table *table;
    if (!schema)
        setup();
    if (slu_model_table_new(served, slu_schema_tables(schema), DENSE, 64 << 20, &table, NULL))
        abort();
    plain.now.n = 0;
    plain.changing = false;
    plain.at = (slu_delta_position){0};
    memset(plain.dense, 0, sizeof plain.dense);
    /* Grace periods are dear once a thread has read, so a long run looks at sums only. */
    slu_model_reader *reader = LLVMFuzzerMutate ? NULL : slu_model_reader_new(table);
    slu_delta_applier *a = slu_delta_applier_new(schema, table);
    slu_delta_applier_sink(a, &sink);
    slu_delta_applier_limit(a, MOST_BYTES);
    while (size >= 2) {
        size_t len = data[0] | (size_t)data[1] << 8;
        data += 2, size -= 2;
        len = len < size ? len : size;
        play_one(a, data, len);
        check(table, a, reader);
        data += len, size -= len;
    }
    slu_delta_applier_free(a);
    REQUIRE(!plain.changing);
    slu_model_reader_free(reader);
    slu_model_table_free(table);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed)
{
    size_t n = 0;
    if (!schema)
        setup();
    if (seed % 8)
        n = delta_mutate(&shape, data, size, most, seed);
    return n || !LLVMFuzzerMutate ? n : LLVMFuzzerMutate(data, size, most);
}
