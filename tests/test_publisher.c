/* The publisher against librdkafka's mock cluster, and without any broker. */
#include "trainer/publisher.h"
#include <check.h>
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char dir[64];
static slu_options options;
static slu_error err;
static slu_publisher *p;
static rd_kafka_t *host;
static rd_kafka_mock_cluster_t *cluster;

static void setup(void)
{
    strcpy(dir, "/tmp/slu_publisher_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    slu_error_clear(&err);
    options = (slu_options){0};
    options.memory.bytes[SLU_MEM_PUBLISH] = 32 << 20;
    options.kafka.delta_topic = "deltas";
    options.kafka.dead_letter_topic = "letters";
    options.publish.enabled = true;
    options.publish.chunk_bytes = 4096;
    options.store.path = dir;
    p = NULL;
}

static void setup_cluster(void)
{
    setup();
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    host = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    ck_assert_ptr_nonnull(host);
    cluster = rd_kafka_mock_cluster_new(host, 1);
    rd_kafka_mock_topic_create(cluster, "deltas", 1, 1);
    rd_kafka_mock_topic_create(cluster, "letters", 3, 1);
    options.kafka.brokers = (char *)(uintptr_t)rd_kafka_mock_cluster_bootstraps(cluster);
}

static void teardown(void)
{
    slu_publisher_close(p);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static void teardown_cluster(void)
{
    teardown();
    rd_kafka_mock_cluster_destroy(cluster);
    rd_kafka_destroy(host);
}

static void open_ok(bool with_kafka, const char *path)
{
    int rc = slu_publisher_open(&options, with_kafka, path, &p, &err);
    ck_assert_msg(rc == 0, "%s", err.message);
}

static void send_text(slu_channel ch, uint64_t sequence, const char *text)
{
    slu_publisher_send(p, ch, sequence, text, strlen(text));
}

static void expect_acked(slu_channel ch, uint64_t sequence)
{
    for (int i = 0; i < 600 && slu_publisher_acked(p, ch) != sequence; i++)
        usleep(50000);
    ck_assert_uint_eq(slu_publisher_acked(p, ch), sequence);
}

/* All messages of a topic, a line each: header sluice-sequence, sluice-reason, value; sorted by arrival
 * within a partition. */
static size_t read_topic(const char *topic, int partitions, char lines[][128], size_t max)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "bootstrap.servers", options.kafka.brokers, why, sizeof why);
    rd_kafka_conf_set(conf, "group.id", "test", why, sizeof why);
    rd_kafka_conf_set(conf, "enable.partition.eof", "true", why, sizeof why);
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
    rd_kafka_poll_set_consumer(rk);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(partitions);
    for (int i = 0; i < partitions; i++)
        rd_kafka_topic_partition_list_add(list, topic, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_assign(rk, list);
    rd_kafka_topic_partition_list_destroy(list);
    size_t n = 0;
    for (int ended = 0; ended < partitions;) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 30000);
        ck_assert_ptr_nonnull(m);
        if (m->err) {
            ck_assert_int_eq(m->err, RD_KAFKA_RESP_ERR__PARTITION_EOF);
            ended++;
        } else if (n < max) {
            rd_kafka_headers_t *h;
            const void *sequence = "-", *reason = "-";
            size_t a = 1, b = 1;
            if (!rd_kafka_message_headers(m, &h)) {
                rd_kafka_header_get_last(h, "sluice-sequence", &sequence, &a);
                rd_kafka_header_get_last(h, "sluice-reason", &reason, &b);
            }
            snprintf(lines[n++], 128, "%.*s %.*s %.*s", (int)a, (const char *)sequence, (int)b,
                     (const char *)reason, (int)m->len, (const char *)m->payload);
        }
        rd_kafka_message_destroy(m);
    }
    rd_kafka_consumer_close(rk);
    rd_kafka_destroy(rk);
    return n;
}

START_TEST(test_deltas_and_bases_in_order)
{
    static char lines[400][128];
    char text[16];
    open_ok(true, NULL);
    ck_assert_uint_eq(slu_publisher_acked(p, SLU_CHANNEL_DELTAS), 0);
    uint64_t bytes = 0;
    for (uint64_t s = 41; s <= 240; s++) { /* an outbox goes on counting after a restart */
        snprintf(text, sizeof text, "delta %d", (int)s);
        bytes += strlen(text);
        send_text(SLU_CHANNEL_DELTAS, s, text);
        if (s == 100)
            slu_publisher_send_base(p, "base", 4);
    }
    ck_assert_uint_eq(slu_publisher_drain(p, 30000), 0);
    expect_acked(SLU_CHANNEL_DELTAS, 240);
    ck_assert_uint_eq(slu_publisher_delta_bytes(p), bytes);
    ck_assert_uint_eq(slu_publisher_base_bytes(p), 4);
    ck_assert_int_eq(slu_publisher_check(p, &err), 0);
    ck_assert_uint_eq(read_topic("deltas", 1, lines, 400), 201);
    for (int i = 0; i < 201; i++) {
        snprintf(text, sizeof text, i == 60 ? "base" : "delta %d", i < 60 ? 41 + i : 40 + i);
        ck_assert_msg(strcmp(lines[i] + 4, text) == 0, "message %d is '%s', not '%s'", i, lines[i], text);
    }
}
END_TEST

static int by_text(const void *a, const void *b)
{
    return atoi(a) - atoi(b);
}

START_TEST(test_dead_letters_have_headers)
{
    static char lines[4000][128];
    open_ok(true, NULL);
    for (uint64_t s = 1; s <= 3000; s++)
        send_text(SLU_CHANNEL_DEAD_LETTERS, s,
                  s % 2 ? "{\"reason\":\"late\",\"message\":\"x\"}" : "{\"reason\":\"orphan\"}");
    expect_acked(SLU_CHANNEL_DEAD_LETTERS, 3000);
    ck_assert_uint_eq(read_topic("letters", 3, lines, 4000), 3000);
    qsort(lines, 3000, sizeof *lines, by_text);
    for (int i = 0; i < 3000; i++) {
        char expected[128];
        snprintf(expected, sizeof expected, "%d %s", i + 1,
                 i % 2 == 0 ? "late {\"reason\":\"late\",\"message\":\"x\"}"
                            : "orphan {\"reason\":\"orphan\"}");
        ck_assert_str_eq(lines[i], expected);
    }
}
END_TEST

/* Errors that pass are tried again, without loss or disorder. */
START_TEST(test_passing_trouble)
{
    static char lines[100][128];
    open_ok(true, NULL);
    send_text(SLU_CHANNEL_DELTAS, 1, "1");
    expect_acked(SLU_CHANNEL_DELTAS, 1);
    rd_kafka_mock_push_request_errors(cluster, 0 /* Produce */, 3, RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION,
                                      RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT,
                                      RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS);
    for (uint64_t s = 2; s <= 50; s++) {
        char text[8];
        snprintf(text, sizeof text, "%d", (int)s);
        send_text(SLU_CHANNEL_DELTAS, s, text);
    }
    expect_acked(SLU_CHANNEL_DELTAS, 50);
    ck_assert_int_eq(slu_publisher_check(p, &err), 0);
    ck_assert_uint_eq(read_topic("deltas", 1, lines, 100), 50);
    for (int i = 0; i < 50; i++)
        ck_assert_int_eq(atoi(lines[i] + 4), i + 1);
}
END_TEST

/* What is refused for good ends publishing with topic and remedy, and is never called acknowledged. */
START_TEST(test_refusal)
{
    open_ok(true, NULL);
    rd_kafka_mock_push_request_errors(cluster, 0 /* Produce */, 1, RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE);
    send_text(SLU_CHANNEL_DELTAS, 7, "refused");
    int rc = 0;
    for (int i = 0; i < 600 && !rc; i++) {
        usleep(50000);
        rc = slu_publisher_check(p, &err);
    }
    ck_assert_int_eq(rc, SLU_EKAFKA);
    ck_assert_msg(strstr(err.message, "topic deltas") && strstr(err.message, "publish.chunk"), "%s",
                  err.message);
    ck_assert_uint_eq(slu_publisher_acked(p, SLU_CHANNEL_DELTAS), 6);
    ck_assert_uint_eq(slu_publisher_drain(p, 100), 1);
}
END_TEST

/* What waits for a broker that takes nothing has a bound, for bases and deltas each on its own, and both are
 * free again when it takes. */
static void fill(bool base, uint64_t *sequence, const char *message, size_t len, uint64_t most)
{
    uint64_t bytes = 0;
    while (base ? slu_publisher_room(p) : slu_publisher_room_for(p, SLU_CHANNEL_DELTAS, len)) {
        if (base)
            slu_publisher_send_base(p, message, len);
        else
            slu_publisher_send(p, SLU_CHANNEL_DELTAS, ++*sequence, message, len);
        bytes += len;
        ck_assert_msg(bytes <= most, "%llu bytes wait, %llu are allowed", (unsigned long long)bytes,
                      (unsigned long long)most);
    }
    ck_assert_uint_gt(bytes, 0);
}

static void expect_room(bool base, size_t len)
{
    bool room = false;
    for (int i = 0; i < 600 && !room; i++) {
        room = base ? slu_publisher_room(p) : slu_publisher_room_for(p, SLU_CHANNEL_DELTAS, len);
        if (!room)
            usleep(50000);
    }
    ck_assert_msg(room, "%s found no room again", base ? "a base" : "a delta");
}

START_TEST(test_room_is_bounded_and_comes_back)
{
    static char message[64 << 10];
    memset(message, 'x', sizeof message);
    uint64_t sequence = 1, share = options.memory.bytes[SLU_MEM_PUBLISH];
    open_ok(true, NULL);
    send_text(SLU_CHANNEL_DELTAS, sequence, "first");
    expect_acked(SLU_CHANNEL_DELTAS, sequence);
    ck_assert(slu_publisher_room(p));
    rd_kafka_mock_broker_set_down(cluster, 1);
    fill(false, &sequence, message, sizeof message, share / 8 * 3);
    /* Deltas that fill their part leave room for a base, which has no other place to wait: were there none,
     * sending would wait for the broker, and this test for its end. */
    ck_assert(slu_publisher_room(p));
    fill(true, &sequence, message, sizeof message, share / 8 + sizeof message);
    ck_assert(!slu_publisher_room(p));
    ck_assert(!slu_publisher_room_for(p, SLU_CHANNEL_DELTAS, sizeof message));
    rd_kafka_mock_broker_set_up(cluster, 1);
    expect_room(true, sizeof message);
    expect_room(false, sizeof message);
    ck_assert_uint_eq(slu_publisher_drain(p, 30000), 0);
    expect_acked(SLU_CHANNEL_DELTAS, sequence);
    ck_assert_int_eq(slu_publisher_check(p, &err), 0);
}
END_TEST

START_TEST(test_broker_away)
{
    options.kafka.brokers = "127.0.0.1:1";
    open_ok(true, NULL);
    send_text(SLU_CHANNEL_DELTAS, 1, "x");
    ck_assert_uint_eq(slu_publisher_drain(p, 200), 1);
    ck_assert_uint_eq(slu_publisher_acked(p, SLU_CHANNEL_DELTAS), 0);
    ck_assert_int_eq(slu_publisher_check(p, &err), 0); /* it may come */
}
END_TEST

static void expect_lines(const char *path, const char *text)
{
    char got[256] = "";
    FILE *f = fopen(path, "r");
    ck_assert_ptr_nonnull(f);
    got[fread(got, 1, sizeof got - 1, f)] = 0;
    fclose(f);
    ck_assert_str_eq(got, text);
}

START_TEST(test_letters_into_a_file)
{
    char path[128];
    snprintf(path, sizeof path, "%s/dead-letters.jsonl", dir);
    options.kafka.brokers = "127.0.0.1:1";
    options.kafka.dead_letter_topic = NULL;
    open_ok(true, NULL);
    send_text(SLU_CHANNEL_DEAD_LETTERS, 5, "{\"reason\":\"late\"}");
    send_text(SLU_CHANNEL_DEAD_LETTERS, 6, "{}");
    ck_assert_uint_eq(slu_publisher_acked(p, SLU_CHANNEL_DEAD_LETTERS), 6);
    slu_publisher_close(p);
    expect_lines(path, "{\"reason\":\"late\"}\n{}\n");
    open_ok(true, NULL); /* appends */
    send_text(SLU_CHANNEL_DEAD_LETTERS, 7, "{3}");
    expect_lines(path, "{\"reason\":\"late\"}\n{}\n{3}\n");
}
END_TEST

START_TEST(test_without_kafka)
{
    char path[128];
    snprintf(path, sizeof path, "%s/letters", dir);
    open_ok(false, path);
    send_text(SLU_CHANNEL_DELTAS, 1, "dropped");
    send_text(SLU_CHANNEL_DEAD_LETTERS, 1, "{}");
    ck_assert_uint_eq(slu_publisher_acked(p, SLU_CHANNEL_DELTAS), 1);
    ck_assert_uint_eq(slu_publisher_acked(p, SLU_CHANNEL_DEAD_LETTERS), 1);
    ck_assert_uint_eq(slu_publisher_drain(p, 0), 0);
    expect_lines(path, "{}\n");
    slu_publisher_close(p);
    open_ok(false, NULL);
    send_text(SLU_CHANNEL_DEAD_LETTERS, 9, "{}");
    ck_assert_uint_eq(slu_publisher_acked(p, SLU_CHANNEL_DEAD_LETTERS), 9);
}
END_TEST

static void expect_refused(slu_kv_opts *setting, const char *words)
{
    options.kafka.brokers = "127.0.0.1:1";
    options.kafka.rdkafka = setting;
    options.kafka.n_rdkafka = 1;
    ck_assert_int_eq(slu_publisher_open(&options, true, NULL, &p, &err), SLU_ECONFIG);
    ck_assert_ptr_null(p);
    ck_assert_msg(strstr(err.message, words) != NULL, "'%s' does not say '%s'", err.message, words);
    slu_error_clear(&err);
}

START_TEST(test_bad_settings)
{
    expect_refused(&(slu_kv_opts){.key = "no.such.property", .value = "1"}, "no.such.property");
    expect_refused(&(slu_kv_opts){.key = "linger.ms", .value = "soon"}, "linger.ms");
    expect_refused(&(slu_kv_opts){.key = "bootstrap.servers", .value = "x"}, "set kafka.brokers");
    options.kafka.dead_letter_topic = NULL;
    options.kafka.n_rdkafka = 0;
    options.store.path = "/nonexistent";
    ck_assert_int_eq(slu_publisher_open(&options, true, NULL, &p, &err), SLU_EIO);
    ck_assert_msg(strstr(err.message, "/nonexistent/dead-letters.jsonl") != NULL, "%s", err.message);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("publisher");
    TCase *kafka = tcase_create("mock cluster");
    tcase_add_checked_fixture(kafka, setup_cluster, teardown_cluster);
    tcase_set_timeout(kafka, 120);
    tcase_add_test(kafka, test_deltas_and_bases_in_order);
    tcase_add_test(kafka, test_dead_letters_have_headers);
    tcase_add_test(kafka, test_passing_trouble);
    tcase_add_test(kafka, test_refusal);
    tcase_add_test(kafka, test_room_is_bounded_and_comes_back);
    suite_add_tcase(s, kafka);
    TCase *alone = tcase_create("alone");
    tcase_add_checked_fixture(alone, setup, teardown);
    tcase_set_timeout(alone, 60);
    tcase_add_test(alone, test_broker_away);
    tcase_add_test(alone, test_letters_into_a_file);
    tcase_add_test(alone, test_without_kafka);
    tcase_add_test(alone, test_bad_settings);
    suite_add_tcase(s, alone);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
