#include "serving/delta_topic.h"
#include "base/broker_hint.h"
#include "base/clock.h"
#include "base/log.h"
#include <librdkafka/rdkafka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <syslog.h>

#define COMPONENT     "subscriber"
#define FIRST_WAIT_US SLU_SECOND_US
#define LAST_WAIT_US  (60 * SLU_SECOND_US)

struct delta_topic {
    rd_kafka_t *consumer;
    rd_kafka_message_t *held; /* whose bytes the caller looks at */
    const char *topic;
    int64_t next;           /* offset wanted next, -1: the beginning */
    int64_t reassign_at_us; /* monotonic; 0: the assignment stands */
    int64_t log_at_us, wait_us;
    bool broker; /* the trouble is one of connections */
    char trouble[256];
};

/* ---- settings ---- */

/* Ours alone: they decide what is read. */
static const char *const reserved[] = {"bootstrap.servers",
                                       "metadata.broker.list",
                                       "group.id",
                                       "client.id",
                                       "enable.auto.commit",
                                       "enable.auto.offset.store",
                                       "enable.partition.eof",
                                       "allow.auto.create.topics",
                                       "auto.offset.reset",
                                       NULL};

static const struct {
    const char *key, *value;
} settings[] = {
    {"group.id", "sluice-scorer"}, /* asked for by librdkafka; nothing is ever stored under it */
    {"enable.auto.commit", "false"},
    {"enable.auto.offset.store", "false"},
    {"enable.partition.eof", "true"},
    {"allow.auto.create.topics", "false"}, /* a topic that consumers make may get other settings */
    {"auto.offset.reset", "error"},        /* a gap in the topic must be seen */
    {"topic.metadata.refresh.interval.ms", "5000"},
    {"fetch.error.backoff.ms", "100"},
    {"queued.max.messages.kbytes", "16384"}, /* serving/scorer_memory.c counts on these two */
    {"fetch.max.bytes", "16777216"},
    {"fetch.wait.max.ms", "100"},
    {"reconnect.backoff.max.ms", "2000"},
    {"log.connection.close", "false"},
    {NULL, NULL},
};

/* Logged at once, then ever more rarely. */
static void troubled(delta_topic *t, const char *what, const char *reason, const char *remedy)
{
    int64_t now = slu_mono_us(&slu_system_clock);
    snprintf(t->trouble, sizeof t->trouble, "%s: %s", what, reason);
    if (now < t->log_at_us)
        return;
    t->wait_us = t->wait_us ? 2 * t->wait_us : FIRST_WAIT_US;
    if (t->wait_us > LAST_WAIT_US)
        t->wait_us = LAST_WAIT_US;
    t->log_at_us = now + t->wait_us;
    SLU_WARN(COMPONENT, what, SLU_STR("reason", reason), SLU_STR("topic", t->topic),
             SLU_STR("remedy", remedy));
}

static void trouble_over(delta_topic *t)
{
    if (t->trouble[0])
        SLU_INFO(COMPONENT, "the delta topic can be read again", SLU_STR("topic", t->topic));
    t->trouble[0] = 0;
    t->broker = false;
    t->log_at_us = t->wait_us = 0;
}

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk;
    if (strcmp(facility, "FAIL") == 0 || strcmp(facility, "ERROR") == 0)
        return; /* comes through on_error, with a budget */
    if (strcmp(facility, "AUTOCREATE") == 0)
        return; /* what a broker without the setting does is its own affair, and nothing to repeat each minute
                 */
    if (level <= LOG_WARNING)
        SLU_WARN("rdkafka", text, SLU_STR("facility", facility));
    else
        SLU_DEBUG("rdkafka", text, SLU_STR("facility", facility));
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
    (void)rk;
    delta_topic *t = opaque;
    bool down = code == RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN;
    if (down && t->broker)
        return; /* it follows from something that says more */
    t->broker = true;
    troubled(t, down ? "no broker is reachable" : "trouble with Kafka", reason, slu_broker_hint(reason));
}

static int set(rd_kafka_conf_t *conf, const char *key, const char *value, slu_error *err)
{
    char why[256];
    if (rd_kafka_conf_set(conf, key, value, why, sizeof why) == RD_KAFKA_CONF_OK)
        return 0;
    return slu_fail(err, SLU_ECONFIG, "kafka.rdkafka: '%s': %s (the properties are those of librdkafka %s)",
                    key, why, rd_kafka_version_str());
}

static int set_user(rd_kafka_conf_t *conf, const slu_kv_opts *entry, slu_error *err)
{
    for (const char *const *r = reserved; *r; r++)
        if (!strcmp(*r, entry->key))
            return slu_fail(err, SLU_ECONFIG,
                            "kafka.rdkafka: '%s' cannot be set: Sluice decides it itself or has a key "
                            "of its own under kafka",
                            entry->key);
    return set(conf, entry->key, entry->value, err);
}

static int make_consumer(const slu_options *options, delta_topic *t, rd_kafka_t **out, slu_error *err)
{
    const slu_kafka_opts *k = &options->kafka;
    char why[512];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_opaque(conf, t);
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_error_cb(conf, on_error);
    int rc = set(conf, "bootstrap.servers", k->brokers, err);
    if (!rc && k->client_id)
        rc = set(conf, "client.id", k->client_id, err);
    for (size_t i = 0; !rc && settings[i].key; i++)
        rc = set(conf, settings[i].key, settings[i].value, err);
    for (uint32_t i = 0; !rc && i < k->n_rdkafka; i++)
        rc = set_user(conf, &k->rdkafka[i], err);
    if (!rc) {
        *out = rd_kafka_new(RD_KAFKA_CONSUMER, conf, why, sizeof why);
        if (*out)
            return 0;
        rc =
            slu_fail(err, SLU_ECONFIG, "the Kafka consumer cannot be set up: %s; look at kafka.rdkafka", why);
    }
    rd_kafka_conf_destroy(conf);
    return rc;
}

/* ---- reading ---- */

static void assign(delta_topic *t)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, t->topic, 0)->offset =
        t->next < 0 ? RD_KAFKA_OFFSET_BEGINNING : t->next;
    rd_kafka_resp_err_t e = rd_kafka_assign(t->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    t->reassign_at_us = 0;
    if (e)
        troubled(t, "the delta topic cannot be assigned", rd_kafka_err2str(e),
                 "trying again; look at the broker");
}

int delta_topic_open(const slu_options *options, int64_t offset, delta_topic **tp, slu_error *err)
{
    *tp = NULL;
    delta_topic *t = calloc(1, sizeof *t);
    if (!t)
        return slu_fail(err, SLU_ENOMEM, "no memory for the delta topic");
    t->topic = options->kafka.delta_topic;
    t->next = offset;
    int rc = make_consumer(options, t, &t->consumer, err);
    if (rc) {
        free(t);
        return rc;
    }
    rd_kafka_poll_set_consumer(t->consumer);
    assign(t);
    *tp = t;
    return 0;
}

static void let_go(delta_topic *t)
{
    if (t->held)
        rd_kafka_message_destroy(t->held);
    t->held = NULL;
}

void delta_topic_close(delta_topic *t)
{
    if (!t)
        return;
    let_go(t);
    rd_kafka_consumer_close(t->consumer);
    rd_kafka_destroy(t->consumer);
    free(t);
}

const char *delta_topic_trouble(const delta_topic *t)
{
    return t->trouble;
}

/* After an error that ends the fetching the partition is assigned again, a little later. */
static void assign_later(delta_topic *t)
{
    t->reassign_at_us = slu_mono_us(&slu_system_clock) + SLU_SECOND_US;
}

static delta_event take_error(delta_topic *t, const rd_kafka_message_t *m)
{
    switch (m->err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        trouble_over(t);
        return DELTA_END;
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
        SLU_WARN(COMPONENT,
                 "the delta topic no longer holds the offset that was reached; reading it from its beginning",
                 SLU_STR("topic", t->topic), SLU_I64("offset", t->next));
        t->next = -1;
        assign(t);
        return DELTA_REWOUND;
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        troubled(t, "the delta topic is not there yet", rd_kafka_err2str(m->err),
                 "look at kafka.delta_topic and at the trainer");
        assign_later(t);
        return DELTA_NOTHING;
    default:
        troubled(t, "the delta topic cannot be read", rd_kafka_message_errstr(m),
                 slu_broker_hint(rd_kafka_message_errstr(m)));
        assign_later(t);
        return DELTA_NOTHING;
    }
}

delta_event delta_topic_next(delta_topic *t, int timeout_ms, delta_message *out)
{
    let_go(t);
    if (t->reassign_at_us && slu_mono_us(&slu_system_clock) >= t->reassign_at_us)
        assign(t);
    rd_kafka_message_t *m = rd_kafka_consumer_poll(t->consumer, timeout_ms);
    if (!m)
        return DELTA_NOTHING;
    if (m->err) {
        delta_event e = take_error(t, m);
        rd_kafka_message_destroy(m);
        return e;
    }
    trouble_over(t);
    t->held = m;
    t->next = m->offset + 1;
    *out = (delta_message){m->payload, m->len, m->offset};
    return DELTA_MESSAGE;
}

int delta_topic_check(const slu_options *options, int timeout_ms, slu_error *err)
{
    delta_topic t = {.topic = options->kafka.delta_topic, .log_at_us = INT64_MAX}; /* silent */
    const struct rd_kafka_metadata *metadata = NULL;
    int rc = make_consumer(options, &t, &t.consumer, err);
    if (rc)
        return rc;
    rd_kafka_resp_err_t e = rd_kafka_metadata(t.consumer, 0, NULL, &metadata, timeout_ms);
    rd_kafka_poll(t.consumer, 0); /* lets on_error say more */
    if (e)
        slu_fail(err, SLU_EKAFKA, "no broker of kafka.brokers (%s) answered within %d ms: %s; %s",
                 options->kafka.brokers, timeout_ms, t.trouble[0] ? t.trouble : rd_kafka_err2str(e),
                 slu_broker_hint(t.trouble));
    if (metadata)
        rd_kafka_metadata_destroy(metadata);
    rd_kafka_destroy(t.consumer);
    return e ? SLU_EKAFKA : 0;
}
