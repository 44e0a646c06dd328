/* serving/scorer_page.h - the scorer's status page and what it remembers of the last minutes.
 *
 * @thread the owner calls update; the page may be drawn from any thread. */
#pragma once
#include "base/options.h"
#include "base/page.h"
#include "serving/subscriber.h"

typedef struct scorer_page scorer_page;

/* NULL when out of memory. |options| and |products|, how scores are computed, must outlive it. */
scorer_page *scorer_page_new(const slu_options *options, uint64_t schema_fingerprint, const char *products);
void scorer_page_free(scorer_page *p);
/* |now_us| is monotonic; |fresh_seconds| is the age of the newest event that the model has learned, -1
 * unknown. */
void scorer_page_update(scorer_page *p, const slu_subscriber_stats *s, double fresh_seconds, int64_t now_us);
void scorer_page_html(scorer_page *p, slu_buf *out);
