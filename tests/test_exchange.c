/* The stream of the simulated exchange: same seed same events, accidents at the given rates, nothing
 * invented. */
#include "base/clock.h"
#include "base/digest.h"
#include "sim/exchange.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

enum { SEED = 11, IMPRESSIONS = 40000 };
#define START_US 1700000000000000LL
#define DAY_US   (86400 * SLU_SECOND_US)

static slu_options *options;
static slu_schema *schema;

static void load(const char *config)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_options_load(config, NULL, 0, &options, &err), "%s", err.message);
    ck_assert_msg(!slu_schema_new(options, &schema, &err), "%s", err.message);
}

static const slu_exchange_opts usual = {.seed = SEED,
                                        .start_us = START_US,
                                        .span_us = 12 * DAY_US,
                                        .settle_us = 600 * SLU_SECOND_US,
                                        .impressions = IMPRESSIONS,
                                        .duplicates = .01,
                                        .disorder = .02,
                                        .late = .005,
                                        .orphans = .004};

/* What a run is, as seen by whoever reads the stream. */
typedef struct seen {
    uint64_t events, impressions, steps[2], orphans, backwards;
    char digest[33];
    slu_exchange_counts counts;
} seen;

static seen run(const slu_exchange_opts *o)
{
    slu_error err = SLU_ERROR_INIT;
    slu_world *world;
    slu_exchange *x;
    slu_event e;
    seen s = {0};
    int64_t newest = 0;
    slu_digest *d = slu_digest_new();
    slu_buf bytes = SLU_BUF_INIT;
    ck_assert(!slu_world_new(&(slu_world_opts){.seed = o->seed}, &world, &err));
    ck_assert_msg(!slu_exchange_new(o, world, schema, &x, &err), "%s", err.message);
    while (slu_exchange_next(x, &e)) {
        s.events++;
        s.impressions += e.kind == SLU_EVENT_IMPRESSION;
        if (e.kind == SLU_EVENT_STEP)
            s.steps[e.step]++;
        s.orphans += e.impression_id.p[0] == 'o';
        s.backwards += e.time_us < newest;
        newest = e.time_us > newest ? e.time_us : newest;
        ck_assert_int_ge(e.time_us, o->start_us);
        ck_assert_int_le(e.time_us, o->start_us + o->span_us + o->settle_us);
        slu_buf_clear(&bytes);
        ck_assert(!slu_event_encode(schema, SLU_ENCODING_PROTOBUF, &e, &bytes));
        slu_digest_add(d, bytes.data, bytes.len);
    }
    slu_digest_hex(d, s.digest);
    s.counts = slu_exchange_count(x);
    slu_digest_free(d);
    slu_buf_free(&bytes);
    slu_exchange_free(x);
    slu_world_free(world);
    return s;
}

START_TEST(test_a_function_of_its_options)
{
    load("examples/ads.yaml");
    slu_exchange_opts other = usual;
    other.seed++;
    seen a = run(&usual), b = run(&usual), c = run(&other);
    ck_assert_str_eq(a.digest, b.digest);
    ck_assert_str_ne(a.digest, c.digest);
}
END_TEST

START_TEST(test_accidents_at_their_rates)
{
    load("examples/ads.yaml");
    seen s = run(&usual);
    const slu_exchange_counts *c = &s.counts;
    printf("seed %d: %lu events, %lu duplicates, %lu disordered, %lu late, %lu orphans\n", SEED, s.events,
           c->duplicates, c->disordered, c->late, c->orphans);
    ck_assert_uint_eq(s.events, c->impressions + c->steps[0] + c->steps[1] + c->duplicates + c->orphans);
    ck_assert_uint_ge(s.orphans, c->orphans); /* an orphan may be doubled, too */
    /* The last events of late impressions never arrive, so a few are missing. */
    ck_assert(c->impressions > IMPRESSIONS * .99 && c->impressions <= IMPRESSIONS);
    ck_assert(c->steps[0] > .055 * IMPRESSIONS && c->steps[0] < .075 * IMPRESSIONS);
    ck_assert(c->duplicates > .008 * s.events && c->duplicates < .012 * s.events);
    ck_assert(c->disordered > .017 * s.events && c->disordered < .023 * s.events);
    ck_assert(c->late > .003 * s.events && c->late < .007 * s.events);
    ck_assert(c->orphans > .002 * IMPRESSIONS && c->orphans < .006 * IMPRESSIONS);
    ck_assert_uint_gt(s.backwards, 0);
}
END_TEST

START_TEST(test_without_accidents_time_goes_forward)
{
    load("examples/ads.yaml");
    slu_exchange_opts calm = usual;
    calm.duplicates = calm.disorder = calm.late = calm.orphans = 0;
    seen s = run(&calm);
    ck_assert_uint_eq(s.backwards, 0);
    ck_assert_uint_eq(s.impressions, IMPRESSIONS);
    ck_assert_uint_eq(s.events, s.impressions + s.steps[0] + s.steps[1]);
}
END_TEST

START_TEST(test_configs_that_it_cannot_serve)
{
    load("examples/storefront.yaml"); /* three steps */
    slu_error err = SLU_ERROR_INIT;
    slu_world *world;
    slu_exchange *x;
    ck_assert(!slu_world_new(&(slu_world_opts){.seed = SEED}, &world, &err));
    ck_assert_int_eq(slu_exchange_new(&usual, world, schema, &x, &err), SLU_ECONFIG);
    ck_assert_ptr_nonnull(strstr(err.message, "steps"));
    ck_assert_ptr_null(x);
    slu_exchange_opts odd = usual;
    odd.duplicates = 2;
    slu_error_clear(&err);
    ck_assert_int_eq(slu_exchange_new(&odd, world, schema, &x, &err), SLU_ECONFIG);
    slu_world_free(world);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_a_function_of_its_options, test_accidents_at_their_rates,
                                  test_without_accidents_time_goes_forward, test_configs_that_it_cannot_serve,
                                  NULL};
    return run_suite("exchange", tests);
}
