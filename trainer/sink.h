/* trainer/sink.h - where messages go that a commit made true: Kafka in the daemon (trainer/publisher.h),
 * memory in tests. @thread the pipeline's */
#pragma once
#include "store/outbox.h"

typedef struct slu_sink {
    /* Takes a message of the outbox; it is copied. Sequences of a channel come in order without gaps, after a
     * restart from the first on that was not acknowledged. */
    void (*send)(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len);
    /* A chunk of a base, in order with the deltas; nobody waits for its acknowledgement. */
    void (*send_base)(void *ctx, const void *message, size_t len);
    /* Highest sequence of |ch| up to which everything was acknowledged, 0 none. */
    uint64_t (*acked)(void *ctx, slu_channel ch);
    void *ctx;
    /* False: chunks of a base should wait a little. NULL: never. */
    bool (*room)(void *ctx);
} slu_sink;
