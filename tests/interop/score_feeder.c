/* score_feeder CONFIG: a broker in memory and a trainer that has learned nothing, for tests of the real
 * scorer.
 *
 * Prints "brokers=HOST:PORT" and then obeys lines on stdin: "base" publishes a base of the next version,
 * "delta" a delta after it, "foreign" a base of another schema; each is answered with "version=N". Ends at
 * the end of stdin. */
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

#define CHUNK_BYTES 20000

typedef struct feeder {
    slu_options *options;
    slu_schema *schema;
    slu_net *net;
    slu_delta_builder *builder;
    rd_kafka_t *producer;
    float *dense;
    uint64_t version;
} feeder;

static void die(const char *why)
{
    fprintf(stderr, "score_feeder: %s\n", why);
    exit(1);
}

static void set_up(feeder *f, const char *config)
{
    slu_error err = SLU_ERROR_INIT;
    slu_net_spec spec;
    uint32_t served[SLU_MAX_FEATURES];
    char why[256];
    if (slu_options_load(config, NULL, 0, &f->options, &err) ||
        slu_schema_new(f->options, &f->schema, &err) ||
        slu_net_spec_of(f->options, slu_schema_inputs(f->schema), &spec, &err) ||
        slu_net_build(&spec, &f->net, &err))
        die(err.message);
    served_floats(f->options, f->schema, served);
    f->builder = slu_delta_builder_new(served, slu_schema_tables(f->schema), CHUNK_BYTES);
    f->dense = calloc(slu_net_params(f->net), sizeof *f->dense);
    slu_net_init(f->net, f->dense);
    f->producer = rd_kafka_new(RD_KAFKA_PRODUCER, rd_kafka_conf_new(), why, sizeof why);
    if (!f->producer)
        die(why);
    rd_kafka_mock_cluster_t *cluster = rd_kafka_mock_cluster_new(f->producer, 1);
    rd_kafka_mock_topic_create(cluster, f->options->kafka.delta_topic, 1, 1);
    rd_kafka_brokers_add(f->producer, rd_kafka_mock_cluster_bootstraps(cluster));
    printf("brokers=%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
    fflush(stdout);
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
            slu_delta_row(f->builder, t, slu_mix64(f->version << 20 | i), row);
}

static void publish(feeder *f, bool base, bool foreign)
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
    add_rows(f, base ? 300 : 50);
    slu_delta_dense(f->builder, f->dense, slu_net_params(f->net));
    slu_delta_finish(f->builder, emit, f);
    if (rd_kafka_flush(f->producer, 10000))
        die("the broker in memory does not take messages");
    printf("version=%llu\n", (unsigned long long)f->version);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    feeder f = {0};
    char line[64];
    if (argc != 2)
        die("usage: score_feeder CONFIG");
    set_up(&f, argv[1]);
    while (fgets(line, sizeof line, stdin)) {
        if (!strcmp(line, "base\n"))
            publish(&f, true, false);
        else if (!strcmp(line, "delta\n"))
            publish(&f, false, false);
        else if (!strcmp(line, "foreign\n"))
            publish(&f, true, true);
        else
            die("commands are base, delta and foreign");
    }
    return 0;
}
