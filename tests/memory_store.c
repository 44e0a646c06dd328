#include "tests/memory_store.h"
#include "base/digest.h"
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct entries {
    memory_entry *v; /* (cap) in order */
    size_t n, cap;
} entries;

struct memory_copy {
    entries all;
};

/* A commit is a list of changes; a deletion has no value. */
struct slu_commit {
    struct slu_commit *next; /* of the store's */
    memory_entry *v;         /* (cap) in the order they were made */
    size_t n, cap, bytes;
    size_t saved; /* changes at the save point, NOT_SAVED: none */
    slu_buf scratch;
};
#define NOT_SAVED SIZE_MAX

struct slu_store {
    char *schema;
    slu_commit *commits;
};

static entries all;
static char *stored_schema;
static unsigned fails_in;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that is stored */
static pthread_cond_t door = PTHREAD_COND_INITIALIZER;
typedef enum passer { WRITE, READ, PASSERS } passer;
static bool holds[PASSERS];
static unsigned waiting[PASSERS]; /* at the door */

/* ---- entries ---- */

static void *checked(void *p)
{
    if (!p)
        abort();
    return p;
}

static uint8_t *copy_of(const void *p, size_t n)
{
    uint8_t *q = checked(malloc(n ? n : 1));
    if (n)
        memcpy(q, p, n);
    return q;
}

static void drop(memory_entry *e)
{
    free(e->key);
    free(e->value);
}

static int compare_keys(const uint8_t *a, size_t a_len, const uint8_t *b, size_t b_len)
{
    size_t n = a_len < b_len ? a_len : b_len;
    int c = n ? memcmp(a, b, n) : 0;
    return c ? c : (a_len > b_len) - (a_len < b_len);
}

/* The first entry that is not before (f, key). */
static size_t place_of(const entries *s, slu_family f, const void *key, size_t key_len)
{
    size_t low = 0, high = s->n;
    while (low < high) {
        size_t mid = (low + high) / 2;
        const memory_entry *e = &s->v[mid];
        bool before = e->family != f ? e->family < f : compare_keys(e->key, e->key_len, key, key_len) < 0;
        if (before)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

static bool is_at(const entries *s, size_t i, slu_family f, const void *key, size_t key_len)
{
    return i < s->n && s->v[i].family == f && !compare_keys(s->v[i].key, s->v[i].key_len, key, key_len);
}

static void put(entries *s, slu_family f, const void *key, size_t key_len, const void *value, size_t len)
{
    size_t i = place_of(s, f, key, key_len);
    memory_entry fresh = {f, copy_of(key, key_len), copy_of(value, len), key_len, len};
    if (is_at(s, i, f, key, key_len)) {
        drop(&s->v[i]);
        s->v[i] = fresh;
        return;
    }
    if (s->n == s->cap) {
        s->cap = s->cap ? 2 * s->cap : 64;
        s->v = checked(realloc(s->v, s->cap * sizeof *s->v));
    }
    memmove(&s->v[i + 1], &s->v[i], (s->n - i) * sizeof *s->v);
    s->v[i] = fresh;
    s->n++;
}

static void delete (entries *s, slu_family f, const void *key, size_t key_len)
{
    size_t i = place_of(s, f, key, key_len);
    if (!is_at(s, i, f, key, key_len))
        return;
    drop(&s->v[i]);
    memmove(&s->v[i], &s->v[i + 1], (s->n - i - 1) * sizeof *s->v);
    s->n--;
}

static void clear(entries *s)
{
    for (size_t i = 0; i < s->n; i++)
        drop(&s->v[i]);
    free(s->v);
    *s = (entries){0};
}

static void copy_all(entries *to, const entries *from)
{
    clear(to);
    to->v = checked(malloc((from->n + 1) * sizeof *to->v));
    to->cap = from->n + 1;
    for (size_t i = 0; i < from->n; i++) {
        memory_entry e = from->v[i];
        e.key = copy_of(e.key, e.key_len);
        e.value = copy_of(e.value, e.value_len);
        to->v[to->n++] = e;
    }
}

/* ---- for tests ---- */

size_t memory_store_count(void)
{
    return all.n;
}

const memory_entry *memory_store_at(size_t i)
{
    assert(i < all.n);
    return &all.v[i];
}

void memory_store_put(slu_family f, const void *key, size_t key_len, const void *value, size_t value_len)
{
    put(&all, f, key, key_len, value, value_len);
}

void memory_store_delete(slu_family f, const void *key, size_t key_len)
{
    delete (&all, f, key, key_len);
}

void memory_store_clear(void)
{
    clear(&all);
    free(stored_schema);
    stored_schema = NULL;
}

memory_copy *memory_store_copy(void)
{
    memory_copy *c = checked(calloc(1, sizeof *c));
    pthread_mutex_lock(&lock);
    copy_all(&c->all, &all);
    pthread_mutex_unlock(&lock);
    return c;
}

void memory_store_restore(const memory_copy *c)
{
    copy_all(&all, &c->all);
}

void memory_copy_free(memory_copy *c)
{
    if (c)
        clear(&c->all);
    free(c);
}

void memory_store_fail(unsigned nth)
{
    fails_in = nth;
}

static void hold(passer who, bool held)
{
    pthread_mutex_lock(&lock);
    holds[who] = held;
    pthread_cond_broadcast(&door);
    pthread_mutex_unlock(&lock);
}

static void wait_until_held(passer who)
{
    pthread_mutex_lock(&lock);
    while (!waiting[who])
        pthread_cond_wait(&door, &lock);
    pthread_mutex_unlock(&lock);
}

void memory_store_hold(bool held)
{
    hold(WRITE, held);
}

void memory_store_held(void)
{
    wait_until_held(WRITE);
}

void memory_store_hold_reads(bool held)
{
    hold(READ, held);
    pthread_mutex_lock(&lock);
    while (!held && waiting[READ])
        pthread_cond_wait(&door, &lock);
    pthread_mutex_unlock(&lock);
}

void memory_store_read_held(void)
{
    wait_until_held(READ);
}

/* Under the lock. */
static void pass_door(passer who)
{
    waiting[who]++;
    pthread_cond_broadcast(&door);
    while (holds[who])
        pthread_cond_wait(&door, &lock);
    waiting[who]--;
    pthread_cond_broadcast(&door);
}

/* Under the lock. */
static int maybe_fail(slu_error *err)
{
    if (!fails_in || --fails_in)
        return 0;
    return slu_fail(err, SLU_EIO, "store memory: the disk was told to fail");
}

/* ---- store/store.h ---- */

const char *slu_family_name(slu_family f)
{
    static const char *const names[] = {"meta", "rows", "dense", "join", "timers", "outbox", "order"};
    return (size_t)f < sizeof names / sizeof *names ? names[f] : "?";
}

int slu_store_open(const slu_store_config *config, slu_store **sp, slu_error *err)
{
    *sp = NULL;
    int rc = 0;
    if (!stored_schema && config->schema_text)
        stored_schema = checked(strdup(config->schema_text));
    else if (config->schema_text && strcmp(stored_schema, config->schema_text) != 0)
        rc = config->compare ? config->compare(config->compare_ctx, stored_schema, err)
                             : slu_fail(err, SLU_ESCHEMA, "store memory: another schema");
    if (rc)
        return rc;
    *sp = checked(calloc(1, sizeof **sp));
    (*sp)->schema = checked(strdup(stored_schema ? stored_schema : ""));
    return 0;
}

static void empty_commit(slu_commit *c)
{
    for (size_t i = 0; i < c->n; i++)
        drop(&c->v[i]);
    c->n = c->bytes = 0;
    c->saved = NOT_SAVED;
}

void slu_store_close(slu_store *s)
{
    if (!s)
        return;
    for (slu_commit *c = s->commits; c;) {
        slu_commit *next = c->next;
        empty_commit(c);
        free(c->v);
        slu_buf_free(&c->scratch);
        free(c);
        c = next;
    }
    free(s->schema);
    free(s);
}

const char *slu_store_path(const slu_store *s)
{
    (void)s;
    return "memory";
}

const char *slu_store_schema(const slu_store *s)
{
    return s->schema;
}

int slu_store_get(slu_store *s, slu_family f, const void *key, size_t key_len, slu_buf *out, slu_error *err)
{
    (void)s;
    slu_buf_clear(out);
    pthread_mutex_lock(&lock);
    int rc = maybe_fail(err);
    size_t i = place_of(&all, f, key, key_len);
    if (!rc && !is_at(&all, i, f, key, key_len))
        rc = SLU_ENOTFOUND;
    if (!rc)
        slu_put_bytes(out, all.v[i].value, all.v[i].value_len);
    pthread_mutex_unlock(&lock);
    return rc;
}

int slu_store_multiget(slu_store *s, slu_family f, const void *const *keys, const size_t *key_lens, size_t n,
                       void (*each)(void *ctx, size_t i, const void *value, size_t len), void *ctx,
                       slu_error *err)
{
    (void)s;
    pthread_mutex_lock(&lock);
    pass_door(READ);
    int rc = maybe_fail(err);
    for (size_t k = 0; k < n && !rc; k++) {
        size_t i = place_of(&all, f, keys[k], key_lens[k]);
        if (is_at(&all, i, f, keys[k], key_lens[k]))
            each(ctx, k, all.v[i].value, all.v[i].value_len);
    }
    pthread_mutex_unlock(&lock);
    return rc;
}

/* On a copy: |each| may write. */
int slu_store_scan(slu_store *s, slu_family f, const void *from, size_t from_len, const void *to,
                   size_t to_len,
                   bool (*each)(void *ctx, const void *key, size_t key_len, const void *value,
                                size_t value_len),
                   void *ctx, slu_error *err)
{
    (void)s;
    entries snapshot = {0};
    pthread_mutex_lock(&lock);
    int rc = maybe_fail(err);
    if (!rc)
        copy_all(&snapshot, &all);
    pthread_mutex_unlock(&lock);
    if (rc)
        return rc;
    for (size_t i = place_of(&snapshot, f, from, from_len); i < snapshot.n; i++) {
        const memory_entry *e = &snapshot.v[i];
        if (e->family != f || (to && compare_keys(e->key, e->key_len, to, to_len) >= 0))
            break;
        if (!each(ctx, e->key, e->key_len, e->value, e->value_len))
            break;
    }
    clear(&snapshot);
    return 0;
}

struct slu_cursor {
    entries view;
    size_t at;
    slu_family family;
};

int slu_cursor_open(slu_store *s, slu_family f, slu_cursor **cp, slu_error *err)
{
    (void)s;
    *cp = NULL;
    pthread_mutex_lock(&lock);
    int rc = maybe_fail(err);
    slu_cursor *c = rc ? NULL : checked(calloc(1, sizeof *c));
    if (c)
        copy_all(&c->view, &all);
    pthread_mutex_unlock(&lock);
    if (rc)
        return rc;
    c->family = f;
    c->at = place_of(&c->view, f, NULL, 0);
    *cp = c;
    return 0;
}

int slu_cursor_next(slu_cursor *c, size_t n,
                    bool (*each)(void *ctx, const void *key, size_t key_len, const void *value,
                                 size_t value_len),
                    void *ctx, slu_error *err)
{
    pthread_mutex_lock(&lock);
    int rc = maybe_fail(err);
    pthread_mutex_unlock(&lock);
    if (rc)
        return rc;
    for (bool more = true; n && more && c->at < c->view.n && c->view.v[c->at].family == c->family; n--) {
        const memory_entry *e = &c->view.v[c->at++];
        more = each(ctx, e->key, e->key_len, e->value, e->value_len);
    }
    return c->at < c->view.n && c->view.v[c->at].family == c->family;
}

void slu_cursor_close(slu_cursor *c)
{
    if (!c)
        return;
    clear(&c->view);
    free(c);
}

slu_commit *slu_commit_begin(slu_store *s)
{
    slu_commit *c = checked(calloc(1, sizeof *c));
    c->saved = NOT_SAVED;
    c->next = s->commits;
    s->commits = c;
    return c;
}

static void add_change(slu_commit *c, memory_entry e)
{
    if (c->n == c->cap) {
        c->cap = c->cap ? 2 * c->cap : 64;
        c->v = checked(realloc(c->v, c->cap * sizeof *c->v));
    }
    c->v[c->n++] = e;
    c->bytes += e.key_len + e.value_len;
}

void slu_commit_put(slu_commit *c, slu_family f, const void *key, size_t key_len, const void *value,
                    size_t value_len)
{
    add_change(c, (memory_entry){f, copy_of(key, key_len), copy_of(value, value_len), key_len, value_len});
}

void slu_commit_delete(slu_commit *c, slu_family f, const void *key, size_t key_len)
{
    add_change(c, (memory_entry){f, copy_of(key, key_len), NULL, key_len, 0});
}

void slu_commit_save(slu_commit *c)
{
    assert(c->saved == NOT_SAVED);
    c->saved = c->n;
}

void slu_commit_keep(slu_commit *c)
{
    assert(c->saved != NOT_SAVED);
    c->saved = NOT_SAVED;
}

void slu_commit_take_back(slu_commit *c)
{
    assert(c->saved != NOT_SAVED);
    while (c->n > c->saved) {
        memory_entry *e = &c->v[--c->n];
        c->bytes -= e->key_len + e->value_len;
        drop(e);
    }
    c->saved = NOT_SAVED;
}

size_t slu_commit_bytes(const slu_commit *c)
{
    return c->bytes;
}

slu_buf *slu_commit_scratch(slu_commit *c)
{
    slu_buf_clear(&c->scratch);
    return &c->scratch;
}

int slu_commit_write(slu_commit *c, slu_error *err)
{
    pthread_mutex_lock(&lock);
    pass_door(WRITE);
    int rc = maybe_fail(err);
    for (size_t i = 0; i < c->n && !rc; i++) {
        const memory_entry *e = &c->v[i];
        if (e->value)
            put(&all, e->family, e->key, e->key_len, e->value, e->value_len);
        else
            delete (&all, e->family, e->key, e->key_len);
    }
    pthread_mutex_unlock(&lock);
    if (!rc)
        empty_commit(c);
    return rc;
}

void slu_commit_abandon(slu_commit *c)
{
    empty_commit(c); /* freed with its store */
}

int slu_store_digest(slu_store *s, unsigned families, char out[33], slu_error *err)
{
    (void)s, (void)err;
    slu_digest *d = checked(slu_digest_new());
    for (size_t i = 0; i < all.n; i++) {
        const memory_entry *e = &all.v[i];
        if (!(families >> e->family & 1) || (e->family == SLU_FAMILY_META && e->key_len && e->key[0] == '~'))
            continue;
        uint64_t lengths[3] = {(uint64_t)e->family, e->key_len, e->value_len};
        slu_digest_add(d, lengths, sizeof lengths);
        slu_digest_add(d, e->key, e->key_len);
        slu_digest_add(d, e->value, e->value_len);
    }
    slu_digest_hex(d, out);
    slu_digest_free(d);
    return 0;
}

int slu_store_checkpoint(slu_store *s, const char *path, slu_error *err)
{
    (void)s;
    return slu_fail(err, SLU_EIO, "a store in memory has no files to copy to %s", path);
}

uint64_t slu_store_estimate_keys(slu_store *s, slu_family f)
{
    (void)s;
    uint64_t n = 0;
    for (size_t i = 0; i < all.n; i++)
        n += all.v[i].family == f;
    return n;
}

uint64_t slu_store_disk_bytes(slu_store *s)
{
    (void)s;
    uint64_t n = 0;
    for (size_t i = 0; i < all.n; i++)
        n += all.v[i].key_len + all.v[i].value_len;
    return n;
}
