#include "store/store_inside.h"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

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
        /* A flipped bit in RocksDB's list of files can look like this, too. */
        code =
            slu_fail(err, SLU_EFORMAT,
                     "store %s: %s: not a Sluice store, or of another version, or its MANIFEST is damaged; "
                     "use another store.path, or restore a backup (%s)",
                     path, doing, words);
    } else if (!strcmp(doing, "opening")) {
        code = slu_fail(err, SLU_EIO, "store %s: opening: %s; look at the disk, or restore a backup", path,
                        words);
    } else {
        code = slu_fail(err, SLU_EIO, "store %s: %s: %s", path, doing, words);
    }
    rocksdb_free(words);
    return code;
}
