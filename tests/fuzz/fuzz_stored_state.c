/* Everything that a trainer keeps, damaged: rows, join records, timers, the waiting batch, watermark,
 * counters, outbox, dense vectors, order. A small pipeline has left a commit in the memory store; the input
 * says what happens to its entries; then a pipeline opens it, takes more events, publishes and finishes.
 * Every refusal must have a code and a message; what is accepted must go on to the end, and what it commits
 * must open again with the same digest. An input that changes nothing must end like the run that was never
 * stopped. */
#include "base/log.h"
#include "feature/event.h"
#include "sluice/v1/delta.pb-c.h"
#include "store/outbox.h"
#include "tests/fuzz/damage.h"
#include "trainer/pipeline.h"
#include "trainer/progress.h"
#include <stdio.h>

#define REQUIRE(x)                                                                                           \
    do {                                                                                                     \
        if (!(x)) {                                                                                          \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #x);                            \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)
#define MINUTE     (60 * SLU_SECOND_US)
#define T0         (1700000000LL * SLU_SECOND_US)
#define POLICIES   2
#define MAX_CHANGE 12

static const char yaml[] =
    "name: fuzz\n"
    "funnel: {steps: [{name: click, window: 10m}, {name: buy, window: 30m}]}\n"
    "features:\n"
    "  - {name: user, side: user, dimension: 2, admit_after: 2}\n"
    "  - {name: item, side: item, dimension: 2}\n"
    "  - {name: tags, kind: multi, side: item, dimension: 2, max_ids: 3, pooling: mean}\n"
    "  - {name: price, kind: numeric, side: item, transform: log}\n"
    "  - {name: both, kind: cross, of: [user, item], dimension: 0, wide: true}\n"
    "model: {architecture: esmm, seed: 3, towers: [2], wide: true}\n"
    "training: {batch_size: 4, max_batch_delay: 1h, dense_every: 4, commit_events: 1000000}\n"
    "join: {allowed_lateness: 1s, orphan_wait: 5m, cache: 1MiB}\n"
    "kafka: {brokers: \"127.0.0.1:1\", group: g, topics: [t], delta_topic: d}\n"
    "store: {path: /nonexistent, cache: 1MiB}\n";

typedef struct recipe {
    char kind; /* i: impression, c: click, b: buy, x: garbage, p: partition, q: it falls silent */
    int number, minute;
} recipe;

/* At the commit, steps wait for impressions, impressions for windows, samples for a batch, and nothing of the
 * outbox was acknowledged. */
static const recipe before[] = {{'p', 0, 0}, {'i', 1, 0}, {'i', 2, 1}, {'c', 1, 2}, {'c', 9, 2}, {'x', 0, 0},
                                {'i', 3, 3}, {'b', 1, 4}, {'b', 8, 4}, {'c', 8, 4}, {'i', 4, 5}, {'i', 5, 6}};
static const recipe after[] = {{'p', 0, 0},   {'c', 2, 6},   {'i', 9, 6},   {'c', 2, 6},   {'i', 2, 6},
                               {'i', 6, 7},   {'b', 2, 7},   {'i', 7, 8},   {'c', 3, 9},   {'i', 10, 12},
                               {'q', 0, 0},   {'c', 10, 20}, {'i', 11, 25}, {'c', 12, 26}, {'i', 13, 41},
                               {'b', 13, 42}, {'i', 14, 90}};

/* Progressive validation reads nothing from the store, and its histograms would take most of the time. */
slu_progress *slu_progress_new(uint32_t steps)
{
    (void)steps;
    return malloc(1);
}

void slu_progress_free(slu_progress *p)
{
    free(p);
}

void slu_progress_add(slu_progress *p, const float *logits, uint32_t steps)
{
    (void)p, (void)logits, (void)steps;
}

uint32_t slu_progress_rows(const slu_progress *p, slu_metric_row *out)
{
    (void)p, (void)out;
    return 0;
}

static slu_options *options[POLICIES];
static slu_schema *schema;
static memory_copy *stopped[POLICIES];
static char untouched[POLICIES][33];
static slu_error err;

static int64_t no_time(void *ctx)
{
    (void)ctx;
    return T0;
}

static const slu_clock clock_ = {no_time, no_time, NULL};

static void on_send(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len)
{
    (void)ctx, (void)sequence;
    slu_hash64(message, len, 0); /* every byte can be read */
    REQUIRE(ch == SLU_CHANNEL_DELTAS || ch == SLU_CHANNEL_DEAD_LETTERS);
}

static void on_base(void *ctx, const void *message, size_t len)
{
    (void)ctx;
    Sluice__V1__ModelDelta *m = sluice__v1__model_delta__unpack(NULL, len, message);
    REQUIRE(m && m->kind == SLUICE__V1__DELTA_KIND__DELTA_KIND_BASE);
    sluice__v1__model_delta__free_unpacked(m, NULL);
}

static uint64_t on_acked(void *ctx, slu_channel ch)
{
    (void)ctx, (void)ch;
    return 0;
}

static const slu_sink sink = {.send = on_send, .send_base = on_base, .acked = on_acked};

static int feed(slu_pipeline *p, const recipe *what, int64_t offset)
{
    static const slu_partition part = {"t", 0};
    char text[300];
    int64_t us = T0 + what->minute * MINUTE;
    slu_record r = {
        .kind = SLU_RECORD_EVENT, .offset = offset, .encoding = SLU_ENCODING_JSON, .arrival_us = us};
    if (what->kind == 'p' || what->kind == 'q') {
        r.kind = what->kind == 'p' ? SLU_RECORD_PARTITION : SLU_RECORD_IDLE;
        r.offset = -1;
        return slu_pipeline_feed(p, &part, &r, &err);
    }
    if (what->kind == 'i')
        snprintf(text, sizeof text,
                 "{\"impression\":{\"id\":\"i%d\",\"time_us\":%lld,\"features\":{\"user\":\"u%d\",\"item\":"
                 "\"p%d\","
                 "\"tags\":[\"a\",\"b\"],\"price\":%d}}}",
                 what->number, (long long)us, what->number % 3, what->number % 2, what->number);
    else if (what->kind == 'x')
        snprintf(text, sizeof text, "not an event");
    else
        snprintf(text, sizeof text,
                 "{\"step\":{\"id\":\"%c%d\",\"step\":\"%s\",\"impression_id\":\"i%d\",\"time_us\":%lld}}",
                 what->kind, what->number, what->kind == 'c' ? "click" : "buy", what->number, (long long)us);
    r.bytes = text;
    r.len = strlen(text);
    return slu_pipeline_feed(p, &part, &r, &err);
}

static int feed_all(slu_pipeline *p, const recipe *what, size_t n, int64_t offset)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++)
        rc = feed(p, &what[i], offset + (int64_t)i);
    return rc;
}

static int open_all(int policy, slu_store **store, slu_pipeline **p)
{
    *p = NULL;
    slu_store_config config = {.path = "memory", .create = true, .schema_text = slu_schema_text(schema)};
    REQUIRE(!slu_store_open(&config, store, &err));
    slu_pipeline_config pc = {.options = options[policy],
                              .schema = schema,
                              .store = *store,
                              .sink = &sink,
                              .deltas = true,
                              .order = true,
                              .clock = &clock_};
    return slu_pipeline_open(&pc, p, &err);
}

static void close_all(slu_store *store, slu_pipeline *p)
{
    slu_pipeline_close(p);
    slu_store_close(store);
}

/* From the stored commit to the end. Returns 0 with the digest, or the code of the refusal. */
static int run(int policy, unsigned failing, char digest[33])
{
    slu_store *store;
    slu_pipeline *p;
    slu_error_clear(&err);
    memory_store_fail(failing);
    int rc = open_all(policy, &store, &p);
    if (!rc)
        rc = feed_all(p, after, sizeof after / sizeof *after, sizeof before / sizeof *before);
    if (!rc)
        rc = slu_pipeline_publish_base(p, &err);
    if (!rc)
        rc = slu_pipeline_finish(p, &err);
    memory_store_fail(0);
    if (rc != err.code)
        fprintf(stderr, "returned %s, said %s: %s\n", slu_code_name(rc), slu_code_name(err.code),
                err.message);
    REQUIRE(rc == err.code && (!rc || (rc < 0 && err.message[0])));
    if (!rc) {
        slu_pipeline_stats s;
        slu_pipeline_get_stats(p, &s);
        REQUIRE(s.events.received == s.events.learned + s.events.waiting + s.events.dead);
        REQUIRE(!slu_pipeline_digest(p, digest, &err));
    }
    close_all(store, p);
    return rc;
}

static void set_up(void)
{
    static const char *const sets[POLICIES] = {"training.label_policy=fnw", "training.label_policy=window"};
    slu_log_setup(SLU_LOG_ERROR + 1, SLU_LOGFMT);
    for (int i = 0; i < POLICIES; i++) {
        slu_store *store;
        slu_pipeline *p;
        REQUIRE(!slu_options_parse(yaml, strlen(yaml), "fuzz", &sets[i], 1, &options[i], &err));
        if (!schema)
            REQUIRE(!slu_schema_new(options[i], &schema, &err));
        memory_store_clear();
        REQUIRE(!open_all(i, &store, &p));
        REQUIRE(!feed_all(p, before, sizeof before / sizeof *before, 0));
        REQUIRE(!slu_pipeline_commit(p, &err));
        stopped[i] = memory_store_copy();
        REQUIRE(!feed_all(p, after, sizeof after / sizeof *after, sizeof before / sizeof *before));
        REQUIRE(!slu_pipeline_finish(p, &err));
        REQUIRE(!slu_pipeline_digest(p, untouched[i], &err));
        close_all(store, p);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char first[33], again[33];
    if (!schema)
        set_up();
    damage_bytes b = {data, size};
    int policy = (int)(damage_take(&b, 1) % POLICIES);
    unsigned failing = (unsigned)damage_take(&b, 1);
    memory_store_restore(stopped[policy]);
    bool clean = !b.n && !failing;
    for (int i = 0; i < MAX_CHANGE && b.n; i++)
        damage_once(&b);
    int rc = run(policy, failing, first);
    REQUIRE(!clean || (!rc && !strcmp(first, untouched[policy])));
    if (rc)
        return 0;
    /* What was committed is a store that opens, and is what it said. */
    slu_store *store;
    slu_pipeline *p;
    slu_error_clear(&err);
    rc = open_all(policy, &store, &p);
    if (rc)
        fprintf(stderr, "what was just committed does not open: %s\n", err.message);
    REQUIRE(!rc && !slu_pipeline_digest(p, again, &err) && !strcmp(first, again));
    close_all(store, p);
    return 0;
}
