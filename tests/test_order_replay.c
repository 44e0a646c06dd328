/* A live run and its repetition, without Kafka: events of several partitions are met in a random order by a
 * pipeline that commits here and there and crashes; after a crash what was not committed comes again in
 * another order, and now and then a topic has left the config for a while. Stamps of the events are wrong
 * here and there, and what our own clock said decides which of them are from the future. The order in its
 * store must rebuild every version, bit for bit. */
#include "base/rng.h"
#include "store/state.h"
#include "tests/pipeline_sample.h"
#include "tests/suite.h"
#include "trainer/order_log.h"
#include "trainer/pipeline.h"
#include "trainer/watermark.h"

#define SEED       23
#define PARTITIONS 4
#define EACH       400 /* events in a partition */
#define VERSIONS   1000
#define KEEP_EVERY 7 /* versions whose digest is compared */

static const slu_partition partitions[PARTITIONS] = {{"a", 0}, {"a", 1}, {"b", 0}, {"b", 1}};
static slu_buf topics[PARTITIONS][EACH]; /* (partition, offset) -> event as JSON */
static slu_options *options, *fewer;     /* all topics; without "b" */
static slu_schema *schema;
static char digests[VERSIONS][33]; /* by version; "" not kept */

static void fill_topics(slu_rng *rng)
{
    for (int i = 0; i < PARTITIONS * EACH; i++) {
        int part = i % PARTITIONS;
        int64_t time_us = T0 + i * SECOND + (int64_t)slu_rng_below(rng, 2 * SECOND);
        char id[32], impression[32], user[16];
        slu_value values[4];
        slu_values fields[4];
        snprintf(id, sizeof id, "%d", i);
        snprintf(user, sizeof user, "u%d", (int)slu_rng_below(rng, 30));
        snprintf(impression, sizeof impression, "%d", (int)slu_rng_below(rng, (uint64_t)i + 1) / 2 * 2);
        slu_event e = i % 2 ? sample_step(id, impression, (uint32_t)slu_rng_below(rng, 2), time_us)
                            : sample_impression(schema, id, time_us, user, "item", values, fields);
        ck_assert_int_eq(slu_event_encode(schema, SLU_ENCODING_JSON, &e, &topics[part][i / PARTITIONS]), 0);
    }
}

static slu_record record_at(int part, int64_t offset)
{
    const slu_buf *b = &topics[part][offset];
    return (slu_record){
        .kind = SLU_RECORD_EVENT,
        .partition = (uint32_t)part,
        .offset = offset,
        .arrival_us = offset % 5 == 0 ? SLU_NO_STAMP : T0 + PARTITIONS * offset * SECOND + (part == 3) * HOUR,
        .bytes = b->data,
        .len = b->len,
        .encoding = SLU_ENCODING_JSON};
}

typedef struct life {
    slu_store *store;
    slu_pipeline *pipeline;
} life;

static life begin(const char *directory, const slu_options *o, bool order)
{
    life l = {.store = sample_store(directory, schema)};
    slu_pipeline_config c = {.options = o,
                             .schema = schema,
                             .store = l.store,
                             .order = order,
                             .clock = &slu_system_clock,
                             .eval_from_us = INT64_MIN};
    OK(slu_pipeline_open(&c, &l.pipeline, err));
    return l;
}

static void end(life *l)
{
    slu_pipeline_close(l->pipeline);
    slu_store_close(l->store);
}

static uint64_t version_of(const life *l)
{
    uint64_t version;
    OK(slu_state_get_u64(l->store, "~version", 0, &version, err));
    return version;
}

static void commit(life *l)
{
    OK(slu_pipeline_commit(l->pipeline, err));
    uint64_t version = version_of(l);
    ck_assert_uint_lt(version, VERSIONS);
    if (version % KEEP_EVERY == 0)
        OK(slu_pipeline_digest(l->pipeline, digests[version], err));
}

/* Announces the first |n| partitions, as each start does, and finds where to read on. */
static void announce(life *l, int n, int64_t *next)
{
    for (int i = 0; i < n; i++) {
        slu_record r = {.kind = SLU_RECORD_PARTITION, .partition = (uint32_t)i, .offset = -1};
        OK(slu_pipeline_feed(l->pipeline, &partitions[i], &r, err));
        OK(slu_state_get_offset(l->store, partitions[i].topic, partitions[i].partition, &next[i], err));
        if (next[i] < 0)
            next[i] = 0;
    }
}

/* Returns the number of crashes. */
static int live_run(slu_rng *rng, const char *directory)
{
    int64_t next[PARTITIONS] = {0};
    int crashes = 0, left = PARTITIONS, n = PARTITIONS;
    life l = begin(directory, options, true);
    announce(&l, n, next);
    while (left) {
        int part = (int)slu_rng_below(rng, (uint64_t)n);
        for (uint64_t run = slu_rng_below(rng, 12); run && next[part] < EACH; run--) {
            slu_record r = record_at(part, next[part]++);
            OK(slu_pipeline_feed(l.pipeline, &partitions[part], &r, err));
        }
        uint64_t what = slu_rng_below(rng, 100);
        slu_record quiet = {
            .kind = what % 2 ? SLU_RECORD_IDLE : SLU_RECORD_FLUSH, .partition = (uint32_t)part, .offset = -1};
        /* Our own clock is right, or minutes off. */
        int64_t wall_us = T0 + (next[part] * PARTITIONS - (int64_t)slu_rng_below(rng, 900)) * SECOND;
        slu_record clock = {.kind = what % 2 ? SLU_RECORD_CLOCK : SLU_RECORD_END,
                            .partition = (uint32_t)part,
                            .offset = -1,
                            .arrival_us = wall_us};
        if (what >= 80)
            OK(slu_pipeline_feed(l.pipeline, &partitions[part], &clock, err));
        if (what < 6)
            OK(slu_pipeline_feed(l.pipeline, &partitions[part], &quiet, err));
        else if (what < 30)
            commit(&l);
        else if (what < 33) {
            end(&l);
            n = n == PARTITIONS && slu_rng_below(rng, 3) == 0 ? PARTITIONS / 2 : PARTITIONS;
            l = begin(directory, n == PARTITIONS ? options : fewer, true);
            announce(&l, n, next);
            crashes++;
        }
        left = 0;
        for (int i = 0; i < PARTITIONS; i++)
            left += next[i] < EACH;
    }
    commit(&l);
    OK(slu_pipeline_digest(l.pipeline, digests[version_of(&l)], err));
    end(&l);
    return crashes;
}

static int number_of(slu_partition part)
{
    int i = 0;
    while (strcmp(partitions[i].topic, part.topic) || partitions[i].partition != part.partition)
        ck_assert_int_lt(++i, PARTITIONS);
    return i;
}

/* Feeds one version by its order. Returns the number of its records. */
static uint64_t repeat(life *l, const slu_buf *value)
{
    slu_order_reader *reader;
    slu_order_run run;
    slu_error err = SLU_ERROR_INIT;
    uint64_t n = 0;
    ck_assert_int_eq(slu_order_open(value->data, value->len, &reader, &err), 0);
    int rc;
    while ((rc = slu_order_next(reader, &run, &err)) == 1)
        for (uint64_t k = 0; k < run.count; k++, n++) {
            slu_partition part = slu_order_partition(reader, run.place);
            int i = number_of(part);
            slu_record r = {
                .kind = run.kind, .partition = (uint32_t)i, .offset = -1, .arrival_us = run.time_us};
            if (run.kind == SLU_RECORD_EVENT)
                r = record_at(i, run.start + (int64_t)k);
            ck_assert_msg(!slu_pipeline_feed(l->pipeline, &part, &r, &err), "%s", err.message);
        }
    ck_assert_msg(!rc, "%s", err.message);
    slu_order_close(reader);
    return n;
}

START_TEST(test_every_version_is_rebuilt)
{
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    options = sample_options((const char *[]){"kafka.topics=[a, b]", "features.user.ttl=10m"}, 2);
    fewer = sample_options((const char *[]){"kafka.topics=[a]", "features.user.ttl=10m"}, 2);
    schema = sample_schema(options);
    fill_topics(&rng);
    char *lived = sample_directory(), *rebuilt = sample_directory();
    int crashes = live_run(&rng, lived), compared = 0;
    slu_store *from = sample_store(lived, schema);
    life l = begin(rebuilt, options, false);
    uint64_t newest, records = 0;
    slu_buf value = SLU_BUF_INIT;
    OK(slu_state_get_u64(from, "~version", 0, &newest, err));
    for (uint64_t version = 1; version <= newest; version++) {
        uint8_t key[8];
        char digest[33];
        slu_order_key(version, key);
        OK(slu_store_get(from, SLU_FAMILY_ORDER, key, sizeof key, &value, err));
        records += repeat(&l, &value);
        OK(slu_pipeline_commit(l.pipeline, err));
        ck_assert_uint_eq(version_of(&l), version);
        if (version == newest / 2) { /* a repetition may be stopped, too */
            end(&l);
            l = begin(rebuilt, options, false);
        }
        if (!digests[version][0])
            continue;
        compared++;
        OK(slu_pipeline_digest(l.pipeline, digest, err));
        ck_assert_msg(strcmp(digest, digests[version]) == 0, "seed %d, version %d: %s, lived %s", SEED,
                      (int)version, digest, digests[version]);
    }
    printf("seed %d: %d crashes, %d of %d versions compared, %d records\n", SEED, crashes, compared,
           (int)newest, (int)records);
    ck_assert_int_gt(crashes, 3);
    ck_assert_int_gt(compared, 5);
    ck_assert_uint_gt(records, PARTITIONS * EACH);
    slu_buf_free(&value);
    end(&l);
    slu_store_close(from);
    sample_remove(lived);
    sample_remove(rebuilt);
    for (int i = 0; i < PARTITIONS * EACH; i++)
        slu_buf_free(&topics[i % PARTITIONS][i / PARTITIONS]);
    slu_schema_free(schema);
    slu_options_free(options);
    slu_options_free(fewer);
}
END_TEST

int main(void)
{
    return run_suite("order replay", (const TTest *[]){test_every_version_is_rebuilt, NULL});
}
