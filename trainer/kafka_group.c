/* What the consumer group is told, and the lag. Nothing is decided by it: the store says where to go on. */
#include "base/log.h"
#include "trainer/kafka_source_state.h"

#define COMMIT_INTERVAL_US (SLU_SECOND_US / 10) /* often enough for feeders that pace themselves by it */

static int64_t now_us(void)
{
    return slu_mono_us(&slu_system_clock);
}

void slu_kafka_on_commit(rd_kafka_t *rk, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t *list,
                         void *opaque)
{
    (void)rk, (void)list;
    slu_kafka_source *s = (slu_kafka_source *)((char *)opaque - offsetof(slu_kafka_source, trouble));
    s->commit_in_flight = false;
    if (!code || code == RD_KAFKA_RESP_ERR__NO_OFFSET)
        return;
    SLU_DEBUG("kafka", "offsets were not reported to the group", SLU_STR("reason", rd_kafka_err2str(code)));
    for (uint32_t i = 0; i < s->n; i++)
        s->reported[i] = -1; /* next time all of them */
}

static void report_offsets(slu_kafka_source *s)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new((int)s->n);
    for (uint32_t i = 0; i < s->n; i++) {
        if (s->wanted[i] == s->reported[i])
            continue;
        s->reported[i] = s->wanted[i];
        rd_kafka_topic_partition_list_add(list, slu_kafka_topic(s, s->parts[i].topic), s->parts[i].number)
            ->offset = s->wanted[i];
    }
    if (list->cnt && rd_kafka_commit(s->rk, list, 1) == RD_KAFKA_RESP_ERR_NO_ERROR) {
        s->commit_in_flight = true;
        s->committed_us = now_us();
    }
    rd_kafka_topic_partition_list_destroy(list);
}

/* The store decides where to go on, so a report may be dropped: no more than one a second, none in a queue.
 */
void slu_kafka_committed(slu_source *base, const int64_t *next_offsets, uint32_t n)
{
    slu_kafka_source *s = (slu_kafka_source *)base;
    for (uint32_t i = 0; i < n && i < s->n; i++)
        if (next_offsets[i] >= 0)
            s->wanted[i] = next_offsets[i];
    if (!s->commit_in_flight && now_us() - s->committed_us >= COMMIT_INTERVAL_US)
        report_offsets(s);
}

void slu_kafka_report_last(slu_kafka_source *s)
{
    rd_kafka_message_t *m;
    for (int i = 0; i < 20; i++) {
        if (!s->commit_in_flight && i == 0)
            report_offsets(s);
        if (!s->commit_in_flight)
            break;
        if (rd_kafka_consume_batch_queue(s->queue, 50, &m, 1) == 1)
            rd_kafka_message_destroy(m);
    }
}

int64_t slu_kafka_lag(slu_source *base, double *fraction)
{
    slu_kafka_source *s = (slu_kafka_source *)base;
    int64_t behind = 0;
    bool known = false;
    *fraction = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const slu_kafka_partition *p = &s->parts[i];
        int64_t low, high;
        if (rd_kafka_get_watermark_offsets(s->rk, slu_kafka_topic(s, p->topic), p->number, &low, &high) ||
            high < 0)
            continue;
        known = true;
        int64_t at = p->at.next >= 0 ? p->at.next : low;
        behind += high > at ? high - at : 0;
    }
    return known ? behind : -1;
}
