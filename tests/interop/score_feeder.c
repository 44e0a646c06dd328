/* score_feeder CONFIG [BROKERS]: a trainer that has learned nothing, for tests of the real scorer, and,
 * without BROKERS, a broker in memory (which keeps 5 MB).
 *
 * Prints "brokers=HOST:PORT" and then obeys lines on stdin: "base" publishes a base of the next version,
 * "delta" a delta after it, "foreign" a base of another schema; a number behind the word says how many rows
 * each table gets, all of ids that no other version has. Each line is answered with "version=N". Ends at the
 * end of stdin. */
#include "base/rng.h"
#include "model/spec.h"
#include "serving/served.h"
#include "trainer/delta.h"
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define CHUNK_BYTES       20000
#define LARGE_CHUNK_BYTES 500000

typedef struct feeder {
    slu_options *options;
    slu_schema *schema;
    slu_net *net;
    slu_delta_builder *builder;
    rd_kafka_t *producer;
    rd_kafka_mock_cluster_t *cluster; /* NULL: a real broker */
    float *dense;
    uint64_t version;
} feeder;

static void die(const char *why)
{
    fprintf(stderr, "score_feeder: %s\n", why);
    exit(1);
}

static void connect_to(feeder *f, const char *brokers)
{
    char why[256];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    if (brokers && rd_kafka_conf_set(conf, "bootstrap.servers", brokers, why, sizeof why))
        die(why);
    f->producer = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (!f->producer)
        die(why);
    if (!brokers) {
        rd_kafka_mock_cluster_t *cluster = f->cluster = rd_kafka_mock_cluster_new(f->producer, 1);
        rd_kafka_mock_topic_create(cluster, f->options->kafka.delta_topic, 1, 1);
        brokers = rd_kafka_mock_cluster_bootstraps(cluster);
        rd_kafka_brokers_add(f->producer, brokers);
    }
    printf("brokers=%s\n", brokers);
    fflush(stdout);
}

static void set_up(feeder *f, const char *config, const char *brokers)
{
    slu_error err = SLU_ERROR_INIT;
    uint32_t served[SLU_MAX_FEATURES];
    if (slu_options_load(config, NULL, 0, &f->options, &err) ||
        slu_schema_new(f->options, &f->schema, &err) ||
        slu_net_of(f->options, slu_schema_inputs(f->schema), &f->net, &err))
        die(err.message);
    served_floats(f->options, f->schema, served);
    f->builder = slu_delta_builder_new(served, slu_schema_tables(f->schema),
                                       brokers ? LARGE_CHUNK_BYTES : CHUNK_BYTES);
    f->dense = calloc(slu_net_params(f->net), sizeof *f->dense);
    slu_net_init(f->net, f->dense);
    connect_to(f, brokers);
}

static void tear_down(feeder *f)
{
    if (f->cluster)
        rd_kafka_mock_cluster_destroy(f->cluster);
    rd_kafka_destroy(f->producer);
    free(f->dense);
    slu_delta_builder_free(f->builder);
    slu_net_free(f->net);
    slu_schema_free(f->schema);
    slu_options_free(f->options);
}

static void emit(void *ctx, const void *message, size_t len)
{
    feeder *f = ctx;
    if (rd_kafka_producev(f->producer, RD_KAFKA_V_TOPIC(f->options->kafka.delta_topic),
                          RD_KAFKA_V_PARTITION(0), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY),
                          RD_KAFKA_V_VALUE((void *)message, len), RD_KAFKA_V_END))
        die("the broker in memory refuses a message");
}

/* Rows that no request will find: only their number matters here. */
static void add_rows(feeder *f, uint64_t n)
{
    float row[256] = {0};
    for (uint32_t t = 0; t < slu_schema_tables(f->schema); t++)
        for (uint64_t i = 0; i < n; i++)
            slu_delta_row(f->builder, t, slu_mix64(f->version << 24 | i), row);
}

static void publish(feeder *f, bool base, bool foreign, uint64_t rows)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    int64_t us = (int64_t)now.tv_sec * 1000000 + now.tv_nsec / 1000;
    f->version++;
    slu_delta_head head = {.lineage = 1,
                           .version = f->version,
                           .previous_version = f->version - 1,
                           .base = base,
                           .schema_fingerprint = foreign ? 1 : slu_schema_fingerprint(f->schema),
                           .schema_text = foreign ? "step \"swipe\"\n" : slu_schema_text(f->schema),
                           .learned_through_us = us,
                           .committed_us = us};
    slu_delta_begin(f->builder, &head);
    add_rows(f, rows ? rows : base ? 300 : 50);
    slu_delta_dense(f->builder, f->dense, slu_net_params(f->net));
    slu_delta_finish(f->builder, emit, f);
    if (rd_kafka_flush(f->producer, 60000))
        die("the broker does not take messages");
    printf("version=%llu\n", (unsigned long long)f->version);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    feeder f = {0};
    char line[64], word[16];
    if (argc != 2 && argc != 3)
        die("usage: score_feeder CONFIG [BROKERS]");
    set_up(&f, argv[1], argc == 3 ? argv[2] : NULL);
    while (fgets(line, sizeof line, stdin)) {
        unsigned long rows = 0;
        if (sscanf(line, "%15s %lu", word, &rows) < 1)
            continue;
        if (!strcmp(word, "base"))
            publish(&f, true, false, rows);
        else if (!strcmp(word, "delta"))
            publish(&f, false, false, rows);
        else if (!strcmp(word, "foreign"))
            publish(&f, true, true, rows);
        else
            die("commands are base, delta and foreign");
    }
    tear_down(&f);
    return 0;
}
