/* The subscriber against librdkafka's mock cluster: from empty to current, on after a restart, through
 * trouble. */
#include "base/log.h"
#include "serving/served.h"
#include "serving/subscriber.h"
#include "tests/delta_sample.h"
#include "tests/suite.h"
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#define TOPIC "deltas"

typedef struct fixture {
    char path[64], command[128], brokers[256];
    slu_options options;
    slu_schema *schema;
    uint32_t served[64];
    slu_delta_builder *builder;
    delta_messages m;
    rd_kafka_t *producer;
    rd_kafka_mock_cluster_t *cluster;
    slu_model_table *table;
    slu_subscriber *subscriber;
} fixture;

static void start(fixture *f)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(
        slu_model_table_new(f->served, slu_schema_tables(f->schema), DELTA_DENSE, 0, &f->table, &err), 0);
    ck_assert_msg(!slu_subscriber_start(&f->options, f->schema, f->table, 64 << 20, &f->subscriber, &err),
                  "%s", err.message);
}

static void stop(fixture *f)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_subscriber_stop(f->subscriber, &err), "%s", err.message);
    slu_model_table_free(f->table);
}

static void begin(fixture *f)
{
    slu_error err = SLU_ERROR_INIT;
    char why[256];
    *f = (fixture){.path = "/tmp/sluice-test-XXXXXX", .options = sample_options};
    ck_assert_ptr_nonnull(mkdtemp(f->path));
    f->producer = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), why, sizeof why);
    ck_assert_msg(f->producer != NULL, "%s", why);
    f->cluster = rd_kafka_mock_cluster_new(f->producer, 1);
    rd_kafka_mock_topic_create(f->cluster, TOPIC, 1, 1);
    snprintf(f->brokers, sizeof f->brokers, "%s", rd_kafka_mock_cluster_bootstraps(f->cluster));
    rd_kafka_brokers_add(f->producer, f->brokers);
    f->options.serving.store_path = f->path;
    f->options.kafka.delta_topic = (char *)TOPIC;
    f->options.kafka.brokers = f->brokers;
    ck_assert_int_eq(slu_schema_new(&f->options, &f->schema, &err), 0);
    served_floats(&f->options, f->schema, f->served);
    f->builder = slu_delta_builder_new(f->served, slu_schema_tables(f->schema), 1500);
}

static void end(fixture *f)
{
    delta_messages_free(&f->m);
    slu_delta_builder_free(f->builder);
    slu_schema_free(f->schema);
    rd_kafka_mock_cluster_destroy(f->cluster);
    rd_kafka_destroy(f->producer);
    snprintf(f->command, sizeof f->command, "rm -r %s", f->path);
    ck_assert_int_eq(system(f->command), 0);
}

/* Publishes the chunks of a version. */
static void publish(fixture *f, delta_version v)
{
    delta_build(f->builder, f->schema, &v, &f->m);
    for (uint32_t i = 0; i < f->m.n; i++)
        ck_assert_int_eq(rd_kafka_producev(f->producer, RD_KAFKA_V_TOPIC(TOPIC), RD_KAFKA_V_PARTITION(0),
                                           RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                           RD_KAFKA_V_VALUE(f->m.bytes[i].data, f->m.bytes[i].len),
                                           RD_KAFKA_V_END),
                         0);
    ck_assert_int_eq(rd_kafka_flush(f->producer, 10000), 0);
}

static slu_subscriber_stats stats(const fixture *f)
{
    slu_subscriber_stats st;
    slu_subscriber_get_stats(f->subscriber, &st);
    return st;
}

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
}

/* Waits until the version is there and stored. */
static void await(const fixture *f, uint64_t version)
{
    slu_subscriber_stats st = {0};
    for (int i = 0; i < 3000; i++, nap()) {
        st = stats(f);
        if (st.version == version && st.current && st.commits)
            return;
    }
    ck_abort_msg("version %llu after 30 s, not %llu: %s", (unsigned long long)st.version,
                 (unsigned long long)version, st.problem);
}

static void await_problem(const fixture *f, const char *text)
{
    for (int i = 0; i < 3000; i++, nap())
        if (strstr(stats(f).problem, text))
            return;
    ck_abort_msg("no '%s' in '%s' within 30 s", text, stats(f).problem);
}

START_TEST(test_from_empty_to_current_and_on)
{
    fixture f;
    begin(&f);
    start(&f);
    publish(&f, (delta_version){
                    .version = 4, .previous = 3, .first = 1, .last = 3, .value = 9}); /* a gap at first */
    await_problem(&f, "there is no model yet");
    ck_assert(!stats(&f).current);
    publish(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 101, .value = 1});
    await(&f, 10);
    for (uint64_t v = 11; v < 31; v++)
        publish(&f, (delta_version){
                        .version = v, .previous = v - 1, .first = v, .last = v + 100, .value = (float)v});
    await(&f, 30);
    ck_assert_uint_eq(stats(&f).rows, 129);
    ck_assert_str_eq(stats(&f).problem, "");
    ck_assert_uint_eq(stats(&f).gaps, 1);
    stop(&f);

    publish(&f, (delta_version){.version = 31, .previous = 30, .dense = true, .value = 31});
    start(&f);
    ck_assert_uint_ge(stats(&f).version, 30); /* at once, from the store */
    await(&f, 31);
    ck_assert_uint_eq(stats(&f).applied, 1); /* and from there on, not from the beginning */
    ck_assert_uint_eq(stats(&f).skipped, 0);
    ck_assert_float_eq(slu_model_current(f.table).dense[0], 31);
    stop(&f);
    end(&f);
}
END_TEST

/* The model of the store serves without any broker. */
START_TEST(test_no_broker)
{
    fixture f;
    begin(&f);
    publish(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 11, .value = 1});
    start(&f);
    await(&f, 10);
    stop(&f);
    char nowhere[] = "127.0.0.1:1";
    f.options.kafka.brokers = nowhere;
    start(&f);
    ck_assert_uint_eq(slu_model_current(f.table).version, 10);
    await_problem(&f, "127.0.0.1:1");
    ck_assert(!stats(&f).current);
    stop(&f);
    end(&f);
}
END_TEST

START_TEST(test_refuses_another_schema)
{
    fixture f;
    slu_feature_opts features[COUNT_OF(sample_features)];
    slu_options other = sample_options;
    slu_schema *mine, *theirs;
    begin(&f);
    memcpy(features, sample_features, sizeof features);
    features[2].seed = 12345;
    other.features = features;
    ck_assert_int_eq(slu_schema_new(&other, &theirs, NULL), 0);
    start(&f);
    publish(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 11, .value = 1});
    await(&f, 10);
    mine = f.schema;
    f.schema = theirs;
    publish(&f, (delta_version){.base = true, .version = 20, .first = 1, .last = 11, .value = 2});
    await_problem(&f, "version 20 of the trainer");
    ck_assert_uint_ge(stats(&f).refused, 1);
    ck_assert_uint_eq(slu_model_current(f.table).version, 10);
    f.schema = mine;
    publish(&f, (delta_version){.base = true, .version = 30, .first = 1, .last = 11, .value = 3});
    await(&f, 30);
    ck_assert_str_eq(stats(&f).problem, "");
    stop(&f);
    slu_schema_free(theirs);
    end(&f);
}
END_TEST

/* A topic that was made anew is shorter than the offset in the store. */
START_TEST(test_offset_out_of_range)
{
    fixture f;
    begin(&f);
    start(&f);
    publish(&f, (delta_version){.base = true, .version = 10, .first = 1, .last = 101, .value = 1});
    await(&f, 10);
    stop(&f);
    rd_kafka_mock_cluster_t *old = f.cluster;
    rd_kafka_t *producer = f.producer;
    char why[256];
    f.producer = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), why, sizeof why);
    f.cluster = rd_kafka_mock_cluster_new(f.producer, 1);
    rd_kafka_mock_topic_create(f.cluster, TOPIC, 1, 1);
    snprintf(f.brokers, sizeof f.brokers, "%s", rd_kafka_mock_cluster_bootstraps(f.cluster));
    rd_kafka_brokers_add(f.producer, f.brokers);
    publish(&f, (delta_version){.version = 11, .previous = 10, .first = 1, .last = 2, .value = 2});
    start(&f);
    await(&f, 11);
    ck_assert_uint_eq(stats(&f).rows, 100);
    stop(&f);
    rd_kafka_mock_cluster_destroy(old);
    rd_kafka_destroy(producer);
    end(&f);
}
END_TEST

int main(void)
{
    return run_suite("subscriber",
                     (const TTest *const[]){test_from_empty_to_current_and_on, test_no_broker,
                                            test_refuses_another_schema, test_offset_out_of_range, NULL});
}
