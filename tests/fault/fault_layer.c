/* tests/fault/fault_layer.c - libslu_fault.so, for LD_PRELOAD: a disk that misbehaves on command. It stands
 * between a program (with RocksDB in it) and libc's file calls, and makes those that match a rule fail, tear,
 * lie, wait, or kill the process.
 *
 *   SLU_FAULT="op:glob:nth:action[;...]"   rules
 *   SLU_FAULT_FILE=FILE     more rules, one per line (# comments); read again whenever the file changes, so a
 *                           disk can be full for a while: write the rules, later truncate or remove the file.
 *                           A change starts the counting of these rules anew. Replace it by rename
 *   SLU_FAULT_LOG=FILE      a line for every call on which a rule acted:
 *                           "action op nth bytes path [path2] pid=N"
 *   SLU_FAULT_PROGRAM=GLOB  act only in programs of that name, so a whole script can be started with the
 * layer SLU_FAULT_SEED=N        for flip, torn and ~N
 *
 * op      open read write sync rename unlink truncate allocate mkdir link list close, several as a|b, or *.
 *         sync is fsync, fdatasync, also of directories (path = the directory).
 * glob    fnmatch; against the whole path as the program named it when there is a / in it, else against the
 *         last part. '*' also matches '/'. A file stays known by the name it was opened with. Renames and
 *         links match by either name.
 * nth     N the Nth matching call of this process, N+ from the Nth on, N-M, * all, ~N one of N by chance
 * action  log          only write the log: how tests learn which points there are (rule "*:glob:*:log")
 *         kill         SIGKILL before the call          kill-after  SIGKILL after it
 *         enospc eio erofs eacces                       the call fails so and does nothing
 *         short        write: part is written, then ENOSPC; read: fewer bytes come
 *         torn         write: part is written, then SIGKILL; other calls: like kill
 *         flip         one bit of what is read or written is turned over
 *         delay=MS     waits, then goes on (also to further rules)
 *         powercut     what was never synced is taken back (fault_power.c), then SIGKILL
 * Every rule counts for itself; of several that act on one call the first wins, log and delay aside.
 *
 * Examples: "sync:*.log:3:eio" (the third fsync of a write-ahead log fails), "write:*.sst:100+:enospc",
 * "rename:*:*:log;*:*.sst:*:log".
 *
 * Covered: open, creat, fopen and relatives; read, pread, readv, fread; write, pwrite, writev, fwrite, fputs;
 * fsync, fdatasync; rename, unlink, truncate, fallocate, mkdir, link, opendir, close. Not
 * covered: mmap (RocksDB as we set it up does not use it for files), sync_file_range (it makes nothing
 * durable), copy_file_range, sendfile, aio, and descriptors made by dup. Sockets and pipes pass. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include "fault_rules.h"
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* Macros in some headers. */
#undef fread_unlocked
#undef fwrite_unlocked

#define EXPORT    __attribute__((visibility("default")))
#define REAL(f)   ((__typeof__(&f))real_of(#f))
#define PATH_SIZE 512

enum {
    MAX_FDS = 65536,
    STREAM_ERROR = 0x20, /* glibc's _IO_ERR_SEEN, what ferror() looks at */
};

static _Atomic(char *) names[MAX_FDS];

static void *real_of(const char *name)
{
    void *p = dlsym(RTLD_NEXT, name);
    if (!p) {
        fprintf(stderr, "libslu_fault: libc has no %s\n", name);
        _exit(99);
    }
    return p;
}

static const char *name_of(int fd)
{
    return fd >= 0 && fd < MAX_FDS ? atomic_load(&names[fd]) : NULL;
}

static void set_name(int fd, const char *path)
{
    if (fd >= 0 && fd < MAX_FDS)
        free(atomic_exchange(&names[fd], path ? strdup(path) : NULL));
}

/* Errors, and torn where there is nothing to tear. True: the call is over, errno is set. */
static bool fails(fault_verdict v)
{
    if (v.action == FAULT_TORN)
        fault_die();
    int e = v.action == FAULT_SHORT ? 0 : fault_errno(v.action);
    if (e)
        errno = e;
    return e != 0;
}

static void after(fault_verdict v)
{
    if (v.action == FAULT_KILL_AFTER)
        fault_die();
}

/* ---- opening and closing ---- */

static const char *join(int dir, const char *path, char out[PATH_SIZE])
{
    const char *base = dir == AT_FDCWD || *path == '/' ? NULL : name_of(dir);
    if (!base)
        return path;
    snprintf(out, PATH_SIZE, "%s/%s", base, path);
    return out;
}

static int open_any(int dir, const char *path, int flags, mode_t mode)
{
    char buffer[PATH_SIZE];
    const char *full = join(dir, path, buffer);
    fault_verdict v = fault_decide(FAULT_OPEN, full, NULL, 0);
    if (fails(v))
        return -1;
    bool writes = (flags & O_ACCMODE) != O_RDONLY && fault_power_wanted();
    bool existed = writes && !syscall(SYS_faccessat, dir, path, F_OK);
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    if (fd >= 0) {
        set_name(fd, full);
        if (writes)
            fault_power_opened(full, existed, flags & O_TRUNC);
    }
    after(v);
    return fd;
}

#define MODE(flags)                                                                                          \
    mode_t mode = 0;                                                                                         \
    if ((flags)&O_CREAT || ((flags)&O_TMPFILE) == O_TMPFILE) {                                               \
        va_list args;                                                                                        \
        va_start(args, flags);                                                                               \
        mode = va_arg(args, mode_t);                                                                         \
        va_end(args);                                                                                        \
    }

EXPORT int open(const char *path, int flags, ...)
{
    MODE(flags)
    return open_any(AT_FDCWD, path, flags, mode);
}
EXPORT int open64(const char *path, int flags, ...)
{
    MODE(flags)
    return open_any(AT_FDCWD, path, flags, mode);
}
EXPORT int openat(int dir, const char *path, int flags, ...)
{
    MODE(flags)
    return open_any(dir, path, flags, mode);
}
EXPORT int openat64(int dir, const char *path, int flags, ...)
{
    MODE(flags)
    return open_any(dir, path, flags, mode);
}
EXPORT int creat(const char *path, mode_t mode)
{
    return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
EXPORT int creat64(const char *path, mode_t mode)
{
    return open_any(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode);
}
int __open_2(const char *path, int flags);
int __open64_2(const char *path, int flags);
int __openat_2(int dir, const char *path, int flags);
int __openat64_2(int dir, const char *path, int flags);
EXPORT int __open_2(const char *path, int flags)
{
    return open_any(AT_FDCWD, path, flags, 0);
}
EXPORT int __open64_2(const char *path, int flags)
{
    return open_any(AT_FDCWD, path, flags, 0);
}
EXPORT int __openat_2(int dir, const char *path, int flags)
{
    return open_any(dir, path, flags, 0);
}
EXPORT int __openat64_2(int dir, const char *path, int flags)
{
    return open_any(dir, path, flags, 0);
}

static FILE *fopen_any(FILE *(*real)(const char *, const char *), const char *path, const char *mode)
{
    fault_verdict v = fault_decide(FAULT_OPEN, path, NULL, 0);
    if (fails(v))
        return NULL;
    bool writes = strpbrk(mode, "wa+") && fault_power_wanted(), existed = writes && !access(path, F_OK);
    FILE *f = real(path, mode);
    if (f) {
        set_name(fileno(f), path);
        if (writes)
            fault_power_opened(path, existed, *mode == 'w');
    }
    after(v);
    return f;
}
EXPORT FILE *fopen(const char *path, const char *mode)
{
    return fopen_any(REAL(fopen), path, mode);
}
EXPORT FILE *fopen64(const char *path, const char *mode)
{
    return fopen_any(REAL(fopen64), path, mode);
}

EXPORT int close(int fd)
{
    const char *name = name_of(fd);
    if (!name)
        return (int)syscall(SYS_close, fd);
    fault_verdict v = fault_decide(FAULT_CLOSE, name, NULL, 0);
    set_name(fd, NULL);
    int rc = (int)syscall(SYS_close, fd); /* as Linux does: closed, whatever the error */
    after(v);
    return fails(v) ? -1 : rc;
}
EXPORT int fclose(FILE *f)
{
    int fd = fileno(f);
    fault_verdict v = {.action = FAULT_NONE};
    if (name_of(fd))
        v = fault_decide(FAULT_CLOSE, name_of(fd), NULL, 0);
    set_name(fd, NULL);
    int rc = REAL(fclose)(f);
    after(v);
    return fails(v) ? EOF : rc;
}
EXPORT DIR *opendir(const char *path)
{
    fault_verdict v = fault_decide(FAULT_LIST, path, NULL, 0);
    if (fails(v))
        return NULL;
    DIR *d = REAL(opendir)(path);
    after(v);
    return d;
}

/* ---- reading ---- */

static void turn_a_bit(void *p, size_t n, uint64_t random)
{
    if (n)
        ((unsigned char *)p)[random % n] ^= (unsigned char)(1u << (random >> 32) % 8);
}

static ssize_t read_any(int fd, void *p, size_t n, off_t at, bool has_at)
{
    const char *name = name_of(fd);
    fault_verdict v = {.action = FAULT_NONE};
    if (name)
        v = fault_decide(FAULT_READ, name, NULL, n);
    if (fails(v))
        return -1;
    if (v.action == FAULT_SHORT && n > 1)
        n = 1 + v.random % (n - 1);
    ssize_t got = has_at ? syscall(SYS_pread64, fd, p, n, at) : syscall(SYS_read, fd, p, n);
    if (v.action == FAULT_FLIP && got > 0)
        turn_a_bit(p, (size_t)got, v.random);
    after(v);
    return got;
}
EXPORT ssize_t read(int fd, void *p, size_t n)
{
    return read_any(fd, p, n, 0, false);
}
EXPORT ssize_t pread(int fd, void *p, size_t n, off_t at)
{
    return read_any(fd, p, n, at, true);
}
EXPORT ssize_t pread64(int fd, void *p, size_t n, off64_t at)
{
    return read_any(fd, p, n, at, true);
}
ssize_t __read_chk(int fd, void *p, size_t n, size_t size);
ssize_t __pread_chk(int fd, void *p, size_t n, off_t at, size_t size);
ssize_t __pread64_chk(int fd, void *p, size_t n, off64_t at, size_t size);
EXPORT ssize_t __read_chk(int fd, void *p, size_t n, size_t size)
{
    return n > size ? (abort(), -1) : read_any(fd, p, n, 0, false);
}
EXPORT ssize_t __pread_chk(int fd, void *p, size_t n, off_t at, size_t size)
{
    return n > size ? (abort(), -1) : read_any(fd, p, n, at, true);
}
EXPORT ssize_t __pread64_chk(int fd, void *p, size_t n, off64_t at, size_t size)
{
    return n > size ? (abort(), -1) : read_any(fd, p, n, at, true);
}
/* Into the first piece only: a legal short read. */
EXPORT ssize_t readv(int fd, const struct iovec *v, int n)
{
    if (!name_of(fd))
        return syscall(SYS_readv, fd, v, n);
    return n > 0 ? read_any(fd, v[0].iov_base, v[0].iov_len, 0, false) : 0;
}

typedef size_t fread_fn(void *p, size_t size, size_t n, FILE *f);

static size_t fread_any(fread_fn *real, void *p, size_t size, size_t n, FILE *f)
{
    const char *name = name_of(fileno(f));
    fault_verdict v = {.action = FAULT_NONE};
    if (name)
        v = fault_decide(FAULT_READ, name, NULL, size * n);
    if (fails(v)) {
        f->_flags |= STREAM_ERROR;
        return 0;
    }
    if (v.action == FAULT_SHORT && n > 1)
        n = 1 + v.random % (n - 1);
    size_t got = real(p, size, n, f);
    if (v.action == FAULT_FLIP)
        turn_a_bit(p, got * size, v.random);
    after(v);
    return got;
}
EXPORT size_t fread(void *p, size_t size, size_t n, FILE *f)
{
    return fread_any(REAL(fread), p, size, n, f);
}
EXPORT size_t fread_unlocked(void *p, size_t size, size_t n, FILE *f)
{
    return fread_any(REAL(fread_unlocked), p, size, n, f);
}

/* ---- writing ---- */

static ssize_t put(int fd, const void *p, size_t n, off_t at, bool has_at)
{
    return has_at ? syscall(SYS_pwrite64, fd, p, n, at) : syscall(SYS_write, fd, p, n);
}

static ssize_t write_turned(int fd, const void *p, size_t n, off_t at, bool has_at, uint64_t random)
{
    void *copy = malloc(n ? n : 1);
    if (!copy)
        fault_die();
    memcpy(copy, p, n);
    turn_a_bit(copy, n, random);
    ssize_t put_n = put(fd, copy, n, at, has_at);
    free(copy);
    return put_n;
}

static ssize_t write_any(int fd, const void *p, size_t n, off_t at, bool has_at)
{
    const char *name = name_of(fd);
    fault_verdict v = {.action = FAULT_NONE};
    if (name)
        v = fault_decide(FAULT_WRITE, name, NULL, n);
    if (v.action == FAULT_SHORT || v.action == FAULT_TORN) {
        size_t part = n > 1 ? 1 + v.random % (n - 1) : 0;
        if (part && put(fd, p, part, at, has_at) < 0)
            return -1;
        if (v.action == FAULT_TORN)
            fault_die();
        errno = fault_errno(v.action);
        return -1;
    }
    if (fails(v))
        return -1;
    ssize_t done =
        v.action == FAULT_FLIP ? write_turned(fd, p, n, at, has_at, v.random) : put(fd, p, n, at, has_at);
    after(v);
    return done;
}
EXPORT ssize_t write(int fd, const void *p, size_t n)
{
    return write_any(fd, p, n, 0, false);
}
EXPORT ssize_t pwrite(int fd, const void *p, size_t n, off_t at)
{
    return write_any(fd, p, n, at, true);
}
EXPORT ssize_t pwrite64(int fd, const void *p, size_t n, off64_t at)
{
    return write_any(fd, p, n, at, true);
}
EXPORT ssize_t writev(int fd, const struct iovec *v, int n)
{
    if (!name_of(fd))
        return syscall(SYS_writev, fd, v, n);
    ssize_t sum = 0;
    for (int i = 0; i < n; i++) {
        ssize_t one = write_any(fd, v[i].iov_base, v[i].iov_len, 0, false);
        if (one < 0)
            return sum ? sum : -1;
        sum += one;
        if ((size_t)one < v[i].iov_len)
            break;
    }
    return sum;
}

typedef size_t fwrite_fn(const void *p, size_t size, size_t n, FILE *f);

/* Streams buffer: what a rule hits is the call, not the moment at which the bytes reach the disk. */
static size_t fwrite_any(fwrite_fn *real, const void *p, size_t size, size_t n, FILE *f)
{
    const char *name = name_of(fileno(f));
    fault_verdict v = {.action = FAULT_NONE};
    if (name)
        v = fault_decide(FAULT_WRITE, name, NULL, size * n);
    if (v.action == FAULT_SHORT || v.action == FAULT_TORN) {
        real(p, 1, size * n / 2, f);
        fflush(f);
        if (v.action == FAULT_TORN)
            fault_die();
        errno = fault_errno(v.action);
        return 0;
    }
    if (fails(v))
        return 0;
    size_t done = real(p, size, n, f);
    if (v.action == FAULT_KILL_AFTER)
        fflush(f);
    after(v);
    return done;
}
EXPORT size_t fwrite(const void *p, size_t size, size_t n, FILE *f)
{
    return fwrite_any(REAL(fwrite), p, size, n, f);
}
EXPORT size_t fwrite_unlocked(const void *p, size_t size, size_t n, FILE *f)
{
    return fwrite_any(REAL(fwrite_unlocked), p, size, n, f);
}
EXPORT int fputs(const char *text, FILE *f)
{
    size_t n = strlen(text);
    return fwrite_any(REAL(fwrite), text, 1, n, f) == n ? 1 : EOF;
}

/* ---- syncing and sizes ---- */

static int on_fd(fault_op op, int fd, size_t bytes, long call, long a, long b, long c)
{
    const char *name = name_of(fd);
    if (!name)
        return (int)syscall(call, fd, a, b, c);
    fault_verdict v = fault_decide(op, name, NULL, bytes);
    if (fails(v))
        return -1;
    int rc = (int)syscall(call, fd, a, b, c);
    if (!rc && op == FAULT_SYNC && fault_power_wanted())
        fault_power_synced(fd, name);
    after(v);
    return rc;
}
EXPORT int fsync(int fd)
{
    return on_fd(FAULT_SYNC, fd, 0, SYS_fsync, 0, 0, 0);
}
EXPORT int fdatasync(int fd)
{
    return on_fd(FAULT_SYNC, fd, 0, SYS_fdatasync, 0, 0, 0);
}
EXPORT int ftruncate(int fd, off_t n)
{
    return on_fd(FAULT_TRUNCATE, fd, (size_t)n, SYS_ftruncate, n, 0, 0);
}
EXPORT int ftruncate64(int fd, off64_t n)
{
    return on_fd(FAULT_TRUNCATE, fd, (size_t)n, SYS_ftruncate, n, 0, 0);
}
EXPORT int fallocate(int fd, int mode, off_t at, off_t n)
{
    return on_fd(FAULT_ALLOCATE, fd, (size_t)n, SYS_fallocate, mode, at, n);
}
EXPORT int fallocate64(int fd, int mode, off64_t at, off64_t n)
{
    return on_fd(FAULT_ALLOCATE, fd, (size_t)n, SYS_fallocate, mode, at, n);
}
EXPORT int posix_fallocate(int fd, off_t at, off_t n)
{
    return on_fd(FAULT_ALLOCATE, fd, (size_t)n, SYS_fallocate, 0, at, n) ? errno : 0;
}
EXPORT int posix_fallocate64(int fd, off64_t at, off64_t n)
{
    return posix_fallocate(fd, at, n);
}

/* ---- names ---- */

static int on_name(fault_op op, const char *path, const char *path2, long call, long a, long b, long c,
                   long d, long e)
{
    fault_verdict v = fault_decide(op, path, path2, 0);
    if (fails(v))
        return -1;
    if (op == FAULT_RENAME && fault_power_wanted())
        fault_power_renaming(path, path2);
    int rc = (int)syscall(call, a, b, c, d, e);
    if (!rc && op == FAULT_UNLINK && fault_power_wanted())
        fault_power_unlinked(path);
    if (!rc && op == FAULT_LINK && fault_power_wanted())
        fault_power_linked(path2);
    after(v);
    return rc;
}
EXPORT int renameat2(int dir, const char *from, int dir2, const char *to, unsigned flags)
{
    char b1[PATH_SIZE], b2[PATH_SIZE];
    return on_name(FAULT_RENAME, join(dir, from, b1), join(dir2, to, b2), SYS_renameat2, dir, (long)from,
                   dir2, (long)to, flags);
}
EXPORT int renameat(int dir, const char *from, int dir2, const char *to)
{
    return renameat2(dir, from, dir2, to, 0);
}
EXPORT int rename(const char *from, const char *to)
{
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0);
}
EXPORT int unlinkat(int dir, const char *path, int flags)
{
    char b[PATH_SIZE];
    return on_name(FAULT_UNLINK, join(dir, path, b), NULL, SYS_unlinkat, dir, (long)path, flags, 0, 0);
}
EXPORT int unlink(const char *path)
{
    return unlinkat(AT_FDCWD, path, 0);
}
EXPORT int rmdir(const char *path)
{
    return unlinkat(AT_FDCWD, path, AT_REMOVEDIR);
}
EXPORT int remove(const char *path)
{
    int rc = unlinkat(AT_FDCWD, path, 0);
    return rc && errno == EISDIR ? rmdir(path) : rc;
}
EXPORT int truncate(const char *path, off_t n)
{
    return on_name(FAULT_TRUNCATE, path, NULL, SYS_truncate, (long)path, n, 0, 0, 0);
}
EXPORT int truncate64(const char *path, off64_t n)
{
    return truncate(path, n);
}
EXPORT int mkdirat(int dir, const char *path, mode_t mode)
{
    char b[PATH_SIZE];
    return on_name(FAULT_MKDIR, join(dir, path, b), NULL, SYS_mkdirat, dir, (long)path, mode, 0, 0);
}
EXPORT int mkdir(const char *path, mode_t mode)
{
    return mkdirat(AT_FDCWD, path, mode);
}
EXPORT int linkat(int dir, const char *from, int dir2, const char *to, int flags)
{
    char b1[PATH_SIZE], b2[PATH_SIZE];
    return on_name(FAULT_LINK, join(dir, from, b1), join(dir2, to, b2), SYS_linkat, dir, (long)from, dir2,
                   (long)to, flags);
}
EXPORT int link(const char *from, const char *to)
{
    return linkat(AT_FDCWD, from, AT_FDCWD, to, 0);
}
