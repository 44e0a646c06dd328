/* base/process.h - what the operating system knows about this process, as metrics with the names that
 * Prometheus clients agree on: process_resident_memory_bytes, process_cpu_seconds_total, process_open_fds,
 * process_max_fds, process_threads, process_start_time_seconds, and sluice_build_info. */
#pragma once
#include <stdint.h>

/* Registers the metrics the first time and reads them anew; what cannot be read stays as it was. Any thread.
 * The admin page calls it before each scrape. |program| goes into sluice_build_info. */
/* Keeps malloc's own waste small, before threads start: few arenas, large blocks by themselves so that they
 * go back to the system. */
void slu_process_tame_malloc(void);
/* Memory in RAM, 0 when unknown. */
uint64_t slu_process_resident(void);
void slu_process_update(const char *program);
