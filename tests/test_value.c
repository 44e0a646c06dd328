#include "feature/value.h"
#include "tests/feature_sample.h"
#include <check.h>
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static slu_schema *schema;
static slu_arena *arena;

static void setup(void)
{
    ck_assert_int_eq(slu_schema_new(&sample_options, &schema, NULL), 0);
    arena = slu_arena_new(0, 0);
}

static void teardown(void)
{
    slu_schema_free(schema);
    slu_arena_free(arena);
}

static void expect_text(slu_value v, const char *want)
{
    char scratch[SLU_VALUE_SCRATCH];
    slu_span got = slu_value_text(&v, scratch);
    ck_assert_msg(got.n == strlen(want) && !memcmp(got.p, want, got.n), "got '%.*s', want '%s'", (int)got.n,
                  got.p, want);
}

START_TEST(test_canonical_text)
{
    expect_text(slu_text_value("5.0", 3), "5.0");
    expect_text(slu_text_value(" x ", 3), " x ");
    expect_text(slu_integer_value(0), "0");
    expect_text(slu_integer_value(-7), "-7");
    expect_text(slu_integer_value(INT64_MIN), "-9223372036854775808");
    expect_text(slu_integer_value(INT64_MAX), "9223372036854775807");
    expect_text(slu_number_value(5.0), "5");
    expect_text(slu_number_value(-0.0), "0");
    expect_text(slu_number_value(-12345678901.0), "-12345678901");
    expect_text(slu_number_value(9.5), "9.5");
    expect_text(slu_number_value(0.1), "0.1");
    expect_text(slu_number_value(0.1 + 0.2), "0.30000000000000004");
    expect_text(slu_number_value(-0x1p63), "-9223372036854775808");
    expect_text(slu_number_value(0x1p63), "9.223372036854776e+18");
    expect_text(slu_number_value(1e300), "1e+300");
    expect_text(slu_number_value(-DBL_MAX), "-1.7976931348623157e+308");
    expect_text(slu_number_value(DBL_TRUE_MIN), "4.94065645841247e-324");
    expect_text(slu_number_value(NAN), "");
    expect_text(slu_number_value(INFINITY), "");
}
END_TEST

/* Whatever double: its text reads back as the same double, by our own parser too. */
START_TEST(test_text_reads_back)
{
    const uint64_t seed = 20260101;
    slu_rng r;
    slu_rng_seed(&r, seed);
    for (int i = 0; i < 200000; i++) {
        char scratch[SLU_VALUE_SCRATCH];
        uint64_t bits = slu_rng_u64(&r);
        double x, y;
        memcpy(&x, &bits, sizeof x);
        if (i % 3 == 1)
            x = (double)(int64_t)(bits >> 40) / 100;
        if (!isfinite(x))
            continue;
        slu_value v = slu_number_value(x);
        slu_span t = slu_value_text(&v, scratch);
        ck_assert_msg(t.n <= 24 && slu_number_parse(t.p, t.n, &y) && y == x,
                      "seed %llu draw %d: %a as '%.*s'", (unsigned long long)seed, i, x, (int)t.n, t.p);
    }
}
END_TEST

/* The fast path of the parser agrees with strtod(). */
START_TEST(test_parse_like_strtod)
{
    const uint64_t seed = 7;
    slu_rng r;
    slu_rng_seed(&r, seed);
    for (int i = 0; i < 200000; i++) {
        char text[64];
        double x = 0;
        int n = snprintf(text, sizeof text, "%s%llu.%0*llue%d", i % 2 ? "-" : "",
                         (unsigned long long)(slu_rng_u64(&r) >> (slu_rng_below(&r, 60) + 3)),
                         (int)slu_rng_below(&r, 6), (unsigned long long)slu_rng_below(&r, 1000),
                         (int)slu_rng_below(&r, 60) - 30);
        ck_assert_msg(slu_number_parse(text, (size_t)n, &x) && x == strtod(text, NULL),
                      "seed %llu: '%s' is %a", (unsigned long long)seed, text, x);
    }
}
END_TEST

START_TEST(test_parse_grammar)
{
    static const struct {
        const char *text;
        bool number;
        double x;
    } cases[] = {
        {"5", true, 5},
        {"-5", true, -5},
        {"+5", true, 5},
        {"5.", true, 5},
        {".5", true, .5},
        {"1e3", true, 1e3},
        {"1E-3", true, 1e-3},
        {"1e+3", true, 1e3},
        {"007", true, 7},
        {"0.1", true, 0.1},
        {"1e-400", true, 0},
        {"-0", true, 0},
        {"123456789012345678901234567890", true, 123456789012345678901234567890.},
        {"", false, 0},
        {".", false, 0},
        {"-", false, 0},
        {"e5", false, 0},
        {"5e", false, 0},
        {"5e+", false, 0},
        {" 5", false, 0},
        {"5 ", false, 0},
        {"0x10", false, 0},
        {"nan", false, 0},
        {"inf", false, 0},
        {"infinity", false, 0},
        {"1,000", false, 0},
        {"5..1", false, 0},
        {"1e400", false, 0},
        {"1e999999999999", false, 0},
        {"--5", false, 0},
        {"5f", false, 0},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        double x = 0;
        bool number = slu_number_parse(cases[i].text, strlen(cases[i].text), &x);
        ck_assert_msg(number == cases[i].number && (!number || x == cases[i].x), "'%s': %d %g", cases[i].text,
                      number, x);
    }
}
END_TEST

START_TEST(test_parse_long_text)
{
    char text[200];
    double x = 0;
    memset(text, '3', sizeof text);
    text[0] = '0';
    text[1] = '.';
    ck_assert(slu_number_parse(text, 127, &x));
    ck_assert_double_eq_tol(x, 1. / 3, 1e-15);
    ck_assert(!slu_number_parse(text, 128, &x));
}
END_TEST

START_TEST(test_same_value_same_id)
{
    slu_value text = slu_text_value("5", 1), integer = slu_integer_value(5), number = slu_number_value(5.0);
    slu_value other = slu_text_value("5.0", 3);
    ck_assert_uint_eq(slu_value_id(&text, 9), slu_value_id(&integer, 9));
    ck_assert_uint_eq(slu_value_id(&text, 9), slu_value_id(&number, 9));
    ck_assert_uint_ne(slu_value_id(&text, 9), slu_value_id(&other, 9));
    ck_assert_uint_ne(slu_value_id(&text, 9), slu_value_id(&text, 10));
}
END_TEST

START_TEST(test_missing_has_no_value_id)
{
    slu_value empty = slu_text_value("", 0), nan = slu_number_value(NAN);
    ck_assert_uint_eq(slu_value_id(&empty, 9), 0);
    ck_assert_uint_eq(slu_value_id(&nan, 9), 0);
    ck_assert_uint_ne(slu_missing_id(9), 0);
    ck_assert_uint_ne(slu_missing_id(9), slu_missing_id(10));
}
END_TEST

/* Ids are stored in every model: these may never change. */
START_TEST(test_known_ids)
{
    slu_value a = slu_text_value("a", 1), word = slu_text_value("Google F/C Long Sleeve Tee Charcoal", 35);
    slu_value n = slu_integer_value(-42), x = slu_number_value(0.1);
    ck_assert_uint_eq(slu_value_id(&a, 0), 0xe6c632b61e964e1fULL); /* plain XXH3, no seed */
    ck_assert_uint_eq(slu_value_id(&word, 1), 0xfc21846c13608ff1ULL);
    ck_assert_uint_eq(slu_value_id(&n, 1), 0x8d42a4dc052e07e2ULL);
    ck_assert_uint_eq(slu_value_id(&x, 1), 0x7fbae34b50b704b1ULL);
    ck_assert_uint_eq(slu_missing_id(1), 0x995ce2573fe236aULL);
    ck_assert_uint_eq(slu_bucket_id(0, 1), 0x1d13db4bed37cb77ULL);
    ck_assert_uint_eq(slu_bucket_id(3, 1), 0xb87872848e5abf0cULL);
}
END_TEST

static int from_text(const char *name, const char *text, size_t n, slu_values *out, slu_dead_reason *why)
{
    slu_values fields[16] = {{NULL, 0}};
    slu_error err = SLU_ERROR_INIT;
    uint32_t f = sample_field(schema, name);
    int rc = slu_field_from_text(schema, f, text, n, arena, fields, why, &err);
    *out = fields[f];
    if (rc)
        ck_assert_ptr_nonnull(strstr(err.message, name));
    return rc;
}

START_TEST(test_field_from_text)
{
    slu_values v;
    slu_dead_reason why;
    ck_assert_int_eq(from_text("user", "u|1", 3, &v, &why), 0);
    ck_assert_uint_eq(v.n, 1);
    ck_assert_uint_eq(v.v[0].v.text.n, 3);
    ck_assert_int_eq(from_text("user", "", 0, &v, &why), 0);
    ck_assert_uint_eq(v.n, 0);
    ck_assert_int_eq(from_text("tags", "red|green", 9, &v, &why), 0);
    ck_assert_uint_eq(v.n, 2);
    expect_text(v.v[0], "red");
    expect_text(v.v[1], "green");
    ck_assert_int_eq(from_text("tags", "|a||b|", 6, &v, &why), 0);
    ck_assert_uint_eq(v.n, 2);
    expect_text(v.v[1], "b");
    ck_assert_int_eq(from_text("tags", "|||", 3, &v, &why), 0);
    ck_assert_uint_eq(v.n, 0);
}
END_TEST

START_TEST(test_field_from_bad_text)
{
    static char many[3 * SLU_MAX_VALUES];
    slu_values v;
    slu_dead_reason why;
    ck_assert_int_eq(from_text("user", "\xff", 1, &v, &why), SLU_EINVAL);
    ck_assert_int_eq(why, SLU_DEAD_MALFORMED);
    ck_assert_int_eq(from_text("user", "a\0b", 3, &v, &why), SLU_EINVAL);
    for (size_t i = 0; i < sizeof many; i++)
        many[i] = i % 2 ? '|' : 'x';
    ck_assert_int_eq(from_text("tags", many, 2 * SLU_MAX_VALUES, &v, &why), 0);
    ck_assert_uint_eq(v.n, SLU_MAX_VALUES);
    ck_assert_int_eq(from_text("tags", many, sizeof many, &v, &why), SLU_EINVAL);
    ck_assert_int_eq(why, SLU_DEAD_TOO_LARGE);
    ck_assert_uint_eq(v.n, 0);
    slu_arena_free(arena);
    arena = slu_arena_new(1024, 1024);
    ck_assert_int_eq(from_text("tags", many, 2 * SLU_MAX_VALUES, &v, &why), SLU_EINVAL);
    ck_assert_int_eq(why, SLU_DEAD_TOO_LARGE);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("value");
    TCase *t = tcase_create("value");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_canonical_text);
    tcase_add_test(t, test_text_reads_back);
    tcase_add_test(t, test_parse_like_strtod);
    tcase_add_test(t, test_parse_grammar);
    tcase_add_test(t, test_parse_long_text);
    tcase_add_test(t, test_same_value_same_id);
    tcase_add_test(t, test_missing_has_no_value_id);
    tcase_add_test(t, test_known_ids);
    tcase_add_test(t, test_field_from_text);
    tcase_add_test(t, test_field_from_bad_text);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
