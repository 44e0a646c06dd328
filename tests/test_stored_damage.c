/* A trainer's and a scorer's store whose values were lost or changed, in memory (tests/memory_store.h):
 * refused by name when opened or when the value is met, never taken for something else.
 * tests/fuzz/fuzz_stored_state.c tries what nobody thought of. */
#include "serving/model_store.h"
#include "serving/served.h"
#include "tests/memory_store.h"
#include "tests/pipeline_sample.h"
#include "tests/suite.h"
#include "trainer/pipeline.h"

static slu_options *options;
static slu_schema *schema;
static const slu_partition part = {"t", 0};

static void nothing(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len)
{
    (void)ctx, (void)ch, (void)sequence, (void)message, (void)len;
}

static void no_base(void *ctx, const void *message, size_t len)
{
    (void)ctx, (void)message, (void)len;
}

static uint64_t none(void *ctx, slu_channel ch)
{
    (void)ctx, (void)ch;
    return 0;
}

static const slu_sink sink = {.send = nothing, .send_base = no_base, .acked = none};

static int open_pipeline(slu_store **store, slu_pipeline **p, slu_error *err)
{
    slu_store_config config = {.path = "memory", .create = true, .schema_text = slu_schema_text(schema)};
    *p = NULL;
    OK(slu_store_open(&config, store, err));
    slu_pipeline_config pc = {.options = options,
                              .schema = schema,
                              .store = *store,
                              .sink = &sink,
                              .deltas = true,
                              .clock = &slu_system_clock};
    return slu_pipeline_open(&pc, p, err);
}

static void close_pipeline(slu_store *store, slu_pipeline *p)
{
    slu_pipeline_close(p);
    slu_store_close(store);
}

static void feed(slu_pipeline *p, const slu_event *e, int64_t offset)
{
    slu_record r = {.kind = SLU_RECORD_EVENT, .offset = offset, .event = e};
    OK(slu_pipeline_feed(p, &part, &r, err));
}

/* A commit with an impression whose windows are open, a step that waits for another, rows, and a waiting
 * batch. */
static void make_store(void)
{
    slu_store *store;
    slu_pipeline *p;
    slu_value values[4];
    slu_values fields[4];
    slu_error err = SLU_ERROR_INIT;
    memory_store_clear();
    options = sample_options(NULL, 0);
    schema = sample_schema(options);
    ck_assert_int_eq(open_pipeline(&store, &p, &err), 0);
    OK(slu_pipeline_feed(p, &part, &(slu_record){.kind = SLU_RECORD_PARTITION, .offset = -1}, err));
    for (int i = 0; i < 10; i++) {
        char id[8];
        snprintf(id, sizeof id, "i%d", i);
        slu_event e = sample_impression(schema, id, T0 + i * SECOND, "u", "p", values, fields);
        feed(p, &e, i);
    }
    slu_event lone = sample_step("e", "i99", 1, T0 + 20 * SECOND);
    feed(p, &lone, 10);
    OK(slu_pipeline_commit(p, err));
    close_pipeline(store, p);
}

static void free_all(void)
{
    slu_schema_free(schema);
    slu_options_free(options);
    memory_store_clear();
}

START_TEST(a_lost_value_is_named)
{
    static const struct {
        slu_family family;
        const char *name;
    } always[] = {{SLU_FAMILY_META, "~version"},     {SLU_FAMILY_META, "counts"},
                  {SLU_FAMILY_META, "watermark"},    {SLU_FAMILY_META, "joiner"},
                  {SLU_FAMILY_META, "batch"},        {SLU_FAMILY_META, "policy"},
                  {SLU_FAMILY_META, "join.records"}, {SLU_FAMILY_META, "join.timers"},
                  {SLU_FAMILY_DENSE, "params"},      {SLU_FAMILY_DENSE, "adam.m"}};
    make_store();
    memory_copy *whole = memory_store_copy();
    for (size_t i = 0; i < sizeof always / sizeof *always; i++) {
        slu_store *store;
        slu_pipeline *p;
        slu_error err = SLU_ERROR_INIT;
        memory_store_restore(whole);
        memory_store_delete(always[i].family, always[i].name, strlen(always[i].name));
        ck_assert_msg(open_pipeline(&store, &p, &err) == SLU_ECORRUPT, "without %s: %d %s", always[i].name,
                      err.code, err.message);
        ck_assert_int_eq(err.code, SLU_ECORRUPT);
        ck_assert_msg(strstr(err.message, "backup"), "%s", err.message);
        if (always[i].family == SLU_FAMILY_META)
            ck_assert_msg(strstr(err.message, always[i].name), "%s", err.message);
        close_pipeline(store, p);
    }
    memory_copy_free(whole);
    free_all();
}
END_TEST

/* Puts |value| at |at| into every join record of |kind| and closes all windows. */
static int finish_with(uint8_t kind, size_t at, const void *value, size_t n, slu_error *err)
{
    slu_store *store;
    slu_pipeline *p;
    int changed = 0;
    make_store();
    for (size_t i = 0; i < memory_store_count(); i++) {
        const memory_entry *e = memory_store_at(i);
        if (e->family == SLU_FAMILY_JOIN && e->value[0] == kind && at + n <= e->value_len) {
            memcpy(e->value + at, value, n);
            changed++;
        }
    }
    ck_assert_int_gt(changed, 0);
    int rc = open_pipeline(&store, &p, err);
    if (!rc)
        rc = slu_pipeline_finish(p, err);
    close_pipeline(store, p);
    free_all();
    return rc;
}

START_TEST(damaged_join_records_are_refused)
{
    enum { IMPRESSION = 1, ORPHANS = 2 };
    static const struct {
        uint8_t kind;
        size_t at, n;
        int64_t value;
    } cases[] = {
        {IMPRESSION, 1, 1, 0xff},      /* steps that the funnel does not have */
        {IMPRESSION, 2, 1, 9},         /* more windows closed than there are */
        {IMPRESSION, 3, 1, 2},         /* predicted is yes or no */
        {IMPRESSION, 8, 8, INT64_MAX}, /* a time that no event has: sums with windows would overflow */
        {IMPRESSION, 8, 8, -1},
        {ORPHANS, 1, 1, 0}, /* no steps */
        {ORPHANS, 1, 1, 2}, /* more than are there */
        {ORPHANS, 1, 1, 17},
        {ORPHANS, 4, 4, 100000},     /* longer than its record */
        {ORPHANS, 16, 1, 7},         /* step 7 of 2 */
        {ORPHANS, 17, 8, INT64_MAX}, /* its time */
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        slu_error err = SLU_ERROR_INIT;
        int rc = finish_with(cases[i].kind, cases[i].at, &cases[i].value, cases[i].n, &err);
        ck_assert_msg(rc == SLU_ECORRUPT && strstr(err.message, "join record"), "case %zu: %d %s", i, rc,
                      err.message);
    }
    slu_error err = SLU_ERROR_INIT;
    uint8_t same = IMPRESSION;
    ck_assert_msg(finish_with(IMPRESSION, 0, &same, 1, &err) == 0, "%s", err.message);
}
END_TEST

START_TEST(a_base_is_not_made_of_foreign_rows)
{
    static const uint8_t beyond[12] = {0, 0, 0, 77};
    uint8_t row[10 + 4] = {1, 1, 1};
    for (int i = 0; i < 2; i++) {
        slu_store *store;
        slu_pipeline *p;
        slu_error err = SLU_ERROR_INIT;
        make_store();
        uint8_t key[12] = {0, 0, 0, 0, 1}; /* table 0, but with one float only */
        memory_store_put(SLU_FAMILY_ROWS, i ? key : beyond, 12, row, sizeof row);
        ck_assert_int_eq(open_pipeline(&store, &p, &err), 0);
        ck_assert_int_eq(slu_pipeline_publish_base(p, &err), SLU_ECORRUPT);
        ck_assert_msg(strstr(err.message, i ? "table 0" : "table 77"), "%s", err.message);
        close_pipeline(store, p);
        free_all();
    }
}
END_TEST

START_TEST(a_scorer_serves_no_stored_nonsense)
{
    static const float nan = __builtin_nanf("");
    static const struct {
        slu_family family;
        const char *name; /* NULL: rows */
        const char *says;
    } cases[] = {{SLU_FAMILY_ROWS, NULL, "not finite"}, {SLU_FAMILY_DENSE, "params", "no dense parameters"}};
    uint32_t served[8];
    options = sample_options(NULL, 0);
    free(options->serving.store_path);
    options->serving.store_path = strdup("memory");
    schema = sample_schema(options);
    served_floats(options, schema, served);
    for (size_t i = 0; i < 2; i++) {
        slu_model_table *table;
        model_store *s;
        slu_delta_position at = {0};
        slu_error err = SLU_ERROR_INIT;
        int64_t offset;
        float row[16] = {0}, dense[4] = {1, 2, 3, 4};
        memory_store_clear();
        for (int round = 0; round < 2; round++) {
            OK(slu_model_table_new(served, slu_schema_tables(schema), 4, 0, &table, err));
            OK(model_store_open(options, schema, table, &s, err));
            int rc = model_store_load(s, table, &at, &offset, &err);
            if (round == 0) {
                ck_assert_int_eq(rc, 0);
                slu_delta_sink to = model_store_sink(s);
                to.begin(to.ctx, true);
                to.row(to.ctx, 0, 5, row);
                to.published(to.ctx, &(slu_delta_position){1, 1, 1, 1}, dense);
                OK(model_store_commit(s, err));
                for (size_t k = 0; k < memory_store_count(); k++) {
                    const memory_entry *e = memory_store_at(k);
                    if (!cases[i].name && e->family == SLU_FAMILY_ROWS)
                        memcpy(e->value, &nan, sizeof nan);
                }
                if (cases[i].name)
                    memory_store_delete(cases[i].family, cases[i].name, strlen(cases[i].name));
            } else {
                ck_assert_int_eq(rc, SLU_ECORRUPT);
                ck_assert_msg(strstr(err.message, cases[i].says), "%s", err.message);
            }
            model_store_close(s);
            slu_model_table_free(table);
        }
    }
    free_all();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {a_lost_value_is_named, damaged_join_records_are_refused,
                                  a_base_is_not_made_of_foreign_rows, a_scorer_serves_no_stored_nonsense,
                                  NULL};
    return run_suite("stored damage", tests);
}
