/* base/metrics.h - counters, gauges and histograms with Prometheus text output.
 *
 * A metric is registered once (by name and label text) and then updated lock-free from any thread.
 * Registration takes a lock and never fails: it aborts on a name or type clash, a programmer mistake. The
 * registry is process-wide; metrics live until the process ends. Every name and help text appears in
 * docs/operations.md. */
#pragma once
#include "base/bytes.h"
#include <stdint.h>

typedef struct slu_metric slu_metric;

/* |labels| is NULL or Prometheus label text without braces, e.g. "task=\"click\",space=\"impression\"".
 * Registering the same name and labels again returns the same metric. */
slu_metric *slu_counter(const char *name, const char *labels, const char *help);
slu_metric *slu_gauge(const char *name, const char *labels, const char *help);
/* Exponential buckets: first bound |lo|, each next times |factor|, |n| bounds, then +Inf. */
slu_metric *slu_histogram(const char *name, const char *labels, const char *help, double lo, double factor,
                          int n);

void slu_metric_add(slu_metric *m, double v);     /* counter: v >= 0; gauge: any */
void slu_metric_set(slu_metric *m, double v);     /* gauge, or a counter that mirrors one kept elsewhere */
void slu_metric_observe(slu_metric *m, double v); /* histogram */
double slu_metric_value(const slu_metric *m);     /* counter, gauge; histogram: count */
double slu_metric_sum(const slu_metric *m);       /* histogram: sum of what was observed; else the value */
/* Upper bound of the bucket that holds quantile |q| of a histogram, 0 when empty, infinity beyond the last
 * bound. */
double slu_metric_quantile(const slu_metric *m, double q);

/* Calls |visit| for every metric, in the order of their names. |type| is "counter", "gauge" or "histogram";
 * |labels| may be "". Registration waits meanwhile, updates do not. */
typedef void slu_metric_visit(void *ctx, const char *name, const char *type, const char *help,
                              const char *labels, const slu_metric *m);
void slu_metrics_each(slu_metric_visit *visit, void *ctx);

/* Appends the whole registry in Prometheus text format 0.0.4. */
void slu_metrics_print(slu_buf *out);
