/* How partitions stand, as metrics and lines, with a pipeline over a store in memory and a source that
 * numbers them the other way round. */
#include "base/log.h"
#include "base/metrics.h"
#include "tests/memory_store.h"
#include "tests/pipeline_sample.h"
#include "tests/suite.h"
#include "trainer/partition_board.h"
#include <math.h>
#include <unistd.h>

enum { FLOWS, HOLDS, IDLE, BEHIND, PAUSED };
enum { MANY = 40 };

/* ---- a source that only says what is paused ---- */

typedef struct still_source {
    slu_source base;
    const slu_partition *parts; /* (n) as the pipeline numbers them; the source's are reversed */
    uint32_t n;
    bool paused[MANY]; /* by the pipeline's number */
} still_source;

static uint32_t partitions(slu_source *s)
{
    return ((still_source *)s)->n;
}

static slu_partition partition(slu_source *base, uint32_t i)
{
    still_source *s = (still_source *)base;
    return s->parts[s->n - 1 - i];
}

static slu_reading reading(slu_source *base, uint32_t i)
{
    still_source *s = (still_source *)base;
    return (slu_reading){.paused = s->paused[s->n - 1 - i]};
}

static const slu_source_ops can_pause = {.partitions = partitions,
                                         .partition = partition,
                                         .reading = reading},
                            cannot = {.partitions = partitions, .partition = partition};

/* ---- a bench ---- */

typedef struct bench {
    slu_options *options;
    slu_schema *schema;
    sample_life life;
    still_source source;
    slu_partition_board *board;
    FILE *lines;
} bench;

static void feed(bench *b, uint32_t i, slu_record r)
{
    r.partition = i;
    OK(slu_pipeline_feed(b->life.p, &b->source.parts[i], &r, err));
}

static void set_up(bench *b, const slu_partition *parts, uint32_t n)
{
    const char *const sets[] = {"join.max_behind=1h"};
    *b = (bench){.options = sample_options(sets, 1),
                 .source = {.base = {&can_pause}, .parts = parts, .n = n},
                 .board = slu_partition_board_new(),
                 .lines = tmpfile()};
    b->schema = sample_schema(b->options);
    b->life = sample_begin((slu_pipeline_config){.options = b->options, .schema = b->schema});
    slu_log_redirect(fileno(b->lines), NULL);
    for (uint32_t i = 0; i < n; i++)
        feed(b, i, (slu_record){.kind = SLU_RECORD_PARTITION, .offset = -1});
}

static void tear_down(bench *b)
{
    slu_log_redirect(2, NULL);
    fclose(b->lines);
    slu_partition_board_free(b->board);
    sample_end(&b->life);
    slu_schema_free(b->schema);
    slu_options_free(b->options);
}

/* An event of |time| that arrived at |arrival|. */
static void event(bench *b, uint32_t i, int64_t time, int64_t arrival)
{
    static int64_t offset;
    const slu_event e = sample_step("e", "nobody", 0, time);
    feed(b, i, (slu_record){.kind = SLU_RECORD_CLOCK, .offset = -1, .arrival_us = arrival});
    feed(b, i,
         (slu_record){.kind = SLU_RECORD_EVENT, .offset = offset++, .arrival_us = arrival, .event = &e});
}

static void update(bench *b)
{
    slu_partition_board_update(b->board, b->life.p, &b->source.base);
}

static double metric(const bench *b, const char *name, uint32_t i)
{
    char label[100];
    snprintf(label, sizeof label, "topic=\"%s\",partition=\"%d\"", b->source.parts[i].topic,
             b->source.parts[i].partition);
    return slu_metric_value(slu_gauge(name, label, ""));
}

/* States of the first partitions, and the seconds that they are late; NAN: unknown. */
static void expect(bench *b, uint32_t i, int state, double delay)
{
    double got = metric(b, "sluice_trainer_partition_delay_seconds", i);
    ck_assert_int_eq((int)metric(b, "sluice_trainer_partition_state", i), state);
    ck_assert_msg(isnan(delay) ? isnan(got) : got == delay, "partition %u: %g s instead of %g", i, got,
                  delay);
}

/* Lines with all of |a|, |b|, |c| since the last call, which forgets all of them. */
static int said(bench *bench, const char *a, const char *b, const char *c)
{
    char line[1000];
    int n = 0;
    rewind(bench->lines);
    while (fgets(line, sizeof line, bench->lines))
        n += strstr(line, a) && strstr(line, b) && strstr(line, c);
    ck_assert_int_eq(ftruncate(fileno(bench->lines), 0), 0);
    rewind(bench->lines);
    return n;
}

/* ---- tests ---- */

static const slu_partition three[] = {{"events", 0}, {"events", 1}, {"steps", 0}};

START_TEST(test_states)
{
    bench b;
    set_up(&b, three, 3);
    update(&b);
    for (uint32_t i = 0; i < 3; i++)
        expect(&b, i, HOLDS, NAN); /* it has yet to deliver */
    event(&b, 0, T0, T0 + 2 * SECOND);
    event(&b, 1, T0 + 10 * SECOND, T0 + 10 * SECOND);
    event(&b, 2, T0 + 20 * SECOND, T0 + 20 * SECOND + SECOND / 2);
    update(&b);
    expect(&b, 0, HOLDS, 2);
    expect(&b, 1, FLOWS, 0);
    expect(&b, 2, FLOWS, .5);
    feed(&b, 0, (slu_record){.kind = SLU_RECORD_IDLE, .offset = -1});
    update(&b);
    expect(&b, 0, IDLE, 2);
    expect(&b, 1, HOLDS, 0);
    event(&b, 0, T0 + 30 * SECOND, T0 + 29 * SECOND); /* ahead of its arrival */
    update(&b);
    expect(&b, 0, FLOWS, -1);
    tear_down(&b);
}
END_TEST

START_TEST(test_a_wrong_clock_is_mentioned_once)
{
    static const char wrong[] = "a partition's clock is behind",
                      right[] = "a partition's clock is right again";
    bench b;
    set_up(&b, three, 3);
    int64_t now = T0 + 3 * HOUR;
    event(&b, 0, now, now);
    event(&b, 1, now - HOUR, now); /* just what is allowed */
    event(&b, 2, now, now);
    update(&b);
    expect(&b, 1, HOLDS, 3600);
    ck_assert_int_eq(said(&b, "partition", "clock", ""), 0);
    now += HOUR;
    event(&b, 0, now, now);
    event(&b, 1, now - HOUR - SECOND, now);
    for (int i = 0; i < 3; i++)
        update(&b);
    expect(&b, 1, BEHIND, 3601);
    ck_assert_int_eq(said(&b, wrong, "level=warn", "topic=events partition=1 seconds=3601"), 1);
    event(&b, 1, now - HOUR, now);
    for (int i = 0; i < 3; i++)
        update(&b);
    expect(&b, 1, HOLDS, 3600);
    ck_assert_int_eq(said(&b, right, "level=info", "topic=events partition=1"), 1);
    now += HOUR;
    event(&b, 1, now - 2 * HOUR, now); /* and again */
    event(&b, 1, now - 2 * HOUR, now);
    update(&b);
    ck_assert_int_eq(said(&b, wrong, "topic=events", "partition=1"), 1);
    tear_down(&b);
}
END_TEST

/* By name: the source has other numbers, and another topic has the same ones. */
START_TEST(test_paused_ones)
{
    bench b;
    set_up(&b, three, 3);
    for (uint32_t i = 0; i < 3; i++)
        event(&b, i, T0, T0);
    update(&b);
    for (uint32_t k = 0; k < 3; k++) {
        b.source.paused[k] = true;
        update(&b);
        update(&b); /* the first time a partition is seen its line is being made */
        for (uint32_t i = 0; i < 3; i++)
            expect(&b, i, i == k ? PAUSED : HOLDS, 0);
        b.source.paused[k] = false;
    }
    update(&b);
    expect(&b, 2, HOLDS, 0);
    b.source.base.ops = &cannot; /* a source that cannot pause is not asked */
    b.source.paused[0] = true;
    update(&b);
    expect(&b, 0, HOLDS, 0);
    tear_down(&b);
}
END_TEST

START_TEST(test_many_partitions)
{
    static slu_partition many[MANY];
    bench b;
    for (int32_t i = 0; i < MANY; i++)
        many[i] = (slu_partition){"events", i};
    set_up(&b, many, MANY);
    update(&b);
    for (uint32_t i = 0; i < MANY; i++)
        event(&b, i, T0, T0 + i * SECOND);
    b.source.paused[MANY - 1] = true;
    update(&b);
    for (uint32_t i = 0; i < MANY; i++)
        expect(&b, i, i == MANY - 1 ? PAUSED : HOLDS, i);
    slu_partition_board_free(NULL);
    tear_down(&b);
}
END_TEST

int main(void)
{
    return run_suite("partition_board", (const TTest *[]){test_states, test_a_wrong_clock_is_mentioned_once,
                                                          test_paused_ones, test_many_partitions, NULL});
}
