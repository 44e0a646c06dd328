/* One commit is one state: what is written together is read together, whatever happens in between. */
#include "tests/store_sample.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <rocksdb/c.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { ALL = (1 << SLU_FAMILIES) - 1 };

static void put(slu_commit *c, slu_family f, const char *key, const char *value)
{
    slu_commit_put(c, f, key, strlen(key), value, strlen(value));
}

static void put_now(slu_store *s, slu_family f, const char *key, const char *value)
{
    slu_commit *c = slu_commit_begin(s);
    put(c, f, key, value);
    sample_write(c);
    slu_commit_abandon(c);
}

static void expect(slu_store *s, slu_family f, const char *key, const char *value)
{
    slu_buf b = SLU_BUF_INIT;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_store_get(s, f, key, strlen(key), &b, &err);
    if (value) {
        ck_assert_msg(!rc, "%s: %s", key, err.message);
        ck_assert_uint_eq(b.len, strlen(value));
        ck_assert_mem_eq(b.data, value, b.len);
    } else {
        ck_assert_int_eq(rc, SLU_ENOTFOUND);
    }
    slu_buf_free(&b);
}

static void expect_digest(slu_store *s, unsigned families, char out[33])
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_store_digest(s, families, out, &err), "%s", err.message);
}

static slu_error refused(slu_store_config config, int code)
{
    slu_error err = SLU_ERROR_INIT;
    slu_store *s = NULL;
    int rc = slu_store_open(&config, &s, &err);
    slu_store_close(s);
    ck_assert_msg(rc == code, "got %s '%s', expected %s", slu_code_name(rc), err.message,
                  slu_code_name(code));
    ck_assert_ptr_null(s);
    ck_assert_msg(strstr(err.message, config.path) != NULL, "no path in '%s'", err.message);
    return err;
}

START_TEST(test_reopen)
{
    slu_store *s = sample_open();
    for (int f = 0; f < SLU_FAMILIES; f++)
        put_now(s, (slu_family)f, "key", slu_family_name((slu_family)f));
    slu_commit *lost = slu_commit_begin(s);
    put(lost, SLU_FAMILY_META, "lost", "x");
    slu_store_close(s);
    s = sample_open();
    for (int f = 0; f < SLU_FAMILIES; f++)
        expect(s, (slu_family)f, "key", slu_family_name((slu_family)f));
    expect(s, SLU_FAMILY_META, "lost", NULL);
    ck_assert_str_eq(slu_store_schema(s), "s");
    ck_assert_str_eq(slu_store_path(s), sample_path);
    ck_assert_uint_gt(slu_store_disk_bytes(s), 0);
    ck_assert_uint_eq(slu_store_estimate_keys(s, SLU_FAMILY_ROWS), 1);
    slu_store_close(s);
}
END_TEST

START_TEST(test_commit_is_reusable)
{
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    size_t empty = slu_commit_bytes(c);
    put(c, SLU_FAMILY_ROWS, "a", "1");
    put(c, SLU_FAMILY_JOIN, "a", "2");
    ck_assert_uint_gt(slu_commit_bytes(c), empty);
    expect(s, SLU_FAMILY_ROWS, "a", NULL); /* nothing before the write */
    sample_write(c);
    ck_assert_uint_eq(slu_commit_bytes(c), empty);
    expect(s, SLU_FAMILY_ROWS, "a", "1");
    slu_commit_delete(c, SLU_FAMILY_ROWS, "a", 1);
    sample_write(c);
    expect(s, SLU_FAMILY_ROWS, "a", NULL);
    expect(s, SLU_FAMILY_JOIN, "a", "2");
    put(c, SLU_FAMILY_ROWS, "b", "3");
    slu_commit_abandon(c);
    ck_assert_ptr_eq(slu_commit_begin(s), c);
    ck_assert_uint_eq(slu_commit_bytes(c), empty);
    slu_store_close(s);
}
END_TEST

typedef struct collected {
    char text[400];
    int stop_after;
} collected;

static bool collect_pair(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    collected *c = ctx;
    size_t n = strlen(c->text);
    snprintf(c->text + n, sizeof c->text - n, "%.*s=%.*s ", (int)key_len, (const char *)key, (int)value_len,
             (const char *)value);
    return --c->stop_after != 0;
}

static void collect_value(void *ctx, size_t i, const void *value, size_t len)
{
    collected *c = ctx;
    size_t n = strlen(c->text);
    snprintf(c->text + n, sizeof c->text - n, "%zu=%.*s ", i, (int)len, (const char *)value);
}

START_TEST(test_scan_and_multiget)
{
    slu_store *s = sample_open();
    slu_error err = SLU_ERROR_INIT;
    const char *names[] = {"d", "b", "a", "c", "e"};
    for (int i = 0; i < 5; i++)
        put_now(s, SLU_FAMILY_DENSE, names[i], names[i]);
    collected all = {.stop_after = 0}, part = {.stop_after = 0}, two = {.stop_after = 2},
              many = {.stop_after = 0};
    ck_assert_int_eq(slu_store_scan(s, SLU_FAMILY_DENSE, NULL, 0, NULL, 0, collect_pair, &all, &err), 0);
    ck_assert_str_eq(all.text, "a=a b=b c=c d=d e=e ");
    ck_assert_int_eq(slu_store_scan(s, SLU_FAMILY_DENSE, "b", 1, "d", 1, collect_pair, &part, &err), 0);
    ck_assert_str_eq(part.text, "b=b c=c ");
    ck_assert_int_eq(slu_store_scan(s, SLU_FAMILY_DENSE, "aa", 2, NULL, 0, collect_pair, &two, &err), 0);
    ck_assert_str_eq(two.text, "b=b c=c ");
    const void *keys[] = {"e", "x", "a", "y", "c"};
    size_t lens[] = {1, 1, 1, 1, 1};
    ck_assert_int_eq(slu_store_multiget(s, SLU_FAMILY_DENSE, keys, lens, 5, collect_value, &many, &err), 0);
    ck_assert_str_eq(many.text, "0=e 2=a 4=c ");
    slu_store_close(s);
}
END_TEST

static void count_value(void *ctx, size_t i, const void *value, size_t len)
{
    size_t *next = ctx;
    ck_assert_uint_eq(i, *next); /* in order, all there */
    ck_assert_uint_eq(len, sizeof i);
    ck_assert_mem_eq(value, &i, len);
    (*next)++;
}

/* More keys than go into one chunk. */
START_TEST(test_multiget_many)
{
    enum { N = 1000 };
    static size_t values[N];
    static const void *keys[N];
    static size_t lens[N];
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    for (size_t i = 0; i < N; i++) {
        values[i] = i;
        keys[i] = &values[i];
        lens[i] = sizeof values[i];
        slu_commit_put(c, SLU_FAMILY_ROWS, keys[i], lens[i], &values[i], sizeof values[i]);
    }
    sample_write(c);
    size_t seen = 0;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_store_multiget(s, SLU_FAMILY_ROWS, keys, lens, N, count_value, &seen, &err), 0);
    ck_assert_uint_eq(seen, N);
    slu_store_close(s);
}
END_TEST

START_TEST(test_digest)
{
    char first[33], again[33], other[33];
    slu_store *s = sample_open();
    put_now(s, SLU_FAMILY_ROWS, "a", "bc");
    put_now(s, SLU_FAMILY_META, "version", "1");
    expect_digest(s, ALL, first);
    ck_assert_uint_eq(strlen(first), 32);
    put_now(s, SLU_FAMILY_META, "~wall", "now"); /* housekeeping does not count */
    expect_digest(s, ALL, again);
    ck_assert_str_eq(first, again);
    put_now(s, SLU_FAMILY_META, "version", "2");
    expect_digest(s, ALL, other);
    ck_assert_str_ne(first, other);
    expect_digest(s, 1 << SLU_FAMILY_ROWS, first);
    /* The same bytes, cut elsewhere. */
    slu_commit *c = slu_commit_begin(s);
    slu_commit_delete(c, SLU_FAMILY_ROWS, "a", 1);
    put(c, SLU_FAMILY_ROWS, "ab", "c");
    sample_write(c);
    expect_digest(s, 1 << SLU_FAMILY_ROWS, other);
    ck_assert_str_ne(first, other);
    /* And back, by another way and through a restart. */
    slu_commit_delete(c, SLU_FAMILY_ROWS, "ab", 2);
    put(c, SLU_FAMILY_ROWS, "a", "bc");
    sample_write(c);
    slu_store_close(s);
    s = sample_open();
    expect_digest(s, 1 << SLU_FAMILY_ROWS, other);
    ck_assert_str_eq(first, other);
    slu_store_close(s);
}
END_TEST

static int accept_one(void *ctx, const char *stored, slu_error *err)
{
    return strcmp(stored, ctx) ? slu_fail(err, SLU_ESCHEMA, "first difference: feature 'ad'") : 0;
}

START_TEST(test_schema)
{
    slu_store_close(sample_open());
    slu_store_config config = sample_config();
    config.schema_text = "t";
    refused(config, SLU_ESCHEMA);
    config.compare = accept_one;
    config.compare_ctx = "something else";
    slu_error err = refused(config, SLU_ESCHEMA);
    ck_assert_ptr_nonnull(strstr(err.message, "'ad'"));
    config.compare_ctx = "s";
    slu_store *s = sample_open_as(config);
    ck_assert_str_eq(slu_store_schema(s), "s");
    slu_store_close(s);
    config.schema_text = NULL; /* a tool */
    config.compare = NULL;
    slu_store_close(sample_open_as(config));
}
END_TEST

START_TEST(test_format)
{
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    slu_commit_put(c, SLU_FAMILY_META, "~format", 7, "\7\0\0\0", 4);
    sample_write(c);
    slu_store_close(s);
    slu_error err = refused(sample_config(), SLU_EFORMAT);
    ck_assert_ptr_nonnull(strstr(err.message, "format 7"));
    sample_remove(sample_path);
    s = sample_open();
    c = slu_commit_begin(s);
    slu_commit_put(c, SLU_FAMILY_META, "~format", 7, "\1", 1);
    sample_write(c);
    slu_store_close(s);
    refused(sample_config(), SLU_ECORRUPT);
}
END_TEST

START_TEST(test_foreign_database)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(o, 1);
    char *words = NULL;
    rocksdb_t *db = rocksdb_open(o, sample_path, &words);
    ck_assert_ptr_null(words);
    rocksdb_writeoptions_t *w = rocksdb_writeoptions_create();
    rocksdb_put(db, w, "k", 1, "v", 1, &words);
    ck_assert_ptr_null(words);
    rocksdb_close(db);
    rocksdb_writeoptions_destroy(w);
    rocksdb_options_destroy(o);
    refused(sample_config(), SLU_EFORMAT);
}
END_TEST

/* A store of before the youngest families: read as if they were empty, and given them by the next writer. */
START_TEST(test_family_is_added)
{
    const int first = _i; /* the oldest of those that are missing */
    slu_store *s = sample_open();
    put_now(s, SLU_FAMILY_ROWS, "row", "1");
    slu_store_close(s);
    const char *names[SLU_FAMILIES];
    rocksdb_options_t *o = rocksdb_options_create();
    const rocksdb_options_t *each[SLU_FAMILIES];
    rocksdb_column_family_handle_t *handles[SLU_FAMILIES];
    for (int f = 0; f < SLU_FAMILIES; f++) {
        names[f] = f == SLU_FAMILY_META ? "default" : slu_family_name((slu_family)f);
        each[f] = o;
    }
    char *words = NULL;
    rocksdb_t *db = rocksdb_open_column_families(o, sample_path, SLU_FAMILIES, names, each, handles, &words);
    ck_assert_msg(!words, "%s", words);
    for (int f = first; f < SLU_FAMILIES; f++) {
        rocksdb_drop_column_family(db, handles[f], &words);
        ck_assert_msg(!words, "%s", words);
    }
    for (int f = 0; f < SLU_FAMILIES; f++)
        rocksdb_column_family_handle_destroy(handles[f]);
    rocksdb_close(db);
    rocksdb_options_destroy(o);

    slu_store_config config = sample_config();
    config.create = false;
    config.read_only = true;
    s = sample_open_as(config);
    expect(s, SLU_FAMILY_ROWS, "row", "1");
    expect(s, (slu_family)first, "row", NULL);
    char digest[33];
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_store_digest(s, ALL, digest, &err), 0);
    ck_assert_uint_eq(slu_store_estimate_keys(s, (slu_family)first), 0);
    slu_store_close(s);
    config.read_only = false;
    refused(config, SLU_EFORMAT);
    s = sample_open();
    put_now(s, (slu_family)first, "row", "2");
    slu_store_close(s);
    s = sample_open();
    expect(s, SLU_FAMILY_ROWS, "row", "1");
    expect(s, (slu_family)first, "row", "2");
    slu_store_close(s);
}
END_TEST

START_TEST(test_missing)
{
    slu_store_config config = sample_config();
    config.create = false;
    refused(config, SLU_ENOTFOUND);
    config.create = true;
    config.read_only = true;
    refused(config, SLU_ENOTFOUND);
    /* Several levels are made. */
    char deep[400];
    snprintf(deep, sizeof deep, "%s/a/b/c", sample_root);
    config.path = deep;
    config.read_only = false;
    slu_store_close(sample_open_as(config));
    /* Without CURRENT RocksDB would start afresh and lose all. */
    char current[450];
    snprintf(current, sizeof current, "%s/CURRENT", deep);
    ck_assert_int_eq(unlink(current), 0);
    refused(config, SLU_ECORRUPT);
    snprintf(deep, sizeof deep, "%s/file", sample_root);
    int fd = open(deep, O_CREAT | O_WRONLY, 0600);
    ck_assert_int_ge(fd, 0);
    close(fd);
    refused(config, SLU_EIO);
}
END_TEST

START_TEST(test_second_opener)
{
    slu_store *s = sample_open();
    slu_error err = refused(sample_config(), SLU_EIO);
    ck_assert_ptr_nonnull(strstr(err.message, "already open"));
    slu_store_close(s);
    int up[2], down[2];
    ck_assert(!pipe(up) && !pipe(down));
    pid_t child = fork();
    if (!child) {
        slu_store *mine = sample_open();
        char x = 'x';
        bool fine = write(up[1], &x, 1) == 1 && read(down[0], &x, 1) == 1;
        slu_store_close(mine);
        _exit(!fine);
    }
    char x;
    ck_assert_int_eq(read(up[0], &x, 1), 1);
    err = refused(sample_config(), SLU_EIO);
    char who[32];
    snprintf(who, sizeof who, "pid %d", (int)child);
    ck_assert_msg(strstr(err.message, who) && strstr(err.message, "in use by another process"), "%s",
                  err.message);
    /* The refused look has not taken the lock away from its owner. */
    refused(sample_config(), SLU_EIO);
    ck_assert_int_eq(write(down[1], &x, 1), 1);
    int status;
    waitpid(child, &status, 0);
    ck_assert_int_eq(status, 0);
    slu_store_close(sample_open());
}
END_TEST

START_TEST(test_read_only_beside_writer)
{
    slu_store *s = sample_open();
    put_now(s, SLU_FAMILY_ROWS, "a", "1");
    slu_store_config config = sample_config();
    config.read_only = true;
    slu_store *reader = sample_open_as(config);
    expect(reader, SLU_FAMILY_ROWS, "a", "1");
    put_now(s, SLU_FAMILY_ROWS, "a", "2");
    expect(reader, SLU_FAMILY_ROWS, "a", "1"); /* as it was when opened */
    char theirs[33], mine[33];
    slu_store *later = sample_open_as(config);
    expect_digest(s, ALL, theirs);
    expect_digest(later, ALL, mine);
    ck_assert_str_eq(theirs, mine);
    slu_commit *c = slu_commit_begin(reader);
    put(c, SLU_FAMILY_ROWS, "b", "1");
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_commit_write(c, &err), SLU_EIO);
    slu_store_close(later);
    slu_store_close(reader);
    slu_store_close(s);
}
END_TEST

START_TEST(test_checkpoint)
{
    slu_store *s = sample_open();
    put_now(s, SLU_FAMILY_ROWS, "a", "1");
    put_now(s, SLU_FAMILY_META, "version", "1");
    char copy[400], theirs[33], mine[33];
    snprintf(copy, sizeof copy, "%s/copy", sample_root);
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_store_checkpoint(s, copy, &err), "%s", err.message);
    expect_digest(s, ALL, mine);
    put_now(s, SLU_FAMILY_ROWS, "a", "2");
    slu_store_config config = sample_config();
    config.path = copy;
    slu_store *other = sample_open_as(config);
    expect_digest(other, ALL, theirs);
    ck_assert_str_eq(theirs, mine);
    slu_store_close(other);
    ck_assert_int_lt(slu_store_checkpoint(s, copy, &err), 0); /* exists */
    slu_store_close(s);
}
END_TEST

/* Flips bytes in all data files. */
static int flip_files(const char *suffix)
{
    int flipped = 0;
    DIR *d = opendir(sample_path);
    for (struct dirent *e; (e = readdir(d));) {
        size_t n = strlen(e->d_name), m = strlen(suffix);
        if (n < m || strcmp(e->d_name + n - m, suffix))
            continue;
        int fd = openat(dirfd(d), e->d_name, O_RDWR);
        struct stat st;
        ck_assert(fd >= 0 && !fstat(fd, &st));
        for (off_t at = 10; at < st.st_size / 2; at += 100) {
            char x;
            ck_assert_int_eq(pread(fd, &x, 1, at), 1);
            x ^= 0x55;
            ck_assert_int_eq(pwrite(fd, &x, 1, at), 1);
        }
        close(fd);
        flipped++;
    }
    closedir(d);
    return flipped;
}

static bool ignore_pair(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)ctx, (void)key, (void)key_len, (void)value, (void)value_len;
    return true;
}

START_TEST(test_corrupt_file)
{
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    for (int i = 0; i < 2000; i++) {
        char key[20];
        snprintf(key, sizeof key, "row %d", i);
        put(c, SLU_FAMILY_ROWS, key, "some bytes that fill a block or two");
    }
    sample_write(c);
    slu_store_close(s);
    slu_store_close(sample_open()); /* moves the log into files */
    ck_assert_int_gt(flip_files(".sst"), 0);
    slu_store_config config = sample_config();
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_store_open(&config, &s, &err);
    if (!rc)
        rc = slu_store_scan(s, SLU_FAMILY_ROWS, NULL, 0, NULL, 0, ignore_pair, NULL, &err);
    ck_assert_msg(rc == SLU_ECORRUPT, "%s %s", slu_code_name(rc), err.message);
    ck_assert_ptr_nonnull(strstr(err.message, sample_path));
    slu_store_close(s);
}
END_TEST

START_TEST(test_not_writable)
{
    slu_store_close(sample_open());
    if (geteuid()) {
        ck_assert_int_eq(chmod(sample_path, 0555), 0);
    } else {
        ck_assert(!chmod(sample_root, 0755) && !chmod(sample_path, 0555));
        ck_assert_int_eq(seteuid(65534), 0);
    }
    slu_error err = refused(sample_config(), SLU_EIO);
    ck_assert_msg(strstr(err.message, "not writable") != NULL, "%s", err.message);
    ck_assert(getuid() || !seteuid(0));
    chmod(sample_path, 0755);
}
END_TEST

/* A small filesystem runs full in the middle of commits; once there is room again the very same commit goes
 * through. */
START_TEST(test_disk_full)
{
    if (mkdir(sample_path, 0755) || mount("none", sample_path, "tmpfs", 0, "size=2m")) {
        printf("skipped: no small filesystem for this user (%s)\n", strerror(errno));
        return;
    }
    char filler[400], key[20];
    snprintf(filler, sizeof filler, "%s/filler", sample_path);
    slu_store *s = sample_open();
    put_now(s, SLU_FAMILY_META, "a", "1");
    int fd = open(filler, O_CREAT | O_WRONLY, 0600);
    static char block[4096];
    while (write(fd, block, sizeof block) == sizeof block) {
    }
    close(fd);
    slu_commit *c = slu_commit_begin(s);
    static char big[1000];
    for (int i = 0; i < 300; i++) {
        memset(big, 'a' + i % 26, sizeof big);
        snprintf(key, sizeof key, "row %d", i);
        slu_commit_put(c, SLU_FAMILY_ROWS, key, strlen(key), big, sizeof big);
    }
    put(c, SLU_FAMILY_META, "a", "2");
    size_t bytes = slu_commit_bytes(c);
    for (int i = 0; i < 3; i++) {
        slu_error err = SLU_ERROR_INIT;
        int rc = slu_commit_write(c, &err);
        ck_assert_msg(rc == SLU_EIO, "%s %s", slu_code_name(rc), err.message);
        ck_assert_msg(strstr(err.message, "disk is full") != NULL, "%s", err.message);
        ck_assert_uint_eq(slu_commit_bytes(c), bytes);
    }
    slu_cursor *walk; /* whose view the reopening takes away */
    slu_error lost = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_cursor_open(s, SLU_FAMILY_META, &walk, &lost), 0);
    ck_assert_int_eq(unlink(filler), 0);
    sample_write(c);
    ck_assert_int_eq(slu_cursor_next(walk, 1, NULL, NULL, &lost), SLU_EAGAIN);
    slu_cursor_close(walk);
    expect(s, SLU_FAMILY_META, "a", "2");
    snprintf(key, sizeof key, "row %d", 299);
    slu_buf b = SLU_BUF_INIT;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_store_get(s, SLU_FAMILY_ROWS, key, strlen(key), &b, &err), 0);
    slu_buf_free(&b);
    put_now(s, SLU_FAMILY_META, "a", "3");
    slu_store_close(s);
    s = sample_open();
    expect(s, SLU_FAMILY_META, "a", "3");
    slu_store_close(s);
    umount(sample_path);
}
END_TEST

/* ---- walking in pieces ---- */

static void commit_number(slu_store *s, slu_commit *c, uint64_t number)
{
    for (int f = 0; f < SLU_FAMILIES; f++)
        for (uint64_t i = 0; i < 20; i++) {
            char key[40];
            snprintf(key, sizeof key, "k%llu", (unsigned long long)((number * 7 + i * 13) % 50));
            slu_commit_put(c, (slu_family)f, key, strlen(key), &number, sizeof number);
        }
    for (int f = 0; f < SLU_FAMILIES; f++)
        slu_commit_put(c, (slu_family)f, "number", 6, &number, sizeof number);
    (void)s;
    sample_write(c);
}

static bool count_entry(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    uint64_t *n = ctx, stored;
    (void)key, (void)key_len;
    ck_assert_uint_eq(value_len, sizeof stored);
    memcpy(&stored, value, sizeof stored);
    ck_assert_uint_eq(stored, 1); /* of the first commit */
    return ++*n % 3 != 0;
}

START_TEST(test_cursor)
{
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    commit_number(s, c, 1);
    slu_cursor *one, *two;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_cursor_open(s, SLU_FAMILY_ROWS, &one, &err), 0);
    ck_assert_int_eq(slu_cursor_open(s, SLU_FAMILY_ROWS, &two, &err), 0);
    uint64_t seen = 0, n = 2;
    for (int rc = 1; rc; n++) { /* other commits change and add keys meanwhile */
        rc = slu_cursor_next(one, n % 2 ? 100 : 2, count_entry, &seen, &err);
        ck_assert_int_ge(rc, 0);
        commit_number(s, c, n);
    }
    ck_assert_uint_eq(seen, 21);
    slu_cursor_close(one);
    slu_cursor_close(two);
    slu_cursor_close(NULL);
    slu_store_close(s);
}
END_TEST

/* ---- killed at any moment ---- */

static uint64_t number_of(slu_store *s, slu_family f)
{
    slu_buf b = SLU_BUF_INIT;
    slu_error err = SLU_ERROR_INIT;
    uint64_t n = 0;
    int rc = slu_store_get(s, f, "number", 6, &b, &err);
    ck_assert_msg(!rc || rc == SLU_ENOTFOUND, "%s", err.message);
    if (!rc)
        memcpy(&n, b.data, sizeof n);
    slu_buf_free(&b);
    return n;
}

static void keep_committing(int out)
{
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    for (uint64_t n = number_of(s, SLU_FAMILY_META) + 1;; n++) {
        commit_number(s, c, n);
        if (write(out, &n, sizeof n) != sizeof n)
            _exit(1);
    }
}

START_TEST(test_killed)
{
    enum { KILLS = 12 };
    slu_rng rng;
    slu_rng_seed(&rng, sample_seed(7));
    uint64_t promised = 0;
    for (int kill_no = 0; kill_no < KILLS; kill_no++) {
        int pipes[2];
        ck_assert(!pipe(pipes));
        pid_t child = fork();
        if (!child) {
            close(pipes[0]);
            keep_committing(pipes[1]);
        }
        close(pipes[1]);
        /* Two of three are let come to a commit first; the third may be killed while it opens. */
        if (kill_no % 3)
            ck_assert_int_eq(read(pipes[0], &promised, sizeof promised), sizeof promised);
        struct timespec wait = {0, (long)(slu_rng_below(&rng, 120) * 1000000)};
        nanosleep(&wait, NULL);
        kill(child, SIGKILL);
        waitpid(child, NULL, 0);
        for (uint64_t n; read(pipes[0], &n, sizeof n) == sizeof n;)
            promised = n;
        close(pipes[0]);
        slu_store_config config = sample_config();
        config.create = true;
        slu_store *s = sample_open_as(config);
        uint64_t got = number_of(s, SLU_FAMILY_META);
        /* At least what was promised; one more when the kill fell between the write and the promise. */
        ck_assert_msg(got == promised || got == promised + 1, "promised %llu, found %llu",
                      (unsigned long long)promised, (unsigned long long)got);
        for (int f = 0; f < SLU_FAMILIES; f++)
            ck_assert_uint_eq(number_of(s, (slu_family)f), got);
        promised = got;
        slu_store_close(s);
    }
    ck_assert_uint_gt(promised, 0);
    printf("killed %d times, %llu commits\n", KILLS, (unsigned long long)promised);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store");
    TCase *tc = tcase_create("store");
    tcase_add_checked_fixture(tc, sample_setup, sample_teardown);
    tcase_set_timeout(tc, 120);
    tcase_add_test(tc, test_reopen);
    tcase_add_test(tc, test_commit_is_reusable);
    tcase_add_test(tc, test_scan_and_multiget);
    tcase_add_test(tc, test_multiget_many);
    tcase_add_test(tc, test_digest);
    tcase_add_test(tc, test_schema);
    tcase_add_test(tc, test_format);
    tcase_add_test(tc, test_foreign_database);
    tcase_add_loop_test(tc, test_family_is_added, SLU_FAMILY_ORDER, SLU_FAMILIES);
    tcase_add_test(tc, test_missing);
    tcase_add_test(tc, test_second_opener);
    tcase_add_test(tc, test_read_only_beside_writer);
    tcase_add_test(tc, test_checkpoint);
    tcase_add_test(tc, test_corrupt_file);
    tcase_add_test(tc, test_not_writable);
    tcase_add_test(tc, test_disk_full);
    tcase_add_test(tc, test_cursor);
    tcase_add_test(tc, test_killed);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
