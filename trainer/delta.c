#include "trainer/delta.h"
#include "sluice/v1/delta.pb-c.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Messages are written field by field in the protobuf wire format: a base can have gigabytes of rows, and
 * building protobuf-c structures of it would copy all of them once more. tests/test_delta.c parses the result
 * with the generated code. */
#define WIRE_VARINT  0
#define WIRE_FIXED64 1
#define WIRE_BYTES   2

/* What the head of a chunk and the tags around a block take at most. */
#define HEAD_BYTES  132
#define BLOCK_BYTES 48

struct slu_delta_builder {
    uint32_t *served; /* (n_tables) */
    uint32_t n_tables;
    size_t chunk_bytes;
    slu_delta_head head;
    slu_buf schema_text;
    slu_buf bodies; /* rows and dense blocks of all chunks, one chunk after the other */
    size_t *ends;   /* (n_chunks) where each closed chunk ends in bodies */
    size_t n_chunks, cap_chunks;
    size_t chunk_start; /* of the open chunk in bodies */
    bool chunk_dense;   /* the open chunk has its dense block */
    bool anything;
    uint32_t table;               /* of the open row block */
    slu_buf ids, values, deleted; /* of the open row block */
    slu_buf message;
    bool has_sums;
    uint8_t row_sum[SLU_SUM_BYTES], dense_digest[SLU_SUM_BYTES];
};

static void put_tag(slu_buf *b, uint32_t field, uint32_t wire)
{
    slu_put_varint(b, field << 3 | wire);
}

static void put_uint(slu_buf *b, uint32_t field, uint64_t v)
{
    if (v == 0)
        return; /* proto3: the default is left out */
    put_tag(b, field, WIRE_VARINT);
    slu_put_varint(b, v);
}

static void put_sint(slu_buf *b, uint32_t field, int64_t v)
{
    put_uint(b, field, ((uint64_t)v << 1) ^ (uint64_t)(v >> 63));
}

static void put_field(slu_buf *b, uint32_t field, const void *p, size_t n)
{
    if (n == 0)
        return;
    put_tag(b, field, WIRE_BYTES);
    slu_put_str(b, p, n);
}

slu_delta_builder *slu_delta_builder_new(const uint32_t *served, uint32_t n_tables, size_t chunk_bytes)
{
    slu_delta_builder *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->served = malloc((n_tables + 1) * sizeof *b->served);
    if (!b->served) {
        free(b);
        return NULL;
    }
    memcpy(b->served, served, n_tables * sizeof *served);
    b->n_tables = n_tables;
    b->chunk_bytes = chunk_bytes;
    return b;
}

void slu_delta_builder_free(slu_delta_builder *b)
{
    if (!b)
        return;
    slu_buf *all[] = {&b->schema_text, &b->bodies, &b->ids, &b->values, &b->deleted, &b->message};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        slu_buf_free(all[i]);
    free(b->ends);
    free(b->served);
    free(b);
}

void slu_delta_begin(slu_delta_builder *b, const slu_delta_head *head)
{
    b->head = *head;
    slu_buf_clear(&b->schema_text);
    if (head->base && head->schema_text)
        slu_put_bytes(&b->schema_text, head->schema_text, strlen(head->schema_text));
    slu_buf_clear(&b->bodies);
    slu_buf_clear(&b->ids);
    slu_buf_clear(&b->values);
    slu_buf_clear(&b->deleted);
    b->n_chunks = 0;
    b->chunk_start = 0;
    b->chunk_dense = b->anything = b->has_sums = false;
}

void slu_delta_sums(slu_delta_builder *b, slu_row_sum rows, slu_hash128 dense)
{
    b->has_sums = true;
    slu_sum_write(b->row_sum, rows);
    slu_sum_write(b->dense_digest, dense);
}

bool slu_delta_empty(const slu_delta_builder *b)
{
    return !b->anything;
}

static size_t open_block(const slu_delta_builder *b)
{
    return b->ids.len + b->values.len + b->deleted.len;
}

/* Bytes that the open chunk would have as a message. */
static size_t chunk_size(const slu_delta_builder *b)
{
    size_t head = HEAD_BYTES + (b->n_chunks == 0 ? b->schema_text.len : 0);
    return head + b->bodies.len - b->chunk_start + BLOCK_BYTES + open_block(b);
}

static void close_block(slu_delta_builder *b)
{
    if (open_block(b) == 0)
        return;
    slu_buf *block = &b->message; /* unused until finish */
    slu_buf_clear(block);
    put_uint(block, 1, b->table);
    put_field(block, 2, b->ids.data, b->ids.len);
    put_field(block, 3, b->values.data, b->values.len);
    put_field(block, 4, b->deleted.data, b->deleted.len);
    put_field(&b->bodies, 8, block->data, block->len);
    slu_buf_clear(&b->ids);
    slu_buf_clear(&b->values);
    slu_buf_clear(&b->deleted);
}

static void close_chunk(slu_delta_builder *b)
{
    close_block(b);
    if (b->n_chunks == b->cap_chunks) {
        b->cap_chunks = b->cap_chunks ? 2 * b->cap_chunks : 16;
        b->ends = realloc(b->ends, b->cap_chunks * sizeof *b->ends);
        if (!b->ends)
            abort(); /* like slu_buf: bounded by its user */
    }
    b->ends[b->n_chunks++] = b->bodies.len;
    b->chunk_start = b->bodies.len;
    b->chunk_dense = false;
}

/* Makes the open block one of |table| with room for |bytes| more. */
static void make_room(slu_delta_builder *b, uint32_t table, size_t bytes)
{
    assert(table < b->n_tables);
    if (table != b->table)
        close_block(b);
    b->table = table;
    bool holds = open_block(b) > 0 || b->bodies.len > b->chunk_start;
    if (holds && chunk_size(b) + bytes > b->chunk_bytes)
        close_chunk(b);
    b->anything = true;
}

uint32_t slu_delta_rows_per_chunk(uint32_t served, size_t chunk_bytes)
{
    size_t row = sizeof(uint64_t) + served * sizeof(float), head = HEAD_BYTES + BLOCK_BYTES;
    size_t n = chunk_bytes > head ? (chunk_bytes - head) / row : 0;
    return n < 1 ? 1 : n > UINT32_MAX ? UINT32_MAX : (uint32_t)n;
}

void slu_delta_row(slu_delta_builder *b, uint32_t table, uint64_t id, const float *v)
{
    uint32_t n = b->served[table];
    make_room(b, table, 8 + 4 * (size_t)n);
    slu_put_u64(&b->ids, id);
    slu_put_floats(&b->values, v, n);
}

void slu_delta_tombstone(slu_delta_builder *b, uint32_t table, uint64_t id)
{
    make_room(b, table, 8);
    slu_put_u64(&b->deleted, id);
}

static void put_dense(slu_delta_builder *b, const float *params, size_t total, size_t at, size_t n)
{
    slu_buf *block = &b->message;
    slu_buf_clear(block);
    put_uint(block, 1, total);
    put_uint(block, 2, at);
    put_tag(block, 3, WIRE_BYTES);
    slu_put_varint(block, 4 * n);
    slu_put_floats(block, params + at, n);
    put_field(&b->bodies, 9, block->data, block->len);
    b->chunk_dense = true;
}

void slu_delta_dense(slu_delta_builder *b, const float *params, size_t total)
{
    close_block(b);
    for (size_t at = 0; at < total;) {
        /* A message has one dense block. */
        size_t used = chunk_size(b);
        size_t room = b->chunk_bytes > used ? (b->chunk_bytes - used) / 4 : 0;
        bool holds = b->bodies.len > b->chunk_start;
        if (holds && (b->chunk_dense || room < 1024)) {
            close_chunk(b);
            continue;
        }
        size_t n = room < 1 ? 1 : room;
        if (n > total - at)
            n = total - at;
        put_dense(b, params, total, at, n);
        at += n;
    }
    b->anything |= total > 0;
}

static void put_head(const slu_delta_builder *b, size_t chunk, slu_buf *out)
{
    const slu_delta_head *h = &b->head;
    size_t number = h->first_chunk + chunk, chunks = h->chunks ? h->chunks : b->n_chunks;
    put_uint(out, 1, h->version);
    put_uint(out, 2,
             h->base ? SLUICE__V1__DELTA_KIND__DELTA_KIND_BASE : SLUICE__V1__DELTA_KIND__DELTA_KIND_DELTA);
    put_uint(out, 3, h->base ? 0 : h->previous_version);
    put_uint(out, 4, number);
    put_uint(out, 5, chunks);
    put_tag(out, 6, WIRE_FIXED64);
    slu_put_u64(out, h->schema_fingerprint);
    if (number == 0)
        put_field(out, 7, b->schema_text.data, b->schema_text.len);
    put_sint(out, 10, h->learned_through_us);
    put_sint(out, 11, h->committed_us);
    put_tag(out, 12, WIRE_FIXED64);
    slu_put_u64(out, h->lineage);
    if (b->has_sums && number + 1 == chunks) {
        put_field(out, 13, b->row_sum, sizeof b->row_sum);
        put_field(out, 14, b->dense_digest, sizeof b->dense_digest);
    }
}

void slu_delta_finish(slu_delta_builder *b, void (*emit)(void *ctx, const void *message, size_t len),
                      void *ctx)
{
    close_block(b);
    if (b->bodies.len > b->chunk_start || b->n_chunks == 0)
        close_chunk(b);
    size_t start = 0;
    for (size_t i = 0; i < b->n_chunks; i++) {
        slu_buf_clear(&b->message);
        put_head(b, i, &b->message);
        if (b->ends[i] > start)
            slu_put_bytes(&b->message, b->bodies.data + start, b->ends[i] - start);
        emit(ctx, b->message.data, b->message.len);
        start = b->ends[i];
    }
}
