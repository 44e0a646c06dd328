#include "store/backup.h"
#include "base/clock.h"
#include "base/digest.h"
#include "store/backup_files.h"
#include "store/state.h"
#include "store/store_mark.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PATH_BYTES = 4096, LINE_BYTES = 5000 };
static const char UNFINISHED[] = ".unfinished-";

static int failed(slu_error *err, const char *doing, const char *path)
{
    return slu_fail(err, SLU_EIO, "%s %s: %s", doing, path, strerror(errno));
}

/* |name| below |dir|; one that is too long does not exist. */
static void below(char out[PATH_BYTES], const char *dir, const char *name)
{
    if (snprintf(out, PATH_BYTES, "%s/%s", dir, name) >= PATH_BYTES)
        out[0] = 0;
}

static void time_name(char out[32])
{
    time_t now = (time_t)(slu_wall_us(&slu_system_clock) / SLU_SECOND_US);
    struct tm tm;
    gmtime_r(&now, &tm);
    strftime(out, 32, "%Y%m%dT%H%M%SZ", &tm);
}

/* ---- what a store holds, as lines ---- */

static void line(slu_buf *b, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void line(slu_buf *b, const char *format, ...)
{
    char text[LINE_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    slu_put_bytes(b, text, n < (int)sizeof text ? (size_t)n : sizeof text - 1);
    slu_put_u8(b, '\n');
}

static bool offset_line(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    slu_reader r = slu_reader_of(value, value_len);
    line(ctx, "%.*s %" PRIu64, (int)key_len, (const char *)key, slu_get_u64(&r));
    return true;
}

static int facts_of(const char *path, slu_backup *out, slu_buf *text, slu_error *err)
{
    slu_store *s;
    slu_store_config config = {.path = path, .block_cache_bytes = 8 << 20, .read_only = true};
    uint64_t lineage = 0, scorer = 0;
    char when[64];
    int rc = slu_store_open(&config, &s, err);
    if (!rc)
        rc = slu_state_get_u64(s, "~lineage", 0, &lineage, err);
    if (!rc)
        rc = slu_state_get_u64(s, "scorer.version", 0, &scorer, err);
    if (!rc)
        rc = slu_state_get_u64(s, "~version", scorer, &out->version, err);
    out->trainer = lineage != 0;
    if (!rc && !out->version)
        rc = slu_fail(err, SLU_ENOTFOUND, "nothing was committed yet, so there is nothing to back up");
    if (!rc) {
        slu_digest *d = slu_digest_new();
        char schema[33] = "";
        slu_digest_add(d, slu_store_schema(s), strlen(slu_store_schema(s)));
        slu_digest_hex(d, schema);
        slu_digest_free(d);
        line(text, "sluice-backup 1");
        line(text, "program %s", SLU_VERSION);
        line(text, "of %s", out->trainer ? "trainer" : "scorer");
        line(text, "version %" PRIu64, out->version);
        line(text, "made %s", slu_format_time(slu_wall_us(&slu_system_clock), when, sizeof when));
        line(text, "schema %s", schema);
        rc = slu_store_scan(s, SLU_FAMILY_META, "offset/", 7, "offset0", 7, offset_line, text, err);
    }
    slu_store_close(s);
    return rc;
}

/* ---- making one ---- */

static int write_note(const char *dir, const slu_buf *text, slu_error *err)
{
    char name[PATH_BYTES];
    below(name, dir, SLU_BACKUP_FILE);
    int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    int rc = fd < 0 || write(fd, text->data, text->len) != (ssize_t)text->len || fsync(fd)
                 ? failed(err, "cannot write", name)
                 : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

static int note_files(const char *dir, slu_backup *out, slu_buf *text, slu_error *err)
{
    file_entries l;
    char all[33];
    int rc = files_list(dir, &l, err);
    for (size_t i = 0; i < l.n && !rc; i++) {
        rc = files_hash(dir, &l.v[i], NULL, true, err);
        line(text, "file %s %" PRIu64 " %s", l.v[i].name, l.v[i].bytes, l.v[i].digest);
        out->bytes += l.v[i].bytes;
        out->files++;
    }
    files_free(&l);
    slu_digest *d = slu_digest_new();
    slu_digest_add(d, text->data, text->len);
    slu_digest_hex(d, all);
    slu_digest_free(d);
    line(text, "end %s", all);
    return rc;
}

/* Left by makers that died. One that lives holds a lock on |dir|. */
static void sweep(const char *dir)
{
    file_entries l;
    if (files_list(dir, &l, NULL))
        return;
    for (size_t i = 0; i < l.n; i++) {
        char path[PATH_BYTES];
        below(path, dir, l.v[i].name);
        if (!strncmp(l.v[i].name, UNFINISHED, strlen(UNFINISHED)))
            files_remove_dir(path, NULL);
    }
    files_free(&l);
}

static int finish(const char *dir, const char *making, slu_backup *out, slu_error *err)
{
    char when[32], name[100];
    time_name(when);
    snprintf(name, sizeof name, "v%012" PRIu64 "-%s", out->version, when);
    for (int i = 2; below(out->path, dir, name), !access(out->path, F_OK); i++)
        snprintf(name, sizeof name, "v%012" PRIu64 "-%s-%d", out->version, when, i);
    int rc = files_sync_dir(making, err);
    if (!rc && rename(making, out->path))
        rc = failed(err, "cannot name", out->path);
    return rc ? rc : files_sync_dir(dir, err);
}

static int make_in(slu_store *s, const char *dir, slu_backup *out, slu_error *err)
{
    char making[PATH_BYTES], name[64];
    slu_buf text = SLU_BUF_INIT;
    snprintf(name, sizeof name, "%s%ld", UNFINISHED, (long)getpid());
    below(making, dir, name);
    sweep(dir);
    int rc = slu_store_checkpoint(s, making, err);
    if (!rc)
        rc = facts_of(making, out, &text, err);
    if (!rc)
        rc = note_files(making, out, &text, err);
    if (!rc)
        rc = write_note(making, &text, err);
    if (!rc)
        rc = finish(dir, making, out, err);
    if (rc)
        files_remove_dir(making, NULL);
    slu_buf_free(&text);
    return rc;
}

int slu_backup_make(slu_store *s, const char *dir, slu_backup *out, slu_error *err)
{
    *out = (slu_backup){.version = 0};
    int rc = files_make_dirs(dir, err);
    if (rc)
        return rc;
    int lock = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (lock < 0)
        return failed(err, "cannot open", dir);
    if (flock(lock, LOCK_EX | LOCK_NB))
        rc = slu_fail(err, SLU_EAGAIN, "another backup is being made in %s; try again when it is done", dir);
    else
        rc = make_in(s, dir, out, err);
    close(lock);
    return rc;
}

int slu_backup_prune(const char *dir, uint32_t keep, slu_error *err)
{
    file_entries l;
    uint32_t n = 0;
    int rc = files_list(dir, &l, err);
    /* By name is by version, and a trainer that was rolled back makes lower ones again: by time. */
    for (size_t i = 0; i < l.n; i++) {
        char note[PATH_BYTES], path[PATH_BYTES];
        struct stat st;
        below(path, dir, l.v[i].name);
        below(note, path, SLU_BACKUP_FILE);
        l.v[i].bytes = l.v[i].name[0] == 'v' && !stat(note, &st)
                           ? (uint64_t)st.st_mtim.tv_sec * 1000000000u + (uint64_t)st.st_mtim.tv_nsec
                           : 0;
        n += l.v[i].bytes != 0;
    }
    for (; n > keep && !rc; n--) {
        size_t oldest = SIZE_MAX;
        char path[PATH_BYTES], note[PATH_BYTES];
        for (size_t i = 0; i < l.n; i++)
            if (l.v[i].bytes && (oldest == SIZE_MAX || l.v[i].bytes < l.v[oldest].bytes))
                oldest = i;
        below(path, dir, l.v[oldest].name);
        below(note, path, SLU_BACKUP_FILE);
        l.v[oldest].bytes = 0;
        rc = unlink(note) ? failed(err, "cannot remove", note) : files_remove_dir(path, err);
    }
    files_free(&l);
    return rc;
}

/* ---- checking ---- */

static int read_note(const char *path, char **text, slu_error *err)
{
    char name[PATH_BYTES];
    struct stat st;
    below(name, path, SLU_BACKUP_FILE);
    *text = NULL;
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT
                   ? slu_fail(err, SLU_ENOTFOUND, "%s is no backup: it has no file " SLU_BACKUP_FILE, path)
                   : failed(err, "cannot open", name);
    ssize_t n = fstat(fd, &st) ? -1 : st.st_size;
    *text = n < 0 ? NULL : calloc(1, (size_t)n + 1);
    int rc = !*text || read(fd, *text, (size_t)n) != n ? failed(err, "cannot read", name) : 0;
    close(fd);
    return rc;
}

static int damaged_note(const char *path, slu_error *err)
{
    return slu_fail(err, SLU_ECORRUPT, "%s/" SLU_BACKUP_FILE " is damaged; use another backup", path);
}

/* The last line seals those before it. It is a checksum, not a signature: what the lines say is not trusted.
 */
static int check_seal(const char *path, const char *text, slu_error *err)
{
    const char *end = strstr(text, "\nend ");
    char want[33] = "", got[33] = "";
    if (end && sscanf(end, "\nend %32s", want) == 1) {
        slu_digest *d = slu_digest_new();
        slu_digest_add(d, text, (size_t)(end + 1 - text));
        slu_digest_hex(d, got);
        slu_digest_free(d);
    }
    if (!end || strcmp(want, got) || strcmp(end + 5 + strlen(want), "\n"))
        return damaged_note(path, err);
    return strncmp(text, "sluice-backup 1\n", 16)
               ? slu_fail(err, SLU_EFORMAT, "%s is a backup of a form that this version does not know", path)
               : 0;
}

/* Files lie in the folder itself, each once, by name: |last| is the one before. */
static int check_file(const char *path, const char *fields, const char *to, char last[256], slu_error *err)
{
    file_entry e = {.bytes = 0};
    uint64_t bytes;
    char digest[33];
    if (sscanf(fields, "%255s %" SCNu64 " %32s", e.name, &bytes, digest) != 3 || strchr(e.name, '/') ||
        e.name[0] == '.' || !strcmp(e.name, SLU_BACKUP_FILE) || strcmp(e.name, last) <= 0)
        return damaged_note(path, err);
    strcpy(last, e.name);
    int rc = files_hash(path, &e, to, to != NULL, err);
    if (rc)
        return rc;
    if (e.bytes != bytes)
        return slu_fail(err, SLU_ECORRUPT,
                        "%s/%s has %" PRIu64 " bytes, but %" PRIu64 " were written; use another backup", path,
                        e.name, e.bytes, bytes);
    return strcmp(e.digest, digest)
               ? slu_fail(err, SLU_ECORRUPT, "%s/%s is damaged (its hash differs); use another backup", path,
                          e.name)
               : 0;
}

/* Reads, or with |to| copies, all files and compares them with the note. */
static int go_through(const char *path, const char *to, slu_backup *out, slu_error *err)
{
    char *text, *save = NULL, last[256] = "";
    slu_backup b = {.version = 0}; /* |path| may lie in |out| */
    snprintf(b.path, sizeof b.path, "%s", path);
    int rc = read_note(path, &text, err);
    if (!rc)
        rc = check_seal(path, text, err);
    for (char *l = rc ? NULL : strtok_r(text, "\n", &save); l && !rc; l = strtok_r(NULL, "\n", &save)) {
        uint64_t bytes;
        if (!strncmp(l, "file ", 5)) {
            rc = check_file(path, l + 5, to, last, err);
            b.bytes += sscanf(l, "file %*s %" SCNu64, &bytes) == 1 ? bytes : 0;
            b.files++;
        }
        sscanf(l, "version %" SCNu64, &b.version);
        b.trainer |= !strcmp(l, "of trainer");
    }
    free(text);
    *out = b;
    return rc;
}

int slu_backup_check(const char *path, slu_backup *out, slu_error *err)
{
    file_entries l = {0};
    int rc = go_through(path, NULL, out, err);
    path = out->path;
    if (!rc)
        rc = files_list(path, &l, err);
    if (!rc && l.n != out->files + 1)
        rc = slu_fail(err, SLU_ECORRUPT,
                      "%s holds %zu files, but %" PRIu64
                      " were written: something was added; use another backup",
                      path, l.n - 1, out->files);
    files_free(&l);
    return rc;
}

/* ---- putting one back ---- */

/* From here on its versions differ from those that were published under the same numbers. */
static int new_lineage(const char *path, slu_error *err)
{
    slu_store *s;
    uint64_t lineage = 0;
    slu_store_config config = {.path = path, .block_cache_bytes = 8 << 20, .sync = true};
    int rc = slu_store_open(&config, &s, err);
    if (!rc)
        rc = slu_state_get_u64(s, "~lineage", 0, &lineage, err);
    if (!rc && lineage) {
        if (getrandom(&lineage, sizeof lineage, 0) != sizeof lineage)
            lineage = (uint64_t)slu_wall_us(&slu_system_clock);
        slu_commit *c = slu_commit_begin(s);
        slu_state_put_u64(c, "~lineage", lineage | 1);
        rc = slu_commit_write(c, err);
        slu_commit_abandon(c);
    }
    slu_store_close(s);
    return rc;
}

/* Moves what is at |store| out of the way. |lock| keeps writers out of it meanwhile. */
static int move_aside(const char *store, bool replace, slu_mark_file **lock, char aside[4096], slu_error *err)
{
    char when[32];
    DIR *d;
    aside[0] = 0;
    if (access(store, F_OK))
        return 0;
    if (rmdir(store) == 0) /* an empty folder is no store */
        return 0;
    if (!(d = opendir(store)))
        return failed(err, "cannot look into", store);
    closedir(d);
    if (slu_store_in_use(store))
        return slu_fail(err, SLU_EINVAL, "store %s is in use: stop its trainer or scorer first", store);
    if (slu_mark_open(store, false, lock, err) == SLU_EAGAIN)
        return slu_fail(err, SLU_EINVAL, "store %s is in use: stop its trainer or scorer first", store);
    if (!replace)
        return slu_fail(
            err, SLU_EINVAL,
            "there is something at %s already; --replace keeps it beside and puts the backup there", store);
    time_name(when);
    snprintf(aside, 4096, "%.4000s.before-%s", store, when);
    return rename(store, aside) ? failed(err, "cannot move aside", store) : 0;
}

static void parent_of(const char *path, char out[PATH_BYTES])
{
    snprintf(out, PATH_BYTES, "%s", path);
    char *slash = strrchr(out, '/');
    if (!slash)
        snprintf(out, PATH_BYTES, ".");
    else
        slash[slash == out] = 0;
}

static int move_in(const char *making, const char *store, bool replace, char aside[4096], slu_error *err)
{
    char parent[PATH_BYTES];
    slu_mark_file *lock = NULL;
    parent_of(store, parent);
    int rc = move_aside(store, replace, &lock, aside, err);
    if (!rc && rename(making, store)) {
        rc = failed(err, "cannot name", store);
        if (aside[0])
            rename(aside, store);
    }
    slu_mark_close(lock);
    return rc ? rc : files_sync_dir(parent, err);
}

int slu_backup_restore(const char *backup, const char *store, bool replace, bool hold, char aside[4096],
                       slu_error *err)
{
    char making[PATH_BYTES], parent[PATH_BYTES], path[PATH_BYTES];
    slu_backup b;
    snprintf(path, sizeof path, "%s", store);
    for (size_t n = strlen(path); n > 1 && path[n - 1] == '/'; n--)
        path[n - 1] = 0;
    parent_of(path, parent);
    snprintf(making, sizeof making, "%.4000s.restoring-%ld", path, (long)getpid());
    aside[0] = 0;
    if (!access(path, F_OK) && !replace && rmdir(path)) /* before an hour of copying */
        return slu_fail(
            err, SLU_EINVAL,
            "there is something at %s already; --replace keeps it beside and puts the backup there", path);
    int rc = slu_backup_check(backup, &b, err);
    if (!rc)
        rc = files_make_dirs(making, err);
    if (!rc)
        rc = go_through(backup, making, &b, err);
    if (!rc)
        rc = new_lineage(making, err);
    if (!rc && hold)
        rc = slu_hold(making, true, err);
    if (!rc)
        rc = files_sync_dir(making, err);
    if (!rc)
        rc = move_in(making, path, replace, aside, err);
    if (rc)
        files_remove_dir(making, NULL);
    return rc;
}

int slu_hold(const char *store, bool on, slu_error *err)
{
    char name[PATH_BYTES];
    below(name, store, SLU_HOLD_FILE);
    if (on) {
        int fd = open(name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
        if (fd < 0)
            return failed(err, "cannot make", name);
        close(fd);
    } else if (unlink(name) && errno != ENOENT) {
        return failed(err, "cannot remove", name);
    }
    return files_sync_dir(store, err);
}

bool slu_is_held(const char *store)
{
    char name[PATH_BYTES];
    below(name, store, SLU_HOLD_FILE);
    return !access(name, F_OK);
}
