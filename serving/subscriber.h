/* serving/subscriber.h - keeps a scorer current from the delta topic, through a store of its own.
 *
 * A thread reads the delta topic from the offset in its store (none: the beginning), applies whole versions
 * to the model table (serving/delta_applier.h) and writes them with their offset in one commit
 * (serving/model_store.h), so a restarted scorer continues where it stopped and an empty one becomes current
 * by the first base that it finds. While it catches up, several versions share a commit. Whatever goes wrong
 * with broker, topic, messages or disk, the model that is there keeps serving.
 *
 * The thread and those of librdkafka and RocksDB that work for it stand in the background
 * (base/background.h), so that no request waits for an update; the process has to call slu_background_watch()
 * now and then. */
#pragma once
#include "base/options.h"
#include "feature/schema.h"
#include "serving/model_table.h"
#include <stdbool.h>

typedef struct slu_subscriber slu_subscriber;

typedef struct slu_subscriber_stats {
    uint64_t version; /* applied */
    int64_t learned_through_us;
    uint64_t applied, skipped, gaps,
        refused;         /* versions applied; old chunks; waits for a base; schema or format refusals */
    uint64_t mismatches; /* versions that did not add up to what the trainer says */
    uint64_t verified;   /* newest version that did */
    uint64_t lineage;
    slu_model_sums sums; /* of |version| */
    uint64_t commits, disk_bytes;
    uint64_t rows, bytes;
    bool current;      /* has a model and has seen the end of the topic */
    char problem[256]; /* last reason why it is not current, "" none */
} slu_subscriber_stats;

/* |max_delta|: slu_delta_applier_limit. Loads the store into |table|, then starts the thread. Returns 0,
 * SLU_ESCHEMA (store of another schema), SLU_EIO, SLU_ECORRUPT, SLU_ECONFIG (an entry of kafka.rdkafka). A
 * broker that is not there is no error. */
int slu_subscriber_start(const slu_options *options, const slu_schema *schema, slu_model_table *table,
                         uint64_t max_delta, slu_subscriber **sp, slu_error *err);
void slu_subscriber_get_stats(slu_subscriber *s, slu_subscriber_stats *out); /* @thread any */
/* Commits what is whole and joins the thread. Returns 0, or the code of the last commit. NULL is fine. */
int slu_subscriber_stop(slu_subscriber *s, slu_error *err);
