#include "trainer/clock_check.h"
#include "base/clock.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#define DAY_US (86400 * SLU_SECOND_US)
/* A wrong unit is evident when the right one puts the event this close to its arrival. */
#define NEAR_US (400 * DAY_US)
/* Times from here on can be meant as microseconds: 1973. */
#define PLAUSIBLE_US 100000000000000LL

typedef struct text {
    char s[32];
} text;

static text time_text(int64_t us)
{
    text t;
    slu_format_time(us, t.s, sizeof t.s);
    return t;
}

/* "3d 4h", "2h 5m", "12.5 s": as exact as a person wants it. */
static text span_text(int64_t us)
{
    text t;
    int64_t s = us / SLU_SECOND_US;
    if (s >= 86400)
        snprintf(t.s, sizeof t.s, "%" PRId64 "d %" PRId64 "h", s / 86400, s % 86400 / 3600);
    else if (s >= 3600)
        snprintf(t.s, sizeof t.s, "%" PRId64 "h %" PRId64 "m", s / 3600, s % 3600 / 60);
    else if (s >= 60)
        snprintf(t.s, sizeof t.s, "%" PRId64 "m %" PRId64 "s", s / 60, s % 60);
    else
        snprintf(t.s, sizeof t.s, "%.3g s", (double)us / 1e6);
    return t;
}

static text option_text(int64_t us)
{
    text t;
    slu_format_duration(us, t.s, sizeof t.s);
    return t;
}

/* The unit that an event's time is evidently in, NULL when it may be microseconds. */
static const char *wrong_unit(int64_t time_us, int64_t arrival_us)
{
    if (time_us >= PLAUSIBLE_US)
        return NULL;
    if (llabs(time_us * 1000 - arrival_us) < NEAR_US)
        return "milliseconds";
    if (time_us < PLAUSIBLE_US / 1000 && llabs(time_us * 1000000 - arrival_us) < NEAR_US)
        return "seconds";
    return NULL;
}

slu_dead_reason slu_clock_check(const slu_options *o, const slu_event *e, int64_t arrival_us, char *message)
{
    if (!arrival_us)
        return SLU_DEAD_NONE;
    const char *unit = wrong_unit(e->time_us, arrival_us);
    if (unit) {
        snprintf(message, SLU_CLOCK_TEXT,
                 "time_us is %" PRId64
                 ", which is %s in microseconds; it arrived at %s and looks like %s: send "
                 "microseconds since 1970",
                 e->time_us, time_text(e->time_us).s, time_text(arrival_us).s, unit);
        return SLU_DEAD_MALFORMED;
    }
    int64_t most = o->join.max_future_us;
    if (!most || e->time_us <= arrival_us + most)
        return SLU_DEAD_NONE;
    snprintf(message, SLU_CLOCK_TEXT,
             "event time %s is %s ahead of its arrival at %s, join.max_future allows %s: check the "
             "producer's clock "
             "(and this machine's)",
             time_text(e->time_us).s, span_text(e->time_us - arrival_us).s, time_text(arrival_us).s,
             option_text(most).s);
    return SLU_DEAD_FUTURE;
}

slu_dead_reason slu_clock_late(const slu_options *o, const slu_event *e, int64_t arrival_us,
                               int64_t watermark_us, const slu_partition_time *part, char *message)
{
    const slu_join_opts *j = &o->join;
    if (arrival_us && part->behind) {
        snprintf(message, SLU_CLOCK_TEXT,
                 "event time %s is %s older than its arrival at %s, and so is all of its partition, whose "
                 "newest event "
                 "is of %s; join.max_behind allows %s, so event time (%s) went on without it: check the "
                 "clock of the "
                 "producers that write to this partition",
                 time_text(e->time_us).s, span_text(arrival_us - e->time_us).s, time_text(arrival_us).s,
                 time_text(part->newest_us).s, option_text(j->max_behind_us).s, time_text(watermark_us).s);
        return SLU_DEAD_BEHIND;
    }
    snprintf(message, SLU_CLOCK_TEXT,
             "event time %s is %s behind event time %s: every attribution window that it could speak about "
             "has closed; "
             "join.allowed_lateness (%s) widens them",
             time_text(e->time_us).s, span_text(watermark_us - e->time_us).s, time_text(watermark_us).s,
             option_text(j->allowed_lateness_us).s);
    return SLU_DEAD_LATE;
}
