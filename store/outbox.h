/* store/outbox.h - messages that must reach Kafka because a commit says so: model deltas and dead letters.
 *
 * A message is written in the same commit as the state that it tells of, sent afterwards, and deleted in a
 * later commit once Kafka has acknowledged it. A crash in between sends it again: receivers know versions
 * (deltas) or the sequence number in the header "sluice-sequence" (dead letters). Sequences count up per
 * channel without gaps.
 *
 * With a gate (slu_outbox_gate) messages are handed out only while there is room for them; the others stay in
 * the store, in no memory, until slu_outbox_pump finds room. @thread trainer */
#pragma once
#include "store/store.h"

typedef enum slu_channel { SLU_CHANNEL_DELTAS = 1, SLU_CHANNEL_DEAD_LETTERS = 2, SLU_CHANNELS } slu_channel;
typedef struct slu_outbox slu_outbox;

int slu_outbox_open(slu_store *s, slu_outbox **op, slu_error *err);
void slu_outbox_close(slu_outbox *o);
/* Queues a message for the next flush; returns its sequence number, the first being 1. Kept in memory until
 * its commit. */
uint64_t slu_outbox_add(slu_outbox *o, slu_channel ch, const void *message, size_t len);
/* Puts new messages and deletions of acknowledged ones into |c|. */
int slu_outbox_flush(slu_outbox *o, slu_commit *c);
/* After the commit is durable: calls |send| for every message of it, in order per channel. Also used at start
 * for what the last process left (|recover|: reads everything that is still in the store). */
void slu_outbox_committed(slu_outbox *o,
                          void (*send)(void *ctx, slu_channel ch, uint64_t sequence, const void *message,
                                       size_t len),
                          void *ctx);
int slu_outbox_recover(slu_outbox *o,
                       void (*send)(void *ctx, slu_channel ch, uint64_t sequence, const void *message,
                                    size_t len),
                       void *ctx, slu_error *err);
/* Everything of |ch| up to and including |sequence| was acknowledged; only what was handed to |send| can be.
 */
void slu_outbox_ack(slu_outbox *o, slu_channel ch, uint64_t sequence);
/* |room| is asked before each message; NULL (the default): there always is. */
void slu_outbox_gate(slu_outbox *o, bool (*room)(void *ctx, slu_channel ch, size_t len), void *ctx);
/* Hands out what waits in the store, in order, as far as there is room. Cheap when nothing does. SLU_EIO,
 * SLU_ECORRUPT. */
int slu_outbox_pump(slu_outbox *o,
                    void (*send)(void *ctx, slu_channel ch, uint64_t sequence, const void *message,
                                 size_t len),
                    void *ctx, slu_error *err);
/* Bytes of all messages that are not yet acknowledged; exact after slu_outbox_recover. */
uint64_t slu_outbox_bytes(const slu_outbox *o);
uint64_t slu_outbox_waiting(const slu_outbox *o, slu_channel ch); /* messages not yet acknowledged */
