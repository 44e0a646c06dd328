#include "sluice/v1/event.pb-c.h"
#include "tests/event_fixture.h"
#include "tests/event_readers.h"
#include <math.h>

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

/* What the plain reader takes, protobuf-c's says the same of: events as we write them, with served
 * predictions, and with one or several bytes changed, cut out or said twice. */
START_TEST(test_protobuf_readers_agree)
{
    const uint64_t seed = 4321;
    slu_value room[7 * MAX_FIELDS];
    slu_values fields[MAX_FIELDS];
    slu_arena *other = slu_arena_new(0, 0);
    slu_buf b = SLU_BUF_INIT, changed = SLU_BUF_INIT;
    slu_rng r;
    int plain = 0, not_plain = 0;
    slu_rng_seed(&r, seed);
    for (int i = 0; i < 200000; i++) {
        if (i % 50 == 0) {
            slu_event in = {.kind = i % 200 ? SLU_EVENT_IMPRESSION : SLU_EVENT_STEP,
                            .id = span("i1"),
                            .impression_id = span("i0"),
                            .time_us = 5 + i,
                            .model_version = (uint64_t)i,
                            .fields = fields};
            slu_buf_clear(&b);
            sample_record(schema, &r, room, fields);
            ck_assert_int_eq(slu_event_encode(schema, SLU_ENCODING_PROTOBUF, &in, &b), 0);
            ck_assert_msg(event_readers_agree(schema, SLU_UNKNOWN_REJECT, b.data, b.len, arena, other) == 1,
                          "event %d, as written", i);
        }
        slu_buf_clear(&changed);
        slu_put_bytes(&changed, b.data, b.len);
        uint64_t at = slu_rng_below(&r, b.len), n = 1 + slu_rng_below(&r, b.len - at);
        switch (slu_rng_below(&r, 4)) {
        case 0: /* another byte */
            changed.data[at] = (uint8_t)slu_rng_below(&r, 256);
            break;
        case 1: /* cut out */
            memmove(changed.data + at, changed.data + at + n, changed.len - at - n);
            changed.len -= n;
            break;
        case 2: /* said twice */
            slu_put_bytes(&changed, b.data + at, n);
            break;
        default: /* one bit of a byte near the front, where the lengths are */
            changed.data[at % 8 % b.len] ^= (uint8_t)(1u << slu_rng_below(&r, 8));
        }
        slu_unknown_policy unknown = i % 2 ? SLU_UNKNOWN_IGNORE : SLU_UNKNOWN_REJECT;
        int agree = event_readers_agree(schema, unknown, changed.data, changed.len, arena, other);
        ck_assert_msg(agree >= 0, "seed %llu, event %d: the readers differ", (unsigned long long)seed, i);
        plain += agree;
        not_plain += !agree;
    }
    ck_assert_int_gt(plain, 20000);
    ck_assert_int_gt(not_plain, 20000);
    slu_buf_free(&b);
    slu_buf_free(&changed);
    slu_arena_free(other);
}
END_TEST

/* What is allowed but not plain is left to protobuf-c. */
START_TEST(test_protobuf_not_plain)
{
    static const struct {
        const char *what;
        uint8_t bytes[16];
        size_t n;
        bool plain;
    } cases[] = {
        {"as it should be", {0x0a, 5, 0x0a, 1, 'i', 0x10, 2}, 7, true},
        {"served", {0x0a, 14, 0x0a, 1, 'i', 0x10, 2, 0x2a, 7, 0x0a, 0, 0x15, 0, 0, 0x80, 0x3f}, 16, true},
        {"served is cut", {0x0a, 12, 0x0a, 1, 'i', 0x10, 2, 0x2a, 5, 0x0a, 0, 0x15, 0, 0}, 14, false},
        {"a member twice", {0x0a, 7, 0x0a, 1, 'i', 0x10, 2, 0x10, 4}, 9, false},
        {"an unknown member", {0x0a, 7, 0x0a, 1, 'i', 0x10, 2, 0x38, 1}, 9, false},
        {"two events", {0x0a, 5, 0x0a, 1, 'i', 0x10, 2, 0x0a, 0}, 9, false},
        {"a long tag", {0x8a, 0x00, 5, 0x0a, 1, 'i', 0x10, 2}, 8, false},
        {"a length in six bytes", {0x0a, 0x85, 0x80, 0x80, 0x80, 0x80, 0, 0x0a, 1, 'i', 0x10, 2}, 12, false},
        {"a list that is not packed", {0x0a, 9, 0x0a, 1, 'i', 0x10, 2, 0x1a, 2, 0x18, 2}, 11, false},
        {"a number that is cut", {0x0a, 5, 0x0a, 1, 'i', 0x10, 0x82}, 7, false},
        {"a list that is longer than the event",
         {0x0a, 9, 0x0a, 1, 'i', 0x10, 2, 0x1a, 3, 0x1a, 2},
         11,
         false},
    };
    slu_arena *other = slu_arena_new(0, 0);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(event_readers_agree(schema, SLU_UNKNOWN_REJECT, cases[i].bytes, cases[i].n, arena,
                                          other) == cases[i].plain,
                      "%s", cases[i].what);
    slu_arena_free(other);
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
    TCase *t = tcase_create("event_protobuf");
    tcase_add_checked_fixture(t, protobuf_setup, teardown);
    tcase_add_test(t, test_protobuf_of_others);
    tcase_add_test(t, test_protobuf_canonical_bytes);
    tcase_add_test(t, test_protobuf_bad);
    tcase_add_test(t, test_protobuf_nul_in_text);
    tcase_add_test(t, test_protobuf_truncated);
    tcase_add_test(t, test_protobuf_garbled);
    tcase_add_test(t, test_protobuf_readers_agree);
    tcase_add_test(t, test_protobuf_not_plain);
    tcase_add_test(t, test_protobuf_empty_event);
    tcase_add_test(t, test_protobuf_memory_bomb);
    tcase_add_test(t, test_protobuf_warm_arena);
    return run_suite("event_protobuf", t);
}
