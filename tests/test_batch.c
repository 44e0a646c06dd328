#include "tests/pipeline_sample.h"
#include "trainer/batch.h"

static slu_options *options;
static slu_schema *schema;
static slu_encoder *encoder;
static slu_encoded *x;

static void set_up(void)
{
    options = sample_options(NULL, 0);
    schema = sample_schema(options);
    encoder = slu_encoder_new(schema);
    x = malloc(slu_encoded_max(schema));
}

static void tear_down(void)
{
    free(x);
    slu_encoder_free(encoder);
    slu_schema_free(schema);
    slu_options_free(options);
}

static void add(slu_batch *b, const char *user, uint8_t labels)
{
    slu_value values[4];
    slu_values fields[4];
    slu_event e = sample_impression(schema, "x", T0, user, "i", values, fields);
    slu_encode(encoder, e.fields, x);
    slu_sample s = {.key = {labels, 9},
                    .time_us = T0 + labels,
                    .say = {1, 2},
                    .labels = labels,
                    .arrival = labels & 1,
                    .x = x};
    slu_batch_add(b, &s, T0 + 100 + labels);
}

START_TEST(test_owns_copies_and_ages_from_the_first)
{
    slu_batch *b = slu_batch_new(schema, 2);
    ck_assert_int_eq(slu_batch_opened_us(b), INT64_MAX);
    add(b, "one", 0);
    add(b, "two", 1);
    ck_assert(slu_batch_full(b));
    ck_assert_int_eq(slu_batch_opened_us(b), T0 + 100);
    ck_assert_uint_ne(slu_encoded_ids(slu_batch_at(b, 0)->x)[0], slu_encoded_ids(slu_batch_at(b, 1)->x)[0]);
    slu_batch_clear(b);
    ck_assert_uint_eq(slu_batch_count(b), 0);
    slu_batch_free(b);
}
END_TEST

START_TEST(test_stored_and_back)
{
    slu_batch *b = slu_batch_new(schema, 4), *back = slu_batch_new(schema, 4);
    for (uint8_t i = 0; i < 3; i++)
        add(b, i ? "u" : "v", i);
    slu_buf saved = SLU_BUF_INIT, again = SLU_BUF_INIT;
    slu_batch_save(b, &saved);
    OK(slu_batch_load(back, saved.data, saved.len, err));
    slu_batch_save(back, &again);
    ck_assert_uint_eq(saved.len, again.len);
    ck_assert_int_eq(memcmp(saved.data, again.data, saved.len), 0);
    ck_assert_int_eq(slu_batch_opened_us(back), slu_batch_opened_us(b));
    for (size_t cut = 0; cut < saved.len; cut++) {
        slu_error err = SLU_ERROR_INIT;
        ck_assert_int_eq(slu_batch_load(back, saved.data, cut, &err), SLU_ECORRUPT);
        ck_assert_uint_eq(slu_batch_count(back), 0);
    }
    /* A config with smaller batches cannot take it and says what to do. */
    slu_batch *small = slu_batch_new(schema, 2);
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_batch_load(small, saved.data, saved.len, &err), SLU_ECONFIG);
    ck_assert_ptr_nonnull(strstr(err.message, "batch_size"));
    slu_buf_free(&saved);
    slu_buf_free(&again);
    slu_batch_free(small);
    slu_batch_free(back);
    slu_batch_free(b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("batch");
    TCase *c = tcase_create("batch");
    tcase_add_checked_fixture(c, set_up, tear_down);
    tcase_add_test(c, test_owns_copies_and_ages_from_the_first);
    tcase_add_test(c, test_stored_and_back);
    suite_add_tcase(s, c);
    return sample_run(s);
}
