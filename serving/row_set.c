#include "serving/row_set.h"
#include "base/rng.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Index entries: 0 is empty, 1 a tombstone, else (hash >> 32) << 32 | slot + 2. */
#define ENTRY_EMPTY     0u
#define ENTRY_TOMBSTONE 1u
#define ENTRY_FIRST     2u

#define MAX_CHUNKS  65536u
#define CHUNK_BYTES (256u << 10) /* small enough that a dozen tiny tables cost little */
#define FIRST_INDEX 1024u        /* entries */
#define BATCH       32u          /* ids whose cache misses are in flight together */

typedef struct row {
    uint64_t id;
    float v[];
} row;

typedef struct row_index {
    uint64_t mask;          /* entries - 1 */
    struct row_index *next; /* in the list of retired ones */
    uint64_t entries[];
} row_index;

/* Growable list of slots; its order does not matter. */
typedef struct slot_list {
    uint32_t *slots; /* (cap) of which n are used */
    size_t n, cap;
} slot_list;

struct row_set {
    row_index *index; /* read with acquire by readers */
    uint32_t floats;
    uint32_t stride;      /* bytes from row to row */
    uint32_t chunk_shift; /* log2 of the rows of a chunk */
    uint32_t chunks;      /* in use */
    uint32_t slots;       /* given out so far, free and waiting ones included */
    uint64_t live, tombstones;
    slot_list free, waiting;
    row_index *retired;
    uint64_t index_bytes, retired_bytes;
    char *chunk[MAX_CHUNKS]; /* untouched pages of this directory cost nothing */
};

static uint64_t index_size(uint64_t entries)
{
    return sizeof(row_index) + entries * sizeof(uint64_t);
}

static row_index *index_new(uint64_t entries)
{
    row_index *x = calloc(1, index_size(entries));
    if (x)
        x->mask = entries - 1;
    return x;
}

static row *row_at(const row_set *s, uint32_t slot)
{
    uint32_t within = slot & ((1u << s->chunk_shift) - 1);
    return (row *)(void *)(s->chunk[slot >> s->chunk_shift] + (size_t)within * s->stride);
}

static uint64_t entry_of(uint64_t hash, uint32_t slot)
{
    return (hash & 0xffffffff00000000u) | (slot + ENTRY_FIRST);
}

static bool entry_may_be(uint64_t entry, uint64_t hash)
{
    return (uint32_t)entry >= ENTRY_FIRST && (entry >> 32) == (hash >> 32);
}

static uint32_t entry_slot(uint64_t entry)
{
    return (uint32_t)entry - ENTRY_FIRST;
}

row_set *row_set_new(uint32_t floats)
{
    row_set *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->floats = floats;
    s->stride = (uint32_t)((sizeof(row) + (size_t)floats * sizeof(float) + 15) & ~(size_t)15);
    while (((size_t)s->stride << (s->chunk_shift + 1)) <= CHUNK_BYTES)
        s->chunk_shift++;
    s->index = index_new(FIRST_INDEX);
    if (!s->index) {
        free(s);
        return NULL;
    }
    s->index_bytes = index_size(FIRST_INDEX);
    return s;
}

static void free_retired(row_set *s)
{
    while (s->retired) {
        row_index *x = s->retired;
        s->retired = x->next;
        free(x);
    }
    s->retired_bytes = 0;
}

void row_set_free(row_set *s)
{
    if (!s)
        return;
    free_retired(s);
    free(s->index);
    for (uint32_t i = 0; i < s->chunks; i++)
        free(s->chunk[i]);
    free(s->free.slots);
    free(s->waiting.slots);
    free(s);
}

/* ---- readers ---- */

/* Walks the probe sequence from |pos| on; NULL when the id is not there. */
static const row *probe(const row_set *s, const row_index *x, uint64_t id, uint64_t hash, uint64_t pos)
{
    for (;; pos++) {
        uint64_t entry = __atomic_load_n(&x->entries[pos & x->mask], __ATOMIC_ACQUIRE);
        if (entry == ENTRY_EMPTY)
            return NULL;
        if (!entry_may_be(entry, hash))
            continue;
        const row *r = row_at(s, entry_slot(entry));
        if (r->id == id)
            return r;
    }
}

/* The first entry on the way whose tag fits: nearly always the right one. Only its row is prefetched. */
static uint64_t first_fit(const row_set *s, const row_index *x, uint64_t hash)
{
    for (uint64_t pos = hash;; pos++) {
        uint64_t entry = __atomic_load_n(&x->entries[pos & x->mask], __ATOMIC_ACQUIRE);
        if (entry == ENTRY_EMPTY)
            return pos;
        if (entry_may_be(entry, hash)) {
            __builtin_prefetch(row_at(s, entry_slot(entry)));
            return pos;
        }
    }
}

uint32_t row_set_find(const row_set *s, const uint64_t *ids, uint32_t n, const float **rows)
{
    const row_index *x = __atomic_load_n(&s->index, __ATOMIC_ACQUIRE);
    uint64_t hash[BATCH], pos[BATCH];
    uint32_t found = 0;

    for (uint32_t at = 0; at < n; at += BATCH) {
        uint32_t m = n - at < BATCH ? n - at : BATCH;
        for (uint32_t i = 0; i < m; i++) {
            hash[i] = slu_mix64(ids[at + i]);
            __builtin_prefetch(&x->entries[hash[i] & x->mask]);
        }
        for (uint32_t i = 0; i < m; i++)
            pos[i] = first_fit(s, x, hash[i]);
        for (uint32_t i = 0; i < m; i++) {
            const row *r = probe(s, x, ids[at + i], hash[i], pos[i]);
            rows[at + i] = r ? r->v : NULL;
            found += r != NULL;
        }
    }
    return found;
}

/* ---- the writer ---- */

static bool list_reserve(slot_list *l, size_t n)
{
    if (n <= l->cap)
        return true;
    size_t cap = l->cap ? l->cap * 2 : 256;
    while (cap < n)
        cap *= 2;
    uint32_t *slots = realloc(l->slots, cap * sizeof *slots);
    if (!slots)
        return false;
    l->slots = slots;
    l->cap = cap;
    return true;
}

static int out_of_memory(const row_set *s, slu_error *err)
{
    return slu_fail(err, SLU_ENOMEM, "no memory for more than %llu rows of a table",
                    (unsigned long long)s->live);
}

/* A slot that no reader can see. */
static int take_slot(row_set *s, uint32_t *slot, slu_error *err)
{
    if (s->free.n) {
        *slot = s->free.slots[--s->free.n];
        return 0;
    }
    uint32_t c = s->slots >> s->chunk_shift;
    if (c == MAX_CHUNKS || s->slots >= UINT32_MAX - ENTRY_FIRST)
        return slu_fail(err, SLU_ELIMIT, "a table is full with %llu rows", (unsigned long long)s->live);
    if (c == s->chunks) {
        size_t bytes = (size_t)s->stride << s->chunk_shift;
        s->chunk[c] = aligned_alloc(64, (bytes + 63) & ~(size_t)63);
        if (!s->chunk[c])
            return out_of_memory(s, err);
        s->chunks++;
    }
    *slot = s->slots++;
    return 0;
}

/* A new index of the rows that live, without the tombstones, with room for as many again. */
static int rebuild(row_set *s, slu_error *err)
{
    row_index *old = s->index;
    uint64_t entries = old->mask + 1;
    while (entries < 2 * (s->live + 1))
        entries *= 2;
    row_index *x = index_new(entries);
    if (!x)
        return out_of_memory(s, err);
    for (uint64_t i = 0; i <= old->mask; i++) {
        uint64_t entry = old->entries[i];
        if ((uint32_t)entry < ENTRY_FIRST)
            continue;
        uint64_t pos = slu_mix64(row_at(s, entry_slot(entry))->id);
        while (x->entries[pos & x->mask] != ENTRY_EMPTY)
            pos++;
        x->entries[pos & x->mask] = entry;
    }
    __atomic_store_n(&s->index, x, __ATOMIC_RELEASE);
    s->index_bytes = index_size(entries);
    old->next = s->retired;
    s->retired = old;
    s->retired_bytes += index_size(old->mask + 1);
    s->tombstones = 0;
    return 0;
}

/* Where |id| is in the index, or where it would go. */
static uint64_t *place_of(row_set *s, uint64_t id, uint64_t hash, bool *present)
{
    row_index *x = s->index;
    uint64_t *vacant = NULL;
    for (uint64_t pos = hash;; pos++) {
        uint64_t *e = &x->entries[pos & x->mask];
        if (*e == ENTRY_TOMBSTONE && !vacant)
            vacant = e;
        if (*e == ENTRY_EMPTY) {
            *present = false;
            return vacant ? vacant : e;
        }
        if (entry_may_be(*e, hash) && row_at(s, entry_slot(*e))->id == id) {
            *present = true;
            return e;
        }
    }
}

int row_set_put(row_set *s, uint64_t id, const float *v, slu_error *err)
{
    uint64_t hash = slu_mix64(id);
    uint32_t slot = 0;
    bool present;
    int rc;

    if ((s->live + s->tombstones + 1) * 4 > (s->index->mask + 1) * 3) {
        rc = rebuild(s, err);
        if (rc)
            return rc;
    }
    if (!list_reserve(&s->waiting, s->waiting.n + 1) || !list_reserve(&s->free, s->free.n + s->waiting.n + 1))
        return out_of_memory(s, err);
    rc = take_slot(s, &slot, err);
    if (rc)
        return rc;

    row *r = row_at(s, slot);
    r->id = id;
    if (s->floats)
        memcpy(r->v, v, s->floats * sizeof(float));
    uint64_t *e = place_of(s, id, hash, &present);
    uint64_t old = *e;
    __atomic_store_n(e, entry_of(hash, slot), __ATOMIC_RELEASE);
    if (present) {
        s->waiting.slots[s->waiting.n++] = entry_slot(old);
    } else {
        s->live++;
        s->tombstones -= old == ENTRY_TOMBSTONE;
    }
    return 0;
}

bool row_set_delete(row_set *s, uint64_t id)
{
    bool present;
    uint64_t *e = place_of(s, id, slu_mix64(id), &present);
    if (!present)
        return false;
    uint32_t slot = entry_slot(*e);
    __atomic_store_n(e, ENTRY_TOMBSTONE, __ATOMIC_RELEASE);
    s->live--;
    s->tombstones++;
    /* Without memory for the list the slot stays unused until the table goes: a delete must not fail. */
    if (list_reserve(&s->waiting, s->waiting.n + 1) && list_reserve(&s->free, s->free.n + s->waiting.n + 1))
        s->waiting.slots[s->waiting.n++] = slot;
    return true;
}

uint64_t row_set_waiting(const row_set *s)
{
    return s->waiting.n * s->stride + s->retired_bytes;
}

void row_set_reclaim(row_set *s)
{
    assert(s->waiting.n == 0 || s->free.cap >= s->free.n + s->waiting.n);
    for (size_t i = 0; i < s->waiting.n; i++)
        s->free.slots[s->free.n++] = s->waiting.slots[i];
    s->waiting.n = 0;
    free_retired(s);
}

uint64_t row_set_rows(const row_set *s)
{
    return s->live;
}

uint64_t row_set_bytes(const row_set *s)
{
    uint64_t chunks = (uint64_t)s->chunks * ((uint64_t)s->stride << s->chunk_shift);
    return chunks + s->index_bytes + s->retired_bytes + (s->free.cap + s->waiting.cap) * sizeof(uint32_t);
}

uint64_t row_set_next_bytes(const row_set *s)
{
    uint64_t need = 0;
    if (!s->free.n && s->slots == s->chunks << s->chunk_shift)
        need += (uint64_t)s->stride << s->chunk_shift;
    if ((s->live + s->tombstones + 1) * 4 > (s->index->mask + 1) * 3)
        need += 2 * s->index_bytes;
    return need;
}
