#include "sim/feeder.h"
#include "base/clock.h"
#include "base/daemon.h"
#include "base/log.h"
#include "trainer/kafka_client.h"
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_EVERY_US     (50 * 1000) /* how old the picture of commits may be while sending */
#define COMPLAIN_EVERY_US (10 * SLU_SECOND_US)
enum { CALL_MS = 5000, RECORD_OVERHEAD = 40 /* a message costs a little more than its key and value */ };

/* One partition of one topic, as far as this run knows it. */
typedef struct lane {
    uint32_t topic;
    int32_t partition;
    int64_t first;     /* end of the partition when we came: what is older is not our concern */
    int64_t next;      /* behind the last acknowledged message */
    int64_t committed; /* by the group; at least |first| */
} lane;

struct slu_feeder {
    slu_kafka_trouble trouble; /* first: it is the opaque of both handles, and so leads back here */
    const slu_options *options;
    const slu_schema *schema;
    slu_feeder_opts opts;
    rd_kafka_t *producer, *group; /* group: a consumer that only asks for commits */
    rd_kafka_topic_partition_list_t *asked;
    lane *lanes; /* (n_lanes) in the order of |asked| */
    uint32_t n_lanes;
    uint64_t bytes; /* sent */
    slu_buf message;
    slu_feeder_counts counts;
    int64_t looked_us, started_us;
    slu_error failure; /* of the first failed delivery */
};

static int64_t now_us(void)
{
    return slu_mono_us(&slu_system_clock);
}

/* ---- delivery ---- */

static lane *find_lane(slu_feeder *f, const char *topic, int32_t partition)
{
    for (uint32_t i = 0; i < f->n_lanes; i++)
        if (f->lanes[i].partition == partition && !strcmp(f->options->kafka.topics[f->lanes[i].topic], topic))
            return &f->lanes[i];
    return NULL;
}

static void on_delivery(rd_kafka_t *rk, const rd_kafka_message_t *m, void *opaque)
{
    (void)rk;
    slu_feeder *f = opaque;
    if (m->err) {
        f->counts.failed++;
        slu_fail(&f->failure, SLU_EKAFKA, "topic %s: message not delivered: %s", rd_kafka_topic_name(m->rkt),
                 rd_kafka_err2str(m->err));
        return;
    }
    f->counts.acknowledged++;
    lane *l = find_lane(f, rd_kafka_topic_name(m->rkt), m->partition);
    if (l && m->offset >= l->next)
        l->next = m->offset + 1;
}

/* ---- pacing ---- */

/* Asks the broker what the group has committed. An answer that does not come leaves the old picture. */
static void look(slu_feeder *f)
{
    f->looked_us = now_us();
    if (rd_kafka_committed(f->group, f->asked, CALL_MS))
        return;
    for (uint32_t i = 0; i < f->n_lanes; i++)
        if (!f->asked->elems[i].err && f->asked->elems[i].offset > f->lanes[i].committed)
            f->lanes[i].committed = f->asked->elems[i].offset;
}

static uint64_t outstanding_in(const lane *l)
{
    return l->next > l->committed ? (uint64_t)(l->next - l->committed) : 0;
}

static uint64_t outstanding(const slu_feeder *f)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < f->n_lanes; i++)
        sum += outstanding_in(&f->lanes[i]);
    return sum;
}

static uint64_t in_flight(const slu_feeder *f)
{
    return f->counts.sent - f->counts.acknowledged - f->counts.failed;
}

static bool too_much(const slu_feeder *f)
{
    if (outstanding(f) + in_flight(f) >= f->opts.max_outstanding)
        return true;
    uint64_t mean = f->counts.sent ? f->bytes / f->counts.sent : 0;
    for (uint32_t i = 0; i < f->n_lanes; i++)
        if (outstanding_in(&f->lanes[i]) * mean >= f->opts.max_bytes)
            return true;
    return false;
}

static int stopped(const slu_feeder *f, slu_error *err)
{
    if (slu_stop_requested)
        return slu_fail(err, SLU_ECLOSED, "stopped on request");
    if (f->opts.until_us && now_us() > f->opts.until_us)
        return slu_fail(err, SLU_ECLOSED, "time is up");
    return 0;
}

static int wait_for_room(slu_feeder *f, slu_error *err)
{
    if (!f->opts.max_outstanding)
        return 0;
    /* The picture ages while messages go out, so it is renewed often enough that the limit cannot be overrun.
     */
    if (now_us() - f->looked_us > LOOK_EVERY_US)
        look(f);
    int64_t since = now_us();
    while (too_much(f)) {
        int rc = stopped(f, err);
        if (rc)
            return rc;
        rd_kafka_poll(f->producer, 10);
        look(f);
        if (now_us() - since > COMPLAIN_EVERY_US) {
            SLU_WARN("sim", "waiting for the consumer group to commit",
                     SLU_STR("group", f->options->kafka.group), SLU_U64("outstanding", outstanding(f)));
            since = now_us();
        }
    }
    return 0;
}

static int wait_for_turn(slu_feeder *f, slu_error *err)
{
    if (!f->started_us)
        f->started_us = now_us();
    if (f->opts.rate <= 0)
        return 0;
    int64_t due = f->started_us + (int64_t)((double)f->counts.sent / f->opts.rate * (double)SLU_SECOND_US);
    for (int64_t left; (left = due - now_us()) > 0;) {
        int rc = stopped(f, err);
        if (rc)
            return rc;
        rd_kafka_poll(f->producer, left > 10000 ? 10 : 1);
    }
    return 0;
}

/* ---- sending ---- */

static const char *topic_of(const slu_feeder *f, const slu_event *e)
{
    uint32_t role = e && e->kind == SLU_EVENT_STEP ? e->step + 1 : 0;
    uint32_t last = f->options->kafka.n_topics - 1;
    return f->options->kafka.topics[role < last ? role : last];
}

static int send_bytes(slu_feeder *f, const char *topic, slu_span key, const void *bytes, size_t len,
                      slu_error *err)
{
    int rc = wait_for_turn(f, err);
    if (!rc)
        rc = wait_for_room(f, err);
    while (!rc) {
        rd_kafka_resp_err_t e = rd_kafka_producev(
            f->producer, RD_KAFKA_V_TOPIC(topic), RD_KAFKA_V_KEY(key.p, key.n),
            RD_KAFKA_V_VALUE((void *)bytes, len), RD_KAFKA_V_MSGFLAGS(RD_KAFKA_MSG_F_COPY), RD_KAFKA_V_END);
        if (!e)
            break;
        if (e != RD_KAFKA_RESP_ERR__QUEUE_FULL)
            return slu_fail(err, SLU_EKAFKA, "topic %s: %s", topic, rd_kafka_err2str(e));
        rd_kafka_poll(f->producer, 50);
        rc = stopped(f, err);
    }
    if (rc)
        return rc;
    f->counts.sent++;
    f->bytes += key.n + len + RECORD_OVERHEAD;
    if (f->counts.sent % 64 == 0)
        rd_kafka_poll(f->producer, 0);
    return f->failure.code ? slu_fail(err, SLU_EKAFKA, "%s", f->failure.message) : 0;
}

int slu_feeder_send(slu_feeder *f, const slu_event *event, slu_error *err)
{
    slu_buf_clear(&f->message);
    int rc = slu_event_encode(f->schema, f->options->kafka.encoding, event, &f->message);
    if (rc)
        return slu_fail(err, rc, "event %.*s cannot be encoded", (int)event->id.n, event->id.p);
    return send_bytes(f, topic_of(f, event), event->impression_id, f->message.data, f->message.len, err);
}

int slu_feeder_send_raw(slu_feeder *f, const void *bytes, size_t len, slu_error *err)
{
    return send_bytes(f, topic_of(f, NULL), (slu_span){"", 0}, bytes, len, err);
}

int slu_feeder_drain(slu_feeder *f, bool committed, int timeout_ms, slu_error *err)
{
    int64_t until = now_us() + (int64_t)timeout_ms * 1000;
    for (;;) {
        rd_kafka_poll(f->producer, 10);
        if (f->failure.code)
            return slu_fail(err, SLU_EKAFKA, "%s", f->failure.message);
        if (!in_flight(f)) {
            if (!committed)
                return 0;
            look(f);
            if (!outstanding(f))
                return 0;
        }
        if (slu_stop_requested)
            return slu_fail(err, SLU_ECLOSED, "stopped on request");
        if (now_us() > until)
            return slu_fail(err, SLU_EAGAIN,
                            "%" PRIu64 " messages in flight and %" PRIu64
                            " not committed by group %s in time",
                            in_flight(f), outstanding(f), f->options->kafka.group);
    }
}

slu_feeder_counts slu_feeder_count(const slu_feeder *f)
{
    return f->counts;
}

/* ---- opening ---- */

/* Small linger: the throughput of batches, while an event is still on its way within a few milliseconds. */
static const slu_kafka_setting producer_settings[] = {
    {"linger.ms", "5"}, {"enable.idempotence", "true"}, {NULL, NULL}};

static int new_handle(slu_feeder *f, rd_kafka_type_t type, rd_kafka_t **out, slu_error *err)
{
    const slu_kafka_setting group_settings[] = {{"group.id", f->options->kafka.group}, {NULL, NULL}};
    rd_kafka_conf_t *conf;
    int rc = slu_kafka_conf_new(f->options, type == RD_KAFKA_PRODUCER ? producer_settings : group_settings,
                                &f->trouble, &conf, err);
    if (rc)
        return rc;
    if (type == RD_KAFKA_PRODUCER)
        rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
    *out = slu_kafka_new(type, conf, err);
    return *out ? 0 : SLU_ECONFIG;
}

static int add_lanes(slu_feeder *f, uint32_t topic, const rd_kafka_metadata_topic_t *meta, slu_error *err)
{
    lane *grown = realloc(f->lanes, (f->n_lanes + (uint32_t)meta->partition_cnt) * sizeof *grown);
    if (!grown)
        return slu_fail(err, SLU_ENOMEM, "feeder: out of memory");
    f->lanes = grown;
    for (int i = 0; i < meta->partition_cnt; i++) {
        lane l = {.topic = topic, .partition = meta->partitions[i].id};
        int64_t low;
        rd_kafka_resp_err_t e =
            rd_kafka_query_watermark_offsets(f->producer, meta->topic, l.partition, &low, &l.first, CALL_MS);
        if (e)
            return slu_fail(err, SLU_EKAFKA, "topic %s [%d]: %s", meta->topic, (int)l.partition,
                            rd_kafka_err2str(e));
        l.next = l.committed = l.first;
        f->lanes[f->n_lanes++] = l;
        rd_kafka_topic_partition_list_add(f->asked, meta->topic, l.partition);
    }
    return 0;
}

static int find_topic(slu_feeder *f, uint32_t topic, int wait_ms, slu_error *err)
{
    const char *name = f->options->kafka.topics[topic];
    const struct rd_kafka_metadata *meta = NULL;
    rd_kafka_topic_t *rkt = rd_kafka_topic_new(f->producer, name, NULL);
    rd_kafka_resp_err_t e = rd_kafka_metadata(f->producer, 0, rkt, &meta, wait_ms);
    int rc;
    if (e)
        rc = slu_fail(err, SLU_EKAFKA,
                      "kafka.brokers %s: %s; is a broker running there (make broker, sluice-sim broker)?",
                      f->options->kafka.brokers, rd_kafka_err2str(e));
    else if (meta->topic_cnt != 1 || meta->topics[0].err || meta->topics[0].partition_cnt < 1)
        rc = slu_fail(err, SLU_EKAFKA, "topic %s: %s; create it first", name,
                      meta->topic_cnt == 1 && meta->topics[0].err ? rd_kafka_err2str(meta->topics[0].err)
                                                                  : "no partitions");
    else
        rc = add_lanes(f, topic, &meta->topics[0], err);
    if (meta)
        rd_kafka_metadata_destroy(meta);
    rd_kafka_topic_destroy(rkt);
    return rc;
}

int slu_feeder_open(const slu_options *options, const slu_schema *schema, const slu_feeder_opts *opts,
                    int wait_ms, slu_feeder **fp, slu_error *err)
{
    *fp = NULL;
    slu_feeder *f = calloc(1, sizeof *f);
    if (!f)
        return slu_fail(err, SLU_ENOMEM, "feeder: out of memory");
    f->trouble.component = "sim";
    f->options = options;
    f->schema = schema;
    f->opts = *opts;
    f->asked = rd_kafka_topic_partition_list_new(8);
    int rc = new_handle(f, RD_KAFKA_PRODUCER, &f->producer, err);
    if (!rc)
        rc = new_handle(f, RD_KAFKA_CONSUMER, &f->group, err);
    for (uint32_t i = 0; !rc && i < options->kafka.n_topics; i++)
        rc = find_topic(f, i, wait_ms, err);
    if (rc) {
        slu_feeder_close(f);
        return rc;
    }
    *fp = f;
    return 0;
}

void slu_feeder_close(slu_feeder *f)
{
    if (!f)
        return;
    if (f->producer) {
        if (in_flight(f))
            rd_kafka_purge(f->producer, RD_KAFKA_PURGE_F_QUEUE | RD_KAFKA_PURGE_F_INFLIGHT);
        rd_kafka_flush(f->producer, 1000);
        rd_kafka_destroy(f->producer);
    }
    if (f->group)
        rd_kafka_destroy(f->group);
    rd_kafka_topic_partition_list_destroy(f->asked);
    slu_buf_free(&f->message);
    free(f->lanes);
    free(f);
}
