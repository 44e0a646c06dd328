/* tests/event_fixture.h - decodes events of the sample schema and looks at what came out; for the tests of
 * both encodings. */
#pragma once
#include "tests/feature_sample.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_FIELDS 32

static slu_schema *schema;
static slu_arena *arena;
static slu_event event; /* of the last decode */
static slu_dead_reason why;
static slu_error err;
static void *input; /* what |event| points into */

__attribute__((unused)) static void setup(void)
{
    ck_assert_int_eq(slu_schema_new(&sample_options, &schema, NULL), 0);
    arena = slu_arena_new(0, 0);
}

__attribute__((unused)) static void teardown(void)
{
    slu_arena_free(arena);
    slu_schema_free(schema);
    free(input);
}

__attribute__((unused)) static int decode(slu_encoding encoding, slu_unknown_policy unknown,
                                          const void *bytes, size_t n)
{
    /* A copy of exactly that size, so that ASan sees a read too far. */
    free(input);
    input = malloc(n ? n : 1);
    memcpy(input, bytes, n);
    slu_error_clear(&err);
    why = SLU_DEAD_REASONS;
    slu_arena_reset(arena);
    int rc = slu_event_decode(schema, encoding, unknown, input, n, arena, &event, &why, &err);
    ck_assert_int_eq(rc == 0, why == SLU_DEAD_NONE);
    ck_assert_int_eq(rc, err.code);
    return rc;
}

__attribute__((unused)) static void expect_dead(slu_dead_reason reason, const char *part)
{
    ck_assert_int_eq(err.code, SLU_EINVAL);
    ck_assert_msg(why == reason && strstr(err.message, part), "want %s and '%s', got %s: %s",
                  slu_dead_reason_name(reason), part, slu_dead_reason_name(why), err.message);
}

__attribute__((unused)) static slu_span span(const char *text)
{
    return (slu_span){text, strlen(text)};
}

__attribute__((unused)) static void expect_span(slu_span got, const char *want)
{
    ck_assert_msg(got.n == strlen(want) && !memcmp(got.p, want, got.n), "got '%.*s', want '%s'", (int)got.n,
                  got.p, want);
}

__attribute__((unused)) static const slu_values *field(const char *name)
{
    return &event.fields[sample_field(schema, name)];
}

__attribute__((unused)) static void expect_value(const char *name, uint32_t i, const char *want)
{
    char scratch[SLU_VALUE_SCRATCH];
    ck_assert_uint_lt(i, field(name)->n);
    expect_span(slu_value_text(&field(name)->v[i], scratch), want);
}

/* Runs the suite of |tcase|; returns main()'s status. */
static int run_suite(const char *name, TCase *t)
{
    Suite *s = suite_create(name);
    tcase_set_timeout(t, 120);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
