#include "trainer/pace.h"
#include "base/log.h"
#include "base/metrics.h"
#include <stdlib.h>

struct slu_pace {
    int64_t max_skew_us;
    int64_t first_us;          /* lowest event time seen before there was a watermark, INT64_MAX none */
    slu_pace_partition *parts; /* (cap) scratch */
    bool *pause;               /* (cap) as last decided */
    uint32_t cap;
    bool any; /* a partition was paused at the last look */
    slu_metric *pauses;
};

/* ---- the decision ---- */

/* A wrong clock holds nobody while there are right ones, as in the watermark. */
static bool any_sound(const slu_pace_partition *parts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        if (parts[i].backlog && !parts[i].behind && parts[i].newest_us != INT64_MIN)
            return true;
    return false;
}

/* Event time of the slowest that is waited for, INT64_MAX: nobody is. Paused ones were delivering when they
 * were paused, so they count. */
static int64_t slowest(const slu_pace_partition *parts, uint32_t n, int64_t unknown_us)
{
    int64_t least = INT64_MAX;
    bool sound = any_sound(parts, n);
    for (uint32_t i = 0; i < n; i++) {
        const slu_pace_partition *p = &parts[i];
        if ((!p->backlog && !p->paused) || (sound && p->behind))
            continue;
        int64_t at = p->newest_us != INT64_MIN ? p->newest_us : unknown_us;
        if (at != INT64_MIN && at < least)
            least = at;
    }
    return least;
}

uint32_t slu_pace_decide(const slu_pace_partition *parts, uint32_t n, int64_t max_skew_us, int64_t unknown_us,
                         bool *pause)
{
    int64_t least = slowest(parts, n, unknown_us);
    uint32_t paused = 0;
    for (uint32_t i = 0; i < n; i++) {
        const slu_pace_partition *p = &parts[i];
        int64_t allowed = p->paused ? max_skew_us / 2 : max_skew_us;
        pause[i] = max_skew_us && p->newest_us > least && p->newest_us - least > allowed;
        paused += pause[i];
    }
    return paused;
}

/* ---- the same with a source and a pipeline ---- */

slu_pace *slu_pace_new(int64_t max_skew_us)
{
    slu_pace *p = calloc(1, sizeof *p);
    if (!p)
        return NULL;
    p->max_skew_us = max_skew_us;
    p->first_us = INT64_MAX;
    p->pauses = slu_counter("sluice_trainer_partition_pauses_total", NULL,
                            "Times that a partition began to wait for slower ones.");
    return p;
}

void slu_pace_free(slu_pace *p)
{
    if (!p)
        return;
    free(p->parts);
    free(p->pause);
    free(p);
}

static int grow(slu_pace *p, uint32_t n, slu_error *err)
{
    if (n <= p->cap)
        return 0;
    slu_pace_partition *parts = realloc(p->parts, n * sizeof *parts);
    if (parts)
        p->parts = parts;
    bool *pause = realloc(p->pause, n * sizeof *pause);
    if (pause)
        p->pause = pause;
    if (!parts || !pause)
        return slu_fail(err, SLU_ENOMEM, "out of memory for %u partitions", n);
    p->cap = n;
    return 0;
}

/* Where those stand that have not delivered yet: what is older than the watermark would be late anyway;
 * before there is one all began together. */
static int64_t standing_of_unknown(slu_pace *p, uint32_t n, int64_t watermark_us)
{
    if (watermark_us != INT64_MIN)
        return watermark_us;
    for (uint32_t i = 0; i < n; i++)
        if (p->parts[i].newest_us != INT64_MIN && p->parts[i].newest_us < p->first_us)
            p->first_us = p->parts[i].newest_us;
    return p->first_us == INT64_MAX ? INT64_MIN : p->first_us;
}

static void mention(slu_pace *p, uint32_t n, uint32_t paused)
{
    if (p->any == (paused > 0))
        return;
    p->any = paused > 0;
    if (p->any)
        SLU_DEBUG("trainer", "partitions wait for the slowest", SLU_U64("paused", paused),
                  SLU_U64("partitions", n));
    else
        SLU_DEBUG("trainer", "no partition waits any more", SLU_U64("partitions", n));
}

int slu_pace_update(slu_pace *p, slu_source *source, const slu_pipeline *pipeline, slu_error *err)
{
    const slu_source_ops *ops = source->ops;
    uint32_t n = ops->partitions(source);
    if (!p->max_skew_us || !ops->pause || !n)
        return 0;
    int rc = grow(p, n, err);
    if (rc)
        return rc;
    for (uint32_t i = 0; i < n; i++) {
        slu_reading reading = ops->reading(source, i);
        slu_partition_time time = slu_pipeline_time_of(pipeline, i);
        p->parts[i] = (slu_pace_partition){
            .newest_us = time.newest_us,
            .backlog = reading.backlog && !time.idle,
            .behind = time.behind,
            .paused = reading.paused,
        };
    }
    int64_t unknown = standing_of_unknown(p, n, slu_pipeline_watermark(pipeline));
    uint32_t paused = slu_pace_decide(p->parts, n, p->max_skew_us, unknown, p->pause);
    mention(p, n, paused);
    for (uint32_t i = 0; i < n; i++)
        if (p->pause[i] && !p->parts[i].paused)
            slu_metric_add(p->pauses, 1);
    ops->pause(source, p->pause, n);
    return 0;
}
