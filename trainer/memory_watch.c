#include "trainer/memory_watch.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/metrics.h"
#include "base/process.h"
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#define TRIM_EVERY_US (5 * SLU_SECOND_US) /* it walks the heap */
#define WARN_EVERY_US (60 * SLU_SECOND_US)

struct slu_memory_watch {
    const slu_memory_plan *plan;
    slu_metric *rows, *join, *blocks, *writes;
    int64_t trimmed_us, warned_us; /* monotonic */
};

static void log_plan(const slu_memory_plan *p)
{
    const uint64_t *b = p->bytes;
    SLU_INFO("trainer", "memory", SLU_U64("limit", p->total), SLU_U64("rows", b[SLU_MEM_ROWS]),
             SLU_U64("join", b[SLU_MEM_JOIN]), SLU_U64("blocks", b[SLU_MEM_BLOCKS]),
             SLU_U64("writes", b[SLU_MEM_WRITES]), SLU_U64("commit", b[SLU_MEM_COMMIT]),
             SLU_U64("fetch", b[SLU_MEM_FETCH]), SLU_U64("publish", b[SLU_MEM_PUBLISH]),
             SLU_U64("rest", b[SLU_MEM_REST]));
}

static slu_metric *used(slu_memory_part part)
{
    char label[32];
    snprintf(label, sizeof label, "part=\"%s\"", slu_memory_part_name(part));
    return slu_gauge("sluice_trainer_memory_bytes", label, "Memory of one part now.");
}

slu_memory_watch *slu_memory_watch_new(const slu_memory_plan *plan)
{
    slu_memory_watch *w = calloc(1, sizeof *w);
    if (!w)
        return NULL;
    w->plan = plan;
    w->rows = used(SLU_MEM_ROWS);
    w->join = used(SLU_MEM_JOIN);
    w->blocks = used(SLU_MEM_BLOCKS);
    w->writes = used(SLU_MEM_WRITES);
    slu_metric_set(slu_gauge("sluice_trainer_memory_limit_bytes", NULL, "What the trainer may use in all."),
                   (double)plan->total);
    for (int i = 0; i < SLU_MEM_PARTS; i++) {
        char label[32];
        snprintf(label, sizeof label, "part=\"%s\"", slu_memory_part_name((slu_memory_part)i));
        slu_metric_set(
            slu_gauge("sluice_trainer_memory_plan_bytes", label, "Share of one part of the limit."),
            (double)plan->bytes[i]);
    }
    log_plan(plan);
    return w;
}

void slu_memory_watch_free(slu_memory_watch *w)
{
    free(w);
}

/* What is free inside the heap goes back before it counts against the limit. */
static void keep_below(slu_memory_watch *w)
{
    int64_t now = slu_mono_us(&slu_system_clock);
    uint64_t resident = slu_process_resident(), limit = w->plan->total;
    if (resident > limit / 10 * 9 && now - w->trimmed_us >= TRIM_EVERY_US) {
        w->trimmed_us = now;
        malloc_trim(0);
        resident = slu_process_resident();
    }
    if (resident > limit + limit / 10 && (!w->warned_us || now - w->warned_us >= WARN_EVERY_US)) {
        w->warned_us = now;
        SLU_WARN("trainer", "more memory than training.memory and a tenth", SLU_U64("resident", resident),
                 SLU_U64("limit", limit));
    }
}

void slu_memory_watch_update(slu_memory_watch *w, slu_store *store, const slu_pipeline_stats *s)
{
    uint64_t blocks, memtables;
    slu_store_memory(store, &blocks, &memtables);
    slu_metric_set(w->rows, (double)s->row_cache_bytes);
    slu_metric_set(w->join, (double)s->join_cache_bytes);
    slu_metric_set(w->blocks, (double)blocks);
    slu_metric_set(w->writes, (double)memtables);
    keep_below(w);
}
