#include "trainer/publisher.h"
#include "base/clock.h"
#include "base/daemon.h"
#include "base/log.h"
#include "base/metrics.h"
#include "feature/event.h"
#include "trainer/kafka_client.h"
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Acknowledgements of one channel. Sequences are sent in order without gaps; a topic of several partitions
 * may acknowledge them out of order. |done| is a ring over (acked, last], one byte a sequence. */
typedef struct acks {
    uint8_t *done; /* (mask + 1) */
    uint64_t mask;
    uint64_t acked; /* everything up to here */
    uint64_t last;  /* highest sent; 0: nothing yet */
} acks;

struct slu_publisher {
    const slu_options *options;
    rd_kafka_t *rk; /* NULL: no broker */
    rd_kafka_topic_t *topics[SLU_CHANNELS];
    FILE *file; /* of dead letters; NULL: a topic, or nowhere */
    char *file_path;
    acks acks[SLU_CHANNELS];
    uint64_t delta_bytes, base_bytes;
    uint64_t base_on_way; /* bytes that were not acknowledged */
    uint64_t under_way;   /* bytes in librdkafka */
    slu_kafka_trouble trouble;
    slu_error failed; /* what ended publishing for good; code 0: nothing did */
    slu_metric *messages[SLU_CHANNELS], *bytes[SLU_CHANNELS];
};

/* The opaque of a message: channel above, sequence below. Channel 0 are bases, which nobody waits for. */
#define CHANNEL_SHIFT 60
#define BASE_ON_WAY   (8u << 20)

/* ---- acknowledgements -----------------------------------------------------------------------------------
 */

static void acks_sent(acks *a, uint64_t sequence)
{
    if (!a->last)
        a->acked = a->last = sequence - 1;
    assert(sequence == a->last + 1);
    a->last = sequence;
    if (a->last - a->acked <= a->mask)
        return;
    uint64_t mask = a->mask ? 2 * a->mask + 1 : 1023;
    uint8_t *done = calloc(mask + 1, 1);
    if (!done)
        abort(); /* a byte a message in flight: bounded by the outbox */
    for (uint64_t s = a->acked + 1; s < a->last; s++)
        done[s & mask] = a->done[s & a->mask];
    free(a->done);
    a->done = done;
    a->mask = mask;
}

static void acks_done(acks *a, uint64_t sequence)
{
    a->done[sequence & a->mask] = 1;
    while (a->acked < a->last && a->done[(a->acked + 1) & a->mask])
        a->done[++a->acked & a->mask] = 0;
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)rk;
    slu_kafka_trouble *trouble = opaque;
    slu_publisher *p = (slu_publisher *)((char *)trouble - offsetof(slu_publisher, trouble));
    uint64_t tag = (uint64_t)(uintptr_t)m->_private;
    if (!(tag >> CHANNEL_SHIFT))
        p->base_on_way -= m->len;
    p->under_way -= m->len < p->under_way ? m->len : p->under_way;
    if (!m->err) {
        if (tag >> CHANNEL_SHIFT)
            acks_done(&p->acks[tag >> CHANNEL_SHIFT], tag & ((1ULL << CHANNEL_SHIFT) - 1));
        slu_kafka_trouble_over(trouble);
        return;
    }
    if (m->err == RD_KAFKA_RESP_ERR__PURGE_QUEUE || m->err == RD_KAFKA_RESP_ERR__PURGE_INFLIGHT)
        return;
    /* librdkafka retries for ever what can be retried. What is left needs a person, and going on would leave
     * a gap in the deltas. The message stays in the outbox. */
    const char *remedy = "check that the topic exists and may be written, then start again";
    if (m->err == RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE)
        remedy = "raise the topic's max.message.bytes or lower publish.chunk";
    else if (m->err == RD_KAFKA_RESP_ERR_INVALID_TIMESTAMP)
        remedy = "this machine's clock is far from the broker's: set it, then start again";
    slu_fail(&p->failed, SLU_EKAFKA, "topic %s refused a message of %zu bytes: %s; %s",
             rd_kafka_topic_name(m->rkt), m->len, rd_kafka_err2str(m->err), remedy);
}

/* ---- dead letter file ------------------------------------------------------------------------------------
 */

static int open_file(slu_publisher *p, const char *path, slu_error *err)
{
    p->file = fopen(path, "ae");
    if (!p->file)
        return slu_fail(err, SLU_EIO, "cannot write dead letters to %s: %s", path, strerror(errno));
    p->file_path = strdup(path);
    return p->file_path ? 0 : slu_fail(err, SLU_ENOMEM, "out of memory for the publisher");
}

static bool write_line(slu_publisher *p, const void *message, size_t len)
{
    if (p->failed.code)
        return false;
    if (fwrite(message, 1, len, p->file) == len && fputc('\n', p->file) != EOF && fflush(p->file) == 0)
        return true;
    slu_fail(&p->failed, SLU_EIO, "cannot write dead letters to %s: %s", p->file_path, strerror(errno));
    return false;
}

/* ---- Kafka
 * -------------------------------------------------------------------------------------------------- */

static int open_kafka(slu_publisher *p, slu_error *err)
{
    const slu_options *o = p->options;
    char longest[24];
    /* Room for the schema's text in the first chunk of a base; the broker has the last word. */
    snprintf(longest, sizeof longest, "%" PRIu64, (uint64_t)o->publish.chunk_bytes + (1 << 20));
    char kbytes[24],
        messages[24]; /* half of the room; the other half is what librdkafka has around each message */
    snprintf(kbytes, sizeof kbytes, "%" PRIu64, o->memory.bytes[SLU_MEM_PUBLISH] / 2 / 1024);
    snprintf(messages, sizeof messages, "%" PRIu64, o->memory.bytes[SLU_MEM_PUBLISH] / 2 / 1024);
    const slu_kafka_setting settings[] = {
        {"enable.idempotence", "true"},
        {"message.timeout.ms", "0"}, /* never give up: the outbox would only send it again */
        {"topic.metadata.propagation.max.ms", "3600000"},
        {"linger.ms", "1"},
        {"queue.buffering.max.kbytes", kbytes},
        {"queue.buffering.max.messages", messages},
        {"message.max.bytes", longest},
        {NULL, NULL},
    };
    p->trouble.component = "publisher";
    rd_kafka_conf_t *conf;
    int rc = slu_kafka_conf_new(o, settings, &p->trouble, &conf, err);
    if (rc)
        return rc;
    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    p->rk = slu_kafka_new(RD_KAFKA_PRODUCER, conf, err);
    if (!p->rk)
        return err ? err->code : SLU_ECONFIG;
    const char *names[SLU_CHANNELS] = {
        [SLU_CHANNEL_DELTAS] = o->publish.enabled ? o->kafka.delta_topic : NULL,
        [SLU_CHANNEL_DEAD_LETTERS] = o->kafka.dead_letter_topic,
    };
    for (int ch = 0; ch < SLU_CHANNELS; ch++) {
        if (!names[ch])
            continue;
        p->topics[ch] = rd_kafka_topic_new(p->rk, names[ch], NULL);
        if (!p->topics[ch])
            return slu_fail(err, SLU_ECONFIG, "topic %s: %s", names[ch],
                            rd_kafka_err2str(rd_kafka_last_error()));
    }
    return 0;
}

int slu_publisher_open(const slu_options *options, bool with_kafka, const char *dead_letter_path,
                       slu_publisher **pp, slu_error *err)
{
    *pp = NULL;
    slu_publisher *p = calloc(1, sizeof *p);
    if (!p)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the publisher");
    p->options = options;
    static const char *const channels[SLU_CHANNELS] = {"base", "delta", "dead_letter"};
    for (int ch = 0; ch < SLU_CHANNELS; ch++) {
        char label[48];
        snprintf(label, sizeof label, "kind=\"%s\"", channels[ch]);
        p->messages[ch] =
            slu_counter("sluice_published_messages_total", label, "Messages handed to the publisher.");
        p->bytes[ch] = slu_counter("sluice_published_bytes_total", label, "Bytes handed to the publisher.");
    }
    int rc = 0;
    if (with_kafka && (options->publish.enabled || options->kafka.dead_letter_topic))
        rc = open_kafka(p, err);
    char *below_store = NULL;
    if (!rc && with_kafka && !dead_letter_path && !options->kafka.dead_letter_topic) {
        rc = asprintf(&below_store, "%s/dead-letters.jsonl", options->store.path) < 0 ? SLU_ENOMEM : 0;
        dead_letter_path = below_store;
    }
    if (!rc && dead_letter_path && !p->topics[SLU_CHANNEL_DEAD_LETTERS])
        rc = open_file(p, dead_letter_path, err);
    free(below_store);
    if (rc) {
        slu_publisher_close(p);
        return rc;
    }
    *pp = p;
    return 0;
}

/* The reason that leads a dead letter: {"reason":"late",... */
static slu_span reason_of(const char *json, size_t len)
{
    static const char lead[] = "{\"reason\":\"";
    size_t n = sizeof lead - 1;
    if (len < n || memcmp(json, lead, n) != 0)
        return (slu_span){"", 0};
    const char *end = memchr(json + n, '"', len - n);
    return end ? (slu_span){json + n, (size_t)(end - json - n)} : (slu_span){"", 0};
}

static rd_kafka_headers_t *dead_letter_headers(uint64_t sequence, const void *message, size_t len)
{
    char number[24];
    int digits = snprintf(number, sizeof number, "%" PRIu64, sequence);
    slu_span reason = reason_of(message, len);
    rd_kafka_headers_t *h = rd_kafka_headers_new(2);
    rd_kafka_header_add(h, "sluice-sequence", -1, number, digits);
    rd_kafka_header_add(h, "sluice-reason", -1, reason.p, (ssize_t)reason.n);
    return h;
}

static rd_kafka_resp_err_t produce(slu_publisher *p, int topic, uint64_t tag, const void *message, size_t len,
                                   rd_kafka_headers_t *headers)
{
    /* Deltas have one total order, so one partition whatever the topic has. */
    int32_t partition = topic == SLU_CHANNEL_DELTAS ? 0 : RD_KAFKA_PARTITION_UA;
    void *bytes = (void *)(uintptr_t)message; /* copied, not written to */
    return headers
               ? rd_kafka_producev(p->rk, RD_KAFKA_V_RKT(p->topics[topic]), RD_KAFKA_V_PARTITION(partition),
                                   RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_VALUE(bytes, len),
                                   RD_KAFKA_V_HEADERS(headers), RD_KAFKA_V_OPAQUE((void *)(uintptr_t)tag),
                                   RD_KAFKA_V_END)
               : rd_kafka_producev(p->rk, RD_KAFKA_V_RKT(p->topics[topic]), RD_KAFKA_V_PARTITION(partition),
                                   RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_VALUE(bytes, len),
                                   RD_KAFKA_V_OPAQUE((void *)(uintptr_t)tag), RD_KAFKA_V_END);
}

/* What passes by itself: a full queue while the broker is slow or away, a topic that somebody has yet to
 * create. */
static const char *worth_waiting(rd_kafka_resp_err_t e)
{
    switch (e) {
    case RD_KAFKA_RESP_ERR__QUEUE_FULL:
        return "the publish queue is full; training waits for Kafka";
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
        return "the topic does not exist (yet); training waits until it is created";
    default:
        return NULL;
    }
}

/* Queues the message; waits for what is worth waiting for. Gives up when the process is to stop
 * (the outbox keeps the message) or publishing has failed for good. */
static bool enqueue(slu_publisher *p, int topic, uint64_t tag, const void *message, size_t len,
                    rd_kafka_headers_t *headers)
{
    int64_t told_us = slu_mono_us(&slu_system_clock);
    while (!p->failed.code) {
        rd_kafka_resp_err_t e = produce(p, topic, tag, message, len, headers);
        if (e == RD_KAFKA_RESP_ERR_NO_ERROR) {
            p->under_way += len;
            rd_kafka_poll(p->rk, 0);
            return true;
        }
        const char *wait = worth_waiting(e);
        if (!wait) {
            slu_fail(&p->failed, SLU_EKAFKA, "topic %s: a message of %zu bytes cannot be sent: %s",
                     rd_kafka_topic_name(p->topics[topic]), len, rd_kafka_err2str(e));
            break;
        }
        if (slu_stop_requested)
            break;
        rd_kafka_poll(p->rk, 100);
        int64_t now = slu_mono_us(&slu_system_clock);
        if (now - told_us > 5 * SLU_SECOND_US) {
            told_us = now;
            slu_daemon_notify("WATCHDOG=1"); /* waiting for Kafka is not hanging */
            SLU_WARN("publisher", wait, SLU_STR("topic", rd_kafka_topic_name(p->topics[topic])),
                     SLU_STR("reason", p->trouble.reason));
        }
    }
    if (headers)
        rd_kafka_headers_destroy(headers);
    return false;
}

static void count(slu_publisher *p, int kind, size_t len)
{
    slu_metric_add(p->messages[kind], 1);
    slu_metric_add(p->bytes[kind], (double)len);
}

bool slu_publisher_room_for(void *ctx, slu_channel ch, size_t len)
{
    slu_publisher *p = ctx;
    if (!p->rk || !p->topics[ch])
        return true;
    rd_kafka_poll(p->rk, 0);
    /* A part of the queue stays free for bases, which have no other place to wait. */
    uint64_t room = p->options->memory.bytes[SLU_MEM_PUBLISH] / 8 * 3;
    return !p->under_way ||
           (p->under_way + len <= room && (uint64_t)rd_kafka_outq_len(p->rk) < room / 1024 + 1);
}

void slu_publisher_send(slu_publisher *p, slu_channel ch, uint64_t sequence, const void *message, size_t len)
{
    acks_sent(&p->acks[ch], sequence);
    count(p, ch, len);
    if (ch == SLU_CHANNEL_DELTAS)
        p->delta_bytes += len;
    if (p->topics[ch]) {
        uint64_t tag = (uint64_t)ch << CHANNEL_SHIFT | sequence;
        rd_kafka_headers_t *headers =
            ch == SLU_CHANNEL_DEAD_LETTERS ? dead_letter_headers(sequence, message, len) : NULL;
        enqueue(p, ch, tag, message, len, headers);
    } else if (ch != SLU_CHANNEL_DEAD_LETTERS || !p->file || write_line(p, message, len)) {
        acks_done(&p->acks[ch], sequence);
    }
}

/* Counted before, because it may be acknowledged while it is queued. */
static void enqueue_base(slu_publisher *p, const void *message, size_t len)
{
    p->base_on_way += len;
    if (!enqueue(p, SLU_CHANNEL_DELTAS, 0, message, len, NULL))
        p->base_on_way -= len;
}

void slu_publisher_send_base(slu_publisher *p, const void *message, size_t len)
{
    count(p, 0, len);
    p->base_bytes += len;
    if (p->topics[SLU_CHANNEL_DELTAS])
        enqueue_base(p, message, len);
}

bool slu_publisher_room(slu_publisher *p)
{
    if (p->rk)
        rd_kafka_poll(p->rk, 0);
    /* What deltas leave of the queue, see slu_publisher_room_for: beyond it sending would wait for the
     * broker. */
    uint64_t room = p->options->memory.bytes[SLU_MEM_PUBLISH] / 8;
    if (room > BASE_ON_WAY)
        room = BASE_ON_WAY;
    return !p->base_on_way || p->base_on_way + p->options->publish.chunk_bytes <= room;
}

uint64_t slu_publisher_acked(slu_publisher *p, slu_channel ch)
{
    if (p->rk)
        rd_kafka_poll(p->rk, 0);
    return p->acks[ch].last ? p->acks[ch].acked : 0;
}

int slu_publisher_check(slu_publisher *p, slu_error *err)
{
    if (p->rk)
        rd_kafka_poll(p->rk, 0);
    if (p->trouble.fatal[0])
        slu_fail(&p->failed, SLU_EKAFKA, "the Kafka producer cannot go on: %s; start again, nothing is lost",
                 p->trouble.fatal);
    return p->failed.code ? slu_fail(err, p->failed.code, "%s", p->failed.message) : 0;
}

uint64_t slu_publisher_drain(slu_publisher *p, int timeout_ms)
{
    uint64_t left = 0;
    if (p->rk) {
        rd_kafka_flush(p->rk, timeout_ms);
        left = (uint64_t)rd_kafka_outq_len(p->rk);
    }
    uint64_t unacked = 0;
    for (int ch = 1; ch < SLU_CHANNELS; ch++)
        unacked += p->acks[ch].last - p->acks[ch].acked;
    return left > unacked ? left : unacked;
}

void slu_publisher_close(slu_publisher *p)
{
    if (!p)
        return;
    for (int ch = 0; ch < SLU_CHANNELS; ch++) {
        if (p->topics[ch])
            rd_kafka_topic_destroy(p->topics[ch]);
        free(p->acks[ch].done);
    }
    if (p->rk) {
        rd_kafka_purge(p->rk, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        rd_kafka_destroy(p->rk);
    }
    if (p->file)
        fclose(p->file);
    free(p->file_path);
    free(p);
}

static void sink_send(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len)
{
    slu_publisher_send(ctx, ch, sequence, message, len);
}

static void sink_send_base(void *ctx, const void *message, size_t len)
{
    slu_publisher_send_base(ctx, message, len);
}

static uint64_t sink_acked(void *ctx, slu_channel ch)
{
    return slu_publisher_acked(ctx, ch);
}

static bool sink_room(void *ctx)
{
    return slu_publisher_room(ctx);
}

slu_sink slu_publisher_sink(slu_publisher *p)
{
    return (slu_sink){sink_send, sink_send_base, sink_acked, p, sink_room};
}

uint64_t slu_publisher_delta_bytes(const slu_publisher *p)
{
    return p->delta_bytes;
}

uint64_t slu_publisher_base_bytes(const slu_publisher *p)
{
    return p->base_bytes;
}
