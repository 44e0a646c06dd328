/* sluice-sim topics: makes the topics of a config at a broker. */
#include "sim/command.h"
#include "trainer/kafka_client.h"
#include <stdio.h>
#include <string.h>

enum { TIMEOUT_MS = 15000, MAX_TOPICS = 64 };

static int add_topic(rd_kafka_NewTopic_t **topics, size_t *n, const char *name, int partitions,
                     slu_error *err)
{
    char why[256];
    if (*n == MAX_TOPICS)
        return slu_fail(err, SLU_ELIMIT, "kafka.topics: more than %d", MAX_TOPICS);
    topics[*n] = rd_kafka_NewTopic_new(name, partitions, -1 /* the broker's default */, why, sizeof why);
    if (!topics[*n])
        return slu_fail(err, SLU_ECONFIG, "topic %s: %s", name, why);
    ++*n;
    return 0;
}

/* What became of each: existing topics are as good as new ones. */
static int tell(const rd_kafka_CreateTopics_result_t *result, slu_error *err)
{
    size_t n;
    const rd_kafka_topic_result_t **topics = rd_kafka_CreateTopics_result_topics(result, &n);
    for (size_t i = 0; i < n; i++) {
        rd_kafka_resp_err_t e = rd_kafka_topic_result_error(topics[i]);
        const char *name = rd_kafka_topic_result_name(topics[i]);
        if (e && e != RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS)
            return slu_fail(err, SLU_EKAFKA, "topic %s: %s", name,
                            rd_kafka_topic_result_error_string(topics[i]));
        printf("%s %s\n", name, e ? "exists" : "made");
    }
    return 0;
}

static int create(rd_kafka_t *rk, rd_kafka_NewTopic_t **topics, size_t n, slu_error *err)
{
    rd_kafka_queue_t *queue = rd_kafka_queue_new(rk);
    rd_kafka_AdminOptions_t *options = rd_kafka_AdminOptions_new(rk, RD_KAFKA_ADMIN_OP_CREATETOPICS);
    char why[256];
    rd_kafka_AdminOptions_set_request_timeout(options, TIMEOUT_MS, why, sizeof why);
    rd_kafka_CreateTopics(rk, topics, n, options, queue);
    rd_kafka_event_t *event = rd_kafka_queue_poll(queue, TIMEOUT_MS + 1000);
    int rc;
    if (!event)
        rc = slu_fail(err, SLU_EKAFKA, "no answer from the broker");
    else if (rd_kafka_event_error(event))
        rc = slu_fail(err, SLU_EKAFKA, "%s", rd_kafka_event_error_string(event));
    else
        rc = tell(rd_kafka_event_CreateTopics_result(event), err);
    if (event)
        rd_kafka_event_destroy(event);
    rd_kafka_AdminOptions_destroy(options);
    rd_kafka_queue_destroy(queue);
    return rc;
}

static int make_all(const slu_options *o, int partitions, slu_error *err)
{
    static const slu_kafka_setting none[] = {{NULL, NULL}};
    slu_kafka_trouble trouble = {.component = "sim"};
    rd_kafka_NewTopic_t *topics[MAX_TOPICS];
    rd_kafka_conf_t *conf;
    size_t n = 0;
    int rc = slu_kafka_conf_new(o, none, &trouble, &conf, err);
    if (rc)
        return rc;
    rd_kafka_t *rk = slu_kafka_new(RD_KAFKA_PRODUCER, conf, err);
    if (!rk)
        return err->code;
    for (uint32_t i = 0; !rc && i < o->kafka.n_topics; i++)
        rc = add_topic(topics, &n, o->kafka.topics[i], partitions, err);
    /* One partition: deltas have a total order. */
    if (!rc)
        rc = add_topic(topics, &n, o->kafka.delta_topic, 1, err);
    if (!rc && o->kafka.dead_letter_topic)
        rc = add_topic(topics, &n, o->kafka.dead_letter_topic, 1, err);
    if (!rc)
        rc = create(rk, topics, n, err);
    rd_kafka_NewTopic_destroy_array(topics, n);
    rd_kafka_destroy(rk);
    return rc;
}

int slu_sim_topics(int argc, char **argv)
{
    const char *partitions_text = NULL;
    const slu_cli_option options[] = {
        {"--partitions", "N", "partitions of each event topic (default 2)", &partitions_text},
        {NULL, NULL, NULL, NULL},
    };
    slu_cli cli = {
        .program = "sluice-sim topics",
        .summary =
            "Makes the topics of the config at kafka.brokers: events with --partitions each, deltas and\n"
            "dead letters with one. Topics that exist stay as they are.",
        .example = "  sluice-sim topics --config examples/ads.yaml --set kafka.brokers=127.0.0.1:9092\n",
        .options = options,
        .needs_config = true};
    slu_cli_parse(&cli, argc, argv);
    int partitions = (int)slu_sim_number(cli.program, "--partitions", partitions_text, 2, 1, 10000);
    slu_options *o;
    slu_schema *schema;
    slu_sim_load(&cli, &o, &schema);
    slu_error err = SLU_ERROR_INIT;
    int rc = make_all(o, partitions, &err);
    if (rc)
        fprintf(stderr, "%s: %s: %s\n", cli.program, o->kafka.brokers, err.message);
    slu_schema_free(schema);
    slu_options_free(o);
    slu_cli_free(&cli);
    return rc != 0;
}
