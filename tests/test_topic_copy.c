/* The benchmarks' copier against librdkafka's mock cluster: what it copies is the source, byte for byte, in
 * order and no earlier than it came; a scorer follows the copy as it would follow the trainer. */
#include "base/clock.h"
#include "base/rng.h"
#include "bench/topic_copy.h"
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

#define SOURCE  "deltas"
#define TARGET  "replayed"
#define RECORDS 300
#define EPOCH   1700000000000 /* ms */

typedef struct fixture {
    rd_kafka_t *producer;
    rd_kafka_mock_cluster_t *cluster;
    char brokers[256];
} fixture;

static void begin(fixture *f)
{
    char why[256];
    f->producer = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), why, sizeof why);
    ck_assert_msg(f->producer != NULL, "%s", why);
    f->cluster = rd_kafka_mock_cluster_new(f->producer, 1);
    rd_kafka_mock_topic_create(f->cluster, SOURCE, 1, 1);
    rd_kafka_mock_topic_create(f->cluster, TARGET, 1, 1);
    snprintf(f->brokers, sizeof f->brokers, "%s", rd_kafka_mock_cluster_bootstraps(f->cluster));
    rd_kafka_brokers_add(f->producer, f->brokers);
}

static void end(fixture *f)
{
    rd_kafka_mock_cluster_destroy(f->cluster);
    rd_kafka_destroy(f->producer);
}

static void send_to(fixture *f, const char *topic, int64_t time_ms, const void *value, size_t len)
{
    ck_assert_int_eq(rd_kafka_producev(f->producer, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(0),
                                       RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                       RD_KAFKA_V_VALUE((void *)(uintptr_t)value, len),
                                       RD_KAFKA_V_TIMESTAMP(time_ms), RD_KAFKA_V_END),
                     0);
    ck_assert_int_eq(rd_kafka_flush(f->producer, 30000), 0);
}

/* Records of all kinds: with and without key, value and headers; the values are noise. */
static void send_noise(fixture *f, uint64_t seed)
{
    uint8_t noise[3000];
    slu_rng rng;
    slu_rng_seed(&rng, seed);
    for (int i = 0; i < RECORDS; i++) {
        for (size_t b = 0; b < sizeof noise; b++)
            noise[b] = (uint8_t)slu_rng_below(&rng, 256);
        rd_kafka_headers_t *h = rd_kafka_headers_new(2);
        rd_kafka_header_add(h, "reason", -1, noise, (ssize_t)slu_rng_below(&rng, 20));
        rd_kafka_header_add(h, "nothing", -1, NULL, 0);
        bool key = slu_rng_below(&rng, 2), value = slu_rng_below(&rng, 10);
        rd_kafka_vu_t with[] = {
            {.vtype = RD_KAFKA_VTYPE_TOPIC, .u.cstr = SOURCE},
            {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = 0},
            {.vtype = RD_KAFKA_VTYPE_MSGFLAGS, .u.i = RD_KAFKA_MSG_F_COPY},
            {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {key ? noise : NULL, key ? slu_rng_below(&rng, 30) : 0}},
            {.vtype = RD_KAFKA_VTYPE_VALUE,
             .u.mem = {value ? noise : NULL, value ? slu_rng_below(&rng, sizeof noise) : 0}},
            {.vtype = RD_KAFKA_VTYPE_TIMESTAMP, .u.i64 = EPOCH + i / 3}, /* several in a millisecond */
            {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = h},
        };
        bool headers = slu_rng_below(&rng, 2);
        ck_assert_ptr_null(rd_kafka_produceva(f->producer, with, COUNT_OF(with) - !headers));
        if (!headers)
            rd_kafka_headers_destroy(h);
    }
    ck_assert_int_eq(rd_kafka_flush(f->producer, 30000), 0);
}

/* Copies up to |until_ms|; returns how many records. */
static size_t copy(const fixture *f, int64_t until_ms, int64_t from_ms)
{
    slu_error err = SLU_ERROR_INIT;
    topic_copy *c;
    ck_assert_msg(!topic_copy_read(f->brokers, SOURCE, TARGET, until_ms, &c, &err), "%s", err.message);
    ck_assert_msg(!topic_copy_send(c, from_ms, &err), "%s", err.message);
    size_t n = topic_copy_records(c);
    topic_copy_free(c);
    return n;
}

/* ---- two topics are equal ---- */

static rd_kafka_t *reader_of(const fixture *f, const char *topic)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", f->brokers, why, sizeof why);
    rd_kafka_conf_set(conf, "group.id", "test", why, sizeof why);
    rd_kafka_conf_set(conf, "enable.partition.eof", "true", why, sizeof why);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    ck_assert_msg(rk != NULL, "%s", why);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, 0)->offset = RD_KAFKA_OFFSET_BEGINNING;
    ck_assert_int_eq(rd_kafka_assign(rk, list), 0);
    rd_kafka_topic_partition_list_destroy(list);
    return rk;
}

static rd_kafka_message_t *next(rd_kafka_t *rk)
{
    rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 60000);
    ck_assert_ptr_nonnull(m);
    ck_assert_msg(!m->err || m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF, "%s", rd_kafka_err2str(m->err));
    return m;
}

static void ck_assert_bytes(const void *a, size_t n, const void *b, size_t m)
{
    ck_assert_int_eq(!a, !b);
    ck_assert_uint_eq(n, m);
    ck_assert_int_eq(n ? memcmp(a, b, n) : 0, 0);
}

static void ck_assert_same_headers(const rd_kafka_message_t *a, const rd_kafka_message_t *b)
{
    rd_kafka_headers_t *ha, *hb;
    rd_kafka_resp_err_t ea = rd_kafka_message_headers(a, &ha), eb = rd_kafka_message_headers(b, &hb);
    ck_assert_int_eq(ea, eb);
    if (ea)
        return;
    ck_assert_uint_eq(rd_kafka_header_cnt(ha), rd_kafka_header_cnt(hb));
    for (size_t i = 0; i < rd_kafka_header_cnt(ha); i++) {
        const char *name_a, *name_b;
        const void *va, *vb;
        size_t na, nb;
        rd_kafka_header_get_all(ha, i, &name_a, &va, &na);
        rd_kafka_header_get_all(hb, i, &name_b, &vb, &nb);
        ck_assert_str_eq(name_a, name_b);
        ck_assert_bytes(va, na, vb, nb);
    }
}

/* The target is the first |n| records of the source, and nothing more. */
static void ck_assert_copied(const fixture *f, size_t n)
{
    rd_kafka_t *from = reader_of(f, SOURCE), *to = reader_of(f, TARGET);
    rd_kafka_message_t *a, *b;
    rd_kafka_timestamp_type_t ta, tb;
    for (size_t i = 0; i < n; i++) {
        a = next(from);
        b = next(to);
        ck_assert_int_eq(a->err, 0);
        ck_assert_int_eq(b->err, 0);
        ck_assert_int_eq(a->offset, b->offset);
        ck_assert_bytes(a->key, a->key_len, b->key, b->key_len);
        ck_assert_bytes(a->payload, a->len, b->payload, b->len);
        ck_assert_int_eq(rd_kafka_message_timestamp(a, &ta), rd_kafka_message_timestamp(b, &tb));
        ck_assert_int_eq(ta, tb);
        ck_assert_same_headers(a, b);
        rd_kafka_message_destroy(a);
        rd_kafka_message_destroy(b);
    }
    b = next(to);
    ck_assert_int_eq(b->err, RD_KAFKA_RESP_ERR__PARTITION_EOF);
    rd_kafka_message_destroy(b);
    rd_kafka_consumer_close(from);
    rd_kafka_consumer_close(to);
    rd_kafka_destroy(from);
    rd_kafka_destroy(to);
}

/* ---- tests ---- */

START_TEST(test_equal_and_in_order)
{
    fixture f;
    uint64_t seed = 20261126;
    printf("seed %llu\n", (unsigned long long)seed);
    begin(&f);
    send_noise(&f, seed);
    ck_assert_uint_eq(copy(&f, EPOCH + 33, 0), 99); /* three a millisecond; not what is stamped so */
    ck_assert_copied(&f, 99);
    ck_assert_uint_eq(copy(&f, EPOCH + 33, 0), 0); /* it has them */
    ck_assert_uint_eq(copy(&f, EPOCH + 50, EPOCH + 33), 51);
    ck_assert_uint_eq(copy(&f, 0, 0), RECORDS - 150);
    ck_assert_copied(&f, RECORDS);
    end(&f);
}
END_TEST

/* Each record waits for its turn; turns that are past are made up for at once. */
START_TEST(test_distances_in_time)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    topic_copy *c;
    begin(&f);
    send_to(&f, SOURCE, EPOCH, "a", 1); /* ten seconds before the time that is now */
    send_to(&f, SOURCE, EPOCH + 10200, "b", 1);
    send_to(&f, SOURCE, EPOCH + 10700, "c", 1);
    ck_assert_int_eq(topic_copy_read(f.brokers, SOURCE, TARGET, 0, &c, &err), 0);
    int64_t began = slu_mono_us(&slu_system_clock);
    ck_assert_msg(!topic_copy_send(c, EPOCH + 10000, &err), "%s", err.message);
    int64_t took = slu_mono_us(&slu_system_clock) - began;
    ck_assert_int_ge(took, 700000);
    topic_copy_late late = topic_copy_lateness(c);
    /* The first one's turn was ten seconds ago. The last one's acknowledgement is what the call waited for.
     */
    ck_assert_double_ge(late.worst_ms, 10000);
    ck_assert_double_le(late.worst_ms, 10000 + (double)took / 1e3);
    topic_copy_free(c);
    ck_assert_copied(&f, 3);
    end(&f);
}
END_TEST

START_TEST(test_targets_that_are_no_beginning)
{
    fixture f;
    slu_error err = SLU_ERROR_INIT;
    topic_copy *c;
    begin(&f);
    send_to(&f, SOURCE, EPOCH, "a", 1);
    send_to(&f, TARGET, EPOCH, "x", 1);
    send_to(&f, TARGET, EPOCH, "y", 1);
    ck_assert_int_eq(topic_copy_read(f.brokers, SOURCE, TARGET, 0, &c, &err), SLU_EKAFKA);
    ck_assert_msg(strstr(err.message, "replayed ends at offset 2"), "%s", err.message);
    ck_assert_ptr_null(c);

    /* Somebody else writes into the target between reading and sending. */
    err = (slu_error)SLU_ERROR_INIT;
    send_to(&f, SOURCE, EPOCH, "b", 1);
    send_to(&f, SOURCE, EPOCH, "c", 1);
    ck_assert_msg(!topic_copy_read(f.brokers, SOURCE, TARGET, 0, &c, &err), "%s", err.message);
    ck_assert_uint_eq(topic_copy_records(c), 1);
    send_to(&f, TARGET, EPOCH, "z", 1);
    ck_assert_int_eq(topic_copy_send(c, 0, &err), SLU_EKAFKA);
    ck_assert_msg(strstr(err.message, "somebody else writes"), "%s", err.message);
    topic_copy_free(c);
    end(&f);
}
END_TEST

/* ---- a scorer on the copy ---- */

typedef struct scorer {
    char path[64], command[128];
    slu_options options;
    slu_schema *schema;
    uint32_t served[64];
    slu_delta_builder *builder;
    delta_messages m;
    slu_row_sum rows;
    slu_model_table *table;
    slu_subscriber *subscriber;
} scorer;

static void open_scorer(scorer *s, fixture *f)
{
    slu_error err = SLU_ERROR_INIT;
    *s = (scorer){.path = "/tmp/sluice-test-XXXXXX", .options = sample_options};
    ck_assert_ptr_nonnull(mkdtemp(s->path));
    s->options.serving.store_path = s->path;
    s->options.kafka.delta_topic = (char *)TARGET;
    s->options.kafka.brokers = f->brokers;
    ck_assert_int_eq(slu_schema_new(&s->options, &s->schema, &err), 0);
    served_floats(&s->options, s->schema, s->served);
    s->builder = slu_delta_builder_new(s->served, slu_schema_tables(s->schema), 1500);
    ck_assert_int_eq(
        slu_model_table_new(s->served, slu_schema_tables(s->schema), DELTA_DENSE, 0, &s->table, &err), 0);
    ck_assert_msg(!slu_subscriber_start(&s->options, s->schema, s->table, 64 << 20, &s->subscriber, &err),
                  "%s", err.message);
}

static void close_scorer(scorer *s)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_subscriber_stop(s->subscriber, &err), "%s", err.message);
    slu_model_table_free(s->table);
    delta_messages_free(&s->m);
    slu_delta_builder_free(s->builder);
    slu_schema_free(s->schema);
    snprintf(s->command, sizeof s->command, "rm -r %s", s->path);
    ck_assert_int_eq(system(s->command), 0);
}

/* A version with its sums into the source: new rows, and the dense vector. */
static void publish(scorer *s, fixture *f, uint64_t version, int64_t time_ms)
{
    bool base = version == 10;
    uint64_t first = version * 100, last = first + 100;
    float value = (float)version;
    delta_sum_rows(&s->rows, s->served[0], first, last, value, false);
    slu_model_sums sums = {.rows = s->rows, .dense = delta_dense_digest(value)};
    delta_version v = {.base = base,
                       .dense = true,
                       .version = version,
                       .previous = base ? 0 : version - 1,
                       .first = first,
                       .last = last,
                       .value = value,
                       .sums = &sums};
    delta_build(s->builder, s->schema, &v, &s->m);
    ck_assert_uint_gt(s->m.n, 1); /* chunks */
    for (uint32_t i = 0; i < s->m.n; i++)
        send_to(f, SOURCE, time_ms, s->m.bytes[i].data, s->m.bytes[i].len);
}

static slu_subscriber_stats await(const scorer *s, uint64_t version)
{
    slu_subscriber_stats st = {0};
    for (int i = 0; i < 3000; i++) {
        slu_subscriber_get_stats(s->subscriber, &st);
        if (st.version == version)
            return st;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    ck_abort_msg("version %llu after 30 s, not %llu: %s", (unsigned long long)st.version,
                 (unsigned long long)version, st.problem);
}

START_TEST(test_a_scorer_follows_the_copy)
{
    fixture f;
    scorer s;
    begin(&f);
    open_scorer(&s, &f);
    for (uint64_t v = 10; v < 20; v++)
        publish(&s, &f, v, EPOCH + (int64_t)v * 20);
    copy(&f, EPOCH + 13 * 20, 0);
    slu_subscriber_stats st = await(&s, 12);
    ck_assert_uint_eq(st.verified, 12);
    copy(&f, EPOCH + 17 * 20 + 1, EPOCH + 13 * 20); /* and on, as they came */
    await(&s, 17);
    copy(&f, 0, EPOCH + 18 * 20);
    st = await(&s, 19);
    ck_assert_uint_eq(st.verified, 19);
    ck_assert_uint_eq(st.applied, 10);
    ck_assert_uint_eq(st.gaps + st.skipped + st.refused + st.mismatches, 0);
    ck_assert_uint_eq(st.rows, 1000);
    close_scorer(&s);
    end(&f);
}
END_TEST

int main(void)
{
    return run_suite("topic_copy", (const TTest *const[]){test_equal_and_in_order, test_distances_in_time,
                                                          test_targets_that_are_no_beginning,
                                                          test_a_scorer_follows_the_copy, NULL});
}
