/* trainer/publisher.h - sends outbox messages to Kafka: model deltas and dead letters.
 *
 * Fire and remember: slu_publisher_send never blocks on the broker; acknowledgements come back through
 * slu_publisher_acked(). Messages of a channel arrive in order (idempotent producer). Without
 * kafka.dead_letter_topic, dead letters are appended to store.path/dead-letters.jsonl instead. @thread one,
 * the trainer's */
#pragma once
#include "base/error.h"
#include "base/options.h"
#include "store/outbox.h"
#include "trainer/sink.h"

typedef struct slu_publisher slu_publisher;

/* |with_kafka| false: no broker at all (replay): deltas are dropped, dead letters go to |dead_letter_path|
 * (NULL: nowhere, they are still counted). */
int slu_publisher_open(const slu_options *options, bool with_kafka, const char *dead_letter_path,
                       slu_publisher **pp, slu_error *err);
/* Whether a message of |len| bytes can be sent without waiting: what Kafka has not acknowledged stays within
 * the publish share of the memory plan. For slu_pipeline_config.room_for, |p| being the slu_publisher. */
bool slu_publisher_room_for(void *p, slu_channel ch, size_t len);
/* The message is copied. Waits only when publish queues are full, which slu_publisher_room_for tells before,
 * and not when the process is to stop: the outbox has it. */
void slu_publisher_send(slu_publisher *p, slu_channel ch, uint64_t sequence, const void *message, size_t len);
/* Serves callbacks; returns the highest sequence of |ch| up to which everything was acknowledged, 0 none. */
uint64_t slu_publisher_acked(slu_publisher *p, slu_channel ch);
/* Publishes messages that are not in the outbox (base snapshots), in order with the deltas. */
void slu_publisher_send_base(slu_publisher *p, const void *message, size_t len);
/* False while a few MiB of a base are on the way: a base is read no faster than Kafka takes it. */
bool slu_publisher_room(slu_publisher *p);
/* 0 while all is well, also while a broker is away. Otherwise publishing has ended for good (SLU_EKAFKA: a
 * topic refuses messages; SLU_EIO: the dead letter file) with topic or file and the remedy: commit nothing
 * more and stop, the outbox keeps what was not acknowledged. */
int slu_publisher_check(slu_publisher *p, slu_error *err);
/* Waits up to |timeout_ms| until everything is acknowledged. Returns what is still unacknowledged. */
uint64_t slu_publisher_drain(slu_publisher *p, int timeout_ms);
void slu_publisher_close(slu_publisher *p);
/* The publisher as a pipeline sees it: send, acked, send_base and room. */
slu_sink slu_publisher_sink(slu_publisher *p);

/* Counters of bytes, for deciding when a base is due. */
uint64_t slu_publisher_delta_bytes(const slu_publisher *p); /* since open */
uint64_t slu_publisher_base_bytes(const slu_publisher *p);
