/* trainer/kafka_mark.h - is this still the topic that was read? The newest record of a partition that was
 * used is remembered as a mark, a hash of it; before anything behind it is used the topic has to show that
 * record again at that offset.
 *
 * A topic that was deleted and made anew begins at offset 0 again. While it is shorter than the stored offset
 * Kafka says so itself; once it is longer, reading on would mix two streams without a word. Kafka's own
 * identity of topics does not reach clients of Debian's librdkafka, so content has to do: what is the same
 * record at the same offset is the same topic as far as it matters here. Pure. */
#pragma once
#include "base/error.h"
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

/* Of timestamp, key and value; never 0. */
uint64_t slu_kafka_mark(const rd_kafka_message_t *m);

typedef struct slu_kafka_proof {
    uint64_t mark; /* of the record before |next|; 0: none was used, or it is of before marks were kept */
    int64_t next;  /* offset that is read next; -1: the beginning */
    bool wanted;   /* the record before |next| is awaited: what comes is no event yet */
} slu_kafka_proof;

/* Begins a proof when there is a mark. Returns the offset to read from: one before |next| while it is wanted.
 */
int64_t slu_kafka_proof_begin(slu_kafka_proof *p);
/* A message came while the proof is wanted. Returns 0: it is no event, or SLU_EKAFKA: another topic, with
 * what to do; or 1: it is the next event, since the record before is no longer kept (compaction), so nothing
 * can be proved. */
int slu_kafka_proof_message(slu_kafka_proof *p, const rd_kafka_message_t *m, const char *topic,
                            slu_error *err);
/* The partition was read to its end, |end|. 0, or SLU_EKAFKA: it once held more. */
int slu_kafka_proof_end(slu_kafka_proof *p, const char *topic, int32_t partition, int64_t end,
                        slu_error *err);
/* The broker refused the offset: the partition holds |low| to |high|. 0 when retention took no more than the
 * record that was to prove, so that reading can go on at |next|; else SLU_EKAFKA. */
int slu_kafka_proof_refused(slu_kafka_proof *p, const char *topic, int32_t partition, int64_t low,
                            int64_t high, slu_error *err);
