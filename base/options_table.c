#include "base/options_table.h"
#include <pthread.h>
#include <string.h>

/* The member's offset, refusing to compile when the member has another type than the row says. */
#define AT(st, field, type)                                                                                  \
    (offsetof(st, field) +                                                                                   \
     0 * sizeof(char[__builtin_types_compatible_p(__typeof__(((st *)0)->field), type) ? 1 : -1]))
#define ENUM_AT(st, field)                                                                                   \
    (offsetof(st, field) + 0 * sizeof(char[sizeof(((st *)0)->field) == sizeof(int) ? 1 : -1]))

#define SECTION(p, h)                                                                                        \
    {                                                                                                        \
        .path = p, .type = OPT_SECTION, .help = h                                                            \
    }
#define ENTRIES(p, st, field, n, elem, lo, hi, h, ...)                                                       \
    {                                                                                                        \
        .path = p, .type = OPT_SECTIONS, .offset = AT(st, field, elem *),                                    \
        .count_offset = AT(st, n, uint32_t), .size = sizeof(elem), .least = lo, .most = hi, .help = h,       \
        __VA_ARGS__                                                                                          \
    }
#define STRING(p, t, st, field, d, h, ...)                                                                   \
    {                                                                                                        \
        .path = p, .type = t, .offset = AT(st, field, char *), .fallback = d, .help = h, __VA_ARGS__         \
    }
#define CHOICE(p, st, field, list, d, h, ...)                                                                \
    {                                                                                                        \
        .path = p, .type = OPT_ENUM, .offset = ENUM_AT(st, field), .choices = list, .fallback = d,           \
        .help = h, __VA_ARGS__                                                                               \
    }
#define NUMBER(p, t, c, st, field, d, lo, hi, h, ...)                                                        \
    {                                                                                                        \
        .path = p, .type = t, .offset = AT(st, field, c), .fallback = d, .min = lo, .max = hi, .help = h,    \
        __VA_ARGS__                                                                                          \
    }
#define U32(p, st, field, d, lo, hi, h, ...)                                                                 \
    NUMBER(p, OPT_U32, uint32_t, st, field, d, lo, hi, h, __VA_ARGS__)
#define U64(p, st, field, d, lo, hi, h, ...)                                                                 \
    NUMBER(p, OPT_U64, uint64_t, st, field, d, lo, hi, h, __VA_ARGS__)
#define REAL(p, st, field, d, lo, hi, h, ...)                                                                \
    NUMBER(p, OPT_REAL, double, st, field, d, lo, hi, h, __VA_ARGS__)
#define TIME(p, st, field, d, lo, hi, h, ...)                                                                \
    NUMBER(p, OPT_DURATION, int64_t, st, field, d, lo, hi, h, __VA_ARGS__)
#define SIZE32(p, st, field, d, lo, hi, h, ...)                                                              \
    NUMBER(p, OPT_SIZE32, uint32_t, st, field, d, lo, hi, h, __VA_ARGS__)
#define SIZE64(p, st, field, d, lo, hi, h, ...)                                                              \
    NUMBER(p, OPT_SIZE64, uint64_t, st, field, d, lo, hi, h, __VA_ARGS__)
#define BOOL(p, st, field, d, h, ...) NUMBER(p, OPT_BOOL, bool, st, field, d, 0, 1, h, __VA_ARGS__)
#define LIST(p, t, c, st, field, n, d, lo, hi, h, ...)                                                       \
    {                                                                                                        \
        .path = p, .type = t, .offset = AT(st, field, c), .count_offset = AT(st, n, uint32_t),               \
        .fallback = d, .least = lo, .most = hi, .help = h, __VA_ARGS__                                       \
    }

#define MS      1e3
#define SECOND  1e6
#define MINUTE  (60 * SECOND)
#define HOUR    (60 * MINUTE)
#define DAY     (24 * HOUR)
#define KIB     1024.0
#define MIB     (1024 * KIB)
#define GIB     (1024 * MIB)
#define TIB     (1024 * GIB)
#define ANY_U64 18446744073709551615.0

#define KIND(k)      (1u << SLU_##k)
#define NOT_CROSS    (KIND(CATEGORICAL) | KIND(MULTI) | KIND(NUMERIC) | KIND(SEQUENCE))
#define SEVERAL      (KIND(MULTI) | KIND(CROSS) | KIND(SEQUENCE))
#define TRANSFORM(t) (1u << SLU_TRANSFORM_##t)

static const slu_opt_choice kinds[] = {{"categorical", SLU_CATEGORICAL}, {"multi", SLU_MULTI},
                                       {"numeric", SLU_NUMERIC},         {"cross", SLU_CROSS},
                                       {"sequence", SLU_SEQUENCE},       {0}};
static const slu_opt_choice sides[] = {{"user", SLU_USER}, {"item", SLU_ITEM}, {"context", SLU_CONTEXT}, {0}};
static const slu_opt_choice poolings[] = {{"sum", SLU_POOL_SUM}, {"mean", SLU_POOL_MEAN}, {0}};
static const slu_opt_choice transforms[] = {{"none", SLU_TRANSFORM_NONE},
                                            {"log", SLU_TRANSFORM_LOG},
                                            {"standardize", SLU_TRANSFORM_STANDARDIZE},
                                            {"bucket", SLU_TRANSFORM_BUCKET},
                                            {0}};
static const slu_opt_choice architectures[] = {{"shared_bottom", 0}, {"esmm", 1}, {"mmoe", 2}, {0}};
static const slu_opt_choice norms[] = {
    {"none", SLU_NORM_NONE}, {"batch", SLU_NORM_BATCH}, {"layer", SLU_NORM_LAYER}, {0}};
static const slu_opt_choice row_kinds[] = {
    {"adagrad", SLU_ROW_ADAGRAD}, {"adagrad_row", SLU_ROW_ADAGRAD_ROW}, {0}};
static const slu_opt_choice wide_kinds[] = {{"ftrl", SLU_WIDE_FTRL}, {"adagrad", SLU_WIDE_ADAGRAD}, {0}};
static const slu_opt_choice policies[] = {
    {"fnw", SLU_POLICY_FNW}, {"window", SLU_POLICY_WINDOW}, {"oracle", SLU_POLICY_ORACLE}, {0}};
static const slu_opt_choice encodings[] = {
    {"protobuf", SLU_ENCODING_PROTOBUF}, {"json", SLU_ENCODING_JSON}, {0}};
static const slu_opt_choice formats[] = {{"csv", SLU_FILE_CSV}, {"jsonl", SLU_FILE_JSONL}, {0}};
static const slu_opt_choice time_units[] = {{"us", SLU_UNIT_US}, {"ms", SLU_UNIT_MS}, {"s", SLU_UNIT_S}, {0}};
static const slu_opt_choice precisions[] = {{"fp32", SLU_FP32}, {"int8", SLU_INT8}, {0}};
static const slu_opt_choice training_precisions[] = {{"fp32", SLU_FP32}, {"bf16", SLU_BF16}, {0}};
static const slu_opt_choice unknowns[] = {
    {"reject", SLU_UNKNOWN_REJECT}, {"ignore", SLU_UNKNOWN_IGNORE}, {0}};
static const slu_opt_choice levels[] = {
    {"debug", 0}, {"info", 1}, {"warn", 2}, {"error", 3}, {0}};                /* slu_log_level */
static const slu_opt_choice log_formats[] = {{"logfmt", 0}, {"json", 1}, {0}}; /* slu_log_format */

#define O slu_options
#define S slu_step_opts
#define F slu_feature_opts

static slu_opt table[] = {
    STRING("name", OPT_NAME, O, name, "sluice", "Name of the model, in logs and metrics."),

    SECTION("funnel",
            "The steps that may follow an impression, in order. Every step is a task of the model: its "
            "probability given the step before it."),
    ENTRIES("funnel.steps", O, steps, n_steps, S, 1, SLU_MAX_STEPS,
            "One entry per step, first to last, e.g. click then conversion.",
            .flags = OPT_REQUIRED | OPT_LEARNED),
    STRING("funnel.steps[].name", OPT_NAME, S, name, NULL,
           "What events of this step call it. `impression` is taken. Unique.",
           .flags = OPT_REQUIRED | OPT_LEARNED),
    TIME("funnel.steps[].window", S, window_us, NULL, SECOND, 365 * DAY,
         "Attribution window: how long after the impression the step still counts. Not shorter than that of "
         "the "
         "step before.",
         .flags = OPT_REQUIRED | OPT_LEARNED),
    REAL("funnel.steps[].weight", S, weight, "1", 0, 1e6,
         "Weight of this task in the loss; 0 measures it only.", .flags = OPT_LEARNED),

    ENTRIES("features", O, features, n_features, F, 1, SLU_MAX_FEATURES,
            "What the model looks at, one entry per feature. Kinds: `categorical` one value; `multi` several "
            "values, "
            "pooled; `numeric` a number; `cross` each combination of other features' values; `sequence` ids "
            "in time "
            "order.",
            .flags = OPT_REQUIRED | OPT_LEARNED),
    STRING("features[].name", OPT_NAME, F, name, NULL, "Name in messages, crosses and `--set`. Unique.",
           .flags = OPT_REQUIRED | OPT_LEARNED),
    CHOICE("features[].kind", F, kind, kinds, "categorical", "How raw values become ids or numbers.",
           .flags = OPT_LEARNED),
    CHOICE("features[].side", F, side, sides, NULL,
           "Who it describes. User and context features are sent, encoded and looked up once per scoring "
           "request, item "
           "features once per candidate. Must be given except for a cross.",
           .flags = OPT_LEARNED, .kinds = NOT_CROSS, .derived = "cross: from its parts"),
    STRING("features[].source", OPT_TEXT, F, source, NULL,
           "Raw field in events, requests and file columns. Two features may read the same one.", .most = 128,
           .flags = OPT_LEARNED, .kinds = NOT_CROSS, .derived = "the name"),
    STRING("features[].table", OPT_NAME, F, table, NULL,
           "Features with the same table share its rows: a value means the same in all of them.",
           .flags = OPT_LEARNED, .derived = "the name"),
    U32("features[].dimension", F, dimension, "16", 0, 1024,
        "Floats per embedding row, equal for all features of a table. 0: a wide weight only, for large "
        "crosses.",
        .flags = OPT_LEARNED),
    BOOL("features[].wide", F, wide, "true", "With `model.wide`, has a linear weight per value and task.",
         .flags = OPT_LEARNED),
    CHOICE("features[].pooling", F, pooling, poolings, "sum", "How rows of several values become one.",
           .flags = OPT_LEARNED, .kinds = SEVERAL),
    CHOICE("features[].transform", F, transform, transforms, "none",
           "Numbers: `log` is sign(x) log(1 + abs(x)); `standardize` is (x - mean) / deviation; `bucket` "
           "makes an "
           "id of the "
           "bucket and embeds it like a categorical value.",
           .flags = OPT_LEARNED, .kinds = KIND(NUMERIC)),
    REAL("features[].mean", F, mean, "0", -1e30, 1e30, "For `standardize`.", .flags = OPT_LEARNED,
         .kinds = KIND(NUMERIC), .transforms = TRANSFORM(STANDARDIZE)),
    REAL("features[].deviation", F, deviation, "1", 1e-30, 1e30, "For `standardize`.", .flags = OPT_LEARNED,
         .kinds = KIND(NUMERIC), .transforms = TRANSFORM(STANDARDIZE)),
    LIST("features[].buckets", OPT_REALS, double *, F, buckets, n_buckets, NULL, 1, 1024,
         "For `bucket`: ascending upper bounds; values above the last make one more bucket.", .min = -1e30,
         .max = 1e30, .flags = OPT_LEARNED, .kinds = KIND(NUMERIC), .transforms = TRANSFORM(BUCKET)),
    LIST("features[].of", OPT_NAMES, char **, F, of, n_of, NULL, 2, 8,
         "For crosses: names of the features to combine (categorical, multi, sequence or bucketed).",
         .flags = OPT_LEARNED, .kinds = KIND(CROSS)),
    U32("features[].max_ids", F, max_ids, "32", 1, 4096,
        "Values kept per event; more are cut (sequences keep the newest) and counted.", .flags = OPT_LEARNED,
        .kinds = SEVERAL),
    STRING("features[].missing", OPT_TEXT, F, missing, NULL, "The value that stands for a missing field.",
           .most = 256, .flags = OPT_LEARNED, .kinds = NOT_CROSS,
           .derived = "a token of its own; plain numbers: 0"),
    U32("features[].admit_after", F, admit_after, "1", 0, 1000000,
        "A value gets a row once it has been seen this often; before that it is like an unknown one.",
        .flags = OPT_LEARNED),
    TIME("features[].ttl", F, ttl_us, "0s", 0, 3650 * DAY,
         "A row whose value was in no impression for so long, in event time, expires: it is deleted in "
         "trainer and "
         "scorers, and seen again the value starts as new. Features that share a table: the longest. 0s: "
         "never. Wants "
         "to be much longer than the attribution windows. A change walks all rows once at the next start.",
         .flags = OPT_LEARNED),
    U64("features[].seed", F, seed, NULL, 0, ANY_U64, "Of the hash. Equal for all features of a table.",
        .flags = OPT_LEARNED, .derived = "from the table's name"),

    SECTION("model", "The network."),
    STRING("model.architecture", OPT_WORD, slu_options, model.architecture, "esmm",
           "`shared_bottom`: one shared stack, a tower per task. `esmm`: separate towers over shared "
           "embeddings. `mmoe`: "
           "experts mixed by a gate per task. All learn on the entire space of impressions.",
           .choices = architectures, .flags = OPT_LEARNED),
    U64("model.seed", O, model.seed, "1", 0, ANY_U64, "Of the initial weights and rows.",
        .flags = OPT_LEARNED),
    LIST("model.bottom", OPT_WIDTHS, uint32_t *, O, model.bottom, model.n_bottom, "[128]", 0, 16,
         "`shared_bottom`: layer widths of the shared stack.", .min = 1, .max = 65536, .flags = OPT_LEARNED),
    LIST("model.towers", OPT_WIDTHS, uint32_t *, O, model.towers, model.n_towers, "[128, 64]", 0, 16,
         "Layer widths of each task's tower, without the final logit.", .min = 1, .max = 65536,
         .flags = OPT_LEARNED),
    U32("model.experts", O, model.experts, "4", 1, 256, "`mmoe`: how many experts.", .flags = OPT_LEARNED),
    LIST("model.expert_layers", OPT_WIDTHS, uint32_t *, O, model.expert_layers, model.n_expert_layers,
         "[128]", 0, 16, "`mmoe`: layer widths of each expert.", .min = 1, .max = 65536,
         .flags = OPT_LEARNED),
    CHOICE("model.norm", O, model.norm, norms, "none", "Normalisation after each hidden dense layer.",
           .flags = OPT_LEARNED),
    REAL("model.row_init", O, model.row_init, "0.01", 0, 10,
         "Elements of a new row are normal with this deviation.", .flags = OPT_LEARNED),
    BOOL("model.wide", O, model.wide, "false",
         "Adds a linear weight per feature value and task to the logits.", .flags = OPT_LEARNED),

    SECTION("optimizer", "How fast and by which rule the parameters move."),
    SECTION("optimizer.dense", "Adam, for the network's dense parameters."),
    REAL("optimizer.dense.rate", O, optimizer.dense_rate, "0.001", 0, 100, "Learning rate.",
         .flags = OPT_LEARNED),
    REAL("optimizer.dense.beta1", O, optimizer.dense_beta1, "0.9", 0, 0.999999,
         "Decay of the mean of gradients.", .flags = OPT_LEARNED),
    REAL("optimizer.dense.beta2", O, optimizer.dense_beta2, "0.999", 0, 0.99999999,
         "Decay of the mean of their squares.", .flags = OPT_LEARNED),
    REAL("optimizer.dense.epsilon", O, optimizer.dense_epsilon, "1e-8", 1e-30, 1,
         "Keeps the division finite.", .flags = OPT_LEARNED),
    REAL("optimizer.dense.l2", O, optimizer.dense_l2, "0", 0, 1e6, "L2 penalty.", .flags = OPT_LEARNED),
    REAL("optimizer.dense.clip", O, optimizer.dense_clip, "0", 0, 1e12,
         "Largest global gradient norm; 0: no limit.", .flags = OPT_LEARNED),
    SECTION("optimizer.rows", "Adagrad, for the embedding rows."),
    CHOICE("optimizer.rows.kind", O, optimizer.rows, row_kinds, "adagrad",
           "`adagrad` has an accumulator per element, `adagrad_row` one per row (less memory).",
           .flags = OPT_LEARNED),
    REAL("optimizer.rows.rate", O, optimizer.row_rate, "0.02", 0, 100, "Learning rate.",
         .flags = OPT_LEARNED),
    REAL("optimizer.rows.epsilon", O, optimizer.row_epsilon, "1e-8", 1e-30, 1, "Keeps the division finite.",
         .flags = OPT_LEARNED),
    REAL("optimizer.rows.initial", O, optimizer.row_initial, "0", 0, 1e6, "First value of the accumulators.",
         .flags = OPT_LEARNED),
    REAL("optimizer.rows.l2", O, optimizer.row_l2, "0", 0, 1e6, "L2 penalty on rows that a batch touches.",
         .flags = OPT_LEARNED),
    REAL("optimizer.rows.clip", O, optimizer.row_clip, "0", 0, 1e12,
         "Largest gradient norm of a row; 0: no limit.", .flags = OPT_LEARNED),
    SECTION("optimizer.wide", "For the linear weights of `model.wide`."),
    CHOICE("optimizer.wide.kind", O, optimizer.wide, wide_kinds, "ftrl", "FTRL-proximal or Adagrad.",
           .flags = OPT_LEARNED),
    REAL("optimizer.wide.rate", O, optimizer.wide_rate, "0.07", 0, 100, "Learning rate; alpha of `ftrl`.",
         .flags = OPT_LEARNED),
    REAL("optimizer.wide.beta", O, optimizer.wide_beta, "1", 0, 1e6, "Beta of `ftrl`; epsilon of `adagrad`.",
         .flags = OPT_LEARNED),
    REAL("optimizer.wide.l1", O, optimizer.wide_l1, "0", 0, 1e6,
         "L1 penalty: weights below it stay exactly 0.", .flags = OPT_LEARNED),
    REAL("optimizer.wide.l2", O, optimizer.wide_l2, "0", 0, 1e6, "L2 penalty.", .flags = OPT_LEARNED),

    SECTION("training", "When labels are learned and batches close."),
    CHOICE("training.label_policy", O, training.label_policy, policies, "fnw",
           "`fnw`: a negative on arrival and a weighted positive when its event comes, so the model is "
           "current within a "
           "second. `window`: each task's label when its window has closed. `oracle`: final labels at once, "
           "for replays "
           "only, as an upper bound.",
           .flags = OPT_LEARNED),
    U32("training.batch_size", O, training.batch_size, "256", 1, 65536, "Samples at which a batch closes.",
        .flags = OPT_LEARNED),
    U32("training.threads", O, training.threads, "1", 1, 64,
        "Threads that a step's products are computed with, at most one per core that is free. The model is "
        "the "
        "same, bit for bit, with any number of them."),
    CHOICE("training.precision", O, training.precision, training_precisions, "fp32",
           "How the large products of a step are computed. bf16: operands of 8 bits, sums and parameters in "
           "fp32; several times "
           "as fast on CPUs with AMX or AVX-512 BF16 where oneDNN (libdnnl2) is installed, slower on others, "
           "with a warning "
           "(docs/performance.md).",
           .flags = OPT_LEARNED | OPT_LATER),
    TIME("training.max_batch_delay", O, training.max_batch_delay_us, "250ms", 0, DAY,
         "Event time after which a batch closes although it is not full. Rows learn with every batch.",
         .flags = OPT_LEARNED),
    U32("training.dense_every", O, training.dense_every, "512", 1, 1000000,
        "Samples gathered before a step of the dense parameters: Adam needs enough of them on thin streams.",
        .flags = OPT_LEARNED),
    TIME("training.commit_every", O, training.commit_every_us, "250ms", MS, HOUR,
         "Wall time between commits of a live run: scorers see news that often. Up to sixteen times as long "
         "while catching up, a quarter of how far behind it is."),
    U64("training.commit_events", O, training.commit_events, "20000", 1, 1e9,
        "A commit comes at the latest after so many events; the only rule of a replay."),
    SIZE64("training.keep_order", O, training.keep_order_bytes, "1GiB", 0, TIB,
           "Room in the store for the order in which a live run used its events, a few bytes for each run of "
           "events of "
           "one partition. With it `sluice-replay --from-store` rebuilds the model from the topics, bit for "
           "bit, "
           "up to "
           "any version. The oldest versions go first; 0 keeps none."),
    CHOICE("training.unknown_features", O, training.unknown_features, unknowns, "reject",
           "Events with a feature that is not in `features`: `reject` makes dead letters, `ignore` drops the "
           "feature and "
           "counts it.",
           .flags = OPT_LEARNED),

    SIZE64(
        "training.memory", O, training.memory_bytes, "0", 0, 16 * TIB,
        "Limit of the trainer's memory. `store.cache`, `join.cache`, `store.block_cache` where they are not "
        "written, RocksDB's write buffers, what may change between commits and the queues from and to Kafka "
        "get "
        "their shares of it; `started` and `sluice_trainer_memory_plan_bytes` show them. 0: as large as the "
        "sum "
        "of the parts."),

    SECTION("join", "How steps find their impression."),
    TIME("join.allowed_lateness", O, join.allowed_lateness_us, "1m", 0, 30 * DAY,
         "The watermark stays this far behind the newest event, so disorder up to it costs nothing.",
         .flags = OPT_LEARNED),
    TIME("join.idle_timeout", O, join.idle_timeout_us, "30s", 100 * MS, DAY,
         "Wall time after which a silent partition no longer holds the watermark back.",
         .flags = OPT_LEARNED),
    TIME("join.orphan_wait", O, join.orphan_wait_us, "1h", 0, 365 * DAY,
         "Event time that a step waits for an impression that has not come yet.", .flags = OPT_LEARNED),
    TIME("join.max_future", O, join.max_future_us, "5m", 0, 365 * DAY,
         "Events further ahead of the arrival clock are dead letters. 0s: not checked.",
         .flags = OPT_LEARNED),
    TIME("join.max_behind", O, join.max_behind_us, "1d", 0, 3650 * DAY,
         "A partition whose newest event is older than this when it arrives has a wrong clock: while others "
         "are "
         "sound it does not hold the watermark back, and what comes too late is a dead letter `behind`. A "
         "backlog "
         "is none: it arrived when it was written. 0s: every partition holds.",
         .flags = OPT_LEARNED),
    TIME("join.max_skew", O, join.max_skew_us, "10m", 0, 3650 * DAY,
         "A partition whose newest event is further ahead of the slowest partition with a backlog is paused "
         "until "
         "it is half of that, so that what waits to be joined stays bounded while partitions catch up at "
         "different "
         "speeds. 0s: never."),
    SIZE64("join.cache", O, join.cache_bytes, "256MiB", MIB, 16 * TIB,
           "Join state kept in memory; the rest is on disk. With `training.memory` a share of that, unless "
           "written."),

    SECTION("kafka", "Where events come from and model updates go."),
    STRING("kafka.brokers", OPT_TEXT, O, kafka.brokers, "127.0.0.1:9092",
           "host:port, several separated by commas.", .most = 4096),
    STRING("kafka.group", OPT_TEXT, O, kafka.group, "sluice",
           "Group to which offsets are also reported, so that lag tools see them; the store's own offsets "
           "count.",
           .most = 249),
    STRING("kafka.client_id", OPT_TEXT, O, kafka.client_id, "sluice", "Name in the broker's logs and quotas.",
           .most = 249),
    LIST("kafka.topics", OPT_TOPICS, char **, O, kafka.topics, kafka.n_topics, "[sluice.events]", 1, 64,
         "All event topics. Any topic may carry any event. Unique."),
    STRING("kafka.delta_topic", OPT_TOPIC, O, kafka.delta_topic, "sluice.deltas",
           "Topic that carries the model from the trainer to the scorers."),
    STRING("kafka.dead_letter_topic", OPT_TOPIC, O, kafka.dead_letter_topic, NULL,
           "Topic for events that cannot be used, with the reason.",
           .derived = "the file dead-letters.jsonl in store.path"),
    CHOICE("kafka.encoding", O, kafka.encoding, encodings, "protobuf",
           "Of the events: `sluice.v1` messages or JSON."),
    SIZE32("kafka.max_message_bytes", O, kafka.max_message_bytes, "1MiB", KIB, 64 * MIB,
           "Larger events are dead letters."),
    {.path = "kafka.rdkafka",
     .type = OPT_PAIRS,
     .offset = AT(O, kafka.rdkafka, slu_kv_opts *),
     .count_offset = AT(O, kafka.n_rdkafka, uint32_t),
     .size = sizeof(slu_kv_opts),
     .most = 256,
     .help = "Passed through to librdkafka, e.g. `security.protocol: SASL_SSL`. TLS and SASL are set here. "
             "`${NAME}` as a whole value takes it from the environment."},

    ENTRIES("files", O, files, n_files, slu_file_opts, 0, 64,
            "Recorded events for replays. Several files are merged by time; on a tie the order is that of "
            "this list, "
            "then that of the lines."),
    STRING("files[].path", OPT_TEXT, slu_file_opts, path, NULL, "Relative to `--data`; `.gz` is fine.",
           .flags = OPT_REQUIRED, .most = 4096),
    CHOICE("files[].format", slu_file_opts, format, formats, "csv",
           "`csv` with a header line, or `jsonl` with one JSON event per line."),
    CHOICE("files[].time_unit", slu_file_opts, time_unit, time_units, "us", "csv: unit of the time column."),
    STRING("files[].event", OPT_NAME, slu_file_opts, event, NULL,
           "csv: `impression` or a step's name, for a file of one kind of event; else give kind_column."),
    STRING("files[].id_column", OPT_TEXT, slu_file_opts, id_column, NULL,
           "csv: the event's id. Needed for impressions.", .most = 128),
    STRING("files[].time_column", OPT_TEXT, slu_file_opts, time_column, NULL, "csv: event time. Needed.",
           .most = 128),
    STRING("files[].kind_column", OPT_TEXT, slu_file_opts, kind_column, NULL,
           "csv: column that holds `impression` or a step's name.", .most = 128),
    STRING("files[].impression_column", OPT_TEXT, slu_file_opts, impression_column, NULL,
           "csv: id of the impression that a step answers. Needed for steps.", .most = 128),
    LIST("files[].skip", OPT_TEXTS, char **, slu_file_opts, skip, n_skip, "[]", 0, 64,
         "csv: values of kind_column to pass over."),

    SECTION("store", "The trainer's RocksDB."),
    STRING("store.path", OPT_TEXT, O, store.path, "/var/lib/sluice/trainer", "Its folder.", .most = 4000),
    SIZE64("store.cache", O, store.cache_bytes, "1GiB", MIB, 16 * TIB,
           "Embedding rows kept in memory. With `training.memory` a share of that, unless written."),
    SIZE64("store.block_cache", O, store.block_cache_bytes, "256MiB", MIB, 16 * TIB,
           "RocksDB's own cache. With `training.memory` a share of that, unless written."),
    BOOL("store.sync", O, store.sync, "true",
         "fsync every commit. Without it a power loss may cost the last commits (never their consistency)."),

    SECTION("backup",
            "Copies of a store, made while it is in use (`sluice-store backup`, docs/operations.md)."),
    STRING(
        "backup.path", OPT_TEXT, O, backup.path, NULL,
        "Folder; the trainer's copies go to trainer/ below it, a scorer's to scorer/. Best on another disk.",
        .most = 3000, .derived = "none: `sluice-store backup` has to say where"),
    TIME("backup.every", O, backup.every_us, "0s", 0, 365 * DAY,
         "A copy comes by itself after so long. 0s: only on request. Needs backup.path."),
    U32("backup.keep", O, backup.keep, "7", 1, 100000, "So many of the newest stay in backup.path."),

    SECTION("publish", "Model updates for the scorers."),
    BOOL("publish.enabled", O, publish.enabled, "true",
         "Publish deltas and base snapshots to kafka.delta_topic."),
    TIME("publish.base_every", O, publish.base_every_us, "1h", SECOND, 365 * DAY,
         "A base snapshot comes at the latest after this wall time: new scorers start from it."),
    SIZE64("publish.base_every_bytes", O, publish.base_every_bytes, "1GiB", 64 * KIB, 16 * TIB,
           "And after so many bytes of deltas, or as many as the last base had, if that is more."),
    SIZE64("publish.outbox", O, publish.outbox_bytes, "4GiB", MIB, 16 * TIB,
           "Room on disk for deltas and dead letters that Kafka has not acknowledged yet. When it is full, "
           "reading "
           "pauses until Kafka takes them."),
    SIZE32("publish.chunk", O, publish.chunk_bytes, "512KiB", 4 * KIB, 64 * MIB,
           "Largest delta message. The broker's message.max.bytes must allow it."),

    SECTION("serving", "The scorer."),
    STRING("serving.listen", OPT_LISTEN, O, serving.listen, "127.0.0.1:7070",
           "Address of the gRPC service; `0.0.0.0:7070` for all interfaces."),
    STRING("serving.store", OPT_TEXT, O, serving.store_path, "/var/lib/sluice/scorer",
           "Folder of the scorer's own RocksDB.", .most = 4000),
    U32("serving.threads", O, serving.threads, "2", 1, 256, "Threads that accept and score requests."),
    SIZE64("serving.memory", O, serving.memory_bytes, "0", 0, 16 * TIB,
           "Memory of the whole scorer; rows and indexes get what its other parts (docs/operations.md) "
           "leave, a base "
           "is built beside the model that serves. 0: 80 % of the machine's."),
    U32("serving.max_candidates", O, serving.max_candidates, "10000", 1, 1000000, "Per request."),
    SIZE32("serving.max_request", O, serving.max_request_bytes, "4MiB", KIB, 256 * MIB,
           "Largest request message."),
    U32("serving.max_streams", O, serving.max_streams, "128", 1, 65536,
        "Concurrent requests per connection."),
    U32("serving.max_connections", O, serving.max_connections, "1024", 1, 65536,
        "Open connections. Beyond them one that never asked anything makes room, or one without an answer "
        "for a "
        "second; else the new one is refused."),
    TIME("serving.greeting", O, serving.greeting_us, "10s", 100 * MS, HOUR,
         "Longest wait for the HTTP/2 greeting of a new connection; then it is closed."),
    TIME("serving.arrival", O, serving.arrival_us, "2m", 100 * MS, HOUR,
         "Longest time for a request to arrive whole; then it is answered DEADLINE_EXCEEDED."),
    TIME("serving.idle", O, serving.idle_us, "30m", SECOND, 24 * HOUR,
         "Without a call for so long a connection is said goodbye to (GOAWAY) and closed."),
    U32("serving.max_queue", O, serving.max_queue, "256", 1, 65536,
        "Requests waiting per thread; more are answered RESOURCE_EXHAUSTED at once."),
    TIME("serving.max_wait", O, serving.max_wait_us, "50ms", 0, HOUR,
         "Longest wait of a request for its turn; one that would wait longer, or has, is answered "
         "RESOURCE_EXHAUSTED without being scored. In a queue that does not empty a quarter of it. 0s: no "
         "limit."),
    TIME("serving.drain", O, serving.drain_us, "10s", 0, HOUR, "Longest graceful drain after SIGTERM."),
    U32("serving.split_above", O, serving.split_above, "96", 0, 1000000,
        "Requests of at least so many candidates are cut into pieces of at least half as many, which scoring "
        "threads without requests of their own help with; scores are the same. 0: each request has one "
        "thread."),
    CHOICE("serving.precision", O, serving.precision, precisions, "fp32",
           "How the large products of a score are computed. int8: faster on CPUs with AVX2, "
           "scores differ a little (docs/performance.md)."),
    CHOICE("serving.unknown_features", O, serving.unknown_features, unknowns, "reject",
           "Requests with a feature that is not in `features`: `reject` answers INVALID_ARGUMENT, `ignore` "
           "drops it."),
    SECTION("serving.tls",
            "Encryption of the gRPC service; without a certificate it speaks plain HTTP/2. Changed "
            "files are loaded without a restart."),
    STRING("serving.tls.certificate", OPT_TEXT, O, serving.tls_certificate, NULL,
           "PEM file: the server's certificate, then the intermediate ones.", .most = 4096),
    STRING("serving.tls.key", OPT_TEXT, O, serving.tls_key, NULL,
           "PEM file: the certificate's private key, not encrypted.", .most = 4096),
    STRING("serving.tls.client_ca", OPT_TEXT, O, serving.tls_client_ca, NULL,
           "PEM file: the authorities whose clients are let in (mutual TLS).", .most = 4096,
           .derived = "clients need no certificate"),
    TIME("serving.tls.handshake", O, serving.tls_handshake_us, "10s", 100 * MS, HOUR,
         "Longest handshake; then the connection is closed."),

    SECTION("admin", "HTTP pages of the daemons: /metrics, /healthz, /readyz and a status page."),
    STRING("admin.trainer", OPT_LISTEN, O, trainer_admin, "127.0.0.1:9464",
           "Address of the trainer's; port 0 picks one."),
    STRING("admin.scorer", OPT_LISTEN, O, scorer_admin, "127.0.0.1:9465",
           "Address of the scorer's; port 0 picks one."),
    BOOL("admin.allow_remote", O, admin_allow_remote, "false",
         "The pages have no password and no encryption, so an address that other machines can reach is "
         "refused "
         "without this."),

    SECTION("log", "One line per event worth knowing, on stderr."),
    CHOICE("log.level", O, log.level, levels, "info", "Lines below it are not written."),
    CHOICE("log.format", O, log.format, log_formats, "logfmt", "For people or for machines."),
};
#define ROWS (sizeof table / sizeof *table)

static pthread_once_t once = PTHREAD_ONCE_INIT;

/* The section of "features[].kind" is "features", of "optimizer.dense.rate" "optimizer.dense". */
static void link_rows(void)
{
    for (size_t i = 0; i < ROWS; i++) {
        const char *dot = strrchr(table[i].path, '.');
        table[i].parent = -1;
        table[i].key = dot ? dot + 1 : table[i].path;
        if (!dot)
            continue;
        size_t n = (size_t)(dot - table[i].path);
        if (n > 2 && !strncmp(dot - 2, "[]", 2))
            n -= 2;
        for (size_t j = 0; j < i; j++)
            if (strlen(table[j].path) == n && !strncmp(table[j].path, table[i].path, n))
                table[i].parent = (int)j;
    }
}

const slu_opt *slu_opts(size_t *n)
{
    pthread_once(&once, link_rows);
    *n = ROWS;
    return table;
}

int slu_opt_find(int parent, const char *key, size_t len)
{
    size_t n;
    const slu_opt *o = slu_opts(&n);
    for (size_t i = 0; i < n; i++)
        if (o[i].parent == parent && strlen(o[i].key) == len && !strncmp(o[i].key, key, len))
            return (int)i;
    return -1;
}

/* A plain number goes straight into the network: it has no table, so nothing about tables has a meaning. */
static bool about_tables(const slu_opt *o)
{
    static const char *const keys[] = {"table", "dimension", "wide", "admit_after", "ttl", "seed"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(o->key, keys[i]))
            return true;
    return false;
}

const char *slu_opt_unfit(const slu_opt *o, slu_feature_kind kind, slu_transform transform)
{
    if (o->kinds && !(o->kinds & 1u << kind)) {
        if (o->kinds == KIND(CROSS))
            return "kind cross";
        if (o->kinds == SEVERAL)
            return "kind multi, cross or sequence";
        return o->kinds == KIND(NUMERIC) ? "kind numeric" : "a kind other than cross";
    }
    if (o->transforms && !(o->transforms & 1u << transform))
        return o->transforms == TRANSFORM(BUCKET) ? "transform bucket" : "transform standardize";
    if (kind == SLU_NUMERIC && transform != SLU_TRANSFORM_BUCKET && about_tables(o))
        return "rows, and a plain number has none (transform bucket has)";
    return NULL;
}

bool slu_opt_is_list(const slu_opt *o)
{
    return o->type >= OPT_NAMES;
}
