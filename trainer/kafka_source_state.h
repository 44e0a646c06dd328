/* trainer/kafka_source_state.h - the inside of the Kafka source, shared by kafka_source.c (records out),
 * kafka_identity.c (is this still the topic that was read?), kafka_pause.c (partitions that wait for others)
 * and kafka_group.c (what the consumer group is told). Nobody else includes it. */
#pragma once
#include "base/clock.h"
#include "trainer/kafka_client.h"
#include "trainer/kafka_mark.h"
#include "trainer/kafka_scout.h"
#include "trainer/kafka_shelf.h"
#include "trainer/source.h"
#include "trainer/steady_clock.h"

#define SLU_KAFKA_BATCH 512

typedef struct slu_kafka_partition {
    uint32_t topic; /* index into options->kafka.topics */
    int32_t number;
    slu_kafka_proof at; /* behind the newest record handed out */
    int64_t active_us;  /* monotonic: newest message, or when reading began */
    bool at_end;        /* read to its end since then, which was at |end| */
    int64_t end;
    int64_t end_us,
        told_end_us;  /* our clock when it was last known to be at its end, and as told; 0: never */
    int64_t stamp_us; /* of its newest message, SLU_NO_STAMP none */
    bool idle;        /* said so */
    bool paused;      /* waits for others: what comes is shelved (kafka_pause.c) */
    bool stopped;     /* not fetched for either, because the shelves are full */
    slu_shelf shelf;  /* behind |at|, before what is fetched next */
    bool reread;      /* what came while its topic had to prove itself was passed over */
} slu_kafka_partition;

typedef struct slu_kafka_source {
    slu_source base;
    const slu_options *options;
    slu_store *store;
    slu_kafka_trouble trouble;
    rd_kafka_t *rk;
    rd_kafka_queue_t *queue;
    slu_kafka_scout *scout;
    slu_kafka_partition *parts; /* (n) */
    uint32_t n, cap, announced;
    uint32_t **index;  /* (n_topics) partition number -> place in parts */
    int32_t *known;    /* (n_topics) partitions taken over from the scout */
    bool *gone;        /* (n_topics) the topic was there and is not */
    bool reread;       /* of any partition */
    bool suspect;      /* something happened behind which a topic may have been made anew */
    int64_t proved_us; /* monotonic: when proofs were last begun */

    rd_kafka_message_t *current;                /* of the record in use */
    rd_kafka_message_t *batch[SLU_KAFKA_BATCH]; /* [at, n_batch) wait to be handed out */
    size_t at, n_batch;
    slu_steady_clock clock;
    slu_shelf_room shelves;
    uint32_t shelf_at, shelf_run; /* whose turn it is, and what it had of it */
    int shelf_left;               /* records of shelves before something is fetched again */
    uint32_t n_stopped;
    int64_t told_us;                  /* our clock as last told, 0: not yet */
    int64_t empty_us;                 /* our clock when all that had been fetched was taken */
    int64_t drained_us;               /* the same, before what is in |batch| was fetched */
    int64_t asked_us, asked_again_us; /* monotonic: when we last fetched, and first did after a stall */
    int64_t newest_us;                /* monotonic: newest message of any partition, or when reading began */
    bool flushed;
    int64_t committed_us;
    bool commit_in_flight;
    int64_t *wanted, *reported; /* (cap) offsets to tell the group, and what it was told; -1: none */
    int64_t missing_log_us;     /* monotonic: when missing topics may be mentioned again */
} slu_kafka_source;

static inline const char *slu_kafka_topic(const slu_kafka_source *s, uint32_t topic)
{
    return s->options->kafka.topics[topic];
}

/* Frees what was fetched and not handed out. */
void slu_kafka_drop_batch(slu_kafka_source *s);
/* The partition that |m| tells of, NULL: none of ours. */
slu_kafka_partition *slu_kafka_find(slu_kafka_source *s, const rd_kafka_message_t *m);

slu_shelf_item slu_kafka_item(const rd_kafka_message_t *m);
/* The next record of |p|: that of |item|, or what has to be told before it (returns false: |item| comes
 * again). */
bool slu_kafka_hand_out(slu_kafka_source *s, slu_kafka_partition *p, const slu_shelf_item *item,
                        slu_record *out);

/* ---- kafka_group.c: for lag tools ---- */

void slu_kafka_on_commit(rd_kafka_t *rk, rd_kafka_resp_err_t code, rd_kafka_topic_partition_list_t *list,
                         void *opaque);
void slu_kafka_committed(slu_source *base, const int64_t *next_offsets, uint32_t n);
/* At the end the group is told the last offsets, if the broker is there to listen. */
void slu_kafka_report_last(slu_kafka_source *s);
int64_t slu_kafka_lag(slu_source *base, double *fraction);

/* ---- kafka_identity.c ---- */

/* |topic| has |count| partitions by the newest answer, -1 unknown. SLU_EKAFKA when it had more. */
int slu_kafka_check_count(slu_kafka_source *s, uint32_t topic, int32_t count, slu_error *err);
/* Trouble is over behind which topics may have been made anew: each has to show its newest record again. What
 * was fetched and not handed out comes again. */
void slu_kafka_prove_again(slu_kafka_source *s);
/* True when a message or the end of |p| (NULL: never) must not be looked at yet. */
bool slu_kafka_pass_over(slu_kafka_source *s, slu_kafka_partition *p);
/* Partitions that were passed over are read where they stood, once their topic has proved itself. */
void slu_kafka_reread(slu_kafka_source *s);
/* The broker does not have the offset of |p|. */
int slu_kafka_take_refusal(slu_kafka_source *s, slu_kafka_partition *p, slu_error *err);

/* ---- kafka_pause.c ---- */

/* We ask for messages now; after a stall of ours no partition is blamed for having delivered nothing. */
void slu_kafka_asked(slu_kafka_source *s);
slu_reading slu_kafka_reading(slu_source *base, uint32_t i);
void slu_kafka_pause(slu_source *base, const bool *pause, uint32_t n);
/* A message or the end of |p| was fetched. True: it is not its turn; it was put on the shelf, or comes again.
 */
bool slu_kafka_shelve(slu_kafka_source *s, slu_kafka_partition *p, const rd_kafka_message_t *m);
/* The next record of the shelves of those that are not paused. */
bool slu_kafka_next_shelved(slu_kafka_source *s, slu_record *out);
bool slu_kafka_shelf_waits(const slu_kafka_source *s); /* there is one */
/* Those that were not fetched for are, when there is room again. */
void slu_kafka_refill(slu_kafka_source *s);
/* |p| is read anew from where it stands. */
void slu_kafka_empty_shelf(slu_kafka_source *s, slu_kafka_partition *p);
/* The same with all of them, which were just sought to; and those that are paused go on. */
void slu_kafka_resume_sought(slu_kafka_source *s);
