/* Opening and closing a store. What is checked before a commit is trusted stands beside it: store_files.c,
 * store_whole.c and store_identity.c. */
#include "store/store_files.h"
#include "store/store_inside.h"
#include "store/store_options.h"
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { READ_ONLY_TRIES = 20 };
#define BLOCK_CACHE (8ull << 20)

/* Opens the first |n| families. */
static char *open_families(slu_store *s, int n)
{
    const char *names[SLU_FAMILIES];
    for (int f = 0; f < SLU_FAMILIES; f++) {
        names[f] = store_rocksdb_name((slu_family)f);
        s->families[f] = NULL;
    }
    const rocksdb_options_t *const *options = (const rocksdb_options_t *const *)s->family_options;
    char *words = NULL;
    s->db = s->read_only ? rocksdb_open_for_read_only_column_families(s->db_options, s->path, n, names,
                                                                      options, s->families, 0, &words)
                         : rocksdb_open_column_families(s->db_options, s->path, n, names, options,
                                                        s->families, &words);
    return words;
}

int store_open_db(slu_store *s, slu_error *err)
{
    if (!s->read_only) {
        int rc = store_check_room(s->path, err);
        if (rc)
            return rc;
    }
    char *words = open_families(s, SLU_FAMILIES);
    /* Perhaps of a time before the youngest families, which cannot be made here. */
    for (int n = SLU_FAMILIES - 1;
         n >= SLU_FAMILY_ORDER && words && s->read_only && strstr(words, "Column family not found"); n--) {
        rocksdb_free(words);
        words = open_families(s, n);
    }
    if (words) {
        s->db = NULL;
        return store_translate(s->path, "opening", words, err);
    }
    return 0;
}

void store_close_db(slu_store *s)
{
    if (!s->db)
        return;
    for (int f = 0; f < SLU_FAMILIES; f++)
        if (s->families[f])
            rocksdb_column_family_handle_destroy(s->families[f]);
    rocksdb_close(s->db);
    s->db = NULL;
}

/* A reader takes no lock, so the writer may drop a log file between the reader's look at the manifest and its
 * look at the logs: a hole in the middle of what is read. When the set of logs was the same before and after
 * there was none. */
static int open_db_beside_writer(slu_store *s, slu_error *err)
{
    for (int try = 1;; try++) {
        store_view before, after;
        slu_error why = SLU_ERROR_INIT;
        store_look(s->path, &before);
        int rc = store_open_db(s, &why);
        store_look(s->path, &after);
        if (!rc && before.wals == after.wals)
            return 0;
        store_close_db(s);
        if (try == READ_ONLY_TRIES || rc == SLU_EFORMAT)
            return rc ? slu_fail(err, rc, "%s", why.message)
                      : slu_fail(err, SLU_EIO,
                                 "store %s: its writer is too busy to read beside it; try again", s->path);
        usleep(20000);
    }
}

static int open_to_write(slu_store *s, slu_error *err)
{
    int rc = slu_mark_open(s->path, false, &s->mark, err);
    bool held = rc == SLU_EAGAIN; /* by a living writer: RocksDB finds words for that */
    if (!rc)
        rc = store_look_before_opening(s, err);
    else if (held || rc == SLU_ENOTFOUND)
        rc = 0;
    if (!rc)
        rc = store_open_db(s, err);
    if (!rc && held)
        rc = slu_fail(err, SLU_EIO,
                      "store %s is in use by another process: stop it or use another store.path", s->path);
    return rc ? rc : store_read_counts(s, err);
}

static int open_to_read(slu_store *s, slu_error *err)
{
    slu_mark m;
    bool copied;
    int marked = slu_mark_read(s->path, &m, &copied, err); /* before: the writer goes on */
    if (marked && marked != SLU_ENOTFOUND)
        return marked;
    int rc = open_db_beside_writer(s, err);
    return !rc && !marked ? store_compare_with_mark(s, &m, err) : rc;
}

int slu_store_open(const slu_store_config *config, slu_store **sp, slu_error *err)
{
    *sp = NULL;
    int rc = store_check_directory(config, err);
    if (rc)
        return rc;
    slu_store *s = calloc(1, sizeof *s);
    if (!s)
        return slu_fail(err, SLU_ENOMEM, "store %s: out of memory", config->path);
    uint64_t buffer = config->write_buffer_bytes ? config->write_buffer_bytes : STORE_WRITE_BUFFER;
    pthread_rwlock_init(&s->lock, NULL);
    s->read_only = config->read_only;
    s->sync = config->sync;
    s->path = strdup(config->path);
    s->cache = store_cache(config->block_cache_bytes ? config->block_cache_bytes : BLOCK_CACHE);
    s->db_options = store_db_options(buffer, config->create && !config->read_only);
    for (int f = 0; f < SLU_FAMILIES; f++)
        s->family_options[f] = store_family_options((slu_family)f, s->cache, buffer);
    s->read = rocksdb_readoptions_create();
    s->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(s->write, s->sync);
    rc = s->read_only ? open_to_read(s, err) : open_to_write(s, err);
    if (!rc)
        rc = store_check_identity(config, s, err);
    if (!rc && !s->read_only)
        rc = store_begin_marking(s, err);
    s->marking = !rc;
    if (rc) {
        slu_store_close(s);
        return rc;
    }
    *sp = s;
    return 0;
}

static void commit_free(slu_commit *c)
{
    rocksdb_writebatch_destroy(c->batch);
    slu_buf_free(&c->late);
    slu_buf_free(&c->scratch);
    free(c);
}

void slu_store_close(slu_store *s)
{
    if (!s)
        return;
    while (s->all_commits) {
        slu_commit *c = s->all_commits;
        s->all_commits = c->next;
        commit_free(c);
    }
    store_close_db(s);
    store_end_marking(s);
    rocksdb_writeoptions_destroy(s->write);
    rocksdb_readoptions_destroy(s->read);
    for (int f = 0; f < SLU_FAMILIES; f++)
        rocksdb_options_destroy(s->family_options[f]);
    rocksdb_options_destroy(s->db_options);
    rocksdb_cache_destroy(s->cache);
    pthread_rwlock_destroy(&s->lock);
    free(s->schema);
    free(s->path);
    free(s);
}

const char *slu_store_path(const slu_store *s)
{
    return s->path;
}

const char *slu_store_schema(const slu_store *s)
{
    return s->schema;
}
