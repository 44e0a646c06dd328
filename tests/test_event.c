#include "tests/event_fixture.h"
#include <math.h>

/* ---- names and text ---- */

START_TEST(test_reason_names)
{
    for (int i = 0; i < SLU_DEAD_REASONS; i++) {
        const char *name = slu_dead_reason_name((slu_dead_reason)i);
        ck_assert_ptr_nonnull(name);
        ck_assert_str_ne(name, "unknown");
        for (int k = 0; k < i; k++)
            ck_assert_str_ne(name, slu_dead_reason_name((slu_dead_reason)k));
    }
    ck_assert_str_eq(slu_dead_reason_name(SLU_DEAD_TOO_LARGE), "too_large");
    ck_assert_str_eq(slu_dead_reason_name(SLU_DEAD_REASONS), "unknown");
}
END_TEST

START_TEST(test_utf8)
{
    static const struct {
        const char *text;
        size_t n;
        bool valid;
    } cases[] = {
        {"", 0, true},
        {"plain ascii, long enough for words", 34, true},
        {"caf\xc3\xa9", 5, true},
        {"\xe2\x82\xac", 3, true},
        {"\xf0\x9f\x98\x80", 4, true},
        {"\xf4\x8f\xbf\xbf", 4, true},         /* U+10FFFF */
        {"\xed\x9f\xbf\xee\x80\x80", 6, true}, /* around the surrogates */
        {"\xf4\x90\x80\x80", 4, false},        /* above */
        {"\xed\xa0\x80", 3, false},            /* surrogate */
        {"\xc0\x80", 2, false},                /* overlong NUL */
        {"\xc1\xbf", 2, false},
        {"\xe0\x9f\xbf", 3, false},
        {"\xf0\x8f\xbf\xbf", 4, false},
        {"\xf5\x80\x80\x80", 4, false},
        {"\x80", 1, false},
        {"\xc3", 1, false},
        {"\xe2\x82", 2, false},
        {"\xf0\x9f\x98", 3, false},
        {"\xc3\x28", 2, false},
        {"abc\0def", 7, false},
        {"abcdefgh\0bcdefgh", 16, false},
        {"abcdefg\xff", 8, false},
        {"abcdefgh\xc3", 9, false},
        {"\x01\x7f\x01\x7f\x01\x7f\x01\x7f", 8, true},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        ck_assert_msg(slu_utf8_valid(cases[i].text, cases[i].n) == cases[i].valid, "case %zu", i);
}
END_TEST

/* Every code point, by the definition of UTF-8 written the other way round. */
START_TEST(test_utf8_all_code_points)
{
    for (uint32_t c = 1; c < 0x110000; c++) {
        char t[4];
        size_t n = c < 0x80 ? 1 : c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
        for (size_t i = n - 1; i; i--)
            t[i] = (char)(0x80 | ((c >> (6 * (n - 1 - i))) & 0x3f));
        t[0] = (char)(n == 1 ? c : (0xf00u >> n & 0xff) | c >> (6 * (n - 1)));
        if (slu_utf8_valid(t, n) !=
            (c < 0xd800 || c > 0xdfff)) /* an assertion that holds costs a system call */
            ck_abort_msg("U+%X", c);
    }
}
END_TEST

/* ---- both encodings ---- */

static const slu_encoding encodings[] = {SLU_ENCODING_PROTOBUF, SLU_ENCODING_JSON};

/* Ids of a record, the measure of sameness. */
static slu_encoded *ids_of(const slu_values *fields)
{
    slu_encoder *e = slu_encoder_new(schema);
    slu_encoded *out = calloc(1, slu_encoded_max(schema));
    slu_encode(e, fields, out);
    slu_encoder_free(e);
    return out;
}

START_TEST(test_round_trip)
{
    const uint64_t seed = 4711;
    slu_value room[7 * MAX_FIELDS];
    slu_values fields[MAX_FIELDS];
    slu_buf b = SLU_BUF_INIT;
    slu_rng r;
    slu_rng_seed(&r, seed);
    for (int i = 0; i < 3000; i++) {
        sample_record(schema, &r, room, fields);
        slu_event in = {.kind = SLU_EVENT_IMPRESSION, .id = span("id \"\\\x01\xc3\xa9"), .fields = fields};
        in.impression_id = in.id;
        in.time_us = 1 + (int64_t)slu_rng_below(&r, SLU_MAX_TIME_US);
        in.model_version = slu_rng_below(&r, 3) ? slu_rng_u64(&r) >> 1 : 0;
        slu_buf_clear(&b);
        slu_put_u8(&b, 'x'); /* the event is appended */
        ck_assert_int_eq(slu_event_encode(schema, encodings[_i], &in, &b), 0);
        ck_assert_msg(decode(encodings[_i], SLU_UNKNOWN_REJECT, b.data + 1, b.len - 1) == 0,
                      "seed %llu record %d: %s", (unsigned long long)seed, i, err.message);
        ck_assert(event.id.n == in.id.n && event.time_us == in.time_us &&
                  event.model_version == in.model_version);
        for (uint32_t f = 0; f < slu_schema_fields(schema); f++)
            ck_assert_uint_eq(event.fields[f].n, fields[f].n);
        slu_encoded *want = ids_of(fields), *got = ids_of(event.fields);
        ck_assert_msg(want->bytes == got->bytes && !memcmp(want, got, want->bytes), "seed %llu record %d",
                      (unsigned long long)seed, i);
        free(want);
        free(got);
    }
    slu_buf_free(&b);
}
END_TEST

START_TEST(test_round_trip_step)
{
    slu_buf b = SLU_BUF_INIT;
    for (int named = 0; named < 2; named++) {
        slu_event in = {.kind = SLU_EVENT_STEP,
                        .id = span(named ? "e" : ""),
                        .impression_id = span("i"),
                        .step = 1,
                        .time_us = SLU_MAX_TIME_US};
        slu_buf_clear(&b);
        ck_assert_int_eq(slu_event_encode(schema, encodings[_i], &in, &b), 0);
        ck_assert_int_eq(decode(encodings[_i], SLU_UNKNOWN_REJECT, b.data, b.len), 0);
        ck_assert_int_eq(event.kind, SLU_EVENT_STEP);
        expect_span(event.id, named ? "e" : "");
        expect_span(event.impression_id, "i");
        ck_assert_uint_eq(event.step, 1);
        ck_assert_int_eq(event.time_us, SLU_MAX_TIME_US);
    }
    slu_buf_free(&b);
}
END_TEST

START_TEST(test_encode_refuses)
{
    slu_values fields[MAX_FIELDS] = {{NULL, 0}};
    slu_value v[2] = {slu_integer_value(1), slu_number_value(NAN)};
    slu_event in = {.kind = SLU_EVENT_IMPRESSION, .id = span("i"), .time_us = 5, .fields = fields};
    slu_buf b = SLU_BUF_INIT;
    slu_put_u8(&b, 'x');
    fields[2] = (slu_values){v, 2};
    ck_assert_int_eq(slu_event_encode(schema, encodings[_i], &in, &b), SLU_EINVAL);
    ck_assert_uint_eq(b.len, 1);
    slu_buf_free(&b);
}
END_TEST

START_TEST(test_id_limits)
{
    char text[SLU_MAX_ID_BYTES + 1];
    slu_values fields[MAX_FIELDS] = {{NULL, 0}};
    slu_buf b = SLU_BUF_INIT;
    memset(text, 'x', sizeof text);
    for (size_t n = SLU_MAX_ID_BYTES; n <= SLU_MAX_ID_BYTES + 1; n++) {
        slu_event in = {.kind = SLU_EVENT_IMPRESSION, .id = {text, n}, .time_us = 5, .fields = fields};
        slu_buf_clear(&b);
        ck_assert_int_eq(slu_event_encode(schema, encodings[_i], &in, &b), 0);
        int rc = decode(encodings[_i], SLU_UNKNOWN_REJECT, b.data, b.len);
        if (n == SLU_MAX_ID_BYTES)
            ck_assert_int_eq(rc, 0);
        else
            expect_dead(SLU_DEAD_MALFORMED, "impression.id has 257 bytes, at most 256");
    }
    slu_buf_free(&b);
}
END_TEST

START_TEST(test_list_limits)
{
    static slu_value v[SLU_MAX_VALUES + 1];
    slu_values fields[MAX_FIELDS] = {{NULL, 0}};
    slu_event in = {.kind = SLU_EVENT_IMPRESSION, .id = span("i"), .time_us = 5, .fields = fields};
    slu_buf b = SLU_BUF_INIT;
    for (int kind = 0; kind < 3; kind++)
        for (uint32_t n = SLU_MAX_VALUES; n <= SLU_MAX_VALUES + 1; n++) {
            for (uint32_t i = 0; i < n; i++)
                v[i] = kind == 0   ? slu_text_value("t", 1)
                       : kind == 1 ? slu_integer_value(i)
                                   : slu_number_value(i + .5);
            fields[sample_field(schema, "tags")] = (slu_values){v, n};
            slu_buf_clear(&b);
            ck_assert_int_eq(slu_event_encode(schema, encodings[_i], &in, &b), 0);
            int rc = decode(encodings[_i], SLU_UNKNOWN_REJECT, b.data, b.len);
            if (n == SLU_MAX_VALUES)
                ck_assert_uint_eq(field("tags")->n, n);
            else
                expect_dead(SLU_DEAD_TOO_LARGE, "feature 'tags' has 4097 values, at most 4096");
            ck_assert_int_eq(rc == 0, n == SLU_MAX_VALUES);
        }
    slu_buf_free(&b);
}
END_TEST

START_TEST(test_ten_mebibytes)
{
    char *huge = malloc(10 << 20);
    memset(huge, '[', 10 << 20);
    decode(encodings[_i], SLU_UNKNOWN_REJECT, huge, 10 << 20);
    expect_dead(SLU_DEAD_TOO_LARGE, "10485760 bytes, kafka.max_message_bytes allows 1048576");
    free(huge);
}
END_TEST

/* An event that does not fit into its arena is refused; afterwards a small one works again. */
START_TEST(test_arena_limit)
{
    static slu_value v[SLU_MAX_VALUES];
    slu_values fields[MAX_FIELDS] = {{NULL, 0}};
    slu_event in = {.kind = SLU_EVENT_IMPRESSION, .id = span("i"), .time_us = 5, .fields = fields};
    slu_buf b = SLU_BUF_INIT;
    for (uint32_t i = 0; i < SLU_MAX_VALUES; i++)
        v[i] = slu_integer_value(i);
    for (size_t limit = 1; limit <= 1u << 18; limit *= 2) {
        slu_arena_free(arena);
        arena = slu_arena_new(limit < 512 ? limit : 512, limit);
        if (!arena)
            continue;
        fields[sample_field(schema, "tags")] = (slu_values){v, SLU_MAX_VALUES};
        slu_buf_clear(&b);
        ck_assert_int_eq(slu_event_encode(schema, encodings[_i], &in, &b), 0);
        if (decode(encodings[_i], SLU_UNKNOWN_REJECT, b.data, b.len))
            expect_dead(SLU_DEAD_TOO_LARGE, "more memory than its limit");
        else
            ck_assert_uint_ge(limit, SLU_MAX_VALUES * sizeof *v);
        fields[sample_field(schema, "tags")].n = 2;
        slu_buf_clear(&b);
        ck_assert_int_eq(slu_event_encode(schema, encodings[_i], &in, &b), 0);
        if (limit >= 4096)
            ck_assert_int_eq(decode(encodings[_i], SLU_UNKNOWN_REJECT, b.data, b.len), 0);
    }
    slu_buf_free(&b);
}
END_TEST

START_TEST(test_check)
{
    slu_event e = {.kind = SLU_EVENT_STEP, .id = span(""), .impression_id = span("i"), .time_us = 5};
    ck_assert_int_eq(slu_event_check(&e, &why, NULL), 0);
    ck_assert_int_eq(why, SLU_DEAD_NONE);
    e.id = (slu_span){"a\0b", 3};
    ck_assert_int_eq(slu_event_check(&e, &why, &err), SLU_EINVAL);
    expect_dead(SLU_DEAD_MALFORMED, "step.id is not valid UTF-8 or holds a NUL byte");
}
END_TEST

int main(void)
{
    TCase *t = tcase_create("event");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_reason_names);
    tcase_add_test(t, test_utf8);
    tcase_add_test(t, test_utf8_all_code_points);
    tcase_add_loop_test(t, test_round_trip, 0, 2);
    tcase_add_loop_test(t, test_round_trip_step, 0, 2);
    tcase_add_loop_test(t, test_encode_refuses, 0, 2);
    tcase_add_loop_test(t, test_id_limits, 0, 2);
    tcase_add_loop_test(t, test_list_limits, 0, 2);
    tcase_add_loop_test(t, test_ten_mebibytes, 0, 2);
    tcase_add_loop_test(t, test_arena_limit, 0, 2);
    tcase_add_test(t, test_check);
    return run_suite("event", t);
}
