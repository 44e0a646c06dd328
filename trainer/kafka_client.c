#include "trainer/kafka_client.h"
#include "base/broker_hint.h"
#include "base/clock.h"
#include "base/log.h"
#include "feature/event.h"
#include "trainer/watermark.h"
#include <stdio.h>
#include <string.h>
#include <syslog.h>

#define FIRST_BACKOFF_US (5 * SLU_SECOND_US)
#define LAST_BACKOFF_US  (60 * SLU_SECOND_US)

/* Ours alone, with the key to use instead or the reason. */
static const struct {
    const char *key, *instead;
} reserved[] = {
    {"bootstrap.servers", "set kafka.brokers"},
    {"metadata.broker.list", "set kafka.brokers"},
    {"group.id", "set kafka.group"},
    {"client.id", "set kafka.client_id"},
    {"enable.auto.commit", "offsets are committed with the model"},
    {"enable.auto.offset.store", "offsets are committed with the model"},
    {"auto.offset.reset", "the trainer starts at the beginning once and never skips"},
    {"enable.partition.eof", "the trainer needs it"},
    {"enable.idempotence", "deltas must arrive once and in order"},
    {"transactional.id", "the trainer does not use transactions"},
};

static int refuse_reserved(const char *key, slu_error *err)
{
    for (size_t i = 0; i < sizeof reserved / sizeof *reserved; i++)
        if (strcmp(reserved[i].key, key) == 0)
            return slu_fail(err, SLU_ECONFIG, "kafka.rdkafka: '%s' cannot be set: %s", key,
                            reserved[i].instead);
    return 0;
}

/* librdkafka's own lines. Connection failures come through on_error with a budget, so they are left out; so
 * is a complaint about old brokers that would come with every look for new partitions. */
static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk;
    static const char *const left_out[] = {"FAIL", "ERROR", "AUTOCREATE"};
    for (size_t i = 0; i < sizeof left_out / sizeof *left_out; i++)
        if (strcmp(facility, left_out[i]) == 0)
            return;
    if (level <= LOG_ERR)
        SLU_ERROR("rdkafka", text, SLU_STR("facility", facility));
    else if (level <= LOG_WARNING)
        SLU_WARN("rdkafka", text, SLU_STR("facility", facility));
    else
        SLU_DEBUG("rdkafka", text, SLU_STR("facility", facility));
}

static void on_error(rd_kafka_t *rk, int code, const char *reason, void *opaque)
{
    slu_kafka_trouble *t = opaque;
    if (code == RD_KAFKA_RESP_ERR__FATAL)
        rd_kafka_fatal_error(rk, t->fatal, sizeof t->fatal);
    /* That all brokers are down follows from something that says more. */
    if (code != RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN || !t->reason[0])
        snprintf(t->reason, sizeof t->reason, "%s", reason);
    int64_t now = slu_mono_us(&slu_system_clock);
    t->newest_us = now;
    if (now < t->next_log_us)
        return;
    t->backoff_us = t->backoff_us ? 2 * t->backoff_us : FIRST_BACKOFF_US;
    if (t->backoff_us > LAST_BACKOFF_US)
        t->backoff_us = LAST_BACKOFF_US;
    t->next_log_us = now + t->backoff_us;
    SLU_WARN(t->component, "trouble with Kafka; trying again", SLU_STR("reason", reason),
             SLU_STR("code", rd_kafka_err2name(code)), SLU_STR("remedy", slu_broker_hint(t->reason)));
}

int64_t slu_kafka_stamp(rd_kafka_timestamp_type_t type, int64_t ms)
{
    bool stamped = type != RD_KAFKA_TIMESTAMP_NOT_AVAILABLE && ms > 0 && ms <= SLU_MAX_TIME_US / 1000;
    return stamped ? ms * 1000 : SLU_NO_STAMP;
}

void slu_kafka_trouble_over(slu_kafka_trouble *t)
{
    if (t->backoff_us)
        SLU_INFO(t->component, "Kafka answers again");
    t->reason[0] = 0;
    t->backoff_us = t->next_log_us = 0;
}

static int set(rd_kafka_conf_t *conf, const char *key, const char *value, slu_error *err)
{
    char why[256];
    if (rd_kafka_conf_set(conf, key, value, why, sizeof why) == RD_KAFKA_CONF_OK)
        return 0;
    return slu_fail(err, SLU_ECONFIG, "kafka.rdkafka: '%s': %s (the properties are those of librdkafka %s)",
                    key, why, rd_kafka_version_str());
}

int slu_kafka_conf_new(const slu_options *options, const slu_kafka_setting *settings,
                       slu_kafka_trouble *trouble, rd_kafka_conf_t **out, slu_error *err)
{
    const slu_kafka_opts *k = &options->kafka;
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    *out = NULL;
    rd_kafka_conf_set_opaque(conf, trouble);
    rd_kafka_conf_set_log_cb(conf, on_log);
    rd_kafka_conf_set_error_cb(conf, on_error);
    int rc = set(conf, "bootstrap.servers", k->brokers, err);
    if (!rc && k->client_id)
        rc = set(conf, "client.id", k->client_id, err);
    /* A quiet connection that the broker closes is no trouble. */
    if (!rc)
        rc = set(conf, "log.connection.close", "false", err);
    if (!rc)
        rc = set(conf, "reconnect.backoff.max.ms", "2000", err);
    for (; !rc && settings->key; settings++)
        rc = set(conf, settings->key, settings->value, err);
    for (uint32_t i = 0; !rc && i < k->n_rdkafka; i++) {
        rc = refuse_reserved(k->rdkafka[i].key, err);
        if (!rc)
            rc = set(conf, k->rdkafka[i].key, k->rdkafka[i].value, err);
    }
    if (rc) {
        rd_kafka_conf_destroy(conf);
        return rc;
    }
    *out = conf;
    return 0;
}

rd_kafka_t *slu_kafka_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, slu_error *err)
{
    char why[512];
    rd_kafka_t *rk = rd_kafka_new(type, conf, why, sizeof why);
    if (!rk) {
        rd_kafka_conf_destroy(conf);
        slu_fail(err, SLU_ECONFIG, "the Kafka %s cannot be set up: %s; look at kafka.rdkafka",
                 type == RD_KAFKA_PRODUCER ? "producer" : "consumer", why);
    }
    return rk;
}
