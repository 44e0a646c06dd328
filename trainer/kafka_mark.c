#include "trainer/kafka_mark.h"
#include "base/digest.h"
#include "base/log.h"
#include <inttypes.h>

uint64_t slu_kafka_mark(const rd_kafka_message_t *m)
{
    rd_kafka_timestamp_type_t type;
    int64_t ms = rd_kafka_message_timestamp(m, &type);
    uint64_t hash = slu_hash64(m->payload ? m->payload : "", m->len, (uint64_t)ms);
    hash = slu_hash64(m->key ? m->key : "", m->key_len, hash);
    return hash ? hash : 1;
}

int64_t slu_kafka_proof_begin(slu_kafka_proof *p)
{
    p->wanted = p->mark && p->next > 0;
    return p->next - p->wanted;
}

static void unproved(slu_kafka_proof *p, const char *topic, int32_t partition)
{
    p->wanted = false;
    SLU_WARN(
        "kafka",
        "the newest record that was used is no longer kept; whether the topic is the same cannot be checked",
        SLU_STR("topic", topic), SLU_I64("partition", partition), SLU_I64("offset", p->next - 1));
}

int slu_kafka_proof_message(slu_kafka_proof *p, const rd_kafka_message_t *m, const char *topic,
                            slu_error *err)
{
    if (m->offset < p->next - 1)
        return 0;
    if (m->offset >= p->next) {
        unproved(p, topic, m->partition);
        return 1;
    }
    if (slu_kafka_mark(m) != p->mark)
        return slu_fail(
            err, SLU_EKAFKA,
            "topic %s partition %d: the record at offset %" PRId64
            " is not the one that was used: the topic was made anew, or this is another cluster. Its "
            "events are never mixed with those learned before: restore the topic, or start with an empty "
            "store.path",
            topic, m->partition, m->offset);
    p->wanted = false;
    return 0;
}

static int not_there(const slu_kafka_proof *p, const char *topic, int32_t partition, int64_t low,
                     int64_t high, slu_error *err)
{
    if (p->next < 0)
        return slu_fail(
            err, SLU_EKAFKA,
            "topic %s partition %d: nothing of it was used yet, and the topic begins at offset %" PRId64
            " now (it ends at %" PRId64
            "): retention took events that waited to be used, or the topic was made anew. They are never "
            "skipped silently: restore a backup of the topic, or start again to go on at its beginning "
            "without them",
            topic, partition, low, high);
    return slu_fail(
        err, SLU_EKAFKA,
        "topic %s partition %d: the store stands at offset %" PRId64 ", but the topic holds %" PRId64
        " to %" PRId64
        ": events between were lost by retention, or the topic was made anew. They are never skipped "
        "silently: restore a backup of the topic, or start with an empty store.path",
        topic, partition, p->next, low, high);
}

int slu_kafka_proof_end(slu_kafka_proof *p, const char *topic, int32_t partition, int64_t end, slu_error *err)
{
    if (end < p->next)
        return not_there(p, topic, partition, 0, end, err);
    if (p->wanted)
        unproved(p, topic, partition);
    return 0;
}

int slu_kafka_proof_refused(slu_kafka_proof *p, const char *topic, int32_t partition, int64_t low,
                            int64_t high, slu_error *err)
{
    if (!p->wanted || low != p->next || high < low)
        return not_there(p, topic, partition, low, high, err);
    unproved(p, topic, partition);
    return 0;
}
