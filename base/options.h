/* base/options.h - the whole configuration of Sluice as one structure, read from one YAML file.
 *
 * slu_options_load() reads the YAML with libcyaml, applies --set overrides, fills defaults and checks
 * everything before anybody starts: unknown keys, types, ranges, names that refer to nothing, impossible
 * funnels. Errors name file, line, key and the allowed values. One table (base/options_table.h) drives
 * parsing, defaults, --set,
 * --dump-config, --help and docs/config.md.
 *
 * Durations are written "250ms", "1h", "7d" and held in microseconds; sizes "64MiB" and held in bytes. All
 * pointers belong to the structure. It is read-only once loaded, so any thread may read it. */
#pragma once
#include "base/error.h"
#include "base/memory_plan.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLU_MAX_STEPS    8
#define SLU_MAX_FEATURES 256

typedef enum slu_feature_kind {
    SLU_CATEGORICAL, /* one value, hashed */
    SLU_MULTI,       /* several values, pooled */
    SLU_NUMERIC,     /* one number: a network input, or a bucket id when transform is bucket */
    SLU_CROSS,       /* combinations of other features' values, hashed */
    SLU_SEQUENCE,    /* ids in time order, the newest max_ids are kept, pooled for now */
} slu_feature_kind;
typedef enum slu_side { SLU_USER, SLU_ITEM, SLU_CONTEXT } slu_side;
typedef enum slu_pooling { SLU_POOL_SUM, SLU_POOL_MEAN } slu_pooling;
typedef enum slu_transform {
    SLU_TRANSFORM_NONE,
    SLU_TRANSFORM_LOG,
    SLU_TRANSFORM_STANDARDIZE,
    SLU_TRANSFORM_BUCKET
} slu_transform;
typedef enum slu_norm { SLU_NORM_NONE, SLU_NORM_BATCH, SLU_NORM_LAYER } slu_norm;
typedef enum slu_row_optimizer {
    SLU_ROW_ADAGRAD /* per element */,
    SLU_ROW_ADAGRAD_ROW /* one accumulator per row */
} slu_row_optimizer;
typedef enum slu_wide_optimizer { SLU_WIDE_FTRL, SLU_WIDE_ADAGRAD } slu_wide_optimizer;
typedef enum slu_label_policy { SLU_POLICY_FNW, SLU_POLICY_WINDOW, SLU_POLICY_ORACLE } slu_label_policy;
typedef enum slu_encoding { SLU_ENCODING_PROTOBUF, SLU_ENCODING_JSON } slu_encoding;
typedef enum slu_file_format { SLU_FILE_CSV, SLU_FILE_JSONL } slu_file_format;
typedef enum slu_time_unit { SLU_UNIT_US, SLU_UNIT_MS, SLU_UNIT_S } slu_time_unit;
typedef enum slu_precision { SLU_FP32, SLU_INT8, SLU_BF16 } slu_precision;
typedef enum slu_unknown_policy { SLU_UNKNOWN_REJECT, SLU_UNKNOWN_IGNORE } slu_unknown_policy;

typedef struct slu_step_opts {
    char *name;        /* "click" */
    int64_t window_us; /* attribution window, from the impression's time */
    double weight;     /* of this task in the loss */
} slu_step_opts;

typedef struct slu_feature_opts {
    char *name;
    slu_feature_kind kind;
    slu_side side;
    char *source;        /* raw field in events and requests; default: name. Not for crosses. */
    char *table;         /* rows shared with other features of the same table name; default: name */
    uint32_t dimension;  /* floats per row; 0: wide part only. Equal for all features of a table */
    bool wide;           /* has a wide weight per value and task when model.wide is on */
    slu_pooling pooling; /* multi, sequence and cross of multi */
    slu_transform transform;
    double mean, deviation; /* standardize */
    double *buckets;        /* (n_buckets) ascending upper bounds */
    uint32_t n_buckets;
    char **of; /* (n_of) cross: names of categorical, multi or bucketed features */
    uint32_t n_of;
    uint32_t max_ids;     /* multi, sequence, cross: values kept; more are cut and counted */
    char *missing;        /* value that stands for a missing field; NULL: a token of its own */
    uint32_t admit_after; /* a value gets a row when it has been seen this often; 0, 1: at once */
    int64_t ttl_us;       /* rows unseen for longer expire; 0: never */
    uint64_t seed;        /* of the hash; default: derived from the table name */
} slu_feature_opts;

typedef struct slu_model_opts {
    char *architecture; /* shared_bottom | esmm | mmoe */
    uint64_t seed;
    uint32_t *bottom; /* (n_bottom) shared_bottom: layer widths of the shared part */
    uint32_t n_bottom;
    uint32_t *towers; /* (n_towers) layer widths of each task's tower, without the final logit */
    uint32_t n_towers;
    uint32_t experts;        /* mmoe: number of experts */
    uint32_t *expert_layers; /* (n_expert_layers) mmoe: layer widths of each expert */
    uint32_t n_expert_layers;
    slu_norm norm;   /* after each hidden dense layer */
    double row_init; /* new row elements are normal with this deviation */
    bool wide;       /* linear weight per feature value and task, added to the logits */
} slu_model_opts;

typedef struct slu_optimizer_opts {
    double dense_rate, dense_beta1, dense_beta2, dense_epsilon, dense_l2,
        dense_clip; /* Adam; clip: global norm, 0 off */
    slu_row_optimizer rows;
    double row_rate, row_epsilon, row_initial, row_l2,
        row_clip; /* row_initial: starting accumulator; clip: norm per row, 0 off */
    slu_wide_optimizer wide;
    double wide_rate, wide_beta, wide_l1, wide_l2; /* ftrl: rate is alpha; adagrad: beta is epsilon */
} slu_optimizer_opts;

typedef struct slu_training_opts {
    slu_label_policy label_policy;
    uint32_t batch_size;
    uint32_t threads;           /* that a step is computed with */
    slu_precision precision;    /* of its large products: SLU_FP32 or SLU_BF16 */
    int64_t max_batch_delay_us; /* event time from a batch's first sample to its closing */
    uint32_t dense_every;       /* samples gathered before a step of the dense parameters */
    int64_t commit_every_us;    /* wall time between commits of a live run */
    uint64_t commit_events;     /* and at the latest after so many events (the only rule of a replay) */
    uint64_t keep_order_bytes;  /* room for the order of records of past commits; 0: not kept */
    slu_unknown_policy unknown_features;
    uint64_t memory_bytes; /* limit of the trainer's memory; 0: the sum of its parts */
} slu_training_opts;

typedef struct slu_join_opts {
    int64_t allowed_lateness_us; /* watermark = slowest active partition's newest event - this */
    int64_t idle_timeout_us;     /* wall time after which a silent partition no longer holds the watermark */
    int64_t orphan_wait_us;      /* event time that a step waits for its impression */
    int64_t max_future_us; /* events further ahead of the arrival clock are dead letters; 0: not checked */
    int64_t max_behind_us; /* a partition whose events are older at their arrival does not hold the watermark;
                              0: all do */
    int64_t max_skew_us;  /* a partition so far ahead of the slowest one with a backlog is paused; 0: never */
    uint64_t cache_bytes; /* join state kept in memory */
} slu_join_opts;

typedef struct slu_kv_opts {
    char *key, *value;
    char *environment; /* the variable that the value came from; NULL: written out */
} slu_kv_opts;

typedef struct slu_kafka_opts {
    char *brokers;
    char *group;
    char *client_id;
    char **topics; /* (n_topics) all event topics: any topic may carry any event */
    uint32_t n_topics;
    char *delta_topic;
    char *dead_letter_topic; /* NULL: dead letters go to store.path/dead-letters.jsonl */
    slu_encoding encoding;
    uint32_t max_message_bytes; /* larger events are dead letters */
    slu_kv_opts *rdkafka;       /* (n_rdkafka) passed through to librdkafka */
    uint32_t n_rdkafka;
} slu_kafka_opts;

/* One recorded file. Several files are merged by time; on a tie the order is that of the list, then of the
 * lines. */
typedef struct slu_file_opts {
    char *path; /* relative to --data; .gz is fine */
    slu_file_format format;
    slu_time_unit time_unit; /* CSV */
    char *event; /* CSV: "impression" or a step's name, for files of one kind; NULL: column kind says */
    char *id_column, *time_column, *kind_column,
        *impression_column; /* CSV; feature columns go by features[].source */
    char **skip;            /* (n_skip) values of kind_column to pass over */
    uint32_t n_skip;
} slu_file_opts;

typedef struct slu_store_opts {
    char *path;
    uint64_t cache_bytes;       /* embedding rows kept in memory */
    uint64_t block_cache_bytes; /* RocksDB's own */
    bool sync;                  /* fsync each commit */
} slu_store_opts;

typedef struct slu_backup_opts {
    char *path;       /* NULL: only where a request says */
    int64_t every_us; /* 0: only on request */
    uint32_t keep;    /* newest ones that stay */
} slu_backup_opts;

typedef struct slu_publish_opts {
    bool enabled;
    int64_t base_every_us; /* wall time between base snapshots at the latest */
    uint64_t
        base_every_bytes;  /* and after so many bytes of deltas (or the size of the last base, if larger) */
    uint32_t chunk_bytes;  /* largest delta message */
    uint64_t outbox_bytes; /* on disk, waiting for Kafka; more and training waits */
} slu_publish_opts;

typedef struct slu_serving_opts {
    char *listen; /* "0.0.0.0:7070" */
    char *store_path;
    uint32_t threads;
    uint32_t max_candidates;
    uint32_t max_request_bytes;
    uint32_t max_streams; /* concurrent per connection */
    uint32_t max_connections;
    int64_t greeting_us;   /* for the HTTP/2 greeting of a new connection */
    int64_t arrival_us;    /* for one request to arrive whole */
    int64_t idle_us;       /* without a call before a connection is said goodbye to */
    uint32_t max_queue;    /* requests waiting per thread before RESOURCE_EXHAUSTED */
    uint64_t memory_bytes; /* of the whole scorer; 0: a share of the machine's */
    uint64_t
        held_bytes; /* no option: what a thread's requests and answers get of it (serving/scorer_memory.h) */
    int64_t max_wait_us;             /* longest wait for a turn before RESOURCE_EXHAUSTED; 0: any */
    int64_t drain_us;                /* longest graceful drain */
    char *tls_certificate, *tls_key; /* PEM files; NULL: no TLS */
    char *tls_client_ca;             /* PEM file of those who may sign clients; NULL: clients need none */
    int64_t tls_handshake_us;        /* longest handshake */
    slu_unknown_policy unknown_features;
    slu_precision precision;
    uint32_t split_above; /* candidates of a request that idle threads help with; 0: none */
} slu_serving_opts;

typedef struct slu_log_opts {
    int level;  /* slu_log_level */
    int format; /* slu_log_format */
} slu_log_opts;

typedef struct slu_options {
    char *name;           /* of the model, in logs and metrics */
    slu_step_opts *steps; /* (n_steps) the funnel, in order */
    uint32_t n_steps;
    slu_feature_opts *features; /* (n_features) */
    uint32_t n_features;
    slu_model_opts model;
    slu_optimizer_opts optimizer;
    slu_training_opts training;
    slu_join_opts join;
    slu_kafka_opts kafka;
    slu_file_opts *files; /* (n_files) */
    uint32_t n_files;
    slu_store_opts store;
    slu_backup_opts backup;
    slu_publish_opts publish;
    slu_serving_opts serving;
    char *trainer_admin, *scorer_admin; /* listen addresses of the admin pages */
    bool admin_allow_remote;            /* they may be others than loopback */
    slu_log_opts log;
    slu_memory_plan memory; /* worked out from training.memory and what is written of its parts */
} slu_options;

/* Loads |path|, applies |sets| (n_sets) of "key=value", checks all. On success the caller owns *|op|. On
 * failure *|op| is NULL and |err| reads like "examples/ads.yaml:12: model.architecture: unknown value 'esm';
 * allowed: shared_bottom, esmm, mmoe". Returns 0, SLU_ECONFIG, SLU_EIO (file). */
int slu_options_load(const char *path, const char *const *sets, size_t n_sets, slu_options **op,
                     slu_error *err);
/* The same from memory; |name| stands for the file in messages. */
int slu_options_parse(const char *yaml, size_t len, const char *name, const char *const *sets, size_t n_sets,
                      slu_options **op, slu_error *err);
void slu_options_free(slu_options *o); /* NULL is fine */

/* The effective configuration as YAML, as --dump-config prints it: secrets in rdkafka.* are ***, values from
 * the environment the name of their variable. malloc'd. */
char *slu_options_dump(const slu_options *o);
/* 64-bit hash of everything that decides what is learned (funnel, features, model, optimizer, training,
 * join): equal fingerprints and equal events give equal models. */
uint64_t slu_options_fingerprint(const slu_options *o);
/* docs/config.md, generated from the options table. malloc'd. */
char *slu_options_markdown(void);
