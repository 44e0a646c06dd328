#include "feature/event.h"
#include "base/metrics.h"
#include "feature/event_codec.h"
#include "feature/value.h"
#include <math.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#define DEFAULT_MESSAGE_BYTES (1u << 20)

const char *slu_dead_reason_name(slu_dead_reason r)
{
    static const char *const names[SLU_DEAD_REASONS] = {
        [SLU_DEAD_NONE] = "none",
        [SLU_DEAD_MALFORMED] = "malformed",
        [SLU_DEAD_TOO_LARGE] = "too_large",
        [SLU_DEAD_UNKNOWN_FEATURE] = "unknown_feature",
        [SLU_DEAD_UNKNOWN_STEP] = "unknown_step",
        [SLU_DEAD_FUTURE] = "future",
        [SLU_DEAD_LATE] = "late",
        [SLU_DEAD_OUTSIDE_WINDOW] = "outside_window",
        [SLU_DEAD_ORPHAN] = "orphan",
        [SLU_DEAD_DUPLICATE] = "duplicate",
        [SLU_DEAD_REPEATED] = "repeated",
        [SLU_DEAD_BEHIND] = "behind",
    };
    return (unsigned)r < SLU_DEAD_REASONS ? names[r] : "unknown";
}

/* Length of the well-formed UTF-8 sequence at |p|, 0 when there is none. Table 3-7 of the Unicode standard:
 * the second byte's range is what excludes overlong forms, surrogates and everything above U+10FFFF. */
static size_t utf8_sequence(const unsigned char *p, size_t n)
{
    unsigned char c = p[0], low = 0x80, high = 0xbf;
    size_t len;
    if (c >= 0x01 && c <= 0x7f)
        return 1;
    if (c >= 0xc2 && c <= 0xdf) {
        len = 2;
    } else if (c >= 0xe0 && c <= 0xef) {
        len = 3;
        low = c == 0xe0 ? 0xa0 : 0x80;
        high = c == 0xed ? 0x9f : 0xbf;
    } else if (c >= 0xf0 && c <= 0xf4) {
        len = 4;
        low = c == 0xf0 ? 0x90 : 0x80;
        high = c == 0xf4 ? 0x8f : 0xbf;
    } else {
        return 0;
    }
    if (n < len || p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < len; i++)
        if ((p[i] & 0xc0) != 0x80)
            return 0;
    return len;
}

bool slu_utf8_valid(const char *text, size_t n)
{
    const unsigned char *p = (const unsigned char *)text;
    while (n) {
        uint64_t word;
        if (n >= sizeof word) {
            /* Eight bytes at once while they are all ASCII: no high bit, and no zero byte (which would
             * borrow). */
            memcpy(&word, p, sizeof word);
            if (!((word | (word - 0x0101010101010101ULL)) & 0x8080808080808080ULL)) {
                p += sizeof word;
                n -= sizeof word;
                continue;
            }
        }
        size_t len = utf8_sequence(p, n);
        if (!len)
            return false;
        p += len;
        n -= len;
    }
    return true;
}

const char *event_printable(slu_span name, char out[EVENT_PRINTABLE])
{
    const size_t most = EVENT_PRINTABLE - 4;
    size_t n = name.n < most ? name.n : most;
    while (n && n < name.n && ((unsigned char)name.p[n] & 0xc0) == 0x80)
        n--; /* do not cut a character in two */
    bool valid = slu_utf8_valid(name.p, n);
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)name.p[i];
        out[i] = c < 0x20 || c == 0x7f || (c >= 0x80 && !valid) ? '?' : (char)c;
    }
    strcpy(out + n, n < name.n ? "..." : "");
    return out;
}

int event_fail(event_job *j, slu_dead_reason why, const char *fmt, ...)
{
    char message[700];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof message, fmt, ap);
    va_end(ap);
    if (*j->why == SLU_DEAD_NONE)
        *j->why = why;
    return slu_fail(j->err, SLU_EINVAL, "%s", message);
}

int event_fail_mixed(event_job *j, int field)
{
    return event_fail(j, SLU_DEAD_MALFORMED, "feature '%s' uses more than one of text, integers and numbers",
                      slu_schema_field_name(j->schema, (uint32_t)field));
}

int event_fail_memory(event_job *j)
{
    return event_fail(j, SLU_DEAD_TOO_LARGE, "the event needs more memory than its limit");
}

static int check_id(const char *what, slu_span id, bool may_be_empty, slu_dead_reason *why, slu_error *err)
{
    *why = SLU_DEAD_MALFORMED;
    if (!id.n && !may_be_empty)
        return slu_fail(err, SLU_EINVAL, "%s is missing", what);
    if (id.n > SLU_MAX_ID_BYTES)
        return slu_fail(err, SLU_EINVAL, "%s has %zu bytes, at most %d are allowed", what, id.n,
                        SLU_MAX_ID_BYTES);
    if (!slu_utf8_valid(id.p, id.n))
        return slu_fail(err, SLU_EINVAL, "%s is not valid UTF-8 or holds a NUL byte", what);
    *why = SLU_DEAD_NONE;
    return 0;
}

static int check_time(const char *what, int64_t time_us, slu_dead_reason *why, slu_error *err)
{
    if (time_us > 0 && time_us <= SLU_MAX_TIME_US)
        return 0;
    *why = SLU_DEAD_MALFORMED;
    if (time_us == 0)
        return slu_fail(err, SLU_EINVAL, "%s is missing", what);
    return slu_fail(err, SLU_EINVAL, "%s is %lld, not microseconds between 1970 and the year 9999%s", what,
                    (long long)time_us, time_us > 0 ? "; is it nanoseconds?" : "");
}

int slu_event_check(const slu_event *e, slu_dead_reason *why, slu_error *err)
{
    int rc;
    if (e->kind == SLU_EVENT_IMPRESSION) {
        rc = check_id("impression.id", e->id, false, why, err);
        return rc ? rc : check_time("impression.time_us", e->time_us, why, err);
    }
    rc = check_id("step.id", e->id, true, why, err);
    if (!rc)
        rc = check_id("step.impression_id", e->impression_id, false, why, err);
    return rc ? rc : check_time("step.time_us", e->time_us, why, err);
}

int event_begin_impression(event_job *j, slu_span id, int64_t time_us, uint64_t model_version)
{
    slu_event *e = j->event;
    *e = (slu_event){.kind = SLU_EVENT_IMPRESSION,
                     .id = id,
                     .impression_id = id,
                     .time_us = time_us,
                     .model_version = model_version};
    int rc = slu_event_check(e, j->why, j->err);
    if (rc)
        return rc;
    uint32_t n = slu_schema_fields(j->schema);
    e->fields = slu_arena_zalloc(j->arena, (n ? n : 1) * sizeof *e->fields);
    return e->fields ? 0 : event_fail_memory(j);
}

static int fail_unknown_step(event_job *j, slu_span step)
{
    char name[EVENT_PRINTABLE], known[400] = "";
    size_t len = 0;
    for (uint32_t i = 0; i < slu_schema_steps(j->schema) && len < sizeof known - 1; i++)
        len += (size_t)snprintf(known + len, sizeof known - len, "%s%s", i ? ", " : "",
                                slu_schema_step_name(j->schema, i));
    return event_fail(j, SLU_DEAD_UNKNOWN_STEP, "step '%s' is not in the funnel; known: %s",
                      event_printable(step, name), known);
}

int event_begin_step(event_job *j, slu_span id, slu_span step, slu_span impression_id, int64_t time_us)
{
    slu_event *e = j->event;
    *e = (slu_event){.kind = SLU_EVENT_STEP, .id = id, .impression_id = impression_id, .time_us = time_us};
    int rc = slu_event_check(e, j->why, j->err);
    if (rc)
        return rc;
    if (!step.n)
        return event_fail(j, SLU_DEAD_MALFORMED, "step.step is missing");
    int index = slu_schema_step_find(j->schema, step.p, step.n);
    if (index < 0)
        return fail_unknown_step(j, step);
    e->step = (uint32_t)index;
    return 0;
}

static void count_ignored(void)
{
    /* Registering takes a lock, so it is done once; two threads that meet here get the same metric. */
    static _Atomic(slu_metric *) ignored;
    slu_metric *m = atomic_load_explicit(&ignored, memory_order_acquire);
    if (!m) {
        m = slu_counter("sluice_unknown_features_ignored_total", NULL,
                        "Features of events that are not in the config and were passed over.");
        atomic_store(&ignored, m);
    }
    slu_metric_add(m, 1);
}

int event_find_field(event_job *j, slu_span name, int *field)
{
    char shown[EVENT_PRINTABLE];
    *field = slu_schema_field_find(j->schema, name.p, name.n);
    if (*field >= 0) {
        uint64_t bit = 1ULL << (*field % 64), *word = &j->seen[*field / 64];
        if (*word & bit)
            return event_fail(j, SLU_DEAD_MALFORMED, "feature '%s' comes twice",
                              event_printable(name, shown));
        *word |= bit;
        return 0;
    }
    if (!name.n)
        return event_fail(j, SLU_DEAD_MALFORMED, "a feature has no name");
    if (j->unknown == SLU_UNKNOWN_REJECT)
        return event_fail(
            j, SLU_DEAD_UNKNOWN_FEATURE,
            "feature '%s' is not in the config; add it or set training.unknown_features: ignore",
            event_printable(name, shown));
    count_ignored();
    return 0;
}

int event_make_values(event_job *j, int field, size_t n, slu_value **v)
{
    if (n > SLU_MAX_VALUES)
        return event_fail(j, SLU_DEAD_TOO_LARGE, "feature '%s' has %zu values, at most %d are allowed",
                          slu_schema_field_name(j->schema, (uint32_t)field), n, SLU_MAX_VALUES);
    *v = slu_arena_alloc(j->arena, n * sizeof **v);
    if (!*v)
        return event_fail_memory(j);
    j->event->fields[field] = (slu_values){*v, (uint32_t)n};
    return 0;
}

int event_set_text(event_job *j, int field, slu_span text, slu_value *v)
{
    if (!slu_utf8_valid(text.p, text.n))
        return event_fail(j, SLU_DEAD_MALFORMED, "feature '%s' is not valid UTF-8 or holds a NUL byte",
                          slu_schema_field_name(j->schema, (uint32_t)field));
    *v = slu_text_value(text.p, text.n);
    return 0;
}

int event_set_number(event_job *j, int field, double x, slu_value *v)
{
    if (!isfinite(x))
        return event_fail(j, SLU_DEAD_MALFORMED, "feature '%s' holds a number that is not finite",
                          slu_schema_field_name(j->schema, (uint32_t)field));
    *v = slu_number_value(x);
    return 0;
}

int slu_event_decode(const slu_schema *schema, slu_encoding encoding, slu_unknown_policy unknown,
                     const void *bytes, size_t len, slu_arena *arena, slu_event *event, slu_dead_reason *why,
                     slu_error *err)
{
    event_job j = {
        .schema = schema, .unknown = unknown, .arena = arena, .event = event, .why = why, .err = err};
    const uint32_t configured = slu_schema_options(schema)->kafka.max_message_bytes;
    const uint32_t limit = configured ? configured : DEFAULT_MESSAGE_BYTES;
    *why = SLU_DEAD_NONE;
    memset(event, 0, sizeof *event);
    if (len > limit)
        return event_fail(&j, SLU_DEAD_TOO_LARGE,
                          "the message has %zu bytes, kafka.max_message_bytes allows %u", len, limit);
    if (!len)
        return event_fail(&j, SLU_DEAD_MALFORMED, "the message is empty");
    return encoding == SLU_ENCODING_JSON ? event_decode_json(&j, bytes, len)
                                         : event_decode_protobuf(&j, bytes, len);
}

static bool finite_numbers(const slu_values *values)
{
    for (uint32_t i = 0; i < values->n; i++)
        if (values->v[i].kind == SLU_VALUE_NUMBER && !isfinite(values->v[i].v.number))
            return false;
    return true;
}

int slu_event_encode(const slu_schema *schema, slu_encoding encoding, const slu_event *event, slu_buf *out)
{
    if (event->kind == SLU_EVENT_IMPRESSION) {
        if (encoding == SLU_ENCODING_JSON && event->model_version > INT64_MAX)
            return SLU_EINVAL;
        for (uint32_t i = 0; i < slu_schema_fields(schema); i++)
            if (!finite_numbers(&event->fields[i]))
                return SLU_EINVAL;
    }
    if (encoding == SLU_ENCODING_JSON)
        event_encode_json(schema, event, out);
    else
        event_encode_protobuf(schema, event, out);
    return 0;
}
