#include "store/store.h"
#include "base/digest.h"
#include "store/store_files.h"
#include "store/store_inside.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MULTIGET_CHUNK = 128 };

/* ---- reading ---- */

/* Takes the lock for reading. SLU_EIO when an earlier reopening failed and there is no database. */
static int enter(slu_store *s, slu_error *err)
{
    pthread_rwlock_rdlock(&s->lock);
    if (s->db)
        return 0;
    pthread_rwlock_unlock(&s->lock);
    return slu_fail(err, SLU_EIO, "store %s: closed after an error that could not be repaired", s->path);
}

static void leave(slu_store *s)
{
    pthread_rwlock_unlock(&s->lock);
}

int slu_store_get(slu_store *s, slu_family f, const void *key, size_t key_len, slu_buf *out, slu_error *err)
{
    slu_buf_clear(out);
    int rc = enter(s, err);
    if (rc)
        return rc;
    if (!s->families[f]) { /* looked at inside: a closed database has no handles either, and that is no "not
                              found" */
        leave(s);
        return SLU_ENOTFOUND;
    }
    char *words = NULL;
    rocksdb_pinnableslice_t *slice =
        rocksdb_get_pinned_cf(s->db, s->read, s->families[f], key, key_len, &words);
    if (words) {
        rc = store_translate(s->path, "reading", words, err);
    } else if (!slice) {
        rc = SLU_ENOTFOUND;
    } else {
        size_t n = 0;
        const char *p = rocksdb_pinnableslice_value(slice, &n);
        slu_put_bytes(out, p, n);
    }
    if (slice)
        rocksdb_pinnableslice_destroy(slice);
    leave(s);
    return rc;
}

/* One chunk; every slice and error is freed whatever happens. */
static int multiget_chunk(slu_store *s, slu_family f, const void *const *keys, const size_t *key_lens,
                          size_t base, size_t n,
                          void (*each)(void *ctx, size_t i, const void *value, size_t len), void *ctx,
                          slu_error *err)
{
    rocksdb_pinnableslice_t *slices[MULTIGET_CHUNK];
    char *words[MULTIGET_CHUNK];
    int rc = 0;
    memset(words, 0, sizeof words);
    rocksdb_batched_multi_get_cf(s->db, s->read, s->families[f], n, (const char *const *)(keys + base),
                                 key_lens + base, slices, words, false);
    for (size_t i = 0; i < n; i++) {
        if (words[i]) {
            rc = rc ? (rocksdb_free(words[i]), rc) : store_translate(s->path, "reading", words[i], err);
        } else if (slices[i] && !rc) {
            size_t len = 0;
            const char *p = rocksdb_pinnableslice_value(slices[i], &len);
            each(ctx, base + i, p, len);
        }
        if (slices[i])
            rocksdb_pinnableslice_destroy(slices[i]);
    }
    return rc;
}

int slu_store_multiget(slu_store *s, slu_family f, const void *const *keys, const size_t *key_lens, size_t n,
                       void (*each)(void *ctx, size_t i, const void *value, size_t len), void *ctx,
                       slu_error *err)
{
    int rc = enter(s, err);
    if (rc)
        return rc;
    for (size_t base = 0; base < n && !rc; base += MULTIGET_CHUNK) {
        size_t part = n - base < MULTIGET_CHUNK ? n - base : MULTIGET_CHUNK;
        rc = multiget_chunk(s, f, keys, key_lens, base, part, each, ctx, err);
    }
    leave(s);
    return rc;
}

typedef bool scan_fn(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len);

/* Inside the lock. |snapshot| may be NULL: the iterator's own view of this moment. */
static int scan_family(slu_store *s, slu_family f, const rocksdb_snapshot_t *snapshot, const void *from,
                       size_t from_len, const void *to, size_t to_len, scan_fn *each, void *ctx,
                       slu_error *err)
{
    if (!s->families[f])
        return 0;
    rocksdb_readoptions_t *ro = rocksdb_readoptions_create();
    if (snapshot)
        rocksdb_readoptions_set_snapshot(ro, snapshot);
    if (to)
        rocksdb_readoptions_set_iterate_upper_bound(ro, to, to_len);
    /* A walk over everything must not push the working set out of the block cache. */
    rocksdb_readoptions_set_fill_cache(ro, 0);
    rocksdb_iterator_t *it = rocksdb_create_iterator_cf(s->db, ro, s->families[f]);
    if (from)
        rocksdb_iter_seek(it, from, from_len);
    else
        rocksdb_iter_seek_to_first(it);
    bool more = true;
    for (; more && rocksdb_iter_valid(it); rocksdb_iter_next(it)) {
        size_t key_len, value_len;
        const char *key = rocksdb_iter_key(it, &key_len);
        const char *value = rocksdb_iter_value(it, &value_len);
        more = each(ctx, key, key_len, value, value_len);
        if (!more)
            break;
    }
    char *words = NULL;
    rocksdb_iter_get_error(it, &words);
    int rc = words ? store_translate(s->path, "scanning", words, err) : 0;
    rocksdb_iter_destroy(it);
    rocksdb_readoptions_destroy(ro);
    return rc;
}

int slu_store_scan(slu_store *s, slu_family f, const void *from, size_t from_len, const void *to,
                   size_t to_len, scan_fn *each, void *ctx, slu_error *err)
{
    int rc = enter(s, err);
    if (rc)
        return rc;
    rc = scan_family(s, f, NULL, from, from_len, to, to_len, each, ctx, err);
    leave(s);
    return rc;
}

/* ---- walking in pieces ---- */

int slu_cursor_open(slu_store *s, slu_family f, slu_cursor **cp, slu_error *err)
{
    *cp = NULL;
    slu_cursor *c = calloc(1, sizeof *c);
    if (!c)
        return slu_fail(err, SLU_ENOMEM, "store %s: out of memory", s->path);
    int rc = enter(s, err);
    if (rc) {
        free(c);
        return rc;
    }
    c->store = s;
    c->options = rocksdb_readoptions_create();
    rocksdb_readoptions_set_fill_cache(c->options, 0);                     /* as in scan_family */
    c->at = rocksdb_create_iterator_cf(s->db, c->options, s->families[f]); /* its view is of this moment */
    rocksdb_iter_seek_to_first(c->at);
    c->next = s->cursors;
    s->cursors = c;
    leave(s);
    *cp = c;
    return 0;
}

int slu_cursor_next(slu_cursor *c, size_t n, scan_fn *each, void *ctx, slu_error *err)
{
    slu_store *s = c->store;
    int rc = enter(s, err);
    if (rc)
        return rc;
    if (!c->at) {
        leave(s);
        return slu_fail(err, SLU_EAGAIN, "store %s: was reopened during a walk; begin anew", s->path);
    }
    for (bool more = true; n && more && rocksdb_iter_valid(c->at); n--) {
        size_t key_len, value_len;
        const char *key = rocksdb_iter_key(c->at, &key_len);
        const char *value = rocksdb_iter_value(c->at, &value_len);
        more = each(ctx, key, key_len, value, value_len);
        rocksdb_iter_next(c->at);
    }
    char *words = NULL;
    rocksdb_iter_get_error(c->at, &words);
    rc = words ? store_translate(s->path, "scanning", words, err) : rocksdb_iter_valid(c->at);
    leave(s);
    return rc;
}

/* The database is about to go. */
static void lose_view(slu_cursor *c)
{
    if (c->at)
        rocksdb_iter_destroy(c->at);
    c->at = NULL;
}

void slu_cursor_close(slu_cursor *c)
{
    if (!c)
        return;
    slu_store *s = c->store;
    pthread_rwlock_rdlock(&s->lock);
    for (slu_cursor **p = &s->cursors; *p; p = &(*p)->next)
        if (*p == c) {
            *p = c->next;
            break;
        }
    lose_view(c);
    pthread_rwlock_unlock(&s->lock);
    rocksdb_readoptions_destroy(c->options);
    free(c);
}

/* ---- committing ---- */

slu_commit *slu_commit_begin(slu_store *s)
{
    for (slu_commit *c = s->all_commits; c; c = c->next)
        if (c->idle) {
            c->idle = false;
            return c;
        }
    slu_commit *c = calloc(1, sizeof *c);
    if (!c) {
        fprintf(stderr, "sluice: out of memory (commit)\n");
        abort();
    }
    *c = (slu_commit){.store = s, .batch = rocksdb_writebatch_create(), .next = s->all_commits};
    s->all_commits = c;
    return c;
}

static void put_late(slu_commit *c, slu_family f, const void *key, size_t key_len, const void *value,
                     size_t value_len, bool deletion)
{
    slu_put_u8(&c->late, (uint8_t)f);
    slu_put_u8(&c->late, deletion);
    slu_put_u32(&c->late, (uint32_t)key_len);
    slu_put_u32(&c->late, (uint32_t)value_len);
    slu_put_bytes(&c->late, key, key_len);
    if (value_len)
        slu_put_bytes(&c->late, value, value_len);
}

/* The database is open again. */
static void take_late(slu_commit *c)
{
    slu_buf late = c->late;
    c->late = (slu_buf)SLU_BUF_INIT; /* so that what is put goes into the batch */
    slu_reader r = slu_reader_of(late.data, late.len);
    while (slu_reader_left(&r)) {
        uint8_t f = slu_get_u8(&r), deletion = slu_get_u8(&r);
        uint32_t key_len = slu_get_u32(&r), value_len = slu_get_u32(&r);
        const uint8_t *key = slu_get_bytes(&r, key_len), *value = slu_get_bytes(&r, value_len);
        assert(!r.bad);
        if (deletion)
            slu_commit_delete(c, (slu_family)f, key, key_len);
        else
            slu_commit_put(c, (slu_family)f, key, key_len, value, value_len);
    }
    slu_buf_free(&late);
}

/* Behind what is late everything is late, also when another commit has opened the database again meanwhile:
 * of two values of a key the later one counts. */
static bool is_late(const slu_commit *c, slu_family f)
{
    return c->late.len || !c->store->families[f];
}

void slu_commit_put(slu_commit *c, slu_family f, const void *key, size_t key_len, const void *value,
                    size_t value_len)
{
    assert(!c->idle);
    if (is_late(c, f))
        put_late(c, f, key, key_len, value, value_len, false);
    else
        rocksdb_writebatch_put_cf(c->batch, c->store->families[f], key, key_len, value, value_len);
}

void slu_commit_delete(slu_commit *c, slu_family f, const void *key, size_t key_len)
{
    assert(!c->idle);
    if (is_late(c, f))
        put_late(c, f, key, key_len, NULL, 0, true);
    else
        rocksdb_writebatch_delete_cf(c->batch, c->store->families[f], key, key_len);
}

void slu_commit_save(slu_commit *c)
{
    assert(!c->idle);
    rocksdb_writebatch_set_save_point(c->batch);
    c->late_saved = c->late.len;
}

/* Both fail only without a save point. */
static void end_save_point(slu_commit *c, void (*how)(rocksdb_writebatch_t *, char **))
{
    char *words = NULL;
    how(c->batch, &words);
    assert(!words);
    rocksdb_free(words);
}

void slu_commit_keep(slu_commit *c)
{
    end_save_point(c, rocksdb_writebatch_pop_save_point);
}

void slu_commit_take_back(slu_commit *c)
{
    end_save_point(c, rocksdb_writebatch_rollback_to_save_point);
    c->late.len = c->late_saved;
}

size_t slu_commit_bytes(const slu_commit *c)
{
    size_t n = 0;
    rocksdb_writebatch_data(c->batch, &n);
    return n + c->late.len;
}

slu_buf *slu_commit_scratch(slu_commit *c)
{
    slu_buf_clear(&c->scratch);
    return &c->scratch;
}

/* RocksDB takes no writes after a failed one (disk full, say) until it is opened again. Whether the failed
 * batch got into the log does not matter: it holds only puts and deletes, so writing it again gives the same
 * state. */
static int reopen(slu_store *s, slu_error *err)
{
    if (pthread_rwlock_trywrlock(&s->lock))
        return slu_fail(err, SLU_EAGAIN, "store %s: is being read while it needs to be reopened; try again",
                        s->path);
    int rc = store_check_room(s->path, err); /* before it is closed: reading still works */
    if (!rc) {
        for (slu_cursor *c = s->cursors; c; c = c->next)
            lose_view(c);
        store_close_db(s);
        rc = store_open_db(s, err);
    }
    if (!rc)
        s->broken = false;
    pthread_rwlock_unlock(&s->lock);
    uint64_t held;
    if (!rc)
        rc = store_read_commits(s, &held, err);
    if (!rc && held < s->commits) {
        s->broken = true;
        rc = store_lost_commits(s, held, s->commits, err);
    }
    return rc;
}

/* Its number and whose it is: SLUICE is compared with them. */
static void sign(slu_commit *c)
{
    const slu_store *s = c->store;
    uint8_t number[8], id[8];
    for (int i = 0; i < 8; i++) {
        number[i] = (uint8_t)((s->commits + 1) >> 8 * i);
        id[i] = (uint8_t)(s->id >> 8 * i);
    }
    slu_commit_put(c, SLU_FAMILY_META, STORE_COMMITS_KEY, strlen(STORE_COMMITS_KEY), number, sizeof number);
    slu_commit_put(c, SLU_FAMILY_META, STORE_ID_KEY, strlen(STORE_ID_KEY), id, sizeof id);
}

int slu_commit_write(slu_commit *c, slu_error *err)
{
    slu_store *s = c->store;
    assert(!c->idle);
    if (s->read_only)
        return slu_fail(err, SLU_EIO, "store %s: opened for reading only", s->path);
    if (s->broken) {
        int rc = reopen(s, err);
        if (rc)
            return rc;
    }
    int rc = enter(s, err);
    if (rc)
        return rc;
    take_late(c);
    rocksdb_writebatch_set_save_point(c->batch);
    sign(c);
    char *words = NULL;
    rocksdb_write(s->db, s->write, c->batch, &words);
    if (words) {
        s->broken = true;
        rc = store_translate(s->path, "committing", words, err);
        words = NULL;
        rocksdb_writebatch_rollback_to_save_point(c->batch, &words);
    } else {
        rocksdb_writebatch_clear(c->batch);
        store_note_commit(s, s->commits + 1);
    }
    leave(s);
    return rc;
}

void slu_commit_abandon(slu_commit *c)
{
    if (!c)
        return;
    rocksdb_writebatch_clear(c->batch);
    slu_buf_free(&c->late);
    c->idle = true;
}

/* ---- the whole ---- */

typedef struct digesting {
    slu_digest *digest;
    bool skip_housekeeping;
} digesting;

static void digest_span(slu_digest *d, const void *p, size_t n)
{
    uint64_t len = n; /* lengths too, or "ab","c" would equal "a","bc" */
    slu_digest_add(d, &len, sizeof len);
    slu_digest_add(d, p, n);
}

static bool digest_pair(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    digesting *g = ctx;
    if (g->skip_housekeeping && key_len && *(const char *)key == '~')
        return true;
    digest_span(g->digest, key, key_len);
    digest_span(g->digest, value, value_len);
    return true;
}

int slu_store_digest(slu_store *s, unsigned families, char out[33], slu_error *err)
{
    int rc = enter(s, err);
    if (rc)
        return rc;
    digesting g = {.digest = slu_digest_new()};
    if (!g.digest) {
        leave(s);
        return slu_fail(err, SLU_ENOMEM, "store %s: out of memory", s->path);
    }
    const rocksdb_snapshot_t *snapshot = s->read_only ? NULL : rocksdb_create_snapshot(s->db);
    for (int f = 0; f < SLU_FAMILIES && !rc; f++) {
        if (!(families & 1u << f))
            continue;
        digest_span(g.digest, slu_family_name((slu_family)f), strlen(slu_family_name((slu_family)f)));
        g.skip_housekeeping = f == SLU_FAMILY_META;
        rc = scan_family(s, (slu_family)f, snapshot, NULL, 0, NULL, 0, digest_pair, &g, err);
    }
    if (!rc)
        slu_digest_hex(g.digest, out);
    if (snapshot)
        rocksdb_release_snapshot(s->db, snapshot);
    slu_digest_free(g.digest);
    leave(s);
    return rc;
}

int slu_store_checkpoint(slu_store *s, const char *path, slu_error *err)
{
    int rc = enter(s, err);
    if (rc)
        return rc;
    char *words = NULL;
    rocksdb_checkpoint_t *cp = rocksdb_checkpoint_object_create(s->db, &words);
    if (!words) {
        rocksdb_checkpoint_create(cp, path, 0, &words);
        rocksdb_checkpoint_object_destroy(cp);
    }
    if (words)
        rc = store_translate(path, "writing a checkpoint", words, err);
    leave(s);
    return rc;
}

uint64_t slu_store_estimate_keys(slu_store *s, slu_family f)
{
    uint64_t n = 0;
    if (enter(s, NULL))
        return 0;
    if (!s->families[f] || rocksdb_property_int_cf(s->db, s->families[f], "rocksdb.estimate-num-keys", &n))
        n = 0;
    leave(s);
    return n;
}

void slu_store_memory(slu_store *s, uint64_t *blocks, uint64_t *memtables)
{
    *memtables = *blocks = 0;
    if (enter(s, NULL))
        return;
    *blocks = rocksdb_cache_get_usage(s->cache);
    for (int f = 0; f < SLU_FAMILIES; f++) {
        uint64_t bytes;
        if (s->families[f] &&
            !rocksdb_property_int_cf(s->db, s->families[f], "rocksdb.size-all-mem-tables", &bytes))
            *memtables += bytes;
    }
    leave(s);
}

uint64_t slu_store_disk_bytes(slu_store *s)
{
    return store_files_bytes(s->path);
}
