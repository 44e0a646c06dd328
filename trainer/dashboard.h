/* trainer/dashboard.h - how the trainer shows itself: metrics, the status page, a progress line in the log.
 *
 * Everything is a mirror of slu_pipeline_stats and a few facts of the daemon. @thread the owner updates; the
 * page may be drawn from the HTTP thread, which reads only what slu_pipeline_get_stats guards and atomics. */
#pragma once
#include "base/bytes.h"
#include "base/options.h"
#include "feature/schema.h"
#include "trainer/pipeline.h"

typedef struct slu_dashboard slu_dashboard;

typedef struct slu_dashboard_facts {
    int64_t lag;         /* messages not yet read, -1 unknown */
    uint32_t partitions; /* that the source reads */
    uint32_t waiting;    /* of them, paused for being ahead of the others */
    int64_t now_us;      /* wall clock */
} slu_dashboard_facts;

/* NULL when out of memory. |options| and |schema| must outlive it. */
slu_dashboard *slu_dashboard_new(const slu_options *options, const slu_schema *schema);
void slu_dashboard_free(slu_dashboard *d);
/* Mirrors the pipeline's statistics into the metrics. */
void slu_dashboard_update(slu_dashboard *d, slu_pipeline *p, const slu_dashboard_facts *facts);
/* A commit took |seconds|; |fresh_us| is how old the newest event of it was, negative: it had none. */
void slu_dashboard_commit(slu_dashboard *d, double seconds, int64_t fresh_us);
/* Reading pauses, or goes on. */
void slu_dashboard_paused(slu_dashboard *d, bool paused);
/* One line: events and samples a second since the last line, lag, watermark, and a line per task. */
void slu_dashboard_log(slu_dashboard *d);
/* The body of the status page. @thread any */
void slu_dashboard_html(slu_dashboard *d, slu_buf *html);
