/* tests/delta_sample.h - small versions of a model over tests/feature_sample.h, made by the trainer's
 * builder. */
#pragma once
#include "serving/model_table.h"
#include "tests/feature_sample.h"
#include "trainer/delta.h"
#include <check.h>

#define DELTA_DENSE    500u
#define DELTA_LINEAGE  77u
#define DELTA_MESSAGES 64u

typedef struct delta_messages {
    slu_buf bytes[DELTA_MESSAGES];
    uint32_t n;
} delta_messages;

/* All floats of a version's rows and of its dense vector are one number, so that a mixture shows. */
typedef struct delta_version {
    bool base, dense;
    uint64_t lineage, version, previous;
    uint64_t first, last; /* ids of table 0 that get |value| */
    uint64_t from, to;    /* ids of table 0 that are deleted */
    float value;
    const slu_model_sums *sums; /* that it carries; NULL: none */
} delta_version;

static inline void delta_messages_free(delta_messages *m)
{
    for (uint32_t i = 0; i < DELTA_MESSAGES; i++)
        slu_buf_free(&m->bytes[i]);
}

static inline void delta_emit(void *ctx, const void *message, size_t len)
{
    delta_messages *m = ctx;
    ck_assert_uint_lt(m->n, DELTA_MESSAGES);
    slu_buf_clear(&m->bytes[m->n]);
    slu_put_bytes(&m->bytes[m->n++], message, len);
}

/* Adds rows |first| to |last| (exclusive) of table 0, all floats |value|, to a sum; takes them out. */
static inline void delta_sum_rows(slu_row_sum *sum, uint32_t floats, uint64_t first, uint64_t last,
                                  float value, bool out)
{
    float row[64];
    for (int i = 0; i < 64; i++)
        row[i] = value;
    for (uint64_t id = first; id < last; id++)
        (out ? slu_row_sum_remove : slu_row_sum_add)(sum, 0, id, row, floats);
}

static inline slu_hash128 delta_dense_digest(float value)
{
    float dense[DELTA_DENSE];
    for (uint32_t i = 0; i < DELTA_DENSE; i++)
        dense[i] = value;
    return slu_hash_128(dense, sizeof dense, 0);
}

/* The chunks of a version into |m|. */
static inline void delta_build(slu_delta_builder *b, const slu_schema *schema, const delta_version *v,
                               delta_messages *m)
{
    float row[64], dense[DELTA_DENSE];
    slu_delta_head head = {.lineage = v->lineage ? v->lineage : DELTA_LINEAGE,
                           .version = v->version,
                           .previous_version = v->previous,
                           .base = v->base,
                           .schema_fingerprint = slu_schema_fingerprint(schema),
                           .schema_text = slu_schema_text(schema),
                           .learned_through_us = (int64_t)v->version * 1000,
                           .committed_us = (int64_t)v->version * 1000 + 1};
    for (int i = 0; i < 64; i++)
        row[i] = v->value;
    for (uint32_t i = 0; i < DELTA_DENSE; i++)
        dense[i] = v->value;
    m->n = 0;
    slu_delta_begin(b, &head);
    for (uint64_t id = v->first; id < v->last; id++)
        slu_delta_row(b, 0, id, row);
    for (uint64_t id = v->from; id < v->to; id++)
        slu_delta_tombstone(b, 0, id);
    if (v->dense || v->base)
        slu_delta_dense(b, dense, DELTA_DENSE);
    if (v->sums)
        slu_delta_sums(b, v->sums->rows, v->sums->dense);
    slu_delta_finish(b, delta_emit, m);
}
