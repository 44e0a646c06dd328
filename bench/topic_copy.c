#include "bench/topic_copy.h"
#include "base/broker_hint.h"
#include "base/clock.h"
#include "bench/measure.h"
#include <inttypes.h>
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BROKER_MS = 30000, NAP_MS = 500 };

typedef struct held {
    rd_kafka_message_t *m;
    int64_t time_ms;
    int64_t due_us, late_us; /* monotonic; -1: not acknowledged */
} held;

struct topic_copy {
    char *target;
    rd_kafka_t *consumer, *producer;
    rd_kafka_topic_t *to; /* of the producer */
    held *records;        /* (n) */
    size_t n, room, acknowledged;
    slu_error failed; /* of a delivery; code 0: none */
};

static void on_log(const rd_kafka_t *rk, int level, const char *facility, const char *text)
{
    (void)rk, (void)level, (void)facility, (void)text; /* what matters comes as an error */
}

static int64_t now_us(void)
{
    return slu_mono_us(&slu_system_clock);
}

static bool refused(topic_copy *c, const held *h, const rd_kafka_message_t *m)
{
    if (m->err)
        slu_fail(&c->failed, SLU_EKAFKA, "topic %s: the record of offset %" PRId64 " was not taken: %s",
                 c->target, h->m->offset, rd_kafka_err2str(m->err));
    else if (m->offset != h->m->offset)
        slu_fail(&c->failed, SLU_EKAFKA,
                 "topic %s: the record of offset %" PRId64 " got offset %" PRId64
                 "; somebody else writes into this topic: copy into one of its own",
                 c->target, h->m->offset, m->offset);
    return c->failed.code != 0;
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)rk;
    topic_copy *c = opaque;
    held *h = &c->records[(uintptr_t)m->_private];
    if (refused(c, h, m))
        return;
    h->late_us = now_us() - h->due_us;
    c->acknowledged++;
}

/* A producer gets no second try: what is not taken at once ends the copy, so order and number need no
 * idempotence, which would ask for an id first. A consumer's group is asked for by librdkafka; nothing is
 * stored under it. */
static const char *const for_producers[] = {
    "linger.ms=1", /* as the trainer's (trainer/publisher.c) */
    "message.send.max.retries=0",
    "message.timeout.ms=30000",
    "message.max.bytes=67108864",
    NULL,
};
static const char *const for_consumers[] = {
    "group.id=topic-copy",
    "enable.auto.commit=false",
    "auto.offset.reset=error",
    "fetch.wait.max.ms=100",
    NULL,
};

static int client(topic_copy *c, const char *brokers, rd_kafka_type_t type, rd_kafka_t **out, slu_error *err)
{
    char why[256], key[64];
    rd_kafka_conf_t *conf = rd_kafka_conf_new();
    rd_kafka_conf_set_opaque(conf, c);
    rd_kafka_conf_set_log_cb(conf, on_log);
    if (type == RD_KAFKA_PRODUCER)
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    rd_kafka_conf_res_t ok = rd_kafka_conf_set(conf, "bootstrap.servers", brokers, why, sizeof why);
    const char *const *set = type == RD_KAFKA_PRODUCER ? for_producers : for_consumers;
    for (; !ok && *set; set++) {
        const char *value = strchr(*set, '=');
        snprintf(key, sizeof key, "%.*s", (int)(value - *set), *set);
        ok = rd_kafka_conf_set(conf, key, value + 1, why, sizeof why);
    }
    *out = ok ? NULL : rd_kafka_new(type, conf, why, sizeof why);
    if (*out)
        return 0;
    rd_kafka_conf_destroy(conf);
    return slu_fail(err, SLU_EKAFKA, "no client for brokers %s: %s", brokers, why);
}

/* ---- reading ---- */

static int ends_of(rd_kafka_t *rk, const char *topic, int64_t *low, int64_t *high, slu_error *err)
{
    rd_kafka_resp_err_t e = rd_kafka_query_watermark_offsets(rk, topic, 0, low, high, BROKER_MS);
    return e ? slu_fail(err, SLU_EKAFKA, "topic %s, partition 0: %s; %s", topic, rd_kafka_err2str(e),
                        slu_broker_hint(rd_kafka_err2str(e)))
             : 0;
}

/* By the producer: so it knows the topic and has its connection before the first record's turn, otherwise
 * that one would wait for both, some tenths of a second. */
static int end_of_target(topic_copy *c, int64_t *end, slu_error *err)
{
    const struct rd_kafka_metadata *metadata;
    int64_t low;
    c->to = rd_kafka_topic_new(c->producer, c->target, NULL);
    if (!c->to)
        return slu_fail(err, SLU_EKAFKA, "topic %s: %s", c->target, rd_kafka_err2str(rd_kafka_last_error()));
    rd_kafka_resp_err_t e = rd_kafka_metadata(c->producer, 0, c->to, &metadata, BROKER_MS);
    if (e)
        return slu_fail(err, SLU_EKAFKA, "topic %s: %s; %s", c->target, rd_kafka_err2str(e),
                        slu_broker_hint(rd_kafka_err2str(e)));
    rd_kafka_metadata_destroy(metadata);
    return ends_of(c->producer, c->target, &low, end, err);
}

/* Takes |m| over. Returns 1, 0: the first record that is not wanted, or SLU_EFORMAT. */
static int keep(topic_copy *c, rd_kafka_message_t *m, int64_t until_ms, int64_t expected, slu_error *err)
{
    rd_kafka_timestamp_type_t type;
    int64_t time_ms = rd_kafka_message_timestamp(m, &type);
    int rc = 1;
    if (type == RD_KAFKA_TIMESTAMP_NOT_AVAILABLE)
        rc = slu_fail(err, SLU_EFORMAT, "the record of offset %" PRId64 " has no timestamp", m->offset);
    else if (m->offset != expected)
        rc = slu_fail(err, SLU_EFORMAT,
                      "offset %" PRId64 " follows where %" PRId64
                      " was expected: a compacted or transactional topic has no equal copy",
                      m->offset, expected);
    else if (until_ms && time_ms >= until_ms)
        rc = 0;
    if (rc == 1 && c->n == c->room) {
        size_t room = c->room ? 2 * c->room : 256;
        held *more = realloc(c->records, room * sizeof *more);
        if (more) {
            c->records = more;
            c->room = room;
        } else {
            rc = slu_fail(err, SLU_ENOMEM, "no memory for %zu records", room);
        }
    }
    if (rc == 1)
        c->records[c->n++] = (held){.m = m, .time_ms = time_ms, .late_us = -1};
    else
        rd_kafka_message_destroy(m);
    return rc;
}

static int read_on(topic_copy *c, const char *source, int64_t first, int64_t end, int64_t until_ms,
                   slu_error *err)
{
    int rc = 1;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, source, 0)->offset = first;
    rd_kafka_assign(c->consumer, list);
    rd_kafka_topic_partition_list_destroy(list);
    for (int64_t next = first; next < end && rc == 1; next++) {
        rd_kafka_message_t *m = rd_kafka_consumer_poll(c->consumer, BROKER_MS);
        if (m && !m->err) {
            rc = keep(c, m, until_ms, next, err);
            continue;
        }
        rc = slu_fail(err, SLU_EKAFKA, "topic %s, offset %" PRId64 ": %s", source, next,
                      m ? rd_kafka_message_errstr(m) : "no record within 30 s");
        if (m)
            rd_kafka_message_destroy(m);
    }
    rd_kafka_assign(c->consumer, NULL); /* reads nothing ahead while the records are sent */
    return rc < 0 ? rc : 0;
}

static int open_both(topic_copy *c, const char *brokers, slu_error *err)
{
    int rc = client(c, brokers, RD_KAFKA_CONSUMER, &c->consumer, err);
    if (!rc)
        rd_kafka_poll_set_consumer(c->consumer);
    return rc ? rc : client(c, brokers, RD_KAFKA_PRODUCER, &c->producer, err);
}

int topic_copy_read(const char *brokers, const char *source, const char *target, int64_t until_ms,
                    topic_copy **cp, slu_error *err)
{
    int64_t low, end, first;
    *cp = NULL;
    topic_copy *c = calloc(1, sizeof *c);
    if (!c || !(c->target = strdup(target))) {
        free(c);
        return slu_fail(err, SLU_ENOMEM, "no memory for a copy");
    }
    int rc = open_both(c, brokers, err);
    if (!rc)
        rc = ends_of(c->consumer, source, &low, &end, err);
    if (!rc)
        rc = end_of_target(c, &first, err);
    if (!rc && (first < low || first > end))
        rc = slu_fail(err, SLU_EKAFKA,
                      "topic %s ends at offset %" PRId64 ", but %s holds %" PRId64 " to %" PRId64
                      ": the one is no beginning of the other",
                      target, first, source, low, end);
    if (!rc)
        rc = read_on(c, source, first, end, until_ms, err);
    if (rc) {
        topic_copy_free(c);
        return rc;
    }
    *cp = c;
    return 0;
}

size_t topic_copy_records(const topic_copy *c)
{
    return c->n;
}

topic_copy_record topic_copy_at(const topic_copy *c, size_t i)
{
    const held *h = &c->records[i];
    return (topic_copy_record){h->m->offset, h->time_ms, h->m->payload, h->m->len};
}

/* ---- sending ---- */

/* Key and value stay where they are: the records are held until all are acknowledged. */
static rd_kafka_resp_err_t produce(topic_copy *c, size_t i)
{
    rd_kafka_message_t *m = c->records[i].m;
    rd_kafka_headers_t *theirs, *headers = NULL;
    if (!rd_kafka_message_headers(m, &theirs))
        headers = rd_kafka_headers_copy(theirs);
    rd_kafka_vu_t with[] = {
        {.vtype = RD_KAFKA_VTYPE_RKT, .u.rkt = c->to},
        {.vtype = RD_KAFKA_VTYPE_PARTITION, .u.i32 = 0},
        {.vtype = RD_KAFKA_VTYPE_KEY, .u.mem = {m->key, m->key_len}},
        {.vtype = RD_KAFKA_VTYPE_VALUE, .u.mem = {m->payload, m->len}},
        {.vtype = RD_KAFKA_VTYPE_TIMESTAMP, .u.i64 = c->records[i].time_ms},
        {.vtype = RD_KAFKA_VTYPE_OPAQUE, .u.ptr = (void *)(uintptr_t)i},
        {.vtype = RD_KAFKA_VTYPE_HEADERS, .u.headers = headers},
    };
    rd_kafka_error_t *e = rd_kafka_produceva(c->producer, with, sizeof with / sizeof *with - !headers);
    rd_kafka_resp_err_t code = rd_kafka_error_code(e);
    if (code && headers)
        rd_kafka_headers_destroy(headers);
    rd_kafka_error_destroy(e);
    return code;
}

static void sleep_until(topic_copy *c, int64_t due_us)
{
    for (int64_t left; (left = due_us - now_us()) > 0 && !c->failed.code;)
        rd_kafka_poll(c->producer, left < NAP_MS * 1000 ? (int)((left + 999) / 1000) : NAP_MS);
}

static int send_one(topic_copy *c, size_t i, slu_error *err)
{
    rd_kafka_resp_err_t e;
    sleep_until(c, c->records[i].due_us);
    while (!c->failed.code && (e = produce(c, i)) != RD_KAFKA_RESP_ERR_NO_ERROR) {
        if (e != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            return slu_fail(err, SLU_EKAFKA, "topic %s: a record cannot be sent: %s", c->target,
                            rd_kafka_err2str(e));
        rd_kafka_poll(c->producer, NAP_MS);
    }
    rd_kafka_poll(c->producer, 0);
    return 0;
}

int topic_copy_send(topic_copy *c, int64_t from_ms, slu_error *err)
{
    int64_t start = now_us();
    int rc = 0;
    for (size_t i = 0; i < c->n; i++)
        c->records[i].due_us = from_ms ? start + (c->records[i].time_ms - from_ms) * 1000 : start;
    for (size_t i = 0; i < c->n && !rc && !c->failed.code; i++)
        rc = send_one(c, i, err);
    while (!rc && !c->failed.code && c->acknowledged < c->n)
        rd_kafka_poll(c->producer, NAP_MS); /* message.timeout.ms ends it */
    return rc || !c->failed.code ? rc : slu_fail(err, c->failed.code, "%s", c->failed.message);
}

topic_copy_late topic_copy_lateness(const topic_copy *c)
{
    topic_copy_late l = {0};
    double *ms = malloc((c->n + 1) * sizeof *ms);
    if (!ms || !c->n) {
        free(ms);
        return l;
    }
    for (size_t i = 0; i < c->n; i++)
        ms[i] = (double)c->records[i].late_us / 1e3;
    qsort(ms, c->n, sizeof *ms, measure_ascending);
    l.p99_ms = ms[c->n * 99 / 100];
    l.worst_ms = ms[c->n - 1];
    free(ms);
    return l;
}

void topic_copy_free(topic_copy *c)
{
    if (!c)
        return;
    if (c->producer) {
        if (c->to)
            rd_kafka_topic_destroy(c->to);
        rd_kafka_purge(c->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        rd_kafka_destroy(c->producer);
    }
    for (size_t i = 0; i < c->n; i++)
        rd_kafka_message_destroy(c->records[i].m);
    if (c->consumer) {
        rd_kafka_consumer_close(c->consumer);
        rd_kafka_destroy(c->consumer);
    }
    free(c->records);
    free(c->target);
    free(c);
}
