#include "base/metrics.h"
#include "sluice/v1/event.pb-c.h"
#include "tests/feature_sample.h"
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_FIELDS 32

static slu_schema *schema;
static slu_arena *arena;
static slu_event event; /* of the last decode */
static slu_dead_reason why;
static slu_error err;

static void setup(void)
{
    ck_assert_int_eq(slu_schema_new(&sample_options, &schema, NULL), 0);
    arena = slu_arena_new(0, 0);
}

static void teardown(void)
{
    slu_arena_free(arena);
    slu_schema_free(schema);
}

static int decode(slu_encoding encoding, slu_unknown_policy unknown, const void *bytes, size_t n)
{
    /* A copy of exactly that size, so that ASan sees a read too far. */
    void *copy = malloc(n ? n : 1);
    memcpy(copy, bytes, n);
    slu_error_clear(&err);
    why = SLU_DEAD_REASONS;
    slu_arena_reset(arena);
    int rc = slu_event_decode(schema, encoding, unknown, copy, n, arena, &event, &why, &err);
    free(copy);
    ck_assert_int_eq(rc == 0, why == SLU_DEAD_NONE);
    ck_assert_int_eq(rc, err.code);
    return rc;
}

static int decode_json(const char *text)
{
    return decode(SLU_ENCODING_JSON, SLU_UNKNOWN_REJECT, text, strlen(text));
}

static void expect_dead(slu_dead_reason reason, const char *part)
{
    ck_assert_int_eq(err.code, SLU_EINVAL);
    ck_assert_msg(why == reason && strstr(err.message, part), "want %s and '%s', got %s: %s",
                  slu_dead_reason_name(reason), part, slu_dead_reason_name(why), err.message);
}

static void json_dead(const char *text, slu_dead_reason reason, const char *part)
{
    decode_json(text);
    expect_dead(reason, part);
}

static slu_span span(const char *text)
{
    return (slu_span){text, strlen(text)};
}

static void expect_span(slu_span got, const char *want)
{
    ck_assert_msg(got.n == strlen(want) && !memcmp(got.p, want, got.n), "got '%.*s', want '%s'", (int)got.n,
                  got.p, want);
}

static const slu_values *field(const char *name)
{
    return &event.fields[sample_field(schema, name)];
}

static void expect_value(const char *name, uint32_t i, const char *want)
{
    char scratch[SLU_VALUE_SCRATCH];
    ck_assert_uint_lt(i, field(name)->n);
    expect_span(slu_value_text(&field(name)->v[i], scratch), want);
}

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

/* ---- JSON ---- */

START_TEST(test_json_impression)
{
    ck_assert_int_eq(
        decode_json("{\"impression\": {\"id\": \"i1\", \"time_us\": 1700000000000000, \"model_version\": 7, "
                    "\"served\": [{}],"
                    " \"features\": {\"item\": \"a\", \"tags\": [\"x\", 5, true, null, 2.5], \"price\": 9.5, "
                    "\"user\": "
                    "42, \"device\": null, \"slot\": false, \"recent\": [null]}}, \"trace\": \"t\"}"),
        0);
    ck_assert_int_eq(event.kind, SLU_EVENT_IMPRESSION);
    expect_span(event.id, "i1");
    expect_span(event.impression_id, "i1");
    ck_assert_int_eq(event.time_us, 1700000000000000);
    ck_assert_uint_eq(event.model_version, 7);
    expect_value("item", 0, "a");
    ck_assert_uint_eq(field("tags")->n, 4);
    expect_value("tags", 1, "5");
    expect_value("tags", 2, "true");
    expect_value("tags", 3, "2.5");
    expect_value("price", 0, "9.5");
    expect_value("user", 0, "42");
    expect_value("slot", 0, "false");
    ck_assert_uint_eq(field("device")->n, 0);
    ck_assert_uint_eq(field("recent")->n, 0);
    ck_assert_uint_eq(field("age")->n, 0);
}
END_TEST

START_TEST(test_json_step)
{
    ck_assert_int_eq(
        decode_json("{\"step\": {\"id\": \"e7\", \"step\": \"conversion\", \"impression_id\": 12, "
                    "\"time_us\": 1700000000500000}}"),
        0);
    ck_assert_int_eq(event.kind, SLU_EVENT_STEP);
    expect_span(event.id, "e7");
    expect_span(event.impression_id, "12");
    ck_assert_uint_eq(event.step, 1);
    ck_assert_int_eq(event.time_us, 1700000000500000);
    ck_assert_int_eq(
        decode_json("{\"step\": {\"step\": \"click\", \"impression_id\": \"i\", \"time_us\": 1}}"), 0);
    ck_assert_uint_eq(event.id.n, 0);
}
END_TEST

#define IMPRESSION(features) "{\"impression\":{\"id\":\"i\",\"time_us\":5,\"features\":" features "}}"

START_TEST(test_json_bad)
{
    static const struct {
        const char *text;
        slu_dead_reason reason;
        const char *part;
    } cases[] = {
        {"", SLU_DEAD_MALFORMED, "empty"},
        {"{", SLU_DEAD_MALFORMED, "not JSON"},
        {"nonsense", SLU_DEAD_MALFORMED, "not JSON"},
        {"{} {}", SLU_DEAD_MALFORMED, "not JSON"},
        {"[]", SLU_DEAD_MALFORMED, "an array"},
        {"{}", SLU_DEAD_MALFORMED, "neither"},
        {"{\"impression\":{},\"step\":{}}", SLU_DEAD_MALFORMED, "both"},
        {"{\"impression\":5}", SLU_DEAD_MALFORMED, "impression is a number"},
        {"{\"step\":null}", SLU_DEAD_MALFORMED, "step is null"},
        {"{\"impression\":{\"time_us\":5}}", SLU_DEAD_MALFORMED, "impression.id is missing"},
        {"{\"impression\":{\"id\":\"\",\"time_us\":5}}", SLU_DEAD_MALFORMED, "impression.id is missing"},
        {"{\"impression\":{\"id\":null,\"time_us\":5}}", SLU_DEAD_MALFORMED, "impression.id is missing"},
        {"{\"impression\":{\"id\":[],\"time_us\":5}}", SLU_DEAD_MALFORMED, "impression.id is an array"},
        {"{\"impression\":{\"id\":\"i\"}}", SLU_DEAD_MALFORMED, "impression.time_us is missing"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":0}}", SLU_DEAD_MALFORMED,
         "impression.time_us is missing"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":-5}}", SLU_DEAD_MALFORMED, "impression.time_us is -5"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":9000000000000000000}}", SLU_DEAD_MALFORMED, "year 9999"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":99999999999999999999}}", SLU_DEAD_MALFORMED, "not JSON"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":1.5}}", SLU_DEAD_MALFORMED, "time_us is a fraction"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":\"5\"}}", SLU_DEAD_MALFORMED, "time_us is a string"},
        {"{\"impression\":{\"id\":\"i\",\"id\":\"j\",\"time_us\":5}}", SLU_DEAD_MALFORMED,
         "not JSON: duplicate"},
        {"{\"impression\":{\"id\":\"a\\u0000b\",\"time_us\":5}}", SLU_DEAD_MALFORMED, "not JSON"},
        {"{\"impression\":{\"id\":\"\xff\",\"time_us\":5}}", SLU_DEAD_MALFORMED, "not JSON"},
        {"{\"impression\":{\"id\":\"i\",\"time_us\":5,\"model_version\":-1}}", SLU_DEAD_MALFORMED,
         "model_version"},
        {IMPRESSION("[]"), SLU_DEAD_MALFORMED, "impression.features is an array"},
        {IMPRESSION("{\"colour\":1}"), SLU_DEAD_UNKNOWN_FEATURE,
         "feature 'colour' is not in the config; add it or set training.unknown_features: ignore"},
        {IMPRESSION("{\"\":1}"), SLU_DEAD_MALFORMED, "a feature has no name"},
        {IMPRESSION("{\"item\":{}}"), SLU_DEAD_MALFORMED, "feature 'item' holds an object"},
        {IMPRESSION("{\"item\":[[1]]}"), SLU_DEAD_MALFORMED, "feature 'item' holds an array"},
        {IMPRESSION("{\"item\":1,\"item\":2}"), SLU_DEAD_MALFORMED, "not JSON: duplicate"},
        {IMPRESSION("{\"price\":1e400}"), SLU_DEAD_MALFORMED, "not JSON"},
        {IMPRESSION("{\"price\":NaN}"), SLU_DEAD_MALFORMED, "not JSON"},
        {"{\"step\":{\"step\":\"click\",\"time_us\":5}}", SLU_DEAD_MALFORMED,
         "step.impression_id is missing"},
        {"{\"step\":{\"impression_id\":\"i\",\"time_us\":5}}", SLU_DEAD_MALFORMED, "step.step is missing"},
        {"{\"step\":{\"step\":\"click\",\"impression_id\":\"i\"}}", SLU_DEAD_MALFORMED,
         "step.time_us is missing"},
        {"{\"step\":{\"step\":\"cart\",\"impression_id\":\"i\",\"time_us\":5}}", SLU_DEAD_UNKNOWN_STEP,
         "step 'cart' is not in the funnel; known: click, conversion"},
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++)
        json_dead(cases[i].text, cases[i].reason, cases[i].part);
}
END_TEST

START_TEST(test_json_deep)
{
    char *deep = malloc(400001);
    memset(deep, '[', 400000);
    deep[400000] = 0;
    json_dead(deep, SLU_DEAD_MALFORMED, "not JSON: maximum parsing depth");
    free(deep);
}
END_TEST

START_TEST(test_json_truncated)
{
    const char *text = IMPRESSION("{\"item\":\"caf\xc3\xa9\",\"tags\":[1,2.5,true,null]}");
    ck_assert_int_eq(decode_json(text), 0);
    for (size_t n = 0; n < strlen(text); n++) {
        ck_assert_int_eq(decode(SLU_ENCODING_JSON, SLU_UNKNOWN_REJECT, text, n), SLU_EINVAL);
        ck_assert_int_eq(why, SLU_DEAD_MALFORMED);
    }
}
END_TEST

START_TEST(test_unknown_ignored)
{
    const char *text = IMPRESSION("{\"colour\":{\"any\":[1]},\"item\":\"a\",\"size\":1}");
    slu_metric *ignored = slu_counter("sluice_unknown_features_ignored_total", NULL, "");
    double before = slu_metric_value(ignored);
    ck_assert_int_eq(decode(SLU_ENCODING_JSON, SLU_UNKNOWN_IGNORE, text, strlen(text)), 0);
    expect_value("item", 0, "a");
    ck_assert_double_eq(slu_metric_value(ignored) - before, 2);
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

/* ---- protobuf ---- */

static void expect_protobuf_dead(const Sluice__V1__Event *m, slu_dead_reason reason, const char *part)
{
    uint8_t bytes[4096];
    size_t n = sluice__v1__event__pack(m, bytes);
    decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_REJECT, bytes, n);
    expect_dead(reason, part);
}

static Sluice__V1__Event protobuf_event = SLUICE__V1__EVENT__INIT;
static Sluice__V1__Impression protobuf_impression = SLUICE__V1__IMPRESSION__INIT;
static Sluice__V1__Step protobuf_step = SLUICE__V1__STEP__INIT;
static Sluice__V1__Feature protobuf_feature = SLUICE__V1__FEATURE__INIT;
static Sluice__V1__Feature *protobuf_features[] = {&protobuf_feature, &protobuf_feature};

static void protobuf_setup(void)
{
    setup();
    protobuf_event.event_case = SLUICE__V1__EVENT__EVENT_IMPRESSION;
    protobuf_event.impression = &protobuf_impression;
    protobuf_impression.id = (char *)"i";
    protobuf_impression.time_us = 5;
    protobuf_impression.features = protobuf_features;
    protobuf_feature.name = (char *)"item";
}

/* What others write with the official classes is what we read. */
START_TEST(test_protobuf_of_others)
{
    uint8_t bytes[4096];
    char *text[] = {(char *)"x", (char *)"", (char *)"caf\xc3\xa9"};
    Sluice__V1__ServedPrediction served = SLUICE__V1__SERVED_PREDICTION__INIT;
    Sluice__V1__ServedPrediction *list[] = {&served};
    served.task = (char *)"click";
    protobuf_impression.n_features = 1;
    protobuf_impression.n_served = 1;
    protobuf_impression.served = list;
    protobuf_impression.model_version = UINT64_MAX;
    protobuf_feature.name = (char *)"tags";
    protobuf_feature.n_text = 3;
    protobuf_feature.text = text;
    size_t n = sluice__v1__event__pack(&protobuf_event, bytes);
    ck_assert_int_eq(decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_REJECT, bytes, n), 0);
    ck_assert_uint_eq(event.model_version, UINT64_MAX);
    ck_assert_uint_eq(field("tags")->n, 3);
    expect_value("tags", 0, "x");
    expect_value("tags", 1, "");
    expect_value("tags", 2, "caf\xc3\xa9");
}
END_TEST

/* What we write is what the official classes would write, byte for byte. */
START_TEST(test_protobuf_canonical_bytes)
{
    uint8_t bytes[4096];
    int64_t integers[] = {-3, 200, INT64_MIN};
    slu_value v[3] = {slu_integer_value(-3), slu_integer_value(200), slu_integer_value(INT64_MIN)};
    slu_values fields[MAX_FIELDS] = {{NULL, 0}};
    slu_event in = {
        .kind = SLU_EVENT_IMPRESSION, .id = span("i"), .time_us = 5, .model_version = 300, .fields = fields};
    slu_buf b = SLU_BUF_INIT;
    protobuf_impression.n_features = 1;
    protobuf_impression.model_version = 300;
    protobuf_feature.n_integers = 3;
    protobuf_feature.integers = integers;
    fields[sample_field(schema, "item")] = (slu_values){v, 3};
    size_t n = sluice__v1__event__pack(&protobuf_event, bytes);
    ck_assert_int_eq(slu_event_encode(schema, SLU_ENCODING_PROTOBUF, &in, &b), 0);
    ck_assert_uint_eq(b.len, n);
    ck_assert_mem_eq(b.data, bytes, n);
    slu_buf_free(&b);
}
END_TEST

START_TEST(test_protobuf_bad)
{
    char *text[] = {(char *)"x"}, *garbled[] = {(char *)"\xc3("};
    double numbers[] = {1, INFINITY};
    int64_t integers[] = {1};
    protobuf_impression.id = (char *)"";
    expect_protobuf_dead(&protobuf_event, SLU_DEAD_MALFORMED, "impression.id is missing");
    protobuf_impression.id = (char *)"\xff";
    expect_protobuf_dead(&protobuf_event, SLU_DEAD_MALFORMED, "impression.id is not valid UTF-8");
    protobuf_impression.id = (char *)"i";
    protobuf_impression.time_us = 0;
    expect_protobuf_dead(&protobuf_event, SLU_DEAD_MALFORMED, "impression.time_us is missing");
    protobuf_impression.time_us = 5;
    protobuf_impression.n_features = 2;
    expect_protobuf_dead(&protobuf_event, SLU_DEAD_MALFORMED, "feature 'item' comes twice");
    protobuf_impression.n_features = 1;
    protobuf_feature.name = (char *)"col\x1bour";
    expect_protobuf_dead(&protobuf_event, SLU_DEAD_UNKNOWN_FEATURE, "feature 'col?our' is not in the config");
    protobuf_feature.name = (char *)"";
    expect_protobuf_dead(&protobuf_event, SLU_DEAD_MALFORMED, "a feature has no name");
    protobuf_feature.name = (char *)"item";
    protobuf_feature.n_text = 1;
    protobuf_feature.text = garbled;
    expect_protobuf_dead(&protobuf_event, SLU_DEAD_MALFORMED, "feature 'item' is not valid UTF-8");
    protobuf_feature.text = text;
    protobuf_feature.n_integers = 1;
    protobuf_feature.integers = integers;
    expect_protobuf_dead(&protobuf_event, SLU_DEAD_MALFORMED, "feature 'item' uses more than one of");
    protobuf_feature.n_text = protobuf_feature.n_integers = 0;
    protobuf_feature.n_numbers = 2;
    protobuf_feature.numbers = numbers;
    expect_protobuf_dead(&protobuf_event, SLU_DEAD_MALFORMED,
                         "feature 'item' holds a number that is not finite");

    protobuf_event.event_case = SLUICE__V1__EVENT__EVENT_STEP;
    protobuf_event.step = &protobuf_step;
    protobuf_step.step = (char *)"cart";
    protobuf_step.time_us = 5;
    expect_protobuf_dead(&protobuf_event, SLU_DEAD_MALFORMED, "step.impression_id is missing");
    protobuf_step.impression_id = (char *)"i";
    expect_protobuf_dead(&protobuf_event, SLU_DEAD_UNKNOWN_STEP, "step 'cart'");
}
END_TEST

/* strlen() would see "a" here, and two impressions would become one. */
START_TEST(test_protobuf_nul_in_text)
{
    static const uint8_t id[] = {0x0a, 0x07, 0x0a, 0x03, 'a', 0, 'b', 0x10, 0x0a};
    static const uint8_t text[] = {0x0a, 0x12, 0x0a, 0x01, 'a', 0x10, 0x0a, 0x1a, 0x0b, 0x0a,
                                   0x04, 'i',  't',  'e',  'm', 0x12, 0x03, 'x',  0,    'y'};
    decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_REJECT, id, sizeof id);
    expect_dead(SLU_DEAD_MALFORMED, "impression.id is not valid UTF-8 or holds a NUL byte");
    decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_REJECT, text, sizeof text);
    expect_dead(SLU_DEAD_MALFORMED, "feature 'item' is not valid UTF-8 or holds a NUL byte");
}
END_TEST

START_TEST(test_protobuf_truncated)
{
    slu_value room[7 * MAX_FIELDS];
    slu_values fields[MAX_FIELDS];
    slu_event in = {.kind = SLU_EVENT_IMPRESSION, .id = span("i"), .time_us = 5, .fields = fields};
    slu_buf b = SLU_BUF_INIT;
    slu_rng r;
    slu_rng_seed(&r, 99);
    sample_record(schema, &r, room, fields);
    ck_assert_int_eq(slu_event_encode(schema, SLU_ENCODING_PROTOBUF, &in, &b), 0);
    for (size_t n = 0; n < b.len; n++) {
        ck_assert_int_eq(decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_REJECT, b.data, n), SLU_EINVAL);
        ck_assert_int_eq(why, SLU_DEAD_MALFORMED);
    }
    slu_buf_free(&b);
}
END_TEST

/* Flipped bits give an event or a reason, never a crash (ASan), and no text that is not UTF-8. */
START_TEST(test_protobuf_garbled)
{
    const uint64_t seed = 1234;
    slu_value room[7 * MAX_FIELDS];
    slu_values fields[MAX_FIELDS];
    slu_event in = {.kind = SLU_EVENT_IMPRESSION, .id = span("i"), .time_us = 5, .fields = fields};
    slu_buf b = SLU_BUF_INIT;
    slu_rng r;
    slu_rng_seed(&r, seed);
    for (int i = 0; i < 20000; i++) {
        if (i % 50 == 0) {
            slu_buf_clear(&b);
            sample_record(schema, &r, room, fields);
            ck_assert_int_eq(slu_event_encode(schema, SLU_ENCODING_PROTOBUF, &in, &b), 0);
        }
        uint8_t *byte = b.data + slu_rng_below(&r, b.len), was = *byte;
        *byte ^= (uint8_t)(1 + slu_rng_below(&r, 255));
        if (decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_IGNORE, b.data, b.len) == 0 &&
            event.kind == SLU_EVENT_IMPRESSION)
            for (uint32_t f = 0; f < slu_schema_fields(schema); f++)
                for (uint32_t k = 0; k < event.fields[f].n; k++)
                    if (event.fields[f].v[k].kind == SLU_VALUE_TEXT)
                        ck_assert(
                            slu_utf8_valid(event.fields[f].v[k].v.text.p, event.fields[f].v[k].v.text.n));
        *byte = was;
    }
    slu_buf_free(&b);
}
END_TEST

START_TEST(test_protobuf_empty_event)
{
    static const uint8_t unknown_member[] = {0x1a, 0x00};
    decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_REJECT, unknown_member, sizeof unknown_member);
    expect_dead(SLU_DEAD_MALFORMED, "neither an impression nor a step");
    decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_REJECT, "", 0);
    expect_dead(SLU_DEAD_MALFORMED, "empty");
}
END_TEST

/* A megabyte of features of two bytes each would need some 80 MB; it is refused long before. */
START_TEST(test_protobuf_memory_bomb)
{
    const size_t features = 500000;
    slu_buf b = SLU_BUF_INIT;
    slu_put_u8(&b, 0x0a);
    slu_put_varint(&b, features * 2);
    for (size_t i = 0; i < features; i++) {
        slu_put_u8(&b, 0x1a);
        slu_put_u8(&b, 0x00);
    }
    decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_REJECT, b.data, b.len);
    expect_dead(SLU_DEAD_TOO_LARGE, "more memory than its limit");
    ck_assert_uint_le(slu_arena_held(arena), 130u << 20);
    slu_buf_free(&b);
}
END_TEST

/* Once warm, a decode takes no further memory. */
START_TEST(test_protobuf_warm_arena)
{
    slu_value room[7 * MAX_FIELDS];
    slu_values fields[MAX_FIELDS];
    slu_event in = {.kind = SLU_EVENT_IMPRESSION, .id = span("i"), .time_us = 5, .fields = fields};
    slu_buf b = SLU_BUF_INIT;
    slu_rng r;
    slu_rng_seed(&r, 3);
    sample_record(schema, &r, room, fields);
    ck_assert_int_eq(slu_event_encode(schema, SLU_ENCODING_PROTOBUF, &in, &b), 0);
    slu_arena_free(arena);
    arena = slu_arena_new(64, 0);
    decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_REJECT, b.data, b.len);
    decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_REJECT, b.data, b.len);
    size_t held = slu_arena_held(arena);
    for (int i = 0; i < 100; i++)
        ck_assert_int_eq(decode(SLU_ENCODING_PROTOBUF, SLU_UNKNOWN_REJECT, b.data, b.len), 0);
    ck_assert_uint_eq(slu_arena_held(arena), held);
    slu_buf_free(&b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("event");
    TCase *t = tcase_create("text and json");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_reason_names);
    tcase_add_test(t, test_utf8);
    tcase_add_test(t, test_utf8_all_code_points);
    tcase_add_test(t, test_json_impression);
    tcase_add_test(t, test_json_step);
    tcase_add_test(t, test_json_bad);
    tcase_add_test(t, test_json_deep);
    tcase_add_test(t, test_json_truncated);
    tcase_add_test(t, test_unknown_ignored);
    tcase_add_test(t, test_check);
    suite_add_tcase(s, t);
    t = tcase_create("both encodings");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, test_round_trip, 0, 2);
    tcase_add_loop_test(t, test_round_trip_step, 0, 2);
    tcase_add_loop_test(t, test_encode_refuses, 0, 2);
    tcase_add_loop_test(t, test_id_limits, 0, 2);
    tcase_add_loop_test(t, test_list_limits, 0, 2);
    tcase_add_loop_test(t, test_ten_mebibytes, 0, 2);
    tcase_add_loop_test(t, test_arena_limit, 0, 2);
    suite_add_tcase(s, t);
    t = tcase_create("protobuf");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, protobuf_setup, teardown);
    tcase_add_test(t, test_protobuf_of_others);
    tcase_add_test(t, test_protobuf_canonical_bytes);
    tcase_add_test(t, test_protobuf_bad);
    tcase_add_test(t, test_protobuf_nul_in_text);
    tcase_add_test(t, test_protobuf_truncated);
    tcase_add_test(t, test_protobuf_garbled);
    tcase_add_test(t, test_protobuf_empty_event);
    tcase_add_test(t, test_protobuf_memory_bomb);
    tcase_add_test(t, test_protobuf_warm_arena);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
