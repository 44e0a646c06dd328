#include "store/backup_files.h"
#include "base/digest.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 20, PATH_BYTES = 4400 };

static int failed(slu_error *err, const char *doing, const char *path)
{
    const char *remedy = errno == ENOSPC || errno == EDQUOT  ? "; the disk is full: free some space"
                         : errno == EACCES || errno == EROFS ? "; not writable for this user"
                                                             : "";
    return slu_fail(err, SLU_EIO, "%s %s: %s%s", doing, path, strerror(errno), remedy);
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const file_entry *)a)->name, ((const file_entry *)b)->name);
}

int files_list(const char *dir, file_entries *out, slu_error *err)
{
    *out = (file_entries){0};
    size_t cap = 0;
    DIR *d = opendir(dir);
    if (!d)
        return failed(err, "cannot list", dir);
    errno = 0;
    for (struct dirent *e; (e = readdir(d)); errno = 0) {
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        if (out->n == cap) {
            cap = cap ? 2 * cap : 64;
            file_entry *more = reallocarray(out->v, cap, sizeof *more);
            if (!more) {
                closedir(d);
                files_free(out);
                return slu_fail(err, SLU_ENOMEM, "out of memory for the files of %s", dir);
            }
            out->v = more;
        }
        out->v[out->n] = (file_entry){.bytes = 0};
        snprintf(out->v[out->n++].name, sizeof out->v->name, "%s", e->d_name);
    }
    int rc = errno ? failed(err, "cannot list", dir) : 0;
    closedir(d);
    if (out->n)
        qsort(out->v, out->n, sizeof *out->v, by_name);
    return rc;
}

void files_free(file_entries *l)
{
    free(l->v);
    *l = (file_entries){0};
}

static int write_all(int fd, const char *p, size_t n)
{
    while (n) {
        ssize_t done = write(fd, p, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return -1;
        p += done;
        n -= (size_t)done;
    }
    return 0;
}

static int pass_on(int in, int out, const char *from, const char *to, file_entry *e, slu_digest *d,
                   slu_error *err)
{
    char *piece = malloc(PIECE);
    int rc = piece ? 0 : slu_fail(err, SLU_ENOMEM, "out of memory for %s", from);
    for (ssize_t n; !rc && (n = read(in, piece, PIECE)) != 0;) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            rc = failed(err, "cannot read", from);
        } else {
            slu_digest_add(d, piece, (size_t)n);
            e->bytes += (uint64_t)n;
            if (out >= 0 && write_all(out, piece, (size_t)n))
                rc = failed(err, "cannot write", to);
        }
    }
    free(piece);
    return rc;
}

int files_hash(const char *dir, file_entry *e, const char *to, bool sync, slu_error *err)
{
    char from[PATH_BYTES], copy[PATH_BYTES] = "";
    snprintf(from, sizeof from, "%s/%s", dir, e->name);
    int in = open(from, O_RDONLY | O_CLOEXEC), out = -1, rc = 0;
    if (in < 0)
        return failed(err, "cannot open", from);
    if (to) {
        snprintf(copy, sizeof copy, "%s/%s", to, e->name);
        out = open(copy, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
        rc = out < 0 ? failed(err, "cannot make", copy) : 0;
    }
    slu_digest *d = slu_digest_new();
    e->bytes = 0;
    if (!rc)
        rc = d ? pass_on(in, out, from, copy, e, d, err) : slu_fail(err, SLU_ENOMEM, "out of memory");
    if (!rc)
        slu_digest_hex(d, e->digest);
    if (!rc && sync && fsync(out >= 0 ? out : in))
        rc = failed(err, "cannot sync", out >= 0 ? copy : from);
    if (out >= 0 && close(out) && !rc)
        rc = failed(err, "cannot close", copy);
    close(in);
    slu_digest_free(d);
    return rc;
}

int files_sync_dir(const char *dir, slu_error *err)
{
    int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = fd < 0 || fsync(fd) ? failed(err, "cannot sync", dir) : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

int files_remove_dir(const char *dir, slu_error *err)
{
    file_entries l;
    int rc = files_list(dir, &l, err);
    for (size_t i = 0; i < l.n && !rc; i++) {
        char name[PATH_BYTES];
        snprintf(name, sizeof name, "%s/%s", dir, l.v[i].name);
        if (unlink(name))
            rc = failed(err, "cannot remove", name);
    }
    files_free(&l);
    return rc ? rc : rmdir(dir) ? failed(err, "cannot remove", dir) : 0;
}

int files_make_dirs(const char *dir, slu_error *err)
{
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s", dir);
    for (char *p = path + 1;; p++) {
        char keep = *p;
        if (keep && keep != '/')
            continue;
        *p = 0;
        if (mkdir(path, 0755) && errno != EEXIST)
            return failed(err, "cannot make", path);
        *p = keep;
        if (!keep)
            return 0;
    }
}
