#include "store/timers.h"
#include "store/state.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { KEY_BYTES = SLU_TIMER_KEY_BYTES, VALUE_BYTES = 16, LEAST_IN_MEMORY = 256 };

/* Number of the flush that wrote a timer into a commit; NEVER while none has. */
#define NEVER UINT64_MAX

typedef struct place {
    uint64_t deadline, sequence;
} place;

/* Behind every timer: nothing is only in the store. */
static const place END = {UINT64_MAX, UINT64_MAX};

typedef struct timer {
    place at;
    slu_hash128 key;
    uint64_t flush;
} timer;

typedef struct timer_list {
    timer *v; /* (cap) */
    size_t n, cap;
} timer_list;

struct slu_timers {
    slu_store *store;
    slu_family family;
    char count_name[32];
    bool keys;
    size_t keep;     /* timers that the heap holds after reading or shedding; it may grow to twice as many */
    timer_list heap; /* all timers before the horizon, earliest first */
    timer_list behind;    /* timers at or behind the horizon that may not be in the store yet */
    timer_list unwritten; /* scratch of a flush */
    place horizon;
    place *popped; /* (n_popped) popped, but perhaps still in the store */
    size_t n_popped, cap_popped, popped_flushed;
    place last_popped;         /* latest of them */
    size_t shed_at;            /* timers in the heap that call for shedding */
    uint64_t count;            /* timers, in memory or not */
    uint64_t flush, committed; /* numbers of the last flush and of the last confirmed one */
};

static bool before(place a, place b)
{
    return a.deadline != b.deadline ? a.deadline < b.deadline : a.sequence < b.sequence;
}

static int compare_timers(const void *a, const void *b)
{
    place x = ((const timer *)a)->at, y = ((const timer *)b)->at;
    return before(x, y) ? -1 : before(y, x);
}

static void push(timer_list *l, timer x)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 256;
        l->v = reallocarray(l->v, l->cap, sizeof *l->v);
        if (!l->v)
            abort();
    }
    l->v[l->n++] = x;
}

/* ---- heap ---- */

static void sift_up(timer_list *h, size_t i)
{
    timer x = h->v[i];
    for (; i && before(x.at, h->v[(i - 1) / 2].at); i = (i - 1) / 2)
        h->v[i] = h->v[(i - 1) / 2];
    h->v[i] = x;
}

static void sift_down(timer_list *h, size_t i)
{
    timer x = h->v[i];
    for (size_t child; (child = 2 * i + 1) < h->n; i = child) {
        if (child + 1 < h->n && before(h->v[child + 1].at, h->v[child].at))
            child++;
        if (!before(h->v[child].at, x.at))
            break;
        h->v[i] = h->v[child];
    }
    h->v[i] = x;
}

static void heap_push(timer_list *h, timer x)
{
    push(h, x);
    sift_up(h, h->n - 1);
}

static timer heap_pop(timer_list *h)
{
    timer first = h->v[0];
    h->v[0] = h->v[--h->n];
    if (h->n)
        sift_down(h, 0);
    return first;
}

/* ---- opening ---- */

int slu_timers_open(slu_store *s, const slu_timers_config *config, slu_timers **tp, slu_error *err)
{
    *tp = NULL;
    slu_timers *t = calloc(1, sizeof *t);
    if (!t)
        return slu_fail(err, SLU_ENOMEM, "store %s: out of memory", slu_store_path(s));
    t->store = s;
    t->family = config->family;
    t->keys = config->keys;
    snprintf(t->count_name, sizeof t->count_name, "%s", config->count_name);
    t->keep = config->memory_bytes / (2 * sizeof(timer));
    if (t->keep < LEAST_IN_MEMORY)
        t->keep = LEAST_IN_MEMORY;
    t->shed_at = 2 * t->keep;
    int rc = slu_state_get_u64(s, t->count_name, 0, &t->count, err);
    if (rc) {
        slu_timers_close(t);
        return rc;
    }
    /* The horizon starts before everything: what the store has is read when somebody asks. */
    t->horizon = t->count ? (place){0, 0} : END;
    *tp = t;
    return 0;
}

void slu_timers_close(slu_timers *t)
{
    if (!t)
        return;
    free(t->heap.v);
    free(t->behind.v);
    free(t->unwritten.v);
    free(t->popped);
    free(t);
}

/* ---- moving the horizon ---- */

static void write_place(uint8_t out[KEY_BYTES], place p)
{
    uint64_t deadline = __builtin_bswap64(p.deadline), sequence = __builtin_bswap64(p.sequence);
    memcpy(out, &deadline, 8);
    memcpy(out + 8, &sequence, 8);
}

void slu_timer_key(uint8_t out[SLU_TIMER_KEY_BYTES], int64_t deadline, uint64_t sequence)
{
    write_place(out, (place){(uint64_t)deadline, sequence});
}

typedef struct reading {
    slu_timers *t;
    size_t limit;
    bool bad, more;
    place next; /* first that was not read, when more */
} reading;

static bool read_timer(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    reading *r = ctx;
    slu_reader k = slu_reader_of(key, key_len), v = slu_reader_of(value, value_len);
    timer x = {.flush = 0};
    x.at.deadline = slu_get_u64_be(&k);
    x.at.sequence = slu_get_u64_be(&k);
    if (r->t->keys) {
        x.key.hi = slu_get_u64_be(&v);
        x.key.lo = slu_get_u64_be(&v);
    }
    if (k.bad || v.bad || slu_reader_left(&k) || slu_reader_left(&v)) {
        r->bad = true;
        return false;
    }
    if (r->t->heap.n == r->limit) {
        r->more = true;
        r->next = x.at;
        return false;
    }
    push(&r->t->heap, x); /* ascending, so the list is a heap all along */
    return true;
}

/* Moves those of |behind| that are before the new horizon into the heap. One that is in a commit which is
 * written but not yet confirmed was read from the store as well: it is in the heap once. */
static void merge_behind(slu_timers *t)
{
    timer_list *b = &t->behind;
    size_t read = t->heap.n, kept = 0;
    for (size_t i = 0; i < b->n; i++) {
        timer x = b->v[i];
        if (!before(x.at, t->horizon)) {
            b->v[kept++] = x;
            continue;
        }
        timer *twin =
            x.flush == NEVER || !read ? NULL : bsearch(&x, t->heap.v, read, sizeof x, compare_timers);
        if (twin)
            twin->flush = x.flush;
        else
            push(&t->heap, x);
    }
    b->n = kept;
    if (t->heap.n > read)
        qsort(t->heap.v, t->heap.n, sizeof *t->heap.v, compare_timers); /* ascending is a heap */
}

/* Only when the heap is empty. */
static int advance(slu_timers *t, slu_error *err)
{
    assert(!t->heap.n);
    uint8_t from[KEY_BYTES];
    write_place(from, t->horizon);
    reading r = {.t = t, .limit = t->keep};
    int rc = slu_store_scan(t->store, t->family, from, sizeof from, NULL, 0, read_timer, &r, err);
    if (!rc && r.bad)
        rc = slu_fail(err, SLU_ECORRUPT, "store %s: a timer of family %s cannot be read",
                      slu_store_path(t->store), slu_family_name(t->family));
    if (rc) {
        t->heap.n = 0;
        return rc;
    }
    t->horizon = r.more ? r.next : END;
    merge_behind(t);
    return 0;
}

/* Makes the earliest timer the first of the heap, if there is any timer. */
static int fill(slu_timers *t, slu_error *err)
{
    while (!t->heap.n && t->count) {
        if (!before(t->horizon, END))
            return slu_fail(err, SLU_ECORRUPT, "store %s: %llu timers of family %s are missing",
                            slu_store_path(t->store), (unsigned long long)t->count,
                            slu_family_name(t->family));
        int rc = advance(t, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* Lets go of the later half of the heap. Not when a timer behind the new horizon was popped since the last
 * commit: the store still has it and it would come back. That takes many timers which are added late, so the
 * next commit is near. */
static void shed(slu_timers *t)
{
    timer_list *h = &t->heap;
    qsort(h->v, h->n, sizeof *h->v, compare_timers);
    if (t->n_popped && !before(t->last_popped, h->v[t->keep].at)) {
        t->shed_at = 2 * h->n;
        return;
    }
    t->shed_at = 2 * t->keep;
    t->horizon = h->v[t->keep].at;
    for (size_t i = t->keep; i < h->n; i++)
        if (h->v[i].flush > t->committed)
            push(&t->behind, h->v[i]);
    h->n = t->keep;
}

/* ---- use ---- */

void slu_timers_add(slu_timers *t, int64_t deadline, uint64_t sequence, slu_hash128 key)
{
    assert(deadline >= 0);
    timer x = {.at = {(uint64_t)deadline, sequence}, .key = key, .flush = NEVER};
    t->count++;
    if (!before(x.at, t->horizon)) {
        push(&t->behind, x);
        return;
    }
    heap_push(&t->heap, x);
    if (t->heap.n > t->shed_at)
        shed(t);
}

static void remember_popped(slu_timers *t, place at)
{
    if (t->n_popped == t->cap_popped) {
        t->cap_popped = t->cap_popped ? 2 * t->cap_popped : 256;
        t->popped = reallocarray(t->popped, t->cap_popped, sizeof *t->popped);
        if (!t->popped)
            abort();
    }
    if (!t->n_popped || before(t->last_popped, at))
        t->last_popped = at;
    t->popped[t->n_popped++] = at;
}

int slu_timers_pop(slu_timers *t, int64_t now, int64_t *deadline, uint64_t *sequence, slu_hash128 *key,
                   slu_error *err)
{
    int rc = fill(t, err);
    if (rc)
        return rc;
    if (!t->heap.n || now < 0 || t->heap.v[0].at.deadline > (uint64_t)now)
        return SLU_ENOTFOUND;
    timer x = heap_pop(&t->heap);
    t->count--;
    if (x.flush != NEVER)
        remember_popped(t, x.at);
    *deadline = (int64_t)x.at.deadline;
    *sequence = x.at.sequence;
    *key = x.key;
    return 0;
}

int64_t slu_timers_next(slu_timers *t)
{
    if (fill(t, NULL))
        return 0; /* due at once, so that pop is called and tells why */
    return t->heap.n ? (int64_t)t->heap.v[0].at.deadline : INT64_MAX;
}

uint64_t slu_timers_count(const slu_timers *t)
{
    return t->count;
}

uint64_t slu_timers_in_memory(const slu_timers *t)
{
    return t->heap.n + t->behind.n;
}

/* ---- committing ---- */

/* Marks the timers of |l| that are not in the store yet as written by this flush and notes them. */
static void gather_unwritten(slu_timers *t, timer_list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        if (l->v[i].flush <= t->committed)
            continue;
        l->v[i].flush = t->flush;
        push(&t->unwritten, l->v[i]);
    }
}

/* In key order, which the store takes much faster. */
static void write_unwritten(slu_timers *t, slu_commit *c)
{
    uint8_t key[KEY_BYTES], value[VALUE_BYTES];
    timer_list *l = &t->unwritten;
    if (l->n)
        qsort(l->v, l->n, sizeof *l->v, compare_timers);
    for (size_t i = 0; i < l->n; i++) {
        uint64_t hi = __builtin_bswap64(l->v[i].key.hi), lo = __builtin_bswap64(l->v[i].key.lo);
        write_place(key, l->v[i].at);
        memcpy(value, &hi, 8);
        memcpy(value + 8, &lo, 8);
        slu_commit_put(c, t->family, key, sizeof key, value, t->keys ? sizeof value : 0);
    }
    l->n = 0;
}

void slu_timers_flush(slu_timers *t, slu_commit *c)
{
    uint8_t key[KEY_BYTES];
    t->flush++;
    /* First, because one of the same place may have been added since. */
    for (size_t i = 0; i < t->n_popped; i++) {
        write_place(key, t->popped[i]);
        slu_commit_delete(c, t->family, key, sizeof key);
    }
    gather_unwritten(t, &t->heap);
    gather_unwritten(t, &t->behind);
    write_unwritten(t, c);
    t->popped_flushed = t->n_popped;
    slu_state_put_u64(c, t->count_name, t->count);
}

void slu_timers_committed(slu_timers *t)
{
    t->committed = t->flush;
    t->n_popped -= t->popped_flushed;
    if (t->n_popped) /* popped between flush and confirmation; last_popped may be later than needed, which is
                        safe */
        memmove(t->popped, t->popped + t->popped_flushed, t->n_popped * sizeof *t->popped);
    t->popped_flushed = 0;
    t->shed_at = 2 * t->keep;
    size_t kept = 0;
    for (size_t i = 0; i < t->behind.n; i++)
        if (t->behind.v[i].flush > t->committed)
            t->behind.v[kept++] = t->behind.v[i];
    t->behind.n = kept;
}
