/* kafka_tool - what the integration tests need from the other side of Kafka.
 *
 *   kafka_tool BROKERS create TOPIC PARTITIONS [key=value...]
 *   kafka_tool BROKERS grow TOPIC PARTITIONS          adds partitions up to PARTITIONS
 *   kafka_tool BROKERS trim TOPIC PARTITION OFFSET    drops what is before OFFSET, as retention would
 *   kafka_tool BROKERS delete TOPIC
 *   kafka_tool BROKERS produce [EVENTS_PER_SECOND]
 *       lines of topic TAB key TAB value from standard input; exits 0 when all are acknowledged, also across
 * a broker's restart. A topic may be written topic:partition kafka_tool BROKERS count TOPIC messages in all
 * partitions kafka_tool BROKERS read TOPIC                     all messages there are: header sluice-reason
 * TAB value kafka_tool BROKERS dump TOPIC                     the same for programs: see dump_message
 *   kafka_tool - keys                                 ids in lines -> keys of their join records, in hex
 *   kafka_tool - generate SEED IMPRESSIONS START_US   events as lines for produce: impressions with clicks
 * and conversions, two thirds in order, one in twenty doubled
 */
#include "base/digest.h"
#include "base/rng.h"
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t failed_deliveries;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "kafka_tool: %s: %s\n", what, why);
    exit(1);
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)rk, (void)opaque;
    if (m->err && !failed_deliveries++)
        fprintf(stderr, "kafka_tool: delivery to %s: %s\n", rd_kafka_topic_name(m->rkt),
                rd_kafka_err2str(m->err));
}

static void quiet(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk, (void)level, (void)facility, (void)text;
}

static rd_kafka_t *handle(const char *brokers, rd_kafka_type_t type, const char *group)
{
    static const char *const settings[][2] = {
        {"enable.idempotence", "true"},
        {"message.timeout.ms", "300000"},
        {"linger.ms", "5"},
        {"message.max.bytes", "16777216"},
        {"enable.partition.eof", "true"},
        {"enable.auto.commit", "false"},
        {"topic.metadata.refresh.interval.ms", "1000"}, /* new partitions get their share soon */
    };
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_log_cb(conf, quiet);
    if (rd_kafka_conf_set(conf, "bootstrap.servers", brokers, why, sizeof why))
        die("brokers", why);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++)
        if (rd_kafka_conf_set(conf, settings[i][0], settings[i][1], why, sizeof why))
            die(settings[i][0], why);
    if (rd_kafka_conf_set(conf, "group.id", group, why, sizeof why))
        die("group", why);
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof why);
    if (!rk)
        die("client", why);
    return rk;
}

/* ---- topics ---- */

static void expect_topic_result(rd_kafka_event_t *ev, const rd_kafka_topic_result_t **results, size_t n)
{
    if (rd_kafka_event_error(ev))
        die("admin", rd_kafka_event_error_string(ev));
    for (size_t i = 0; i < n; i++)
        if (rd_kafka_topic_result_error(results[i]))
            die(rd_kafka_topic_result_name(results[i]),
                rd_kafka_err2str(rd_kafka_topic_result_error(results[i])));
}

static rd_kafka_event_t *wait_event(rd_kafka_queue_t *q)
{
    rd_kafka_event_t *ev = rd_kafka_queue_poll(q, 60000);
    if (!ev)
        die("admin", "no answer within a minute");
    return ev;
}

static void create(rd_kafka_t *rk, const char *topic, int partitions, char **settings, int n)
{
    char why[256];
    size_t results;
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_NewTopic_t *t = rd_kafka_NewTopic_new(topic, partitions, 1, why, sizeof why);
    for (int i = 0; i < n; i++) {
        char *eq = strchr(settings[i], '=');
        if (!eq)
            die(settings[i], "expected key=value");
        *eq = 0;
        rd_kafka_NewTopic_set_config(t, settings[i], eq + 1);
    }
    rd_kafka_CreateTopics(rk, &t, 1, NULL, q);
    rd_kafka_event_t *ev = wait_event(q);
    const rd_kafka_topic_result_t **r =
        rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(ev), &results);
    expect_topic_result(ev, r, results);
    rd_kafka_event_destroy(ev);
    rd_kafka_NewTopic_destroy(t);
    rd_kafka_queue_destroy(q);
}

static int32_t partitions_of(rd_kafka_t *rk, const char *topic)
{
    const struct rd_kafka_metadata *m;
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(rk, topic, NULL);
    rd_kafka_resp_err_t e = rd_kafka_metadata(rk, 0, rkt, &m, 30000);
    if (e)
        die("metadata", rd_kafka_err2str(e));
    int32_t n = m->topics[0].err ? 0 : m->topics[0].partition_cnt;
    rd_kafka_metadata_destroy(m);
    rd_kafka_topic_destroy(rkt);
    return n;
}

static void grow(rd_kafka_t *rk, const char *topic, size_t partitions)
{
    char why[256];
    size_t results;
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_NewPartitions_t *p = rd_kafka_NewPartitions_new(topic, partitions, why, sizeof why);
    rd_kafka_CreatePartitions(rk, &p, 1, NULL, q);
    rd_kafka_event_t *ev = wait_event(q);
    const rd_kafka_topic_result_t **r =
        rd_kafka_CreatePartitions_result_topics(rd_kafka_event_CreatePartitions_result(ev), &results);
    expect_topic_result(ev, r, results);
    rd_kafka_event_destroy(ev);
    rd_kafka_NewPartitions_destroy(p);
    rd_kafka_queue_destroy(q);
    while (partitions_of(rk, topic) < (int32_t)partitions) /* told to the controller, not yet to all */
        nanosleep(&(struct timespec){0, 20000000}, NULL);
}

static void delete_topic(rd_kafka_t *rk, char *topic)
{
    size_t results;
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_DeleteTopic_t *t = rd_kafka_DeleteTopic_new(topic);
    rd_kafka_DeleteTopics(rk, &t, 1, NULL, q);
    rd_kafka_event_t *ev = wait_event(q);
    const rd_kafka_topic_result_t **r =
        rd_kafka_DeleteTopics_result_topics(rd_kafka_event_DeleteTopics_result(ev), &results);
    expect_topic_result(ev, r, results);
    rd_kafka_event_destroy(ev);
    rd_kafka_DeleteTopic_destroy(t);
    rd_kafka_queue_destroy(q);
}

static void trim(rd_kafka_t *rk, const char *topic, int32_t partition, int64_t offset)
{
    rd_kafka_queue_t *q = rd_kafka_queue_new(rk);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, topic, partition)->offset = offset;
    rd_kafka_DeleteRecords_t *d = rd_kafka_DeleteRecords_new(list);
    rd_kafka_DeleteRecords(rk, &d, 1, NULL, q);
    rd_kafka_event_t *ev = wait_event(q);
    if (rd_kafka_event_error(ev))
        die("trim", rd_kafka_event_error_string(ev));
    rd_kafka_event_destroy(ev);
    rd_kafka_DeleteRecords_destroy(d);
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_queue_destroy(q);
}

static int64_t count(rd_kafka_t *rk, const char *topic)
{
    int64_t sum = 0;
    for (int32_t i = 0, n = partitions_of(rk, topic); i < n; i++) {
        int64_t low, high;
        rd_kafka_resp_err_t e = rd_kafka_query_watermark_offsets(rk, topic, i, &low, &high, 30000);
        if (e)
            die("offsets", rd_kafka_err2str(e));
        sum += high - low;
    }
    return sum;
}

static int64_t committed(rd_kafka_t *rk, const char *topic)
{
    int32_t n = partitions_of(rk, topic);
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
    for (int32_t i = 0; i < n; i++)
        rd_kafka_topic_partition_list_add(list, topic, i);
    rd_kafka_resp_err_t e = rd_kafka_committed(rk, list, 30000);
    if (e)
        die("committed", rd_kafka_err2str(e));
    int64_t sum = 0;
    for (int i = 0; i < list->cnt; i++)
        sum += list->elems[i].offset > 0 ? list->elems[i].offset : 0;
    rd_kafka_topic_partition_list_destroy(list);
    return sum;
}

/* ---- messages ---- */

static void pace(double per_second, uint64_t sent)
{
    static double start;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    double t = (double)now.tv_sec + (double)now.tv_nsec / 1e9;
    if (start == 0)
        start = t;
    double ahead = start + (double)sent / per_second - t;
    if (ahead > 0)
        nanosleep(&(struct timespec){(time_t)ahead, (long)((ahead - (double)(time_t)ahead) * 1e9)}, NULL);
}

/* topic or topic:partition; cuts the partition off. */
static int32_t partition_of(char *topic)
{
    char *colon = strchr(topic, ':');
    if (!colon)
        return RD_KAFKA_PARTITION_UA;
    *colon = 0;
    return atoi(colon + 1);
}

static void produce(rd_kafka_t *rk, double per_second)
{
    char *line = NULL;
    size_t cap = 0;
    uint64_t sent = 0;
    for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0; sent++) {
        if (line[n - 1] == '\n')
            line[--n] = 0;
        char *key = strchr(line, '\t'), *value = key ? strchr(key + 1, '\t') : NULL;
        if (!value)
            die(line, "expected topic TAB key TAB value");
        *key++ = *value++ = 0;
        size_t len = (size_t)(line + n - value);
        int32_t partition = partition_of(line);
        while (rd_kafka_producev(rk, RD_KAFKA_V_TOPIC(line), RD_KAFKA_V_PARTITION(partition),
                                 RD_KAFKA_V_KEY(key, strlen(key)), RD_KAFKA_V_VALUE(value, len),
                                 RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                                 RD_KAFKA_V_END) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
            rd_kafka_poll(rk, 100);
        rd_kafka_poll(rk, 0);
        if (per_second > 0)
            pace(per_second, sent + 1);
    }
    free(line);
    rd_kafka_flush(rk, 300000);
    if (failed_deliveries || rd_kafka_outq_len(rk))
        die("produce", "not everything was acknowledged");
    printf("%" PRIu64 "\n", sent);
}

static void print_message(const rd_kafka_message_t *m)
{
    rd_kafka_headers_t *headers;
    const void *reason = "";
    size_t n = 0;
    if (!rd_kafka_message_headers(m, &headers))
        rd_kafka_header_get_last(headers, "sluice-reason", &reason, &n);
    printf("%.*s\t%.*s\n", (int)n, (const char *)reason, (int)m->len, (const char *)m->payload);
}

static void put_number(uint64_t v, int bytes)
{
    for (int i = 0; i < bytes; i++)
        putchar((int)(v >> (8 * i) & 255));
}

/* All little-endian: u32 partition, u64 offset, u64 timestamp in ms, u64 header sluice-sequence (0: none),
 * u32 length, the value. */
static void dump_message(const rd_kafka_message_t *m)
{
    rd_kafka_headers_t *headers;
    rd_kafka_timestamp_type_t type;
    const void *sequence = "";
    size_t n = 0;
    char text[24];
    if (!rd_kafka_message_headers(m, &headers))
        rd_kafka_header_get_last(headers, "sluice-sequence", &sequence, &n);
    snprintf(text, sizeof text, "%.*s", (int)n, (const char *)sequence);
    put_number((uint32_t)m->partition, 4);
    put_number((uint64_t)m->offset, 8);
    put_number((uint64_t)rd_kafka_message_timestamp(m, &type), 8);
    put_number(strtoull(text, NULL, 10), 8);
    put_number(m->len, 4);
    fwrite(m->payload, 1, m->len, stdout);
}

static void read_all(rd_kafka_t *rk, const char *topic, void (*print)(const rd_kafka_message_t *m))
{
    int32_t n = partitions_of(rk, topic), ended = 0;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(n);
    for (int32_t i = 0; i < n; i++)
        rd_kafka_topic_partition_list_add(list, topic, i)->offset = RD_KAFKA_OFFSET_BEGINNING;
    rd_kafka_poll_set_consumer(rk);
    rd_kafka_assign(rk, list);
    while (ended < n) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(rk, 60000);
        if (!m)
            die(topic, "no message within a minute");
        if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF)
            ended++;
        else if (m->err)
            die(topic, rd_kafka_message_errstr(m));
        else
            print(m);
        rd_kafka_message_destroy(m);
    }
    rd_kafka_topic_partition_list_destroy(list);
    rd_kafka_consumer_close(rk);
}

static void keys(void)
{
    char *line = NULL;
    size_t cap = 0;
    for (ssize_t n; (n = getline(&line, &cap, stdin)) > 0;) {
        if (line[n - 1] == '\n')
            n--;
        slu_hash128 key = slu_hash_128(line, (size_t)n, 0);
        printf("%016" PRIx64 "%016" PRIx64 "\n", key.hi, key.lo);
    }
    free(line);
}

/* ---- events ---- */

/* Lines are held back a few places to make disorder, as a real set of producers would. */
#define HELD 8
static char held[HELD][600];

static void emit(slu_rng *rng, const char *line)
{
    uint64_t place = slu_rng_below(rng, HELD * 3);
    if (place >= HELD) {
        fputs(line, stdout);
    } else {
        fputs(held[place], stdout);
        snprintf(held[place], sizeof held[place], "%s", line);
    }
    if (slu_rng_below(rng, 20) == 0)
        fputs(line, stdout);
}

static void generate(uint64_t seed, uint64_t n, int64_t start_us)
{
    slu_rng rng;
    slu_rng_seed(&rng, seed);
    char line[600];
    int64_t t = start_us;
    for (uint64_t i = 0; i < n; i++) {
        t += (int64_t)slu_rng_below(&rng, 2000) + 1;
        uint64_t item = slu_rng_below(&rng, 200), user = slu_rng_below(&rng, 1000);
        snprintf(line, sizeof line,
                 "events\ti%" PRIu64 "-%" PRIu64 "\t{\"impression\":{\"id\":\"i%" PRIu64 "-%" PRIu64
                 "\",\"time_us\":%" PRId64 ",\"features\":{\"user\":\"u%" PRIu64 "\",\"item\":\"p%" PRIu64
                 "\",\"price\":%" PRIu64 ".5}}}\n",
                 seed, i, seed, i, t, user, item, item % 50);
        emit(&rng, line);
        static const char *const steps[] = {"click", "conversion"};
        int64_t at = t;
        for (int s = 0; s < 2 && slu_rng_below(&rng, 200) < 20 + item / 4; s++) {
            at += (int64_t)slu_rng_below(&rng, 100000);
            snprintf(line, sizeof line,
                     "steps\ti%" PRIu64 "-%" PRIu64 "\t{\"step\":{\"id\":\"%c%" PRIu64 "-%" PRIu64
                     "\",\"step\":\"%s\",\"impression_id\":\"i%" PRIu64 "-%" PRIu64 "\",\"time_us\":%" PRId64
                     "}}\n",
                     seed, i, steps[s][0], seed, i, steps[s], seed, i, at);
            emit(&rng, line);
        }
    }
    for (int i = 0; i < HELD; i++)
        fputs(held[i], stdout);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "kafka_tool BROKERS create|grow|trim|produce|count|read|generate ...\n");
        return 2;
    }
    const char *what = argv[2];
    if (!strcmp(what, "generate") && argc == 6) {
        generate(strtoull(argv[3], NULL, 10), strtoull(argv[4], NULL, 10), strtoll(argv[5], NULL, 10));
        return 0;
    }
    bool offsets = !strcmp(what, "committed") && argc == 5;
    if (!strcmp(what, "keys") && argc == 3) {
        keys();
        return 0;
    }
    bool dumps = !strcmp(what, "dump") && argc == 4;
    bool reads = offsets || dumps || !strcmp(what, "read") || !strcmp(what, "count");
    rd_kafka_t *rk =
        handle(argv[1], reads ? RD_KAFKA_CONSUMER : RD_KAFKA_PRODUCER, offsets ? argv[3] : "kafka-tool");
    if (!strcmp(what, "create") && argc >= 5)
        create(rk, argv[3], atoi(argv[4]), argv + 5, argc - 5);
    else if (!strcmp(what, "grow") && argc == 5)
        grow(rk, argv[3], strtoul(argv[4], NULL, 10));
    else if (offsets)
        printf("%" PRId64 "\n", committed(rk, argv[4]));
    else if (!strcmp(what, "trim") && argc == 6)
        trim(rk, argv[3], atoi(argv[4]), strtoll(argv[5], NULL, 10));
    else if (!strcmp(what, "produce"))
        produce(rk, argc > 3 ? atof(argv[3]) : 0);
    else if (!strcmp(what, "count") && argc == 4)
        printf("%" PRId64 "\n", count(rk, argv[3]));
    else if (!strcmp(what, "read") && argc == 4)
        read_all(rk, argv[3], print_message);
    else if (dumps)
        read_all(rk, argv[3], dump_message);
    else if (!strcmp(what, "delete") && argc == 4)
        delete_topic(rk, argv[3]);
    else
        die(what, "wrong arguments");
    rd_kafka_destroy(rk);
    return 0;
}
