/* sim/feeder.h - sends events to the topics of a config, no faster than the trainer takes them.
 *
 * librdkafka's mock cluster forgets all but the last 5 MiB or 100,000 messages of a partition, so a feeder
 * looks at what the consumer group has committed and waits while too much is outstanding. Topics by role: the
 * first one takes impressions, the next ones a step each (the last one all further steps); a single topic
 * takes everything. Key = impression id. @thread one */
#pragma once
#include "base/options.h"
#include "feature/event.h"
#include "feature/schema.h"

typedef struct slu_feeder_opts {
    uint64_t max_outstanding; /* messages not yet committed by kafka.group, over all partitions; 0: unpaced */
    uint64_t max_bytes;       /* and estimated bytes of them in one partition */
    double rate;              /* most events per second of wall time; 0: no limit */
    int64_t until_us;         /* monotonic time after which nothing more is sent (SLU_ECLOSED); 0: none */
} slu_feeder_opts;

typedef struct slu_feeder_counts {
    uint64_t sent, acknowledged, failed;
} slu_feeder_counts;

typedef struct slu_feeder slu_feeder;
/* Looks the topics up (waits up to |wait_ms| for the broker). Returns 0, SLU_EKAFKA (no broker, no such
 * topic), SLU_ECONFIG (an rdkafka.* key that librdkafka refuses), SLU_ENOMEM. */
int slu_feeder_open(const slu_options *options, const slu_schema *schema, const slu_feeder_opts *opts,
                    int wait_ms, slu_feeder **fp, slu_error *err);
/* Sends |event|; waits for its turn. Returns 0, SLU_ECLOSED when a stop was requested or time is up, or
 * SLU_EKAFKA. */
int slu_feeder_send(slu_feeder *f, const slu_event *event, slu_error *err);
/* Sends bytes that need not be an event to the topic of impressions. */
int slu_feeder_send_raw(slu_feeder *f, const void *bytes, size_t len, slu_error *err);
/* Waits until all is acknowledged, and committed by the group if |committed|. Returns 0, SLU_EAGAIN after
 * |timeout_ms|, SLU_ECLOSED, or SLU_EKAFKA when a delivery failed. */
int slu_feeder_drain(slu_feeder *f, bool committed, int timeout_ms, slu_error *err);
slu_feeder_counts slu_feeder_count(const slu_feeder *f);
void slu_feeder_close(slu_feeder *f); /* NULL is fine */
