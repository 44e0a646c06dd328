#include "serving/row_load.h"
#include "serving/row_key.h"
#include "serving/served.h"
#include <assert.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

enum {
    QUARTERS = 4,
    BATCH_BYTES = 256 << 10,
    BATCHES = 2, /* for each reader */
};

typedef struct batch {
    struct batch *next;
    uint32_t table, n;
    uint64_t *ids; /* (room of its table) */
    float *v;      /* (room, served) */
} batch;

typedef struct loading {
    const row_load_from *from;
    uint32_t ranges, next_range; /* taken with an atomic addition */

    pthread_mutex_t lock; /* of everything below */
    pthread_cond_t filled, emptied;
    batch *full, *empty;
    uint32_t readers; /* that have not ended */
    bool stop;
    slu_error error; /* the first one */
} loading;

typedef struct reader {
    loading *l;
    batch *b; /* being filled; NULL: none at hand */
    uint32_t table;
    slu_error err;
    int rc;
} reader;

/* ---- batches ---- */

static uint32_t row_floats(const loading *l, uint32_t table)
{
    return slu_model_served(l->from->shape, table);
}

static uint32_t room(uint32_t floats)
{
    uint32_t n = BATCH_BYTES / (uint32_t)(sizeof(uint64_t) + floats * sizeof(float));
    return n ? n : 1;
}

static uint32_t longest_row(const slu_model_table *t)
{
    uint32_t longest = 1;
    for (uint32_t i = 0; i < slu_model_tables(t); i++)
        if (slu_model_served(t, i) > longest)
            longest = slu_model_served(t, i);
    return longest;
}

/* A batch holds BATCH_BYTES, or one row where that is more; ids come first. */
static batch *batch_new(const slu_model_table *shape)
{
    size_t bytes = BATCH_BYTES + sizeof(uint64_t) + longest_row(shape) * sizeof(float);
    batch *b = malloc(sizeof *b + bytes);
    if (b)
        *b = (batch){.ids = (uint64_t *)(void *)(b + 1)};
    return b;
}

static void list_free(batch *b)
{
    while (b) {
        batch *next = b->next;
        free(b);
        b = next;
    }
}

/* Waits for an empty batch; false: the reading has been ended. */
static bool take_empty(reader *r)
{
    loading *l = r->l;
    pthread_mutex_lock(&l->lock);
    while (!l->empty && !l->stop)
        pthread_cond_wait(&l->emptied, &l->lock);
    bool goes_on = !l->stop;
    if (goes_on) {
        r->b = l->empty;
        l->empty = r->b->next;
    }
    pthread_mutex_unlock(&l->lock);
    if (goes_on) {
        r->b->table = r->table;
        r->b->n = 0;
        r->b->v = (float *)(void *)(r->b->ids + room(row_floats(l, r->table)));
    }
    return goes_on;
}

static void hand_over(reader *r)
{
    loading *l = r->l;
    if (!r->b)
        return;
    pthread_mutex_lock(&l->lock);
    r->b->next = l->full;
    l->full = r->b;
    r->b = NULL;
    pthread_cond_signal(&l->filled);
    pthread_mutex_unlock(&l->lock);
}

/* The lock is held. */
static void end_with(loading *l, int rc, const slu_error *why)
{
    slu_fail(&l->error, rc, "%s", why->message);
    __atomic_store_n(&l->stop, true, __ATOMIC_RELAXED);
}

/* ---- a reader ---- */

static bool read_row(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    reader *r = ctx;
    const loading *l = r->l;
    uint32_t table = key_len == ROW_KEY_BYTES ? row_key_tag(key) & ~ROW_KEY_GENERATION : UINT32_MAX;
    if (table != r->table || value_len != row_floats(l, table) * sizeof(float)) {
        r->rc = slu_fail(&r->err, SLU_ECORRUPT,
                         "a row of %zu bytes in table %u does not belong to this schema", value_len, table);
        return false;
    }
    if (!r->b && !take_empty(r))
        return false;
    batch *b = r->b;
    const uint32_t floats = row_floats(l, table);
    float *v = b->v + (size_t)b->n * floats;
    b->ids[b->n] = row_key_id(key);
    if (value_len)
        memcpy(v, value, value_len);
    if (!served_finite(v, floats)) {
        r->rc = slu_fail(&r->err, SLU_ECORRUPT, "row %llu of table %u holds a number that is not finite",
                         (unsigned long long)b->ids[b->n], table);
        return false;
    }
    if (++b->n == room(floats))
        hand_over(r);
    return true;
}

/* First key of quarter |i % QUARTERS| of table |i / QUARTERS|. */
static void range_begin(uint8_t key[8], uint32_t generation, uint32_t i)
{
    row_key_put_u32(key, generation | i / QUARTERS);
    row_key_put_u32(key + 4, i % QUARTERS << 30);
}

/* Range |i| is a quarter of a table's ids; the last one is all tables that there should not be. */
static void read_range(reader *r, uint32_t i)
{
    const row_load_from *from = r->l->from;
    const bool last = i + 1 == r->l->ranges, open = last && from->generation;
    uint8_t first[8], end[8];
    r->table = last ? UINT32_MAX : i / QUARTERS;
    range_begin(first, from->generation, i);
    if (last)
        range_begin(end, ROW_KEY_GENERATION, 0);
    else
        range_begin(end, from->generation, i + 1);
    int rc = slu_store_scan(from->store, SLU_FAMILY_ROWS, first, sizeof first, open ? NULL : end,
                            open ? 0 : sizeof end, read_row, r, &r->err);
    if (!r->rc)
        r->rc = rc;
    if (!r->rc)
        hand_over(r);
}

static void *run(void *p)
{
    reader *r = p;
    loading *l = r->l;
    uint32_t i;
    while (!r->rc && !__atomic_load_n(&l->stop, __ATOMIC_RELAXED) &&
           (i = __atomic_fetch_add(&l->next_range, 1, __ATOMIC_RELAXED)) < l->ranges)
        read_range(r, i);
    pthread_mutex_lock(&l->lock);
    if (r->b) { /* of no use: the reading was ended */
        r->b->next = l->empty;
        l->empty = r->b;
    }
    if (r->rc)
        end_with(l, r->rc, &r->err);
    l->readers--;
    pthread_cond_signal(&l->filled);
    pthread_cond_broadcast(&l->emptied);
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---- the caller ---- */

/* The next full batch; NULL: there will be none. */
static batch *take_full(loading *l)
{
    pthread_mutex_lock(&l->lock);
    while (!l->full && l->readers && !l->stop)
        pthread_cond_wait(&l->filled, &l->lock);
    batch *b = l->stop ? NULL : l->full;
    if (b)
        l->full = b->next;
    pthread_mutex_unlock(&l->lock);
    return b;
}

static void give_back(loading *l, batch *b, int rc, const slu_error *why)
{
    pthread_mutex_lock(&l->lock);
    b->next = l->empty;
    l->empty = b;
    if (rc)
        end_with(l, rc, why);
    pthread_cond_broadcast(&l->emptied);
    pthread_mutex_unlock(&l->lock);
}

static void take_all(loading *l, row_load_fn take, void *ctx)
{
    batch *b;
    while ((b = take_full(l)) != NULL) {
        slu_error err = SLU_ERROR_INIT;
        int rc = take(ctx, b->table, b->ids, b->v, b->n, &err);
        give_back(l, b, rc, &err);
    }
}

static bool make_batches(loading *l, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        batch *b = batch_new(l->from->shape);
        if (!b)
            return false;
        b->next = l->empty;
        l->empty = b;
    }
    return true;
}

/* As many as can be had; the others read what these would have. */
static uint32_t start_readers(loading *l, reader *r, pthread_t *threads, uint32_t n)
{
    uint32_t started = 0;
    l->readers = n; /* before any of them can end */
    for (uint32_t i = 0; i < n; i++) {
        r[i] = (reader){.l = l, .err = SLU_ERROR_INIT};
        if (!pthread_create(&threads[started], NULL, run, &r[i]))
            started++;
    }
    pthread_mutex_lock(&l->lock);
    l->readers -= n - started;
    pthread_mutex_unlock(&l->lock);
    return started;
}

int row_load(const row_load_from *from, row_load_fn take, void *ctx, slu_error *err)
{
    assert(from->threads > 0 && from->threads <= ROW_LOAD_THREADS);
    pthread_t threads[ROW_LOAD_THREADS];
    reader readers[ROW_LOAD_THREADS];
    loading l = {.from = from,
                 .ranges = slu_model_tables(from->shape) * QUARTERS + 1,
                 .lock = PTHREAD_MUTEX_INITIALIZER,
                 .filled = PTHREAD_COND_INITIALIZER,
                 .emptied = PTHREAD_COND_INITIALIZER};
    uint32_t started = 0;
    if (make_batches(&l, BATCHES * from->threads))
        started = start_readers(&l, readers, threads, from->threads);
    if (!started)
        slu_fail(&l.error, SLU_ENOMEM, "no memory, or no thread, to read the rows of a store");
    else
        take_all(&l, take, ctx);
    for (uint32_t i = 0; i < started; i++)
        pthread_join(threads[i], NULL);
    list_free(l.full);
    list_free(l.empty);
    return l.error.code ? slu_fail(err, l.error.code, "%s", l.error.message) : 0;
}
