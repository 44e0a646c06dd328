#include "trainer/base.h"
#include "store/row_scan.h"
#include "store/row_table.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

enum { ROWS_A_PIECE = 4096 };

struct slu_base {
    slu_store *store;
    slu_cursor *cursor;
    slu_delta_builder *builder;
    slu_delta_head head; /* of the next chunk */
    uint32_t *served;    /* (n_tables) */
    uint64_t *left;      /* (n_tables) rows to come */
    uint32_t *fit;       /* (n_tables) rows of a full chunk */
    uint32_t n_tables, table;
    uint32_t in_chunk; /* rows of the open chunk */
    float *dense;      /* until it is sent */
    size_t n_dense;
    slu_row_sum expected, sum;
    slu_hash128 dense_digest;
    int rc;
    slu_error *err;
};

typedef void emit_fn(void *ctx, const void *message, size_t len);

/* ---- chunks ---- */

static void open_chunk(slu_base *b)
{
    slu_delta_begin(b->builder, &b->head);
    slu_delta_sums(b->builder, b->expected, b->dense_digest); /* goes with the last one only */
    b->in_chunk = 0;
}

typedef struct counting {
    uint32_t chunks;
    emit_fn *emit; /* NULL: only counted */
    void *ctx;
} counting;

static void count_chunk(void *ctx, const void *message, size_t len)
{
    counting *c = ctx;
    c->chunks++;
    if (c->emit)
        c->emit(c->ctx, message, len);
}

/* Ends the open part; returns its chunks. */
static uint32_t close_part(slu_base *b, emit_fn *emit, void *ctx)
{
    counting c = {.emit = emit, .ctx = ctx};
    slu_delta_finish(b->builder, count_chunk, &c);
    return c.chunks;
}

/* The dense vector takes the first chunks. */
static uint32_t send_dense(slu_base *b, emit_fn *emit, void *ctx)
{
    open_chunk(b);
    slu_delta_dense(b->builder, b->dense, b->n_dense);
    return close_part(b, emit, ctx);
}

/* ---- rows ---- */

static void skip_empty_tables(slu_base *b)
{
    while (b->table < b->n_tables && !b->left[b->table])
        b->table++;
}

/* Stops where the chunk is full or its table at the end. Behind the last row that was counted there must be
 * none. */
static bool take_row(void *ctx, uint32_t table, uint64_t id, uint32_t count, uint32_t last_seen,
                     bool admitted, const float *v, uint32_t floats)
{
    slu_base *b = ctx;
    (void)count, (void)last_seen;
    if (!admitted)
        return true;
    /* Behind the last table there is a place to stand, but none that a row could belong to. */
    if (b->table == b->n_tables || table != b->table || floats < b->served[table]) {
        b->rc = slu_fail(
            b->err, SLU_ECORRUPT,
            "store %s: row %llu of table %u is one more than version %llu was committed with; restore a "
            "backup",
            slu_store_path(b->store), (unsigned long long)id, table, (unsigned long long)b->head.version);
        return false;
    }
    slu_delta_row(b->builder, table, id, v);
    slu_row_sum_add(&b->sum, table, id, v, b->served[table]);
    b->in_chunk++;
    return --b->left[table] && b->in_chunk < b->fit[table];
}

static int check(const slu_base *b, bool end, slu_error *err)
{
    bool wrong = end || b->sum.lo != b->expected.lo || b->sum.hi != b->expected.hi;
    return wrong ? slu_fail(err, SLU_ECORRUPT,
                            "store %s: the rows are not those that version %llu was committed with; restore "
                            "a backup",
                            slu_store_path(b->store), (unsigned long long)b->head.version)
                 : 0;
}

/* Up to where take_row stops. Returns 1: go on, 0: there are no more rows, or a code. */
static int walk(slu_base *b, slu_error *err)
{
    b->err = err;
    int rc = slu_row_walk(b->store, b->cursor, ROWS_A_PIECE, take_row, b, err);
    return rc < 0 || !b->rc ? rc : b->rc;
}

/* The last chunk goes when the walk is at its end and everything is as it should be. */
static int next_rows(slu_base *b, emit_fn *emit, void *ctx, slu_error *err)
{
    int rc = walk(b, err);
    if (rc < 0)
        return rc;
    bool complete = b->table < b->n_tables && (!b->left[b->table] || b->in_chunk == b->fit[b->table]);
    skip_empty_tables(b);
    bool last = b->table == b->n_tables, at_end = !rc;
    if (at_end) {
        rc = check(b, !last, err);
        if (rc)
            return rc;
    }
    if (last ? at_end : complete) {
        uint32_t n = close_part(b, emit, ctx);
        assert(n == 1);
        b->head.first_chunk += n;
        open_chunk(b);
    }
    return !at_end;
}

/* ---- life ---- */

static int count_chunks(slu_base *b, size_t chunk_bytes, slu_error *err)
{
    uint64_t chunks = send_dense(b, NULL, NULL);
    for (uint32_t i = 0; i < b->n_tables; i++) {
        b->fit[i] = slu_delta_rows_per_chunk(b->served[i], chunk_bytes);
        chunks += (b->left[i] + b->fit[i] - 1) / b->fit[i];
    }
    if (chunks > UINT32_MAX)
        return slu_fail(err, SLU_ELIMIT, "a base of %llu chunks: raise publish.chunk",
                        (unsigned long long)chunks);
    b->head.chunks = (uint32_t)chunks;
    return 0;
}

static void *copy_of(const void *p, size_t n)
{
    void *copy = malloc(n + 1);
    if (copy && n)
        memcpy(copy, p, n);
    return copy;
}

int slu_base_begin(const slu_base_spec *s, slu_base **bp, slu_error *err)
{
    *bp = NULL;
    slu_base *b = calloc(1, sizeof *b);
    if (!b)
        return slu_fail(err, SLU_ENOMEM, "out of memory for a base");
    b->store = s->store;
    b->head = s->head;
    b->n_tables = s->n_tables;
    b->n_dense = s->n_dense;
    b->expected = s->row_sum;
    b->dense_digest = s->dense_digest;
    b->builder = slu_delta_builder_new(s->served, s->n_tables, s->chunk_bytes);
    b->served = copy_of(s->served, s->n_tables * sizeof *s->served);
    b->left = copy_of(s->rows, s->n_tables * sizeof *s->rows);
    b->fit = calloc(s->n_tables + 1, sizeof *b->fit);
    b->dense = copy_of(s->dense, s->n_dense * sizeof *s->dense);
    int rc = 0;
    if (!b->builder || !b->served || !b->left || !b->fit || !b->dense)
        rc = slu_fail(err, SLU_ENOMEM, "out of memory for a base");
    if (!rc)
        rc = count_chunks(b, s->chunk_bytes, err);
    if (!rc)
        rc = slu_cursor_open(s->store, SLU_FAMILY_ROWS, &b->cursor, err);
    if (rc) {
        slu_base_close(b);
        return rc;
    }
    *bp = b;
    return 0;
}

int slu_base_next(slu_base *b, emit_fn *emit, void *ctx, slu_error *err)
{
    if (!b->dense)
        return next_rows(b, emit, ctx, err);
    skip_empty_tables(b);
    bool last = b->table == b->n_tables;
    if (last) { /* of no rows */
        int rc = walk(b, err);
        if (!rc)
            rc = check(b, false, err);
        if (rc)
            return rc;
    }
    b->head.first_chunk += send_dense(b, emit, ctx);
    free(b->dense);
    b->dense = NULL;
    b->head.schema_text = NULL;
    open_chunk(b);
    return !last;
}

void slu_base_close(slu_base *b)
{
    if (!b)
        return;
    slu_cursor_close(b->cursor);
    slu_delta_builder_free(b->builder);
    free(b->served);
    free(b->left);
    free(b->fit);
    free(b->dense);
    free(b);
}
