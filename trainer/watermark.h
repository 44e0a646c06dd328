/* trainer/watermark.h - how far event time has come, over partitions.
 *
 * watermark = min over active partitions of (their newest event time) - allowed lateness. A partition that
 * was announced and has not delivered yet holds the watermark back, so that a backlog read partition by
 * partition closes no window early; one that fell silent (SLU_RECORD_IDLE) no longer does, until its next
 * event. When every partition is idle the watermark stands still. It never goes backwards. State is kept by
 * partition name, because a source may number its partitions differently after a restart. Pure: time comes in
 * with the events. */
#pragma once
#include "base/bytes.h"
#include "base/error.h"
#include "trainer/source.h"

typedef struct slu_watermark slu_watermark;

slu_watermark *slu_watermark_new(int64_t allowed_lateness_us);
void slu_watermark_free(slu_watermark *w);

/* Announces a partition (again); |index| is the source's number for it from now on. */
void slu_watermark_partition(slu_watermark *w, uint32_t index, const slu_partition *part);
/* The source begins to read the partition, perhaps again after a restart: what came in the meantime must not
 * be late, so it holds the watermark until it delivers or falls silent. */
void slu_watermark_hold(slu_watermark *w, uint32_t index);
/* An event of |time_us| came from partition |index|; |next_offset| is what to read next. */
void slu_watermark_event(slu_watermark *w, uint32_t index, int64_t time_us);
void slu_watermark_offset(slu_watermark *w, uint32_t index, int64_t next_offset);
void slu_watermark_idle(slu_watermark *w, uint32_t index);

/* INT64_MIN while nothing can be said. */
int64_t slu_watermark_now(const slu_watermark *w);
/* Newest event time of all partitions, INT64_MIN none: the clock that batches age by. */
int64_t slu_watermark_newest(const slu_watermark *w);

/* Known partitions by name, for offsets. next_offset is -1 until known. */
uint32_t slu_watermark_count(const slu_watermark *w);
void slu_watermark_at(const slu_watermark *w, uint32_t i, slu_partition *part, int64_t *next_offset);
/* Known partition |i| is read no more (its topic left the config): it lets go of the watermark until it is
 * held again. False when it did not hold it. */
bool slu_watermark_retire(slu_watermark *w, uint32_t i);
/* Next offset of the source's partition |index|, -1 unknown. */
int64_t slu_watermark_next_offset(const slu_watermark *w, uint32_t index);

void slu_watermark_save(const slu_watermark *w, slu_buf *out);
int slu_watermark_load(slu_watermark *w, const void *p, size_t n, slu_error *err);
