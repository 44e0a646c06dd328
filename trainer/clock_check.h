/* trainer/clock_check.h - whether an event's time can be believed, and what a dead letter says about time.
 *
 * Compares the time an event gives itself with its arrival (trainer/watermark.h). Pure; formats into the
 * caller's buffer, allocates nothing. @thread any */
#pragma once
#include "base/options.h"
#include "feature/event.h"
#include "trainer/watermark.h"

/* Room for any of the messages. */
#define SLU_CLOCK_TEXT 640

/* SLU_DEAD_NONE; SLU_DEAD_FUTURE: further ahead than join.max_future; SLU_DEAD_MALFORMED: a time of the wrong
 * unit, which the message names (seconds or milliseconds in place of microseconds put an event into 1970).
 * |arrival_us| 0: unknown, everything is believed. |message| (SLU_CLOCK_TEXT) is written unless NONE. */
slu_dead_reason slu_clock_check(const slu_options *o, const slu_event *e, int64_t arrival_us, char *message);

/* Why an event that was too late is dead: SLU_DEAD_LATE, or SLU_DEAD_BEHIND when its partition's clock is to
 * blame. |message| (SLU_CLOCK_TEXT) says what its clock said, where event time is, and what is allowed. */
slu_dead_reason slu_clock_late(const slu_options *o, const slu_event *e, int64_t arrival_us,
                               int64_t watermark_us, const slu_partition_time *part, char *message);
