#include "store/store.h"
#include "base/digest.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <rocksdb/c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    FORMAT_VERSION = 1,
    MULTIGET_CHUNK = 128,
    READ_ONLY_TRIES = 20,
    INFO_LOG_FATAL = 4, /* RocksDB's FATAL_LEVEL */
    NO_COMPRESSION = 0,
    LZ4_COMPRESSION = 4,
};
#define MIB                (1024u * 1024u)
#define DB_WRITE_BUFFER    (48ull * MIB)
#define MAX_WAL_BYTES      (192ull * MIB) /* bounds how much a start has to replay */
#define ROOM_TO_OPEN       (1ull * MIB)   /* free space that opening may need */
#define BLOOM_BITS_PER_KEY 10.0

static const char FORMAT_KEY[] = "~format";
static const char SCHEMA_KEY[] = "~schema";

/* Families and how RocksDB should keep them. META is RocksDB's default family: it must exist anyway. */
static const struct family_traits {
    const char *name, *rocksdb_name;
    size_t write_buffer;
    int compression; /* floats do not compress */
    bool bloom;      /* point look-ups of keys that are often absent */
} TRAITS[SLU_FAMILIES] = {
    [SLU_FAMILY_META] = {"meta", "default", 2 * MIB, NO_COMPRESSION, false},
    [SLU_FAMILY_ROWS] = {"rows", "rows", 32 * MIB, NO_COMPRESSION, true},
    [SLU_FAMILY_DENSE] = {"dense", "dense", 8 * MIB, NO_COMPRESSION, false},
    [SLU_FAMILY_JOIN] = {"join", "join", 16 * MIB, LZ4_COMPRESSION, true},
    [SLU_FAMILY_TIMERS] = {"timers", "timers", 8 * MIB, LZ4_COMPRESSION, false},
    [SLU_FAMILY_OUTBOX] = {"outbox", "outbox", 8 * MIB, LZ4_COMPRESSION, false},
    [SLU_FAMILY_ORDER] = {"order", "order", 4 * MIB, LZ4_COMPRESSION, false},
    [SLU_FAMILY_EXPIRY] = {"expiry", "expiry", 8 * MIB, LZ4_COMPRESSION, false},
};

struct slu_commit {
    slu_store *store;
    rocksdb_writebatch_t *batch;
    slu_commit *next; /* all commits of the store */
    bool idle;        /* abandoned: begin may hand it out again */
};

struct slu_store {
    char *path;
    char *schema;
    bool read_only, sync;
    bool broken; /* RocksDB refuses writes after a failed one: reopen before the next */
    /* Everybody reads db under the lock; only reopening takes it for writing. */
    pthread_rwlock_t lock;
    rocksdb_t *db;
    rocksdb_column_family_handle_t *families[SLU_FAMILIES]; /* NULL: an old store, read only, lacks it */
    rocksdb_options_t *db_options, *family_options[SLU_FAMILIES];
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write;
    rocksdb_cache_t *cache;
    slu_commit *commits;
};

const char *slu_family_name(slu_family f)
{
    assert((unsigned)f < SLU_FAMILIES);
    return TRAITS[f].name;
}

/* ---- errors ---- */

/* Who holds the lock file, 0 when unknown. Never called when this process holds it: closing any descriptor of
 * a file drops all fcntl locks that the process has on it. */
static pid_t lock_holder(const char *path)
{
    char name[4096];
    snprintf(name, sizeof name, "%s/LOCK", path);
    int fd = open(name, O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return 0;
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    pid_t pid = !fcntl(fd, F_GETLK, &l) && l.l_type != F_UNLCK ? l.l_pid : 0;
    close(fd);
    return pid;
}

/* Turns RocksDB's words into a code and a message with the remedy. Frees |words|. */
static int translate(const char *path, const char *doing, char *words, slu_error *err)
{
    int code;
    if (strstr(words, "lock hold by current process")) {
        code = slu_fail(err, SLU_EIO, "store %s is already open in this process", path);
    } else if (strstr(words, "While lock file") && strstr(words, "temporarily unavailable")) {
        pid_t pid = lock_holder(path);
        char who[32] = "pid unknown";
        if (pid > 0)
            snprintf(who, sizeof who, "pid %ld", (long)pid);
        code = slu_fail(err, SLU_EIO,
                        "store %s is in use by another process (%s): stop it or use another store.path", path,
                        who);
    } else if (strstr(words, "No space left on device") || strstr(words, "Disk quota exceeded")) {
        code = slu_fail(err, SLU_EIO, "store %s: %s: the disk is full; free some space (%s)", path, doing,
                        words);
    } else if (strstr(words, "Permission denied") || strstr(words, "Read-only file system")) {
        code = slu_fail(err, SLU_EIO, "store %s: %s: not writable for this user (%s)", path, doing, words);
    } else if (!strncmp(words, "Corruption", 10) || strstr(words, "Corruption:")) {
        code = slu_fail(err, SLU_ECORRUPT, "store %s: %s: damaged files; restore a backup (%s)", path, doing,
                        words);
    } else if (strstr(words, "Column families not opened") || strstr(words, "Column family not found")) {
        code = slu_fail(err, SLU_EFORMAT, "store %s: %s: not a Sluice store, or of another version (%s)",
                        path, doing, words);
    } else {
        code = slu_fail(err, SLU_EIO, "store %s: %s: %s", path, doing, words);
    }
    rocksdb_free(words);
    return code;
}

/* ---- options ---- */

static rocksdb_options_t *make_db_options(bool create)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(o, create);
    rocksdb_options_set_create_missing_column_families(o, create);
    rocksdb_options_set_db_write_buffer_size(o, DB_WRITE_BUFFER);
    rocksdb_options_set_max_total_wal_size(o, MAX_WAL_BYTES);
    rocksdb_options_set_max_background_jobs(o, 2);
    /* Nothing but a header goes into the info log: what went wrong is in the status of each call. And
     * Debian's RocksDB is built with asserts, one of which ends the process when this log is written to again
     * after a failed write. */
    rocksdb_options_set_info_log_level(o, INFO_LOG_FATAL);
    rocksdb_options_set_keep_log_file_num(o, 1);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_max_manifest_file_size(o, 16 * MIB);
    rocksdb_options_set_manifest_preallocation_size(o, 64 * 1024);
    /* A reader that opened the files keeps them, even when the writer has compacted them away. */
    rocksdb_options_set_max_open_files(o, -1);
    return o;
}

/* One thread does nearly all reading, so a few large shards beat RocksDB's 64 small ones. */
static rocksdb_cache_t *make_cache(uint64_t bytes)
{
    rocksdb_lru_cache_options_t *o = rocksdb_lru_cache_options_create();
    rocksdb_lru_cache_options_set_capacity(o, bytes);
    rocksdb_lru_cache_options_set_num_shard_bits(o, 2);
    rocksdb_cache_t *cache = rocksdb_cache_create_lru_opts(o);
    rocksdb_lru_cache_options_destroy(o);
    return cache;
}

/* A memtable that remembers where the last key went: commits write each family in key order, so most inserts
 * need no search from the top of its skip list, which was a quarter of the trainer's time. Without it, should
 * a RocksDB not know the option, everything works as well, only slower. */
static rocksdb_options_t *with_insert_hints(rocksdb_options_t *o)
{
    char *refused = NULL;
    rocksdb_options_t *hinted = rocksdb_options_create();
    rocksdb_get_options_from_string(o, "memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.0;",
                                    hinted, &refused);
    if (refused) {
        rocksdb_free(refused);
        rocksdb_options_destroy(hinted);
        return o;
    }
    rocksdb_options_destroy(o);
    return hinted;
}

static rocksdb_options_t *make_family_options(const struct family_traits *traits, rocksdb_cache_t *cache)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_options_set_write_buffer_size(o, traits->write_buffer);
    rocksdb_options_set_compression(o, traits->compression);
    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(t, cache);
    rocksdb_block_based_options_set_format_version(t, 5);
    /* Indexes and filters live in the block cache, or memory would grow with the table. */
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(t, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
    /* And in small pieces: the filter of a whole file would not even fit a shard of a small cache. */
    rocksdb_block_based_options_set_index_type(t,
                                               rocksdb_block_based_table_index_type_two_level_index_search);
    rocksdb_block_based_options_set_partition_filters(t, 1);
    rocksdb_block_based_options_set_pin_top_level_index_and_filter(t, 1);
    if (traits->bloom) {
        rocksdb_block_based_options_set_filter_policy(
            t, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS_PER_KEY));
        rocksdb_options_set_memtable_whole_key_filtering(o, 1);
        rocksdb_options_set_memtable_prefix_bloom_size_ratio(o, 0.05);
    }
    rocksdb_options_set_block_based_table_factory(o, t);
    rocksdb_block_based_options_destroy(t);
    return with_insert_hints(o);
}

/* ---- opening ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

typedef struct dir_view {
    bool has_current, has_data;
    uint64_t wals; /* hash over the names of the log files, independent of order */
    uint64_t bytes;
} dir_view;

static void look_at(const char *path, dir_view *out)
{
    *out = (dir_view){0};
    DIR *d = opendir(path);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));) {
        bool wal = ends_with(e->d_name, ".log"), sst = ends_with(e->d_name, ".sst");
        struct stat st;
        if (!strcmp(e->d_name, "CURRENT"))
            out->has_current = true;
        if (sst || !strncmp(e->d_name, "MANIFEST-", 9))
            out->has_data = true;
        if (wal)
            out->wals += slu_hash64(e->d_name, strlen(e->d_name), 0);
        if ((wal || sst) && !fstatat(dirfd(d), e->d_name, &st, 0))
            out->bytes += (uint64_t)st.st_size;
    }
    closedir(d);
}

static int make_directories(const char *path, slu_error *err)
{
    char *copy = strdup(path);
    if (!copy)
        return slu_fail(err, SLU_ENOMEM, "store %s: out of memory", path);
    for (char *p = copy + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char keep = *p;
        *p = 0;
        if (mkdir(copy, 0777) && errno != EEXIST) {
            int code = slu_fail(err, SLU_EIO, "store %s: cannot create directory %s: %s", path, copy,
                                strerror(errno));
            free(copy);
            return code;
        }
        *p = keep;
        if (!keep)
            break;
    }
    free(copy);
    return 0;
}

static int check_directory(const slu_store_config *config, slu_error *err)
{
    dir_view view;
    look_at(config->path, &view);
    if (view.has_current)
        return 0;
    /* RocksDB would start an empty database here and the model would be gone without a word. */
    if (view.has_data)
        return slu_fail(
            err, SLU_ECORRUPT,
            "store %s: has data files but no CURRENT file; restore a backup or use another store.path",
            config->path);
    if (!config->create || config->read_only)
        return slu_fail(err, SLU_ENOTFOUND, "store %s: there is no store; check store.path", config->path);
    return make_directories(config->path, err);
}

/* RocksDB writes while it opens, and does not take a full disk well at that moment (see make_db_options). */
static int check_room(const char *path, slu_error *err)
{
    struct statvfs fs;
    if (statvfs(path, &fs) || (uint64_t)fs.f_bavail * fs.f_frsize >= ROOM_TO_OPEN)
        return 0;
    return slu_fail(err, SLU_EIO, "store %s: the disk is full; free some space", path);
}

/* Opens the first |n| families. */
static char *open_families(slu_store *s, int n)
{
    const char *names[SLU_FAMILIES];
    for (int f = 0; f < SLU_FAMILIES; f++) {
        names[f] = TRAITS[f].rocksdb_name;
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

static int open_db(slu_store *s, slu_error *err)
{
    if (!s->read_only) {
        int rc = check_room(s->path, err);
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
        return translate(s->path, "opening", words, err);
    }
    return 0;
}

static void close_db(slu_store *s)
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
        dir_view before, after;
        slu_error why = SLU_ERROR_INIT;
        look_at(s->path, &before);
        int rc = open_db(s, &why);
        look_at(s->path, &after);
        if (!rc && before.wals == after.wals)
            return 0;
        close_db(s);
        if (try == READ_ONLY_TRIES || rc == SLU_EFORMAT)
            return rc ? slu_fail(err, rc, "%s", why.message)
                      : slu_fail(err, SLU_EIO,
                                 "store %s: its writer is too busy to read beside it; try again", s->path);
        usleep(20000);
    }
}

static int check_schema(const slu_store_config *config, slu_store *s, slu_error *err)
{
    if (!config->schema_text || !strcmp(config->schema_text, s->schema))
        return 0;
    if (!config->compare)
        return slu_fail(
            err, SLU_ESCHEMA,
            "store %s was made for another schema; use another store.path, or the old configuration",
            s->path);
    int rc = config->compare(config->compare_ctx, s->schema, err);
    return rc ? slu_error_context(err, "store %s", s->path) : 0;
}

static int write_identity(slu_store *s, const char *schema_text, slu_error *err)
{
    uint8_t format[4] = {FORMAT_VERSION};
    slu_commit *c = slu_commit_begin(s);
    slu_commit_put(c, SLU_FAMILY_META, FORMAT_KEY, strlen(FORMAT_KEY), format, sizeof format);
    slu_commit_put(c, SLU_FAMILY_META, SCHEMA_KEY, strlen(SCHEMA_KEY), schema_text, strlen(schema_text));
    int rc = slu_commit_write(c, err);
    slu_commit_abandon(c);
    return rc;
}

static bool note_any(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)key, (void)key_len, (void)value, (void)value_len;
    *(bool *)ctx = true;
    return false;
}

/* A store that was created but died before its first write has nothing in it. */
static int is_blank(slu_store *s, bool *blank, slu_error *err)
{
    bool any = false;
    for (int f = 0; f < SLU_FAMILIES && !any; f++) {
        int rc = slu_store_scan(s, (slu_family)f, NULL, 0, NULL, 0, note_any, &any, err);
        if (rc)
            return rc;
    }
    *blank = !any;
    return 0;
}

static int check_identity(const slu_store_config *config, slu_store *s, slu_error *err)
{
    slu_buf b = SLU_BUF_INIT;
    bool blank = false;
    int rc = slu_store_get(s, SLU_FAMILY_META, FORMAT_KEY, strlen(FORMAT_KEY), &b, err);
    if (rc == SLU_ENOTFOUND) {
        rc = is_blank(s, &blank, err);
        if (!rc && blank && config->create && !config->read_only) {
            rc = write_identity(s, config->schema_text ? config->schema_text : "", err);
            if (!rc)
                rc = slu_store_get(s, SLU_FAMILY_META, FORMAT_KEY, strlen(FORMAT_KEY), &b, err);
        } else if (!rc) {
            rc = blank ? slu_fail(err, SLU_ENOTFOUND, "store %s: is empty", s->path)
                       : slu_fail(err, SLU_EFORMAT,
                                  "store %s: has no format version, so it is not a Sluice store", s->path);
        }
    }
    if (rc)
        goto done;
    slu_reader r = slu_reader_of(b.data, b.len);
    uint32_t format = slu_get_u32(&r);
    if (r.bad || slu_reader_left(&r)) {
        rc = slu_fail(err, SLU_ECORRUPT, "store %s: its format version cannot be read", s->path);
        goto done;
    }
    if (format != FORMAT_VERSION) {
        rc = slu_fail(err, SLU_EFORMAT,
                      "store %s: has format %u, this program knows format %u; use the matching version",
                      s->path, format, (unsigned)FORMAT_VERSION);
        goto done;
    }
    rc = slu_store_get(s, SLU_FAMILY_META, SCHEMA_KEY, strlen(SCHEMA_KEY), &b, err);
    if (rc == SLU_ENOTFOUND)
        rc = slu_fail(err, SLU_ECORRUPT, "store %s: its schema is missing", s->path);
    if (rc)
        goto done;
    s->schema = strndup((const char *)(b.len ? b.data : (const uint8_t *)""), b.len);
    rc = s->schema ? check_schema(config, s, err)
                   : slu_fail(err, SLU_ENOMEM, "store %s: out of memory", s->path);
done:
    slu_buf_free(&b);
    return rc;
}

int slu_store_open(const slu_store_config *config, slu_store **sp, slu_error *err)
{
    *sp = NULL;
    int rc = check_directory(config, err);
    if (rc)
        return rc;
    slu_store *s = calloc(1, sizeof *s);
    if (!s)
        return slu_fail(err, SLU_ENOMEM, "store %s: out of memory", config->path);
    pthread_rwlock_init(&s->lock, NULL);
    s->read_only = config->read_only;
    s->sync = config->sync;
    s->path = strdup(config->path);
    s->cache = make_cache(config->block_cache_bytes ? config->block_cache_bytes : 8 * MIB);
    s->db_options = make_db_options(config->create && !config->read_only);
    for (int f = 0; f < SLU_FAMILIES; f++)
        s->family_options[f] = make_family_options(&TRAITS[f], s->cache);
    s->read = rocksdb_readoptions_create();
    s->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(s->write, s->sync);
    rc = s->read_only ? open_db_beside_writer(s, err) : open_db(s, err);
    if (!rc)
        rc = check_identity(config, s, err);
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
    free(c);
}

void slu_store_close(slu_store *s)
{
    if (!s)
        return;
    while (s->commits) {
        slu_commit *c = s->commits;
        s->commits = c->next;
        commit_free(c);
    }
    close_db(s);
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
    if (!s->families[f])
        return SLU_ENOTFOUND;
    int rc = enter(s, err);
    if (rc)
        return rc;
    char *words = NULL;
    rocksdb_pinnableslice_t *slice =
        rocksdb_get_pinned_cf(s->db, s->read, s->families[f], key, key_len, &words);
    if (words) {
        rc = translate(s->path, "reading", words, err);
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
            rc = rc ? (rocksdb_free(words[i]), rc) : translate(s->path, "reading", words[i], err);
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
    int rc = words ? translate(s->path, "scanning", words, err) : 0;
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

/* ---- committing ---- */

slu_commit *slu_commit_begin(slu_store *s)
{
    for (slu_commit *c = s->commits; c; c = c->next)
        if (c->idle) {
            c->idle = false;
            return c;
        }
    slu_commit *c = calloc(1, sizeof *c);
    if (!c) {
        fprintf(stderr, "sluice: out of memory (commit)\n");
        abort();
    }
    *c = (slu_commit){.store = s, .batch = rocksdb_writebatch_create(), .next = s->commits};
    s->commits = c;
    return c;
}

void slu_commit_put(slu_commit *c, slu_family f, const void *key, size_t key_len, const void *value,
                    size_t value_len)
{
    assert(!c->idle);
    rocksdb_writebatch_put_cf(c->batch, c->store->families[f], key, key_len, value, value_len);
}

void slu_commit_delete(slu_commit *c, slu_family f, const void *key, size_t key_len)
{
    assert(!c->idle);
    rocksdb_writebatch_delete_cf(c->batch, c->store->families[f], key, key_len);
}

void slu_commit_save(slu_commit *c)
{
    assert(!c->idle);
    rocksdb_writebatch_set_save_point(c->batch);
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
}

size_t slu_commit_bytes(const slu_commit *c)
{
    size_t n = 0;
    rocksdb_writebatch_data(c->batch, &n);
    return n;
}

/* RocksDB takes no writes after a failed one (disk full, say) until it is opened again. Whether the failed
 * batch got into the log does not matter: it holds only puts and deletes, so writing it again gives the same
 * state. */
static int reopen(slu_store *s, slu_error *err)
{
    if (pthread_rwlock_trywrlock(&s->lock))
        return slu_fail(err, SLU_EAGAIN, "store %s: is being read while it needs to be reopened; try again",
                        s->path);
    int rc = check_room(s->path, err); /* before it is closed: reading still works */
    if (!rc) {
        close_db(s);
        rc = open_db(s, err);
    }
    if (!rc)
        s->broken = false;
    pthread_rwlock_unlock(&s->lock);
    return rc;
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
    char *words = NULL;
    rocksdb_write(s->db, s->write, c->batch, &words);
    if (words) {
        s->broken = true;
        rc = translate(s->path, "committing", words, err);
    } else {
        rocksdb_writebatch_clear(c->batch);
    }
    leave(s);
    return rc;
}

void slu_commit_abandon(slu_commit *c)
{
    if (!c)
        return;
    rocksdb_writebatch_clear(c->batch);
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
        digest_span(g.digest, TRAITS[f].name, strlen(TRAITS[f].name));
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
        rc = translate(path, "writing a checkpoint", words, err);
    leave(s);
    return rc;
}

uint64_t slu_store_estimate_keys(slu_store *s, slu_family f)
{
    uint64_t n = 0;
    if (!s->families[f] || enter(s, NULL))
        return 0;
    if (rocksdb_property_int_cf(s->db, s->families[f], "rocksdb.estimate-num-keys", &n))
        n = 0;
    leave(s);
    return n;
}

uint64_t slu_store_disk_bytes(slu_store *s)
{
    dir_view view;
    look_at(s->path, &view);
    return view.bytes;
}
