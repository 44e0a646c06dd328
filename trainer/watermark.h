/* trainer/watermark.h - how far event time has come, over partitions, and which of them to believe.
 *
 * watermark = min over active partitions of (their newest event time) - allowed lateness. A partition that
 * was announced and has not delivered yet holds the watermark back, so that a backlog read partition by
 * partition closes no window early; one that fell silent (SLU_RECORD_IDLE) no longer does, until its next
 * event. When every partition is idle the watermark stands still. It never goes backwards.
 *
 * Wrong clocks are told from backlogs by comparing event time with the arrival of the very same message,
 * never with now: a backlog is old in both. Arrival is the broker's stamp, corrected by what cannot be
 * otherwise: nothing arrived later than our own clock says (SLU_RECORD_CLOCK), nothing behind the end of a
 * partition arrived before we stood there (SLU_RECORD_END; the stamp may be that of a producer). With it
 *   - a partition whose newest event is more than join.max_behind older than its arrival is *behind*: while
 *     others are not, it does not hold the watermark. When all are (old events are produced anew), all hold.
 *   - messages that cannot be used move their partition on as far as time passed between their arrivals, so
 * one that brings nothing else does not hold the watermark for ever. State is kept by partition name, because
 * a source may number its partitions differently after a restart. Pure: time comes in with the records. */
#pragma once
#include "base/bytes.h"
#include "base/error.h"
#include "trainer/source.h"

typedef struct slu_watermark slu_watermark;

/* |max_behind_us| 0: no partition is ever behind. */
slu_watermark *slu_watermark_new(int64_t allowed_lateness_us, int64_t max_behind_us);
void slu_watermark_free(slu_watermark *w);

/* Announces a partition (again); |index| is the source's number for it from now on. */
void slu_watermark_partition(slu_watermark *w, uint32_t index, const slu_partition *part);
/* The source begins to read the partition, perhaps again after a restart: what came in the meantime must not
 * be late, so it holds the watermark until it delivers or falls silent. */
void slu_watermark_hold(slu_watermark *w, uint32_t index);
/* Our own clock, as the source told it; may be set back. */
void slu_watermark_clock(slu_watermark *w, int64_t now_us);
/* The partition was read to its end at |now_us|. */
void slu_watermark_end(slu_watermark *w, uint32_t index, int64_t now_us);
/* A message came that its broker stamped |stamp_us|. Returns when it arrived, as far as that can be known:
 * the stamp, but not before the partition's last end and not more than SLU_CLOCK_GRAIN_US after our clock. 0
 * (no clock: recorded files) stays 0. Call one of the next two for each message after this. */
int64_t slu_watermark_arrival(slu_watermark *w, uint32_t index, int64_t stamp_us);
/* The latest that slu_watermark_arrival can return now, INT64_MAX while no clock was told. */
int64_t slu_watermark_latest_arrival(const slu_watermark *w);
/* It cannot be used. */
void slu_watermark_unusable(slu_watermark *w, uint32_t index);
/* An event of |time_us| came from partition |index|; |next_offset| is what to read next. */
void slu_watermark_event(slu_watermark *w, uint32_t index, int64_t time_us);
void slu_watermark_offset(slu_watermark *w, uint32_t index, int64_t next_offset, uint64_t mark);
void slu_watermark_idle(slu_watermark *w, uint32_t index);

/* Sources tell their clock anew when it has gone on by this. */
#define SLU_CLOCK_GRAIN_US 1000000LL
/* Stamp of a message that has none: it arrives now. */
#define SLU_NO_STAMP INT64_MAX

/* INT64_MIN while nothing can be said. */
int64_t slu_watermark_now(const slu_watermark *w);
/* Newest event time of all partitions, INT64_MIN none: the clock that batches age by. */
int64_t slu_watermark_newest(const slu_watermark *w);

/* How a known partition stands; times are INT64_MIN (newest) or 0 (arrival) while unknown. */
typedef struct slu_partition_time {
    int64_t newest_us;  /* newest event time */
    int64_t arrival_us; /* when its last message arrived */
    bool idle;
    bool behind; /* its newest event is older than join.max_behind allows */
    bool held;   /* it is what holds the watermark where it is, or has yet to deliver */
} slu_partition_time;
slu_partition_time slu_watermark_time(const slu_watermark *w, uint32_t i);
/* The same of the source's partition |index|. */
slu_partition_time slu_watermark_time_of(const slu_watermark *w, uint32_t index);

/* Known partitions by name, for offsets. next_offset is -1 until known. */
uint32_t slu_watermark_count(const slu_watermark *w);
void slu_watermark_at(const slu_watermark *w, uint32_t i, slu_partition *part, int64_t *next_offset);
/* Mark of the record before the offset of known partition |i|, 0: none came since the start. */
uint64_t slu_watermark_mark(const slu_watermark *w, uint32_t i);
/* Known partition |i| is read no more (its topic left the config): it lets go of the watermark until it is
 * held again. False when it did not hold it. */
bool slu_watermark_retire(slu_watermark *w, uint32_t i);
/* Next offset of the source's partition |index|, -1 unknown. */
int64_t slu_watermark_next_offset(const slu_watermark *w, uint32_t index);

/* One more than the highest number of a source's partition that was announced. */
uint32_t slu_watermark_numbers(const slu_watermark *w);

void slu_watermark_save(const slu_watermark *w, slu_buf *out);
int slu_watermark_load(slu_watermark *w, const void *p, size_t n, slu_error *err);
