/* Events in protobuf. What event_plain.c does not decode protobuf-c does, into the caller's arena; encoding
 * writes the wire format directly, since our text is spans without a final NUL, which protobuf-c's structures
 * cannot hold without copies. */
#include "feature/event_codec.h"
#include "feature/value.h"
#include "sluice/v1/event.pb-c.h"
#include <string.h>

/* ---- decoding ---- */

/* Memory for protobuf-c, out of the arena. Every piece carries its size in front: protobuf-c makes strings of
 * exactly their length plus a NUL, so the size tells the length of a text that itself holds NUL bytes, which
 * strlen() would silently shorten. */
typedef struct pieces {
    slu_arena *arena;
    size_t left;
    bool refused;
} pieces;

#define PIECE_HEADER 16 /* keeps what follows aligned */

static void *piece_alloc(void *context, size_t size)
{
    pieces *m = context;
    size_t *piece = size <= m->left ? slu_arena_alloc(m->arena, size + PIECE_HEADER) : NULL;
    if (!piece) {
        m->refused = true;
        return NULL;
    }
    m->left -= size;
    *piece = size;
    return (char *)piece + PIECE_HEADER;
}

static void piece_free(void *context, void *piece)
{
    (void)context;
    (void)piece; /* the arena forgets all at once */
}

static slu_span text_of(const char *text)
{
    if (text == protobuf_c_empty_string || !text)
        return (slu_span){"", 0};
    size_t size;
    memcpy(&size, text - PIECE_HEADER, sizeof size);
    return (slu_span){text, size - 1};
}

/* protobuf-c needs some 40 bytes for each member that it meets and a copy of each string, so a real event of
 * short strings grows about thirtyfold. More than this is a message that was made to exhaust memory. */
static size_t memory_for(size_t len)
{
    return len * 48 + (64u << 10);
}

static int decode_values(event_job *j, int field, const Sluice__V1__Feature *f)
{
    slu_value *v;
    size_t n = f->n_text + f->n_integers + f->n_numbers;
    if (!n)
        return 0;
    if (!!f->n_text + !!f->n_integers + !!f->n_numbers > 1)
        return event_fail_mixed(j, field);
    int rc = event_make_values(j, field, n, &v);
    for (size_t i = 0; i < f->n_text && !rc; i++)
        rc = event_set_text(j, field, text_of(f->text[i]), v + i);
    for (size_t i = 0; i < f->n_numbers && !rc; i++)
        rc = event_set_number(j, field, f->numbers[i], v + i);
    for (size_t i = 0; i < f->n_integers && !rc; i++)
        v[i] = slu_integer_value(f->integers[i]);
    return rc;
}

static int decode_impression(event_job *j, const Sluice__V1__Impression *m)
{
    int rc = event_begin_impression(j, text_of(m->id), m->time_us, m->model_version);
    for (size_t i = 0; i < m->n_features && !rc; i++) {
        int field = -1;
        rc = event_find_field(j, text_of(m->features[i]->name), &field);
        if (!rc && field >= 0)
            rc = decode_values(j, field, m->features[i]);
    }
    return rc;
}

static int decode_step(event_job *j, const Sluice__V1__Step *m)
{
    return event_begin_step(j, text_of(m->id), text_of(m->step), text_of(m->impression_id), m->time_us);
}

int event_decode_tree(event_job *j, const void *bytes, size_t len)
{
    pieces memory = {j->arena, memory_for(len), false};
    ProtobufCAllocator allocator = {piece_alloc, piece_free, &memory};
    const Sluice__V1__Event *m = sluice__v1__event__unpack(&allocator, len, bytes);
    if (!m && memory.refused)
        return event_fail_memory(j);
    if (!m)
        return event_fail(j, SLU_DEAD_MALFORMED,
                          "not a sluice.v1.Event: the %zu bytes of protobuf are cut short or garbled", len);
    switch (m->event_case) {
    case SLUICE__V1__EVENT__EVENT_IMPRESSION:
        return decode_impression(j, m->impression);
    case SLUICE__V1__EVENT__EVENT_STEP:
        return decode_step(j, m->step);
    default:
        return event_fail(j, SLU_DEAD_MALFORMED, "the event has neither an impression nor a step");
    }
}

int event_decode_protobuf(event_job *j, const void *bytes, size_t len)
{
    int rc;
    return event_decode_plain(j, bytes, len, &rc) ? rc : event_decode_tree(j, bytes, len);
}

/* ---- encoding ---- */

enum { WIRE_VARINT = 0, WIRE_FIXED64 = 1, WIRE_BYTES = 2 };

static void put_tag(slu_buf *b, uint32_t number, uint32_t wire)
{
    slu_put_varint(b, number << 3 | wire);
}

static uint64_t zigzag(int64_t x)
{
    return ((uint64_t)x << 1) ^ (uint64_t)(x >> 63);
}

static void put_text(slu_buf *b, uint32_t number, slu_span text)
{
    put_tag(b, number, WIRE_BYTES);
    slu_put_str(b, text.p, text.n);
}

/* proto3 leaves out what equals the default. */
static void put_text_set(slu_buf *b, uint32_t number, slu_span text)
{
    if (text.n)
        put_text(b, number, text);
}

static void put_unsigned_set(slu_buf *b, uint32_t number, uint64_t x)
{
    if (!x)
        return;
    put_tag(b, number, WIRE_VARINT);
    slu_put_varint(b, x);
}

/* A length-delimited member whose length is known only afterwards: five bytes are kept for a padded varint. A
 * padded varint is valid protobuf, but a canonical one is shorter and compares equal with other writers', so
 * the body moves. */
static size_t begin_member(slu_buf *b, uint32_t number)
{
    put_tag(b, number, WIRE_BYTES);
    size_t body = b->len + 5;
    slu_buf_reserve(b, 5);
    b->len = body;
    return body;
}

static void end_member(slu_buf *b, size_t body)
{
    size_t n = b->len - body;
    b->len = body - 5;
    slu_put_varint(b, n);
    memmove(b->data + b->len, b->data + body, n);
    b->len += n;
}

static bool all_of_kind(const slu_values *values, int kind)
{
    for (uint32_t i = 0; i < values->n; i++)
        if ((int)values->v[i].kind != kind)
            return false;
    return true;
}

static void put_integers(slu_buf *b, const slu_values *values)
{
    size_t body = begin_member(b, 3);
    for (uint32_t i = 0; i < values->n; i++)
        slu_put_varint(b, zigzag(values->v[i].v.integer));
    end_member(b, body);
}

static void put_numbers(slu_buf *b, const slu_values *values)
{
    put_tag(b, 4, WIRE_BYTES);
    slu_put_varint(b, (uint64_t)values->n * 8);
    for (uint32_t i = 0; i < values->n; i++)
        slu_put_f64(b, values->v[i].v.number);
}

static void put_feature(slu_buf *b, const char *name, const slu_values *values)
{
    char scratch[SLU_VALUE_SCRATCH];
    size_t body = begin_member(b, 3);
    put_text(b, 1, (slu_span){name, strlen(name)});
    if (all_of_kind(values, SLU_VALUE_INTEGER))
        put_integers(b, values);
    else if (all_of_kind(values, SLU_VALUE_NUMBER))
        put_numbers(b, values);
    else
        for (uint32_t i = 0; i < values->n; i++)
            put_text(b, 2, slu_value_text(values->v + i, scratch));
    end_member(b, body);
}

static void put_impression(const slu_schema *s, const slu_event *e, slu_buf *b)
{
    size_t body = begin_member(b, 1);
    put_text_set(b, 1, e->id);
    put_unsigned_set(b, 2, zigzag(e->time_us));
    for (uint32_t i = 0; i < slu_schema_fields(s); i++)
        if (e->fields[i].n)
            put_feature(b, slu_schema_field_name(s, i), &e->fields[i]);
    put_unsigned_set(b, 4, e->model_version);
    end_member(b, body);
}

static void put_step(const slu_schema *s, const slu_event *e, slu_buf *b)
{
    const char *name = slu_schema_step_name(s, e->step);
    size_t body = begin_member(b, 2);
    put_text_set(b, 1, e->id);
    put_text_set(b, 2, e->impression_id);
    put_text(b, 3, (slu_span){name, strlen(name)});
    put_unsigned_set(b, 4, zigzag(e->time_us));
    end_member(b, body);
}

void event_encode_protobuf(const slu_schema *s, const slu_event *e, slu_buf *out)
{
    if (e->kind == SLU_EVENT_IMPRESSION)
        put_impression(s, e, out);
    else
        put_step(s, e, out);
}
