/* Dead letters: one valid JSON object whatever the bytes, with everything that leads back to the event. */
#include "base/rng.h"
#include "tests/suite.h"
#include "trainer/dead_letter.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

#define SEED 20261126u

static slu_span span(const char *s)
{
    return (slu_span){s, strlen(s)};
}

/* Parses and frees what was written; it must be one object on one line, with nothing twice. */
static json_t *parse(slu_buf *out)
{
    json_error_t e;
    json_t *j = json_loadb((const char *)out->data, out->len, JSON_REJECT_DUPLICATES, &e);
    if (!j || !json_is_object(j) || memchr(out->data, '\n', out->len))
        ck_abort_msg("%s in %.*s", e.text, (int)out->len, (const char *)out->data);
    slu_buf_free(out);
    return j;
}

static json_t *letter_of(slu_dead_reason why, const char *message, const slu_record *r)
{
    slu_buf out = SLU_BUF_INIT;
    const slu_partition part = {"topic \"x\"", 3};
    slu_dead_letter_write(&out, why, message, &part, r);
    return parse(&out);
}

static json_t *letter(const void *bytes, size_t n)
{
    const slu_record r = {.kind = SLU_RECORD_EVENT, .offset = 17, .arrival_us = 5, .bytes = bytes, .len = n};
    return letter_of(SLU_DEAD_MALFORMED, "because\n\"so\"", &r);
}

static const char *text(json_t *j, const char *key)
{
    const char *s = json_string_value(json_object_get(j, key));
    ck_assert_msg(s != NULL, "no text '%s'", key);
    return s;
}

static int64_t number(json_t *j, const char *key)
{
    json_t *x = json_object_get(j, key);
    ck_assert_msg(json_is_integer(x), "no number '%s'", key);
    return json_integer_value(x);
}

static void expect_members(json_t *j, size_t n)
{
    ck_assert_uint_eq(json_object_size(j), n);
    json_decref(j);
}

START_TEST(test_text)
{
    json_t *j = letter("{\"a\":\x01}", 7);
    ck_assert_str_eq(text(j, "reason"), "malformed");
    ck_assert_str_eq(text(j, "message"), "because\n\"so\"");
    ck_assert_str_eq(text(j, "topic"), "topic \"x\"");
    ck_assert_int_eq(number(j, "partition"), 3);
    ck_assert_int_eq(number(j, "offset"), 17);
    ck_assert_int_eq(number(j, "arrival_us"), 5);
    ck_assert_str_eq(text(j, "payload"), "{\"a\":\x01}");
    ck_assert_int_eq(number(j, "bytes"), 7);
    expect_members(j, 8);
}
END_TEST

START_TEST(test_bytes)
{
    static const char *const expected[] = {"/w==", "//8=", "////", "/////w=="};
    for (size_t n = 1; n <= 4; n++) {
        json_t *j = letter("\xff\xff\xff\xff", n);
        ck_assert_str_eq(text(j, "payload_base64"), expected[n - 1]);
        ck_assert_int_eq(number(j, "bytes"), (int64_t)n);
        expect_members(j, 8);
    }
    json_t *j = letter("\x00\x10\x83\x10\x51\x87\x20\x92\x8b\x30\xd3\x8f\x41\x14\x93\x51\x55\x97\x61\x96\x9b"
                       "\x71\xd7\x9f\x82\x18\xa3\x92\x59\xa7\xa2\x9a\xab\xb2\xdb\xaf\xc3\x1c\xb3\xd3\x5d"
                       "\xb7\xe3\x9e\xbb\xf3\xdf\xbf",
                       48);
    ck_assert_str_eq(text(j, "payload_base64"),
                     "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/");
    json_decref(j);
}
END_TEST

START_TEST(test_every_reason)
{
    const slu_record r = {.kind = SLU_RECORD_EVENT};
    for (int why = 0; why < SLU_DEAD_REASONS; why++) {
        json_t *j = letter_of((slu_dead_reason)why, "", &r);
        ck_assert_str_eq(text(j, "reason"), slu_dead_reason_name((slu_dead_reason)why));
        ck_assert_str_eq(text(j, "message"), "");
        for (int other = 0; other < why; other++)
            ck_assert_str_ne(text(j, "reason"), slu_dead_reason_name((slu_dead_reason)other));
        expect_members(j, 5); /* recorded files have no arrival, and this one no bytes */
    }
    /* A message that cannot be text is left out, the letter is not. */
    json_t *j = letter_of(SLU_DEAD_LATE, "bad \xff", &r);
    ck_assert_str_eq(text(j, "reason"), "late");
    expect_members(j, 4);
}
END_TEST

/* What a source has decoded itself is told by its ids. */
START_TEST(test_decoded_events)
{
    slu_event e = {.kind = SLU_EVENT_IMPRESSION,
                   .id = span("i\"1\\"),
                   .impression_id = span("i\"1\\"),
                   .time_us = SLU_MAX_TIME_US};
    const slu_record r = {
        .kind = SLU_RECORD_EVENT, .offset = INT64_MAX, .event = &e, .bytes = "raw", .len = 3};
    json_t *j = letter_of(SLU_DEAD_DUPLICATE, "m", &r);
    ck_assert_int_eq(number(j, "offset"), INT64_MAX);
    ck_assert_str_eq(text(j, "id"), "i\"1\\");
    ck_assert_int_eq(number(j, "time_us"), SLU_MAX_TIME_US);
    expect_members(j, 7);
    e = (slu_event){.kind = SLU_EVENT_STEP, .impression_id = span("i2"), .time_us = 7}; /* no id of its own */
    j = letter_of(SLU_DEAD_ORPHAN, "m", &r);
    ck_assert_str_eq(text(j, "id"), "");
    ck_assert_str_eq(text(j, "impression_id"), "i2");
    ck_assert_int_eq(number(j, "time_us"), 7);
    expect_members(j, 8);
}
END_TEST

START_TEST(test_steps_that_were_given_up)
{
    slu_buf out = SLU_BUF_INIT;
    slu_dead_letter_step(&out, SLU_DEAD_ORPHAN, "why", "buy", span("e1"), span("i\t1"), 9);
    json_t *j = parse(&out);
    ck_assert_str_eq(text(j, "reason"), "orphan");
    ck_assert_str_eq(text(j, "message"), "why");
    ck_assert_str_eq(text(j, "step"), "buy");
    ck_assert_str_eq(text(j, "id"), "e1");
    ck_assert_str_eq(text(j, "impression_id"), "i\t1");
    ck_assert_int_eq(number(j, "time_us"), 9);
    expect_members(j, 6);
    slu_dead_letter_step(&out, SLU_DEAD_ORPHAN, "why", "buy", (slu_span){NULL, 0}, span("i"), 9);
    j = parse(&out);
    ck_assert_str_eq(text(j, "id"), "");
    json_decref(j);
}
END_TEST

/* ---- giants ---- */

START_TEST(test_a_giant_is_cut_and_says_so)
{
    enum { OVER = 10 << 20 };
    char *big = malloc(OVER);
    memset(big, 'x', OVER);
    const size_t sizes[] = {SLU_DEAD_PAYLOAD_MAX - 1, SLU_DEAD_PAYLOAD_MAX, SLU_DEAD_PAYLOAD_MAX + 1, OVER};
    for (int i = 0; i < 4; i++) {
        bool cut = sizes[i] > SLU_DEAD_PAYLOAD_MAX;
        json_t *j = letter(big, sizes[i]);
        ck_assert_uint_eq(json_string_length(json_object_get(j, "payload")),
                          cut ? SLU_DEAD_PAYLOAD_MAX : sizes[i]);
        ck_assert_int_eq(number(j, "bytes"), (int64_t)sizes[i]);
        ck_assert_int_eq(json_is_true(json_object_get(j, "truncated")), cut);
        expect_members(j, 8 + cut);
    }
    big[0] = '\xff';
    json_t *j = letter(big, OVER);
    ck_assert_uint_eq(json_string_length(json_object_get(j, "payload_base64")),
                      (SLU_DEAD_PAYLOAD_MAX + 2) / 3 * 4);
    ck_assert(json_is_true(json_object_get(j, "truncated")));
    json_decref(j);
    free(big);
}
END_TEST

/* Text stays text wherever in a character its cut would fall. */
START_TEST(test_a_cut_falls_between_characters)
{
    static const char *const characters[] = {"x", "\xc3\xa4", "\xe2\x82\xac", "\xf0\x9f\x99\x82"};
    enum { N = SLU_DEAD_PAYLOAD_MAX + 100 };
    char *big = malloc(N + 8);
    for (size_t bytes = 1; bytes <= 4; bytes++)
        for (size_t first = 0; first < bytes; first++) {
            size_t n = first;
            memset(big, '.', first);
            for (; n < N; n += bytes)
                memcpy(big + n, characters[bytes - 1], bytes);
            json_t *j = letter(big, n);
            const char *payload = text(j, "payload");
            size_t shown = json_string_length(json_object_get(j, "payload"));
            ck_assert_uint_le(shown, SLU_DEAD_PAYLOAD_MAX);
            ck_assert_uint_gt(shown, SLU_DEAD_PAYLOAD_MAX - bytes);
            ck_assert_uint_eq((shown - first) % bytes, 0);
            ck_assert_int_eq(memcmp(payload, big, shown), 0);
            ck_assert_int_eq(number(j, "bytes"), (int64_t)n);
            expect_members(j, 9);
        }
    free(big);
}
END_TEST

/* ---- any bytes ---- */

static size_t base64_decoded(const char *s, uint8_t *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    uint32_t v = 0;
    int bits = 0;
    for (; *s && *s != '='; s++) {
        v = v << 6 | (uint32_t)(strchr(digits, *s) - digits);
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            out[n++] = (uint8_t)(v >> bits);
        }
    }
    return n;
}

/* The payload can be had back, as text where it is text. */
START_TEST(test_any_payload)
{
    printf("seed %u\n", SEED);
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    for (int i = 0; i < 20000; i++) {
        uint8_t bytes[60], back[64];
        size_t n = 1 + slu_rng_below(&rng, sizeof bytes);
        uint64_t range = i % 3 == 0 ? 256 : i % 3 == 1 ? 128 : 0x30;
        for (size_t k = 0; k < n; k++)
            bytes[k] = (uint8_t)(1 + slu_rng_below(&rng, range - 1));
        json_t *j = letter(bytes, n);
        bool is_text = slu_utf8_valid((const char *)bytes, n);
        json_t *payload = json_object_get(j, is_text ? "payload" : "payload_base64");
        if (!json_is_string(payload))
            ck_abort_msg("round %d: no payload", i);
        size_t got = is_text ? json_string_length(payload) : base64_decoded(json_string_value(payload), back);
        if (got != n || memcmp(is_text ? (const void *)json_string_value(payload) : back, bytes, n))
            ck_abort_msg("round %d: the payload is another one", i);
        json_decref(j);
    }
}
END_TEST

int main(void)
{
    return run_suite("dead_letter",
                     (const TTest *[]){test_text, test_bytes, test_every_reason, test_decoded_events,
                                       test_steps_that_were_given_up, test_a_giant_is_cut_and_says_so,
                                       test_a_cut_falls_between_characters, test_any_payload, NULL});
}
