/* A scorer's store: what is loaded again is always one whole version with its own offset. */
#include "serving/model_store.h"
#include "serving/served.h"
#include "store/state.h"
#include "store/store.h"
#include "tests/delta_sample.h"
#include "tests/suite.h"
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef struct fixture {
    char path[64], command[128];
    slu_options options;
    slu_schema *schema;
    uint32_t served[64];
    slu_delta_builder *builder;
    delta_messages m;
    slu_model_table *table;
    slu_delta_applier *applier;
    model_store *store;
    slu_delta_position at;
    int64_t offset; /* as loaded */
} fixture;

/* A process that starts: an empty table, filled from the store. */
static void start(fixture *f)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(
        slu_model_table_new(f->served, slu_schema_tables(f->schema), DELTA_DENSE, 0, &f->table, &err), 0);
    ck_assert_msg(!model_store_open(&f->options, f->schema, f->table, &f->store, &err), "%s", err.message);
    ck_assert_msg(!model_store_load(f->store, f->table, &f->at, &f->offset, &err), "%s", err.message);
    f->applier = slu_delta_applier_new(f->schema, f->table);
    slu_delta_applier_resume(f->applier, &f->at);
    slu_delta_sink sink = model_store_sink(f->store);
    slu_delta_applier_sink(f->applier, &sink);
}

/* A process that dies: nothing is committed. */
static void die(fixture *f)
{
    slu_delta_sink none = {0};
    slu_delta_applier_sink(f->applier, &none); /* nobody abandons anything */
    slu_delta_applier_free(f->applier);
    model_store_close(f->store);
    slu_model_table_free(f->table);
}

static void begin(fixture *f)
{
    slu_error err = SLU_ERROR_INIT;
    *f = (fixture){.path = "/tmp/sluice-test-XXXXXX", .options = sample_options};
    ck_assert_ptr_nonnull(mkdtemp(f->path));
    f->options.serving.store_path = f->path;
    f->options.kafka.delta_topic = (char *)"deltas";
    ck_assert_int_eq(slu_schema_new(&f->options, &f->schema, &err), 0);
    served_floats(&f->options, f->schema, f->served);
    f->builder = slu_delta_builder_new(f->served, slu_schema_tables(f->schema), 1500);
    start(f);
}

static void end(fixture *f)
{
    die(f);
    delta_messages_free(&f->m);
    slu_delta_builder_free(f->builder);
    slu_schema_free(f->schema);
    snprintf(f->command, sizeof f->command, "rm -r %s", f->path);
    ck_assert_int_eq(system(f->command), 0);
}

/* Applies the first |chunks| messages of a version. */
static int give(fixture *f, delta_version v, uint32_t chunks)
{
    slu_error err = SLU_ERROR_INIT;
    int rc = 0;
    delta_build(f->builder, f->schema, &v, &f->m);
    for (uint32_t i = 0; i < f->m.n && i < chunks; i++) {
        rc = slu_delta_apply(f->applier, f->m.bytes[i].data, f->m.bytes[i].len, &err);
        ck_assert_msg(rc >= 0, "%s", err.message);
    }
    return rc;
}

static void commit(fixture *f, int64_t offset)
{
    slu_error err = SLU_ERROR_INIT;
    model_store_reached(f->store, offset);
    ck_assert_msg(!model_store_commit(f->store, &err), "%s", err.message);
    ck_assert(!model_store_dirty(f->store));
}

static float value_of(const fixture *f, uint64_t id)
{
    float row[64];
    slu_model_reader *r = slu_model_reader_new(f->table);
    slu_model_read_begin(r);
    uint32_t found = slu_model_read_rows(r, 0, &id, 1, row);
    slu_model_read_end(r);
    slu_model_reader_free(r);
    return found ? row[0] : -1;
}

static void expect(const fixture *f, uint64_t version, float dense, uint64_t rows)
{
    slu_model_view v = slu_model_current(f->table);
    ck_assert_uint_eq(v.version, version);
    ck_assert_float_eq(v.dense[DELTA_DENSE - 1], dense);
    ck_assert_uint_eq(slu_model_rows(f->table), rows);
}

static bool count_row(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)key, (void)key_len, (void)value, (void)value_len;
    ++*(uint64_t *)ctx;
    return true;
}

/* Rows on disk, of both generations. */
static uint64_t stored_rows(const fixture *f)
{
    slu_error err = SLU_ERROR_INIT;
    slu_store_config config = {.path = f->path, .read_only = true};
    slu_store *s;
    uint64_t n = 0;
    ck_assert_msg(!slu_store_open(&config, &s, &err), "%s", err.message);
    ck_assert_int_eq(slu_store_scan(s, SLU_FAMILY_ROWS, NULL, 0, NULL, 0, count_row, &n, &err), 0);
    slu_store_close(s);
    return n;
}

START_TEST(test_continues)
{
    fixture f;
    begin(&f);
    ck_assert_uint_eq(f.at.version, 0);
    ck_assert_int_eq(f.offset, -1);
    ck_assert_int_eq(
        give(&f, (delta_version){.base = true, .version = 5, .first = 1, .last = 101, .value = 1}, 99), 1);
    ck_assert_int_eq(
        give(&f, (delta_version){.version = 6, .previous = 5, .first = 50, .last = 151, .value = 2}, 99), 1);
    commit(&f, 12);
    ck_assert_int_eq(give(&f, (delta_version){.version = 7, .previous = 6, .from = 1, .to = 3}, 99), 1);
    expect(&f, 7, 1, 148);
    die(&f); /* version 7 was not committed */

    start(&f);
    ck_assert_int_eq(f.offset, 12);
    ck_assert_uint_eq(f.at.lineage, DELTA_LINEAGE);
    ck_assert_int_eq(f.at.learned_through_us, 6000);
    expect(&f, 6, 1, 150);
    ck_assert_float_eq(value_of(&f, 1), 1);
    ck_assert_float_eq(value_of(&f, 150), 2);
    ck_assert_int_eq(
        give(&f, (delta_version){.version = 7, .previous = 6, .from = 1, .to = 3, .dense = true, .value = 8},
             99),
        1);
    commit(&f, 13);
    die(&f);

    start(&f);
    ck_assert_int_eq(f.offset, 13);
    expect(&f, 7, 8, 148);
    ck_assert_float_eq(value_of(&f, 1), -1);
    end(&f);
}
END_TEST

/* A later base replaces all rows, also on disk. */
START_TEST(test_base_after_base)
{
    fixture f;
    begin(&f);
    for (uint64_t v = 1; v < 6; v++) {
        give(&f,
             (delta_version){.base = true, .version = v * 10, .first = v, .last = v + 100, .value = (float)v},
             99);
        commit(&f, (int64_t)v);
        give(
            &f,
            (delta_version){.version = v * 10 + 1, .previous = v * 10, .first = 500, .last = 502, .value = 7},
            99);
        commit(&f, (int64_t)v);
        die(&f);
        ck_assert_uint_eq(stored_rows(&f), 102);
        start(&f);
        expect(&f, v * 10 + 1, (float)v, 102);
        ck_assert_float_eq(value_of(&f, v), (float)v);
        ck_assert_float_eq(value_of(&f, v - 1), -1);
        ck_assert_float_eq(value_of(&f, 501), 7);
    }
    end(&f);
}
END_TEST

/* Death between the chunks of a base: the old version is there, with its offset, and the rest is swept later.
 */
START_TEST(test_death_within_a_base)
{
    fixture f;
    begin(&f);
    give(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 101, .value = 1}, 99);
    give(&f, (delta_version){.version = 11, .previous = 10, .first = 1, .last = 2, .value = 2}, 99);
    model_store_reached(f.store, 5);
    /* Not committed by hand: the base must do it before its first row. */
    ck_assert_int_eq(
        give(&f, (delta_version){.base = true, .version = 20, .first = 50, .last = 301, .value = 3}, 4), 0);
    die(&f);
    start(&f);
    ck_assert_int_eq(f.offset, 5);
    expect(&f, 11, 1, 100);
    ck_assert_float_eq(value_of(&f, 1), 2);
    ck_assert_int_eq(
        give(&f, (delta_version){.base = true, .version = 20, .first = 50, .last = 301, .value = 3}, 99), 1);
    commit(&f, 9);
    die(&f);
    ck_assert_uint_eq(stored_rows(&f), 251);
    start(&f);
    expect(&f, 20, 3, 251);
    end(&f);
}
END_TEST

/* The same when the base is large, so that pieces of it are on disk already. */
START_TEST(test_death_within_a_large_base)
{
    enum { ROWS = 120000 };
    if (suite_slowness() > 5) { /* under valgrind; fewer rows would be no large base */
        printf("left out: SLU_TEST_SHARE\n");
        return;
    }
    fixture f;
    float row[64] = {3};
    begin(&f);
    give(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 101, .value = 1}, 99);
    commit(&f, 1);
    slu_delta_sink sink = model_store_sink(f.store);
    sink.begin(sink.ctx, true);
    for (uint64_t id = 1; id <= ROWS; id++)
        sink.row(sink.ctx, 0, id, row);
    die(&f);
    ck_assert_uint_gt(stored_rows(&f), 60000);
    start(&f);
    expect(&f, 10, 1, 100);
    give(&f, (delta_version){.base = true, .version = 20, .first = 50, .last = 61, .value = 3}, 99);
    commit(&f, 9);
    die(&f);
    ck_assert_uint_eq(stored_rows(&f), 11);
    start(&f);
    expect(&f, 20, 3, 11);
    end(&f);
}
END_TEST

/* A base that is given up in favour of a delta leaves nothing behind. */
START_TEST(test_abandoned_base)
{
    fixture f;
    begin(&f);
    give(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 101, .value = 1}, 99);
    commit(&f, 1);
    give(&f, (delta_version){.base = true, .version = 20, .first = 50, .last = 301, .value = 3}, 3);
    ck_assert_int_eq(
        give(&f, (delta_version){.version = 11, .previous = 10, .first = 1, .last = 2, .value = 2}, 99), 1);
    commit(&f, 2);
    die(&f);
    ck_assert_uint_eq(stored_rows(&f), 100);
    start(&f);
    expect(&f, 11, 1, 100);
    ck_assert_float_eq(value_of(&f, 1), 2);
    end(&f);
}
END_TEST

/* Nor does a delta that was undone, beside versions that wait for the same commit. */
START_TEST(test_abandoned_delta)
{
    fixture f;
    float row[64] = {7};
    begin(&f);
    give(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 101, .value = 1}, 99);
    give(&f, (delta_version){.version = 11, .previous = 10, .first = 1, .last = 2, .value = 2}, 99);
    slu_delta_sink sink = model_store_sink(f.store);
    sink.begin(sink.ctx, false);
    for (uint64_t id = 1; id < 300; id++)
        sink.row(sink.ctx, 0, id, id % 2 ? row : NULL);
    sink.abandon(sink.ctx);
    give(&f, (delta_version){.version = 12, .previous = 11, .first = 2, .last = 3, .value = 3}, 99);
    commit(&f, 2);
    die(&f);
    ck_assert_uint_eq(stored_rows(&f), 100);
    start(&f);
    expect(&f, 12, 1, 100);
    for (uint64_t id = 1; id < 101; id++)
        ck_assert_float_eq(value_of(&f, id), id == 1 ? 2 : id == 2 ? 3 : 1);
    end(&f);
}
END_TEST

typedef struct damage {
    int kind;
    uint8_t key[12];
    float row[64];
    size_t floats;
} damage;

static bool first_row(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    damage *d = ctx;
    memcpy(d->key, key, key_len);
    memcpy(d->row, value, value_len);
    d->floats = value_len / sizeof(float);
    return false;
}

/* A value that changed without RocksDB's notice: in memory on its way to the disk, say. */
static void do_damage(const fixture *f, damage *d)
{
    slu_error err = SLU_ERROR_INIT;
    slu_store_config config = {.path = f->path};
    slu_store *s;
    ck_assert_msg(!slu_store_open(&config, &s, &err), "%s", err.message);
    ck_assert_int_eq(slu_store_scan(s, SLU_FAMILY_ROWS, NULL, 0, NULL, 0, first_row, d, &err), 0);
    slu_commit *c = slu_commit_begin(s);
    uint32_t bits;
    float dense[DELTA_DENSE] = {1};
    switch (d->kind) {
    case 0: /* one bit of one float */
        memcpy(&bits, &d->row[1], sizeof bits);
        bits ^= 1;
        memcpy(&d->row[1], &bits, sizeof bits);
        slu_commit_put(c, SLU_FAMILY_ROWS, d->key, sizeof d->key, d->row, d->floats * sizeof(float));
        break;
    case 1: /* a row that is gone */
        slu_commit_delete(c, SLU_FAMILY_ROWS, d->key, sizeof d->key);
        break;
    case 2: /* a row that nobody wrote */
        d->key[11] ^= 0x80;
        slu_commit_put(c, SLU_FAMILY_ROWS, d->key, sizeof d->key, d->row, d->floats * sizeof(float));
        break;
    case 3: /* another dense vector, with a good checksum */
        slu_state_put_floats(c, "params", dense, DELTA_DENSE);
        break;
    case 4: /* another version's number */
        slu_state_put_u64(c, "scorer.version", 7);
        break;
    default: /* no dense vector */
        slu_commit_delete(c, SLU_FAMILY_DENSE, "params", 6);
        break;
    }
    ck_assert_msg(!slu_commit_write(c, &err), "%s", err.message);
    slu_store_close(s);
}

/* Whatever of a stored model is not as it was written: it is found when it is loaded, and nothing of it
 * serves. */
START_TEST(test_damaged_values)
{
    for (int kind = 0; kind < 6; kind++) {
        fixture f;
        slu_error err = SLU_ERROR_INIT;
        damage d = {.kind = kind};
        begin(&f);
        give(&f, (delta_version){.base = true, .version = 5, .first = 1, .last = 101, .value = 1}, 99);
        give(&f, (delta_version){.version = 6, .previous = 5, .first = 50, .last = 151, .value = 2}, 99);
        commit(&f, 12);
        die(&f);
        do_damage(&f, &d);
        ck_assert_int_eq(
            slu_model_table_new(f.served, slu_schema_tables(f.schema), DELTA_DENSE, 0, &f.table, &err), 0);
        ck_assert_msg(!model_store_open(&f.options, f.schema, f.table, &f.store, &err), "%s", err.message);
        ck_assert_msg(model_store_load(f.store, f.table, &f.at, &f.offset, &err) == SLU_ECORRUPT,
                      "damage %d is not found", kind);
        ck_assert_msg(strstr(err.message, "delete it and it comes back") != NULL, "%s", err.message);
        expect(&f, 0, 0, 0);
        f.applier = slu_delta_applier_new(f.schema, f.table);
        end(&f);
    }
}
END_TEST

START_TEST(test_another_schema)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    slu_feature_opts features[COUNT_OF(sample_features)];
    slu_options other;
    slu_schema *theirs;
    model_store *store;
    begin(&f);
    model_store_close(f.store);
    other = f.options;
    memcpy(features, sample_features, sizeof features);
    features[1].dimension = 8;
    other.features = features;
    ck_assert_int_eq(slu_schema_new(&other, &theirs, &err), 0);
    ck_assert_int_eq(model_store_open(&other, theirs, f.table, &store, &err), SLU_ESCHEMA);
    ck_assert_msg(strstr(err.message, "device") && strstr(err.message, "delete /tmp/sluice-test-"), "%s",
                  err.message);
    slu_schema_free(theirs);
    slu_error_clear(&err);
    ck_assert_msg(!model_store_open(&f.options, f.schema, f.table, &f.store, &err), "%s", err.message);
    end(&f);
}
END_TEST

int main(void)
{
    return run_suite("model_store",
                     (const TTest *const[]){test_continues, test_base_after_base, test_death_within_a_base,
                                            test_death_within_a_large_base, test_abandoned_base,
                                            test_abandoned_delta, test_damaged_values, test_another_schema,
                                            NULL});
}
