/* tests/pipeline_sample.h - a small funnel, a store in a directory of its own and events by hand, for the
 * tests of the trainer room. Everything asserts: a test that cannot set itself up has failed. */
#pragma once
#include "base/options.h"
#include "base/rng.h"
#include "feature/encode.h"
#include "store/store.h"
#include "trainer/pipeline.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SECOND (1000000LL)
#define MINUTE (60 * SECOND)
#define HOUR   (60 * MINUTE)
#define T0     (1700000000LL * SECOND)

static const char sample_yaml[] =
    "name: test\n"
    "funnel:\n"
    "  steps:\n"
    "    - {name: click, window: 10m}\n"
    "    - {name: buy, window: 2h}\n"
    "features:\n"
    "  - {name: user, side: user, dimension: 4}\n"
    "  - {name: item, side: item, dimension: 4}\n"
    "  - {name: tags, kind: multi, side: item, dimension: 4, max_ids: 4, pooling: mean}\n"
    "  - {name: price, kind: numeric, side: item, transform: log}\n"
    "  - {name: user_x_item, kind: cross, of: [user, item], dimension: 0, wide: true}\n"
    "model: {architecture: esmm, seed: 3, towers: [8], wide: true}\n"
    "training: {batch_size: 8, max_batch_delay: 1h, dense_every: 16, commit_events: 1000000}\n"
    "join: {allowed_lateness: 1s, orphan_wait: 30m}\n"
    "kafka: {brokers: \"127.0.0.1:1\", group: g, topics: [t], delta_topic: d}\n"
    "store: {path: /nonexistent}\n";

static inline slu_options *sample_options(const char *const *sets, size_t n)
{
    slu_options *o;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_options_parse(sample_yaml, strlen(sample_yaml), "sample.yaml", sets, n, &o, &err);
    ck_assert_msg(rc == 0, "%s", err.message);
    return o;
}

static inline slu_schema *sample_schema(const slu_options *o)
{
    slu_schema *s;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(slu_schema_new(o, &s, &err) == 0, "%s", err.message);
    return s;
}

/* A directory that the test removes with sample_remove(). */
static inline char *sample_directory(void)
{
    char name[] = "/tmp/sluice-test-XXXXXX";
    ck_assert(mkdtemp(name));
    return strdup(name);
}

static inline void sample_remove(char *directory)
{
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", directory);
    ck_assert_int_eq(system(command), 0);
    free(directory);
}

static inline slu_store *sample_store(const char *directory, const slu_schema *schema)
{
    slu_store *s;
    slu_error err = SLU_ERROR_INIT;
    slu_store_config c = {.path = directory,
                          .block_cache_bytes = 1 << 20,
                          .create = true,
                          .schema_text = slu_schema_text(schema)};
    ck_assert_msg(slu_store_open(&c, &s, &err) == 0, "%s", err.message);
    return s;
}

static inline slu_span sample_span(const char *s)
{
    return (slu_span){s, s ? strlen(s) : 0};
}

/* An impression by hand: user, item, one tag, price. |values| (4) and |fields| (4) are the caller's. */
static inline slu_event sample_impression(const slu_schema *schema, const char *id, int64_t time_us,
                                          const char *user, const char *item, slu_value *values,
                                          slu_values *fields)
{
    static const char *const names[] = {"user", "item", "tags", "price"};
    values[0] = (slu_value){.kind = SLU_VALUE_TEXT, .v.text = sample_span(user)};
    values[1] = (slu_value){.kind = SLU_VALUE_TEXT, .v.text = sample_span(item)};
    values[2] = (slu_value){.kind = SLU_VALUE_TEXT, .v.text = sample_span("red")};
    values[3] = (slu_value){.kind = SLU_VALUE_NUMBER, .v.number = 9.5};
    for (int i = 0; i < 4; i++) {
        int f = slu_schema_field_find(schema, names[i], strlen(names[i]));
        ck_assert_int_ge(f, 0);
        fields[f] = (slu_values){&values[i], 1};
    }
    return (slu_event){.kind = SLU_EVENT_IMPRESSION,
                       .id = sample_span(id),
                       .impression_id = sample_span(id),
                       .time_us = time_us,
                       .fields = fields};
}

static inline slu_event sample_step(const char *id, const char *impression, uint32_t step, int64_t time_us)
{
    return (slu_event){.kind = SLU_EVENT_STEP,
                       .id = sample_span(id),
                       .impression_id = sample_span(impression),
                       .step = step,
                       .time_us = time_us};
}

#define OK(call)                                                                                             \
    do {                                                                                                     \
        slu_error e_ = SLU_ERROR_INIT;                                                                       \
        slu_error *err __attribute__((unused)) = &e_;                                                        \
        int rc_ = (call);                                                                                    \
        ck_assert_msg(rc_ == 0, "%s: %s %s", #call, slu_code_name(rc_), e_.message);                         \
    } while (0)

/* One life of a process over the store in memory (tests/memory_store.h). */
typedef struct sample_life {
    slu_store *store;
    slu_pipeline *p;
} sample_life;

/* |config| but for its store and clock. */
static inline sample_life sample_begin(slu_pipeline_config config)
{
    sample_life l;
    slu_store_config sc = {.path = "memory", .create = true, .schema_text = slu_schema_text(config.schema)};
    OK(slu_store_open(&sc, &l.store, err));
    config.store = l.store;
    config.clock = &slu_system_clock;
    OK(slu_pipeline_open(&config, &l.p, err));
    return l;
}

static inline void sample_end(sample_life *l)
{
    slu_pipeline_close(l->p);
    slu_store_close(l->store);
}

static inline slu_pipeline_stats sample_stats(sample_life *l)
{
    slu_pipeline_stats s;
    slu_pipeline_refresh(l->p);
    slu_pipeline_get_stats(l->p, &s);
    return s;
}

/* main() of a test file: one suite. */
static inline int sample_run(Suite *s)
{
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed ? 1 : 0;
}
