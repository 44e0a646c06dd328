/* topic_copy: copies partition 0 of a topic to another topic, at once or with the records' distances in time.
 *
 * The copy goes on where the target ends: the target is always a beginning of the source, every record with
 * the offset, key, value, headers and timestamp that it has there. So whoever reads the one may go on with
 * the other (bench/serve.py replays what a trainer published to a scorer this way).
 *
 * Two steps, so that sending costs as little as it can: topic_copy_read brings records into memory,
 * topic_copy_send sleeps until each one's turn. @thread one, the owner */
#pragma once
#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

typedef struct topic_copy topic_copy;

typedef struct topic_copy_record {
    int64_t offset, time_ms; /* the timestamp in the source */
    const void *value;       /* (len) */
    size_t len;
} topic_copy_record;

/* From a record's turn to the broker's acknowledgement of it. */
typedef struct topic_copy_late {
    double p99_ms, worst_ms;
} topic_copy_late;

/* Reads what |target| lacks of |source|, up to the first record whose timestamp is |until_ms| or later (0:
 * all there is now). Returns 0, or SLU_EKAFKA: no broker, no such topic, |source| no longer holds all of it,
 * or |target| is longer; SLU_EFORMAT: records without timestamps, or offsets with gaps, which no copy can
 * have. */
int topic_copy_read(const char *brokers, const char *source, const char *target, int64_t until_ms,
                    topic_copy **cp, slu_error *err);
size_t topic_copy_records(const topic_copy *c);
topic_copy_record topic_copy_at(const topic_copy *c, size_t i);
/* Sends them. |from_ms|: the recorded time that is now, so that a record stamped a second after it is sent in
 * a second; 0: all at once. Returns when all are acknowledged, or SLU_EKAFKA: a record was refused, was not
 * acknowledged within 30 s, or got another offset because somebody else writes into |target|. Once. */
int topic_copy_send(topic_copy *c, int64_t from_ms, slu_error *err);
topic_copy_late topic_copy_lateness(const topic_copy *c); /* after sending with |from_ms| */
void topic_copy_free(topic_copy *c);                      /* NULL is fine */
