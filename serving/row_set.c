#include "serving/row_set.h"
#include "base/rng.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* Index entries: 0 is empty, 1 a tombstone, else the hash's low 32 bits << 32 | slot + 2. These bits are also
 * the home position, so a larger index is made from the smaller one alone, without a look at any row. */
#define ENTRY_EMPTY     0u
#define ENTRY_TOMBSTONE 1u
#define ENTRY_FIRST     2u

#define MAX_CHUNKS   65536u
#define CHUNK_BYTES  HUGE_PAGE /* pages that were not touched cost nothing, so tiny tables cost little */
#define HUGE_PAGE    (2u << 20)
#define PAGE         4096u
#define MAPPED_BYTES (64u << 10) /* indexes from here on are mapped, not allocated */
#define FIRST_INDEX  1024u       /* entries */
#define BATCH        32u         /* ids whose cache misses are in flight together */
#define FETCHED      128u        /* bytes of a row that are called ahead */
#define NO_SLOT      UINT32_MAX

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; a header of that time may not know it */
#endif

/* Row states: the mark of a version that is not settled in the low bits, and whether this is a deletion. */
#define MARK_BITS 3u
#define DELETED   4u

typedef struct row {
    uint64_t id;
    uint32_t state; /* read and settled atomically */
    uint32_t prev;  /* slot of what this replaced, NO_SLOT: nothing. Followed only while marked */
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
    uint32_t chunk_rows;  /* a chunk has so many rows */
    uint32_t chunk_shift; /* and so many numbers of slots, log2; those behind its rows are not used */
    uint32_t chunks;      /* in use */
    uint32_t slots;       /* the next one that was never given out */
    uint64_t live;        /* rows of the version being made */
    uint64_t used;        /* entries that are not empty */
    uint64_t tombstones;  /* of them */
    slot_list free;
    slot_list fresh;    /* marked: of the version being made */
    slot_list replaced; /* their predecessors, free when it is settled */
    slot_list waiting;  /* nothing leads there any more; free after a grace period */
    row_index *retired;
    uint64_t index_bytes, retired_bytes;
    char *chunk[MAX_CHUNKS]; /* untouched pages of this directory cost nothing */
};

static char *mapped(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* |bytes| that begin at a huge page. Rows and entries are hit at random, and with small pages nearly each of
 * them would also want a walk through page tables, on a virtual machine through two. */
static void *mapped_huge(size_t bytes)
{
    char *p = mapped(bytes + HUGE_PAGE - PAGE);
    if (!p)
        return NULL;
    size_t before = -(uintptr_t)p % HUGE_PAGE;
    if (before)
        munmap(p, before);
    p += before;
    munmap(p + bytes, HUGE_PAGE - PAGE - before);
    return p;
}

static size_t pages_of(size_t bytes)
{
    return (bytes + PAGE - 1) & ~(size_t)(PAGE - 1);
}

/* Zeroed. What is as large as a huge page begins at one. */
static void *memory_new(size_t bytes)
{
    if (bytes < MAPPED_BYTES)
        return calloc(1, bytes);
    return bytes < HUGE_PAGE ? mapped(bytes) : mapped_huge(pages_of(bytes));
}

static void memory_free(void *p, size_t bytes)
{
    if (bytes < MAPPED_BYTES)
        free(p);
    else
        munmap(p, pages_of(bytes));
}

/* Asks for huge pages; a system that has none to give goes on with small ones. */
static void make_huge(void *p, size_t bytes)
{
    madvise(p, bytes, MADV_HUGEPAGE);
}

static size_t index_size(uint64_t entries)
{
    return sizeof(row_index) + entries * sizeof(uint64_t);
}

static row_index *index_new(uint64_t entries)
{
    const size_t bytes = index_size(entries);
    row_index *x = memory_new(bytes);
    if (!x)
        return NULL;
    if (bytes >= HUGE_PAGE)
        make_huge(x, bytes);
    x->mask = entries - 1;
    return x;
}

static void index_free(row_index *x)
{
    if (x)
        memory_free(x, index_size(x->mask + 1));
}

static size_t chunk_bytes(const row_set *s)
{
    return s->chunk_rows == 1 ? s->stride : CHUNK_BYTES;
}

static row *row_at(const row_set *s, uint32_t slot)
{
    uint32_t within = slot & ((1u << s->chunk_shift) - 1);
    return (row *)(void *)(s->chunk[slot >> s->chunk_shift] + (size_t)within * s->stride);
}

static uint64_t hash_of(uint64_t id)
{
    return (uint32_t)slu_mix64(id);
}

static uint64_t entry_of(uint64_t hash, uint32_t slot)
{
    return hash << 32 | (slot + ENTRY_FIRST);
}

static bool entry_may_be(uint64_t entry, uint64_t hash)
{
    return (uint32_t)entry >= ENTRY_FIRST && entry >> 32 == hash;
}

static uint32_t entry_slot(uint64_t entry)
{
    return (uint32_t)entry - ENTRY_FIRST;
}

static uint32_t state_of(const row *r)
{
    return __atomic_load_n(&r->state, __ATOMIC_RELAXED);
}

row_set *row_set_new(uint32_t floats)
{
    row_set *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->floats = floats;
    s->stride = (uint32_t)((sizeof(row) + (size_t)floats * sizeof(float) + 7) & ~(size_t)7);
    s->chunk_rows = s->stride < CHUNK_BYTES ? CHUNK_BYTES / s->stride : 1;
    while (1u << s->chunk_shift < s->chunk_rows)
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
        index_free(x);
    }
    s->retired_bytes = 0;
}

void row_set_free(row_set *s)
{
    if (!s)
        return;
    free_retired(s);
    index_free(s->index);
    for (uint32_t i = 0; i < s->chunks; i++)
        memory_free(s->chunk[i], chunk_bytes(s));
    free(s->free.slots);
    free(s->fresh.slots);
    free(s->replaced.slots);
    free(s->waiting.slots);
    free(s);
}

/* ---- readers ---- */

/* What a reader of the version with |mark| finds in |r|. */
static const float *as_seen(const row_set *s, const row *r, uint32_t mark)
{
    uint32_t state = state_of(r);
    if ((state & MARK_BITS) == 3 - mark) { /* of the version to come */
        if (r->prev == NO_SLOT)
            return NULL;
        return row_at(s, r->prev)->v;
    }
    return state & DELETED ? NULL : r->v;
}

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

/* Rows do not begin at lines, so a row of 16 floats is in two; a longer one's other lines follow by
 * themselves. */
static void prefetch_row(const row_set *s, uint32_t slot)
{
    const char *r = (const char *)row_at(s, slot);
    __builtin_prefetch(r);
    __builtin_prefetch(r + (s->stride < FETCHED ? s->stride : FETCHED) - 1);
}

/* The first entry on the way whose tag fits: nearly always the right one. Only its row is prefetched. */
static uint64_t first_fit(const row_set *s, const row_index *x, uint64_t hash)
{
    for (uint64_t pos = hash;; pos++) {
        uint64_t entry = __atomic_load_n(&x->entries[pos & x->mask], __ATOMIC_ACQUIRE);
        if (entry == ENTRY_EMPTY)
            return pos;
        if (entry_may_be(entry, hash)) {
            prefetch_row(s, entry_slot(entry));
            return pos;
        }
    }
}

/* Ids that are looked for together. */
typedef struct batch {
    uint32_t at, n;
    uint64_t hash[BATCH], pos[BATCH];
} batch;

/* The ids from |at| on, at most BATCH, whose index entries are on their way into the cache then. */
static void begin_batch(const row_index *x, const uint64_t *ids, uint32_t at, uint32_t n, batch *b)
{
    b->at = at;
    b->n = n - at < BATCH ? n - at : BATCH;
    for (uint32_t i = 0; i < b->n; i++) {
        b->hash[i] = hash_of(ids[at + i]);
        __builtin_prefetch(&x->entries[b->hash[i] & x->mask]);
    }
}

static void fit_batch(const row_set *s, const row_index *x, batch *b)
{
    for (uint32_t i = 0; i < b->n; i++)
        b->pos[i] = first_fit(s, x, b->hash[i]);
}

/* Three batches are under way: the index entries of one come while those of the one before are read, whose
 * rows come while the rows of the one before that are. */
uint32_t row_set_find(const row_set *s, uint32_t mark, const uint64_t *ids, uint32_t n, const float **rows)
{
    const row_index *x = __atomic_load_n(&s->index, __ATOMIC_ACQUIRE);
    batch batches[3], *now = batches, *next = batches + 1, *third = batches + 2;
    uint32_t found = 0;

    begin_batch(x, ids, 0, n, now);
    begin_batch(x, ids, now->n, n, next);
    fit_batch(s, x, now);
    while (now->n) {
        begin_batch(x, ids, next->at + next->n, n, third);
        fit_batch(s, x, next);
        for (uint32_t i = 0; i < now->n; i++) {
            const uint32_t at = now->at + i;
            const row *r = probe(s, x, ids[at], now->hash[i], now->pos[i]);
            rows[at] = r ? as_seen(s, r, mark) : NULL;
            found += rows[at] != NULL;
        }
        batch *done = now;
        now = next;
        next = third;
        third = done;
    }
    return found;
}

void row_set_call(const row_set *s, const uint64_t *ids, uint32_t n)
{
    const row_index *x = __atomic_load_n(&s->index, __ATOMIC_ACQUIRE);
    for (uint32_t i = 0; i < n; i++)
        __builtin_prefetch(&x->entries[hash_of(ids[i]) & x->mask]);
}

/* ---- the writer: memory ---- */

/* What |l| has room for once |n| have it. */
static size_t list_cap(const slot_list *l, size_t n)
{
    if (n <= l->cap)
        return l->cap;
    size_t cap = l->cap ? l->cap * 2 : 256;
    while (cap < n)
        cap *= 2;
    return cap;
}

static bool list_reserve(slot_list *l, size_t n)
{
    if (n <= l->cap)
        return true;
    const size_t cap = list_cap(l, n);
    uint32_t *slots = realloc(l->slots, cap * sizeof *slots);
    if (!slots)
        return false;
    l->slots = slots;
    l->cap = cap;
    return true;
}

static void list_push(slot_list *l, uint32_t slot)
{
    assert(l->n < l->cap);
    l->slots[l->n++] = slot;
}

/* Moves all of |from| to |to|, where there is room. */
static void list_move(slot_list *to, slot_list *from)
{
    assert(to->cap >= to->n + from->n);
    if (from->n)
        memcpy(to->slots + to->n, from->slots, from->n * sizeof *from->slots);
    to->n += from->n;
    from->n = 0;
}

/* What the lists must have room for so that one more change, and then settling, undoing and reclaiming,
 * cannot fail. */
typedef struct list_needs {
    size_t fresh, replaced, waiting, free;
} list_needs;

static list_needs needs_of(const row_set *s)
{
    return (list_needs){.fresh = s->fresh.n + 1,
                        .replaced = s->replaced.n + 1,
                        .waiting = s->waiting.n + s->fresh.n + 2,
                        .free = s->free.n + s->waiting.n + s->replaced.n + s->fresh.n + 3};
}

static bool reserve(row_set *s)
{
    const list_needs n = needs_of(s);
    return list_reserve(&s->fresh, n.fresh) && list_reserve(&s->replaced, n.replaced) &&
           list_reserve(&s->waiting, n.waiting) && list_reserve(&s->free, n.free);
}

static int out_of_memory(const row_set *s, slu_error *err)
{
    return slu_fail(err, SLU_ENOMEM, "no memory for more than %llu rows of a table",
                    (unsigned long long)s->live);
}

/* A table's first chunk has small pages, of which only those touched count, until there is a second one. */
static bool add_chunk(row_set *s)
{
    char *p = memory_new(chunk_bytes(s));
    if (!p)
        return false;
    s->chunk[s->chunks++] = p;
    if (s->chunk_rows == 1 || s->chunks == 1)
        return true;
    make_huge(p, CHUNK_BYTES);
    if (s->chunks == 2) {
        make_huge(s->chunk[0], CHUNK_BYTES);
        madvise(s->chunk[0], CHUNK_BYTES, MADV_COLLAPSE); /* its rows move into a huge page where they are */
    }
    return true;
}

/* A slot that no reader can see. */
static int take_slot(row_set *s, uint32_t *slot, slu_error *err)
{
    if (s->free.n) {
        *slot = s->free.slots[--s->free.n];
        return 0;
    }
    uint32_t c = s->slots >> s->chunk_shift;
    if (c == MAX_CHUNKS || s->slots >= NO_SLOT - ENTRY_FIRST)
        return slu_fail(err, SLU_ELIMIT, "a table is full with %llu rows", (unsigned long long)s->live);
    if (c == s->chunks && !add_chunk(s))
        return out_of_memory(s, err);
    *slot = s->slots++;
    if ((s->slots & ((1u << s->chunk_shift) - 1)) == s->chunk_rows)
        s->slots = (c + 1) << s->chunk_shift;
    return 0;
}

static bool index_is_full(const row_set *s)
{
    return (s->used + 1) * 4 > (s->index->mask + 1) * 3;
}

/* A new index without the tombstones, with room for as many rows again. */
static int rebuild(row_set *s, uint32_t mark, slu_error *err)
{
    row_index *old = s->index;
    uint64_t entries = old->mask + 1, rows = s->used - s->tombstones;
    while (entries < 2 * (rows + 1))
        entries *= 2;
    row_index *x = index_new(entries);
    if (!x)
        return out_of_memory(s, err);
    for (uint64_t i = 0; i <= old->mask; i++) {
        uint64_t entry = old->entries[i];
        if ((uint32_t)entry < ENTRY_FIRST)
            continue;
        uint64_t pos = entry >> 32;
        while (x->entries[pos & x->mask] != ENTRY_EMPTY)
            pos++;
        x->entries[pos & x->mask] = entry;
    }
    __atomic_store_n(&s->index, x, __ATOMIC_RELEASE);
    s->index_bytes = index_size(entries);
    s->used = rows;
    s->tombstones = 0;
    if (mark == ROW_SET_PRIVATE) {
        index_free(old);
        return 0;
    }
    old->next = s->retired;
    s->retired = old;
    s->retired_bytes += index_size(old->mask + 1);
    return 0;
}

/* ---- the writer: changes ---- */

/* Where |id| is in the index, or where it would go. */
static uint64_t *place_of(const row_set *s, uint64_t id, uint64_t hash, bool *present)
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

void row_set_expect(const row_set *s, uint64_t id)
{
    __builtin_prefetch(&s->index->entries[hash_of(id) & s->index->mask]);
}

const float *row_set_newest(const row_set *s, uint64_t id)
{
    bool present;
    const uint64_t *e = place_of(s, id, hash_of(id), &present);
    if (!present)
        return NULL;
    const row *r = row_at(s, entry_slot(*e));
    return state_of(r) & DELETED ? NULL : r->v;
}

static void fill(const row_set *s, uint32_t slot, uint64_t id, uint32_t state, uint32_t prev, const float *v)
{
    row *r = row_at(s, slot);
    r->id = id;
    r->prev = prev;
    __atomic_store_n(&r->state, state, __ATOMIC_RELAXED);
    if (v && s->floats)
        memcpy(r->v, v, s->floats * sizeof(float));
}

/* What a new row in place of |old| has as its predecessor. A row of the same version that is replaced in turn
 * is of no use to anybody, but a reader may be looking at it. */
static uint32_t predecessor(row_set *s, uint32_t old)
{
    const row *r = row_at(s, old);
    if (state_of(r) & MARK_BITS) {
        list_push(&s->waiting, old);
        return r->prev;
    }
    list_push(&s->replaced, old);
    return old;
}

static void set_entry(row_set *s, uint64_t *e, uint64_t entry)
{
    s->used += *e == ENTRY_EMPTY;
    s->tombstones -= *e == ENTRY_TOMBSTONE;
    s->tombstones += entry == ENTRY_TOMBSTONE;
    __atomic_store_n(e, entry, __ATOMIC_RELEASE);
}

/* Lets |id| lead to a new row of the version being made; |v| NULL: a deletion. */
static int lead_to(row_set *s, uint32_t mark, uint64_t id, const float *v, slu_error *err)
{
    uint64_t hash = hash_of(id);
    uint32_t slot = 0, prev = NO_SLOT;
    bool present, was = false;
    int rc = take_slot(s, &slot, err);
    if (rc)
        return rc;
    uint64_t *e = place_of(s, id, hash, &present);
    if (present) {
        uint32_t old = entry_slot(*e);
        was = !(state_of(row_at(s, old)) & DELETED);
        prev = predecessor(s, old);
    }
    fill(s, slot, id, v ? mark : mark | DELETED, prev, v);
    list_push(&s->fresh, slot);
    set_entry(s, e, entry_of(hash, slot));
    s->live += v != NULL;
    s->live -= was;
    return 0;
}

static int put_in_place(row_set *s, uint64_t id, const float *v, slu_error *err)
{
    uint64_t hash = hash_of(id);
    uint32_t slot = 0;
    bool present;
    uint64_t *e = place_of(s, id, hash, &present);
    if (present) {
        fill(s, entry_slot(*e), id, 0, NO_SLOT, v);
        return 0;
    }
    int rc = take_slot(s, &slot, err);
    if (rc)
        return rc;
    fill(s, slot, id, 0, NO_SLOT, v);
    set_entry(s, e, entry_of(hash, slot));
    s->live++;
    return 0;
}

int row_set_put(row_set *s, uint32_t mark, uint64_t id, const float *v, slu_error *err)
{
    static const float nothing[1];
    if (index_is_full(s)) {
        int rc = rebuild(s, mark, err);
        if (rc)
            return rc;
    }
    if (!reserve(s))
        return out_of_memory(s, err);
    if (!v) /* a row of no floats */
        v = nothing;
    return mark == ROW_SET_PRIVATE ? put_in_place(s, id, v, err) : lead_to(s, mark, id, v, err);
}

int row_set_delete(row_set *s, uint32_t mark, uint64_t id, slu_error *err)
{
    bool present;
    uint64_t *e = place_of(s, id, hash_of(id), &present);
    if (!present || state_of(row_at(s, entry_slot(*e))) & DELETED)
        return 0;
    if (!reserve(s))
        return out_of_memory(s, err);
    if (mark != ROW_SET_PRIVATE) {
        int rc = lead_to(s, mark, id, NULL, err);
        return rc ? rc : 1;
    }
    list_push(&s->free, entry_slot(*e));
    set_entry(s, e, ENTRY_TOMBSTONE);
    s->live--;
    return 1;
}

/* ---- the writer: the end of a version ---- */

void row_set_settle(row_set *s)
{
    row_set_reclaim(s);
    list_move(&s->free, &s->replaced);
    for (size_t i = 0; i < s->fresh.n; i++) {
        uint32_t slot = s->fresh.slots[i];
        row *r = row_at(s, slot);
        uint32_t state = state_of(r);
        bool present;
        __atomic_store_n(&r->state, state & ~MARK_BITS, __ATOMIC_RELAXED);
        if (!(state & DELETED))
            continue;
        uint64_t *e = place_of(s, r->id, hash_of(r->id), &present);
        if (!present || entry_slot(*e) != slot)
            continue; /* it was replaced within its version */
        set_entry(s, e, ENTRY_TOMBSTONE);
        list_push(&s->waiting, slot);
    }
    s->fresh.n = 0;
}

void row_set_undo(row_set *s)
{
    for (size_t i = 0; i < s->fresh.n; i++) {
        uint32_t slot = s->fresh.slots[i];
        const row *r = row_at(s, slot);
        uint64_t hash = hash_of(r->id);
        bool present;
        uint64_t *e = place_of(s, r->id, hash, &present);
        if (!present || entry_slot(*e) != slot)
            continue;
        s->live -= !(state_of(r) & DELETED);
        s->live += r->prev != NO_SLOT;
        set_entry(s, e, r->prev == NO_SLOT ? ENTRY_TOMBSTONE : entry_of(hash, r->prev));
        list_push(&s->waiting, slot);
    }
    s->fresh.n = 0;
    s->replaced.n = 0;
}

void row_set_reclaim(row_set *s)
{
    list_move(&s->free, &s->waiting);
    free_retired(s);
}

/* ---- sizes ---- */

uint64_t row_set_rows(const row_set *s)
{
    return s->live;
}

/* Bytes of chunks once |slots| were given out: pages of the first, from then on whole ones. */
static uint64_t touched(const row_set *s, uint64_t slots)
{
    uint64_t chunks = (slots + (1u << s->chunk_shift) - 1) >> s->chunk_shift;
    if (s->chunk_rows == 1)
        return chunks * pages_of(s->stride);
    return chunks > 1 || slots >= s->chunk_rows ? chunks * CHUNK_BYTES : pages_of(slots * s->stride);
}

static size_t list_slots(const row_set *s)
{
    return s->free.cap + s->fresh.cap + s->replaced.cap + s->waiting.cap;
}

static size_t list_slots_next(const row_set *s)
{
    const list_needs n = needs_of(s);
    return list_cap(&s->free, n.free) + list_cap(&s->fresh, n.fresh) + list_cap(&s->replaced, n.replaced) +
           list_cap(&s->waiting, n.waiting);
}

uint64_t row_set_bytes(const row_set *s)
{
    return touched(s, s->slots) + s->index_bytes + s->retired_bytes + list_slots(s) * sizeof(uint32_t);
}

uint64_t row_set_next_bytes(const row_set *s)
{
    uint64_t need = (list_slots_next(s) - list_slots(s)) * sizeof(uint32_t);
    if (!s->free.n)
        need += touched(s, s->slots + 1ull) - touched(s, s->slots);
    if (index_is_full(s))
        need += 2 * s->index_bytes;
    return need;
}
