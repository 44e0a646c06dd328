/* serving/subscriber.h - keeps a scorer current from the delta topic, through a store of its own.
 *
 * A thread reads the delta topic from the offset in its store (none: the beginning), assembles chunks,
 * applies whole versions to the model table and writes them with their offset in one commit, so a restarted
 * scorer continues where it stopped and an empty one becomes current by the first BASE that it finds. */
#pragma once
#include "base/options.h"
#include "feature/schema.h"
#include "serving/delta_applier.h"
#include "serving/model_table.h"
#include <stdbool.h>

typedef struct slu_subscriber slu_subscriber;

typedef struct slu_subscriber_stats {
    uint64_t version; /* applied */
    int64_t learned_through_us;
    uint64_t applied, skipped, gaps,
        refused; /* versions applied; old chunks; waits for a base; schema or format refusals */
    uint64_t rows, bytes;
    bool current;      /* has a model and has seen the end of the topic */
    char problem[256]; /* last reason why it is not current, "" none */
} slu_subscriber_stats;

/* Loads the store into |table|, then starts the thread. Returns 0, SLU_ESCHEMA (store of another schema),
 * SLU_EIO, SLU_EKAFKA. */
int slu_subscriber_start(const slu_options *options, const slu_schema *schema, slu_model_table *table,
                         slu_subscriber **sp, slu_error *err);
void slu_subscriber_get_stats(slu_subscriber *s, slu_subscriber_stats *out); /* @thread any */
void slu_subscriber_stop(slu_subscriber *s); /* commits what is whole, joins the thread */
