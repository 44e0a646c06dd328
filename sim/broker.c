/* sluice-sim broker: librdkafka's mock cluster in a process of its own. */
#include "sim/command.h"
#include <librdkafka/rdkafka.h>
#include <librdkafka/rdkafka_mock.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int make_topics(rd_kafka_mock_cluster_t *cluster, const slu_options *o, int partitions)
{
    for (uint32_t i = 0; i < o->kafka.n_topics; i++)
        if (rd_kafka_mock_topic_create(cluster, o->kafka.topics[i], partitions, 1))
            return -1;
    /* One partition: deltas have a total order. */
    if (rd_kafka_mock_topic_create(cluster, o->kafka.delta_topic, 1, 1))
        return -1;
    return o->kafka.dead_letter_topic ? rd_kafka_mock_topic_create(cluster, o->kafka.dead_letter_topic, 1, 1)
                                      : 0;
}

int slu_sim_broker(int argc, char **argv)
{
    const char *partitions_text = NULL;
    const slu_cli_option options[] = {
        {"--partitions", "N", "partitions of each event topic (default 2)", &partitions_text},
        {NULL, NULL, NULL, NULL},
    };
    slu_cli cli = {
        .program = "sluice-sim broker",
        .summary =
            "A development broker: librdkafka's mock cluster with the topics of the config, on a free\n"
            "port of the loopback interface. Prints its address on the first line and runs until\n"
            "SIGTERM. It keeps the last 5 MiB or 100,000 messages of a partition, in memory only.",
        .example = "  sluice-sim broker --config examples/ads.yaml\n  127.0.0.1:34567\n",
        .options = options,
        .needs_config = true};
    slu_cli_parse(&cli, argc, argv);
    int partitions = (int)slu_sim_number(cli.program, "--partitions", partitions_text, 2, 1, 64);
    slu_options *o;
    slu_schema *schema;
    slu_sim_load(&cli, &o, &schema);
    slu_daemon_signals();

    char why[512];
    int status = 1;
    rd_kafka_mock_cluster_t *cluster = NULL;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set(conf, "log_level", "4", NULL, 0); /* that it has no broker to talk to is no news */
    rd_kafka_t *rk = rd_kafka_new(RD_KAFKA_PRODUCER, conf, why, sizeof why);
    if (!rk) {
        fprintf(stderr, "%s: librdkafka: %s\n", cli.program, why);
        goto done;
    }
    cluster = rd_kafka_mock_cluster_new(rk, 1);
    if (!cluster || make_topics(cluster, o, partitions)) {
        fprintf(stderr, "%s: the mock cluster or its topics could not be made\n", cli.program);
        goto done;
    }
    printf("%s\n", rd_kafka_mock_cluster_bootstraps(cluster));
    fflush(stdout);
    while (!slu_stop_requested)
        rd_kafka_poll(rk, 200);
    status = 0;
done:
    if (cluster)
        rd_kafka_mock_cluster_destroy(cluster);
    if (rk)
        rd_kafka_destroy(rk);
    slu_schema_free(schema);
    slu_options_free(o);
    slu_cli_free(&cli);
    return status;
}
