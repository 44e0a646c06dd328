/* Final labels read ahead, out of a source that is a list: both ends of every window, any order of arrival,
 * duplicates, what cannot be used, and sources that fail. */
#include "tests/pipeline_sample.h"
#include "tests/suite.h"
#include "trainer/oracle.h"

#define SEED 20261126u

/* ---- a source ---- */

typedef struct list_source {
    slu_source base;
    const slu_record *records; /* (n) */
    size_t n, at;
    int end;    /* what comes behind them */
    bool pause; /* says "nothing now" before each record */
} list_source;

static int list_next(slu_source *base, int timeout_ms, slu_record *out, slu_error *err)
{
    list_source *s = (list_source *)base;
    (void)timeout_ms;
    s->pause = !s->pause;
    if (s->pause)
        return 0;
    if (s->at == s->n)
        return s->end == SLU_ECLOSED ? SLU_ECLOSED : slu_fail(err, s->end, "the list ends with a fault");
    *out = s->records[s->at++];
    return 1;
}

static const slu_source_ops list_ops = {.next = list_next};

static slu_options *options; /* click within 10 minutes, buy within 2 hours */
static slu_schema *schema;
enum { CLICK = 1, BUY = 2 };

static slu_oracle *read_records(const slu_record *records, size_t n)
{
    if (!options) {
        options = sample_options(NULL, 0);
        schema = sample_schema(options);
    }
    list_source s = {.base = {&list_ops}, .records = records, .n = n, .end = SLU_ECLOSED};
    slu_oracle *o;
    OK(slu_oracle_read(&s.base, options, schema, &o, err));
    ck_assert_uint_eq(s.at, n);
    return o;
}

static void close_all(slu_oracle *o)
{
    slu_oracle_free(o);
    slu_schema_free(schema);
    slu_options_free(options);
}

static slu_record record_of(const slu_event *e)
{
    return (slu_record){.kind = SLU_RECORD_EVENT, .event = e};
}

static slu_event impression(const char *id, int64_t time_us)
{
    return (slu_event){.kind = SLU_EVENT_IMPRESSION,
                       .id = sample_span(id),
                       .impression_id = sample_span(id),
                       .time_us = time_us};
}

static uint32_t steps_of(const slu_oracle *o, const char *id)
{
    return slu_oracle_steps(o, slu_hash_128(id, strlen(id), 0));
}

/* ---- by hand ---- */

/* A step at |after| the impression, come before it or behind it. */
static uint32_t label_of(uint32_t step, int64_t after, bool early)
{
    const slu_event events[] = {impression("i", T0), sample_step("e", "i", step, T0 + after)};
    const slu_record records[] = {record_of(&events[early]), record_of(&events[!early])};
    slu_oracle *o = read_records(records, 2);
    uint32_t steps = steps_of(o, "i");
    ck_assert_uint_eq(slu_oracle_events(o), 2);
    slu_oracle_free(o);
    return steps;
}

START_TEST(test_both_ends_of_a_window)
{
    static const int64_t windows[] = {10 * MINUTE, 2 * HOUR};
    for (uint32_t step = 0; step < 2; step++)
        for (int early = 0; early < 2; early++) {
            ck_assert_uint_eq(label_of(step, -1, early), 0); /* no step is before its impression */
            ck_assert_uint_eq(label_of(step, 0, early), 1u << step);
            ck_assert_uint_eq(label_of(step, windows[step], early), 1u << step);
            ck_assert_uint_eq(label_of(step, windows[step] + 1, early), 0);
        }
    close_all(NULL);
}
END_TEST

START_TEST(test_duplicates_and_strangers)
{
    /* The first impression of an id counts, in the order of the records. */
    const slu_event events[] = {impression("i", T0),
                                impression("i", T0 + HOUR),
                                sample_step("a", "i", 0, T0 + HOUR + MINUTE), /* only the second's */
                                sample_step("b", "i", 1, T0 + MINUTE),
                                sample_step("b", "i", 1, T0 + MINUTE),
                                sample_step("c", "nobody", 0, T0),
                                impression("other", T0 - HOUR)};
    slu_record records[sizeof events / sizeof *events];
    for (size_t i = 0; i < sizeof events / sizeof *events; i++)
        records[i] = record_of(&events[i]);
    slu_oracle *o = read_records(records, sizeof events / sizeof *events);
    ck_assert_uint_eq(steps_of(o, "i"), BUY);
    ck_assert_uint_eq(steps_of(o, "other"), 0);
    ck_assert_uint_eq(steps_of(o, "nobody"), 0);
    ck_assert_uint_eq(steps_of(o, "never heard of"), 0);
    ck_assert_uint_eq(slu_oracle_events(o), 7);
    close_all(o);
}
END_TEST

/* What the pipeline will bury is counted and passed; what only a clock knew is not counted. */
START_TEST(test_what_cannot_be_used)
{
    static const char said[] = "{\"impression\": {\"id\": \"i\", \"time_us\": 1700000000000000}}",
                      clicked[] = "{\"step\": {\"id\": \"e\", \"step\": \"click\", \"impression_id\": \"i\", "
                                  "\"time_us\": 1700000000000001}}",
                      broken[] = "{\"step\": {\"id\": \"e\", \"step\": \"buy\", \"impression_id\": \"i\"";
    const slu_event bought = sample_step("x", "i", 1, T0 + 2);
    slu_record records[7] = {{.kind = SLU_RECORD_PARTITION},
                             {.bytes = said, .len = strlen(said)},
                             {.bytes = clicked, .len = strlen(clicked)},
                             {.bytes = broken, .len = strlen(broken)},
                             {.event = &bought, .dead = SLU_DEAD_MALFORMED},
                             {.kind = SLU_RECORD_FLUSH, .event = &bought},
                             {.kind = SLU_RECORD_IDLE}};
    for (int i = 1; i < 5; i++) {
        records[i].kind = SLU_RECORD_EVENT;
        records[i].encoding = SLU_ENCODING_JSON;
    }
    slu_oracle *o = read_records(records, 7);
    ck_assert_uint_eq(slu_oracle_events(o), 4);
    ck_assert_uint_eq(steps_of(o, "i"), CLICK);
    close_all(o);
}
END_TEST

START_TEST(test_sources_that_fail)
{
    static const int codes[] = {SLU_EIO, SLU_ECORRUPT, SLU_EKAFKA};
    options = sample_options(NULL, 0);
    schema = sample_schema(options);
    const slu_event e = impression("i", T0);
    const slu_record r = record_of(&e);
    for (int i = 0; i < 3; i++) {
        list_source s = {.base = {&list_ops}, .records = &r, .n = 1, .end = codes[i]};
        slu_error err = SLU_ERROR_INIT;
        slu_oracle *o = (slu_oracle *)&s;
        ck_assert_int_eq(slu_oracle_read(&s.base, options, schema, &o, &err), codes[i]);
        ck_assert_ptr_null(o);
        ck_assert_str_eq(err.message, "the list ends with a fault");
    }
    close_all(NULL);
}
END_TEST

/* ---- at random ---- */

enum { IMPRESSIONS = 70000, EVENTS = 3 * IMPRESSIONS }; /* the table grows */
static char ids[IMPRESSIONS][8];
static int64_t shown_at[IMPRESSIONS]; /* of the first one in order, 0: none */
static uint32_t labels[IMPRESSIONS];
static slu_event events[EVENTS];
static slu_record records[EVENTS];

START_TEST(test_any_order)
{
    printf("seed %u\n", SEED);
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    static const int64_t windows[] = {10 * MINUTE, 2 * HOUR};
    for (uint32_t i = 0; i < EVENTS; i++) {
        uint32_t k = i < IMPRESSIONS ? i : (uint32_t)slu_rng_below(&rng, IMPRESSIONS);
        int64_t time = T0 + (int64_t)slu_rng_below(&rng, 150) * MINUTE;
        snprintf(ids[k], sizeof ids[k], "%u", k);
        events[i] = slu_rng_below(&rng, 3) ? sample_step("", ids[k], (uint32_t)slu_rng_below(&rng, 2), time)
                                           : impression(ids[k], time);
        if (events[i].kind == SLU_EVENT_IMPRESSION && !shown_at[k])
            shown_at[k] = time;
        records[i] = record_of(&events[i]);
    }
    uint32_t shown = 0, labelled = 0;
    for (uint32_t i = 0; i < EVENTS; i++) {
        uint32_t k = (uint32_t)atoi(events[i].impression_id.p);
        int64_t after = events[i].time_us - shown_at[k];
        if (events[i].kind == SLU_EVENT_STEP && shown_at[k] && after >= 0 && after <= windows[events[i].step])
            labels[k] |= 1u << events[i].step;
    }
    slu_oracle *o = read_records(records, EVENTS);
    for (uint32_t k = 0; k < IMPRESSIONS; k++) {
        shown += shown_at[k] != 0;
        labelled += labels[k] != 0;
        if (steps_of(o, ids[k]) != labels[k])
            ck_abort_msg("impression %u: %u instead of %u", k, steps_of(o, ids[k]), labels[k]);
    }
    ck_assert_uint_gt(shown, 1 << 15); /* half of the first table */
    ck_assert_uint_gt(labelled, 1000);
    close_all(o);
}
END_TEST

int main(void)
{
    return run_suite("oracle", (const TTest *[]){test_both_ends_of_a_window, test_duplicates_and_strangers,
                                                 test_what_cannot_be_used, test_sources_that_fail,
                                                 test_any_order, NULL});
}
