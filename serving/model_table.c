#include "serving/model_table.h"
#include "base/cache_line.h"
#include "serving/row_set.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <urcu/urcu-bp.h>

#define LIMIT_CHECK_EVERY 1024u /* changes between exact sums of memory */
#define AHEAD             16u   /* rows whose places are on their way into the cache while one is put */

/* ThreadSanitizer does not see into liburcu, so it is told what a grace period means: all that readers did
 * inside their read sections happened before it ended. The address that stands for this is one that has no
 * atomic operations of its own, which would make it forget. */
#if defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define TSAN 1
#endif
#elif defined(__SANITIZE_THREAD__)
#define TSAN 1
#endif
#ifdef TSAN
void __tsan_acquire(void *address);
void __tsan_release(void *address);
#define READ_ENDS(t)  __tsan_release(&(t)->base)
#define GRACE_ENDS(t) __tsan_acquire(&(t)->base)
#else
#define READ_ENDS(t)  ((void)(t))
#define GRACE_ENDS(t) ((void)(t))
#endif

/* All rows of a model; a BASE brings a new one. */
typedef struct generation {
    row_set **sets;  /* (n_tables) */
    slu_row_sum sum; /* of the rows as the writer has them */
} generation;

/* What one pointer swap changes. */
typedef struct model_state {
    generation *rows;
    uint32_t mark; /* 1 or 2: which rows of a generation belong to it (serving/row_set.h) */
    float *dense;  /* (P), padded to a cache line, then what is derived from them */
    uint64_t version;
    int64_t learned_through_us;
    slu_model_sums sums;
} model_state;

struct slu_model_table {
    model_state *current; /* read with acquire by readers */
    generation *base;     /* being built, or NULL */
    uint32_t n_tables;
    size_t dense, derived; /* floats of both parts of model_state.dense */
    void (*derive)(void *ctx, const float *dense, float *derived);
    void *derive_ctx;
    uint64_t max_bytes;
    uint32_t changes;       /* since memory was summed up exactly */
    uint64_t n_rows, bytes; /* published for other threads */
    uint32_t served[];
};

struct slu_model_reader {
    slu_model_table *table;
    const model_state *state; /* of the read section, else NULL */
};

static void generation_free(const slu_model_table *t, generation *g)
{
    if (!g)
        return;
    for (uint32_t i = 0; g->sets && i < t->n_tables; i++)
        row_set_free(g->sets[i]);
    free(g->sets);
    free(g);
}

static generation *generation_new(const slu_model_table *t)
{
    generation *g = calloc(1, sizeof *g);
    if (!g)
        return NULL;
    g->sets = calloc(t->n_tables + 1, sizeof(row_set *));
    bool whole = g->sets != NULL;
    for (uint32_t i = 0; whole && i < t->n_tables; i++) {
        g->sets[i] = row_set_new(t->served[i]);
        whole = g->sets[i] != NULL;
    }
    if (whole)
        return g;
    generation_free(t, g);
    return NULL;
}

static uint64_t generation_bytes(const slu_model_table *t, const generation *g)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; g && i < t->n_tables; i++)
        sum += row_set_bytes(g->sets[i]);
    return sum;
}

/* Where puts and deletes go. */
static generation *writable(const slu_model_table *t)
{
    return t->base ? t->base : t->current->rows;
}

/* The mark of changes: none for a base, which nobody reads, else that of the version after the current. */
static uint32_t next_mark(const slu_model_table *t)
{
    return t->base ? ROW_SET_PRIVATE : 3 - t->current->mark;
}

/* Waits until every reader that could know something replaced has gone. */
static void grace(slu_model_table *t)
{
    urcu_bp_synchronize_rcu();
    GRACE_ENDS(t);
}

static void count_rows(slu_model_table *t)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < t->n_tables; i++)
        rows += row_set_rows(t->current->rows->sets[i]);
    __atomic_store_n(&t->n_rows, rows, __ATOMIC_RELAXED);
}

static void sum_up(slu_model_table *t)
{
    __atomic_store_n(&t->bytes, generation_bytes(t, t->current->rows) + generation_bytes(t, t->base),
                     __ATOMIC_RELAXED);
    t->changes = 0;
}

int slu_model_table_new(const uint32_t *served, uint32_t n_tables, size_t dense, uint64_t max_bytes,
                        slu_model_table **tp, slu_error *err)
{
    *tp = NULL;
    slu_model_table *t = calloc(1, sizeof *t + n_tables * sizeof *t->served);
    if (!t)
        goto fail;
    t->n_tables = n_tables;
    t->dense = dense;
    t->max_bytes = max_bytes;
    if (n_tables)
        memcpy(t->served, served, n_tables * sizeof *served);
    t->current = calloc(1, sizeof *t->current);
    if (!t->current)
        goto fail_table;
    t->current->mark = 1;
    t->current->dense = calloc(dense ? dense : 1, sizeof(float));
    t->current->rows = generation_new(t);
    if (!t->current->dense || !t->current->rows)
        goto fail_state;
    sum_up(t);
    *tp = t;
    return 0;

fail_state:
    generation_free(t, t->current->rows);
    free(t->current->dense);
    free(t->current);
fail_table:
    free(t);
fail:
    return slu_fail(err, SLU_ENOMEM, "no memory for a model of %u tables and %zu dense parameters", n_tables,
                    dense);
}

void slu_model_table_free(slu_model_table *t)
{
    if (!t)
        return;
    generation_free(t, t->base);
    generation_free(t, t->current->rows);
    free(t->current->dense);
    free(t->current);
    free(t);
}

uint32_t slu_model_tables(const slu_model_table *t)
{
    return t->n_tables;
}

uint32_t slu_model_served(const slu_model_table *t, uint32_t table)
{
    assert(table < t->n_tables);
    return t->served[table];
}

size_t slu_model_dense(const slu_model_table *t)
{
    return t->dense;
}

/* ---- the dense vector ---- */

/* Whole cache lines, in floats. */
static size_t line_of(size_t floats)
{
    return slu_cache_lines(floats * sizeof(float)) / sizeof(float);
}

/* A copy of |from| (zeros: NULL) with what is derived from it. NULL: out of memory. */
static float *dense_new(const slu_model_table *t, const float *from)
{
    size_t head = line_of(t->dense), floats = head + line_of(t->derived) + 16;
    float *dense = slu_cache_lines_alloc(floats * sizeof *dense);
    if (!dense)
        return NULL;
    if (from)
        memcpy(dense, from, t->dense * sizeof *dense);
    else
        memset(dense, 0, t->dense * sizeof *dense);
    if (t->derived)
        t->derive(t->derive_ctx, dense, dense + head);
    return dense;
}

int slu_model_derive(slu_model_table *t, size_t floats,
                     void (*make)(void *ctx, const float *dense, float *derived), void *ctx, slu_error *err)
{
    size_t before = t->derived;
    t->derived = floats;
    t->derive = make;
    t->derive_ctx = ctx;
    float *dense = dense_new(t, t->current->dense);
    if (!dense) {
        t->derived = before;
        return slu_fail(err, SLU_ENOMEM, "no memory for %zu floats derived from the dense parameters",
                        floats);
    }
    free(t->current->dense);
    t->current->dense = dense;
    return 0;
}

static slu_model_view view_of(const slu_model_table *t, const model_state *s)
{
    return (slu_model_view){s->dense, s->version, s->learned_through_us,
                            t->derived ? s->dense + line_of(t->dense) : NULL};
}

/* ---- readers ---- */

slu_model_reader *slu_model_reader_new(slu_model_table *t)
{
    slu_model_reader *r = calloc(1, sizeof *r);
    if (r)
        r->table = t;
    return r;
}

void slu_model_reader_free(slu_model_reader *r)
{
    assert(!r || !r->state);
    free(r);
}

slu_model_view slu_model_read_begin(slu_model_reader *r)
{
    assert(!r->state);
    urcu_bp_read_lock();
    const model_state *s = __atomic_load_n(&r->table->current, __ATOMIC_ACQUIRE);
    r->state = s;
    return view_of(r->table, s);
}

void slu_model_read_end(slu_model_reader *r)
{
    assert(r->state);
    r->state = NULL;
    READ_ENDS(r->table);
    urcu_bp_read_unlock();
}

uint32_t slu_model_find_rows(slu_model_reader *r, uint32_t table, const uint64_t *ids, uint32_t n,
                             const float **rows)
{
    assert(r->state && table < r->table->n_tables);
    return row_set_find(r->state->rows->sets[table], r->state->mark, ids, n, rows);
}

void slu_model_call_rows(slu_model_reader *r, uint32_t table, const uint64_t *ids, uint32_t n)
{
    assert(r->state && table < r->table->n_tables);
    row_set_call(r->state->rows->sets[table], ids, n);
}

uint32_t slu_model_read_rows(slu_model_reader *r, uint32_t table, const uint64_t *ids, uint32_t n, float *out)
{
    enum { BATCH = 64 };
    const float *rows[BATCH];
    uint32_t found = 0, floats = r->table->served[table];

    for (uint32_t at = 0; at < n; at += BATCH) {
        uint32_t m = n - at < BATCH ? n - at : BATCH;
        found += slu_model_find_rows(r, table, ids + at, m, rows);
        for (uint32_t i = 0; i < m; i++) {
            float *to = out + (size_t)(at + i) * floats;
            if (rows[i])
                memcpy(to, rows[i], floats * sizeof *to);
            else
                memset(to, 0, floats * sizeof *to);
        }
    }
    return found;
}

/* ---- the writer ---- */

static int over_limit(const slu_model_table *t, slu_error *err)
{
    return slu_fail(
        err, SLU_ELIMIT,
        "the model needs more than the %llu bytes of memory that it may take; give the scorer more "
        "memory, or train fewer rows (features[].admit_after, features[].ttl)",
        (unsigned long long)t->max_bytes);
}

/* Is there memory for one more change of |s|? */
static int check_limit(slu_model_table *t, const row_set *s, slu_error *err)
{
    uint64_t next = row_set_next_bytes(s);
    if (next || ++t->changes >= LIMIT_CHECK_EVERY)
        sum_up(t);
    return next && t->max_bytes && t->bytes + next > t->max_bytes ? over_limit(t, err) : 0;
}

/* The sum of |g| without the row that |id| has now. */
static slu_row_sum without(const slu_model_table *t, const generation *g, uint32_t table, uint64_t id)
{
    slu_row_sum sum = g->sum;
    const float *old = row_set_newest(g->sets[table], id);
    if (old)
        slu_row_sum_remove(&sum, table, id, old, t->served[table]);
    return sum;
}

int slu_model_put_row(slu_model_table *t, uint32_t table, uint64_t id, const float *v, slu_error *err)
{
    assert(table < t->n_tables);
    generation *g = writable(t);
    int rc = check_limit(t, g->sets[table], err);
    if (rc)
        return rc;
    slu_row_sum sum = without(t, g, table, id);
    slu_row_sum_add(&sum, table, id, v, t->served[table]);
    rc = row_set_put(g->sets[table], next_mark(t), id, v, err);
    if (!rc)
        g->sum = sum;
    return rc;
}

int slu_model_put_rows(slu_model_table *t, uint32_t table, const uint64_t *ids, const float *v, uint32_t n,
                       slu_error *err)
{
    const row_set *s = writable(t)->sets[table];
    int rc = 0;
    for (uint32_t i = 0; i < n && i < AHEAD; i++)
        row_set_expect(s, ids[i]);
    for (uint32_t i = 0; i < n && !rc; i++) {
        if (i + AHEAD < n)
            row_set_expect(s, ids[i + AHEAD]);
        rc = slu_model_put_row(t, table, ids[i], v + (size_t)i * t->served[table], err);
    }
    return rc;
}

int slu_model_delete_row(slu_model_table *t, uint32_t table, uint64_t id, slu_error *err)
{
    assert(table < t->n_tables);
    generation *g = writable(t);
    slu_row_sum sum = without(t, g, table, id);
    int rc = row_set_delete(g->sets[table], next_mark(t), id, err);
    if (rc < 0)
        return rc;
    g->sum = sum;
    return 0;
}

void slu_model_undo(slu_model_table *t)
{
    generation_free(t, t->base); /* no reader ever saw it */
    t->base = NULL;
    for (uint32_t i = 0; i < t->n_tables; i++)
        row_set_undo(t->current->rows->sets[i]);
    t->current->rows->sum = t->current->sums.rows;
    grace(t);
    for (uint32_t i = 0; i < t->n_tables; i++)
        row_set_reclaim(t->current->rows->sets[i]);
    sum_up(t);
}

int slu_model_begin_base(slu_model_table *t, slu_error *err)
{
    slu_model_undo(t);
    t->base = generation_new(t);
    if (!t->base)
        return slu_fail(err, SLU_ENOMEM, "no memory for a second generation of %u tables", t->n_tables);
    return 0;
}

/* The version after the current one, not yet to be seen. NULL: out of memory. */
static model_state *next_state(const slu_model_table *t, const float *dense)
{
    model_state *next = calloc(1, sizeof *next);
    if (!next)
        return NULL;
    next->rows = writable(t);
    next->mark = 3 - t->current->mark;
    next->dense = t->current->dense;
    if (!dense)
        return next;
    next->dense = dense_new(t, dense);
    if (!next->dense) {
        free(next);
        return NULL;
    }
    return next;
}

int slu_model_publish(slu_model_table *t, const float *dense, uint64_t version, int64_t learned_through_us,
                      slu_error *err)
{
    model_state *old = t->current;
    if (t->base && !dense)
        return slu_fail(err, SLU_EINVAL, "a base of version %llu without dense parameters",
                        (unsigned long long)version);
    model_state *next = next_state(t, dense);
    if (!next)
        return slu_fail(err, SLU_ENOMEM, "no memory for %zu dense parameters of version %llu", t->dense,
                        (unsigned long long)version);
    next->version = version;
    next->learned_through_us = learned_through_us;
    next->sums = slu_model_next_sums(t, dense);
    __atomic_store_n(&t->current, next, __ATOMIC_RELEASE);
    t->base = NULL;
    grace(t);
    if (old->rows != next->rows)
        generation_free(t, old->rows);
    for (uint32_t i = 0; i < t->n_tables; i++)
        row_set_settle(next->rows->sets[i]);
    if (old->dense != next->dense)
        free(old->dense);
    free(old);
    count_rows(t);
    sum_up(t);
    return 0;
}

slu_model_view slu_model_current(const slu_model_table *t)
{
    return view_of(t, t->current);
}

slu_model_sums slu_model_current_sums(const slu_model_table *t)
{
    return t->current->sums;
}

slu_model_sums slu_model_next_sums(const slu_model_table *t, const float *dense)
{
    return (slu_model_sums){writable(t)->sum, dense ? slu_hash_128(dense, t->dense * sizeof(float), 0)
                                                    : t->current->sums.dense};
}

bool slu_model_has_row(const slu_model_table *t, uint32_t table, uint64_t id)
{
    return row_set_newest(writable(t)->sets[table], id) != NULL;
}

uint64_t slu_model_rows(const slu_model_table *t)
{
    return __atomic_load_n(&t->n_rows, __ATOMIC_RELAXED);
}

uint64_t slu_model_bytes(const slu_model_table *t)
{
    return __atomic_load_n(&t->bytes, __ATOMIC_RELAXED);
}
