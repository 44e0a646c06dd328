#include "store/store_files.h"
#include "base/digest.h"
#include "store/store_mark.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define ROOM_TO_OPEN (1ull << 20) /* free space that opening may need */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && !strcmp(s + n - m, end);
}

void store_look(const char *path, store_view *out)
{
    *out = (store_view){0};
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

void store_list_files(const char *path, const char *end, char *out, size_t size)
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

uint64_t store_files_bytes(const char *path)
{
    store_view view;
    store_look(path, &view);
    return view.bytes;
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

int store_check_directory(const slu_store_config *config, slu_error *err)
{
    store_view view;
    store_look(config->path, &view);
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

/* RocksDB writes while it opens, and does not take a full disk well at that moment (store_options.c). */
int store_check_room(const char *path, slu_error *err)
{
    struct statvfs fs;
    if (statvfs(path, &fs) || (uint64_t)fs.f_bavail * fs.f_frsize >= ROOM_TO_OPEN)
        return 0;
    return slu_fail(err, SLU_EIO, "store %s: the disk is full; free some space", path);
}
