/* Event time under clocks that are wrong. A simulated world with a true time feeds the pipeline as the Kafka
 * source would: partitions whose producers are ahead, behind, in the wrong unit or broken, stamped by the
 * broker or by the producer itself. Whatever they do, event time stays within what the configuration allows.
 */
#include "tests/pipeline_sample.h"
#include "trainer/pipeline.h"
#include "trainer/watermark.h"

#define DAY        (24 * HOUR)
#define YEAR       (365 * DAY)
#define LATENESS   (30 * SECOND)
#define MAX_FUTURE (5 * MINUTE)
#define MAX_BEHIND HOUR
#define MOST_PARTS 6

static slu_options *options;
static slu_schema *schema;

static void set_up(void)
{
    options = sample_options((const char *[]){"join.allowed_lateness=30s", "join.max_future=5m",
                                              "join.max_behind=1h", "training.max_batch_delay=1m"},
                             4);
    schema = sample_schema(options);
}

static void tear_down(void)
{
    slu_schema_free(schema);
    slu_options_free(options);
}

/* ---- a world ---- */

typedef enum fault { SOUND, AHEAD, FAR_AHEAD, BEHIND, FAR_BEHIND, IN_SECONDS, GARBAGE, FAULTS } fault;

typedef struct part {
    fault fault;
    bool stamped_by_producer;
    int64_t offset, last_end_us, told_end_us;
} part;

typedef struct world {
    char *directory;
    slu_store *store;
    slu_pipeline *pipeline;
    slu_buf letters; /* all dead letters, a line each */
    part parts[MOST_PARTS];
    uint32_t n;
    int64_t now_us, told_us;
    int events;
} world;

static void take_letter(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len)
{
    world *w = ctx;
    (void)ch, (void)sequence;
    slu_put_bytes(&w->letters, message, len);
    slu_put_u8(&w->letters, '\n');
}
static void no_base(void *ctx, const void *message, size_t len)
{
    (void)ctx, (void)message, (void)len;
}
static uint64_t none_acked(void *ctx, slu_channel ch)
{
    (void)ctx, (void)ch;
    return 0;
}

static slu_partition name_of(uint32_t i)
{
    return (slu_partition){"t", (int32_t)i};
}

static void feed(world *w, slu_record r)
{
    slu_partition p = name_of(r.partition);
    OK(slu_pipeline_feed(w->pipeline, &p, &r, err));
}

static void create(world *w, uint32_t n)
{
    *w = (world){.directory = sample_directory(), .n = n, .now_us = T0 + YEAR};
    w->store = sample_store(w->directory, schema);
    slu_sink sink = {.send = take_letter, .send_base = no_base, .acked = none_acked, .ctx = w};
    slu_pipeline_config c = {.options = options,
                             .schema = schema,
                             .store = w->store,
                             .sink = &sink,
                             .clock = &slu_system_clock,
                             .eval_from_us = INT64_MIN};
    OK(slu_pipeline_open(&c, &w->pipeline, err));
    for (uint32_t i = 0; i < n; i++)
        feed(w, (slu_record){.kind = SLU_RECORD_PARTITION, .partition = i, .offset = -1});
}

static slu_pipeline_stats stats_of(world *w)
{
    slu_pipeline_stats s;
    slu_pipeline_refresh(w->pipeline);
    slu_pipeline_get_stats(w->pipeline, &s);
    return s;
}

static void destroy(world *w)
{
    slu_pipeline_close(w->pipeline);
    slu_store_close(w->store);
    slu_buf_free(&w->letters);
    sample_remove(w->directory);
}

static int64_t clock_of(fault f, int64_t true_us)
{
    switch (f) {
    case AHEAD:
        return true_us + 3 * MINUTE;
    case FAR_AHEAD:
        return true_us + YEAR;
    case BEHIND:
        return true_us - 30 * MINUTE;
    case FAR_BEHIND:
        return true_us - YEAR;
    case IN_SECONDS:
        return true_us / 1000000;
    default:
        return true_us;
    }
}

/* What trainer/kafka_source.c tells of our clock before a message. */
static void tell_clock(world *w, uint32_t i, int64_t stamp_us, int64_t our_us)
{
    part *p = &w->parts[i];
    if ((!w->told_us || stamp_us > w->told_us + SLU_CLOCK_GRAIN_US) &&
        our_us >= w->told_us + SLU_CLOCK_GRAIN_US) {
        w->told_us = our_us;
        feed(w, (slu_record){.kind = SLU_RECORD_CLOCK, .partition = i, .offset = -1, .arrival_us = our_us});
    }
    if (stamp_us < p->last_end_us && p->last_end_us - p->told_end_us >= SLU_CLOCK_GRAIN_US) {
        p->told_end_us = p->last_end_us;
        feed(w, (slu_record){
                    .kind = SLU_RECORD_END, .partition = i, .offset = -1, .arrival_us = p->last_end_us});
    }
}

/* An impression that was written at |true_us| (event time |time_us|) and is read while our clock says
 * |our_us|. */
static void impression(world *w, uint32_t i, int64_t true_us, int64_t time_us, int64_t our_us)
{
    part *p = &w->parts[i];
    char id[32];
    slu_value values[4];
    slu_values fields[4];
    int64_t stamp =
        p->stamped_by_producer ? clock_of(p->fault == IN_SECONDS ? SOUND : p->fault, true_us) : true_us;
    snprintf(id, sizeof id, "i%d", w->events++);
    slu_event e = sample_impression(schema, id, time_us, "u", "p", values, fields);
    slu_record r = {
        .kind = SLU_RECORD_EVENT, .partition = i, .offset = p->offset++, .arrival_us = stamp, .event = &e};
    if (p->fault == GARBAGE) {
        r.event = NULL;
        r.bytes = "?";
        r.len = 1;
    }
    tell_clock(w, i, stamp, our_us);
    feed(w, r);
}

/* ---- the property ---- */

static bool any_sound(const world *w)
{
    for (uint32_t i = 0; i < w->n; i++)
        if (w->parts[i].fault == SOUND || w->parts[i].fault == AHEAD || w->parts[i].fault == BEHIND)
            return true;
    return false;
}

static void live(uint64_t seed, int64_t hours)
{
    slu_rng r;
    slu_rng_seed(&r, seed);
    world w;
    create(&w, 1 + (uint32_t)slu_rng_below(&r, MOST_PARTS));
    for (uint32_t i = 0; i < w.n; i++)
        w.parts[i] =
            (part){.fault = (fault)slu_rng_below(&r, FAULTS), .stamped_by_producer = slu_rng_below(&r, 2)};
    int64_t began = w.now_us, watermark = INT64_MIN;
    while (w.now_us < began + hours * HOUR) {
        uint32_t i = (uint32_t)slu_rng_below(&r, w.n);
        w.now_us += (int64_t)slu_rng_below(&r, 20 * SECOND);
        if (slu_rng_below(&r, 2000) == 0) /* a clock is mended, or breaks */
            w.parts[i].fault = (fault)slu_rng_below(&r, FAULTS);
        int64_t made = w.now_us - (int64_t)slu_rng_below(&r, LATENESS);
        impression(&w, i, w.now_us, clock_of(w.parts[i].fault, made), w.now_us);
        w.parts[i].last_end_us = w.now_us;
        slu_pipeline_stats s = stats_of(&w);
        ck_assert_msg(s.watermark_us >= watermark, "seed %d: event time went backwards", (int)seed);
        watermark = s.watermark_us;
        ck_assert_msg(watermark == INT64_MIN ||
                          watermark <= w.now_us + MAX_FUTURE + SLU_CLOCK_GRAIN_US - LATENESS,
                      "seed %d: event time is ahead of what join.max_future allows", (int)seed);
        ck_assert_msg(s.events.received == s.events.learned + s.events.waiting + s.events.dead, "seed %d",
                      (int)seed);
        if (slu_rng_below(&r, 500) == 0)
            OK(slu_pipeline_commit(w.pipeline, err));
    }
    slu_pipeline_stats s = stats_of(&w);
    bool sound = any_sound(&w);
    /* A fault may be new; the bound holds once it has lasted as long as max_behind. */
    int64_t settle = w.now_us + 2 * MAX_BEHIND;
    while (sound && w.now_us < settle)
        for (uint32_t i = 0; i < w.n; i++) {
            w.now_us += 5 * SECOND;
            impression(&w, i, w.now_us, clock_of(w.parts[i].fault, w.now_us), w.now_us);
            w.parts[i].last_end_us = w.now_us;
        }
    s = stats_of(&w);
    if (sound) {
        int64_t most = MAX_BEHIND + LATENESS + w.n * 5 * SECOND;
        ck_assert_msg(s.watermark_us >= w.now_us - most,
                      "seed %d: event time is %lld s behind, %lld are allowed", (int)seed,
                      (long long)((w.now_us - s.watermark_us) / SECOND), (long long)(most / SECOND));
        /* So what waits is what came within the longest window and that. */
        ck_assert_uint_le(s.events.waiting, (uint64_t)((2 * HOUR + most + MAX_FUTURE) / (5 * SECOND)) + 1);
    }
    OK(slu_pipeline_commit(w.pipeline, err));
    destroy(&w);
}

START_TEST(test_any_clocks)
{
    for (uint64_t seed = 1; seed <= 25; seed++)
        live(seed, 6);
}
END_TEST

/* ---- by hand ---- */

/* Days of backlog, partition by partition, with broken messages in it: old events that arrived when they were
 * made are no wrong clock, and none is lost. */
START_TEST(test_backlog_loses_nothing)
{
    for (int producers = 0; producers < 2; producers++) {
        world w;
        create(&w, 3);
        int good = 0, bad = 0;
        for (uint32_t i = 0; i < w.n; i++) {
            w.parts[i].stamped_by_producer = producers;
            for (int64_t t = w.now_us - 3 * DAY; t < w.now_us; t += 10 * MINUTE) {
                int64_t hour = (t - (w.now_us - 3 * DAY)) / HOUR;
                bool broken = i > 0 && (hour < 1 || (hour > 20 && hour < 26));
                w.parts[i].fault = broken ? GARBAGE : SOUND;
                impression(&w, i, t, t, w.now_us);
                good += !broken;
                bad += broken;
            }
        }
        slu_pipeline_stats s = stats_of(&w);
        ck_assert_uint_eq(s.events.dead, (uint64_t)bad);
        ck_assert_uint_eq(s.events.dead_by_reason[SLU_DEAD_MALFORMED], (uint64_t)bad);
        ck_assert_uint_eq(s.events.learned + s.events.waiting, (uint64_t)good);
        ck_assert_int_ge(s.watermark_us, w.now_us - HOUR);
        destroy(&w);
    }
}
END_TEST

/* Events of years ago that are produced today (a rehearsal with recorded data): every partition is behind, so
 * all hold, and nothing is late. */
START_TEST(test_old_data_anew)
{
    world w;
    create(&w, 2);
    for (int k = 0; k < 2000; k++) {
        w.now_us += SECOND / 10;
        impression(&w, (uint32_t)(k / 50 % 2), w.now_us, T0 + k * MINUTE, w.now_us);
    }
    slu_pipeline_stats s = stats_of(&w);
    ck_assert_uint_eq(s.events.dead, 0);
    ck_assert_int_ge(s.watermark_us, T0 + 1900 * MINUTE);
    destroy(&w);
}
END_TEST

static void one_wrong(world *w, fault f, bool stamped_by_producer)
{
    create(w, 2);
    w->parts[1] = (part){.fault = f, .stamped_by_producer = stamped_by_producer};
    for (int k = 0; k < 2000; k++) {
        w->now_us += 10 * SECOND;
        for (uint32_t i = 0; i < 2; i++) {
            impression(w, i, w->now_us, clock_of(w->parts[i].fault, w->now_us), w->now_us);
            w->parts[i].last_end_us = w->now_us;
        }
    }
}

static void expect_letter(world *w, const char *const *words)
{
    slu_put_u8(&w->letters, 0);
    for (; *words; words++)
        ck_assert_msg(strstr((char *)w->letters.data, *words) != NULL, "no '%s' in %.600s", *words,
                      (char *)w->letters.data);
}

/* The windows of the sound partition close in time, and the letters of the other say what its clock said. */
START_TEST(test_one_far_behind)
{
    for (int producers = 0; producers < 2; producers++) {
        world w;
        one_wrong(&w, FAR_BEHIND, producers);
        OK(slu_pipeline_commit(w.pipeline, err));
        slu_pipeline_stats s = stats_of(&w);
        ck_assert_int_eq(s.watermark_us, w.now_us - LATENESS);
        /* The very first ones came before anything could be compared. */
        ck_assert_uint_ge(s.events.dead_by_reason[SLU_DEAD_BEHIND], 1990);
        ck_assert_uint_ge(s.events.learned, 1200);
        expect_letter(&w, (const char *[]){"{\"reason\":\"behind\"",
                                           producers ? "is 364d 23h older than its arrival"
                                                     : "is 365d 0h older than its arrival",
                                           "join.max_behind allows 1h", "\"partition\":1,", NULL});
        slu_partition_time time;
        slu_partition part;
        ck_assert_uint_eq(slu_pipeline_partitions(w.pipeline), 2);
        slu_pipeline_partition(w.pipeline, 1, &part, &time);
        ck_assert_int_eq(part.partition, 1);
        ck_assert(time.behind && !time.held && !time.idle);
        slu_pipeline_partition(w.pipeline, 0, &part, &time);
        ck_assert(!time.behind && time.held);
        destroy(&w);
    }
}
END_TEST

START_TEST(test_one_far_ahead)
{
    for (int producers = 0; producers < 2; producers++) {
        world w;
        one_wrong(&w, FAR_AHEAD, producers);
        OK(slu_pipeline_commit(w.pipeline, err));
        slu_pipeline_stats s = stats_of(&w);
        ck_assert_uint_eq(s.events.dead_by_reason[SLU_DEAD_FUTURE], 2000);
        ck_assert_uint_eq(s.events.dead, 2000);
        /* It delivers nothing that counts, but it does not hold event time for more than max_behind either.
         */
        ck_assert_int_ge(s.watermark_us, w.now_us - MAX_BEHIND - LATENESS);
        expect_letter(&w, (const char *[]){"{\"reason\":\"future\"", " is 36", "ahead of its arrival at ",
                                           "join.max_future allows 5m", NULL});
        destroy(&w);
    }
}
END_TEST

START_TEST(test_wrong_unit)
{
    world w;
    one_wrong(&w, IN_SECONDS, false);
    slu_event e = sample_step("s", "i0", 0, w.now_us / 1000);
    feed(&w,
         (slu_record){
             .kind = SLU_RECORD_EVENT, .partition = 1, .offset = 9000, .arrival_us = w.now_us, .event = &e});
    OK(slu_pipeline_commit(w.pipeline, err));
    slu_pipeline_stats s = stats_of(&w);
    ck_assert_uint_eq(s.events.dead_by_reason[SLU_DEAD_MALFORMED], 2001);
    expect_letter(&w, (const char *[]){"looks like seconds: send microseconds since 1970",
                                       "1970-01-01T00:", "looks like milliseconds", NULL});
    destroy(&w);
}
END_TEST

/* One event ahead, but not too far, must not stop the clock by which batches age. */
START_TEST(test_batches_age_beside_a_clock_ahead)
{
    world w;
    create(&w, 1);
    w.parts[0].fault = AHEAD;
    impression(&w, 0, w.now_us, w.now_us + MAX_FUTURE - SECOND, w.now_us);
    w.parts[0].fault = SOUND;
    for (int k = 0; k < 4; k++) {
        w.now_us += MINUTE;
        impression(&w, 0, w.now_us, w.now_us, w.now_us);
    }
    slu_pipeline_stats s = stats_of(&w);
    ck_assert_uint_ge(s.batches, 2);
    destroy(&w);
}
END_TEST

/* With no bound at all nothing overflows: windows beyond the last time that can be said. */
START_TEST(test_ends_of_time)
{
    slu_options *bounded = options;
    options = sample_options((const char *[]){"join.max_future=0s", "join.max_behind=0s"}, 2);
    world w;
    create(&w, 1);
    static const int64_t times[] = {1, SLU_MAX_TIME_US - 1, SLU_MAX_TIME_US, 2};
    for (int k = 0; k < 4; k++)
        impression(&w, 0, w.now_us, times[k], w.now_us);
    slu_event step = sample_step("s", "i2", 1, SLU_MAX_TIME_US);
    feed(&w, (slu_record){.kind = SLU_RECORD_EVENT, .offset = 4, .arrival_us = SLU_NO_STAMP, .event = &step});
    OK(slu_pipeline_finish(w.pipeline, err));
    slu_pipeline_stats s = stats_of(&w);
    ck_assert_uint_eq(s.events.received, 5);
    ck_assert_uint_eq(s.events.learned, 4);
    ck_assert_uint_eq(s.events.dead_by_reason[SLU_DEAD_LATE], 1);
    ck_assert_uint_eq(s.events.waiting, 0);
    destroy(&w);
    slu_options_free(options);
    options = bounded;
}
END_TEST

int main(void)
{
    Suite *s = suite_create("event_time");
    TCase *c = tcase_create("event_time");
    tcase_set_timeout(c, 120);
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, test_any_clocks);
    tcase_add_test(c, test_backlog_loses_nothing);
    tcase_add_test(c, test_old_data_anew);
    tcase_add_test(c, test_one_far_behind);
    tcase_add_test(c, test_one_far_ahead);
    tcase_add_test(c, test_wrong_unit);
    tcase_add_test(c, test_batches_age_beside_a_clock_ahead);
    tcase_add_test(c, test_ends_of_time);
    suite_add_tcase(s, c);
    return sample_run(s);
}
