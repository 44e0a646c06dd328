/* Rows that are read while their batch fills, over a store whose reads wait until they are told to go
 * (tests/memory_store.h): nobody waits for them before the step, and what is learned is the same. */
#include "store/row_reader.h"
#include "store/row_table.h"
#include "tests/memory_store.h"
#include "tests/pipeline_sample.h"
#include "tests/suite.h"
#include "trainer/pipeline.h"

static slu_options *options;
static slu_schema *schema;
static const slu_partition part = {"t", 0};

static sample_life begin(bool background)
{
    return sample_begin(
        (slu_pipeline_config){.options = options, .schema = schema, .background = background});
}

static void feed(sample_life *l, int from, int to)
{
    slu_value values[4];
    slu_values fields[4];
    for (int i = from; i < to; i++) {
        char id[16], user[16], item[16];
        snprintf(id, sizeof id, "e%d", i);
        snprintf(user, sizeof user, "u%d", i * 7 % 90);
        snprintf(item, sizeof item, "p%d", i * 3 % 50);
        slu_event e = sample_impression(schema, id, T0 + i * SECOND, user, item, values, fields);
        slu_record r = {.kind = SLU_RECORD_EVENT, .offset = i, .event = &e};
        OK(slu_pipeline_feed(l->p, &part, &r, err));
    }
}

static void set_up(void)
{
    const char *sets[] = {"training.batch_size=100"};
    memory_store_clear();
    options = sample_options(sets, 1);
    schema = sample_schema(options);
}

static void tear_down(void)
{
    slu_schema_free(schema);
    slu_options_free(options);
    memory_store_clear();
}

/* Learns 400 impressions, starting again (with an empty cache) at 200; |held|: reads of the third batch wait
 * until it is nearly full. */
static void learn(bool background, bool held, char digest[33], uint64_t *read_ahead)
{
    sample_life l = begin(background);
    feed(&l, 0, 200);
    OK(slu_pipeline_commit(l.p, err));
    sample_end(&l);
    l = begin(background);
    memory_store_hold_reads(held);
    feed(&l, 200, 299);
    if (held)
        memory_store_read_held(); /* and yet we are here, with the batch one short of full */
    ck_assert_uint_eq(sample_stats(&l).batches, 0);
    memory_store_hold_reads(false);
    feed(&l, 299, 400);
    ck_assert_uint_eq(sample_stats(&l).batches, 2);
    *read_ahead = sample_stats(&l).rows_read_ahead;
    OK(slu_pipeline_finish(l.p, err));
    OK(slu_pipeline_digest(l.p, digest, err));
    sample_end(&l);
    memory_store_clear();
}

START_TEST(test_reads_are_overlapped_and_change_nothing)
{
    char want[33], got[33];
    uint64_t ahead;
    learn(false, false, want, &ahead);
    ck_assert_uint_eq(ahead, 0);
    learn(true, true, got, &ahead);
    ck_assert_uint_ge(ahead, 128);
    ck_assert_str_eq(got, want);
}
END_TEST

/* A read that fails ahead is tried again by the step, which tells why if it fails too. */
START_TEST(test_a_failed_read)
{
    char want[33], got[33];
    uint64_t ahead;
    learn(false, false, want, &ahead);
    sample_life l = begin(true);
    feed(&l, 0, 200);
    OK(slu_pipeline_commit(l.p, err));
    sample_end(&l);
    l = begin(true);
    memory_store_hold_reads(true);
    feed(&l, 200, 280);
    memory_store_read_held();
    memory_store_fail(1);
    memory_store_hold_reads(false);
    feed(&l, 280, 400);
    OK(slu_pipeline_finish(l.p, err));
    OK(slu_pipeline_digest(l.p, got, err));
    sample_end(&l);
    ck_assert_str_eq(got, want);
}
END_TEST

/* ---- the reader alone ---- */

static void put_value(uint64_t id, const char *value)
{
    uint8_t key[SLU_ROW_KEY_BYTES];
    slu_row_key_write(key, 1, id);
    memory_store_put(SLU_FAMILY_ROWS, key, sizeof key, value, strlen(value));
}

START_TEST(test_what_is_read)
{
    slu_store *store;
    slu_row_reader *r;
    slu_store_config config = {.path = "memory", .create = true, .schema_text = ""};
    const void *value;
    size_t len;
    uint8_t key[SLU_ROW_KEY_BYTES];
    OK(slu_store_open(&config, &store, err));
    OK(slu_row_reader_start(store, 4, &r, err));
    for (uint64_t i = 0; i < 1000; i += 2)
        put_value(i, i % 10 == 4 ? "too long" : "abc");
    for (int round = 0; round < 3; round++) {
        for (uint64_t i = 0; i < 1000; i++) {
            slu_row_key_write(key, 1, i);
            slu_row_reader_want(r, key);
            slu_row_reader_want(r, key); /* once is enough */
        }
        slu_row_reader_arrive(r);
        for (uint64_t i = 0; i < 1000; i++) {
            slu_row_key_write(key, 1, i);
            bool found = slu_row_reader_find(r, key, &value, &len);
            ck_assert_int_eq(found, i < 960 && i % 10 != 4); /* whole groups; and what fits */
            ck_assert(!found || (i % 2 ? !value : len == 3 && !memcmp(value, "abc", 3)));
        }
        slu_row_reader_clear(r);
        ck_assert(!slu_row_reader_find(r, key, &value, &len));
    }
    for (uint64_t i = 0; i < 100000; i++) { /* beyond the bound */
        slu_row_key_write(key, 2, i);
        slu_row_reader_want(r, key);
    }
    slu_row_reader_arrive(r);
    ck_assert(!slu_row_reader_find(r, key, &value, &len));
    slu_row_reader_stop(r);
    slu_store_close(store);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("row_reader");
    TCase *c = tcase_create("row_reader");
    tcase_set_timeout(c, 60);
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, test_reads_are_overlapped_and_change_nothing);
    tcase_add_test(c, test_a_failed_read);
    tcase_add_test(c, test_what_is_read);
    suite_add_tcase(s, c);
    return sample_run(s);
}
