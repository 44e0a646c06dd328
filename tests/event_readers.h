/* tests/event_readers.h - the two readers of protobuf events (feature/event_codec.h) on the same bytes; for
 * tests and the fuzzer. */
#pragma once
#include "feature/event_codec.h"
#include "feature/value.h"
#include <string.h>

typedef struct event_reading {
    slu_event event;
    slu_dead_reason why;
    slu_error err;
    int rc;
} event_reading;

static inline event_job event_reading_job(event_reading *r, const slu_schema *s, slu_unknown_policy unknown,
                                          slu_arena *arena)
{
    *r = (event_reading){.why = SLU_DEAD_NONE, .err = SLU_ERROR_INIT};
    return (event_job){
        .schema = s, .unknown = unknown, .arena = arena, .event = &r->event, .why = &r->why, .err = &r->err};
}

static inline bool event_spans_equal(slu_span a, slu_span b)
{
    return a.n == b.n && !memcmp(a.p, b.p, a.n);
}

static inline bool event_values_equal(const slu_value *a, const slu_value *b)
{
    if (a->kind != b->kind)
        return false;
    return a->kind == SLU_VALUE_TEXT      ? event_spans_equal(a->v.text, b->v.text)
           : a->kind == SLU_VALUE_INTEGER ? a->v.integer == b->v.integer
                                          : !memcmp(&a->v.number, &b->v.number, sizeof a->v.number);
}

static inline bool event_events_equal(const slu_schema *s, const slu_event *a, const slu_event *b)
{
    if (a->kind != b->kind || a->step != b->step || a->time_us != b->time_us ||
        a->model_version != b->model_version || !event_spans_equal(a->id, b->id) ||
        !event_spans_equal(a->impression_id, b->impression_id))
        return false;
    for (uint32_t f = 0; a->kind == SLU_EVENT_IMPRESSION && f < slu_schema_fields(s); f++) {
        if (a->fields[f].n != b->fields[f].n)
            return false;
        for (uint32_t i = 0; i < a->fields[f].n; i++)
            if (!event_values_equal(&a->fields[f].v[i], &b->fields[f].v[i]))
                return false;
    }
    return true;
}

/* 1: the plain reader took them and the other one agrees, 0: it left them alone, -1: they differ. */
static inline int event_readers_agree(const slu_schema *s, slu_unknown_policy unknown, const void *bytes,
                                      size_t n, slu_arena *one, slu_arena *two)
{
    event_reading plain, tree;
    slu_arena_reset(one);
    slu_arena_reset(two);
    event_job j = event_reading_job(&plain, s, unknown, one);
    if (!event_decode_plain(&j, bytes, n, &plain.rc))
        return plain.why || plain.err.code || plain.event.fields ? -1 : 0;
    j = event_reading_job(&tree, s, unknown, two);
    tree.rc = event_decode_tree(&j, bytes, n);
    if (plain.rc != tree.rc || plain.why != tree.why || strcmp(plain.err.message, tree.err.message))
        return -1;
    return plain.rc || event_events_equal(s, &plain.event, &tree.event) ? 1 : -1;
}
