/* Opening a store: RocksDB's options, and everything that is checked before a commit is trusted. */
#include "base/clock.h"
#include "base/digest.h"
#include "store/store_inside.h"
#include "store/store_logs.h"
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

enum {
    FORMAT_VERSION = 1,
    READ_ONLY_TRIES = 20,
    INFO_LOG_FATAL = 4, /* RocksDB's FATAL_LEVEL */
    NO_COMPRESSION = 0,
    LZ4_COMPRESSION = 4,
};
#define MIB                (1024u * 1024u)
#define DB_WRITE_BUFFER    (48ull * MIB)
#define WALS_PER_BUFFER    4 /* bounds how much a start has to replay */
#define SETTLED_US         (5 * SLU_SECOND_US)
#define ROOM_TO_OPEN       (1ull * MIB) /* free space that opening may need */
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

bool slu_store_in_use(const char *path)
{
    return lock_holder(path) > 0;
}

/* Turns RocksDB's words into a code and a message with the remedy. Frees |words|. */
int store_translate(const char *path, const char *doing, char *words, slu_error *err)
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
    } else if (!strcmp(doing, "opening") && strstr(words, "No such file")) {
        code = slu_fail(err, SLU_ECORRUPT, "store %s: opening: a file is missing; restore a backup (%s)",
                        path, words);
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

/* For options that the C interface has no call for. Without them, should a RocksDB not know one, everything
 * works as well. */
static rocksdb_options_t *with_words(rocksdb_options_t *o, const char *words)
{
    char *refused = NULL;
    rocksdb_options_t *more = rocksdb_options_create();
    rocksdb_get_options_from_string(o, words, more, &refused);
    if (refused) {
        rocksdb_free(refused);
        rocksdb_options_destroy(more);
        return o;
    }
    rocksdb_options_destroy(o);
    return more;
}

static rocksdb_options_t *make_db_options(uint64_t write_buffer, bool create)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(o, create);
    rocksdb_options_set_create_missing_column_families(o, create);
    rocksdb_options_set_db_write_buffer_size(o, write_buffer);
    rocksdb_options_set_max_total_wal_size(o, WALS_PER_BUFFER * write_buffer);
    rocksdb_options_set_max_background_jobs(o, 2);
    /* Nothing but a header goes into the info log: what went wrong is in the status of each call. And
     * Debian's RocksDB is built with asserts, one of which ends the process when this log is written to again
     * after a failed write. */
    rocksdb_options_set_info_log_level(o, INFO_LOG_FATAL);
    rocksdb_options_set_keep_log_file_num(o, 1);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_max_manifest_file_size(o, 16 * MIB);
    rocksdb_options_set_manifest_preallocation_size(o, 64 * 1024);
    /* Which logs there must be, and how long they are at least: one that is missing is not passed over. For
     * readers too: RocksDB 7.8 cannot open a store read only without it once it was tracked. Beside a writer,
     * whose logs come and go, they try again (open_db_beside_writer). */
    o = with_words(o, "track_and_verify_wals_in_manifest=true;");
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

static rocksdb_options_t *make_family_options(const struct family_traits *traits, rocksdb_cache_t *cache,
                                              uint64_t write_buffer)
{
    rocksdb_options_t *o = rocksdb_options_create();
    size_t buffer = (size_t)((double)traits->write_buffer / DB_WRITE_BUFFER * (double)write_buffer);
    rocksdb_options_set_write_buffer_size(o, buffer < 64 * 1024 ? 64 * 1024 : buffer);
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
    /* A memtable that remembers where the last key went: commits write each family in key order, so most
     * inserts need no search from the top of its skip list, which was a quarter of the trainer's time. */
    return with_words(o, "memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.0;");
}

/* ---- opening ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

typedef struct dir_view {
    bool has_current;
    bool has_data; /* tables, a log with something in it, or the file SLUICE: commits were acknowledged */
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
        if (sst || !strcmp(e->d_name, SLU_MARK_FILE))
            out->has_data = true;
        if (wal)
            out->wals += slu_hash64(e->d_name, strlen(e->d_name), 0);
        if ((wal || sst) && !fstatat(dirfd(d), e->d_name, &st, 0))
            out->bytes += (uint64_t)st.st_size;
        if (wal && !fstatat(dirfd(d), e->d_name, &st, 0) && st.st_size)
            out->has_data = true;
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
int store_check_room(const char *path, slu_error *err)
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
        dir_view before, after;
        slu_error why = SLU_ERROR_INIT;
        look_at(s->path, &before);
        int rc = store_open_db(s, &why);
        look_at(s->path, &after);
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

/* ---- is it whole? ---- */

const char STORE_COMMITS_KEY[] = "~commits", STORE_ID_KEY[] = "~store";

static int read_number(slu_store *s, const char *key, uint64_t *out, slu_error *err)
{
    slu_buf b = SLU_BUF_INIT;
    int rc = slu_store_get(s, SLU_FAMILY_META, key, strlen(key), &b, err);
    slu_reader r = slu_reader_of(b.data, b.len);
    *out = rc ? 0 : slu_get_u64(&r);
    slu_buf_free(&b);
    return rc == SLU_ENOTFOUND ? 0 : rc;
}

int store_read_commits(slu_store *s, uint64_t *commits, slu_error *err)
{
    return read_number(s, STORE_COMMITS_KEY, commits, err);
}

/* Names of files like |end|, for messages. */
static void list_files(const char *path, const char *end, char *out, size_t size)
{
    size_t n = 0;
    DIR *d = opendir(path);
    *out = 0;
    for (struct dirent *e; d && (e = readdir(d));)
        if (ends_with(e->d_name, end) && n < size)
            n += (size_t)snprintf(out + n, size - n, "%s%s", n ? ", " : "", e->d_name);
    if (d)
        closedir(d);
}

int store_lost_commits(const slu_store *s, uint64_t held, uint64_t acknowledged, slu_error *err)
{
    char logs[300];
    list_files(s->path, ".log", logs, sizeof logs);
    return slu_fail(
        err, SLU_ECORRUPT,
        "store %s: holds commit %llu, but commit %llu was acknowledged: a log (%s) or the MANIFEST "
        "is damaged, cut short or of another time; restore a backup (sluice-store restore; a "
        "scorer's store can be deleted)",
        s->path, (unsigned long long)held, (unsigned long long)acknowledged,
        logs[0] ? logs : "none is there");
}

static int compare_with_mark(slu_store *s, const slu_mark *m, slu_error *err)
{
    uint64_t commits, id;
    int rc = read_number(s, STORE_COMMITS_KEY, &commits, err);
    if (!rc)
        rc = read_number(s, STORE_ID_KEY, &id, err);
    if (!rc && id && id != m->store)
        rc = slu_fail(
            err, SLU_ECORRUPT,
            "store %s: its logs or tables are of another store (id %016llx, the file " SLU_MARK_FILE
            " says %016llx): files of two stores were mixed; restore a backup (sluice-store restore)",
            s->path, (unsigned long long)id, (unsigned long long)m->store);
    return !rc && commits < m->commits ? store_lost_commits(s, commits, m->commits, err) : rc;
}

static int check_copy(const slu_store *s, const slu_mark *m, bool copied, slu_error *err)
{
    if (!copied || m->closed)
        return 0;
    return slu_fail(err, SLU_ECORRUPT,
                    "store %s: is a copy of a store that was in use, so its files may be of different "
                    "moments; make copies with sluice-store backup. If certainly nothing wrote to the "
                    "original meanwhile, remove the file " SLU_MARK_FILE " from the copy",
                    s->path);
}

static int check_manifest(const slu_store *s, const slu_mark *m, slu_error *err)
{
    uint64_t number, size;
    slu_mark_manifest(s->path, &number, &size);
    if (!m->manifest || number > m->manifest || (number == m->manifest && size >= m->manifest_size))
        return 0;
    return slu_fail(err, SLU_ECORRUPT,
                    "store %s: MANIFEST-%06llu had %llu bytes, but CURRENT leads to MANIFEST-%06llu of %llu: "
                    "damaged or of another time; restore a backup (sluice-store restore)",
                    s->path, (unsigned long long)m->manifest, (unsigned long long)m->manifest_size,
                    (unsigned long long)number, (unsigned long long)size);
}

/* Looks without writing anything, because RocksDB throws away what it cannot use when it opens for writing:
 * after a refusal all files are as they were. */
static int look_before_opening(slu_store *s, slu_error *err)
{
    bool copied;
    int rc = slu_mark_read(s->path, &s->noted, &copied, err);
    if (rc == SLU_ENOTFOUND)
        return 0;
    if (!rc)
        rc = check_copy(s, &s->noted, copied, err);
    if (!rc)
        rc = check_manifest(s, &s->noted, err);
    if (!rc)
        rc = store_check_logs(s->path, err);
    if (rc)
        return rc;
    s->read_only = true;
    rc = store_open_db(s, err);
    if (!rc)
        rc = compare_with_mark(s, &s->noted, err);
    store_close_db(s);
    s->read_only = false;
    return rc;
}

static int open_to_write(slu_store *s, slu_error *err)
{
    int rc = slu_mark_open(s->path, false, &s->mark, err);
    bool held = rc == SLU_EAGAIN; /* by a living writer: RocksDB finds words for that */
    if (!rc)
        rc = look_before_opening(s, err);
    else if (held || rc == SLU_ENOTFOUND)
        rc = 0;
    if (!rc)
        rc = store_open_db(s, err);
    if (!rc && held)
        rc = slu_fail(err, SLU_EIO,
                      "store %s is in use by another process: stop it or use another store.path", s->path);
    if (!rc)
        rc = read_number(s, STORE_COMMITS_KEY, &s->commits, err);
    if (!rc)
        rc = read_number(s, STORE_ID_KEY, &s->id, err);
    while (!rc && !s->id)
        if (getrandom(&s->id, sizeof s->id, 0) != sizeof s->id)
            s->id = (uint64_t)slu_wall_us(&slu_system_clock);
    return rc;
}

static int open_to_read(slu_store *s, slu_error *err)
{
    slu_mark m;
    bool copied;
    int marked = slu_mark_read(s->path, &m, &copied, err); /* before: the writer goes on */
    if (marked && marked != SLU_ENOTFOUND)
        return marked;
    int rc = open_db_beside_writer(s, err);
    return !rc && !marked ? compare_with_mark(s, &m, err) : rc;
}

/* From here on a copy can be told, and what is acknowledged is noted. */
static int begin_marking(slu_store *s, slu_error *err)
{
    int rc = s->mark ? 0 : slu_mark_open(s->path, true, &s->mark, err);
    s->noted.store = s->id;
    s->noted.commits = s->sync ? s->commits : 0;
    s->noted.closed = false;
    s->seen_at_us = slu_mono_us(&slu_system_clock);
    slu_mark_manifest(s->path, &s->seen_manifest, &s->seen_size);
    return rc ? rc : slu_mark_write(s->mark, &s->noted, true, err);
}

/* A MANIFEST may be seen before RocksDB has synced it, so what is noted is what was there for a while. */
static void look_at_manifest(slu_store *s)
{
    int64_t now = slu_mono_us(&slu_system_clock);
    if (now - s->seen_at_us < SETTLED_US)
        return;
    s->noted.manifest = s->seen_manifest;
    s->noted.manifest_size = s->seen_size;
    slu_mark_manifest(s->path, &s->seen_manifest, &s->seen_size);
    s->seen_at_us = now;
}

/* When the note cannot be written the commit is durable all the same, only less is known about it. */
void store_note_commit(slu_store *s, uint64_t commits)
{
    s->commits = commits;
    if (!s->mark)
        return;
    look_at_manifest(s);
    s->noted.commits = s->sync ? commits : 0;
    slu_mark_write(s->mark, &s->noted, false, NULL);
}

static void end_marking(slu_store *s)
{
    if (s->mark && s->marking && !s->broken) {
        s->noted.closed = true;
        slu_mark_manifest(s->path, &s->noted.manifest, &s->noted.manifest_size);
        slu_mark_write(s->mark, &s->noted, true, NULL);
    }
    slu_mark_close(s->mark);
}

uint64_t store_files_bytes(const char *path)
{
    dir_view view;
    look_at(path, &view);
    return view.bytes;
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
    uint64_t buffer = config->write_buffer_bytes ? config->write_buffer_bytes : DB_WRITE_BUFFER;
    pthread_rwlock_init(&s->lock, NULL);
    s->read_only = config->read_only;
    s->sync = config->sync;
    s->path = strdup(config->path);
    s->cache = make_cache(config->block_cache_bytes ? config->block_cache_bytes : 8 * MIB);
    s->db_options = make_db_options(buffer, config->create && !config->read_only);
    for (int f = 0; f < SLU_FAMILIES; f++)
        s->family_options[f] = make_family_options(&TRAITS[f], s->cache, buffer);
    s->read = rocksdb_readoptions_create();
    s->write = rocksdb_writeoptions_create();
    rocksdb_writeoptions_set_sync(s->write, s->sync);
    rc = s->read_only ? open_to_read(s, err) : open_to_write(s, err);
    if (!rc)
        rc = check_identity(config, s, err);
    if (!rc && !s->read_only)
        rc = begin_marking(s, err);
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
    end_marking(s);
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
