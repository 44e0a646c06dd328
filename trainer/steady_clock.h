/* trainer/steady_clock.h - the wall clock of a process that lives longer than its machine's clock is right.
 *
 * Goes on with monotonic time. Where the wall clock runs ahead of that it is followed (a machine that slept,
 * or that learned the time after it had booted); when it is set back it is not: what was now stays past, or
 * every event would be from the future. A wrong step ahead therefore lasts until the next start, and is
 * logged as every step is. Pure but for the log: time comes from |clock|. @thread one, the owner */
#pragma once
#include "base/clock.h"
#include <stdbool.h>

#define SLU_CLOCK_STEP_US (10 * SLU_SECOND_US) /* differences of less are the drift of any clock */

typedef struct slu_steady_clock {
    const slu_clock *clock;
    int64_t ahead_us; /* of monotonic time */
    int64_t said_us;  /* difference that was last logged */
} slu_steady_clock;

slu_steady_clock slu_steady_clock_start(const slu_clock *clock);
/* Microseconds since the epoch, never less than before. */
int64_t slu_steady_clock_now(slu_steady_clock *c);
/* Wall clock less this one: negative once it was set back. */
int64_t slu_steady_clock_off(const slu_steady_clock *c);
