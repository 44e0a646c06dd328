/* The protobuf event as nearly all producers write it, read in one pass where it lies: members that the
 * schema knows, each as often as it says, lists packed. Trees of protobuf-c take about three times as long.
 *
 * Whatever else protobuf allows (members in pieces, said twice, unknown ones, lists that are not packed, long
 * forms of numbers) and all that is malformed is protobuf-c's: nothing has been touched then. So both readers
 * say the same of the same bytes, which tests and the fuzzer of protobuf events check. */
#include "feature/event_codec.h"
#include "feature/value.h"
#include <string.h>

/* Far more than events have, and so little that no limit of memory is near. */
enum { MOST_BYTES = 16384, MOST_FEATURES = 128, MOST_VALUES = 1024 };

/* Tags: number and wire type in one byte. */
#define TAG(number, wire) ((number) << 3 | (wire))
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

typedef struct wire {
    const uint8_t *p, *end;
} wire;

typedef struct plain_feature {
    slu_span name;
    wire body; /* its members: texts are read from it once more */
    wire integers, numbers;
    uint32_t n_text, n_integers, n_numbers;
} plain_feature;

typedef struct plain_impression {
    slu_span id;
    uint64_t time, model_version;
    plain_feature features[MOST_FEATURES];
    uint32_t n;
} plain_impression;

typedef struct plain_step {
    slu_span id, impression_id, step;
    uint64_t time;
} plain_step;

/* ---- the wire format; false: not plain ---- */

static inline bool get_short(wire *w, int most_bits, uint64_t *v)
{
    uint64_t sum = 0;
    for (int shift = 0; shift < most_bits && w->p < w->end; shift += 7) {
        uint8_t byte = *w->p++;
        sum |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            *v = sum;
            return true;
        }
    }
    return false;
}

/* Up to nine bytes, which hold 63 bits: a tenth could say more than fits. */
static bool get_varint(wire *w, uint64_t *v)
{
    return get_short(w, 63, v);
}

/* What follows a tag of wire type BYTES. */
static bool get_bytes(wire *w, wire *out)
{
    uint64_t n;
    if (!get_short(w, 28, &n) || n > (uint64_t)(w->end - w->p)) /* protobuf-c takes no long forms here */
        return false;
    *out = (wire){w->p, w->p + n};
    w->p += n;
    return true;
}

static bool get_text(wire *w, slu_span *out)
{
    wire body;
    if (!get_bytes(w, &body))
        return false;
    *out = (slu_span){(const char *)body.p, (size_t)(body.end - body.p)};
    return true;
}

static bool pass_fixed32(wire *w)
{
    bool there = w->end - w->p >= 4;
    w->p += there ? 4 : 0;
    return there;
}

static int64_t unzigzag(uint64_t v)
{
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

/* Notes that a member came; false: for the second time. */
static bool once(uint32_t *came, uint32_t number)
{
    bool first = !(*came >> number & 1);
    *came |= 1u << number;
    return first;
}

/* ---- messages ---- */

static bool look_at_integers(plain_feature *f)
{
    uint64_t unused;
    for (wire w = f->integers; w.p < w.end; f->n_integers++)
        if (!get_varint(&w, &unused))
            return false;
    return true;
}

static bool look_at_feature(wire body, plain_feature *f)
{
    uint32_t came = 0;
    slu_span text;
    *f = (plain_feature){.name = {"", 0}, .body = body};
    for (wire w = body; w.p < w.end;) {
        uint8_t tag = *w.p++;
        bool plain = tag == TAG(2, BYTES) || once(&came, tag >> 3);
        switch (tag) {
        case TAG(1, BYTES):
            plain = plain && get_text(&w, &f->name);
            break;
        case TAG(2, BYTES):
            plain = get_text(&w, &text);
            f->n_text++;
            break;
        case TAG(3, BYTES):
            plain = plain && get_bytes(&w, &f->integers) && look_at_integers(f);
            break;
        case TAG(4, BYTES):
            plain = plain && get_bytes(&w, &f->numbers) && (f->numbers.end - f->numbers.p) % 8 == 0;
            f->n_numbers = (uint32_t)(f->numbers.end - f->numbers.p) / 8;
            break;
        default:
            plain = false;
        }
        if (!plain)
            return false;
    }
    return f->n_text + f->n_integers + f->n_numbers <= MOST_VALUES;
}

/* Sluice does not use it, but what is malformed in it is malformed. */
static bool look_at_served(wire w)
{
    uint32_t came = 0;
    slu_span task;
    while (w.p < w.end) {
        uint8_t tag = *w.p++;
        bool plain = once(&came, tag >> 3);
        switch (tag) {
        case TAG(1, BYTES):
            plain = plain && get_text(&w, &task);
            break;
        case TAG(2, FIXED32):
        case TAG(3, FIXED32):
            plain = plain && pass_fixed32(&w);
            break;
        default:
            plain = false;
        }
        if (!plain)
            return false;
    }
    return true;
}

static bool look_at_impression(wire w, plain_impression *m)
{
    uint32_t came = 0;
    wire body;
    m->id = (slu_span){"", 0};
    m->time = m->model_version = 0;
    m->n = 0;
    while (w.p < w.end) {
        uint8_t tag = *w.p++;
        bool plain = tag == TAG(3, BYTES) || tag == TAG(5, BYTES) || once(&came, tag >> 3);
        switch (tag) {
        case TAG(1, BYTES):
            plain = plain && get_text(&w, &m->id);
            break;
        case TAG(2, VARINT):
            plain = plain && get_varint(&w, &m->time);
            break;
        case TAG(3, BYTES):
            plain = m->n < MOST_FEATURES && get_bytes(&w, &body) && look_at_feature(body, &m->features[m->n]);
            m->n++;
            break;
        case TAG(4, VARINT):
            plain = plain && get_varint(&w, &m->model_version);
            break;
        case TAG(5, BYTES):
            plain = get_bytes(&w, &body) && look_at_served(body);
            break;
        default:
            plain = false;
        }
        if (!plain)
            return false;
    }
    return true;
}

static bool look_at_step(wire w, plain_step *m)
{
    uint32_t came = 0;
    *m = (plain_step){.id = {"", 0}, .impression_id = {"", 0}, .step = {"", 0}};
    while (w.p < w.end) {
        uint8_t tag = *w.p++;
        bool plain = once(&came, tag >> 3);
        switch (tag) {
        case TAG(1, BYTES):
            plain = plain && get_text(&w, &m->id);
            break;
        case TAG(2, BYTES):
            plain = plain && get_text(&w, &m->impression_id);
            break;
        case TAG(3, BYTES):
            plain = plain && get_text(&w, &m->step);
            break;
        case TAG(4, VARINT):
            plain = plain && get_varint(&w, &m->time);
            break;
        default:
            plain = false;
        }
        if (!plain)
            return false;
    }
    return true;
}

/* ---- what they say ---- */

static int take_texts(event_job *j, int field, wire w, slu_value *v)
{
    slu_span text;
    int rc = 0;
    while (w.p < w.end && !rc) {
        uint8_t tag = *w.p++;
        get_text(&w, &text); /* of tags of this wire type alone: the feature has no other lists */
        if (tag == TAG(2, BYTES))
            rc = event_set_text(j, field, text, v++);
    }
    return rc;
}

static int take_numbers(event_job *j, int field, const plain_feature *f, slu_value *v)
{
    int rc = 0;
    for (uint32_t i = 0; i < f->n_numbers && !rc; i++) {
        slu_reader r = slu_reader_of(f->numbers.p + (size_t)i * 8, 8);
        rc = event_set_number(j, field, slu_get_f64(&r), v + i);
    }
    return rc;
}

static int take_values(event_job *j, int field, const plain_feature *f)
{
    slu_value *v;
    size_t n = f->n_text + f->n_integers + f->n_numbers;
    if (!n)
        return 0;
    if (!!f->n_text + !!f->n_integers + !!f->n_numbers > 1)
        return event_fail_mixed(j, field);
    int rc = event_make_values(j, field, n, &v);
    if (rc)
        return rc;
    if (f->n_text)
        return take_texts(j, field, f->body, v);
    if (f->n_numbers)
        return take_numbers(j, field, f, v);
    wire w = f->integers;
    for (uint64_t x; w.p < w.end && get_varint(&w, &x); v++)
        *v = slu_integer_value(unzigzag(x));
    return 0;
}

static int take_impression(event_job *j, const plain_impression *m)
{
    int rc = event_begin_impression(j, m->id, unzigzag(m->time), m->model_version);
    for (uint32_t i = 0; i < m->n && !rc; i++) {
        int field = -1;
        rc = event_find_field(j, m->features[i].name, &field);
        if (!rc && field >= 0)
            rc = take_values(j, field, &m->features[i]);
    }
    return rc;
}

bool event_decode_plain(event_job *j, const void *bytes, size_t len, int *rc)
{
    plain_impression impression;
    plain_step step;
    wire w = {bytes, (const uint8_t *)bytes + len}, body;
    if (len > MOST_BYTES || !len)
        return false;
    uint8_t tag = *w.p++;
    if ((tag != TAG(1, BYTES) && tag != TAG(2, BYTES)) || !get_bytes(&w, &body) || w.p < w.end)
        return false;
    if (tag == TAG(1, BYTES)) {
        if (!look_at_impression(body, &impression))
            return false;
        *rc = take_impression(j, &impression);
        return true;
    }
    if (!look_at_step(body, &step))
        return false;
    *rc = event_begin_step(j, step.id, step.step, step.impression_id, unzigzag(step.time));
    return true;
}
