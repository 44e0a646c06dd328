/* trainer/kafka_scout.h - asks brokers what only a blocking call can tell, on a thread of its own: which
 * partitions the topics have, and where one of them ends now.
 *
 * The owner never waits for it: it looks at what the scout has found. Topics that are missing, and brokers
 * that do not answer, are asked for twice a second, else every two seconds. @thread all functions: the owner
 */
#pragma once
#include "base/error.h"
#include <librdkafka/rdkafka.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct slu_kafka_scout slu_kafka_scout;

/* |rk| and |topics| (n) must outlive it. Nothing runs before slu_kafka_scout_start. NULL when out of memory.
 */
slu_kafka_scout *slu_kafka_scout_new(rd_kafka_t *rk, char *const *topics, uint32_t n);
int slu_kafka_scout_start(slu_kafka_scout *s, slu_error *err);
/* Waits for the call that is under way, two seconds at most. NULL is fine. */
void slu_kafka_scout_free(slu_kafka_scout *s);

/* Asks now, on the caller's thread: partitions of one topic, 0 when it does not exist, -1 when nobody
 * answered. */
int32_t slu_kafka_scout_ask(slu_kafka_scout *s, uint32_t topic);

/* True once after a topic has another number of partitions than before, or is gone or back; topics that were
 * asked for together are told together. */
bool slu_kafka_scout_news(slu_kafka_scout *s);
/* Partitions of |topic| found so far, 0 none. */
int32_t slu_kafka_scout_partitions(slu_kafka_scout *s, uint32_t topic);
/* The same by the newest answer: 0 there is no such topic, -1 nobody has answered. */
int32_t slu_kafka_scout_present(slu_kafka_scout *s, uint32_t topic);
/* Whether any broker has answered yet. */
bool slu_kafka_scout_answered(slu_kafka_scout *s);
/* Monotonic time when brokers answered again after they had not, 0: they always did. */
int64_t slu_kafka_scout_back(slu_kafka_scout *s);
/* The end of a partition as its broker told it at |not_before_us| (monotonic) or later. -1: not known yet,
 * the scout is on its way; ask again later. An answer is handed out once. */
int64_t slu_kafka_scout_end(slu_kafka_scout *s, uint32_t topic, int32_t partition, int64_t not_before_us);
