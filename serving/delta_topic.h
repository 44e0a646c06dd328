/* serving/delta_topic.h - the delta topic as one ordered stream of messages, from any offset on.
 *
 * Partition 0 of kafka.delta_topic, assigned by hand. Brokers that are not there, a topic that does not exist
 * yet and an offset that the topic no longer reaches are not the caller's trouble: they are logged, ever more
 * rarely while they last, and tried again. @thread one, the owner */
#pragma once
#include "base/error.h"
#include "base/options.h"
#include <stdint.h>

typedef struct delta_topic delta_topic;

typedef enum delta_event {
    DELTA_NOTHING, /* within the time */
    DELTA_MESSAGE,
    DELTA_END,     /* everything that the topic holds has been read */
    DELTA_REWOUND, /* the offset was gone: what follows comes from the beginning */
} delta_event;

typedef struct delta_message {
    const void *bytes; /* (len) valid until the next call */
    size_t len;
    int64_t offset;
} delta_message;

/* |offset|: of the first message wanted, -1 from the beginning. Returns 0 or SLU_ECONFIG (an entry of
 * kafka.rdkafka). Does not wait for brokers. */
int delta_topic_open(const slu_options *options, int64_t offset, delta_topic **tp, slu_error *err);
void delta_topic_close(delta_topic *t); /* NULL is fine */
delta_event delta_topic_next(delta_topic *t, int timeout_ms, delta_message *out);
/* Why nothing comes, "" when all is well. */
const char *delta_topic_trouble(const delta_topic *t);

/* For --check: SLU_EKAFKA with brokers, reason and remedy when no broker answers in time. A topic that is not
 * there yet is fine: the trainer makes it. */
int delta_topic_check(const slu_options *options, int timeout_ms, slu_error *err);
