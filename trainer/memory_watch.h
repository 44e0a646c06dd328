/* trainer/memory_watch.h - the memory that the trainer has against what it was given: metrics per part, a
 * warning when the process is over its limit, and free memory back to the system before that. @thread one,
 * the owner */
#pragma once
#include "base/memory_plan.h"
#include "store/store.h"
#include "trainer/pipeline.h"

typedef struct slu_memory_watch slu_memory_watch;

/* NULL: out of memory. |plan| must outlive it. Logs the plan. */
slu_memory_watch *slu_memory_watch_new(const slu_memory_plan *plan);
void slu_memory_watch_free(slu_memory_watch *w);
/* Call a few times a second, with fresh statistics. */
void slu_memory_watch_update(slu_memory_watch *w, slu_store *store, const slu_pipeline_stats *s);
