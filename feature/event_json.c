/* Events in JSON, by jansson. The shape is that of the protobuf messages with plain values for features. */
#include "feature/event_codec.h"
#include "feature/value.h"
#include <jansson.h>
#include <stdio.h>
#include <string.h>

/* ---- decoding ---- */

static const char *type_name(const json_t *x)
{
    switch (json_typeof(x)) {
    case JSON_OBJECT:
        return "an object";
    case JSON_ARRAY:
        return "an array";
    case JSON_STRING:
        return "a string";
    case JSON_INTEGER:
    case JSON_REAL:
        return "a number";
    case JSON_TRUE:
    case JSON_FALSE:
        return "a boolean";
    default:
        return "null";
    }
}

/* Copies text into the arena: jansson's own goes with the tree. */
static int keep_text(event_job *j, const char *p, size_t n, slu_span *out)
{
    char *copy = slu_arena_strndup(j->arena, p, n);
    if (!copy)
        return event_fail_memory(j);
    *out = (slu_span){copy, n};
    return 0;
}

/* An id or name: a string, or an integer for its decimal text; absent and null are empty. */
static int read_text(event_job *j, const json_t *object, const char *what, const char *key, slu_span *out)
{
    char scratch[SLU_VALUE_SCRATCH];
    const json_t *x = json_object_get(object, key);
    *out = (slu_span){"", 0};
    if (!x || json_is_null(x))
        return 0;
    if (json_is_string(x))
        return keep_text(j, json_string_value(x), json_string_length(x), out);
    if (json_is_integer(x)) {
        slu_value v = slu_integer_value(json_integer_value(x));
        slu_span text = slu_value_text(&v, scratch);
        return keep_text(j, text.p, text.n, out);
    }
    return event_fail(j, SLU_DEAD_MALFORMED, "%s.%s is %s, a string is wanted", what, key, type_name(x));
}

static int read_integer(event_job *j, const json_t *object, const char *what, const char *key, int64_t *out)
{
    const json_t *x = json_object_get(object, key);
    *out = 0;
    if (!x || json_is_null(x))
        return 0;
    if (!json_is_integer(x))
        return event_fail(j, SLU_DEAD_MALFORMED, "%s.%s is %s, a whole number is wanted", what, key,
                          json_is_real(x) ? "a fraction" : type_name(x));
    *out = json_integer_value(x);
    return 0;
}

static int read_value(event_job *j, int field, const json_t *x, slu_value *v)
{
    slu_span text;
    int rc;
    switch (json_typeof(x)) {
    case JSON_STRING:
        rc = keep_text(j, json_string_value(x), json_string_length(x), &text);
        return rc ? rc : event_set_text(j, field, text, v);
    case JSON_INTEGER:
        *v = slu_integer_value(json_integer_value(x));
        return 0;
    case JSON_REAL:
        return event_set_number(j, field, json_real_value(x), v);
    case JSON_TRUE:
        *v = slu_text_value("true", 4);
        return 0;
    case JSON_FALSE:
        *v = slu_text_value("false", 5);
        return 0;
    default:
        return event_fail(
            j, SLU_DEAD_MALFORMED,
            "feature '%s' holds %s; allowed are strings, numbers, booleans, null and arrays of these",
            slu_schema_field_name(j->schema, (uint32_t)field), type_name(x));
    }
}

static int read_array(event_job *j, int field, const json_t *array)
{
    size_t present = 0, i;
    const json_t *x;
    slu_value *v;
    json_array_foreach(array, i, x) present += !json_is_null(x);
    if (!present)
        return 0;
    int rc = event_make_values(j, field, present, &v);
    json_array_foreach(array, i, x)
    {
        if (rc)
            break;
        if (!json_is_null(x))
            rc = read_value(j, field, x, v++);
    }
    return rc;
}

static int read_feature(event_job *j, slu_span name, const json_t *x)
{
    slu_value *v;
    int field = -1;
    int rc = event_find_field(j, name, &field);
    if (rc || field < 0 || json_is_null(x))
        return rc;
    if (json_is_array(x))
        return read_array(j, field, x);
    rc = event_make_values(j, field, 1, &v);
    return rc ? rc : read_value(j, field, x, v);
}

static int read_features(event_job *j, json_t *features)
{
    if (!features || json_is_null(features))
        return 0;
    if (!json_is_object(features))
        return event_fail(j, SLU_DEAD_MALFORMED, "impression.features is %s, an object is wanted",
                          type_name(features));
    int rc = 0;
    for (void *i = json_object_iter(features); i && !rc; i = json_object_iter_next(features, i)) {
        slu_span name = {json_object_iter_key(i), json_object_iter_key_len(i)};
        rc = read_feature(j, name, json_object_iter_value(i));
    }
    return rc;
}

static int read_impression(event_job *j, const json_t *m)
{
    slu_span id;
    int64_t time_us = 0, version = 0;
    int rc = read_text(j, m, "impression", "id", &id);
    if (!rc)
        rc = read_integer(j, m, "impression", "time_us", &time_us);
    if (!rc)
        rc = read_integer(j, m, "impression", "model_version", &version);
    if (!rc && version < 0)
        rc = event_fail(j, SLU_DEAD_MALFORMED, "impression.model_version is negative");
    if (!rc)
        rc = event_begin_impression(j, id, time_us, (uint64_t)version);
    return rc ? rc : read_features(j, json_object_get(m, "features"));
}

static int read_step(event_job *j, const json_t *m)
{
    slu_span id, impression_id = {"", 0}, step = {"", 0};
    int64_t time_us = 0;
    int rc = read_text(j, m, "step", "id", &id);
    if (!rc)
        rc = read_text(j, m, "step", "impression_id", &impression_id);
    if (!rc)
        rc = read_text(j, m, "step", "step", &step);
    if (!rc)
        rc = read_integer(j, m, "step", "time_us", &time_us);
    return rc ? rc : event_begin_step(j, id, step, impression_id, time_us);
}

static int read_event(event_job *j, const json_t *root)
{
    const json_t *impression = json_object_get(root, "impression");
    const json_t *step = json_object_get(root, "step");
    if (!json_is_object(root))
        return event_fail(j, SLU_DEAD_MALFORMED, "the event is %s, an object is wanted", type_name(root));
    if (!impression == !step)
        return event_fail(j, SLU_DEAD_MALFORMED, "the event has %s 'impression' %s 'step'",
                          step ? "both" : "neither", step ? "and" : "nor");
    const json_t *m = step ? step : impression;
    if (!json_is_object(m))
        return event_fail(j, SLU_DEAD_MALFORMED, "%s is %s, an object is wanted",
                          step ? "step" : "impression", type_name(m));
    return step ? read_step(j, m) : read_impression(j, m);
}

int event_decode_json(event_job *j, const void *bytes, size_t len)
{
    json_error_t why;
    /* jansson bounds the nesting (2048) and refuses NUL in text, bad UTF-8, numbers out of range and trailing
     * bytes. */
    json_t *root = json_loadb(bytes, len, JSON_REJECT_DUPLICATES, &why);
    if (!root) {
        char text[EVENT_PRINTABLE];
        return event_fail(j, SLU_DEAD_MALFORMED, "not JSON: %s at byte %d",
                          event_printable((slu_span){why.text, strlen(why.text)}, text), why.position);
    }
    int rc = read_event(j, root);
    json_decref(root);
    return rc;
}

/* ---- encoding ---- */

static void put_literal(slu_buf *b, const char *text)
{
    slu_put_bytes(b, text, strlen(text));
}

static void put_string(slu_buf *b, slu_span text)
{
    char escape[8];
    slu_put_u8(b, '"');
    size_t from = 0;
    for (size_t i = 0; i < text.n; i++) {
        unsigned char c = (unsigned char)text.p[i];
        if (c >= 0x20 && c != '"' && c != '\\')
            continue;
        slu_put_bytes(b, text.p + from, i - from);
        from = i + 1;
        snprintf(escape, sizeof escape, c < 0x20 ? "\\u%04x" : "\\%c", c);
        put_literal(b, escape);
    }
    slu_put_bytes(b, text.p + from, text.n - from);
    slu_put_u8(b, '"');
}

static void put_value(slu_buf *b, const slu_value *v)
{
    char scratch[SLU_VALUE_SCRATCH];
    slu_span text = slu_value_text(v, scratch);
    if (v->kind == SLU_VALUE_TEXT)
        put_string(b, text);
    else
        slu_put_bytes(b, text.p, text.n);
}

static void put_values(slu_buf *b, const slu_values *values)
{
    if (values->n > 1)
        slu_put_u8(b, '[');
    for (uint32_t i = 0; i < values->n; i++) {
        if (i)
            slu_put_u8(b, ',');
        put_value(b, values->v + i);
    }
    if (values->n > 1)
        slu_put_u8(b, ']');
}

static void put_integer(slu_buf *b, const char *key, int64_t x)
{
    char text[64];
    snprintf(text, sizeof text, ",\"%s\":%lld", key, (long long)x);
    put_literal(b, text);
}

static void put_impression(const slu_schema *s, const slu_event *e, slu_buf *b)
{
    const char *before = "";
    put_literal(b, "{\"impression\":{\"id\":");
    put_string(b, e->id);
    put_integer(b, "time_us", e->time_us);
    if (e->model_version)
        put_integer(b, "model_version", (int64_t)e->model_version);
    put_literal(b, ",\"features\":{");
    for (uint32_t i = 0; i < slu_schema_fields(s); i++) {
        if (!e->fields[i].n)
            continue;
        const char *name = slu_schema_field_name(s, i);
        put_literal(b, before);
        put_string(b, (slu_span){name, strlen(name)});
        slu_put_u8(b, ':');
        put_values(b, &e->fields[i]);
        before = ",";
    }
    put_literal(b, "}}}");
}

static void put_step(const slu_schema *s, const slu_event *e, slu_buf *b)
{
    const char *name = slu_schema_step_name(s, e->step);
    put_literal(b, "{\"step\":{");
    if (e->id.n) {
        put_literal(b, "\"id\":");
        put_string(b, e->id);
        slu_put_u8(b, ',');
    }
    put_literal(b, "\"step\":");
    put_string(b, (slu_span){name, strlen(name)});
    put_literal(b, ",\"impression_id\":");
    put_string(b, e->impression_id);
    put_integer(b, "time_us", e->time_us);
    put_literal(b, "}}");
}

void event_encode_json(const slu_schema *s, const slu_event *e, slu_buf *out)
{
    if (e->kind == SLU_EVENT_IMPRESSION)
        put_impression(s, e, out);
    else
        put_step(s, e, out);
}
