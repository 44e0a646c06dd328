#include "serving/row_set.h"
#include "serving/row_chunks.h"
#include "serving/row_index.h"
#include "serving/slot_list.h"
#include <stdlib.h>
#include <string.h>

#define BATCH   32u  /* ids whose cache misses are in flight together */
#define FETCHED 128u /* bytes of a row that are called ahead */
#define NO_SLOT UINT32_MAX

/* Row states: the mark of a version that is not settled in the low bits, and whether this is a deletion. */
#define MARK_BITS 3u
#define DELETED   4u

typedef struct row {
    uint64_t id;
    uint32_t state; /* read and settled atomically */
    uint32_t prev;  /* slot of what this replaced, NO_SLOT: nothing. Followed only while marked */
    float v[];
} row;

struct row_set {
    row_index index;
    uint32_t floats;
    uint64_t live; /* rows of the version being made */
    slot_list free;
    slot_list fresh;    /* marked: of the version being made */
    slot_list replaced; /* their predecessors, free when it is settled */
    slot_list waiting;  /* nothing leads there any more; free after a grace period */
    row_chunks chunks;  /* the last: it is large */
};

static row *row_at(const row_set *s, uint32_t slot)
{
    return row_chunks_at(&s->chunks, slot);
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
    row_chunks_init(&s->chunks, sizeof(row) + (size_t)floats * sizeof(float));
    if (!row_index_init(&s->index)) {
        free(s);
        return NULL;
    }
    return s;
}

void row_set_free(row_set *s)
{
    if (!s)
        return;
    row_index_free(&s->index);
    row_chunks_free(&s->chunks);
    slot_list_free(&s->free);
    slot_list_free(&s->fresh);
    slot_list_free(&s->replaced);
    slot_list_free(&s->waiting);
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
static const row *probe(const row_set *s, const row_entries *x, uint64_t id, uint64_t hash, uint64_t pos)
{
    for (;; pos++) {
        uint64_t entry = row_entries_load(x, pos);
        if (entry == ROW_ENTRY_EMPTY)
            return NULL;
        if (!row_entry_fits(entry, hash))
            continue;
        const row *r = row_at(s, row_entry_slot(entry));
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
    __builtin_prefetch(r + (s->chunks.stride < FETCHED ? s->chunks.stride : FETCHED) - 1);
}

/* The first entry on the way whose tag fits: nearly always the right one. Only its row is prefetched. */
static uint64_t first_fit(const row_set *s, const row_entries *x, uint64_t hash)
{
    for (uint64_t pos = hash;; pos++) {
        uint64_t entry = row_entries_load(x, pos);
        if (entry == ROW_ENTRY_EMPTY)
            return pos;
        if (row_entry_fits(entry, hash)) {
            prefetch_row(s, row_entry_slot(entry));
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
static void begin_batch(const row_entries *x, const uint64_t *ids, uint32_t at, uint32_t n, batch *b)
{
    b->at = at;
    b->n = n - at < BATCH ? n - at : BATCH;
    for (uint32_t i = 0; i < b->n; i++) {
        b->hash[i] = row_hash(ids[at + i]);
        __builtin_prefetch(&x->at[b->hash[i] & x->mask]);
    }
}

static void fit_batch(const row_set *s, const row_entries *x, batch *b)
{
    for (uint32_t i = 0; i < b->n; i++)
        b->pos[i] = first_fit(s, x, b->hash[i]);
}

/* Three batches are under way: the index entries of one come while those of the one before are read, whose
 * rows come while the rows of the one before that are. */
uint32_t row_set_find(const row_set *s, uint32_t mark, const uint64_t *ids, uint32_t n, const float **rows)
{
    const row_entries *x = row_index_now(&s->index);
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
    const row_entries *x = row_index_now(&s->index);
    for (uint32_t i = 0; i < n; i++)
        __builtin_prefetch(&x->at[row_hash(ids[i]) & x->mask]);
}

/* ---- the writer: memory ---- */

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
    return slot_list_reserve(&s->fresh, n.fresh) && slot_list_reserve(&s->replaced, n.replaced) &&
           slot_list_reserve(&s->waiting, n.waiting) && slot_list_reserve(&s->free, n.free);
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
    int rc = row_chunks_take(&s->chunks, slot);
    if (rc == SLU_ELIMIT)
        return slu_fail(err, rc, "a table is full with %llu rows", (unsigned long long)s->live);
    return rc ? out_of_memory(s, err) : 0;
}

/* ---- the writer: changes ---- */

/* Where |id| is in the index, or where it would go. */
static uint64_t *place_of(const row_set *s, uint64_t id, uint64_t hash, bool *present)
{
    row_entries *x = s->index.entries;
    uint64_t *vacant = NULL;
    for (uint64_t pos = hash;; pos++) {
        uint64_t *e = &x->at[pos & x->mask];
        if (*e == ROW_ENTRY_TOMBSTONE && !vacant)
            vacant = e;
        if (*e == ROW_ENTRY_EMPTY) {
            *present = false;
            return vacant ? vacant : e;
        }
        if (row_entry_fits(*e, hash) && row_at(s, row_entry_slot(*e))->id == id) {
            *present = true;
            return e;
        }
    }
}

void row_set_expect(const row_set *s, uint64_t id)
{
    __builtin_prefetch(&s->index.entries->at[row_hash(id) & s->index.entries->mask]);
}

const float *row_set_newest(const row_set *s, uint64_t id)
{
    bool present;
    const uint64_t *e = place_of(s, id, row_hash(id), &present);
    if (!present)
        return NULL;
    const row *r = row_at(s, row_entry_slot(*e));
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
        slot_list_push(&s->waiting, old);
        return r->prev;
    }
    slot_list_push(&s->replaced, old);
    return old;
}

/* Lets |id| lead to a new row of the version being made; |v| NULL: a deletion. */
static int lead_to(row_set *s, uint32_t mark, uint64_t id, const float *v, slu_error *err)
{
    uint64_t hash = row_hash(id);
    uint32_t slot = 0, prev = NO_SLOT;
    bool present, was = false;
    int rc = take_slot(s, &slot, err);
    if (rc)
        return rc;
    uint64_t *e = place_of(s, id, hash, &present);
    if (present) {
        uint32_t old = row_entry_slot(*e);
        was = !(state_of(row_at(s, old)) & DELETED);
        prev = predecessor(s, old);
    }
    fill(s, slot, id, v ? mark : mark | DELETED, prev, v);
    slot_list_push(&s->fresh, slot);
    row_index_set(&s->index, e, row_entry(hash, slot));
    s->live += v != NULL;
    s->live -= was;
    return 0;
}

static int put_in_place(row_set *s, uint64_t id, const float *v, slu_error *err)
{
    uint64_t hash = row_hash(id);
    uint32_t slot = 0;
    bool present;
    uint64_t *e = place_of(s, id, hash, &present);
    if (present) {
        fill(s, row_entry_slot(*e), id, 0, NO_SLOT, v);
        return 0;
    }
    int rc = take_slot(s, &slot, err);
    if (rc)
        return rc;
    fill(s, slot, id, 0, NO_SLOT, v);
    row_index_set(&s->index, e, row_entry(hash, slot));
    s->live++;
    return 0;
}

int row_set_put(row_set *s, uint32_t mark, uint64_t id, const float *v, slu_error *err)
{
    static const float nothing[1];
    if (row_index_is_full(&s->index) && !row_index_grow(&s->index, mark != ROW_SET_PRIVATE))
        return out_of_memory(s, err);
    if (!reserve(s))
        return out_of_memory(s, err);
    if (!v) /* a row of no floats */
        v = nothing;
    return mark == ROW_SET_PRIVATE ? put_in_place(s, id, v, err) : lead_to(s, mark, id, v, err);
}

int row_set_delete(row_set *s, uint32_t mark, uint64_t id, slu_error *err)
{
    bool present;
    uint64_t *e = place_of(s, id, row_hash(id), &present);
    if (!present || state_of(row_at(s, row_entry_slot(*e))) & DELETED)
        return 0;
    if (!reserve(s))
        return out_of_memory(s, err);
    if (mark != ROW_SET_PRIVATE) {
        int rc = lead_to(s, mark, id, NULL, err);
        return rc ? rc : 1;
    }
    slot_list_push(&s->free, row_entry_slot(*e));
    row_index_set(&s->index, e, ROW_ENTRY_TOMBSTONE);
    s->live--;
    return 1;
}

/* ---- the writer: the end of a version ---- */

void row_set_settle(row_set *s)
{
    row_set_reclaim(s);
    slot_list_move(&s->free, &s->replaced);
    for (size_t i = 0; i < s->fresh.n; i++) {
        uint32_t slot = s->fresh.slots[i];
        row *r = row_at(s, slot);
        uint32_t state = state_of(r);
        bool present;
        __atomic_store_n(&r->state, state & ~MARK_BITS, __ATOMIC_RELAXED);
        if (!(state & DELETED))
            continue;
        uint64_t *e = place_of(s, r->id, row_hash(r->id), &present);
        if (!present || row_entry_slot(*e) != slot)
            continue; /* it was replaced within its version */
        row_index_set(&s->index, e, ROW_ENTRY_TOMBSTONE);
        slot_list_push(&s->waiting, slot);
    }
    s->fresh.n = 0;
}

void row_set_undo(row_set *s)
{
    for (size_t i = 0; i < s->fresh.n; i++) {
        uint32_t slot = s->fresh.slots[i];
        const row *r = row_at(s, slot);
        uint64_t hash = row_hash(r->id);
        bool present;
        uint64_t *e = place_of(s, r->id, hash, &present);
        if (!present || row_entry_slot(*e) != slot)
            continue;
        s->live -= !(state_of(r) & DELETED);
        s->live += r->prev != NO_SLOT;
        row_index_set(&s->index, e, r->prev == NO_SLOT ? ROW_ENTRY_TOMBSTONE : row_entry(hash, r->prev));
        slot_list_push(&s->waiting, slot);
    }
    s->fresh.n = 0;
    s->replaced.n = 0;
}

void row_set_reclaim(row_set *s)
{
    slot_list_move(&s->free, &s->waiting);
    row_index_reclaim(&s->index);
}

/* ---- sizes ---- */

uint64_t row_set_rows(const row_set *s)
{
    return s->live;
}

static size_t list_slots(const row_set *s)
{
    return s->free.cap + s->fresh.cap + s->replaced.cap + s->waiting.cap;
}

static size_t list_slots_next(const row_set *s)
{
    const list_needs n = needs_of(s);
    return slot_list_cap(&s->free, n.free) + slot_list_cap(&s->fresh, n.fresh) +
           slot_list_cap(&s->replaced, n.replaced) + slot_list_cap(&s->waiting, n.waiting);
}

uint64_t row_set_bytes(const row_set *s)
{
    return row_chunks_bytes(&s->chunks) + row_index_bytes(&s->index) + list_slots(s) * sizeof(uint32_t);
}

uint64_t row_set_next_bytes(const row_set *s)
{
    return (list_slots_next(s) - list_slots(s)) * sizeof(uint32_t) +
           (s->free.n ? 0 : row_chunks_next_bytes(&s->chunks)) + row_index_next_bytes(&s->index);
}
