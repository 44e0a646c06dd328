/* tests/fuzz/fuzz_event_check.h - what must hold of every event that decodes, whatever the bytes were. */
#pragma once
#include "tests/feature_sample.h"
#include "tests/fuzz/require.h"
#include "trainer/dead_letter.h"
#include <jansson.h>

typedef struct fuzz_event {
    slu_schema *schema;
    slu_encoder *encoder;
    slu_arena *arena, *second;
    slu_encoded *ids, *again;
    slu_buf bytes;
} fuzz_event;

static inline fuzz_event *fuzz_event_get(void)
{
    static fuzz_event f;
    if (f.schema)
        return &f;
    REQUIRE(slu_schema_new(&sample_options, &f.schema, NULL) == 0);
    f.encoder = slu_encoder_new(f.schema);
    f.arena = slu_arena_new(0, 64u << 20);
    f.second = slu_arena_new(0, 64u << 20);
    f.ids = malloc(slu_encoded_max(f.schema));
    f.again = malloc(slu_encoded_max(f.schema));
    return &f;
}

/* The event in another encoding is the same event with the same ids. */
static inline void fuzz_event_round_trip(fuzz_event *f, const slu_event *event, slu_encoding encoding)
{
    slu_event other;
    slu_dead_reason why;
    slu_error err = SLU_ERROR_INIT;
    slu_buf_clear(&f->bytes);
    slu_arena_reset(f->second);
    if (slu_event_encode(f->schema, encoding, event, &f->bytes))
        return; /* a model version that JSON cannot hold */
    if (slu_event_decode(f->schema, encoding, SLU_UNKNOWN_REJECT, f->bytes.data, f->bytes.len, f->second,
                         &other, &why, &err)) {
        REQUIRE(why == SLU_DEAD_TOO_LARGE); /* the other encoding may be longer than a message may be */
        return;
    }
    REQUIRE(other.kind == event->kind && other.time_us == event->time_us && other.step == event->step);
    REQUIRE(other.id.n == event->id.n && !memcmp(other.id.p, event->id.p, event->id.n));
    REQUIRE(other.impression_id.n == event->impression_id.n);
    if (event->kind != SLU_EVENT_IMPRESSION)
        return;
    slu_encode(f->encoder, other.fields, f->again);
    REQUIRE(f->again->bytes == f->ids->bytes && !memcmp(f->again, f->ids, f->ids->bytes));
}

/* What cannot be used goes out as one JSON object that says why and has all of it. */
static inline void fuzz_event_bury(fuzz_event *f, slu_dead_reason why, const char *message,
                                   const uint8_t *data, size_t size)
{
    slu_partition part = {"topic", 3};
    slu_record r = {.kind = SLU_RECORD_EVENT, .offset = 17, .bytes = data, .len = size};
    json_error_t bad;
    slu_buf_clear(&f->bytes);
    slu_dead_letter_write(&f->bytes, why, message, &part, &r);
    json_t *letter = json_loadb((const char *)f->bytes.data, f->bytes.len, JSON_REJECT_DUPLICATES, &bad);
    REQUIRE(letter && json_integer_value(json_object_get(letter, "offset")) == 17);
    REQUIRE(!strcmp(json_string_value(json_object_get(letter, "reason")), slu_dead_reason_name(why)));
    REQUIRE(!strcmp(json_string_value(json_object_get(letter, "message")), message));
    const json_t *text = json_object_get(letter, "payload"),
                 *coded = json_object_get(letter, "payload_base64");
    REQUIRE(!size || !text != !coded);
    if (text)
        REQUIRE(json_string_length(text) == size && !memcmp(json_string_value(text), data, size));
    if (coded)
        REQUIRE(json_string_length(coded) == (size + 2) / 3 * 4);
    json_decref(letter);
}

static inline void fuzz_event_run(slu_encoding encoding, const uint8_t *data, size_t size)
{
    fuzz_event *f = fuzz_event_get();
    slu_event event;
    slu_dead_reason why;
    slu_error err = SLU_ERROR_INIT;
    slu_unknown_policy unknown = size % 2 ? SLU_UNKNOWN_REJECT : SLU_UNKNOWN_IGNORE;
    slu_arena_reset(f->arena);
    int rc = slu_event_decode(f->schema, encoding, unknown, data, size, f->arena, &event, &why, &err);
    REQUIRE((rc == 0) == (why == SLU_DEAD_NONE) && rc == err.code);
    if (rc) {
        REQUIRE(rc == SLU_EINVAL && err.message[0] && slu_utf8_valid(err.message, strlen(err.message)));
        fuzz_event_bury(f, why, err.message, data, size);
        return;
    }
    REQUIRE(slu_event_check(&event, &why, NULL) == 0);
    if (event.kind == SLU_EVENT_IMPRESSION) {
        slu_encode(f->encoder, event.fields, f->ids);
        REQUIRE(slu_encoded_valid(f->schema, f->ids, f->ids->bytes));
    }
    fuzz_event_round_trip(f, &event, SLU_ENCODING_PROTOBUF);
    fuzz_event_round_trip(f, &event, SLU_ENCODING_JSON);
}
