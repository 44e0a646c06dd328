/* trainer/pace.h - partitions are read at about the same event time: one that is far ahead of the slowest
 * waits.
 *
 * After a downtime the broker delivers partitions in any proportion. If the clicks of a day were read before
 * the impressions of its first hour, all of them would wait for an impression: the join state would grow with
 * the difference instead of with the windows. So a partition whose newest event is more than join.max_skew
 * ahead of the slowest partition that has a backlog is paused, and goes on when it is no more than half of
 * that ahead.
 *
 * Only the order in which live records arrive is altered. The recorded order decides what is learned, so
 * nothing here has to be repeated by a replay.
 *
 * It cannot stop for good: whoever is waited for is not paused itself, and is waited for only as long as it
 * delivers (slu_reading in trainer/source.h). Partitions without anything to read, silent ones and those
 * whose clock is wrong hold nobody; when only paused ones are left the slowest of them goes on.
 * @thread one, the owner of source and pipeline */
#pragma once
#include "trainer/pipeline.h"
#include "trainer/source.h"

typedef struct slu_pace_partition {
    int64_t newest_us; /* newest event time, INT64_MIN: none yet */
    bool backlog;      /* it has more to read and delivers it */
    bool behind;       /* its clock is wrong (trainer/watermark.h) */
    bool paused;       /* so far */
} slu_pace_partition;

/* Which of |parts| (n) are to be paused, into |pause| (n). One that has not delivered yet stands at
 * |unknown_us| (INT64_MIN: nowhere, it is not waited for). Returns how many. Pure. */
uint32_t slu_pace_decide(const slu_pace_partition *parts, uint32_t n, int64_t max_skew_us, int64_t unknown_us,
                         bool *pause);

typedef struct slu_pace slu_pace;

/* |max_skew_us| 0: nobody ever waits. NULL: out of memory. */
slu_pace *slu_pace_new(int64_t max_skew_us);
void slu_pace_free(slu_pace *p); /* NULL is fine */
/* Looks at all partitions and pauses or resumes them at the source. Cheap; call some tens of times a second.
 * Returns 0 or SLU_ENOMEM. */
int slu_pace_update(slu_pace *p, slu_source *source, const slu_pipeline *pipeline, slu_error *err);
