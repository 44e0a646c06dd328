/* feature/event_codec.h - what the two event encodings share. Private to this room. */
#pragma once
#include "feature/event.h"
#include "feature/schema.h"

/* One event being decoded. */
typedef struct event_job {
    const slu_schema *schema;
    slu_unknown_policy unknown;
    slu_arena *arena;
    slu_event *event;
    slu_dead_reason *why;
    slu_error *err;
    uint64_t seen[SLU_MAX_FEATURES / 64]; /* fields that this event has brought already */
} event_job;

/* Records why the event is dead; returns SLU_EINVAL. */
int event_fail(event_job *j, slu_dead_reason why, const char *fmt, ...) __attribute__((format(printf, 3, 4)));
int event_fail_memory(event_job *j);

/* A name from outside as it may stand in a message: cut, and harmless to a terminal. */
#define EVENT_PRINTABLE 68
const char *event_printable(slu_span name, char out[EVENT_PRINTABLE]);

/* Makes the event an impression with all fields missing. */
int event_begin_impression(event_job *j, slu_span id, int64_t time_us, uint64_t model_version);
/* Makes it a step; fails on a name that is not in the funnel. */
int event_begin_step(event_job *j, slu_span id, slu_span step, slu_span impression_id, int64_t time_us);
/* Finds the field of a feature. *field is -1 when the feature is to be passed over. */
int event_find_field(event_job *j, slu_span name, int *field);
/* Room for the |n| values of |field|, n > 0. */
int event_make_values(event_job *j, int field, size_t n, slu_value **v);
/* Sets *v after checking the text or number. */
int event_set_text(event_job *j, int field, slu_span text, slu_value *v);
int event_set_number(event_job *j, int field, double x, slu_value *v);

/* For a feature with lists of more than one kind. */
int event_fail_mixed(event_job *j, int field);

int event_decode_protobuf(event_job *j, const void *bytes, size_t len);
/* Its two readers (event_plain.c). The first does without structures: false when the message is not as plain
 * as nearly all are; else *rc is what the second would say. */
bool event_decode_plain(event_job *j, const void *bytes, size_t len, int *rc);
int event_decode_tree(event_job *j, const void *bytes, size_t len);
int event_decode_json(event_job *j, const void *bytes, size_t len);
/* For events that slu_event_encode() has found representable. */
void event_encode_protobuf(const slu_schema *s, const slu_event *e, slu_buf *out);
void event_encode_json(const slu_schema *s, const slu_event *e, slu_buf *out);
