/* From the trainer's commits to a scorer's table, without a broker: whatever the history of commits, crashes,
 * messages lost on the way, bases and restarts of scorers, a scorer that has read everything holds the
 * trainer's served floats bit for bit. */
#include "model/net.h"
#include "model/spec.h"
#include "serving/delta_applier.h"
#include "serving/served.h"
#include "sluice/v1/delta.pb-c.h"
#include "store/row_scan.h"
#include "store/row_sum.h"
#include "store/row_table.h"
#include "store/state.h"
#include "tests/pipeline_sample.h"
#include "trainer/pipeline.h"

#define EVENTS 1500

/* Values are seen every few minutes, so that rows come and go. */
#define COMMON                                                                                               \
    "model.towers=[64]", "features.item.admit_after=3", "features.user.ttl=10m", "features.item.ttl=1h",     \
        "features.user_x_item.ttl=2h"
static const char *const small_chunks[] = {"publish.chunk=4KiB", COMMON};
static const char *const large_chunks[] = {"publish.chunk=512KiB", COMMON};

static slu_options *options[2]; /* the same model in small chunks and in large ones */
static slu_schema *schema;
static uint32_t served[16];
static size_t dense_floats;

static void set_up(void)
{
    options[0] = sample_options(small_chunks, sizeof small_chunks / sizeof *small_chunks);
    options[1] = sample_options(large_chunks, sizeof large_chunks / sizeof *large_chunks);
    schema = sample_schema(options[0]);
    served_floats(options[0], schema, served);
    slu_net *net;
    OK(slu_net_of(options[0], slu_schema_inputs(schema), &net, err));
    dense_floats = slu_net_params(net);
    slu_net_free(net);
}

static void tear_down(void)
{
    slu_schema_free(schema);
    slu_options_free(options[0]);
    slu_options_free(options[1]);
}

/* ---- a topic ---- */

typedef struct message {
    slu_buf bytes;
    uint64_t sequence; /* 0: of a base */
} message;

typedef struct topic {
    message *m; /* (n) */
    size_t n, cap;
    size_t safe;    /* messages that the broker has; those behind are on the way */
    uint64_t acked; /* sequence of deltas */
    uint64_t tombstones;
} topic;

static void topic_put(topic *t, uint64_t sequence, const void *p, size_t len)
{
    if (t->n == t->cap) {
        t->cap = t->cap ? 2 * t->cap : 64;
        t->m = realloc(t->m, t->cap * sizeof *t->m);
        ck_assert_ptr_nonnull(t->m);
    }
    t->m[t->n] = (message){.sequence = sequence};
    slu_put_bytes(&t->m[t->n++].bytes, p, len);
}

/* The first |n| messages reach the broker. */
static void topic_reach(topic *t, size_t n)
{
    for (; t->safe < n; t->safe++)
        if (t->m[t->safe].sequence)
            t->acked = t->m[t->safe].sequence;
}

/* The producer dies with what is on the way. */
static void topic_lose(topic *t)
{
    while (t->n > t->safe)
        slu_buf_free(&t->m[--t->n].bytes);
    t->acked = 0; /* the next producer knows of nothing */
}

static void topic_free(topic *t)
{
    t->safe = 0;
    topic_lose(t);
    free(t->m);
}

static void sink_send(void *ctx, slu_channel ch, uint64_t sequence, const void *p, size_t len)
{
    topic *t = ctx;
    if (ch != SLU_CHANNEL_DELTAS)
        return;
    topic_put(t, sequence, p, len);
    Sluice__V1__ModelDelta *m = sluice__v1__model_delta__unpack(NULL, len, p);
    ck_assert_ptr_nonnull(m);
    for (size_t i = 0; i < m->n_rows; i++)
        t->tombstones += m->rows[i]->deleted.len / sizeof(uint64_t);
    sluice__v1__model_delta__free_unpacked(m, NULL);
}

static void sink_send_base(void *ctx, const void *p, size_t len)
{
    topic_put(ctx, 0, p, len);
}

static uint64_t sink_acked(void *ctx, slu_channel ch)
{
    return ch == SLU_CHANNEL_DELTAS ? ((topic *)ctx)->acked : 0;
}

/* ---- a trainer ---- */

typedef struct trainer {
    char *directory;
    slu_store *store;
    slu_pipeline *pipeline;
    topic *topic;
} trainer;

static void trainer_begin(trainer *t, int which)
{
    t->store = sample_store(t->directory, schema);
    slu_sink sink = {.send = sink_send, .send_base = sink_send_base, .acked = sink_acked, .ctx = t->topic};
    slu_pipeline_config c = {.options = options[which],
                             .schema = schema,
                             .store = t->store,
                             .sink = &sink,
                             .deltas = true,
                             .clock = &slu_system_clock,
                             .eval_from_us = INT64_MIN};
    OK(slu_pipeline_open(&c, &t->pipeline, err));
}

static void trainer_end(trainer *t)
{
    slu_pipeline_close(t->pipeline);
    slu_store_close(t->store);
}

/* Event |i| of the stream: a function of |i| and |seed|. */
static void trainer_feed(trainer *t, uint64_t seed, int i)
{
    static const slu_partition part = {"t", 0};
    char id[16], of[16], user[16], item[16];
    slu_value values[4];
    slu_values fields[4];
    slu_rng r;
    slu_rng_seed(&r, seed ^ ((uint64_t)i << 20));
    int64_t time_us = T0 + i * 20 * SECOND;
    snprintf(id, sizeof id, "e%d", i);
    snprintf(of, sizeof of, "e%d", i - 1 - (int)slu_rng_below(&r, 8));
    snprintf(user, sizeof user, "u%d", (int)slu_rng_below(&r, 30));
    snprintf(item, sizeof item, "p%d", (int)slu_rng_below(&r, 60));
    bool step = i % 3 == 2;
    slu_event e = step ? sample_step(id, of, (uint32_t)slu_rng_below(&r, 2), time_us)
                       : sample_impression(schema, id, time_us, user, item, values, fields);
    slu_record record = {.kind = SLU_RECORD_EVENT, .offset = i, .arrival_us = time_us, .event = &e};
    OK(slu_pipeline_feed(t->pipeline, &part, &record, err));
}

/* ---- a scorer ---- */

typedef struct scorer {
    slu_model_table *table;
    slu_model_reader *reader;
    slu_delta_applier *applier;
    size_t at; /* next message */
} scorer;

static void scorer_begin(scorer *s, size_t at)
{
    OK(slu_model_table_new(served, slu_schema_tables(schema), dense_floats, 0, &s->table, err));
    s->reader = slu_model_reader_new(s->table);
    s->applier = slu_delta_applier_new(schema, s->table);
    ck_assert(s->reader && s->applier);
    s->at = at;
}

static void scorer_end(scorer *s)
{
    slu_delta_applier_free(s->applier);
    slu_model_reader_free(s->reader);
    slu_model_table_free(s->table);
}

/* Reads on up to message |to|. */
static void scorer_read(scorer *s, const topic *t, size_t to)
{
    for (; s->at < to; s->at++) {
        slu_error err = SLU_ERROR_INIT;
        const slu_buf *b = &t->m[s->at].bytes;
        int rc = slu_delta_apply(s->applier, b->data, b->len, &err);
        ck_assert_msg(rc >= 0 || rc == SLU_EAGAIN, "message %zu: %s", s->at, err.message);
    }
}

/* ---- both are one ---- */

typedef struct comparison {
    scorer *s;
    uint64_t rows;
} comparison;

static bool same_row(void *ctx, uint32_t table, uint64_t id, uint32_t count, uint32_t last_seen,
                     bool admitted, const float *v, uint32_t floats)
{
    comparison *c = ctx;
    (void)count, (void)last_seen, (void)floats;
    const float *row;
    slu_model_read_begin(c->s->reader);
    uint32_t found = slu_model_find_rows(c->s->reader, table, &id, 1, &row);
    ck_assert_msg(found == admitted, "table %u row %llu: admitted %d, scorer has %u", table,
                  (unsigned long long)id, admitted, found);
    if (found)
        ck_assert_msg(memcmp(row, v, served[table] * sizeof *v) == 0, "table %u row %llu differs", table,
                      (unsigned long long)id);
    slu_model_read_end(c->s->reader);
    c->rows += admitted;
    return true;
}

/* What the commit says that its rows add up to is so, and the last message says the same. */
static void expect_sums(trainer *t, uint64_t seed)
{
    slu_store_sums sums;
    OK(slu_store_sums_of(t->store, &sums, err));
    ck_assert(sums.recorded);
    ck_assert_uint_eq(sums.record_rows, sums.rows);
    ck_assert_msg(sums.record.lo == sums.row_sum.lo && sums.record.hi == sums.row_sum.hi,
                  "seed %llu: the rows add up to something else", (unsigned long long)seed);
    const slu_buf *last = &t->topic->m[t->topic->n - 1].bytes;
    Sluice__V1__ModelDelta *m = sluice__v1__model_delta__unpack(NULL, last->len, last->data);
    ck_assert_ptr_nonnull(m);
    ck_assert_uint_eq(m->version, sums.version);
    ck_assert_uint_eq(m->row_sum.len, SLU_SUM_BYTES);
    ck_assert_uint_eq(m->dense_digest.len, SLU_SUM_BYTES);
    slu_row_sum sent = slu_sum_read(m->row_sum.data);
    slu_hash128 dense = slu_sum_read(m->dense_digest.data);
    ck_assert(sent.lo == sums.row_sum.lo && sent.hi == sums.row_sum.hi);
    ck_assert(dense.lo == sums.dense_digest.lo && dense.hi == sums.dense_digest.hi);
    sluice__v1__model_delta__free_unpacked(m, NULL);
}

static void expect_same(trainer *t, scorer *s, uint64_t seed)
{
    slu_pipeline_stats stats;
    slu_pipeline_get_stats(t->pipeline, &stats);
    slu_model_view view = slu_model_current(s->table);
    ck_assert_msg(view.version == stats.version, "seed %llu: trainer at version %llu, scorer at %llu",
                  (unsigned long long)seed, (unsigned long long)stats.version,
                  (unsigned long long)view.version);
    ck_assert_int_eq(view.learned_through_us, stats.learned_through_us);
    float *dense = malloc(dense_floats * sizeof *dense);
    OK(slu_state_get_floats(t->store, "params", dense, dense_floats, err));
    ck_assert_msg(memcmp(dense, view.dense, dense_floats * sizeof *dense) == 0, "seed %llu: dense differs",
                  (unsigned long long)seed);
    free(dense);
    comparison c = {.s = s};
    OK(slu_row_scan(t->store, same_row, &c, err));
    ck_assert_uint_eq(c.rows, slu_model_rows(s->table));
    expect_sums(t, seed);
}

/* ---- histories ---- */

/* True when that was the last one of a base. */
static bool base_piece(trainer *t)
{
    slu_error err = SLU_ERROR_INIT;
    bool going = slu_pipeline_base_going(t->pipeline);
    int rc = slu_pipeline_base_next(t->pipeline, &err);
    ck_assert_msg(rc >= 0, "%s", err.message);
    ck_assert_int_eq(rc, slu_pipeline_base_going(t->pipeline));
    return going && !rc;
}

START_TEST(test_any_history)
{
    const uint64_t seed = 100 + (uint64_t)_i;
    slu_rng r;
    slu_rng_seed(&r, seed);
    topic topic = {0};
    trainer t = {.directory = sample_directory(), .topic = &topic};
    scorer follower, late;
    scorer_begin(&follower, 0);
    scorer_begin(&late, 0);
    trainer_begin(&t, 0);
    int committed = 0;
    unsigned bases = 0;
    for (int i = 0; i < EVENTS; i++) {
        trainer_feed(&t, seed, i);
        if (slu_rng_below(&r, 25) == 0) {
            OK(slu_pipeline_commit(t.pipeline, err));
            committed = i + 1;
        }
        if (slu_rng_below(&r, 150) == 0) {
            OK(slu_pipeline_publish_base(t.pipeline, err));
            committed = i + 1;
        }
        if (slu_rng_below(&r, 100) == 0) { /* one in pieces, while learning goes on */
            committed = slu_pipeline_base_going(t.pipeline) ? committed : i + 1;
            OK(slu_pipeline_base_begin(t.pipeline, err));
        }
        if (slu_rng_below(&r, 3) == 0)
            bases += base_piece(&t);
        if (slu_rng_below(&r, 400) == 0)
            OK(slu_pipeline_base_abandon(t.pipeline, err));
        if (slu_rng_below(&r, 10) == 0)
            topic_reach(&topic, topic.safe + slu_rng_below(&r, topic.n - topic.safe + 1));
        if (slu_rng_below(&r, 90) == 0) { /* kill -9, perhaps in the middle of a version's chunks */
            trainer_end(&t);
            topic_lose(&topic);
            trainer_begin(&t, (int)slu_rng_below(&r, 2));
            i = committed - 1;
        }
        if (slu_rng_below(&r, 5) == 0)
            scorer_read(&follower, &topic, follower.at + slu_rng_below(&r, topic.safe - follower.at + 1));
        if (slu_rng_below(&r, 200) == 0) { /* an empty scorer, of which the topic has only what is recent */
            scorer_end(&late);
            scorer_begin(&late, topic.safe - slu_rng_below(&r, topic.safe / 2 + 1));
        }
    }
    OK(slu_pipeline_commit(t.pipeline, err));
    while (slu_pipeline_base_going(t.pipeline))
        bases += base_piece(&t);
    ck_assert_uint_gt(bases, 2);
    topic_reach(&topic, topic.n);
    /* Whoever has read from the beginning never had to wait for a base. */
    scorer_read(&follower, &topic, topic.n);
    ck_assert_uint_eq(slu_delta_applier_counts(follower.applier).gaps, 0);
    ck_assert_uint_eq(slu_delta_applier_counts(follower.applier).refused, 0);
    expect_same(&t, &follower, seed);
    ck_assert_uint_gt(topic.tombstones, 100);
    /* And a base makes everybody current. */
    OK(slu_pipeline_publish_base(t.pipeline, err));
    topic_reach(&topic, topic.n);
    scorer_read(&follower, &topic, topic.n);
    scorer_read(&late, &topic, topic.n);
    expect_same(&t, &late, seed);
    expect_same(&t, &follower, seed);
    trainer_end(&t);
    scorer_end(&follower);
    scorer_end(&late);
    topic_free(&topic);
    sample_remove(t.directory);
}
END_TEST

static void learn(trainer *t, uint64_t seed, int from, int to)
{
    for (int i = from; i < to; i++) {
        trainer_feed(t, seed, i);
        if (i % 20 == 19)
            OK(slu_pipeline_commit(t->pipeline, err));
    }
}

/* The trainer's store is restored from a backup: the same lineage, but its versions start again from the
 * backup's. A scorer that was further ahead must not stay on the old branch, nor mix the two. */
START_TEST(test_restored_from_a_backup)
{
    topic topic = {0};
    trainer t = {.directory = sample_directory(), .topic = &topic};
    char *backup = sample_directory(), command[300];
    scorer s;
    scorer_begin(&s, 0);
    trainer_begin(&t, 0);
    learn(&t, 1, 0, 400);
    topic_reach(&topic, topic.n);
    trainer_end(&t);
    snprintf(command, sizeof command, "cp -r %s/. %s", t.directory, backup);
    ck_assert_int_eq(system(command), 0);
    trainer_begin(&t, 0);
    learn(&t, 1, 400, 800);
    topic_reach(&topic, topic.n);
    trainer_end(&t);
    scorer_read(&s, &topic, topic.n);
    uint64_t ahead = slu_delta_applier_position(s.applier).version;

    snprintf(command, sizeof command, "rm -rf %s && cp -r %s %s", t.directory, backup, t.directory);
    ck_assert_int_eq(system(command), 0);
    topic_lose(&topic);
    trainer_begin(&t, 0);
    /* Other events than before, and like the daemon a base after the first commit. */
    trainer_feed(&t, 2, 400);
    OK(slu_pipeline_commit(t.pipeline, err));
    OK(slu_pipeline_publish_base(t.pipeline, err));
    topic_reach(&topic, topic.n);
    scorer_read(&s, &topic, topic.n);
    ck_assert_uint_lt(slu_delta_applier_position(s.applier).version, ahead);
    expect_same(&t, &s, 2);
    learn(&t, 2, 401, 1000);
    OK(slu_pipeline_commit(t.pipeline, err));
    topic_reach(&topic, topic.n);
    scorer_read(&s, &topic, topic.n);
    ck_assert_uint_gt(slu_delta_applier_position(s.applier).version, ahead);
    expect_same(&t, &s, 2);

    /* One that reads the topic once more from its beginning ends there too. */
    scorer again;
    scorer_begin(&again, 0);
    scorer_read(&again, &topic, topic.n);
    expect_same(&t, &again, 2);
    /* And one that goes back in the topic does not fall for old bases. */
    s.at = 0;
    scorer_read(&s, &topic, topic.n);
    expect_same(&t, &s, 2);
    scorer_end(&again);
    scorer_end(&s);
    trainer_end(&t);
    topic_free(&topic);
    sample_remove(backup);
    sample_remove(t.directory);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("trainer_to_scorer");
    TCase *c = tcase_create("trainer_to_scorer");
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_loop_test(c, test_any_history, 0, 6);
    tcase_add_test(c, test_restored_from_a_backup);
    suite_add_tcase(s, c);
    return sample_run(s);
}
