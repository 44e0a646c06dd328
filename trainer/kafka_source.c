#include "base/broker_hint.h"
#include "base/log.h"
#include "store/state.h"
#include "trainer/kafka_source_state.h"
#include "trainer/watermark.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Reads all partitions by manual assignment: where to read is decided by the store alone, never by the group.
 * Everything runs on the owner's thread but the scout, which finds partitions. */

#define MISSING_LOG_US (30 * SLU_SECOND_US)

static int64_t now_us(void)
{
    return slu_mono_us(&slu_system_clock);
}

/* ---- partitions -------------------------------------------------------------------------------------------
 */

static int grow(slu_kafka_source *s, uint32_t n, slu_error *err)
{
    if (n <= s->cap)
        return 0;
    uint32_t cap = n < 16 ? 16 : 2 * n;
    slu_kafka_partition *parts = realloc(s->parts, cap * sizeof *parts);
    if (parts)
        s->parts = parts;
    int64_t *reported = realloc(s->reported, cap * sizeof *reported);
    if (reported)
        s->reported = reported;
    int64_t *wanted = realloc(s->wanted, cap * sizeof *wanted);
    if (wanted)
        s->wanted = wanted;
    if (!parts || !reported || !wanted)
        return slu_fail(err, SLU_ENOMEM, "out of memory for %u partitions", n);
    s->cap = cap;
    return 0;
}

/* Begins to read one partition from its stored offset. */
static int add_partition(slu_kafka_source *s, uint32_t topic, int32_t number,
                         rd_kafka_topic_partition_list_t *list, slu_error *err)
{
    slu_kafka_proof at = {.next = -1};
    int rc = s->store ? slu_state_get_offset(s->store, slu_kafka_topic(s, topic), number, &at.next, err) : 0;
    if (!rc && s->store)
        rc = slu_state_get_mark(s->store, slu_kafka_topic(s, topic), number, &at.mark, err);
    if (!rc)
        rc = grow(s, s->n + 1, err);
    if (rc)
        return rc;
    int64_t from = slu_kafka_proof_begin(&at);
    /* Samples that waited when the last process ended may be all there is: silence after the start flushes
     * them. */
    if (!s->newest_us)
        s->newest_us = now_us();
    s->index[topic][number] = s->n;
    s->wanted[s->n] = s->reported[s->n] = -1;
    s->parts[s->n++] =
        (slu_kafka_partition){.topic = topic, .number = number, .at = at, .active_us = now_us()};
    rd_kafka_topic_partition_list_add(list, slu_kafka_topic(s, topic), number)->offset =
        from >= 0 ? from : RD_KAFKA_OFFSET_BEGINNING;
    SLU_INFO("kafka", "reading partition", SLU_STR("topic", slu_kafka_topic(s, topic)),
             SLU_I64("partition", number), SLU_I64("offset", at.next));
    return 0;
}

/* Takes over what the scout has found. */
static int take_news(slu_kafka_source *s, slu_error *err)
{
    if (!slu_kafka_scout_news(s->scout))
        return 0;
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(16);
    int rc = 0;
    for (uint32_t t = 0; !rc && t < s->options->kafka.n_topics; t++) {
        int32_t count = slu_kafka_scout_partitions(s->scout, t);
        rc = slu_kafka_check_count(s, t, slu_kafka_scout_present(s->scout, t), err);
        if (rc || count <= s->known[t])
            continue;
        uint32_t *index = realloc(s->index[t], (size_t)count * sizeof *index);
        if (!index) {
            rc = slu_fail(err, SLU_ENOMEM, "out of memory for %d partitions", count);
            break;
        }
        s->index[t] = index;
        for (int32_t i = s->known[t]; !rc && i < count; i++)
            rc = add_partition(s, t, i, list, err);
        s->known[t] = count;
    }
    if (!rc && list->cnt) {
        rd_kafka_error_t *e = rd_kafka_incremental_assign(s->rk, list);
        if (e) {
            rc = slu_fail(err, SLU_EKAFKA, "cannot read the partitions: %s", rd_kafka_error_string(e));
            rd_kafka_error_destroy(e);
        }
    }
    rd_kafka_topic_partition_list_destroy(list);
    return rc;
}

/* Says from time to time which topics are missing, once a broker has answered. */
static void mention_missing(slu_kafka_source *s)
{
    int64_t now = now_us();
    if (now < s->missing_log_us || !slu_kafka_scout_answered(s->scout))
        return;
    s->missing_log_us = now + MISSING_LOG_US;
    for (uint32_t t = 0; t < s->options->kafka.n_topics; t++)
        if (!s->known[t])
            SLU_WARN("kafka", "topic does not exist yet; waiting for it",
                     SLU_STR("topic", slu_kafka_topic(s, t)));
}

/* ---- messages ---------------------------------------------------------------------------------------------
 */

void slu_kafka_drop_batch(slu_kafka_source *s)
{
    if (s->current)
        rd_kafka_message_destroy(s->current);
    s->current = NULL;
    for (size_t i = s->at; i < s->n_batch; i++)
        rd_kafka_message_destroy(s->batch[i]);
    s->at = s->n_batch = 0;
}

slu_kafka_partition *slu_kafka_find(slu_kafka_source *s, const rd_kafka_message_t *m)
{
    const char *name = m->rkt ? rd_kafka_topic_name(m->rkt) : "";
    for (uint32_t t = 0; t < s->options->kafka.n_topics; t++)
        if (strcmp(slu_kafka_topic(s, t), name) == 0 && m->partition >= 0 && m->partition < s->known[t])
            return &s->parts[s->index[t][m->partition]];
    return NULL;
}

/* A message that tells of an error. Returns 0 when librdkafka goes on by itself. */
static int take_trouble(slu_kafka_source *s, const rd_kafka_message_t *m, slu_kafka_partition *p,
                        slu_error *err)
{
    const char *topic = m->rkt ? rd_kafka_topic_name(m->rkt) : "";
    switch (m->err) {
    case RD_KAFKA_RESP_ERR__PARTITION_EOF:
        if (p) {
            p->at_end = true;
            p->end = m->offset;
            p->end_us = s->drained_us;
            return slu_kafka_proof_end(&p->at, topic, m->partition, m->offset, err);
        }
        return 0;
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
        return p ? slu_kafka_take_refusal(s, p, err) : 0;
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
        return slu_fail(err, SLU_EKAFKA, "topic %s: %s; grant read access to topic and group", topic,
                        rd_kafka_message_errstr(m));
    default:
        s->suspect = true;
        SLU_WARN("kafka", "trouble with a partition; trying again", SLU_STR("topic", topic),
                 SLU_I64("partition", m->partition), SLU_STR("reason", rd_kafka_message_errstr(m)));
        return 0;
    }
}

slu_shelf_item slu_kafka_item(const rd_kafka_message_t *m)
{
    rd_kafka_timestamp_type_t type;
    int64_t ms = rd_kafka_message_timestamp(m, &type);
    return (slu_shelf_item){.offset = m->offset,
                            .stamp_us = slu_kafka_stamp(type, ms),
                            .mark = slu_kafka_mark(m),
                            .len = m->len,
                            .bytes = m->payload ? m->payload : ""};
}

/* Unless the topic says LogAppendTime the producer stamps its messages, and its clock may be anything. What
 * we know better is a record of its own, before the message and only where it makes a difference, so that the
 * order tells it: a message from the future arrived now, and one that came behind the end of its partition
 * arrived after we had stood there. */
static bool next_clock(slu_kafka_source *s, int64_t stamp, slu_kafka_partition *p, slu_record *out)
{
    *out = (slu_record){.partition = (uint32_t)(p - s->parts), .offset = -1};
    if (!s->told_us || stamp > s->told_us + SLU_CLOCK_GRAIN_US) {
        int64_t now = slu_steady_clock_now(&s->clock);
        if (now >= s->told_us + SLU_CLOCK_GRAIN_US) {
            out->kind = SLU_RECORD_CLOCK;
            out->arrival_us = s->told_us = now;
            return true;
        }
    }
    if (stamp < p->end_us && p->end_us - p->told_end_us >= SLU_CLOCK_GRAIN_US) {
        out->kind = SLU_RECORD_END;
        out->arrival_us = p->told_end_us = p->end_us;
        return true;
    }
    return false;
}

static void fill_record(slu_kafka_source *s, const slu_shelf_item *item, slu_kafka_partition *p,
                        slu_record *out)
{
    *out = (slu_record){.kind = SLU_RECORD_EVENT,
                        .partition = (uint32_t)(p - s->parts),
                        .offset = item->offset,
                        .arrival_us = item->stamp_us,
                        .bytes = item->bytes,
                        .len = item->len,
                        .mark = item->mark,
                        .encoding = s->options->kafka.encoding};
    p->at.next = item->offset + 1;
    p->at.mark = item->mark;
    p->active_us = s->newest_us = now_us();
    p->stamp_us = item->stamp_us;
    p->at_end = p->idle = s->flushed = false;
}

bool slu_kafka_hand_out(slu_kafka_source *s, slu_kafka_partition *p, const slu_shelf_item *item,
                        slu_record *out)
{
    if (next_clock(s, item->stamp_us, p, out))
        return false;
    fill_record(s, item, p, out);
    return true;
}

/* Hands out the next message that waits. Returns 1, 0 (none), or a fatal code. */
static int next_message(slu_kafka_source *s, slu_record *out, slu_error *err)
{
    for (; s->at < s->n_batch; s->at++) {
        if (s->current)
            rd_kafka_message_destroy(s->current);
        rd_kafka_message_t *m = s->current = s->batch[s->at];
        slu_kafka_partition *p = slu_kafka_find(s, m);
        bool ordinary = !m->err || m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF;
        if (ordinary && p && (slu_kafka_pass_over(s, p) || slu_kafka_shelve(s, p, m)))
            continue;
        if (m->err) {
            int rc = take_trouble(s, m, p, err);
            if (rc) {
                s->at++;
                return rc;
            }
            continue;
        }
        if (p && p->at.wanted) {
            int rc = slu_kafka_proof_message(&p->at, m, slu_kafka_topic(s, p->topic), err);
            if (rc < 0) {
                s->at++;
                return rc;
            }
        }
        /* A broker that comes back may send again what was already taken. */
        if (!p || m->offset < p->at.next)
            continue;
        slu_shelf_item item = slu_kafka_item(m);
        if (slu_kafka_hand_out(s, p, &item, out))
            s->at++;
        else
            s->current = NULL; /* it comes next */
        return 1;
    }
    slu_kafka_drop_batch(s);
    return 0;
}

/* librdkafka waits until a batch is full or the time is over, so time is given only for a first message. */
static int fetch(slu_kafka_source *s, int timeout_ms, slu_error *err)
{
    int64_t now = slu_steady_clock_now(&s->clock);
    slu_kafka_asked(s);
    s->drained_us = s->empty_us;
    ssize_t n = rd_kafka_consume_batch_queue(s->queue, 0, s->batch, SLU_KAFKA_BATCH);
    if (n >= 0 && n < SLU_KAFKA_BATCH)
        s->empty_us = now;
    if (n == 0 && timeout_ms > 0) {
        s->drained_us = now;
        n = rd_kafka_consume_batch_queue(s->queue, timeout_ms, s->batch, 1);
    }
    if (s->trouble.fatal[0])
        return slu_fail(err, SLU_EKAFKA, "the Kafka consumer cannot go on: %s", s->trouble.fatal);
    if (n < 0)
        return slu_fail(err, SLU_EKAFKA, "reading from Kafka failed: %s",
                        rd_kafka_err2str(rd_kafka_last_error()));
    s->n_batch = (size_t)n;
    if (n > 0) {
        slu_kafka_trouble_over(&s->trouble);
        if (s->suspect || s->trouble.newest_us > s->proved_us)
            slu_kafka_prove_again(s);
    }
    return 0;
}

/* ---- silence ----------------------------------------------------------------------------------------------
 */

/* A partition is idle when it was read to its end, nothing came for join.idle_timeout, and the broker says
 * after that time that its end is still there. An outage is not silence: producers need time to come back, so
 * the time begins anew when brokers answer again. */
static bool next_idle(slu_kafka_source *s, int64_t now, slu_record *out)
{
    int64_t timeout = s->options->join.idle_timeout_us, calm_us = slu_kafka_scout_back(s->scout);
    if (s->trouble.newest_us > calm_us)
        calm_us = s->trouble.newest_us;
    /* The one that has been silent longest comes first: those that never spoke must not outlast the others,
     * or the watermark would have nothing to stand on. */
    slu_kafka_partition *p = NULL;
    for (uint32_t i = 0; i < s->n; i++) {
        slu_kafka_partition *q = &s->parts[i];
        if (!q->idle && !q->paused && q->at_end && (!p || q->active_us < p->active_us))
            p = q;
    }
    if (!p)
        return false;
    int64_t since = p->active_us > calm_us ? p->active_us : calm_us;
    if (now - since < timeout)
        return false;
    int64_t high = slu_kafka_scout_end(s->scout, p->topic, p->number, since + timeout);
    if (high < 0)
        return false; /* asked; the answer comes later */
    if (high > p->end) {
        p->active_us = now;
        return false;
    }
    p->idle = true;
    *out = (slu_record){.kind = SLU_RECORD_IDLE, .partition = (uint32_t)(p - s->parts), .offset = -1};
    return true;
}

static bool next_silence(slu_kafka_source *s, slu_record *out)
{
    int64_t now = now_us();
    if (next_idle(s, now, out))
        return true;
    if (!s->flushed && s->newest_us && now - s->newest_us >= s->options->training.max_batch_delay_us) {
        s->flushed = true;
        *out = (slu_record){.kind = SLU_RECORD_FLUSH, .offset = -1};
        return true;
    }
    return false;
}

/* The wait ends early enough for the flush. */
static int bounded_wait(const slu_kafka_source *s, int timeout_ms)
{
    if (s->flushed || !s->newest_us)
        return timeout_ms;
    int64_t left = (s->newest_us + s->options->training.max_batch_delay_us - now_us()) / 1000 + 1;
    return left < 0 ? 0 : left < timeout_ms ? (int)left : timeout_ms;
}

/* ---- the source -------------------------------------------------------------------------------------------
 */

static int next(slu_source *base, int timeout_ms, slu_record *out, slu_error *err)
{
    slu_kafka_source *s = (slu_kafka_source *)base;
    int rc = next_message(s, out, err);
    if (rc)
        return rc;
    if (s->shelf_left-- > 0 && slu_kafka_next_shelved(s, out))
        return 1;
    rc = take_news(s, err);
    if (rc)
        return rc;
    if (s->announced < s->n) {
        *out = (slu_record){.kind = SLU_RECORD_PARTITION, .partition = s->announced++, .offset = -1};
        return 1;
    }
    mention_missing(s);
    if (s->reread)
        slu_kafka_reread(s);
    slu_kafka_refill(s);
    s->shelf_left = SLU_KAFKA_BATCH;
    rc = fetch(s, slu_kafka_shelf_waits(s) ? 0 : bounded_wait(s, timeout_ms), err);
    if (!rc)
        rc = next_message(s, out, err);
    if (rc)
        return rc;
    if (slu_kafka_next_shelved(s, out))
        return 1;
    return next_silence(s, out) ? 1 : 0;
}

static uint32_t partitions(slu_source *base)
{
    return ((slu_kafka_source *)base)->announced;
}

static slu_partition partition_at(slu_source *base, uint32_t i)
{
    slu_kafka_source *s = (slu_kafka_source *)base;
    return (slu_partition){slu_kafka_topic(s, s->parts[i].topic), s->parts[i].number};
}

static void close_source(slu_source *base)
{
    slu_kafka_source *s = (slu_kafka_source *)base;
    slu_kafka_scout_free(s->scout);
    slu_kafka_drop_batch(s);
    if (s->queue && s->n)
        slu_kafka_report_last(s);
    for (uint32_t i = 0; i < s->n; i++)
        slu_kafka_empty_shelf(s, &s->parts[i]);
    for (uint32_t i = 0; s->index && i < s->options->kafka.n_topics; i++)
        free(s->index[i]);
    if (s->queue)
        rd_kafka_queue_destroy(s->queue);
    /* Partitions were assigned by hand, so there is no group to leave; closing as a group member would wait
     * for ever for a coordinator that is away. */
    if (s->rk)
        rd_kafka_destroy_flags(s->rk, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
    free(s->index);
    free(s->known);
    free(s->gone);
    free(s->parts);
    free(s->reported);
    free(s->wanted);
    free(s);
}

static const slu_source_ops kafka_ops = {
    .next = next,
    .partitions = partitions,
    .partition = partition_at,
    .committed = slu_kafka_committed,
    .lag = slu_kafka_lag,
    .reading = slu_kafka_reading,
    .pause = slu_kafka_pause,
    .close = close_source,
};

/* ---- opening ----------------------------------------------------------------------------------------------
 */

static int open_consumer(slu_kafka_source *s, slu_error *err)
{
    const slu_kafka_opts *k = &s->options->kafka;
    /* Half of the room for what waits, an eighth for the shelves, the rest for two responses that have just
     * come; a message waits with some hundreds of bytes around it. A partition's queue that is full is not
     * fetched for. Pieces are so small that a response holds some of each partition: the slowest, for which
     * the others wait, must not wait for its turn. */
    uint64_t room = s->options->memory.bytes[SLU_MEM_FETCH], least = k->max_message_bytes + 4096ull;
    char kbytes[24], messages[24], response[24], per_partition[24];
    snprintf(kbytes, sizeof kbytes, "%" PRIu64, room / 2 / 1024);
    snprintf(messages, sizeof messages, "%" PRIu64, room / 2 / 1024);
    snprintf(response, sizeof response, "%" PRIu64, room / 16 * 3 > least ? room / 16 * 3 : least);
    s->shelves.limit = room / 8;
    snprintf(per_partition, sizeof per_partition, "%" PRIu64, room / 64 < 1 << 20 ? room / 64 : 1 << 20);
    const slu_kafka_setting settings[] = {
        {"group.id", k->group},
        {"enable.auto.commit", "false"},
        {"enable.auto.offset.store", "false"},
        {"auto.offset.reset", "error"},
        {"enable.partition.eof", "true"},
        {"allow.auto.create.topics", "false"},
        {"fetch.wait.max.ms", "100"},
        {"fetch.error.backoff.ms", "200"},
        {"queued.max.messages.kbytes", kbytes},
        {"queued.min.messages", messages},
        {"fetch.max.bytes", response},
        {"fetch.message.max.bytes", per_partition},
        {NULL, NULL},
    };
    s->trouble.component = "kafka";
    rd_kafka_conf_t *conf;
    int rc = slu_kafka_conf_new(s->options, settings, &s->trouble, &conf, err);
    if (rc)
        return rc;
    rd_kafka_conf_set_offset_commit_cb(conf, slu_kafka_on_commit);
    s->rk = slu_kafka_new(RD_KAFKA_CONSUMER, conf, err);
    if (!s->rk)
        return SLU_ECONFIG;
    rd_kafka_poll_set_consumer(s->rk);
    s->queue = rd_kafka_queue_get_consumer(s->rk);
    s->scout = slu_kafka_scout_new(s->rk, k->topics, k->n_topics);
    return s->scout ? 0 : slu_fail(err, SLU_ENOMEM, "out of memory for the Kafka source");
}

/* Waits for one answer of a broker. */
static int check_broker(slu_kafka_source *s, int timeout_ms, slu_error *err)
{
    int64_t end = now_us() + (int64_t)timeout_ms * 1000;
    for (;;) {
        const struct rd_kafka_metadata *m = NULL;
        rd_kafka_resp_err_t e = rd_kafka_metadata(s->rk, 0, NULL, &m, 250);
        if (!e) {
            rd_kafka_metadata_destroy(m);
            break;
        }
        rd_kafka_message_t *none = rd_kafka_consumer_poll(s->rk, 0); /* serves the callback that knows why */
        if (none)
            rd_kafka_message_destroy(none);
        if (now_us() >= end)
            return slu_fail(err, SLU_EKAFKA, "no Kafka broker answered at %s within %d ms (%s); %s",
                            s->options->kafka.brokers, timeout_ms,
                            s->trouble.reason[0] ? s->trouble.reason : rd_kafka_err2str(e),
                            slu_broker_hint(s->trouble.reason));
    }
    for (uint32_t i = 0; i < s->options->kafka.n_topics; i++)
        if (slu_kafka_scout_ask(s->scout, i) == 0)
            SLU_WARN("kafka", "topic does not exist yet", SLU_STR("topic", slu_kafka_topic(s, i)));
    return 0;
}

int slu_kafka_source_open(const slu_options *options, slu_store *store, int check_timeout_ms, slu_source **sp,
                          slu_error *err)
{
    *sp = NULL;
    uint32_t n = options->kafka.n_topics;
    slu_kafka_source *s = calloc(1, sizeof *s);
    if (!s)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the Kafka source");
    s->base.ops = &kafka_ops;
    s->clock = slu_steady_clock_start(&slu_system_clock);
    s->options = options;
    s->store = store;
    s->index = calloc(n + 1, sizeof *s->index);
    s->known = calloc(n + 1, sizeof *s->known);
    s->gone = calloc(n + 1, sizeof *s->gone);
    int rc = 0;
    if (!s->index || !s->known || !s->gone)
        rc = slu_fail(err, SLU_ENOMEM, "out of memory for the Kafka source");
    if (!rc)
        rc = open_consumer(s, err);
    if (!rc && check_timeout_ms > 0)
        rc = check_broker(s, check_timeout_ms, err);
    if (!rc)
        rc = slu_kafka_scout_start(s->scout, err);
    if (rc) {
        close_source(&s->base);
        return rc;
    }
    *sp = &s->base;
    return 0;
}
