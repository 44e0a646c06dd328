/* serving/score_request.h - reads a sluice.v1.ScoreRequest from the wire without copying its texts.
 *
 * A request is mostly short texts in columns; protobuf-c would make an allocation and a copy of each, and its
 * C strings would silently end at a NUL byte. Here every value becomes an slu_value whose text points into
 * the message. Only the form is checked: names, lengths and UTF-8 are serving/score.c's business. */
#pragma once
#include "base/arena.h"
#include "base/error.h"
#include "feature/event.h"
#include <stdint.h>

/* A shared feature or a column. */
typedef struct score_feature {
    slu_span name;
    const slu_value *v; /* (n) text, then integers, then numbers */
    uint32_t n;
    uint32_t lists;          /* how many of the three lists are used */
    const uint32_t *lengths; /* (n_lengths) columns only */
    uint32_t n_lengths;
} score_feature;

typedef struct score_request {
    uint32_t candidates;
    const score_feature *shared;  /* (n_shared) */
    const score_feature *columns; /* (n_columns) */
    const slu_span *tasks;        /* (n_tasks) */
    uint32_t n_shared, n_columns, n_tasks;
} score_request;

/* Arrays lie in |arena|, texts in |bytes|; fields that it does not know are passed over. Returns 0,
 * SLU_EINVAL (not a ScoreRequest) or SLU_ELIMIT (the arena's limit). */
int score_request_decode(const void *bytes, size_t len, slu_arena *arena, score_request *out, slu_error *err);
