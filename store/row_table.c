#include "store/row_table.h"
#include "base/bytes.h"
#include "base/cache_line.h"
#include "base/clock.h"
#include "store/row_reader.h"
#include "store/row_slab.h"
#include "store/row_value.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Only release, when nothing is held, removes rows and so moves others: a row pointer stays good while its
 * batch holds it. */
enum {
    PROBE_BLOCK = 64,
    SWEEP_EXTRA = 4096, /* rows that a release may look at beyond twice the number that it has to evict */
};
enum { CLEAN = 0, DIRTY = 1, FLUSHED = 2 /* in a commit that is not yet confirmed */ };

typedef struct id_list {
    uint64_t *ids; /* (cap) */
    size_t n, cap;
} id_list;

typedef struct table {
    uint32_t floats, admit_after, served;
    slu_row_slab slab;
    uint64_t summed; /* rows whose ->summed is set, in memory or not */
    id_list dirty;   /* ids of DIRTY rows */
    id_list flushed; /* ids of the last flush; some may be DIRTY again */
} table;

struct slu_row_table {
    slu_store *store;
    table *tables; /* (n_tables) */
    uint32_t n_tables;
    uint64_t cache_bytes;
    void (*init)(void *ctx, uint32_t table, uint64_t id, float *v);
    void *init_ctx;
    uint64_t used_bytes; /* rows and indexes */
    uint64_t index_bytes, dirty_bytes, dirty_rows;
    slu_row **held; /* (n_held of cap_held) */
    size_t n_held, cap_held;
    uint32_t hand_table, hand_slot; /* CLOCK over all rows of all tables */
    uint64_t hits, misses, created, evicted, deleted;
    slu_row_sum sum; /* over rows whose ->summed is set, in memory or not */
    /* Scratch of a fetch, kept. */
    uint32_t *missing; /* (cap_missing) positions in ids */
    uint8_t (*keys)[SLU_ROW_KEY_BYTES];
    const void **key_pointers;
    size_t *key_lengths;
    size_t cap_missing;
    uint8_t *value; /* one encoded row of the widest table */
    /* Reading ahead. */
    slu_row_reader *reader;            /* NULL: none */
    bool arrived;                      /* what was read may be used */
    uint64_t batch_hits, batch_misses; /* of this batch so far */
    bool worth_it;                     /* the last batch missed some */
    uint64_t read_ahead;
    int64_t wait_us;
};

/* ---- memory ---- */

static void *grow(void *p, size_t n, size_t size)
{
    p = reallocarray(p, n, size);
    if (!p)
        abort(); /* bounded by the cache, see base/bytes.h */
    return p;
}

static void push_id(id_list *l, uint64_t id)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->ids = grow(l->ids, l->cap, sizeof *l->ids);
    }
    l->ids[l->n++] = id;
}

/* ---- rows ---- */

static slu_row *append_row(slu_row_table *t, table *b, uint64_t id)
{
    uint64_t index = slu_row_slab_index_bytes(&b->slab);
    slu_row *row = slu_row_slab_append(&b->slab, id);
    index = slu_row_slab_index_bytes(&b->slab) - index;
    t->index_bytes += index;
    t->used_bytes += index + b->slab.stride;
    return row;
}

static void remove_row(slu_row_table *t, table *b, slu_row *row)
{
    assert(row->dirty == CLEAN && !row->held);
    slu_row_slab_remove(&b->slab, row);
    t->used_bytes -= b->slab.stride;
}

static void hold(slu_row_table *t, slu_row *row)
{
    row->referenced = 1;
    if (row->held)
        return;
    if (t->n_held == t->cap_held) {
        t->cap_held = t->cap_held ? 2 * t->cap_held : 1024;
        t->held = grow(t->held, t->cap_held, sizeof *t->held);
    }
    row->held = 1;
    t->held[t->n_held++] = row;
}

static void admit(slu_row_table *t, uint32_t which, slu_row *row)
{
    row->admitted = 1;
    t->init(t->init_ctx, which, row->id, row->v);
}

/* ---- opening ---- */

int slu_row_table_open(slu_store *s, const slu_row_table_config *config, slu_row_table **tp, slu_error *err)
{
    *tp = NULL;
    slu_row_table *t = calloc(1, sizeof *t);
    if (!t)
        goto no_memory;
    t->store = s;
    t->cache_bytes = config->cache_bytes;
    t->init = config->init;
    t->init_ctx = config->init_ctx;
    t->tables = calloc(config->n_tables ? config->n_tables : 1, sizeof *t->tables);
    if (!t->tables)
        goto no_memory;
    t->n_tables = config->n_tables;
    /* A table's last chunk may be empty, so chunks together stay a small part of the cache. */
    uint64_t chunk_bytes = t->n_tables ? t->cache_bytes / (8 * (uint64_t)t->n_tables) : 0;
    uint32_t widest = 0;
    for (uint32_t i = 0; i < t->n_tables; i++) {
        table *b = &t->tables[i];
        b->floats = config->tables[i].floats;
        b->admit_after = config->tables[i].admit_after;
        b->served = config->tables[i].served;
        assert(b->served <= b->floats);
        if (slu_row_slab_init(&b->slab, b->floats, chunk_bytes))
            goto no_memory;
        t->used_bytes += slu_row_slab_index_bytes(&b->slab);
        t->index_bytes += slu_row_slab_index_bytes(&b->slab);
        if (b->floats > widest)
            widest = b->floats;
    }
    t->value = malloc(SLU_ROW_VALUE_HEADER + (size_t)widest * sizeof(float));
    if (!t->value)
        goto no_memory;
    *tp = t;
    return 0;
no_memory:
    slu_row_table_close(t);
    return slu_fail(err, SLU_ENOMEM, "store %s: out of memory", slu_store_path(s));
}

void slu_row_table_close(slu_row_table *t)
{
    if (!t)
        return;
    slu_row_reader_stop(t->reader);
    for (uint32_t i = 0; i < t->n_tables; i++) {
        table *b = &t->tables[i];
        slu_row_slab_free(&b->slab);
        free(b->dirty.ids);
        free(b->flushed.ids);
    }
    free(t->tables);
    free(t->held);
    free(t->missing);
    free(t->keys);
    free(t->key_pointers);
    free(t->key_lengths);
    free(t->value);
    free(t);
}

/* ---- fetching ---- */

static void reserve_missing(slu_row_table *t, size_t n)
{
    if (n <= t->cap_missing)
        return;
    size_t cap = t->cap_missing ? t->cap_missing : 256;
    while (cap < n)
        cap *= 2;
    t->missing = grow(t->missing, cap, sizeof *t->missing);
    t->keys = grow(t->keys, cap, sizeof *t->keys);
    t->key_pointers = grow(t->key_pointers, cap, sizeof *t->key_pointers);
    t->key_lengths = grow(t->key_lengths, cap, sizeof *t->key_lengths);
    for (size_t i = 0; i < cap; i++) {
        t->key_pointers[i] = t->keys[i];
        t->key_lengths[i] = SLU_ROW_KEY_BYTES;
    }
    t->cap_missing = cap;
}

/* Finds what is in memory; puts positions of the rest into t->missing, from *n_missing on. Three passes over
 * a block: ask memory for index lines, for row lines, then look. A pass does not wait for what the one before
 * asked for. */
static void find_block(slu_row_table *t, const table *b, const uint64_t *ids, size_t base, size_t n,
                       slu_row **rows, size_t *n_missing)
{
    uint32_t tags[PROBE_BLOCK];
    for (size_t i = 0; i < n; i++) {
        tags[i] = slu_row_slab_tag(ids[base + i]);
        slu_row_slab_prefetch(&b->slab, tags[i]);
    }
    for (size_t i = 0; i < n; i++) {
        slu_row *row = slu_row_slab_find_tag(&b->slab, tags[i]);
        rows[base + i] = row;
        if (!row)
            continue;
        __builtin_prefetch(row, 1);
        __builtin_prefetch((char *)row + 64, 1); /* the caller reads the floats next */
    }
    for (size_t i = 0; i < n; i++) {
        slu_row *row = rows[base + i];
        if (row && row->id != ids[base + i])
            rows[base + i] = row = slu_row_slab_find(&b->slab, ids[base + i]);
        if (row)
            hold(t, row);
        else
            t->missing[(*n_missing)++] = (uint32_t)(base + i);
    }
}

typedef struct loading {
    slu_row_table *t;
    uint32_t which;
    const uint64_t *ids;
    slu_row **rows;
    int rc;
    slu_error *err;
} loading;

static void load_row(void *ctx, size_t i, const void *value, size_t len)
{
    loading *l = ctx;
    if (l->rc)
        return;
    uint32_t at = l->t->missing[i];
    const table *b = &l->t->tables[l->which];
    slu_row *row = l->rows[at];
    slu_row_value stored;
    l->rc = slu_row_value_parse(value, len, &stored, l->err);
    if (!l->rc && stored.admitted && stored.floats != b->floats)
        l->rc = slu_fail(l->err, SLU_EFORMAT, "stored with %u floats, this model needs %u", stored.floats,
                         b->floats);
    if (l->rc) {
        slu_error_context(l->err, "store %s: table %u: row %llu", slu_store_path(l->t->store), l->which,
                          (unsigned long long)l->ids[at]);
        return;
    }
    row->count = stored.count;
    row->last_seen = stored.last_seen;
    row->admitted = row->summed = stored.admitted;
    row->referenced = 1; /* marks, until the fetch ends, that the row was found */
    slu_row_value_floats(&stored, row->v);
}

/* Loads those of t->missing that were read ahead; the others come to its front. Returns how many those are.
 */
static size_t take_read_ahead(loading *l, size_t n_missing)
{
    slu_row_table *t = l->t;
    size_t unread = 0;
    if (!t->reader || !t->arrived)
        return n_missing;
    for (size_t i = 0; i < n_missing; i++) {
        uint8_t key[SLU_ROW_KEY_BYTES];
        const void *value;
        size_t len;
        slu_row_key_write(key, l->which, l->ids[t->missing[i]]);
        if (slu_row_reader_find(t->reader, key, &value, &len)) {
            t->read_ahead++;
            if (value)
                load_row(l, i, value, len);
            continue;
        }
        uint32_t keep = t->missing[unread];
        t->missing[unread++] = t->missing[i];
        t->missing[i] = keep;
    }
    return unread;
}

static int load_missing(slu_row_table *t, uint32_t which, const uint64_t *ids, size_t n_missing,
                        slu_row **rows, slu_error *err)
{
    table *b = &t->tables[which];
    for (size_t i = 0; i < n_missing; i++)
        rows[t->missing[i]] = append_row(t, b, ids[t->missing[i]]);
    loading l = {.t = t, .which = which, .ids = ids, .rows = rows, .err = err};
    size_t unread = take_read_ahead(&l, n_missing);
    for (size_t i = 0; i < unread; i++)
        slu_row_key_write(t->keys[i], which, ids[t->missing[i]]);
    int64_t start = slu_mono_us(&slu_system_clock);
    int rc = unread && !l.rc ? slu_store_multiget(t->store, SLU_FAMILY_ROWS, t->key_pointers, t->key_lengths,
                                                  unread, load_row, &l, err)
                             : 0;
    t->wait_us += slu_mono_us(&slu_system_clock) - start;
    if (!rc)
        rc = l.rc;
    if (rc) {
        for (size_t i = n_missing; i-- > 0;)
            remove_row(t, b, rows[t->missing[i]]);
        return rc;
    }
    for (size_t i = 0; i < n_missing; i++) {
        slu_row *row = rows[t->missing[i]];
        t->created += !row->referenced;
        /* Also when it was stored under a larger admit_after than today's. */
        if (!row->admitted && (b->admit_after <= 1 || row->count >= b->admit_after))
            admit(t, which, row);
        hold(t, row);
    }
    t->misses += n_missing;
    return 0;
}

int slu_row_table_fetch(slu_row_table *t, uint32_t which, const uint64_t *ids, size_t n, slu_row **rows,
                        slu_error *err)
{
    assert(which < t->n_tables);
    const table *b = &t->tables[which];
    size_t n_missing = 0;
    reserve_missing(t, n);
    for (size_t base = 0; base < n; base += PROBE_BLOCK)
        find_block(t, b, ids, base, n - base < PROBE_BLOCK ? n - base : PROBE_BLOCK, rows, &n_missing);
    t->hits += n - n_missing;
    t->batch_hits += n - n_missing;
    t->batch_misses += n_missing;
    return n_missing ? load_missing(t, which, ids, n_missing, rows, err) : 0;
}

/* ---- reading ahead ---- */

/* A batch that missed fewer than one row in so many is read by fetch as well as by a thread. */
enum { MISSES_WORTH_A_THREAD = 64 };

int slu_row_table_read_ahead(slu_row_table *t, slu_error *err)
{
    uint32_t widest = 0;
    for (uint32_t i = 0; i < t->n_tables; i++)
        widest = t->tables[i].floats > widest ? t->tables[i].floats : widest;
    t->worth_it = true;
    return t->reader ? 0
                     : slu_row_reader_start(t->store, SLU_ROW_VALUE_HEADER + (size_t)widest * sizeof(float),
                                            &t->reader, err);
}

void slu_row_table_expect(slu_row_table *t, uint32_t which, const uint64_t *ids, size_t n)
{
    const table *b = &t->tables[which];
    if (!t->reader || !t->worth_it)
        return;
    for (size_t i = 0; i < n; i++)
        slu_row_slab_prefetch(&b->slab, slu_row_slab_tag(ids[i]));
    for (size_t i = 0; i < n; i++) {
        uint8_t key[SLU_ROW_KEY_BYTES];
        if (slu_row_slab_find(&b->slab, ids[i]))
            continue;
        slu_row_key_write(key, which, ids[i]);
        slu_row_reader_want(t->reader, key);
    }
}

void slu_row_table_arrive(slu_row_table *t)
{
    if (!t->reader)
        return;
    int64_t start = slu_mono_us(&slu_system_clock);
    slu_row_reader_arrive(t->reader);
    t->wait_us += slu_mono_us(&slu_system_clock) - start;
    t->arrived = true;
    t->batch_hits = t->batch_misses = 0;
}

void slu_row_table_expected_done(slu_row_table *t)
{
    if (!t->reader)
        return;
    t->worth_it = t->batch_misses * MISSES_WORTH_A_THREAD >= t->batch_hits + t->batch_misses;
    t->arrived = false;
    slu_row_reader_clear(t->reader);
}

/* ---- changing ---- */

static void leave_sum(slu_row_table *t, uint32_t which, slu_row *row)
{
    if (!row->summed)
        return;
    slu_row_sum_remove(&t->sum, which, row->id, row->v, t->tables[which].served);
    t->tables[which].summed--;
    row->summed = 0;
}

static void join_sum(slu_row_table *t, uint32_t which, slu_row *row)
{
    if (row->summed || !row->admitted || row->deleted)
        return;
    slu_row_sum_add(&t->sum, which, row->id, row->v, t->tables[which].served);
    t->tables[which].summed++;
    row->summed = 1;
}

void slu_row_mark(slu_row_table *t, uint32_t which, slu_row *row)
{
    row->deleted = 0;
    if (row->dirty == DIRTY)
        return;
    table *b = &t->tables[which];
    leave_sum(t, which, row);
    if (row->dirty == CLEAN) {
        t->dirty_rows++;
        t->dirty_bytes += b->slab.stride;
    }
    row->dirty = DIRTY;
    push_id(&b->dirty, row->id);
}

void slu_row_touch(slu_row_table *t, uint32_t which, slu_row *row, uint32_t times, uint32_t seconds)
{
    row->count = row->count > UINT32_MAX - times ? UINT32_MAX : row->count + times;
    if (seconds > row->last_seen)
        row->last_seen = seconds;
    slu_row_mark(t, which, row);
    if (!row->admitted && row->count >= t->tables[which].admit_after)
        admit(t, which, row);
}

void slu_row_delete(slu_row_table *t, uint32_t which, slu_row *row)
{
    slu_row_mark(t, which, row);
    row->grave |= row->admitted;
    row->deleted = 1;
    row->count = 0;
    row->last_seen = 0;
    row->admitted = 0;
    if (t->tables[which].admit_after <= 1)
        admit(t, which, row);
    t->deleted++;
}

/* ---- bounds ---- */

/* Rows that have to go, at least one: of the narrowest table, so rather too many. */
static uint64_t rows_over(const slu_row_table *t)
{
    uint32_t stride = UINT32_MAX;
    for (uint32_t i = 0; i < t->n_tables; i++)
        stride = t->tables[i].slab.stride < stride ? t->tables[i].slab.stride : stride;
    return (t->used_bytes - t->cache_bytes) / stride + 1;
}

/* Gives up after a bounded walk: when most rows are dirty the sweep would else cost every batch a walk over
 * all. Each row is looked at twice before it goes, and a batch may bring any number, so the walk grows with
 * what has to go: a fixed one fell behind large batches of new rows for ever, and the cache grew. */
static void evict(slu_row_table *t)
{
    uint64_t looks = SWEEP_EXTRA + 2 * rows_over(t);
    uint32_t empty_tables = 0;
    while (t->used_bytes > t->cache_bytes && looks && empty_tables <= t->n_tables) {
        table *b = &t->tables[t->hand_table];
        if (t->hand_slot >= b->slab.rows) {
            t->hand_slot = 0;
            t->hand_table = (t->hand_table + 1) % t->n_tables;
            empty_tables++;
            continue;
        }
        empty_tables = 0;
        looks--;
        slu_row *row = slu_row_slab_at(&b->slab, t->hand_slot);
        if (row->dirty != CLEAN) {
            t->hand_slot++;
        } else if (row->referenced) {
            row->referenced = 0;
            t->hand_slot++;
        } else {
            remove_row(t, b, row); /* another row lies here now: look at it next */
            t->evicted++;
        }
    }
}

int slu_row_table_release(slu_row_table *t, slu_error *err)
{
    (void)err;
    for (size_t i = 0; i < t->n_held; i++)
        t->held[i]->held = 0;
    t->n_held = 0;
    if (t->used_bytes > t->cache_bytes && t->n_tables)
        evict(t);
    return 0;
}

uint64_t slu_row_table_dirty_room(const slu_row_table *t)
{
    uint64_t for_rows = t->cache_bytes > t->index_bytes ? t->cache_bytes - t->index_bytes : 0;
    return for_rows / 4 * 3;
}

bool slu_row_table_pressure(const slu_row_table *t)
{
    return t->dirty_bytes > slu_row_table_dirty_room(t);
}

/* ---- committing ---- */

static int compare_ids(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Ids in their order are in no order of memory: index entries and then rows are called for some places ahead,
 * or each row waits for both. |bytes|: of a row that will be looked at. */
static inline void call_ahead(const table *b, const id_list *l, size_t i, size_t bytes)
{
    enum { INDEX_AHEAD = 24, ROW_AHEAD = 12 };
    if (i + INDEX_AHEAD < l->n)
        slu_row_slab_prefetch(&b->slab, slu_row_slab_tag(l->ids[i + INDEX_AHEAD]));
    if (i + ROW_AHEAD >= l->n)
        return;
    const char *row = (const char *)slu_row_slab_find_tag(&b->slab, slu_row_slab_tag(l->ids[i + ROW_AHEAD]));
    for (size_t at = 0; row && at < bytes; at += SLU_CACHE_LINE)
        __builtin_prefetch(row + at, 1);
}

/* Rows of a flush whose commit was never confirmed are dirty again. */
static void take_back_flushed(slu_row_table *t, uint32_t which)
{
    table *b = &t->tables[which];
    for (size_t i = 0; i < b->flushed.n; i++) {
        slu_row *row = slu_row_slab_find(&b->slab, b->flushed.ids[i]);
        assert(row);
        row->grave |= row->told;
        row->told = 0;
        if (row->dirty == FLUSHED) {
            leave_sum(t, which, row);
            row->dirty = DIRTY;
            push_id(&b->dirty, row->id);
        }
    }
    b->flushed.n = 0;
}

static void write_row(slu_row_table *t, uint32_t which, const slu_row *row, slu_commit *c)
{
    uint8_t key[SLU_ROW_KEY_BYTES];
    slu_row_key_write(key, which, row->id);
    if (row->deleted) {
        slu_commit_delete(c, SLU_FAMILY_ROWS, key, sizeof key);
        return;
    }
    size_t len = slu_row_value_write(t->value, row->count, row->last_seen, row->admitted, row->v,
                                     t->tables[which].floats);
    slu_commit_put(c, SLU_FAMILY_ROWS, key, sizeof key, t->value, len);
}

int slu_row_table_flush(slu_row_table *t, slu_commit *c,
                        void (*each)(void *ctx, uint32_t table, const slu_row *row), void *ctx)
{
    for (uint32_t which = 0; which < t->n_tables; which++) {
        table *b = &t->tables[which];
        take_back_flushed(t, which);
        if (b->dirty.n)
            qsort(b->dirty.ids, b->dirty.n, sizeof *b->dirty.ids, compare_ids);
        for (size_t i = 0; i < b->dirty.n; i++) {
            call_ahead(b, &b->dirty, i, b->slab.stride);
            slu_row *row = slu_row_slab_find(&b->slab, b->dirty.ids[i]);
            assert(row && row->dirty == DIRTY);
            if (each)
                each(ctx, which, row);
            write_row(t, which, row, c);
            row->dirty = FLUSHED;
            row->told |= row->grave;
            row->grave = 0;
            join_sum(t, which, row);
        }
        id_list empty = b->flushed;
        b->flushed = b->dirty;
        b->dirty = empty;
    }
    return 0;
}

void slu_row_table_committed(slu_row_table *t)
{
    for (uint32_t which = 0; which < t->n_tables; which++) {
        table *b = &t->tables[which];
        for (size_t i = 0; i < b->flushed.n; i++) {
            call_ahead(b, &b->flushed, i, sizeof(slu_row));
            slu_row *row = slu_row_slab_find(&b->slab, b->flushed.ids[i]);
            assert(row);
            row->told = 0;
            if (row->dirty != FLUSHED)
                continue; /* changed since the flush */
            row->dirty = CLEAN;
            row->deleted = 0; /* nothing is stored any more: one that was never seen */
            t->dirty_rows--;
            t->dirty_bytes -= b->slab.stride;
        }
        b->flushed.n = 0;
    }
}

slu_row_sum slu_row_table_sum(const slu_row_table *t)
{
    return t->sum;
}

uint64_t slu_row_table_served(const slu_row_table *t, uint32_t which)
{
    return t->tables[which].summed;
}

void slu_row_table_set_sum(slu_row_table *t, slu_row_sum stored, const uint64_t *served)
{
    t->sum = stored;
    for (uint32_t i = 0; i < t->n_tables; i++)
        t->tables[i].summed = served[i];
}

void slu_row_table_get_stats(const slu_row_table *t, slu_row_table_stats *out)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < t->n_tables; i++)
        rows += t->tables[i].slab.rows;
    *out = (slu_row_table_stats){
        .cached_rows = rows,
        .cached_bytes = t->used_bytes,
        .dirty_rows = t->dirty_rows,
        .dirty_bytes = t->dirty_bytes,
        .hits = t->hits,
        .misses = t->misses,
        .created = t->created,
        .evicted = t->evicted,
        .deleted = t->deleted,
        .read_ahead = t->read_ahead,
        .wait_us = t->wait_us,
    };
}
