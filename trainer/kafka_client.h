/* trainer/kafka_client.h - what consumer and producer share: settings, log lines, connection trouble.
 *
 * Settings come in three layers: librdkafka's defaults, ours, and last the user's `kafka.rdkafka` entries. A
 * few that decide whether an event is used exactly once are not the user's to change and are refused by name.
 */
#pragma once
#include "base/error.h"
#include "base/options.h"
#include <librdkafka/rdkafka.h>
#include <stdint.h>

typedef struct slu_kafka_setting {
    const char *key, *value;
} slu_kafka_setting;

/* Trouble with brokers, as told by librdkafka: logged at once, then ever more rarely while it lasts. Set it
 * as the opaque of the configuration; lives as long as the handle. @thread the one that polls the handle */
typedef struct slu_kafka_trouble {
    const char *component; /* of log lines */
    char reason[256];      /* newest, "" none */
    char fatal[256];       /* the handle is beyond repair; "" */
    int64_t next_log_us;   /* monotonic; 0: at once */
    int64_t backoff_us;
    int64_t newest_us; /* monotonic: of the newest trouble */
} slu_kafka_trouble;

/* A configuration with brokers, client id, |settings| (ends with key NULL) and the user's entries. Returns 0
 * or SLU_ECONFIG with the entry and librdkafka's words. The caller owns *|conf|. */
int slu_kafka_conf_new(const slu_options *options, const slu_kafka_setting *settings,
                       slu_kafka_trouble *trouble, rd_kafka_conf_t **conf, slu_error *err);
/* Makes the handle; takes |conf| over in any case. NULL with SLU_ECONFIG. */
rd_kafka_t *slu_kafka_new(rd_kafka_type_t type, rd_kafka_conf_t *conf, slu_error *err);
/* A message's stamp as arrival_us of its record: SLU_NO_STAMP when it has none, or one that is no time. */
int64_t slu_kafka_stamp(rd_kafka_timestamp_type_t type, int64_t ms);
/* The broker answers: the next trouble is logged at once. */
void slu_kafka_trouble_over(slu_kafka_trouble *t);
