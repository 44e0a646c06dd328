#include "store/join_table.h"
#include "base/rng.h"
#include "store/state.h"
#include "store/timers.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* A record is one block: header and bytes. The index maps the key's hash to its block; blocks hang in one of
 * three rings: clean ones in order of eviction (second chance), those changed since the last flush, and those
 * flushed into a commit that is not yet confirmed. A deleted record that may be on disk stays as an empty
 * block until the commit, or a look-up would find it in the store again; one that never got there vanishes at
 * once and costs the disk nothing. */
enum {
    KEY_BYTES = 16,
    FIRST_INDEX = 256,
    CLASS_BYTES =
        64,       /* blocks are rounded up to this, so that one that is freed fits the next of similar size */
    CLASSES = 64, /* larger blocks go straight back to malloc */
    CLASS_KEEPS = 4096, /* free blocks kept per class: a commit frees thousands at once */
    MAX_RECORD = 1 << 30,
};

typedef enum ring_name { CLEAN, CHANGED, FLUSHED, RINGS } ring_name;

typedef struct record {
    struct record *prev, *next; /* in its ring; next also in a free list */
    slu_hash128 key;
    uint32_t len;
    uint8_t ring;
    bool deleted;
    bool on_disk; /* perhaps: it was flushed or read */
    bool referenced;
    _Alignas(16) uint8_t data[];
} record;

typedef struct index_entry {
    uint64_t hash;
    record *r; /* NULL: empty */
} index_entry;

typedef struct free_list {
    record *first;
    uint32_t n;
} free_list;

/* With its key, so that sorting does not wait for the records. */
typedef struct sorted_record {
    slu_hash128 key;
    record *r;
} sorted_record;

struct slu_join_table {
    slu_store *store;
    uint64_t cache_bytes;
    index_entry *index; /* (mask + 1), linear probing, at most 60 % full */
    uint64_t mask, entries;
    record rings[RINGS]; /* heads */
    uint64_t live;       /* records in memory, deleted ones left out */
    uint64_t count;      /* records, in memory or not */
    uint64_t bytes;      /* of all blocks in use */
    uint64_t changed;    /* records in the rings CHANGED and FLUSHED */
    uint64_t misses;
    sorted_record *sorted; /* (cap_sorted) scratch of a flush */
    size_t cap_sorted;
    free_list free[CLASSES];
    slu_buf value; /* of a look-up in the store */
    slu_timers *timers;
};

static const char COUNT_NAME[] = "join.records";

/* ---- blocks ---- */

static size_t block_bytes(size_t len)
{
    return (sizeof(record) + len + CLASS_BYTES - 1) / CLASS_BYTES * CLASS_BYTES;
}

static record *block_new(slu_join_table *t, size_t len)
{
    size_t bytes = block_bytes(len), class = bytes / CLASS_BYTES;
    record *r = NULL;
    if (class < CLASSES && t->free[class].first) {
        r = t->free[class].first;
        t->free[class].first = r->next;
        t->free[class].n--;
    } else {
        r = aligned_alloc(CLASS_BYTES, bytes);
        if (!r)
            abort(); /* bounded by the cache, see base/bytes.h */
    }
    memset(r, 0, sizeof *r);
    r->len = (uint32_t)len;
    t->bytes += bytes;
    return r;
}

static void block_free(slu_join_table *t, record *r)
{
    size_t bytes = block_bytes(r->len), class = bytes / CLASS_BYTES;
    t->bytes -= bytes;
    if (class < CLASSES && t->free[class].n < CLASS_KEEPS) {
        r->next = t->free[class].first;
        t->free[class].first = r;
        t->free[class].n++;
    } else {
        free(r);
    }
}

/* ---- rings ---- */

static void ring_leave(record *r)
{
    r->prev->next = r->next;
    r->next->prev = r->prev;
}

static void ring_enter(slu_join_table *t, record *r, ring_name ring)
{
    record *head = &t->rings[ring];
    r->ring = (uint8_t)ring;
    r->prev = head->prev; /* newest last */
    r->next = head;
    head->prev->next = r;
    head->prev = r;
}

/* A record that is changed again after a flush leaves the ring of that flush. */
static void ring_move(slu_join_table *t, record *r, ring_name ring)
{
    if (r->ring == ring)
        return;
    if (r->ring == CLEAN)
        t->changed++;
    else if (ring == CLEAN)
        t->changed--;
    ring_leave(r);
    ring_enter(t, r, ring);
}

/* ---- index ---- */

static uint64_t hash_of(slu_hash128 key)
{
    return slu_mix64(key.lo ^ key.hi * 0x9e3779b97f4a7c15ULL);
}

static bool same_key(slu_hash128 a, slu_hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

/* Where |key| is, or the empty entry where it would be. */
static index_entry *index_find(const slu_join_table *t, slu_hash128 key, uint64_t hash)
{
    uint64_t i = hash & t->mask;
    while (t->index[i].r && !(t->index[i].hash == hash && same_key(t->index[i].r->key, key)))
        i = (i + 1) & t->mask;
    return &t->index[i];
}

static void index_resize(slu_join_table *t, uint64_t mask)
{
    index_entry *old = t->index;
    uint64_t old_mask = t->mask;
    t->mask = mask;
    t->index = calloc(t->mask + 1, sizeof *t->index);
    if (!t->index)
        abort();
    for (uint64_t k = 0; k <= old_mask; k++) {
        if (!old[k].r)
            continue;
        uint64_t i = old[k].hash & t->mask;
        while (t->index[i].r)
            i = (i + 1) & t->mask;
        t->index[i] = old[k];
    }
    free(old);
}

static void index_put(slu_join_table *t, record *r)
{
    uint64_t hash = hash_of(r->key);
    if ((t->entries + 1) * 5 > (t->mask + 1) * 3)
        index_resize(t, t->mask * 2 + 1);
    *index_find(t, r->key, hash) = (index_entry){hash, r};
    t->entries++;
}

static void index_remove(slu_join_table *t, slu_hash128 key)
{
    uint64_t hole = (uint64_t)(index_find(t, key, hash_of(key)) - t->index);
    assert(t->index[hole].r);
    for (uint64_t i = (hole + 1) & t->mask; t->index[i].r; i = (i + 1) & t->mask) {
        uint64_t home = t->index[i].hash & t->mask;
        if (((i - home) & t->mask) >= ((i - hole) & t->mask)) {
            t->index[hole] = t->index[i];
            hole = i;
        }
    }
    t->index[hole].r = NULL;
    t->entries--;
}

/* Takes a record out of memory. */
static void forget(slu_join_table *t, record *r)
{
    if (r->ring != CLEAN)
        t->changed--;
    t->live -= !r->deleted;
    ring_leave(r);
    index_remove(t, r->key);
    block_free(t, r);
}

/* ---- opening ---- */

int slu_join_table_open(slu_store *s, const slu_join_table_config *config, slu_join_table **tp,
                        slu_error *err)
{
    *tp = NULL;
    slu_join_table *t = calloc(1, sizeof *t);
    if (!t)
        return slu_fail(err, SLU_ENOMEM, "store %s: out of memory", slu_store_path(s));
    t->store = s;
    t->cache_bytes = config->cache_bytes;
    for (int i = 0; i < RINGS; i++)
        t->rings[i].prev = t->rings[i].next = &t->rings[i];
    t->mask = FIRST_INDEX - 1;
    t->index = calloc(FIRST_INDEX, sizeof *t->index);
    int rc = t->index ? slu_state_get_u64(s, COUNT_NAME, 0, &t->count, err)
                      : slu_fail(err, SLU_ENOMEM, "store %s: out of memory", slu_store_path(s));
    slu_timers_config timers = {SLU_FAMILY_TIMERS, "join.timers", true, config->cache_bytes / 8};
    if (!rc)
        rc = slu_timers_open(s, &timers, &t->timers, err);
    if (rc) {
        slu_join_table_close(t);
        return rc;
    }
    *tp = t;
    return 0;
}

void slu_join_table_close(slu_join_table *t)
{
    if (!t)
        return;
    for (int i = 0; i < RINGS; i++)
        for (record *r = t->rings[i].next; r != &t->rings[i];) {
            record *next = r->next;
            free(r);
            r = next;
        }
    for (int i = 0; i < CLASSES; i++)
        while (t->free[i].first) {
            record *r = t->free[i].first;
            t->free[i].first = r->next;
            free(r);
        }
    slu_timers_close(t->timers);
    slu_buf_free(&t->value);
    free(t->sorted);
    free(t->index);
    free(t);
}

/* ---- records ---- */

static void write_key(uint8_t out[KEY_BYTES], slu_hash128 key)
{
    uint64_t hi = __builtin_bswap64(key.hi), lo = __builtin_bswap64(key.lo);
    memcpy(out, &hi, 8);
    memcpy(out + 8, &lo, 8);
}

/* Second chance: what was used since it came to the front goes back to the end. Deadlines of clean records
 * that go are still known to the timers; the record is read again when one fires. */
static void evict(slu_join_table *t)
{
    record *head = &t->rings[CLEAN];
    while (t->bytes + (t->mask + 1) * sizeof *t->index > t->cache_bytes && head->next != head) {
        record *r = head->next;
        if (r->referenced) {
            r->referenced = false;
            ring_leave(r);
            ring_enter(t, r, CLEAN);
        } else {
            forget(t, r);
        }
    }
}

static record *insert(slu_join_table *t, slu_hash128 key, const void *data, size_t len, ring_name ring)
{
    record *r = block_new(t, len);
    r->key = key;
    r->referenced = true;
    if (len)
        memcpy(r->data, data, len);
    ring_enter(t, r, ring);
    t->changed += ring != CLEAN;
    index_put(t, r);
    t->live++;
    return r;
}

/* The record of |key| in memory, deleted or not, read from the store if need be. NULL with *rc 0 or
 * SLU_ENOTFOUND when there is none. */
static record *find(slu_join_table *t, slu_hash128 key, int *rc, slu_error *err)
{
    *rc = 0;
    record *r = index_find(t, key, hash_of(key))->r;
    if (r) {
        r->referenced = true;
        return r;
    }
    /* The count is exact: when all records are in memory nobody needs to ask the store for one more. */
    if (t->live == t->count)
        return NULL;
    uint8_t bytes[KEY_BYTES];
    write_key(bytes, key);
    *rc = slu_store_get(t->store, SLU_FAMILY_JOIN, bytes, sizeof bytes, &t->value, err);
    t->misses++;
    if (*rc == SLU_ENOTFOUND)
        *rc = 0;
    else if (!*rc) {
        evict(t);
        r = insert(t, key, t->value.data, t->value.len, CLEAN);
        r->on_disk = true;
    }
    return r;
}

int slu_join_table_get(slu_join_table *t, slu_hash128 key, uint8_t **data, size_t *len, slu_error *err)
{
    int rc;
    record *r = find(t, key, &rc, err);
    if (!r || r->deleted)
        return rc ? rc : SLU_ENOTFOUND;
    *data = r->data;
    *len = r->len;
    return 0;
}

int slu_join_table_touch(slu_join_table *t, slu_hash128 key)
{
    record *r = index_find(t, key, hash_of(key))->r;
    if (!r || r->deleted)
        return SLU_ENOTFOUND;
    ring_move(t, r, CHANGED);
    return 0;
}

/* Gives |old| a block that fits |len|; key, ring and all flags stay. Its bytes are lost, |old| too. */
static record *resize(slu_join_table *t, record *old, size_t len)
{
    if (block_bytes(old->len) == block_bytes(len)) {
        old->len = (uint32_t)len;
        return old;
    }
    record *r = block_new(t, len);
    r->key = old->key;
    r->ring = old->ring;
    r->deleted = old->deleted;
    r->on_disk = old->on_disk;
    r->referenced = old->referenced;
    r->prev = old->prev;
    r->next = old->next;
    r->prev->next = r;
    r->next->prev = r;
    index_find(t, old->key, hash_of(old->key))->r = r;
    block_free(t, old);
    return r;
}

int slu_join_table_put(slu_join_table *t, slu_hash128 key, const void *data, size_t len, uint8_t **stored,
                       slu_error *err)
{
    if (len > MAX_RECORD)
        return slu_fail(err, SLU_ELIMIT, "store %s: a join record of %zu bytes is over the limit of %d",
                        slu_store_path(t->store), len, MAX_RECORD);
    int rc;
    record *r = find(t, key, &rc, err);
    if (rc)
        return rc;
    if (!r) {
        r = insert(t, key, data, len, CHANGED);
        t->count++;
    } else {
        if (r->deleted) {
            r->deleted = false;
            t->live++;
            t->count++;
        }
        r = resize(t, r, len);
        if (len)
            memmove(r->data, data, len); /* may be the record's own bytes */
        ring_move(t, r, CHANGED);
    }
    evict(t);
    if (stored)
        *stored = r->data;
    return 0;
}

int slu_join_table_delete(slu_join_table *t, slu_hash128 key, slu_error *err)
{
    int rc;
    record *r = find(t, key, &rc, err);
    if (!r || r->deleted)
        return rc ? rc : SLU_ENOTFOUND;
    t->count--;
    if (!r->on_disk) {
        forget(t, r);
        return 0;
    }
    r = resize(t, r, 0);
    r->deleted = true;
    t->live--;
    ring_move(t, r, CHANGED);
    return 0;
}

uint64_t slu_join_table_count(const slu_join_table *t)
{
    return t->count;
}

/* ---- timers ---- */

int slu_join_timer_add(slu_join_table *t, int64_t deadline_us, uint64_t sequence, slu_hash128 key,
                       slu_error *err)
{
    (void)err;
    slu_timers_add(t->timers, deadline_us, sequence, key);
    return 0;
}

int slu_join_timer_pop(slu_join_table *t, int64_t now_us, int64_t *deadline_us, uint64_t *sequence,
                       slu_hash128 *key, slu_error *err)
{
    return slu_timers_pop(t->timers, now_us, deadline_us, sequence, key, err);
}

int64_t slu_join_timer_next(slu_join_table *t)
{
    return slu_timers_next(t->timers);
}

uint64_t slu_join_timer_count(const slu_join_table *t)
{
    return slu_timers_count(t->timers);
}

/* ---- committing ---- */

static int compare_places(const void *a, const void *b)
{
    slu_hash128 x = ((const sorted_record *)a)->key, y = ((const sorted_record *)b)->key;
    return x.hi != y.hi ? (x.hi > y.hi) - (x.hi < y.hi) : (x.lo > y.lo) - (x.lo < y.lo);
}

/* The records of the ring CHANGED in key order, t->changed of them: the store takes sorted keys much faster.
 */
static const sorted_record *sort_changed(slu_join_table *t)
{
    if (t->cap_sorted < t->changed) {
        t->cap_sorted = t->changed + t->changed / 2;
        t->sorted = reallocarray(t->sorted, t->cap_sorted, sizeof *t->sorted);
        if (!t->sorted)
            abort();
    }
    size_t n = 0;
    for (record *r = t->rings[CHANGED].next; r != &t->rings[CHANGED]; r = r->next)
        t->sorted[n++] = (sorted_record){r->key, r};
    assert(n == t->changed);
    if (n)
        qsort(t->sorted, n, sizeof *t->sorted, compare_places);
    return t->sorted;
}

int slu_join_table_flush(slu_join_table *t, slu_commit *c)
{
    uint8_t key[KEY_BYTES];
    record *flushed = &t->rings[FLUSHED];
    /* What an earlier flush wrote into a commit that never came about is still to be written. */
    while (flushed->next != flushed)
        ring_move(t, flushed->next, CHANGED);
    const sorted_record *sorted = sort_changed(t);
    for (size_t i = 0, n = t->changed; i < n; i++) {
        if (i + 4 < n)
            __builtin_prefetch(sorted[i + 4].r);
        record *r = sorted[i].r;
        write_key(key, r->key);
        if (r->deleted)
            slu_commit_delete(c, SLU_FAMILY_JOIN, key, sizeof key);
        else
            slu_commit_put(c, SLU_FAMILY_JOIN, key, sizeof key, r->data, r->len);
        r->on_disk = true;
        ring_move(t, r, FLUSHED);
    }
    slu_state_put_u64(c, COUNT_NAME, t->count);
    slu_timers_flush(t->timers, c);
    return 0;
}

void slu_join_table_committed(slu_join_table *t)
{
    record *flushed = &t->rings[FLUSHED];
    while (flushed->next != flushed) {
        record *r = flushed->next;
        if (r->deleted)
            forget(t, r);
        else
            ring_move(t, r, CLEAN);
    }
    slu_timers_committed(t->timers);
    evict(t);
    /* What one great commit needed is not kept for good: it counts against the cache. */
    uint64_t mask = t->mask;
    while (mask > FIRST_INDEX && t->entries * 10 < mask)
        mask /= 2;
    if (mask != t->mask)
        index_resize(t, mask);
}

void slu_join_table_get_stats(const slu_join_table *t, slu_join_table_stats *out)
{
    *out = (slu_join_table_stats){
        .cached_records = t->live,
        .cached_bytes = t->bytes + (t->mask + 1) * sizeof *t->index,
        .dirty_records = t->changed,
        .dirty_bytes = t->live ? t->bytes * t->changed / t->live : 0,
        .timers_in_memory = slu_timers_in_memory(t->timers),
        .misses = t->misses,
    };
}
