#include "trainer/order_source.h"
#include "base/broker_hint.h"
#include "base/clock.h"
#include "store/state.h"
#include "trainer/kafka_client.h"
#include "trainer/kafka_mark.h"
#include "trainer/order_log.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Each partition has a queue of its own in librdkafka (the simple consumer), so whichever the order names
 * next is at hand. Offsets only ever rise within a partition, and what the live run skipped does not exist:
 * there is no seeking. */

#define QUEUED_KBYTES       (128u * 1024) /* of all partitions, unless they are very many */
#define METADATA_TIMEOUT_MS 10000
#define SILENCE_US          (60 * SLU_SECOND_US) /* of a broker that should have the event */

typedef struct partition {
    char *topic;
    int32_t number;
    int64_t first; /* first offset that the order wants, -1: none */
    rd_kafka_topic_t *handle;
    bool started;
} partition;

typedef struct order_source {
    slu_source base;
    const slu_options *options;
    slu_store *from;
    slu_kafka_trouble trouble;
    rd_kafka_t *rk;
    partition *parts; /* (n) in order of first use */
    uint32_t n, cap;
    rd_kafka_message_t *current; /* of the record handed out */
    int64_t waiting_us;          /* monotonic: since when nothing came; 0: something did */

    uint64_t first, until, version; /* |version| is being read */
    slu_buf value;
    slu_order_reader *order; /* of |version|; NULL: begin it */
    uint32_t *places;        /* (n_places) place in |order| -> parts */
    uint32_t n_places;
    slu_order_run run; /* what is left of it; count 0: read the next */
    bool commit_due;
    uint64_t done, total; /* records */
} order_source;

/* ---- partitions ---- */

static uint32_t find_partition(const order_source *s, slu_partition part)
{
    uint32_t i = 0;
    while (i < s->n && (s->parts[i].number != part.partition || strcmp(s->parts[i].topic, part.topic) != 0))
        i++;
    return i;
}

static int add_partition(order_source *s, slu_partition part, slu_error *err)
{
    if (s->n == s->cap) {
        uint32_t cap = s->cap ? 2 * s->cap : 16;
        partition *parts = realloc(s->parts, cap * sizeof *parts);
        if (!parts)
            return slu_fail(err, SLU_ENOMEM, "out of memory for %u partitions", cap);
        s->parts = parts;
        s->cap = cap;
    }
    char *topic = strdup(part.topic);
    if (!topic)
        return slu_fail(err, SLU_ENOMEM, "out of memory for partitions");
    s->parts[s->n++] = (partition){.topic = topic, .number = part.partition, .first = -1};
    return 0;
}

/* ---- the order ---- */

/* Opens the order in |value| and finds its partitions, adding new ones. */
static int open_order(order_source *s, const void *value, size_t len, slu_error *err)
{
    slu_order_close(s->order);
    int rc = slu_order_open(value, len, &s->order, err);
    if (rc)
        return rc;
    uint32_t n = slu_order_partitions(s->order);
    uint32_t *places = realloc(s->places, (n + 1) * sizeof *places);
    if (!places)
        return slu_fail(err, SLU_ENOMEM, "out of memory for %u partitions", n);
    s->places = places;
    s->n_places = n;
    for (uint32_t i = 0; i < n; i++) {
        slu_partition part = slu_order_partition(s->order, i);
        places[i] = find_partition(s, part);
        if (places[i] == s->n)
            rc = add_partition(s, part, err);
        if (rc)
            return rc;
    }
    return 0;
}

typedef struct survey {
    order_source *s;
    uint64_t wanted; /* the version that should come next */
    slu_error *err;
    int rc;
} survey;

static int survey_version(survey *v, const void *value, size_t len)
{
    order_source *s = v->s;
    slu_order_run run;
    int rc = open_order(s, value, len, v->err);
    while (!rc && (rc = slu_order_next(s->order, &run, v->err)) == 1) {
        partition *p = &s->parts[s->places[run.place]];
        if (run.kind == SLU_RECORD_EVENT && p->first < 0)
            p->first = run.start;
        s->total += run.count;
        rc = 0;
    }
    return rc;
}

static bool survey_one(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    survey *v = ctx;
    uint64_t version = slu_order_key_parse(key, key_len);
    if (version != v->wanted)
        v->rc =
            slu_fail(v->err, SLU_ENOTFOUND,
                     "store %s keeps no order of version %" PRIu64 ", the next one is %" PRIu64
                     ": training.keep_order was too small or 0. Begin with a copy of that store of version "
                     "%" PRIu64 " or later as --store",
                     slu_store_path(v->s->from), v->wanted, version, version - 1);
    else
        v->rc = survey_version(v, value, value_len);
    v->wanted++;
    return !v->rc;
}

/* Which partitions will be read, and from where; whether the order is whole. */
static int look_ahead(order_source *s, slu_error *err)
{
    uint8_t from[8], to[8];
    survey v = {.s = s, .wanted = s->first, .err = err};
    slu_order_key(s->first, from);
    slu_order_key(s->until + 1, to);
    int rc = slu_store_scan(s->from, SLU_FAMILY_ORDER, from, sizeof from, to, sizeof to, survey_one, &v, err);
    rc = rc ? rc : v.rc;
    if (!rc && v.wanted <= s->until)
        rc = slu_fail(err, SLU_ENOTFOUND,
                      "store %s keeps no order of version %" PRIu64 "; is training.keep_order 0?",
                      slu_store_path(s->from), v.wanted);
    slu_order_close(s->order);
    s->order = NULL;
    return rc;
}

/* A model learned under other rates or windows would come out different without a word. */
static int check_config(const order_source *s, slu_error *err)
{
    uint64_t mine = slu_options_fingerprint(s->options), other, version;
    int rc = slu_order_other_config(s->from, s->first, s->until, mine, &version, &other, err);
    if (rc || !version)
        return rc;
    char before[160] = "";
    if (version > s->first)
        snprintf(before, sizeof before,
                 "; with this configuration replay --until %" PRIu64 " into a --store, then go on",
                 version - 1);
    return slu_fail(
        err, SLU_ECONFIG,
        "store %s: version %" PRIu64 " was learned under configuration %016" PRIx64
        ", this one is %016" PRIx64
        ": keys marked * in docs/config.md differ (or the program that wrote it had others). Use the "
        "configuration that the trainer had then%s",
        slu_store_path(s->from), version, other, mine, before);
}

/* The store that is fed must stand where the order goes on. */
static int check_offsets(const order_source *s, slu_store *into, slu_error *err)
{
    for (uint32_t i = 0; i < s->n; i++) {
        const partition *p = &s->parts[i];
        int64_t stored;
        int rc = slu_state_get_offset(into, p->topic, p->number, &stored, err);
        if (rc)
            return rc;
        if (p->first >= 0 && stored > p->first)
            return slu_fail(
                err, SLU_ECONFIG,
                "store %s is not of the same run as %s: it has topic %s partition %d up to offset "
                "%" PRId64 ", but its next version begins at %" PRId64 "; use an empty --store",
                slu_store_path(into), slu_store_path(s->from), p->topic, p->number, stored, p->first);
    }
    return 0;
}

static int choose_versions(order_source *s, slu_store *into, uint64_t until, slu_error *err)
{
    uint64_t newest, have;
    int rc = slu_state_get_u64(s->from, "~version", 0, &newest, err);
    if (!rc)
        rc = slu_state_get_u64(into, "~version", 0, &have, err);
    if (rc)
        return rc;
    s->first = s->version = have + 1;
    s->until = until ? until : newest;
    if (s->until > newest)
        return slu_fail(err, SLU_ECONFIG, "store %s is at version %" PRIu64 ": there is no version %" PRIu64,
                        slu_store_path(s->from), newest, s->until);
    if (have > s->until)
        return slu_fail(err, SLU_ECONFIG,
                        "store %s is at version %" PRIu64 " already, beyond %" PRIu64
                        ": use an empty --store",
                        slu_store_path(into), have, s->until);
    return 0;
}

/* Reads the next run into s->run. Returns 0, SLU_ECLOSED behind the last version. */
static int next_run(order_source *s, slu_error *err)
{
    for (;;) {
        if (!s->order) {
            if (s->version > s->until)
                return SLU_ECLOSED;
            uint8_t key[8];
            slu_order_key(s->version, key);
            int rc = slu_store_get(s->from, SLU_FAMILY_ORDER, key, sizeof key, &s->value, err);
            if (!rc)
                rc = open_order(s, s->value.data, s->value.len, err);
            if (rc)
                return slu_fail(err, rc, "store %s: the order of version %" PRIu64 " is gone",
                                slu_store_path(s->from), s->version);
        }
        int rc = slu_order_next(s->order, &s->run, err);
        if (rc < 0)
            return rc;
        if (rc == 1)
            return 0;
        slu_order_close(s->order);
        s->order = NULL;
        s->version++;
    }
}

/* ---- Kafka ---- */

static int open_consumer(order_source *s, slu_error *err)
{
    char kbytes[16];
    snprintf(kbytes, sizeof kbytes, "%u", s->n < QUEUED_KBYTES / 1024 ? QUEUED_KBYTES / (s->n + 1) : 1024);
    const slu_kafka_setting settings[] = {
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "error"},
        {"enable.partition.eof", "true"}, /* tells that a topic is shorter than the order */
        {"fetch.wait.max.ms", "100"},
        {"queued.max.messages.kbytes", kbytes}, /* for each partition */
        {NULL, NULL},
    };
    s->trouble.component = "kafka";
    rd_kafka_conf_t *conf;
    int rc = slu_kafka_conf_new(s->options, settings, &s->trouble, &conf, err);
    if (rc)
        return rc;
    s->rk = slu_kafka_new(RD_KAFKA_CONSUMER, conf, err);
    return s->rk ? 0 : SLU_ECONFIG;
}

/* Starts reading one partition where the order begins. */
static int start_partition(order_source *s, partition *p, slu_error *err)
{
    const struct rd_kafka_metadata *m = NULL;
    p->handle = rd_kafka_topic_new(s->rk, p->topic, NULL);
    if (!p->handle)
        return slu_fail(err, SLU_EKAFKA, "topic %s: %s", p->topic, rd_kafka_err2str(rd_kafka_last_error()));
    rd_kafka_resp_err_t e = rd_kafka_metadata(s->rk, 0, p->handle, &m, METADATA_TIMEOUT_MS);
    if (e) {
        rd_kafka_poll(s->rk, 0); /* serves the callback that knows why */
        return slu_fail(
            err, SLU_EKAFKA,
            "no Kafka broker answered at %s within %d ms (%s); %s",
            s->options->kafka.brokers, METADATA_TIMEOUT_MS,
            s->trouble.reason[0] ? s->trouble.reason : rd_kafka_err2str(e),
                slu_broker_hint(s->trouble.reason));
    }
    bool there = m->topic_cnt == 1 && !m->topics[0].err && p->number < m->topics[0].partition_cnt;
    rd_kafka_metadata_destroy(m);
    if (!there)
        return slu_fail(
            err, SLU_EKAFKA,
            "the run used topic %s partition %d, which is not at %s: set kafka.brokers to where it "
            "was read from",
            p->topic, p->number, s->options->kafka.brokers);
    if (rd_kafka_consume_start(p->handle, p->number, p->first))
        return slu_fail(err, SLU_EKAFKA, "topic %s partition %d: %s", p->topic, p->number,
                        rd_kafka_err2str(rd_kafka_last_error()));
    p->started = true;
    return 0;
}

static int start_all(order_source *s, slu_error *err)
{
    int rc = open_consumer(s, err);
    for (uint32_t i = 0; !rc && i < s->n; i++)
        if (s->parts[i].first >= 0)
            rc = start_partition(s, &s->parts[i], err);
    return rc;
}

static int event_is_gone(order_source *s, const partition *p, slu_error *err)
{
    int64_t low = -1, high = -1;
    rd_kafka_query_watermark_offsets(s->rk, p->topic, p->number, &low, &high, 5000);
    return slu_fail(
        err, SLU_EKAFKA,
        "topic %s partition %d: version %" PRIu64 " used offset %" PRId64 ", but the topic holds %" PRId64
        " to %" PRId64
        ": it was dropped by retention, or the topic was made anew. Begin with a later copy of the "
        "store as --store, or restore the topic",
        p->topic, p->number, s->version, s->run.start, low, high);
}

/* Whether a message that tells of an error ends the replay. */
static int take_trouble(order_source *s, const rd_kafka_message_t *m, const partition *p, slu_error *err)
{
    switch (m->err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF: /* all that the order names was there when the order was opened */
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
        return event_is_gone(s, p, err);
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
        return slu_fail(err, SLU_EKAFKA, "topic %s partition %d: %s", p->topic, p->number,
                        rd_kafka_message_errstr(m));
    default:
        return 0; /* librdkafka goes on by itself */
    }
}

static int check_silence(order_source *s, const partition *p, slu_error *err)
{
    int64_t now = slu_mono_us(&slu_system_clock);
    if (!s->waiting_us)
        s->waiting_us = now;
    if (s->trouble.fatal[0])
        return slu_fail(err, SLU_EKAFKA, "the Kafka consumer cannot go on: %s", s->trouble.fatal);
    if (now - s->waiting_us < SILENCE_US)
        return 0;
    return slu_fail(err, SLU_EKAFKA, "topic %s partition %d: nothing came for %d s%s%s", p->topic, p->number,
                    (int)(SILENCE_US / SLU_SECOND_US), s->trouble.reason[0] ? ": " : "", s->trouble.reason);
}

/* Makes the event at s->run.start of |p| current. Returns 1, 0 (not yet), or a code. */
static int fetch(order_source *s, partition *p, int timeout_ms, slu_error *err)
{
    for (;;) {
        rd_kafka_message_t *m = rd_kafka_consume(p->handle, p->number, 0);
        if (!m) {
            rd_kafka_poll(s->rk, 0);
            m = rd_kafka_consume(p->handle, p->number, timeout_ms);
        }
        if (!m)
            return check_silence(s, p, err);
        s->waiting_us = 0;
        int rc = 0;
        if (m->err)
            rc = take_trouble(s, m, p, err);
        else if (m->offset > s->run.start)
            rc = event_is_gone(s, p, err);
        else if (m->offset == s->run.start) {
            s->current = m;
            slu_kafka_trouble_over(&s->trouble);
            return 1;
        }
        rd_kafka_message_destroy(m);
        if (rc)
            return rc;
    }
}

static void fill_event(order_source *s, slu_record *out)
{
    const rd_kafka_message_t *m = s->current;
    rd_kafka_timestamp_type_t type;
    int64_t ms = rd_kafka_message_timestamp(m, &type);
    out->offset = m->offset;
    out->arrival_us = slu_kafka_stamp(type, ms);
    out->bytes = m->payload ? m->payload : "";
    out->len = m->len;
    out->mark = slu_kafka_mark(m);
    out->encoding = s->options->kafka.encoding;
}

/* ---- the source ---- */

/* Reads ahead to the next run, so that the end of a version is known with its last record. */
static int finish_record(order_source *s, slu_error *err)
{
    uint64_t version = s->version;
    s->done++;
    s->run.start++;
    s->run.count--;
    if (s->run.count)
        return 0;
    int rc = next_run(s, err);
    if (rc == SLU_ECLOSED)
        s->run.count = 0;
    else if (rc)
        return rc;
    s->commit_due = s->version != version;
    return 0;
}

static int next(slu_source *base, int timeout_ms, slu_record *out, slu_error *err)
{
    order_source *s = (order_source *)base;
    s->commit_due = false;
    if (s->current) {
        rd_kafka_message_destroy(s->current);
        s->current = NULL;
    }
    if (!s->run.count) /* only at the beginning and at the end */
    {
        int rc = next_run(s, err);
        if (rc)
            return rc;
    }
    uint32_t place = s->places[s->run.place];
    *out = (slu_record){.kind = s->run.kind, .partition = place, .offset = -1, .arrival_us = s->run.time_us};
    if (s->run.kind == SLU_RECORD_EVENT) {
        int rc = fetch(s, &s->parts[place], timeout_ms, err);
        if (rc != 1)
            return rc;
        fill_event(s, out);
    }
    int rc = finish_record(s, err);
    return rc ? rc : 1;
}

static uint32_t partitions(slu_source *base)
{
    return ((order_source *)base)->n;
}

static slu_partition partition_at(slu_source *base, uint32_t i)
{
    const partition *p = &((order_source *)base)->parts[i];
    return (slu_partition){p->topic, p->number};
}

static int64_t lag(slu_source *base, double *fraction)
{
    const order_source *s = (const order_source *)base;
    *fraction = s->total ? (double)s->done / (double)s->total : 1;
    return (int64_t)(s->total - s->done);
}

static void close_source(slu_source *base)
{
    order_source *s = (order_source *)base;
    if (s->current)
        rd_kafka_message_destroy(s->current);
    for (uint32_t i = 0; i < s->n; i++) {
        partition *p = &s->parts[i];
        if (p->started)
            rd_kafka_consume_stop(p->handle, p->number);
        if (p->handle)
            rd_kafka_topic_destroy(p->handle);
        free(p->topic);
    }
    if (s->rk)
        rd_kafka_destroy(s->rk);
    slu_order_close(s->order);
    slu_buf_free(&s->value);
    free(s->places);
    free(s->parts);
    free(s);
}

static const slu_source_ops order_ops = {
    .next = next,
    .partitions = partitions,
    .partition = partition_at,
    .lag = lag,
    .close = close_source,
};

int slu_order_source_open(const slu_options *options, slu_store *from, slu_store *into, uint64_t until,
                          slu_source **sp, slu_error *err)
{
    *sp = NULL;
    order_source *s = calloc(1, sizeof *s);
    if (!s)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the order of records");
    s->base.ops = &order_ops;
    s->options = options;
    s->from = from;
    int rc = choose_versions(s, into, until, err);
    if (!rc)
        rc = check_config(s, err);
    if (!rc)
        rc = look_ahead(s, err);
    if (!rc)
        rc = check_offsets(s, into, err);
    if (!rc)
        rc = start_all(s, err);
    if (rc) {
        close_source(&s->base);
        return rc;
    }
    *sp = &s->base;
    return 0;
}

bool slu_order_source_commit_due(const slu_source *base)
{
    return ((const order_source *)base)->commit_due;
}

uint64_t slu_order_source_until(const slu_source *base)
{
    return ((const order_source *)base)->until;
}
