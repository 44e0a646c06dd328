/* The pipeline as a pure function of its records: a random stream with disorder, duplicates, orphans, late
 * and broken events is fed under different histories (commits here and there, written at once or behind,
 * crashes that lose what was not committed), and must always end in the same bytes. */
#include "store/row_scan.h"
#include "store/row_table.h"
#include "tests/pipeline_sample.h"
#include "trainer/oracle.h"
#include "trainer/pipeline.h"
#include <math.h>

#define SEED       7
#define RECORDS    3000
#define PARTITIONS 3

typedef struct stored_record {
    slu_record record; /* bytes are owned */
    slu_buf bytes;
} stored_record;

static slu_options *options;
static slu_schema *schema;
static stored_record *records; /* (RECORDS) */

static bool threads; /* commits are written behind */

static const slu_partition partitions[PARTITIONS] = {{"t", 0}, {"t", 1}, {"t", 2}};

/* ---- a stream ---- */

static void put_event(stored_record *out, const slu_event *e, slu_encoding encoding)
{
    ck_assert_int_eq(slu_event_encode(schema, encoding, e, &out->bytes), 0);
}

static void make_impression(stored_record *out, slu_rng *r, int n, int64_t time_us, slu_encoding encoding)
{
    char id[32], user[16], item[16];
    slu_value values[4];
    slu_values fields[4];
    snprintf(id, sizeof id, "i%d", n);
    snprintf(user, sizeof user, "u%d", (int)slu_rng_below(r, 40));
    snprintf(item, sizeof item, "p%d", (int)slu_rng_below(r, 20));
    slu_event e = sample_impression(schema, id, time_us, user, item, values, fields);
    put_event(out, &e, encoding);
}

static void make_step(stored_record *out, slu_rng *r, int of, int64_t time_us, slu_encoding encoding)
{
    char id[32], impression[32];
    uint32_t step = (uint32_t)slu_rng_below(r, 2);
    snprintf(impression, sizeof impression, "i%d", of);
    snprintf(id, sizeof id, "e%d-%u", of, step);
    slu_event e = sample_step(id, impression, step, time_us);
    put_event(out, &e, encoding);
}

static void make_stream(void)
{
    slu_rng r;
    slu_rng_seed(&r, SEED);
    records = calloc(RECORDS, sizeof *records);
    int64_t offsets[PARTITIONS] = {0}, now = T0;
    int impressions = 0;
    for (int i = 0; i < RECORDS; i++) {
        stored_record *out = &records[i];
        slu_encoding encoding = slu_rng_below(&r, 2) ? SLU_ENCODING_JSON : SLU_ENCODING_PROTOBUF;
        uint32_t part = (uint32_t)slu_rng_below(&r, PARTITIONS), kind = (uint32_t)slu_rng_below(&r, 100);
        now += (int64_t)slu_rng_below(&r, 20 * SECOND);
        int64_t time_us = now - (int64_t)slu_rng_below(&r, 3 * SECOND);
        int of = impressions ? (int)slu_rng_below(&r, (uint64_t)impressions + 5)
                             : 0; /* some are not there (yet) */
        if (kind < 55)
            make_impression(out, &r, impressions++, time_us, encoding);
        else if (kind < 58 && impressions) /* a duplicate */
            make_impression(out, &r, of < impressions ? of : 0, time_us, encoding);
        else if (kind < 95)
            make_step(out, &r, of, time_us, encoding);
        else if (kind < 96) /* far ahead */
            make_impression(out, &r, impressions++, time_us + 24 * HOUR, encoding);
        else if (kind < 97) /* far behind */
            make_impression(out, &r, impressions++, time_us - 24 * HOUR, encoding);
        else
            slu_put_bytes(&out->bytes, "\xff\xfe garbage", 10);
        out->record = (slu_record){.kind = SLU_RECORD_EVENT,
                                   .partition = part,
                                   .offset = offsets[part]++,
                                   .arrival_us = now,
                                   .bytes = out->bytes.data,
                                   .len = out->bytes.len,
                                   .encoding = encoding};
        /* What only a clock knows comes as records too. */
        if (kind == 98)
            out->record = (slu_record){.kind = SLU_RECORD_FLUSH, .partition = part, .offset = -1};
        if (kind == 99)
            out->record = (slu_record){.kind = SLU_RECORD_IDLE, .partition = part, .offset = -1};
    }
}

static void set_up(void)
{
    options = sample_options(NULL, 0);
    schema = sample_schema(options);
    make_stream();
}

static void tear_down(void)
{
    for (int i = 0; i < RECORDS; i++)
        slu_buf_free(&records[i].bytes);
    free(records);
    slu_schema_free(schema);
    slu_options_free(options);
}

/* ---- a run with a history ---- */

typedef struct life {
    char *directory;
    slu_store *store;
    slu_pipeline *pipeline;
    uint32_t turn; /* the source's numbers of the partitions are turned by this: other ones in every life */
} life;

static void begin(life *l, const slu_options *o)
{
    l->store = sample_store(l->directory, schema);
    slu_pipeline_config c = {.options = o,
                             .schema = schema,
                             .store = l->store,
                             .background = threads,
                             .clock = &slu_system_clock,
                             .eval_from_us = INT64_MIN};
    OK(slu_pipeline_open(&c, &l->pipeline, err));
}

static void end(life *l)
{
    slu_pipeline_close(l->pipeline);
    slu_store_close(l->store);
}

static void check_balance(life *l)
{
    slu_pipeline_stats s;
    slu_pipeline_refresh(l->pipeline);
    slu_pipeline_get_stats(l->pipeline, &s);
    ck_assert_uint_eq(s.events.received, s.events.learned + s.events.waiting + s.events.dead);
}

static void feed(life *l, int i)
{
    slu_record r = records[i].record;
    const slu_partition *part = &partitions[r.partition];
    r.partition = (r.partition + l->turn) % PARTITIONS;
    OK(slu_pipeline_feed(l->pipeline, part, &r, err));
}

typedef struct outcome {
    char digest[33];
    slu_pipeline_stats stats;
} outcome;

/* With threads the commit is begun and settles when it likes: records are fed meanwhile. */
static void commit(life *l)
{
    if (threads)
        OK(slu_pipeline_commit_begin(l->pipeline, err));
    else
        OK(slu_pipeline_commit(l->pipeline, err));
}

static void poll_commit(life *l)
{
    slu_error err = SLU_ERROR_INIT;
    if (threads)
        ck_assert_msg(slu_pipeline_commit_poll(l->pipeline, &err) >= 0, "%s", err.message);
}

/* Feeds the stream; every record is followed by a commit with chance 1/commit_one_in, and by a crash
 * (everything since the last commit is lost and fed again) with chance 1/crash_one_in; 0: never. */
static outcome run(const slu_options *o, uint32_t commit_one_in, uint32_t crash_one_in)
{
    slu_rng r;
    slu_rng_seed(&r, SEED + commit_one_in * 31 + crash_one_in);
    life l = {.directory = sample_directory()};
    begin(&l, o);
    for (uint32_t i = 0; i < PARTITIONS; i++)
        OK(slu_pipeline_feed(l.pipeline, &partitions[i],
                             &(slu_record){.kind = SLU_RECORD_PARTITION, .partition = i, .offset = -1}, err));
    int committed = 0;
    for (int i = 0; i < RECORDS; i++) {
        feed(&l, i);
        poll_commit(&l);
        if (i % 50 == 0)
            check_balance(&l);
        if (commit_one_in && slu_rng_below(&r, commit_one_in) == 0 && !slu_pipeline_committing(l.pipeline)) {
            commit(&l);
            committed = i + 1; /* also when it is still being written: closing waits for that */
        }
        if (crash_one_in && committed && slu_rng_below(&r, crash_one_in) == 0) {
            end(&l);
            begin(&l, o);
            l.turn++;
            i = committed - 1;
        }
    }
    OK(slu_pipeline_finish(l.pipeline, err));
    outcome out;
    OK(slu_pipeline_digest(l.pipeline, out.digest, err));
    slu_pipeline_get_stats(l.pipeline, &out.stats);
    end(&l);
    sample_remove(l.directory);
    return out;
}

START_TEST(test_history_does_not_matter)
{
    outcome once = run(options, 0, 0);
    ck_assert_uint_gt(once.stats.events.learned, 1000);
    ck_assert_uint_eq(once.stats.events.waiting, 0);
    struct {
        uint32_t commit, crash;
        bool threads;
    } histories[] = {{1, 0, false}, {7, 0, true},   {100, 0, false},
                     {5, 40, true}, {5, 40, false}, {60, 100, true}};
    for (size_t i = 0; i < sizeof histories / sizeof *histories; i++) {
        threads = histories[i].threads;
        outcome other = run(options, histories[i].commit, histories[i].crash);
        ck_assert_msg(strcmp(once.digest, other.digest) == 0,
                      "seed %d, threads %d, commit 1 in %u, crash 1 in %u: %s against %s", SEED, threads,
                      histories[i].commit, histories[i].crash, other.digest, once.digest);
        ck_assert_int_eq(memcmp(&once.stats.events, &other.stats.events, sizeof once.stats.events), 0);
    }
}
END_TEST

START_TEST(test_history_does_not_matter_with_window_labels)
{
    slu_options *o = sample_options((const char *[]){"training.label_policy=window"}, 1);
    outcome once = run(o, 0, 0), other = run(o, 9, 50);
    ck_assert_str_eq(once.digest, other.digest);
    threads = true;
    outcome behind = run(o, 9, 50);
    ck_assert_str_eq(once.digest, behind.digest);
    slu_options_free(o);
}
END_TEST

/* Rows that expire are a function of the records too, whatever was committed, lost or evicted, and when. */
START_TEST(test_history_does_not_matter_when_rows_expire)
{
    const char *sets[] = {"features.user.ttl=10m", "features.item.ttl=5m", "features.user_x_item.ttl=1h",
                          "features.item.admit_after=3", "store.cache=1MiB"};
    slu_options *forever = sample_options(sets + 3, 1), *o = sample_options(sets, 4),
                *small = sample_options(sets, 5);
    outcome all = run(forever, 0, 0);
    slu_schema *keep = schema; /* tells the times to live */
    schema = sample_schema(o);
    outcome once = run(o, 0, 0);
    ck_assert_uint_eq(all.stats.rows_expired, 0);
    ck_assert_uint_gt(once.stats.rows_expired, 500);
    ck_assert_str_ne(all.digest, once.digest);
    struct {
        const slu_options *o;
        uint32_t commit, crash;
        bool threads;
    } histories[] = {{o, 1, 0, false},
                     {small, 7, 0, true},
                     {o, 5, 40, true},
                     {small, 60, 100, true},
                     {small, 60, 100, false}};
    for (size_t i = 0; i < sizeof histories / sizeof *histories; i++) {
        threads = histories[i].threads;
        outcome other = run(histories[i].o, histories[i].commit, histories[i].crash);
        ck_assert_msg(strcmp(once.digest, other.digest) == 0,
                      "seed %d, threads %d, commit 1 in %u, crash 1 in %u: %s against %s", SEED, threads,
                      histories[i].commit, histories[i].crash, other.digest, once.digest);
    }
    slu_schema_free(schema);
    schema = keep;
    slu_options_free(forever);
    slu_options_free(o);
    slu_options_free(small);
}
END_TEST

START_TEST(test_order_does_matter)
{
    outcome before = run(options, 0, 0);
    stored_record keep = records[100];
    records[100] = records[101];
    records[101] = keep;
    outcome after = run(options, 0, 0);
    ck_assert_str_ne(before.digest, after.digest);
}
END_TEST

START_TEST(test_reasons_are_counted)
{
    outcome o = run(options, 0, 0);
    const uint64_t *dead = o.stats.events.dead_by_reason;
    uint64_t sum = 0;
    for (int i = 0; i < SLU_DEAD_REASONS; i++)
        sum += dead[i];
    ck_assert_uint_eq(sum, o.stats.events.dead);
    ck_assert_uint_gt(dead[SLU_DEAD_MALFORMED], 0);
    ck_assert_uint_gt(dead[SLU_DEAD_FUTURE], 0);
    ck_assert_uint_gt(dead[SLU_DEAD_LATE], 0);
    ck_assert_uint_gt(dead[SLU_DEAD_ORPHAN], 0);
    ck_assert_uint_gt(dead[SLU_DEAD_DUPLICATE], 0);
}
END_TEST

START_TEST(test_too_large)
{
    life l = {.directory = sample_directory()};
    begin(&l, options);
    size_t n = 10u << 20;
    char *big = calloc(1, n);
    slu_record r = {.kind = SLU_RECORD_EVENT, .bytes = big, .len = n, .arrival_us = T0};
    OK(slu_pipeline_feed(l.pipeline, &partitions[0], &r, err));
    OK(slu_pipeline_commit(l.pipeline, err));
    slu_pipeline_stats s;
    slu_pipeline_get_stats(l.pipeline, &s);
    ck_assert_uint_eq(s.events.dead_by_reason[SLU_DEAD_TOO_LARGE], 1);
    end(&l);
    sample_remove(l.directory);
    free(big);
}
END_TEST

/* A source over the stream, for reading ahead. */
typedef struct list_source {
    slu_source base;
    int at;
} list_source;

static int list_next(slu_source *s, int timeout_ms, slu_record *out, slu_error *err)
{
    list_source *l = (list_source *)s;
    (void)timeout_ms, (void)err;
    if (l->at == RECORDS)
        return SLU_ECLOSED;
    *out = records[l->at++].record;
    return 1;
}

START_TEST(test_oracle_knows_the_end)
{
    static const slu_source_ops ops = {.next = list_next};
    list_source source = {{&ops}, 0};
    slu_options *o = sample_options((const char *[]){"training.label_policy=oracle"}, 1);
    slu_oracle *oracle;
    OK(slu_oracle_read(&source.base, o, schema, &oracle, err));
    char *directory = sample_directory();
    slu_store *store = sample_store(directory, schema);
    slu_pipeline *p;
    slu_pipeline_config c = {.options = o,
                             .schema = schema,
                             .store = store,
                             .clock = &slu_system_clock,
                             .eval_from_us = INT64_MIN,
                             .oracle = oracle};
    OK(slu_pipeline_open(&c, &p, err));
    for (int i = 0; i < RECORDS; i++)
        OK(slu_pipeline_feed(p, &partitions[records[i].record.partition], &records[i].record, err));
    OK(slu_pipeline_finish(p, err));
    slu_pipeline_stats s;
    slu_pipeline_get_stats(p, &s);
    ck_assert_uint_gt(s.metrics[0].positives, 0);
    /* One sample an impression: nothing is learned twice. */
    ck_assert_uint_eq(s.samples, s.metrics[0].count);
    slu_pipeline_close(p);
    slu_store_close(store);
    slu_oracle_free(oracle);
    sample_remove(directory);
    slu_options_free(o);
}
END_TEST

START_TEST(test_another_policy_is_refused)
{
    life l = {.directory = sample_directory()};
    begin(&l, options);
    feed(&l, 0);
    OK(slu_pipeline_commit(l.pipeline, err));
    end(&l);
    slu_options *o = sample_options((const char *[]){"training.label_policy=window"}, 1);
    l.store = sample_store(l.directory, schema);
    slu_pipeline_config c = {.options = o, .schema = schema, .store = l.store, .clock = &slu_system_clock};
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_pipeline_open(&c, &l.pipeline, &err), SLU_ECONFIG);
    ck_assert_ptr_nonnull(strstr(err.message, "label_policy"));
    slu_store_close(l.store);
    sample_remove(l.directory);
    slu_options_free(o);
}
END_TEST

/* What waited in the batch fills a smaller one to the brim. */
START_TEST(test_smaller_batches)
{
    life l = {.directory = sample_directory()};
    begin(&l, options);
    slu_pipeline_stats s;
    int i = 0;
    do {
        feed(&l, i++);
        slu_pipeline_refresh(l.pipeline);
        slu_pipeline_get_stats(l.pipeline, &s);
    } while (s.pending_samples != 3);
    OK(slu_pipeline_commit(l.pipeline, err));
    end(&l);
    slu_options *o = sample_options((const char *[]){"training.batch_size=3"}, 1);
    begin(&l, o);
    for (; i < 200; i++)
        feed(&l, i);
    OK(slu_pipeline_finish(l.pipeline, err));
    check_balance(&l);
    end(&l);
    sample_remove(l.directory);
    slu_options_free(o);
}
END_TEST

START_TEST(test_a_topic_that_left_holds_nothing)
{
    life l = {.directory = sample_directory()};
    begin(&l, options);
    char id[16];
    slu_pipeline_stats s;
    for (int i = 0; i < 20; i++) {
        slu_value values[4];
        slu_values fields[4];
        if (i == 10) { /* a restart under a config without topic "left" */
            OK(slu_pipeline_commit(l.pipeline, err));
            end(&l);
            begin(&l, options);
        }
        snprintf(id, sizeof id, "i%d", i);
        slu_event e = sample_impression(schema, id, T0 + i * HOUR, "u", "p", values, fields);
        slu_partition part = {i == 0 ? "left" : "t", 0};
        slu_record r = {.kind = SLU_RECORD_EVENT, .partition = i == 0, .offset = i, .event = &e};
        OK(slu_pipeline_feed(l.pipeline, &part, &r, err));
    }
    slu_pipeline_refresh(l.pipeline);
    slu_pipeline_get_stats(l.pipeline, &s);
    ck_assert_int_eq(s.watermark_us, T0 + 19 * HOUR - SECOND);
    end(&l);
    sample_remove(l.directory);
}
END_TEST

/* More impressions wait than the cache holds, so steps find theirs in the store: that is no reason to commit
 * after each of them. */
START_TEST(test_a_full_cache_is_no_reason_to_commit)
{
    const char *sets[] = {"join.cache=1MiB"};
    slu_options *o = sample_options(sets, 1);
    life l = {.directory = sample_directory()};
    begin(&l, o);
    char id[16], step_id[16];
    int64_t offset = 0;
    for (int i = 0; i < 12000; i++) {
        slu_value values[4];
        slu_values fields[4];
        snprintf(id, sizeof id, "i%d", i);
        slu_event e = sample_impression(schema, id, T0 + i, "u", "p", values, fields);
        slu_record r = {.kind = SLU_RECORD_EVENT, .offset = offset++, .event = &e};
        OK(slu_pipeline_feed(l.pipeline, &partitions[0], &r, err));
        if (slu_pipeline_commit_due(l.pipeline))
            OK(slu_pipeline_commit(l.pipeline, err));
    }
    OK(slu_pipeline_commit(l.pipeline, err));
    for (int i = 0; i < 20; i++) {
        snprintf(id, sizeof id, "i%d", i);
        snprintf(step_id, sizeof step_id, "e%d", i);
        slu_event e = sample_step(step_id, id, 0, T0 + i + 5);
        slu_record r = {.kind = SLU_RECORD_EVENT, .offset = offset++, .event = &e};
        OK(slu_pipeline_feed(l.pipeline, &partitions[0], &r, err));
        ck_assert(!slu_pipeline_commit_due(l.pipeline));
    }
    slu_pipeline_stats stats;
    slu_pipeline_refresh(l.pipeline);
    slu_pipeline_get_stats(l.pipeline, &stats);
    ck_assert_uint_eq(stats.events.waiting, 12020);
    ck_assert_uint_le(stats.commits, 20);
    end(&l);
    sample_remove(l.directory);
    slu_options_free(o);
}
END_TEST

typedef struct seen_rows {
    uint32_t users, most;
} seen_rows;

static bool see_row(void *ctx, uint32_t table, uint64_t id, uint32_t count, uint32_t last_seen, bool admitted,
                    const float *v, uint32_t floats)
{
    (void)id, (void)last_seen, (void)admitted, (void)v, (void)floats;
    seen_rows *seen = ctx;
    if (!strcmp(slu_schema_table(schema, table)->name, "user")) {
        seen->users++;
        seen->most = count > seen->most ? count : seen->most;
    }
    return true;
}

static seen_rows users_stored(life *l)
{
    seen_rows seen = {0};
    OK(slu_pipeline_commit(l->pipeline, err));
    OK(slu_row_scan(l->store, see_row, &seen, err));
    return seen;
}

static void feed_event(life *l, const slu_event *e, int64_t offset)
{
    slu_record r = {.kind = SLU_RECORD_EVENT, .offset = offset, .event = e};
    OK(slu_pipeline_feed(l->pipeline, &partitions[0], &r, err));
}

/* A label that comes when the user's row has expired is learned by what is left of its impression, and brings
 * no row back; a restart in between changes nothing about that, and seen again the user is new. */
START_TEST(test_a_late_label_does_not_revive_a_row)
{
    slu_options *o = sample_options((const char *[]){"features.user.ttl=5m", "training.batch_size=1"}, 2);
    slu_schema *keep = schema;
    schema = sample_schema(o);
    life l = {.directory = sample_directory()};
    begin(&l, o);
    slu_value values[4];
    slu_values fields[4];
    slu_event first = sample_impression(schema, "a", T0, "gone", "p", values, fields);
    feed_event(&l, &first, 0);
    ck_assert_uint_eq(users_stored(&l).users, 1);
    for (int i = 0; i < 2; i++) { /* event time passes the row's end; the second batch sees it */
        slu_event other =
            sample_impression(schema, i ? "c" : "b", T0 + (6 + i) * MINUTE, "other", "p", values, fields);
        feed_event(&l, &other, 1 + i);
    }
    slu_pipeline_stats s;
    slu_pipeline_refresh(l.pipeline);
    slu_pipeline_get_stats(l.pipeline, &s);
    ck_assert_uint_eq(s.rows_expired, 1);
    uint64_t samples = s.samples;
    for (int restart = _i; restart-- > 0;) {
        users_stored(&l);
        end(&l);
        begin(&l, o);
        samples = 0;
    }
    slu_event click = sample_step("k", "a", 0, T0 + 8 * MINUTE);
    feed_event(&l, &click, 3);
    slu_pipeline_refresh(l.pipeline);
    slu_pipeline_get_stats(l.pipeline, &s);
    ck_assert_uint_gt(s.samples, samples); /* it was learned */
    ck_assert_uint_eq(s.events.dead, 0);
    seen_rows seen = users_stored(&l);
    ck_assert_uint_eq(seen.users, 1);
    ck_assert_uint_eq(seen.most, 2); /* "other" */
    slu_event again = sample_impression(schema, "d", T0 + 9 * MINUTE, "gone", "p", values, fields);
    for (int i = 0; i < 3; i++) {
        again.id = again.impression_id = sample_span(i == 0 ? "d" : i == 1 ? "e" : "f");
        feed_event(&l, &again, 4 + i);
    }
    seen = users_stored(&l);
    ck_assert_uint_eq(seen.users, 2);
    ck_assert_uint_eq(seen.most, 3); /* "gone", counted anew */
    end(&l);
    sample_remove(l.directory);
    slu_schema_free(schema);
    schema = keep;
    slu_options_free(o);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pipeline");
    TCase *c = tcase_create("pipeline");
    tcase_set_timeout(c, 290);
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, test_history_does_not_matter);
    tcase_add_test(c, test_history_does_not_matter_with_window_labels);
    tcase_add_test(c, test_history_does_not_matter_when_rows_expire);
    tcase_add_test(c, test_order_does_matter);
    tcase_add_test(c, test_reasons_are_counted);
    tcase_add_test(c, test_too_large);
    tcase_add_test(c, test_oracle_knows_the_end);
    tcase_add_test(c, test_another_policy_is_refused);
    tcase_add_test(c, test_smaller_batches);
    tcase_add_test(c, test_a_topic_that_left_holds_nothing);
    tcase_add_test(c, test_a_full_cache_is_no_reason_to_commit);
    tcase_add_loop_test(c, test_a_late_label_does_not_revive_a_row, 0, 2);
    suite_add_tcase(s, c);
    return sample_run(s);
}
