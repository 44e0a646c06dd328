/* Deltas by the trainer's own builder into a model table: in order, again, with holes, broken, of others. */
#include "serving/delta_applier.h"
#include "serving/served.h"
#include "sluice/v1/delta.pb-c.h"
#include "tests/delta_sample.h"
#include "tests/suite.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SEED    99u
#define DENSE   DELTA_DENSE
#define LINEAGE DELTA_LINEAGE

/* In place of base/background.c's, by the linker (tests/CMakeLists.txt). */
void __wrap_slu_background_breathe(void);
static uint32_t changes, breaths, longest; /* of rows since the last breath; the most of them */

void __wrap_slu_background_breathe(void)
{
    breaths++;
    changes = 0;
}

/* What the sink was told, as a table of its own. */
typedef struct mirror {
    slu_model_table *table;
    float *dense;
    uint64_t version;
    bool midway;
} mirror;

typedef struct fixture {
    slu_schema *schema;
    uint32_t served[64];
    slu_model_table *table;
    slu_delta_applier *applier;
    slu_delta_builder *builder;
    mirror mirror;
    delta_messages m;
} fixture;

static void mirror_begin(void *ctx, bool base)
{
    mirror *m = ctx;
    if (base)
        ck_assert_int_eq(slu_model_begin_base(m->table, NULL), 0);
    m->midway = true;
}

static void mirror_abandon(void *ctx)
{
    mirror *m = ctx;
    slu_model_undo(m->table);
    m->midway = false;
}

static void mirror_row(void *ctx, uint32_t table, uint64_t id, const float *v)
{
    mirror *m = ctx;
    changes++;
    longest = changes > longest ? changes : longest;
    if (v)
        slu_model_put_row(m->table, table, id, v, NULL);
    else
        ck_assert_int_eq(slu_model_delete_row(m->table, table, id, NULL), 0);
}

static void mirror_published(void *ctx, const slu_delta_position *now, const float *dense)
{
    mirror *m = ctx;
    ck_assert_int_eq(slu_model_publish(m->table, dense, now->version, now->learned_through_us, NULL), 0);
    m->version = now->version;
    m->midway = false;
}

static void begin_within(fixture *f, uint64_t max_bytes)
{
    slu_error err = SLU_ERROR_INIT;
    memset(f, 0, sizeof *f);
    ck_assert_int_eq(slu_schema_new(&sample_options, &f->schema, &err), 0);
    served_floats(&sample_options, f->schema, f->served);
    uint32_t n = slu_schema_tables(f->schema);
    ck_assert_int_eq(slu_model_table_new(f->served, n, DENSE, max_bytes, &f->table, &err), 0);
    ck_assert_int_eq(slu_model_table_new(f->served, n, DENSE, 0, &f->mirror.table, &err), 0);
    f->applier = slu_delta_applier_new(f->schema, f->table);
    slu_delta_sink sink = {mirror_begin, mirror_abandon, mirror_row, mirror_published, &f->mirror};
    slu_delta_applier_sink(f->applier, &sink);
    f->builder = slu_delta_builder_new(f->served, n, 1500);
}

static void begin(fixture *f)
{
    begin_within(f, 0);
}

static void end(fixture *f)
{
    delta_messages_free(&f->m);
    slu_delta_builder_free(f->builder);
    slu_delta_applier_free(f->applier);
    slu_model_table_free(f->mirror.table);
    slu_model_table_free(f->table);
    slu_schema_free(f->schema);
}

/* The chunks of a version, in f->m. */
static void build(fixture *f, delta_version v)
{
    delta_build(f->builder, f->schema, &v, &f->m);
}

static int give(fixture *f, uint32_t chunk, slu_error *err)
{
    slu_error_clear(err);
    return slu_delta_apply(f->applier, f->m.bytes[chunk].data, f->m.bytes[chunk].len, err);
}

/* Gives all chunks; all but the last must be taken without a word. */
static int give_all(fixture *f, slu_error *err)
{
    for (uint32_t i = 0; i + 1 < f->m.n; i++)
        ck_assert_msg(give(f, i, err) == 0, "%s", err->message);
    return give(f, f->m.n - 1, err);
}

static float value_of(slu_model_table *t, uint64_t id)
{
    float row[64];
    slu_model_reader *r = slu_model_reader_new(t);
    slu_model_read_begin(r);
    uint32_t found = slu_model_read_rows(r, 0, &id, 1, row);
    slu_model_read_end(r);
    slu_model_reader_free(r);
    return found ? row[0] : -1;
}

static void expect(fixture *f, uint64_t id, float value)
{
    ck_assert_float_eq(value_of(f->table, id), value);
    ck_assert_float_eq(value_of(f->mirror.table, id), value);
}

static void expect_version(fixture *f, uint64_t version, float dense)
{
    slu_model_view v = slu_model_current(f->table), w = slu_model_current(f->mirror.table);
    ck_assert_uint_eq(v.version, version);
    ck_assert_uint_eq(w.version, version);
    ck_assert_uint_eq(slu_delta_applier_position(f->applier).version, version);
    ck_assert_float_eq(v.dense[DENSE - 1], dense);
    ck_assert_float_eq(w.dense[0], dense);
    ck_assert_uint_eq(slu_model_rows(f->table), slu_model_rows(f->mirror.table));
}

/* A base of many chunks and deltas after it. */
START_TEST(test_in_order)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    begin(&f);
    build(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 200, .value = 1});
    ck_assert_uint_gt(f.m.n, 5);
    ck_assert_int_eq(give(&f, 0, &err), 0);
    expect(&f, 1, -1); /* nothing is seen before all is there */
    for (uint32_t i = 1; i + 1 < f.m.n; i++)
        ck_assert_int_eq(give(&f, i, &err), 0);
    ck_assert(slu_delta_applier_midway(f.applier));
    ck_assert_int_eq(give(&f, f.m.n - 1, &err), 1);
    ck_assert(!slu_delta_applier_midway(f.applier));
    expect_version(&f, 10, 1);
    expect(&f, 199, 1);

    build(&f, (delta_version){
                  .version = 11, .previous = 10, .first = 150, .last = 300, .from = 1, .to = 3, .value = 2});
    ck_assert_uint_gt(f.m.n, 1);
    ck_assert_int_eq(give(&f, 0, &err), 0);
    expect(&f, 150, 1); /* a delta takes effect whole, too */
    for (uint32_t i = 1; i + 1 < f.m.n; i++)
        ck_assert_int_eq(give(&f, i, &err), 0);
    ck_assert_int_eq(give(&f, f.m.n - 1, &err), 1);
    expect_version(&f, 11, 1); /* the dense parameters stayed */
    expect(&f, 1, -1);
    expect(&f, 3, 1);
    expect(&f, 150, 2);
    expect(&f, 299, 2);

    build(&f, (delta_version){.version = 12, .previous = 11, .dense = true, .value = 3});
    ck_assert_int_eq(give_all(&f, &err), 1);
    expect_version(&f, 12, 3);
    ck_assert_int_eq(slu_model_current(f.table).learned_through_us, 12000);
    ck_assert_uint_eq(slu_delta_applier_counts(f.applier).applied, 3);
    end(&f);
}
END_TEST

/* After a crash the trainer publishes again what was not acknowledged. */
START_TEST(test_repeated)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    begin(&f);
    build(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 100, .value = 1});
    ck_assert_int_eq(give(&f, 0, &err), 0);
    ck_assert_int_eq(give(&f, 1, &err), 0);
    ck_assert_int_eq(give(&f, 1, &err), 0); /* one chunk again */
    ck_assert_int_eq(give(&f, 0, &err), 0); /* the whole again */
    for (uint32_t i = 1; i + 1 < f.m.n; i++)
        ck_assert_int_eq(give(&f, i, &err), 0);
    ck_assert_int_eq(give(&f, f.m.n - 1, &err), 1);
    for (uint32_t i = 0; i < f.m.n; i++)
        ck_assert_int_eq(give(&f, i, &err), 0); /* and once more: skipped */
    expect_version(&f, 10, 1);
    ck_assert_uint_eq(slu_delta_applier_counts(f.applier).applied, 1);
    ck_assert_uint_eq(slu_delta_applier_counts(f.applier).skipped, f.m.n);

    build(&f, (delta_version){.version = 11, .previous = 10, .first = 1, .last = 150, .value = 2});
    ck_assert_int_eq(give(&f, 0, &err), 0);
    ck_assert_int_eq(give(&f, 0, &err), 0);
    ck_assert_int_eq(give(&f, 1, &err), 0);
    ck_assert_int_eq(give_all(&f, &err), 1);
    expect_version(&f, 11, 1);
    expect(&f, 149, 2);
    end(&f);
}
END_TEST

START_TEST(test_gap_then_base)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    begin(&f);
    build(&f, (delta_version){.version = 7, .previous = 6, .first = 1, .last = 3, .value = 9});
    ck_assert_int_eq(give(&f, 0, &err), SLU_EAGAIN);
    ck_assert_ptr_nonnull(strstr(err.message, "no model yet; waiting for the trainer's next base"));
    build(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 100, .value = 1});
    ck_assert_int_eq(give_all(&f, &err), 1);
    for (uint64_t v = 13; v < 16; v++) {
        build(&f, (delta_version){.version = v, .previous = v - 1, .first = 1, .last = 3, .value = 9});
        ck_assert_int_eq(give(&f, 0, &err), SLU_EAGAIN);
        ck_assert_ptr_nonnull(strstr(err.message, "versions between them are missing"));
    }
    expect_version(&f, 10, 1);
    expect(&f, 1, 1);
    ck_assert_uint_eq(slu_delta_applier_counts(f.applier).gaps, 2);
    ck_assert_uint_eq(slu_delta_applier_counts(f.applier).refused, 0);
    build(&f, (delta_version){.base = true, .version = 16, .first = 2, .last = 50, .value = 4});
    ck_assert_int_eq(give_all(&f, &err), 1);
    expect_version(&f, 16, 4);
    expect(&f, 1, -1);
    build(&f, (delta_version){.version = 17, .previous = 16, .first = 1, .last = 3, .value = 5});
    ck_assert_int_eq(give_all(&f, &err), 1);
    expect(&f, 1, 5);
    end(&f);
}
END_TEST

/* A base that is never finished leaves the old model alone. */
START_TEST(test_holes)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    begin(&f);
    build(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 100, .value = 1});
    ck_assert_int_eq(give_all(&f, &err), 1);
    build(&f, (delta_version){.base = true, .version = 20, .first = 1, .last = 100, .value = 2});
    ck_assert_int_eq(give(&f, 0, &err), 0);
    ck_assert_int_eq(give(&f, 2, &err), SLU_EAGAIN); /* chunk 1 was lost */
    ck_assert(!slu_delta_applier_midway(f.applier));
    ck_assert_int_eq(give(&f, 3, &err), SLU_EAGAIN);
    expect_version(&f, 10, 1);
    expect(&f, 1, 1);
    /* Another version in between. */
    ck_assert_int_eq(give(&f, 0, &err), 0);
    build(&f, (delta_version){.version = 11, .previous = 10, .first = 1, .last = 2, .value = 3});
    ck_assert_int_eq(give_all(&f, &err), 1);
    ck_assert(!f.mirror.midway);
    expect_version(&f, 11, 1);
    expect(&f, 1, 3);
    expect(&f, 2, 1);
    end(&f);
}
END_TEST

/* The first delta of a new trainer stands on the empty model. */
START_TEST(test_first_delta)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    begin(&f);
    build(&f, (delta_version){.version = 1, .previous = 0, .first = 1, .last = 3, .value = 1});
    ck_assert_int_eq(give_all(&f, &err), SLU_EAGAIN); /* it does not bring the dense parameters */
    expect(&f, 1, -1);
    build(&f, (delta_version){.version = 1, .previous = 0, .dense = true, .first = 1, .last = 3, .value = 1});
    ck_assert_int_eq(give_all(&f, &err), 1);
    expect_version(&f, 1, 1);
    expect(&f, 2, 1);
    end(&f);
}
END_TEST

/* A trainer that started over: versions begin again, and the old model serves until a base of it is complete.
 */
START_TEST(test_another_lineage)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    begin(&f);
    build(&f, (delta_version){.base = true, .version = 100, .first = 1, .last = 10, .value = 1});
    ck_assert_int_eq(give_all(&f, &err), 1);
    build(&f, (delta_version){.lineage = 5, .version = 3, .previous = 2, .first = 1, .last = 10, .value = 2});
    ck_assert_int_eq(give_all(&f, &err), SLU_EAGAIN);
    ck_assert_ptr_nonnull(strstr(err.message, "the trainer's store is another one"));
    expect_version(&f, 100, 1);
    build(&f, (delta_version){.lineage = 5, .base = true, .version = 3, .first = 5, .last = 10, .value = 2});
    ck_assert_int_eq(give_all(&f, &err), 1);
    expect_version(&f, 3, 2);
    expect(&f, 1, -1);
    expect(&f, 5, 2);
    end(&f);
}
END_TEST

START_TEST(test_restart)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    begin(&f);
    slu_delta_position at = {LINEAGE, 10, 5, 6};
    slu_delta_applier_resume(f.applier, &at);
    build(&f, (delta_version){.version = 10, .previous = 9, .first = 1, .last = 3, .value = 1});
    ck_assert_int_eq(give_all(&f, &err), 0);
    build(&f, (delta_version){.version = 11, .previous = 10, .first = 1, .last = 3, .value = 1});
    ck_assert_int_eq(give_all(&f, &err), 1);
    expect_version(&f, 11, 0);
    end(&f);
}
END_TEST

/* A delta that memory does not suffice for leaves no row behind, in the table and in the sink, and what comes
 * after it goes on from the version before. */
START_TEST(test_undone)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    delta_version base = {.base = true, .version = 10, .first = 1, .last = 200, .value = 1};
    begin(&f);
    uint64_t needs = slu_model_bytes(f.table) + 20000; /* a base is built beside the (empty) old one */
    build(&f, base);
    ck_assert_int_eq(give_all(&f, &err), 1);
    needs += slu_model_bytes(f.table);
    end(&f);

    begin_within(&f, needs);
    build(&f, base);
    ck_assert_int_eq(give_all(&f, &err), 1);
    build(&f, (delta_version){
                  .version = 11, .previous = 10, .first = 100, .last = 1800, .from = 1, .to = 3, .value = 2});
    ck_assert_int_eq(give_all(&f, &err), SLU_ELIMIT);
    expect_version(&f, 10, 1);
    expect(&f, 1, 1);
    expect(&f, 100, 1); /* it had been replaced already */
    expect(&f, 300, -1);
    ck_assert_uint_eq(slu_model_rows(f.table), 199);
    build(&f, (delta_version){.version = 12, .previous = 11, .first = 1, .last = 3, .value = 9});
    ck_assert_int_eq(give(&f, 0, &err), SLU_EAGAIN); /* a gap */
    build(&f, (delta_version){.version = 11, .previous = 10, .first = 199, .last = 203, .value = 3});
    ck_assert_int_eq(give_all(&f, &err), 1);
    expect_version(&f, 11, 1);
    expect(&f, 100, 1);
    expect(&f, 199, 3);
    end(&f);
}
END_TEST

/* ---- sums ---- */

/* What the model of test_sums adds up to, made from its definition. */
static slu_model_sums sums_of(const fixture *f, uint64_t version)
{
    slu_model_sums s = {.dense = delta_dense_digest(1)};
    delta_sum_rows(&s.rows, f->served[0], 1, 200, 1, false);
    if (version >= 11) {
        delta_sum_rows(&s.rows, f->served[0], 1, 3, 1, true);
        delta_sum_rows(&s.rows, f->served[0], 150, 200, 1, true);
        delta_sum_rows(&s.rows, f->served[0], 150, 300, 2, false);
    }
    return s;
}

static const delta_version sums_base = {.base = true, .version = 10, .first = 1, .last = 200, .value = 1};
static const delta_version sums_delta = {
    .version = 11, .previous = 10, .first = 150, .last = 300, .from = 1, .to = 3, .value = 2};

static void build_with(fixture *f, delta_version v, slu_model_sums sums)
{
    v.sums = &sums;
    build(f, v);
}

/* Deltas and bases that add up are taken; replaced, deleted and new rows are counted once. */
START_TEST(test_sums)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    begin(&f);
    build_with(&f, sums_base, sums_of(&f, 10));
    ck_assert_msg(give_all(&f, &err) == 1, "%s", err.message);
    build_with(&f, sums_delta, sums_of(&f, 11));
    ck_assert_msg(give_all(&f, &err) == 1, "%s", err.message);
    ck_assert_uint_eq(slu_delta_applier_verified(f.applier), 11);
    build(&f, (delta_version){.version = 12, .previous = 11, .first = 5, .last = 6, .value = 2});
    ck_assert_int_eq(give_all(&f, &err), 1); /* says nothing: is taken, but proves nothing */
    ck_assert_uint_eq(slu_delta_applier_verified(f.applier), 11);
    ck_assert_uint_eq(slu_delta_applier_counts(f.applier).mismatches, 0);
    end(&f);
}
END_TEST

/* A delta that does not come out is taken back whole; the next base heals, and so does the delta itself when
 * it comes again as it should be. */
START_TEST(test_delta_that_does_not_add_up)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    for (int what = 0; what < 3; what++) {
        begin(&f);
        build_with(&f, sums_base, sums_of(&f, 10));
        ck_assert_int_eq(give_all(&f, &err), 1);
        slu_model_sums wrong = sums_of(&f, 11);
        delta_version v = sums_delta;
        if (what == 0)
            wrong.rows.hi ^= 1; /* a row was lost or damaged on the way */
        else if (what == 1)
            wrong.dense.lo ^= 1ull << 63;
        else
            v.to = 4; /* one deletion too many */
        build_with(&f, v, wrong);
        ck_assert_int_eq(give_all(&f, &err), SLU_ECORRUPT);
        char both[40];
        slu_hash128 theirs = what == 1 ? wrong.dense : wrong.rows;
        snprintf(both, sizeof both, "%016llx%016llx", (unsigned long long)theirs.hi,
                 (unsigned long long)theirs.lo);
        ck_assert_msg(strstr(err.message, "version 11") && strstr(err.message, both) &&
                          strstr(err.message, "version 10 stays"),
                      "%s", err.message);
        expect_version(&f, 10, 1);
        expect(&f, 1, 1);
        expect(&f, 150, 1);
        expect(&f, 299, -1);
        ck_assert_uint_eq(slu_delta_applier_counts(f.applier).mismatches, 1);
        ck_assert_uint_eq(slu_delta_applier_counts(f.applier).gaps, 1);
        ck_assert_uint_eq(slu_delta_applier_verified(f.applier), 10);
        build(&f, (delta_version){.version = 12, .previous = 11, .first = 1, .last = 3, .value = 9});
        ck_assert_int_eq(give(&f, 0, &err), SLU_EAGAIN);
        build_with(&f, sums_delta, sums_of(&f, 11));
        ck_assert_int_eq(give_all(&f, &err), 1);
        expect_version(&f, 11, 1);
        expect(&f, 1, -1);
        end(&f);
    }
}
END_TEST

/* A base that does not come out is no better: the old model stays, also when that is none at all. */
START_TEST(test_base_that_does_not_add_up)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    begin(&f);
    slu_model_sums wrong = sums_of(&f, 10);
    wrong.rows.lo++;
    build_with(&f, sums_base, wrong);
    ck_assert_int_eq(give_all(&f, &err), SLU_ECORRUPT);
    expect_version(&f, 0, 0);
    expect(&f, 1, -1);
    build_with(&f, sums_base, sums_of(&f, 10));
    ck_assert_int_eq(give_all(&f, &err), 1);
    delta_version next = sums_base;
    next.version = 20;
    next.value = 3;
    build_with(&f, next, sums_of(&f, 10));
    ck_assert_int_eq(give_all(&f, &err), SLU_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(err.message, "the base of version 20"));
    expect_version(&f, 10, 1);
    expect(&f, 199, 1);
    build_with(&f, sums_delta, sums_of(&f, 11)); /* the deltas still lead on */
    ck_assert_int_eq(give_all(&f, &err), 1);
    ck_assert_uint_eq(slu_delta_applier_counts(f.applier).mismatches, 2);
    end(&f);
}
END_TEST

/* ---- what cannot be used ---- */

static void broken(fixture *f, Sluice__V1__ModelDelta *m, int code, const char *expected)
{
    slu_error err = SLU_ERROR_INIT;
    size_t len = sluice__v1__model_delta__get_packed_size(m);
    uint8_t *bytes = malloc(len + 1);
    sluice__v1__model_delta__pack(m, bytes);
    ck_assert_int_eq(slu_delta_apply(f->applier, bytes, len, &err), code);
    ck_assert_msg(strstr(err.message, expected) != NULL, "expected '%s' in '%s'", expected, err.message);
    free(bytes);
    expect_version(f, 10, 1);
    expect(f, 1, 1);
}

START_TEST(test_refused)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    begin(&f);
    build(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 10, .value = 1});
    ck_assert_int_eq(give_all(&f, &err), 1);

    uint64_t id = 1;
    float row[64] = {0}, dense[DENSE] = {0};
    Sluice__V1__RowBlock block = SLUICE__V1__ROW_BLOCK__INIT, *blocks[] = {&block};
    Sluice__V1__DenseBlock d = SLUICE__V1__DENSE_BLOCK__INIT;
    Sluice__V1__ModelDelta m = SLUICE__V1__MODEL_DELTA__INIT;
    broken(&f, &m, SLU_EFORMAT, "unknown kind 0");
    m.kind = SLUICE__V1__DELTA_KIND__DELTA_KIND_DELTA;
    broken(&f, &m, SLU_EFORMAT, "version 0");
    m.lineage = LINEAGE;
    m.version = 11;
    m.previous_version = 10;
    broken(&f, &m, SLU_EFORMAT, "chunk 0 of 0");
    m.chunks = 1;
    broken(&f, &m, SLU_ESCHEMA, "version 11 was trained for schema 0000000000000000");
    m.schema_fingerprint = slu_schema_fingerprint(f.schema);
    m.row_sum = (ProtobufCBinaryData){8, (uint8_t *)&id};
    broken(&f, &m, SLU_EFORMAT, "sums of 8 and 0 bytes instead of 16");
    m.row_sum.len = 0;
    m.rows = blocks;
    m.n_rows = 1;
    block.table = 1000;
    broken(&f, &m, SLU_EFORMAT, "rows of table 1000");
    block.table = 0;
    block.ids = (ProtobufCBinaryData){7, (uint8_t *)&id};
    broken(&f, &m, SLU_EFORMAT, "not a multiple of 8");
    block.ids.len = 8;
    block.values = (ProtobufCBinaryData){4, (uint8_t *)row};
    broken(&f, &m, SLU_EFORMAT, "but 4 bytes of values");
    block.values.len = f.served[0] * 4;
    row[2] = NAN;
    broken(&f, &m, SLU_EFORMAT, "a row of table 'user' holds a number that is not finite");
    row[2] = 0;
    m.dense = &d;
    d.total = 3;
    broken(&f, &m, SLU_EFORMAT, "3 dense parameters, but this network has 500");
    d.total = DENSE;
    d.values = (ProtobufCBinaryData){sizeof dense, (uint8_t *)dense};
    d.offset = 1;
    broken(&f, &m, SLU_EFORMAT, "do not fit into 500");
    d.offset = 0;
    dense[77] = INFINITY;
    broken(&f, &m, SLU_EFORMAT, "a dense parameter is not finite");
    dense[77] = 0;
    d.values.len -= 4;
    broken(&f, &m, SLU_EFORMAT, "499 of 500 dense parameters");
    m.kind = SLUICE__V1__DELTA_KIND__DELTA_KIND_BASE;
    m.previous_version = 0;
    broken(&f, &m, SLU_EFORMAT, "a base with 499 of 500");
    ck_assert_int_eq(slu_delta_apply(f.applier, "\xff", 1, &err), SLU_EFORMAT);
    ck_assert_uint_gt(slu_delta_applier_counts(f.applier).refused, 10);
    end(&f);
}
END_TEST

/* The base of a trainer with another config names what differs. */
START_TEST(test_another_schema)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    slu_feature_opts features[COUNT_OF(sample_features)];
    slu_options other = sample_options;
    slu_schema *theirs;
    begin(&f);
    memcpy(features, sample_features, sizeof features);
    features[1].dimension = 8;
    other.features = features;
    ck_assert_int_eq(slu_schema_new(&other, &theirs, &err), 0);
    slu_delta_head head = {.lineage = 1,
                           .version = 3,
                           .base = true,
                           .schema_fingerprint = slu_schema_fingerprint(theirs),
                           .schema_text = slu_schema_text(theirs)};
    slu_delta_begin(f.builder, &head);
    f.m.n = 0;
    slu_delta_finish(f.builder, delta_emit, &f.m);
    ck_assert_int_eq(give(&f, 0, &err), SLU_ESCHEMA);
    ck_assert_msg(strstr(err.message, "device") != NULL, "%s", err.message);
    ck_assert_msg(strstr(err.message, "version 3 of the trainer") != NULL, "%s", err.message);
    slu_schema_free(theirs);
    end(&f);
}
END_TEST

/* Cut and garbled messages are refused or harmless, and the next base heals everything. */
START_TEST(test_truncated_and_garbled)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    begin(&f);
    build(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 10, .value = 1});
    ck_assert_int_eq(give_all(&f, &err), 1);
    build(&f,
          (delta_version){.version = 11, .previous = 10, .dense = true, .first = 1, .last = 4, .value = 2});
    for (size_t len = 0; len < f.m.bytes[0].len; len++) {
        slu_error_clear(&err);
        slu_delta_apply(f.applier, f.m.bytes[0].data, len, &err);
    }
    for (int i = 0; i < 3000; i++) {
        uint8_t copy[4096];
        size_t len = f.m.bytes[0].len;
        ck_assert_uint_le(len, sizeof copy);
        memcpy(copy, f.m.bytes[0].data, len);
        for (uint64_t k = slu_rng_below(&rng, 4) + 1; k; k--)
            copy[slu_rng_below(&rng, len < 120 ? len : 120)] ^= (uint8_t)(1u << slu_rng_below(&rng, 8));
        slu_error_clear(&err);
        slu_delta_apply(f.applier, copy, len, &err);
    }
    build(&f,
          (delta_version){.base = true, .lineage = 12345, .version = 99, .first = 1, .last = 10, .value = 6});
    ck_assert_msg(give_all(&f, &err) == 1, "%s", err.message);
    expect_version(&f, 99, 6);
    expect(&f, 9, 6);
    end(&f);
}
END_TEST

/* The thread that applies stands in the background and lets go of the processor after every 32 rows at most,
 * whether they come in a base or a delta, are put or deleted. */
START_TEST(test_lets_others_run)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    changes = breaths = longest = 0;
    begin(&f);
    build(&f, (delta_version){.base = true, .version = 10, .first = 0, .last = 640, .value = 1});
    ck_assert_uint_gt(f.m.n, 5); /* in blocks of fewer rows than that */
    ck_assert_int_eq(give_all(&f, &err), 1);
    ck_assert_uint_eq(breaths, 20);
    build(&f, (delta_version){.version = 11, .previous = 10, .first = 100, .last = 420, .value = 2});
    ck_assert_int_eq(give_all(&f, &err), 1);
    ck_assert_uint_eq(breaths, 30);
    build(&f, (delta_version){.version = 12, .previous = 11, .from = 0, .to = 320});
    ck_assert_int_eq(give_all(&f, &err), 1);
    ck_assert_uint_eq(breaths, 40);
    ck_assert_uint_eq(longest, 32);
    end(&f);
}
END_TEST

int main(void)
{
    return run_suite("delta_applier",
                     (const TTest *const[]){test_in_order, test_repeated, test_gap_then_base, test_holes,
                                            test_first_delta, test_another_lineage, test_restart, test_undone,
                                            test_sums, test_delta_that_does_not_add_up,
                                            test_base_that_does_not_add_up, test_refused, test_another_schema,
                                            test_truncated_and_garbled, test_lets_others_run, NULL});
}
