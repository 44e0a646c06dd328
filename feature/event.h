/* feature/event.h - raw events and raw feature values, decoded from protobuf, JSON or CSV, before hashing.
 *
 * A raw record is a bag of values per field of the schema. All text points into the decoder's input or into
 * the arena given to it: nothing is owned, everything is gone when the arena is reset. */
#pragma once
#include "base/arena.h"
#include "base/bytes.h"
#include "base/error.h"
#include "base/options.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct slu_schema slu_schema; /* feature/schema.h */

typedef struct slu_span {
    const char *p;
    size_t n;
} slu_span;

/* An integer means the same feature value as its decimal text. */
typedef struct slu_value {
    enum { SLU_VALUE_TEXT, SLU_VALUE_INTEGER, SLU_VALUE_NUMBER } kind;
    union {
        slu_span text;
        int64_t integer;
        double number;
    } v;
} slu_value;

/* Values of one field; n = 0: missing. Empty text is a missing value too. Features that want one value read
 * v[0]. */
typedef struct slu_values {
    const slu_value *v; /* (n) */
    uint32_t n;
} slu_values;

typedef enum slu_event_kind { SLU_EVENT_IMPRESSION, SLU_EVENT_STEP } slu_event_kind;

typedef struct slu_event {
    slu_event_kind kind;
    slu_span id;            /* impression: its id; step: the event's own id, may be empty */
    slu_span impression_id; /* step: the impression that it answers; impression: equals id */
    uint32_t step;          /* step: index into the funnel */
    int64_t time_us;        /* event time, epoch us */
    uint64_t model_version; /* impression: version that scored it, 0 none */
    slu_values *fields;     /* impression: (slu_schema_fields) one entry per field of the schema */
} slu_event;

/* Why an event is dead. The name goes into dead letters, metrics (reason="...") and docs/operations.md. */
typedef enum slu_dead_reason {
    SLU_DEAD_NONE = 0,
    SLU_DEAD_MALFORMED,       /* not a valid message of its encoding, missing id, bad UTF-8 ... */
    SLU_DEAD_TOO_LARGE,       /* over kafka.max_message_bytes or another limit */
    SLU_DEAD_UNKNOWN_FEATURE, /* unknown_features: reject */
    SLU_DEAD_UNKNOWN_STEP,
    SLU_DEAD_FUTURE,         /* event time too far ahead of the arrival clock */
    SLU_DEAD_LATE,           /* every window that it could speak about has closed */
    SLU_DEAD_OUTSIDE_WINDOW, /* the step came after its attribution window, or before its impression */
    SLU_DEAD_ORPHAN,         /* a step whose impression never came */
    SLU_DEAD_DUPLICATE,      /* same id seen before */
    SLU_DEAD_REPEATED,       /* another event of a step that the impression already has */
    SLU_DEAD_BEHIND,         /* late, because the clock of its partition is behind */
    SLU_DEAD_REASONS
} slu_dead_reason;
const char *slu_dead_reason_name(slu_dead_reason r); /* "malformed", "too_large", ... */

/* Decodes one message. |arena| provides memory for values and unescaped text; its limit bounds what one event
 * may need. On failure returns SLU_EINVAL with the reason in |why| and a message in |err| that names the
 * offending thing
 * ("feature 'colour' is not in the config; add it or set training.unknown_features: ignore").
 * Checks: slu_event_check(), kafka.max_message_bytes, finite numbers, known step, known features, no feature
 * twice, at most SLU_MAX_VALUES values per field (the rest of a longer list is an error, not cut). Both
 * encodings pass over members that they do not know, so that newer producers can add some; unknown features
 * are another matter and follow |unknown|. JSON: a feature is a string, number, true, false ("true",
 * "false"), null (missing) or an array of these; ids may be integers. JSON allocates (jansson), protobuf does
 * not once |arena| is warm. Thread-safe: any thread with an arena of its own. */
#define SLU_MAX_VALUES   4096
#define SLU_MAX_ID_BYTES 256
#define SLU_MAX_TIME_US  253402300799999999LL /* end of the year 9999: sums with any window stay in range */
int slu_event_decode(const slu_schema *schema, slu_encoding encoding, slu_unknown_policy unknown,
                     const void *bytes, size_t len, slu_arena *arena, slu_event *event, slu_dead_reason *why,
                     slu_error *err);
/* Unknown features ignored since the start, by all threads, are counted in
 * sluice_unknown_features_ignored_total. */

/* What every source must check, whatever its encoding: ids 1..256 bytes (a step's own id may be empty), valid
 * UTF-8 without NUL, time in 1..SLU_MAX_TIME_US. Fails like slu_event_decode. */
int slu_event_check(const slu_event *event, slu_dead_reason *why, slu_error *err);

/* Appends |event| in the given encoding: the inverse of slu_event_decode, for the simulator, the
 * file-to-Kafka pump and tests. Values of mixed kinds are written as text, which means the same. Text must be
 * valid UTF-8. Returns 0, or SLU_EINVAL when a number is not finite, or in JSON a model version over 2^63-1;
 * |out| is then as before. */
int slu_event_encode(const slu_schema *schema, slu_encoding encoding, const slu_event *event, slu_buf *out);

/* True when the |n| bytes are well-formed UTF-8 (no surrogates, no overlong forms) without NUL. */
bool slu_utf8_valid(const char *p, size_t n);
