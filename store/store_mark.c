#include "store/store_mark.h"
#include "base/digest.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SLOT_BYTES = 256, SLOTS = 2 };

struct slu_mark_file {
    char *name;
    int fd;
    uint64_t turn; /* of the last slot written; the higher one counts */
    uint64_t inode;
};

static int file_name(const char *store, char out[4096])
{
    return snprintf(out, 4096, "%s/%s", store, SLU_MARK_FILE) < 4096 ? 0 : -1;
}

/* The name begins with the store's path. */
static int io_error(slu_error *err, const char *name, const char *doing)
{
    bool refused = errno == EACCES || errno == EPERM || errno == EROFS;
    return slu_fail(err, SLU_EIO, "%s: %s: %s%s", name, doing, refused ? "not writable for this user: " : "",
                    strerror(errno));
}

/* ---- one slot ---- */

static void print_slot(char out[SLOT_BYTES], const slu_mark *m, uint64_t turn, uint64_t inode)
{
    memset(out, ' ', SLOT_BYTES);
    int n = snprintf(out, SLOT_BYTES,
                     "sluice-store 1 turn=%" PRIu64 " store=%016" PRIx64 " commits=%" PRIu64
                     " manifest=%" PRIu64 ":%" PRIu64 " inode=%" PRIu64 " closed=%d",
                     turn, m->store, m->commits, m->manifest, m->manifest_size, inode, m->closed);
    uint64_t check = slu_hash64(out, (size_t)n, 0);
    n += snprintf(out + n, SLOT_BYTES - (size_t)n, " check=%016" PRIx64, check);
    memset(out + n, ' ', (size_t)(SLOT_BYTES - n));
    out[SLOT_BYTES - 1] = '\n';
}

static bool parse_slot(const char slot[SLOT_BYTES], slu_mark *m, uint64_t *turn, uint64_t *inode)
{
    char text[SLOT_BYTES + 1];
    uint64_t check;
    int closed, end = 0, n = 0;
    memcpy(text, slot, SLOT_BYTES);
    text[SLOT_BYTES] = 0;
    int fields = sscanf(text,
                        "sluice-store 1 turn=%" SCNu64 " store=%" SCNx64 " commits=%" SCNu64
                        " manifest=%" SCNu64 ":%" SCNu64 " inode=%" SCNu64 " closed=%d%n",
                        turn, &m->store, &m->commits, &m->manifest, &m->manifest_size, inode, &closed, &n);
    if (fields != 7 || sscanf(text + n, " check=%" SCNx64 "%n", &check, &end) != 1 || !end)
        return false;
    m->closed = closed == 1;
    return check == slu_hash64(text, (size_t)n, 0);
}

/* ---- reading ---- */

static int read_slots(int fd, const char *name, slu_mark *out, uint64_t *turn, uint64_t *inode,
                      slu_error *err)
{
    char slots[SLOTS * SLOT_BYTES] = {0};
    ssize_t n = pread(fd, slots, sizeof slots, 0);
    bool any = false;
    if (n < 0)
        return io_error(err, name, "reading");
    if (n < SLOT_BYTES) /* made, but its maker died before the first note */
        return SLU_ENOTFOUND;
    for (int i = 0; i < SLOTS; i++) {
        slu_mark m;
        uint64_t t, ino;
        if (!parse_slot(slots + i * SLOT_BYTES, &m, &t, &ino) || (any && t < *turn))
            continue;
        any = true;
        *out = m;
        *turn = t;
        *inode = ino;
    }
    return any ? 0
               : slu_fail(err, SLU_ECORRUPT,
                          "%s: is damaged, so nothing tells whether the store is whole; restore a backup, or "
                          "remove this file if sluice-store verify finds nothing",
                          name);
}

int slu_mark_read(const char *store, slu_mark *out, bool *copied, slu_error *err)
{
    char name[4096];
    struct stat st;
    uint64_t turn, inode = 0;
    if (file_name(store, name))
        return slu_fail(err, SLU_EIO, "%s: the path is too long", store);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT ? SLU_ENOTFOUND : io_error(err, name, "opening");
    int rc =
        fstat(fd, &st) ? io_error(err, name, "looking at it") : read_slots(fd, name, out, &turn, &inode, err);
    close(fd);
    *copied = !rc && (uint64_t)st.st_ino != inode;
    return rc;
}

/* ---- writing ---- */

int slu_mark_open(const char *store, bool create, slu_mark_file **fp, slu_error *err)
{
    char name[4096];
    struct stat st;
    *fp = NULL;
    if (file_name(store, name))
        return slu_fail(err, SLU_EIO, "%s: the path is too long", store);
    int fd = open(name, O_RDWR | O_CLOEXEC | (create ? O_CREAT : 0), 0644);
    if (fd < 0)
        return errno == ENOENT ? SLU_ENOTFOUND : io_error(err, name, "opening");
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(fd, F_OFD_SETLK, &lock)) {
        close(fd);
        return SLU_EAGAIN;
    }
    slu_mark_file *f = calloc(1, sizeof *f);
    if (!f || !(f->name = strdup(name)) || fstat(fd, &st)) {
        free(f);
        close(fd);
        return slu_fail(err, SLU_ENOMEM, "%s: out of memory", name);
    }
    slu_mark old;
    uint64_t inode;
    f->fd = fd;
    f->inode = (uint64_t)st.st_ino;
    if (read_slots(fd, name, &old, &f->turn, &inode, NULL))
        f->turn = 0;
    *fp = f;
    return 0;
}

int slu_mark_write(slu_mark_file *f, const slu_mark *m, bool sync, slu_error *err)
{
    char slot[SLOT_BYTES];
    print_slot(slot, m, ++f->turn, f->inode);
    ssize_t n = pwrite(f->fd, slot, sizeof slot, (off_t)(f->turn % SLOTS * SLOT_BYTES));
    if (n != (ssize_t)sizeof slot) {
        if (n >= 0)
            errno = ENOSPC;
        return io_error(err, f->name, "writing");
    }
    return sync && fdatasync(f->fd) ? io_error(err, f->name, "syncing") : 0;
}

void slu_mark_close(slu_mark_file *f)
{
    if (!f)
        return;
    close(f->fd);
    free(f->name);
    free(f);
}

void slu_mark_manifest(const char *store, uint64_t *number, uint64_t *size)
{
    char name[4200], text[64] = "";
    struct stat st;
    *number = *size = 0;
    snprintf(name, sizeof name, "%s/CURRENT", store);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    if (n <= 0 || sscanf(text, "MANIFEST-%" SCNu64, number) != 1)
        return;
    text[strcspn(text, "\n")] = 0;
    snprintf(name, sizeof name, "%s/%s", store, text);
    if (stat(name, &st))
        *number = 0;
    else
        *size = (uint64_t)st.st_size;
}
