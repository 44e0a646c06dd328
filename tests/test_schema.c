#include "tests/feature_sample.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

static slu_schema *schema;
static slu_feature_opts features[COUNT_OF(sample_features)];
static slu_options options; /* a copy that a test may change */

static void setup(void)
{
    memcpy(features, sample_features, sizeof features);
    options = sample_options;
    options.features = features;
    ck_assert_int_eq(slu_schema_new(&sample_options, &schema, NULL), 0);
}

static void teardown(void)
{
    slu_schema_free(schema);
}

static uint32_t slot_of(const char *name)
{
    for (uint32_t i = 0; i < slu_schema_slots(schema); i++)
        if (!strcmp(slu_schema_slot(schema, i)->opts->name, name))
            return i;
    ck_abort_msg("no slot %s", name);
    return 0;
}

static const slu_slot *slot(const char *name)
{
    return slu_schema_slot(schema, slot_of(name));
}

START_TEST(test_sizes)
{
    ck_assert_uint_eq(slu_schema_slots(schema), COUNT_OF(sample_features));
    ck_assert_uint_eq(slu_schema_fields(schema), 9);  /* price and age are read twice, crosses read none */
    ck_assert_uint_eq(slu_schema_tables(schema), 10); /* 11 slots with ids, recent shares item's */
    ck_assert_uint_eq(slu_schema_numbers(schema), 3);
    /* 8+4+8+2+4+8 + price 1 + bucket 4 + age 1 + score 1 + bucket 4 + wide only 0 + 4 + 4 */
    ck_assert_uint_eq(slu_schema_inputs(schema), 53);
    ck_assert_uint_eq(slu_schema_max_ids(schema), 4 + 3 + 4 + 2 + 1 + 5 + 1);
    ck_assert_uint_eq(slu_schema_steps(schema), 2);
    ck_assert_ptr_eq(slu_schema_options(schema), &sample_options);
}
END_TEST

START_TEST(test_inputs_follow_slots)
{
    uint32_t input = 0, number = 0;
    for (uint32_t i = 0; i < slu_schema_slots(schema); i++) {
        const slu_slot *s = slu_schema_slot(schema, i);
        ck_assert_uint_eq(s->input, input);
        if (s->table == SLU_NO_TABLE)
            ck_assert_uint_eq(s->number, number++);
        else
            ck_assert_uint_eq(s->width, slu_schema_table(schema, s->table)->dimension);
        input += s->width;
    }
    ck_assert_uint_eq(input, slu_schema_inputs(schema));
    ck_assert_uint_eq(number, slu_schema_numbers(schema));
}
END_TEST

/* The run of columns without an item's that is longest, found column by column. */
START_TEST(test_shared_columns)
{
    slu_options store = store_options();
    for (int which = 0; which < 2; which++) {
        slu_schema *s;
        bool shared[512] = {false};
        ck_assert_int_eq(slu_schema_new(which ? &store : &sample_options, &s, NULL), 0);
        for (uint32_t i = 0; i < slu_schema_slots(s); i++)
            for (uint32_t k = 0; k < slu_schema_slot(s, i)->width; k++)
                shared[slu_schema_slot(s, i)->input + k] = slu_schema_slot(s, i)->shared;
        uint32_t first, width, best = 0, at = 0;
        for (uint32_t k = 0, run = 0; k < slu_schema_inputs(s); k++) {
            run = shared[k] ? run + 1 : 0;
            if (run > best) {
                best = run;
                at = k + 1 - run;
            }
        }
        slu_schema_shared_columns(s, &first, &width);
        ck_assert_uint_gt(width, 0);
        ck_assert_uint_eq(width, best);
        ck_assert_uint_eq(first, at);
        slu_schema_free(s);
    }
}
END_TEST

START_TEST(test_sides)
{
    ck_assert(slot("user")->shared);
    ck_assert(slot("device")->shared);
    ck_assert(!slot("item")->shared);
    ck_assert(slot("user_x_device")->shared);
    ck_assert(!slot("item_x_slot")->shared);
    ck_assert(!slot("lists")->shared);
    ck_assert_int_eq(slu_schema_field_side(schema, sample_field(schema, "device")), SLU_CONTEXT);
    ck_assert_int_eq(slu_schema_field_side(schema, sample_field(schema, "price")), SLU_ITEM);
}
END_TEST

/* A field that an item feature reads belongs to the item for everybody. */
START_TEST(test_field_of_two_sides)
{
    slu_schema *s;
    features[slot_of("age_bucket")].side = SLU_ITEM;
    ck_assert_int_eq(slu_schema_new(&options, &s, NULL), 0);
    ck_assert_int_eq(slu_schema_field_side(s, sample_field(s, "age")), SLU_ITEM);
    ck_assert(!slu_schema_slot(s, slot_of("age"))->shared);
    ck_assert(!slu_schema_slot(s, slot_of("age_bucket"))->shared);
    slu_schema_free(s);
}
END_TEST

START_TEST(test_tables)
{
    const slu_table *item = slu_schema_table(schema, slot("item")->table);
    ck_assert_uint_eq(slot("recent")->table, slot("item")->table);
    ck_assert_uint_eq(slot("recent")->seed, slot("item")->seed);
    ck_assert_uint_ne(slot("user")->seed, slot("item")->seed);
    ck_assert_uint_eq(slot("slot")->seed, 77);
    ck_assert_str_eq(item->name, "item");
    ck_assert(item->wide);
    ck_assert(!slot("recent")->wide);
    ck_assert_uint_eq(slot("price")->table, SLU_NO_TABLE);
    ck_assert_uint_ne(slot("price_bucket")->table, SLU_NO_TABLE);
    ck_assert_uint_eq(slot("item_x_slot")->width, 0);
    ck_assert(slot("item_x_slot")->wide);
}
END_TEST

START_TEST(test_wide_off)
{
    slu_schema *s;
    options.model.wide = false;
    ck_assert_int_eq(slu_schema_new(&options, &s, NULL), 0);
    for (uint32_t i = 0; i < slu_schema_slots(s); i++)
        ck_assert(!slu_schema_slot(s, i)->wide);
    for (uint32_t i = 0; i < slu_schema_tables(s); i++)
        ck_assert(!slu_schema_table(s, i)->wide);
    slu_schema_free(s);
}
END_TEST

START_TEST(test_shared_table_limits)
{
    static const int64_t ttls[][3] = {{0, 0, 0}, {5, 9, 9}, {9, 5, 9}, {0, 5, 0}, {5, 0, 0}};
    for (size_t i = 0; i < COUNT_OF(ttls); i++) {
        slu_schema *s;
        features[slot_of("item")].ttl_us = ttls[i][0];
        features[slot_of("recent")].ttl_us = ttls[i][1];
        features[slot_of("item")].admit_after = 2;
        features[slot_of("recent")].admit_after = 3;
        ck_assert_int_eq(slu_schema_new(&options, &s, NULL), 0);
        const slu_table *t = slu_schema_table(s, slot("item")->table);
        ck_assert_int_eq(t->ttl_us, ttls[i][2]);
        ck_assert_uint_eq(t->admit_after, 3);
        slu_schema_free(s);
    }
}
END_TEST

START_TEST(test_lookup)
{
    for (uint32_t i = 0; i < slu_schema_fields(schema); i++) {
        const char *name = slu_schema_field_name(schema, i);
        ck_assert_int_eq(slu_schema_field_find(schema, name, strlen(name)), (int)i);
        ck_assert_int_lt(slu_schema_field_find(schema, name, strlen(name) - 1), 0);
    }
    ck_assert_int_lt(slu_schema_field_find(schema, "price_bucket", 12), 0); /* a feature, but not a field */
    ck_assert_int_lt(slu_schema_field_find(schema, "", 0), 0);
    ck_assert_int_lt(slu_schema_field_find(schema, "user\0", 5), 0);
    ck_assert_int_eq(slu_schema_step_find(schema, "click", 5), 0);
    ck_assert_int_eq(slu_schema_step_find(schema, "conversion", 10), 1);
    ck_assert_int_lt(slu_schema_step_find(schema, "cart", 4), 0);
    ck_assert(slu_schema_field_multi(schema, sample_field(schema, "tags")));
    ck_assert(!slu_schema_field_multi(schema, sample_field(schema, "item")));
}
END_TEST

START_TEST(test_lookup_of_many)
{
    static slu_feature_opts many[SLU_MAX_FEATURES];
    static char names[SLU_MAX_FEATURES][16];
    slu_schema *s;
    for (int i = 0; i < SLU_MAX_FEATURES; i++) {
        snprintf(names[i], sizeof names[i], "f%d", i);
        many[i] = (slu_feature_opts){.name = names[i], .dimension = 4};
    }
    options.features = many;
    options.n_features = SLU_MAX_FEATURES;
    ck_assert_int_eq(slu_schema_new(&options, &s, NULL), 0);
    for (int i = 0; i < SLU_MAX_FEATURES; i++)
        ck_assert_int_eq(slu_schema_field_find(s, names[i], strlen(names[i])), i);
    slu_schema_free(s);
}
END_TEST

static void expect_refused(const char *part)
{
    slu_schema *s;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_schema_new(&options, &s, &err), SLU_ECONFIG);
    ck_assert_ptr_null(s);
    ck_assert_msg(strstr(err.message, part) != NULL, "%s", err.message);
}

START_TEST(test_two_dimensions)
{
    features[slot_of("recent")].dimension = 4;
    expect_refused("feature 'recent': table 'item' has dimension 8");
}
END_TEST

START_TEST(test_cross_of_number)
{
    static char *of[] = {(char *)"item", (char *)"price"};
    features[slot_of("item_x_slot")].of = of;
    expect_refused("feature 'item_x_slot': of: 'price'");
    of[1] = (char *)"colour";
    expect_refused("'colour'");
    of[1] = (char *)"lists";
    expect_refused("'lists'");
}
END_TEST

START_TEST(test_too_many_ids)
{
    features[slot_of("tags")].max_ids = 70000;
    expect_refused("65535");
}
END_TEST

START_TEST(test_empty_schema)
{
    slu_schema *s;
    options.n_features = 0;
    ck_assert_int_eq(slu_schema_new(&options, &s, NULL), 0);
    ck_assert_uint_eq(slu_schema_inputs(s), 0);
    ck_assert_int_lt(slu_schema_field_find(s, "x", 1), 0);
    slu_schema_free(s);
    slu_schema_free(NULL);
}
END_TEST

/* Stored with every model: a change here strands every store, so it must be meant (and raise the format). */
START_TEST(test_known_text)
{
    const char *text = slu_schema_text(schema);
    ck_assert_ptr_eq(strstr(text, "sluice-schema format=1\nstep \"click\" window_us=3600000000\n"), text);
    ck_assert_ptr_nonnull(
        strstr(text, "\nfeature \"price_bucket\" kind=numeric source=\"price\" table=\"price_bucket\" "
                     "dimension=4 wide=0 seed="));
    ck_assert_ptr_nonnull(strstr(text, "transform=bucket buckets=0,10,100\n"));
    ck_assert_ptr_nonnull(strstr(text, "transform=standardize mean=40 deviation=10\n"));
    ck_assert_ptr_nonnull(strstr(text, "pooling=sum max_ids=5 of=\"tags\",\"recent\",\"price_bucket\"\n"));
    ck_assert_ptr_nonnull(
        strstr(text, "model architecture=\"esmm\"\nmodel towers=16,8\nmodel norm=none\nmodel wide=1\n"));
    ck_assert_uint_eq(slu_schema_fingerprint(schema), 12227584918271326415ULL);
}
END_TEST

static int compare(slu_error *err)
{
    slu_schema *s;
    ck_assert_int_eq(slu_schema_new(&options, &s, NULL), 0);
    int rc = slu_schema_compare(s, slu_schema_text(schema), "store /x", err);
    ck_assert_int_eq(rc == 0, slu_schema_fingerprint(s) == slu_schema_fingerprint(schema));
    slu_schema_free(s);
    return rc;
}

static void expect_same(void)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(compare(&err) == 0, "%s", err.message);
}

static void expect_difference(const char *part)
{
    slu_error err = SLU_ERROR_INIT;
    char ours[32];
    snprintf(ours, sizeof ours, "schema %016llx, ", (unsigned long long)slu_schema_fingerprint(schema));
    ck_assert_int_eq(compare(&err), SLU_ESCHEMA);
    ck_assert_msg(strstr(err.message, part) && strstr(err.message, "store /x was made for") &&
                      strstr(err.message, ours) && strstr(err.message, "restore the config"),
                  "want '%s' in: %s", part, err.message);
}

START_TEST(test_compare_same)
{
    expect_same();
    features[slot_of("user")].admit_after = 5; /* these only steer learning */
    features[slot_of("user")].ttl_us = 1000;
    options.steps = (slu_step_opts[]){sample_steps[0], sample_steps[1]};
    options.steps[0].weight = 3;
    options.model.seed = 9;
    options.model.experts = 4; /* esmm has none */
    expect_same();
}
END_TEST

#define CHANGE(statement, part)                                                                              \
    do {                                                                                                     \
        teardown();                                                                                          \
        setup();                                                                                             \
        statement;                                                                                           \
        expect_difference(part);                                                                             \
    } while (0)

START_TEST(test_compare_differences)
{
    static double other_buckets[] = {0, 10, 100.5};
    static uint32_t wider[] = {16, 9};
    static char *swapped[] = {(char *)"slot", (char *)"item"};
    slu_step_opts steps[3] = {sample_steps[0], sample_steps[1], {(char *)"refund", 1, 1}};
    CHANGE(features[0].dimension = 16, "first difference in feature \"user\": stored 'feature \"user\"");
    CHANGE(features[0].seed = 1, "feature \"user\"");
    CHANGE(features[0].wide = false, "feature \"user\"");
    CHANGE(features[slot_of("score")].name = (char *)"points", "feature \"points\"");
    CHANGE(features[1].missing = (char *)"tablet", "missing=\"tablet\"");
    CHANGE(features[1].missing = NULL, "feature \"device\"");
    CHANGE(features[0].source = (char *)"uid", "source=\"uid\"");
    CHANGE(features[slot_of("tags")].pooling = SLU_POOL_SUM, "pooling=mean");
    CHANGE(features[slot_of("tags")].max_ids = 2, "feature \"tags\"");
    CHANGE(features[slot_of("price")].transform = SLU_TRANSFORM_NONE, "transform=log");
    CHANGE(features[slot_of("age")].mean = 41, "mean=41");
    CHANGE(features[slot_of("price_bucket")].buckets = other_buckets, "buckets=0,10,100.5");
    CHANGE(features[slot_of("price_bucket")].n_buckets = 2, "feature \"price_bucket\"");
    CHANGE(features[slot_of("item_x_slot")].of = swapped, "of=\"slot\",\"item\"");
    CHANGE(options.n_features--, "feature \"user_x_device\"");
    CHANGE((options.steps = steps, options.n_steps = 3), "step \"refund\"");
    CHANGE((options.steps = steps, steps[1].window_us = 5), "in step \"conversion\"");
    CHANGE(options.model.architecture = (char *)"mmoe", "model architecture");
    CHANGE(options.model.towers = wider,
           "in model towers: stored 'model towers=16,8', config 'model towers=16,9'");
    CHANGE(options.model.norm = SLU_NORM_BATCH, "model norm");
    CHANGE(options.model.wide = false, "feature \"user\"");
}
END_TEST

START_TEST(test_compare_odd_text)
{
    static const char *const odd[] = {"", "\n", "x", "sluice-schema format=1",
                                      "sluice-schema format=1\n\n\n"};
    for (size_t i = 0; i < COUNT_OF(odd); i++) {
        slu_error err = SLU_ERROR_INIT;
        ck_assert_int_eq(slu_schema_compare(schema, odd[i], "delta topic d", &err), SLU_ESCHEMA);
        ck_assert_ptr_nonnull(strstr(err.message, "delta topic d"));
    }
    size_t n = strlen(slu_schema_text(schema));
    for (size_t cut = 0; cut < n; cut++) {
        char *text = strndup(slu_schema_text(schema), cut);
        ck_assert_int_eq(slu_schema_compare(schema, text, "store", NULL), SLU_ESCHEMA);
        free(text);
    }
}
END_TEST

/* A long line is shown around the place where it differs. */
START_TEST(test_compare_long_line)
{
    static double many[500], other[500];
    slu_schema *s;
    slu_error err = SLU_ERROR_INIT;
    for (int i = 0; i < 500; i++)
        many[i] = other[i] = i + 0.25;
    other[400] = 400.75;
    features[slot_of("price_bucket")].buckets = many;
    features[slot_of("price_bucket")].n_buckets = 500;
    ck_assert_int_eq(slu_schema_new(&options, &s, NULL), 0);
    char *before = strdup(slu_schema_text(s));
    slu_schema_free(s);
    features[slot_of("price_bucket")].buckets = other;
    ck_assert_int_eq(slu_schema_new(&options, &s, NULL), 0);
    ck_assert_int_eq(slu_schema_compare(s, before, "store", &err), SLU_ESCHEMA);
    ck_assert_msg(strstr(err.message, "400.25") && strstr(err.message, "400.75"), "%s", err.message);
    slu_schema_free(s);
    free(before);
}
END_TEST

START_TEST(test_names_are_escaped)
{
    slu_schema *s;
    features[slot_of("score")].name = (char *)"a\"b\n\\";
    ck_assert_int_eq(slu_schema_new(&options, &s, NULL), 0);
    ck_assert_ptr_nonnull(strstr(slu_schema_text(s), "feature \"a\\x22b\\x0a\\x5c\" kind"));
    slu_schema_free(s);
}
END_TEST

/* The shipped configurations, through the real loader. */
START_TEST(test_examples)
{
    static const struct {
        const char *path;
        uint32_t slots, fields, inputs, numbers;
    } cases[] = {{"examples/storefront.yaml", 19, 17, 19 * 16, 0},
                 {"examples/ads.yaml", 13, 11, 11 * 8 + 1, 1}};
    slu_options *o;
    slu_schema *s;
    slu_error e = SLU_ERROR_INIT;
    ck_assert_msg(slu_options_load(cases[_i].path, NULL, 0, &o, &e) == 0, "%s", e.message);
    ck_assert_msg(slu_schema_new(o, &s, &e) == 0, "%s", e.message);
    ck_assert_uint_eq(slu_schema_slots(s), cases[_i].slots);
    ck_assert_uint_eq(slu_schema_fields(s), cases[_i].fields);
    ck_assert_uint_eq(slu_schema_inputs(s), cases[_i].inputs);
    ck_assert_uint_eq(slu_schema_numbers(s), cases[_i].numbers);
    slu_schema_free(s);
    slu_options_free(o);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("schema");
    TCase *t = tcase_create("schema");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_sizes);
    tcase_add_test(t, test_inputs_follow_slots);
    tcase_add_test(t, test_shared_columns);
    tcase_add_test(t, test_sides);
    tcase_add_test(t, test_field_of_two_sides);
    tcase_add_test(t, test_tables);
    tcase_add_test(t, test_wide_off);
    tcase_add_test(t, test_shared_table_limits);
    tcase_add_test(t, test_lookup);
    tcase_add_test(t, test_lookup_of_many);
    tcase_add_test(t, test_two_dimensions);
    tcase_add_test(t, test_cross_of_number);
    tcase_add_test(t, test_too_many_ids);
    tcase_add_test(t, test_empty_schema);
    tcase_add_test(t, test_known_text);
    tcase_add_test(t, test_compare_same);
    tcase_add_test(t, test_compare_differences);
    tcase_add_test(t, test_compare_odd_text);
    tcase_add_test(t, test_compare_long_line);
    tcase_add_test(t, test_names_are_escaped);
    tcase_add_loop_test(t, test_examples, 0, 2);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
