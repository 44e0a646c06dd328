#include "serving/score_request.h"
#include "base/bytes.h"
#include <string.h>

/* Wire types of protobuf. */
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

typedef struct wire_field {
    uint32_t number, type;
    uint64_t value; /* VARINT, FIXED64, FIXED32 */
    slu_span bytes; /* BYTES */
} wire_field;

/* Takes the next field; false at the end and when the bytes are malformed (then r->bad). */
static bool next_field(slu_reader *r, wire_field *f)
{
    if (r->bad || !slu_reader_left(r))
        return false;
    uint64_t tag = slu_get_varint(r);
    f->number = (uint32_t)(tag >> 3);
    f->type = tag & 7;
    if (f->number == 0 || tag > UINT32_MAX)
        r->bad = true;
    switch (f->type) {
    case VARINT:
        f->value = slu_get_varint(r);
        break;
    case FIXED64:
        f->value = slu_get_u64(r);
        break;
    case FIXED32:
        f->value = slu_get_u32(r);
        break;
    case BYTES:
        f->bytes.p = (const char *)slu_get_str(r, &f->bytes.n);
        break;
    default: /* groups are older than proto3 */
        r->bad = true;
    }
    return !r->bad;
}

static slu_reader reader_of(slu_span s)
{
    return slu_reader_of(s.p, s.n);
}

/* Every varint ends with the one byte that has no continuation bit. */
static uint32_t count_varints(slu_span s)
{
    uint32_t n = 0;
    for (size_t i = 0; i < s.n; i++)
        n += !((unsigned char)s.p[i] & 0x80);
    return n;
}

/* Values that a field of a repeated number holds: one, or a packed list. */
static uint32_t count_numbers(const wire_field *f, uint32_t type)
{
    if (f->type == BYTES)
        return type == VARINT ? count_varints(f->bytes) : (uint32_t)(f->bytes.n / sizeof(uint64_t));
    return f->type == type;
}

static int64_t zigzag(uint64_t v)
{
    return (int64_t)(v >> 1) ^ -(int64_t)(v & 1);
}

static double double_of(uint64_t bits)
{
    double x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

enum { NAME = 1, TEXT = 2, INTEGERS = 3, NUMBERS = 4, LENGTHS = 5 };

/* Takes the texts of less than 128 bytes that come next. Nearly all of a request is such texts, so they have
 * a loop of their own; |values| NULL: they are counted. */
static uint32_t short_texts(slu_reader *r, slu_value *values)
{
    const uint8_t *p = r->p;
    uint32_t n = 0;
    while (r->end - p >= 2 && p[0] == (TEXT << 3 | BYTES) && p[1] < 0x80 && p[1] <= r->end - p - 2) {
        if (values)
            values[n] = (slu_value){.kind = SLU_VALUE_TEXT, .v.text = {(const char *)p + 2, p[1]}};
        p += 2 + p[1];
        n++;
    }
    r->p = p;
    return n;
}

typedef struct feature_counts {
    uint32_t text, integers, numbers, lengths;
} feature_counts;

static bool count_feature(slu_span bytes, feature_counts *c)
{
    slu_reader r = reader_of(bytes);
    wire_field f;
    *c = (feature_counts){0};
    while (c->text += short_texts(&r, NULL), next_field(&r, &f)) {
        if (f.number == TEXT && f.type == BYTES)
            c->text++;
        else if (f.number == INTEGERS)
            c->integers += count_numbers(&f, VARINT);
        else if (f.number == NUMBERS)
            c->numbers += count_numbers(&f, FIXED64);
        else if (f.number == LENGTHS)
            c->lengths += count_numbers(&f, VARINT);
    }
    return !r.bad;
}

/* Where the next value of each list goes. */
typedef struct feature_cursor {
    slu_value *text, *integers, *numbers;
    uint32_t *lengths;
} feature_cursor;

static bool fill_integers(const wire_field *f, feature_cursor *c)
{
    if (f->type == VARINT)
        *c->integers++ = (slu_value){.kind = SLU_VALUE_INTEGER, .v.integer = zigzag(f->value)};
    if (f->type != BYTES)
        return true;
    slu_reader r = reader_of(f->bytes);
    while (!r.bad && slu_reader_left(&r)) {
        int64_t v = zigzag(slu_get_varint(&r));
        if (!r.bad)
            *c->integers++ = (slu_value){.kind = SLU_VALUE_INTEGER, .v.integer = v};
    }
    return !r.bad;
}

static bool fill_numbers(const wire_field *f, feature_cursor *c)
{
    if (f->type == FIXED64)
        *c->numbers++ = (slu_value){.kind = SLU_VALUE_NUMBER, .v.number = double_of(f->value)};
    if (f->type != BYTES)
        return true;
    if (f->bytes.n % sizeof(uint64_t))
        return false;
    slu_reader r = reader_of(f->bytes);
    while (slu_reader_left(&r))
        *c->numbers++ = (slu_value){.kind = SLU_VALUE_NUMBER, .v.number = double_of(slu_get_u64(&r))};
    return true;
}

static bool fill_lengths(const wire_field *f, feature_cursor *c)
{
    if (f->type == VARINT)
        *c->lengths++ = (uint32_t)f->value;
    if (f->type != BYTES)
        return true;
    slu_reader r = reader_of(f->bytes);
    while (!r.bad && slu_reader_left(&r)) {
        uint64_t v = slu_get_varint(&r);
        if (!r.bad)
            *c->lengths++ = (uint32_t)v;
    }
    return !r.bad;
}

static bool fill_feature(slu_span bytes, feature_cursor *c, slu_span *name)
{
    slu_reader r = reader_of(bytes);
    wire_field f;
    bool ok = true;
    while (ok && (c->text += short_texts(&r, c->text), next_field(&r, &f))) {
        if (f.number == NAME && f.type == BYTES)
            *name = f.bytes;
        else if (f.number == TEXT && f.type == BYTES)
            *c->text++ = (slu_value){.kind = SLU_VALUE_TEXT, .v.text = f.bytes};
        else if (f.number == INTEGERS)
            ok = fill_integers(&f, c);
        else if (f.number == NUMBERS)
            ok = fill_numbers(&f, c);
        else if (f.number == LENGTHS)
            ok = fill_lengths(&f, c);
    }
    return ok && !r.bad;
}

static int malformed(slu_error *err)
{
    return slu_fail(err, SLU_EINVAL,
                    "the message is not a sluice.v1.ScoreRequest: its bytes are truncated or malformed");
}

static int no_room(slu_error *err)
{
    return slu_fail(err, SLU_ELIMIT,
                    "the request has more values than this scorer gives memory to; send fewer candidates");
}

static int decode_feature(slu_span bytes, slu_arena *arena, score_feature *out, slu_error *err)
{
    feature_counts n;
    feature_cursor c;

    *out = (score_feature){.name = {"", 0}};
    if (!count_feature(bytes, &n))
        return malformed(err);
    out->n = n.text + n.integers + n.numbers;
    out->n_lengths = n.lengths;
    out->lists = !!n.text + !!n.integers + !!n.numbers;
    slu_value *v = slu_arena_alloc(arena, ((size_t)out->n + 1) * sizeof *v);
    uint32_t *lengths = slu_arena_alloc(arena, ((size_t)n.lengths + 1) * sizeof *lengths);
    if (!v || !lengths)
        return no_room(err);
    c = (feature_cursor){v, v + n.text, v + n.text + n.integers, lengths};
    if (!fill_feature(bytes, &c, &out->name))
        return malformed(err);
    out->v = v;
    out->lengths = lengths;
    return 0;
}

enum { CANDIDATES = 1, SHARED = 2, COLUMNS = 3, TASKS = 4 };

int score_request_decode(const void *bytes, size_t len, slu_arena *arena, score_request *out, slu_error *err)
{
    slu_reader r = slu_reader_of(bytes, len);
    wire_field f;
    uint32_t n_shared = 0, n_columns = 0, n_tasks = 0;
    int rc = 0;

    *out = (score_request){0};
    while (next_field(&r, &f)) {
        n_shared += f.number == SHARED && f.type == BYTES;
        n_columns += f.number == COLUMNS && f.type == BYTES;
        n_tasks += f.number == TASKS && f.type == BYTES;
    }
    if (r.bad)
        return malformed(err);
    score_feature *shared = slu_arena_alloc(arena, (n_shared + 1) * sizeof *shared);
    score_feature *columns = slu_arena_alloc(arena, (n_columns + 1) * sizeof *columns);
    slu_span *tasks = slu_arena_alloc(arena, (n_tasks + 1) * sizeof *tasks);
    if (!shared || !columns || !tasks)
        return no_room(err);
    *out = (score_request){.shared = shared, .columns = columns, .tasks = tasks};

    r = slu_reader_of(bytes, len);
    while (!rc && next_field(&r, &f)) {
        if (f.number == CANDIDATES && f.type == VARINT)
            out->candidates = (uint32_t)f.value;
        if (f.type != BYTES)
            continue;
        if (f.number == SHARED)
            rc = decode_feature(f.bytes, arena, &shared[out->n_shared++], err);
        else if (f.number == COLUMNS)
            rc = decode_feature(f.bytes, arena, &columns[out->n_columns++], err);
        else if (f.number == TASKS)
            tasks[out->n_tasks++] = f.bytes;
    }
    return rc;
}
