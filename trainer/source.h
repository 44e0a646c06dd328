/* trainer/source.h - where records come from: Kafka, or recorded files.
 *
 * A source turns the outside world into one totally ordered sequence of records. Everything that can
 * influence the model is in that sequence, also what only a clock knows (a partition fell silent, the last
 * samples should not wait any longer), so the pipeline is a pure function of it: record the sequence, and a
 * live run can be replayed.
 * @thread one, the owner */
#pragma once
#include "base/error.h"
#include "base/options.h"
#include "feature/event.h"
#include "store/store.h"

typedef enum slu_record_kind {
    SLU_RECORD_PARTITION, /* a partition that this source will read: it holds the watermark from now on */
    SLU_RECORD_EVENT,     /* one message or line */
    SLU_RECORD_IDLE,  /* partition has been silent for join.idle_timeout: it no longer holds the watermark */
    SLU_RECORD_FLUSH, /* nothing came for training.max_batch_delay of wall time: learn what is waiting */
    SLU_RECORD_CLOCK, /* our own clock says arrival_us: nothing that comes has arrived later */
    SLU_RECORD_END,   /* partition was read to its end at arrival_us: what follows arrived no earlier */
} slu_record_kind;

typedef struct slu_record {
    slu_record_kind kind;
    uint32_t partition; /* index into the source's partitions, 0.. */
    int64_t offset;     /* position within it; files: line number from 1 */
    int64_t arrival_us; /* events: the broker's stamp, SLU_NO_STAMP none; files: 0 (not checked). Whether that
                           can be, trainer/watermark.h decides. Else see the kind */
    uint64_t mark;      /* of the event, by which its topic is known again (trainer/kafka_mark.h); files: 0 */
    /* One of three: */
    const void *bytes; /* (len) an encoded message, to be decoded by the pipeline */
    size_t len;
    slu_encoding encoding;
    const slu_event *event; /* already decoded (CSV) */
    slu_dead_reason
        dead; /* the source itself could not read it; bytes hold the raw text, |message| says why */
    const char *message;
} slu_record;

typedef struct slu_partition {
    const char *topic; /* topic name, or file path */
    int32_t partition;
} slu_partition;

/* How a partition is being read. */
typedef struct slu_reading {
    bool backlog; /* not paused, not at its end, and it delivers: others may wait for it */
    bool paused;
} slu_reading;

typedef struct slu_source slu_source;
struct slu_source {
    const struct slu_source_ops *ops;
};

typedef struct slu_source_ops {
    /* Waits up to |timeout_ms| for a record; its memory is valid until the next call. Returns 1 with a
     * record, 0 with none, SLU_ECLOSED at the end of recorded files, or a negative code. */
    int (*next)(slu_source *s, int timeout_ms, slu_record *out, slu_error *err);
    /* Partitions known so far; may grow (new ones are appended) until the end. */
    uint32_t (*partitions)(slu_source *s);
    slu_partition (*partition)(slu_source *s, uint32_t i);
    /* The store has committed |next_offsets| (n, by partition index; -1: none): tell the consumer group, for
     * lag tools. May be NULL. */
    void (*committed)(slu_source *s, const int64_t *next_offsets, uint32_t n);
    /* Messages not yet read, -1 unknown. 0..1 progress of recorded files in |fraction|. May be NULL. */
    int64_t (*lag)(slu_source *s, double *fraction);
    /* For trainer/pace.h; NULL: partitions cannot be paused. |pause| (n) by partition index; one that cannot
     * be paused now stays as it is. Nothing comes of a paused one until it goes on, where it was. */
    slu_reading (*reading)(slu_source *s, uint32_t i);
    void (*pause)(slu_source *s, const bool *pause, uint32_t n);
    void (*close)(slu_source *s);
} slu_source_ops;

static inline int slu_source_next(slu_source *s, int timeout_ms, slu_record *out, slu_error *err)
{
    return s->ops->next(s, timeout_ms, out, err);
}

/* Recorded files of options->files below |directory|, merged by event time (ties: order of the list, then of
 * the lines). Partition i is file i. Reads .gz. CSV by RFC 4180 with a header line; feature values come from
 * the columns named by the schema's fields; an empty cell is a missing value; extra columns are ignored. A
 * file line that cannot be used is a dead record, not an error. Starts behind the offsets stored in |store|
 * (NULL: from the beginning). Returns 0, SLU_EIO (which file), SLU_ECONFIG (a column that is not in the
 * header; the message lists the header). */
int slu_file_source_open(const slu_options *options, const slu_schema *schema, const char *directory,
                         slu_store *store, slu_source **sp, slu_error *err);

/* All partitions of kafka.topics by manual assignment from the offsets in |store| (none stored: the
 * beginning). New partitions of a known topic are picked up. Offsets are also reported to the group. A broker
 * that is not there is logged and tried again with back-off by librdkafka; |check_timeout_ms| > 0 instead
 * returns SLU_EKAFKA with brokers, reason and remedy when no metadata arrived by then (--check). A stored
 * offset that the topic no longer reaches is SLU_EKAFKA with the remedy: lost events are never skipped
 * silently. */
int slu_kafka_source_open(const slu_options *options, slu_store *store, int check_timeout_ms, slu_source **sp,
                          slu_error *err);
