/* Whether a topic is still the one that was read (trainer/kafka_mark.h tells why that is asked at all). */
#include "base/log.h"
#include "store/state.h"
#include "trainer/kafka_source_state.h"

/* Partitions do not go away unless the topic was made anew. */
int slu_kafka_check_count(slu_kafka_source *s, uint32_t topic, int32_t count, slu_error *err)
{
    const char *name = slu_kafka_topic(s, topic);
    int32_t had = s->known[topic];
    if (count < 0)
        return 0;
    if (!had && count && s->store) {
        int rc = slu_state_partitions(s->store, name, &had, err);
        if (rc)
            return rc;
    }
    if (count && count < had)
        return slu_fail(
            err, SLU_EKAFKA,
            "topic %s has %d partitions, but the store has events of partition %d: the topic was made anew, "
            "or this is another cluster. Restore the topic, or start with an empty store.path",
            name, count, had - 1);
    if (had && !count != s->gone[topic]) {
        s->gone[topic] = !count;
        s->suspect = true;
        if (!count)
            SLU_WARN("kafka", "a topic is gone; waiting for it to come back as it was",
                     SLU_STR("topic", name));
    }
    return 0;
}

/* Reads partition |p| from |offset| on. */
static void seek(slu_kafka_source *s, const slu_kafka_partition *p, int64_t offset)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, slu_kafka_topic(s, p->topic), p->number)->offset = offset;
    rd_kafka_error_t *e = rd_kafka_seek_partitions(s->rk, list, 0);
    if (e)
        rd_kafka_error_destroy(e);
    rd_kafka_topic_partition_list_destroy(list);
}

/* The same for one that librdkafka has given up, which cannot be sought. */
static int assign_again(slu_kafka_source *s, const slu_kafka_partition *p, slu_error *err)
{
    rd_kafka_topic_partition_list_t *list = rd_kafka_topic_partition_list_new(1);
    rd_kafka_topic_partition_list_add(list, slu_kafka_topic(s, p->topic), p->number)->offset = p->at.next;
    rd_kafka_error_t *e = rd_kafka_incremental_unassign(s->rk, list);
    if (!e)
        e = rd_kafka_incremental_assign(s->rk, list);
    int rc = e ? slu_fail(err, SLU_EKAFKA, "topic %s partition %d cannot be read again: %s",
                          slu_kafka_topic(s, p->topic), p->number, rd_kafka_error_string(e))
               : 0;
    if (e)
        rd_kafka_error_destroy(e);
    rd_kafka_topic_partition_list_destroy(list);
    return rc;
}

/* A topic may have been made anew while nobody looked: each has to show its newest record again. What was
 * fetched and not handed out comes again. */
void slu_kafka_prove_again(slu_kafka_source *s)
{
    slu_kafka_drop_batch(s);
    s->suspect = false;
    s->proved_us = slu_mono_us(&slu_system_clock);
    for (uint32_t i = 0; i < s->n; i++) {
        slu_kafka_partition *p = &s->parts[i];
        int64_t from = slu_kafka_proof_begin(&p->at);
        /* Also one of which nothing was used yet: its messages were in the batch, too. */
        seek(s, p, from >= 0 ? from : RD_KAFKA_OFFSET_BEGINNING);
    }
    slu_kafka_resume_sought(s); /* a paused one could show nothing */
}

/* Whether |p| has to wait: nothing of it was ever used, so it cannot show anything itself, and another
 * partition of its topic has yet to. */
static bool waits_for_proof(const slu_kafka_source *s, const slu_kafka_partition *p)
{
    for (int32_t i = 0; !p->at.mark && i < s->known[p->topic]; i++)
        if (s->parts[s->index[p->topic][i]].at.wanted)
            return true;
    return false;
}

/* Partitions that waited are read where they stood. */
void slu_kafka_reread(slu_kafka_source *s)
{
    bool left = false;
    for (uint32_t i = 0; i < s->n; i++) {
        slu_kafka_partition *p = &s->parts[i];
        if (p->reread && !waits_for_proof(s, p)) {
            p->reread = false;
            slu_kafka_empty_shelf(s, p);
            seek(s, p, p->at.next >= 0 ? p->at.next : RD_KAFKA_OFFSET_BEGINNING);
        }
        left = left || p->reread;
    }
    s->reread = left;
}

/* True when a message or the end of |p| must not be looked at yet. */
bool slu_kafka_pass_over(slu_kafka_source *s, slu_kafka_partition *p)
{
    if (!p || !waits_for_proof(s, p))
        return p && p->reread; /* of before the seek */
    p->reread = s->reread = true;
    return true;
}

/* The broker does not have the offset. */
int slu_kafka_take_refusal(slu_kafka_source *s, slu_kafka_partition *p, slu_error *err)
{
    int64_t low = -1, high = -1;
    rd_kafka_query_watermark_offsets(s->rk, slu_kafka_topic(s, p->topic), p->number, &low, &high, 5000);
    int rc = slu_kafka_proof_refused(&p->at, slu_kafka_topic(s, p->topic), p->number, low, high, err);
    return rc ? rc : assign_again(s, p, err);
}
