/* Commits that are written behind, over a store whose writes wait until they are told to go
 * (tests/memory_store.h): what goes on meanwhile, who hears of what when, and what is there when the process
 * dies in between. */
#include "tests/memory_store.h"
#include "tests/pipeline_sample.h"
#include "tests/suite.h"
#include "trainer/pipeline.h"
#include "trainer/writer.h"

enum { EVENTS = 400, BEFORE = 100 };

static slu_options *options;
static slu_schema *schema;
static const slu_partition part = {"t", 0};
static uint64_t sent[SLU_CHANNELS], acked[SLU_CHANNELS]; /* by the sink: highest sequences */

static void note_sent(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len)
{
    (void)ctx, (void)message, (void)len;
    ck_assert_uint_eq(sequence, sent[ch] + 1);
    sent[ch] = sequence;
}

static void no_base(void *ctx, const void *message, size_t len)
{
    (void)ctx, (void)message, (void)len;
}

static uint64_t tell_acked(void *ctx, slu_channel ch)
{
    (void)ctx;
    return acked[ch];
}

static const slu_sink sink = {.send = note_sent, .send_base = no_base, .acked = tell_acked};

static sample_life begin(bool threads)
{
    memset(sent, 0, sizeof sent);
    memset(acked, 0, sizeof acked);
    return sample_begin((slu_pipeline_config){.options = options,
                                              .schema = schema,
                                              .sink = &sink,
                                              .deltas = true,
                                              .order = true,
                                              .background = threads});
}

/* Event |i| is an impression, a click on an earlier one, or one that comes for the second time and dies. */
static void feed(sample_life *l, int from, int to)
{
    slu_value values[4];
    slu_values fields[4];
    for (int i = from; i < to; i++) {
        char id[16], of[16], user[16], item[16];
        snprintf(id, sizeof id, "e%d", i % 10 == 9 ? i - 4 : i);
        snprintf(of, sizeof of, "e%d", i - 3);
        snprintf(user, sizeof user, "u%d", i * 7 % 60);
        snprintf(item, sizeof item, "p%d", i * 3 % 50);
        slu_event e = i % 10 == 3
                          ? sample_step(id, of, 0, T0 + i * 20 * SECOND)
                          : sample_impression(schema, id, T0 + i * 20 * SECOND, user, item, values, fields);
        slu_record r = {.kind = SLU_RECORD_EVENT, .offset = i, .event = &e};
        OK(slu_pipeline_feed(l->p, &part, &r, err));
    }
}

static int64_t offset_of(sample_life *l)
{
    int64_t next;
    slu_pipeline_offsets(l->p, NULL, &next, 1);
    return next;
}

/* Feeds the rest and ends. */
static void finish(sample_life *l, int from, char digest[33])
{
    feed(l, from, EVENTS);
    OK(slu_pipeline_finish(l->p, err));
    OK(slu_pipeline_digest(l->p, digest, err));
    sample_end(l);
}

static void undisturbed(char digest[33])
{
    sample_life l = begin(false);
    finish(&l, 0, digest);
    memory_store_clear();
}

static int poll(sample_life *l)
{
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_pipeline_commit_poll(l->p, &err);
    ck_assert_msg(rc >= 0, "%s", err.message);
    return rc;
}

static void set_up(void)
{
    memory_store_clear();
    options = sample_options(NULL, 0);
    schema = sample_schema(options);
}

static void tear_down(void)
{
    slu_schema_free(schema);
    slu_options_free(options);
    memory_store_clear();
}

/* A commit of version 1 that stands at the disk's door, BEFORE events old, and more events learned meanwhile.
 */
static sample_life with_a_commit_under_way(void)
{
    sample_life l = begin(true);
    feed(&l, 0, BEFORE);
    memory_store_hold(true);
    OK(slu_pipeline_commit_begin(l.p, err));
    memory_store_held();
    ck_assert(slu_pipeline_committing(l.p));
    uint64_t batches = sample_stats(&l).batches;
    feed(&l, BEFORE, 2 * BEFORE);
    ck_assert_int_eq(poll(&l), 0);
    ck_assert_uint_ge(sample_stats(&l).batches, batches + 10);
    return l;
}

START_TEST(test_learning_goes_on_while_a_commit_is_written)
{
    char want[33], got[33];
    undisturbed(want);
    sample_life l = with_a_commit_under_way();
    memory_store_hold(false);
    finish(&l, 2 * BEFORE, got);
    ck_assert_str_eq(got, want);
}
END_TEST

/* Nobody outside hears of what may yet be lost. */
START_TEST(test_only_durable_commits_are_told_of)
{
    sample_life l = with_a_commit_under_way();
    ck_assert_uint_eq(sent[SLU_CHANNEL_DELTAS], 0);
    ck_assert_uint_eq(sent[SLU_CHANNEL_DEAD_LETTERS], 0);
    ck_assert_uint_eq(sample_stats(&l).version, 0);
    ck_assert_uint_eq(sample_stats(&l).commits, 0);
    ck_assert_int_eq(offset_of(&l), -1);
    memory_store_hold(false);
    while (!poll(&l))
        ;
    ck_assert_uint_eq(sent[SLU_CHANNEL_DELTAS], 1);
    ck_assert_uint_eq(sent[SLU_CHANNEL_DEAD_LETTERS], BEFORE / 10);
    ck_assert_uint_eq(sample_stats(&l).version, 1);
    ck_assert_int_eq(offset_of(&l), BEFORE); /* and not what was read meanwhile */
    OK(slu_pipeline_commit(l.p, err));
    ck_assert_uint_eq(sent[SLU_CHANNEL_DELTAS], 2);
    ck_assert_uint_eq(sent[SLU_CHANNEL_DEAD_LETTERS], 2 * BEFORE / 10);
    ck_assert_uint_eq(sample_stats(&l).version, 2);
    ck_assert_int_eq(offset_of(&l), 2 * BEFORE);
    sample_end(&l);
}
END_TEST

/* Killed with a commit at the door, the process finds the one before; killed behind the door, that one. */
static void die_and_go_on(const memory_copy *at_death, int from, const char *want)
{
    char got[33];
    memory_store_restore(at_death);
    sample_life l = begin(true);
    finish(&l, from, got);
    ck_assert_str_eq(got, want);
    memory_store_clear();
}

START_TEST(test_death_while_a_commit_is_written)
{
    char want[33];
    undisturbed(want);
    sample_life l = with_a_commit_under_way();
    memory_copy *without = memory_store_copy();
    memory_store_hold(false);
    sample_end(&l); /* writes it to its end, but nobody settles it */
    memory_copy *with = memory_store_copy();
    die_and_go_on(without, 0, want);
    die_and_go_on(with, BEFORE, want);
    memory_copy_free(without);
    memory_copy_free(with);
}
END_TEST

/* The same commit is written again, and what was learned meanwhile is in the next one. */
START_TEST(test_a_failed_write_is_repeated)
{
    char want[33], got[33];
    undisturbed(want);
    sample_life l = with_a_commit_under_way();
    memory_copy *before = memory_store_copy();
    memory_store_fail(1);
    memory_store_hold(false);
    slu_error err = SLU_ERROR_INIT;
    int rc;
    while (!(rc = slu_pipeline_commit_poll(l.p, &err)))
        ;
    ck_assert_int_eq(rc, SLU_EIO);
    ck_assert_ptr_nonnull(strstr(err.message, "told to fail"));
    ck_assert_uint_eq(sent[SLU_CHANNEL_DELTAS], 0);
    memory_copy *after = memory_store_copy();
    memory_store_fail(1); /* and the second time as well */
    slu_error_clear(&err);
    ck_assert_int_eq(slu_pipeline_commit(l.p, &err), SLU_EIO);
    feed(&l, 2 * BEFORE, 3 * BEFORE);
    while (!poll(&l))
        ;
    ck_assert_uint_eq(sample_stats(&l).version, 1);
    ck_assert_uint_eq(sent[SLU_CHANNEL_DELTAS], 1);
    finish(&l, 3 * BEFORE, got);
    ck_assert_str_eq(got, want);
    die_and_go_on(before, 0, want);
    die_and_go_on(after, 0, want);
    memory_copy_free(before);
    memory_copy_free(after);
}
END_TEST

/* Learning goes on as far as the next commit may be away, then it waits. */
START_TEST(test_the_next_commit_waits_for_the_last)
{
    const char *sets[] = {"training.commit_events=50"};
    tear_down();
    options = sample_options(sets, 1);
    schema = sample_schema(options);
    sample_life l = begin(true);
    feed(&l, 0, 50);
    ck_assert(slu_pipeline_commit_due(l.p));
    memory_store_hold(true);
    OK(slu_pipeline_commit_begin(l.p, err));
    memory_store_held();
    feed(&l, 50, 99);
    ck_assert_int_eq(poll(&l), 0);
    feed(&l, 99, 100);
    ck_assert(slu_pipeline_commit_due(l.p));
    OK(slu_pipeline_commit_begin(l.p, err)); /* does nothing while one is on its way */
    memory_store_hold(false);
    ck_assert_int_eq(poll(&l), 1); /* waits */
    ck_assert_uint_eq(sample_stats(&l).version, 1);
    ck_assert_uint_gt(sample_stats(&l).commit_us, 0);
    OK(slu_pipeline_commit_begin(l.p, err));
    ck_assert(slu_pipeline_committing(l.p));
    sample_end(&l);
}
END_TEST

/* An acknowledgement that comes while a commit is written is for the next one. */
START_TEST(test_acknowledged_meanwhile)
{
    sample_life l = begin(true);
    feed(&l, 0, BEFORE);
    OK(slu_pipeline_commit(l.p, err));
    ck_assert_uint_eq(sent[SLU_CHANNEL_DELTAS], 1);
    feed(&l, BEFORE, BEFORE + 20);
    memory_store_hold(true);
    OK(slu_pipeline_commit_begin(l.p, err));
    memory_store_held();
    acked[SLU_CHANNEL_DELTAS] = 1;
    memory_store_hold(false);
    OK(slu_pipeline_commit(l.p, err)); /* settles the one, makes the other for the acknowledgement */
    ck_assert_uint_eq(sample_stats(&l).commits, 3);
    ck_assert_uint_eq(sample_stats(&l).version, 2);
    sample_end(&l);
    memset(sent, 0, sizeof sent);
    size_t deltas = 0;
    for (size_t i = 0; i < memory_store_count(); i++) {
        const memory_entry *e = memory_store_at(i);
        deltas += e->family == SLU_FAMILY_OUTBOX && e->key[0] == SLU_CHANNEL_DELTAS;
    }
    ck_assert_uint_eq(deltas, 1); /* the second: the first was deleted */
}
END_TEST

int main(void)
{
    Suite *s = suite_create("writer");
    TCase *c = tcase_create("writer");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, test_learning_goes_on_while_a_commit_is_written);
    tcase_add_test(c, test_only_durable_commits_are_told_of);
    tcase_add_test(c, test_death_while_a_commit_is_written);
    tcase_add_test(c, test_a_failed_write_is_repeated);
    tcase_add_test(c, test_the_next_commit_waits_for_the_last);
    tcase_add_test(c, test_acknowledged_meanwhile);
    suite_add_tcase(s, c);
    return sample_run(s);
}
