/* The Kafka source against librdkafka's mock cluster, with a real store for offsets. A real broker, and
 * topics that come later, are met in tests/integration (the mock makes any topic that is asked for). */
#include "base/clock.h"
#include "store/state.h"
#include "trainer/kafka_mark.h"
#include "trainer/source.h"
#include "trainer/watermark.h"
#include <check.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MS 1000LL

static char dir[64];
static slu_options options;
static slu_error err;
static slu_store *store;
static slu_source *source;
static slu_record record;
static rd_kafka_t *host;
static rd_kafka_mock_cluster_t *cluster;
static char *topics[] = {"events"};

static void setup(void)
{
    strcpy(dir, "/tmp/slu_kafka_source_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    slu_error_clear(&err);
    char why[256], path[80];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "test.mock.num.brokers", "2", why, sizeof why);
    host = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    ck_assert_ptr_nonnull(host);
    cluster = rd_kafka_handle_mock_cluster(host);
    rd_kafka_mock_topic_create(cluster, "events", 2, 1);
    options = (slu_options){0};
    options.memory.bytes[SLU_MEM_FETCH] = 32 << 20;
    options.kafka.brokers = (char *)(uintptr_t)rd_kafka_mock_cluster_bootstraps(cluster);
    options.kafka.group = "test";
    options.kafka.topics = topics;
    options.kafka.n_topics = 1;
    options.kafka.encoding = SLU_ENCODING_JSON;
    options.join.idle_timeout_us = 300 * MS;
    options.training.max_batch_delay_us = 200 * MS;
    snprintf(path, sizeof path, "%s/store", dir);
    slu_store_config config = {
        .path = path, .block_cache_bytes = 1 << 20, .create = true, .schema_text = "test"};
    int rc = slu_store_open(&config, &store, &err);
    ck_assert_msg(rc == 0, "%s", err.message);
    source = NULL;
}

static void close_source(void)
{
    if (source)
        source->ops->close(source);
    source = NULL;
}

static void teardown(void)
{
    close_source();
    slu_store_close(store);
    rd_kafka_destroy(host);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static void produce(const char *topic, int partition, int from, int n)
{
    for (int i = from; i < from + n; i++) {
        char text[32];
        int len = snprintf(text, sizeof text, "%d", i);
        ck_assert_int_eq(rd_kafka_producev(host, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_PARTITION(partition),
                                           RD_KAFKA_V_VALUE(text, (size_t)len),
                                           RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
                         0);
    }
    ck_assert_int_eq(rd_kafka_flush(host, 30000), 0);
}

static void open_ok(void)
{
    int rc = slu_kafka_source_open(&options, store, 0, &source, &err);
    ck_assert_msg(rc == 0, "%s", err.message);
}

/* The next record within half a minute. */
static int next(void)
{
    int rc = 0;
    for (int i = 0; i < 300 && rc == 0; i++)
        rc = slu_source_next(source, 100, &record, &err);
    return rc;
}

static void expect_kind(slu_record_kind kind)
{
    int rc = next();
    ck_assert_msg(rc == 1, "%d: %s", rc, err.message);
    ck_assert_msg(record.kind == kind, "kind %d, not %d", record.kind, kind);
}

static void expect_partitions(uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        expect_kind(SLU_RECORD_PARTITION);
        ck_assert_uint_eq(record.partition, i);
    }
}

/* The record is the event |*first| of its partition, which moves on. */
static void expect_in_order(int *first)
{
    char text[32] = "";
    memcpy(text, record.bytes, record.len);
    ck_assert_int_eq(atoi(text), first[record.partition]);
    ck_assert_int_eq(record.offset, first[record.partition]++);
    ck_assert_int_gt(record.arrival_us, 0);
    ck_assert_int_eq(record.encoding, SLU_ENCODING_JSON);
}

/* Reads |n| events; those of a partition come in order, the first of partition i being |first[i]|. */
static void expect_events(int n, int *first)
{
    while (n-- > 0) {
        do {
            int rc = next();
            ck_assert_msg(rc == 1, "%d: %s", rc, err.message);
        } while (record.kind != SLU_RECORD_EVENT);
        expect_in_order(first);
    }
}

static void store_offset(const char *topic, int32_t partition, int64_t offset)
{
    slu_commit *c = slu_commit_begin(store);
    slu_state_put_offset(c, topic, partition, offset);
    ck_assert_int_eq(slu_commit_write(c, &err), 0);
    slu_commit_abandon(c);
}

START_TEST(test_read_all_then_silence)
{
    produce("events", 0, 0, 2000);
    produce("events", 1, 0, 5);
    open_ok();
    expect_partitions(0, 2);
    ck_assert_str_eq(source->ops->partition(source, 1).topic, "events");
    ck_assert_int_eq(source->ops->partition(source, 1).partition, 1);
    expect_events(2005, (int[]){0, 0});
    double fraction;
    ck_assert_int_eq(source->ops->lag(source, &fraction), 0);
    /* Silence is told once: samples that wait, and each partition. */
    int flushed = 0, idle[2] = {0};
    for (int i = 0; i < 30; i++)
        if (slu_source_next(source, 50, &record, &err) == 1) {
            flushed += record.kind == SLU_RECORD_FLUSH;
            if (record.kind == SLU_RECORD_IDLE)
                idle[record.partition]++;
        }
    ck_assert_int_eq(flushed, 1);
    ck_assert_int_eq(idle[0], 1);
    ck_assert_int_eq(idle[1], 1);
    produce("events", 1, 5, 1);
    expect_events(1, (int[]){2000, 5});
    expect_kind(SLU_RECORD_FLUSH);
    expect_kind(SLU_RECORD_IDLE);
    ck_assert_uint_eq(record.partition, 1);
}
END_TEST

START_TEST(test_goes_on_from_the_store)
{
    produce("events", 0, 0, 100);
    produce("events", 1, 0, 100);
    store_offset("events", 0, 60);
    store_offset("events", 1, 100);
    open_ok();
    expect_partitions(0, 2);
    expect_events(40, (int[]){60, 100});
    source->ops->committed(source, (int64_t[]){100, -1}, 2);
    close_source();
    /* The group was told, for lag tools; it decides nothing. */
    store_offset("events", 0, 90);
    open_ok();
    expect_partitions(0, 2);
    expect_events(10, (int[]){90, 100});
}
END_TEST

/* Samples of the last process may wait in the store's batch, and nothing new comes. */
START_TEST(test_flushes_after_a_quiet_start)
{
    produce("events", 0, 0, 10);
    store_offset("events", 0, 10);
    open_ok();
    expect_partitions(0, 2);
    expect_kind(SLU_RECORD_FLUSH);
}
END_TEST

/* Producers stamp messages: one from next year arrived now. */
START_TEST(test_nothing_arrives_after_now)
{
    int64_t now = slu_wall_us(&slu_system_clock) / 1000;
    int64_t stamps[] = {now + 365LL * 86400 * 1000, INT64_MAX / 2, now - 5000};
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(rd_kafka_producev(host, RD_KAFKA_V_TOPIC("events"), RD_KAFKA_V_PARTITION(0),
                                           RD_KAFKA_V_VALUE("x", 1), RD_KAFKA_V_TIMESTAMP(stamps[i]),
                                           RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
                         0);
    ck_assert_int_eq(rd_kafka_flush(host, 30000), 0);
    open_ok();
    expect_partitions(0, 2);
    int clocks = 0;
    for (int i = 0; i < 3; i++) {
        do {
            ck_assert_int_eq(next(), 1);
            /* Before the first message, and only there: told once a second at most. */
            if (record.kind == SLU_RECORD_CLOCK) {
                ck_assert_int_eq(i, 0);
                ck_assert_int_ge(record.arrival_us, now * 1000);
                ck_assert_int_le(record.arrival_us, slu_wall_us(&slu_system_clock));
                clocks++;
            }
        } while (record.kind != SLU_RECORD_EVENT);
        ck_assert_int_eq(record.arrival_us, i == 1 ? SLU_NO_STAMP : stamps[i] * 1000);
    }
    ck_assert_int_eq(clocks, 1);
    /* What comes behind the end, but was stamped before we stood there, is known to be younger than it says.
     */
    for (int i = 0; i < 30 && slu_source_next(source, 50, &record, &err) >= 0; i++)
        ;
    int64_t stood = slu_wall_us(&slu_system_clock);
    ck_assert_int_eq(rd_kafka_producev(host, RD_KAFKA_V_TOPIC("events"), RD_KAFKA_V_PARTITION(0),
                                       RD_KAFKA_V_VALUE("x", 1), RD_KAFKA_V_TIMESTAMP(stamps[2]),
                                       RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END),
                     0);
    ck_assert_int_eq(rd_kafka_flush(host, 30000), 0);
    expect_kind(SLU_RECORD_END);
    ck_assert_int_ge(record.arrival_us, now * 1000);
    ck_assert_int_le(record.arrival_us, stood);
    expect_kind(SLU_RECORD_EVENT);
    ck_assert_int_eq(record.arrival_us, stamps[2] * 1000);
}
END_TEST

/* The store is ahead of the topic: it was made anew, or this is another cluster. */
START_TEST(test_offset_out_of_range)
{
    produce("events", 0, 0, 10);
    store_offset("events", 0, 5000);
    open_ok();
    int rc;
    while ((rc = next()) == 1)
        ck_assert_int_ne(record.kind, SLU_RECORD_EVENT);
    ck_assert_int_eq(rc, SLU_EKAFKA);
    ck_assert_msg(strstr(err.message, "topic events partition 0") && strstr(err.message, "5000") &&
                      strstr(err.message, "empty store.path"),
                  "%s", err.message);
}
END_TEST

static void store_mark(const char *topic, int32_t partition, uint64_t mark)
{
    slu_commit *c = slu_commit_begin(store);
    slu_state_put_mark(c, topic, partition, mark);
    ck_assert_int_eq(slu_commit_write(c, &err), 0);
    slu_commit_abandon(c);
}

static void expect_refusal(const char *words)
{
    int rc;
    while ((rc = next()) == 1)
        ck_assert_int_ne(record.kind, SLU_RECORD_EVENT);
    ck_assert_int_eq(rc, SLU_EKAFKA);
    ck_assert_msg(strstr(err.message, words) && strstr(err.message, "topic events") &&
                      strstr(err.message, "empty store.path"),
                  "%s", err.message);
}

/* Reads |n| events of the one partition that has some; the store then stands behind them. */
static uint64_t use(int n)
{
    produce("events", 0, 0, 100);
    open_ok();
    expect_partitions(0, 2);
    expect_events(n, (int[]){0, 0});
    uint64_t mark = record.mark;
    ck_assert_uint_ne(mark, 0);
    close_source();
    store_offset("events", 0, n);
    store_mark("events", 0, mark);
    return mark;
}

START_TEST(test_a_topic_is_known_again)
{
    use(60);
    open_ok();
    expect_partitions(0, 2);
    expect_events(40, (int[]){60, 0});
    close_source();
    store_offset("events", 0, 100);
    store_mark("events", 0, record.mark);
    open_ok(); /* at its end */
    expect_partitions(0, 2);
    produce("events", 0, 100, 5);
    expect_events(5, (int[]){100, 0});
}
END_TEST

/* It was made anew and is longer than what was read: Kafka itself has nothing to object to. */
START_TEST(test_a_topic_made_anew)
{
    store_mark("events", 0, use(60) + 1);
    open_ok();
    expect_refusal("the record at offset 59 is not the one that was used");
}
END_TEST

/* As long as what was read but for one record, which is where reading begins. */
START_TEST(test_a_topic_made_anew_one_short)
{
    use(100);
    store_offset("events", 0, 101);
    open_ok();
    expect_refusal("stands at offset 101, but the topic holds 0 to 100");
}
END_TEST

/* Retention took what waited of a partition that has no offset yet: the message does not make one up. */
START_TEST(test_nothing_was_used_yet)
{
    slu_kafka_proof unused = {.next = -1}, used = {.next = 40};
    ck_assert_int_eq(slu_kafka_proof_refused(&unused, "events", 3, 500, 800, &err), SLU_EKAFKA);
    ck_assert_msg(strstr(err.message, "topic events partition 3: nothing of it was used yet, and the topic "
                                      "begins at offset 500 now (it ends at 800)") &&
                      strstr(err.message, "start again") && !strstr(err.message, "-1"),
                  "%s", err.message);
    slu_error_clear(&err);
    ck_assert_int_eq(slu_kafka_proof_refused(&used, "events", 3, 500, 800, &err), SLU_EKAFKA);
    ck_assert_msg(strstr(err.message, "stands at offset 40, but the topic holds 500 to 800") &&
                      strstr(err.message, "empty store.path"),
                  "%s", err.message);
}
END_TEST

START_TEST(test_a_topic_with_fewer_partitions)
{
    produce("events", 0, 0, 10);
    store_offset("events", 2, 7);
    open_ok();
    expect_refusal("has 2 partitions, but the store has events of partition 2");
}
END_TEST

/* Pauses partition 0, or lets it go on. */
static void pause_first(bool paused)
{
    source->ops->pause(source, (bool[]){paused, false}, 2);
    ck_assert_int_eq(source->ops->reading(source, 0).paused, paused);
}

/* Whatever comes within |ms|, of the partition that is not paused; unless trouble with the broker has let all
 * go on. */
static void read_for(int ms, bool trouble, int *at)
{
    for (; ms > 0; ms -= 50)
        if (slu_source_next(source, 50, &record, &err) == 1 && record.kind == SLU_RECORD_EVENT) {
            ck_assert(trouble || record.partition == 1);
            expect_in_order(at);
        }
}

/* |n| events of partition 0, more than the shelves take if there are many. */
static void begin_to_pause(int n)
{
    produce("events", 0, 0, n);
    options.memory.bytes[SLU_MEM_FETCH] = 8 << 20;
    open_ok();
    expect_partitions(0, 2);
}

/* What was fetched waits here, also what comes meanwhile and the end behind it. */
START_TEST(test_a_paused_partition_goes_on_where_it_was)
{
    produce("events", 0, 0, 2000);
    open_ok();
    expect_partitions(0, 2);
    int at[2] = {0};
    expect_events(100, at);
    for (int i = 0; i < 5; i++) {
        pause_first(true);
        produce("events", 0, 2000 + 100 * i, 100);
        produce("events", 1, 50 * i, 50);
        expect_events(50, at);
        read_for(100, false, at);
        ck_assert_int_eq(at[0], 100 + 40 * i);
        pause_first(false);
        ck_assert(source->ops->reading(source, 0).backlog);
        expect_events(40, at);
    }
    expect_events(2500 - at[0], at);
    do
        ck_assert_int_eq(next(), 1);
    while (record.kind != SLU_RECORD_IDLE || record.partition); /* its end was told, too */
}
END_TEST

/* Far more than the shelves take: the rest is fetched later. A broker's trouble, behind which topics have to
 * prove themselves, lets nothing through twice either. */
START_TEST(test_full_shelves)
{
    enum { MANY = 60000 };
    begin_to_pause(MANY);
    int at[2] = {0};
    for (int i = 0; i < 6; i++) {
        bool trouble = i > 2;
        expect_events(1000, at);
        pause_first(true);
        produce("events", 1, i * 10, 10);
        read_for(600, trouble, at);
        if (trouble) {
            for (int32_t b = 1; b <= 2; b++)
                ck_assert_int_eq(rd_kafka_mock_broker_set_down(cluster, b), 0);
            read_for(300, true, at);
            for (int32_t b = 1; b <= 2; b++)
                ck_assert_int_eq(rd_kafka_mock_broker_set_up(cluster, b), 0);
        }
        pause_first(false);
    }
    expect_events(MANY + 60 - at[0] - at[1], at);
    ck_assert_int_eq(at[0], MANY);
}
END_TEST

START_TEST(test_moves_while_it_is_paused)
{
    enum { MANY = 60000 };
    begin_to_pause(MANY);
    int at[2] = {0};
    for (int i = 0; i < 4; i++) {
        expect_events(500, at);
        pause_first(true);
        read_for(300, i > 0, at);
        rd_kafka_mock_partition_set_leader(cluster, "events", 0, 1 + i % 2);
        produce("events", 0, MANY + i, 1);
        read_for(300, true, at);
        pause_first(false);
    }
    expect_events(MANY + 4 - at[0], at);
}
END_TEST

START_TEST(test_check)
{
    ck_assert_int_eq(slu_kafka_source_open(&options, NULL, 10000, &source, &err), 0);
    close_source();
    options.kafka.brokers = "127.0.0.1:1";
    ck_assert_int_eq(slu_kafka_source_open(&options, NULL, 600, &source, &err), SLU_EKAFKA);
    ck_assert_ptr_null(source);
    ck_assert_msg(strstr(err.message, "127.0.0.1:1") && strstr(err.message, "kafka.brokers"), "%s",
                  err.message);
    slu_error_clear(&err);
    options.kafka.rdkafka = &(slu_kv_opts){.key = "group.id", .value = "other"};
    options.kafka.n_rdkafka = 1;
    ck_assert_int_eq(slu_kafka_source_open(&options, NULL, 600, &source, &err), SLU_ECONFIG);
    ck_assert_msg(strstr(err.message, "set kafka.group") != NULL, "%s", err.message);
}
END_TEST

START_TEST(test_no_broker)
{
    options.kafka.brokers = "127.0.0.1:1";
    open_ok(); /* it may come */
    for (int i = 0; i < 5; i++)
        ck_assert_int_eq(slu_source_next(source, 50, &record, &err), 0);
    double fraction;
    ck_assert_int_eq(source->ops->lag(source, &fraction), -1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("kafka_source");
    TCase *t = tcase_create("mock cluster");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 120);
    tcase_add_test(t, test_read_all_then_silence);
    tcase_add_test(t, test_goes_on_from_the_store);
    tcase_add_test(t, test_flushes_after_a_quiet_start);
    tcase_add_test(t, test_nothing_arrives_after_now);
    tcase_add_test(t, test_offset_out_of_range);
    tcase_add_test(t, test_a_topic_is_known_again);
    tcase_add_test(t, test_a_topic_made_anew);
    tcase_add_test(t, test_a_topic_made_anew_one_short);
    tcase_add_test(t, test_nothing_was_used_yet);
    tcase_add_test(t, test_a_topic_with_fewer_partitions);
    tcase_add_test(t, test_a_paused_partition_goes_on_where_it_was);
    tcase_add_test(t, test_full_shelves);
    tcase_add_test(t, test_moves_while_it_is_paused);
    tcase_add_test(t, test_check);
    tcase_add_test(t, test_no_broker);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
