/* What a cut of power leaves of the files that this process wrote, as a file system may do it in the worst
 * case: of each file what was synced, names as they were at the last sync of their directory. What is
 * unlinked stays gone (a file system may bring it back; RocksDB does not care), bytes overwritten in place
 * are not brought back (nobody does that here). */
#include "fault_rules.h"
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MAX_PATH = 512 };

typedef struct node {
    struct node *next;
    char path[MAX_PATH];
    char from[MAX_PATH];  /* not empty: renamed from there since the directory was synced */
    char saved[MAX_PATH]; /* not empty: a link to what the new name meant before */
    long synced;          /* bytes */
    bool named;           /* the directory was synced with this name in it */
} node;

static node *nodes;
static unsigned saves;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static node *find(const char *path)
{
    node *n = nodes;
    while (n && strcmp(n->path, path))
        n = n->next;
    return n;
}

static node *find_or_add(const char *path, bool named, long synced)
{
    node *n = find(path);
    if (n)
        return n;
    n = calloc(1, sizeof *n);
    if (!n)
        fault_die();
    snprintf(n->path, sizeof n->path, "%s", path);
    n->named = named;
    n->synced = synced;
    n->next = nodes;
    nodes = n;
    return n;
}

static long size_of(const char *path)
{
    struct stat st;
    return syscall(SYS_newfstatat, AT_FDCWD, path, &st, 0) ? 0 : (long)st.st_size;
}

static void forget(node *n)
{
    node **p = &nodes;
    while (*p != n)
        p = &(*p)->next;
    *p = n->next;
    free(n);
}

void fault_power_opened(const char *path, bool existed, bool truncated)
{
    pthread_mutex_lock(&lock);
    node *n = find_or_add(path, existed, existed ? size_of(path) : 0);
    if (truncated)
        n->synced = 0;
    pthread_mutex_unlock(&lock);
}

/* Another name of a file that was synced under its first one. */
void fault_power_linked(const char *path)
{
    pthread_mutex_lock(&lock);
    find_or_add(path, false, size_of(path));
    pthread_mutex_unlock(&lock);
}

static bool is_in(const char *path, const char *dir)
{
    const char *slash = strrchr(path, '/');
    size_t n = slash ? (size_t)(slash - path) : 0, m = strlen(dir);
    while (m > 1 && dir[m - 1] == '/')
        m--;
    return slash && n == m && !strncmp(path, dir, n);
}

void fault_power_synced(int fd, const char *path)
{
    struct stat st;
    pthread_mutex_lock(&lock);
    if (!syscall(SYS_fstat, fd, &st) && S_ISDIR(st.st_mode)) {
        for (node *n = nodes; n; n = n->next) {
            if (!is_in(n->path, path))
                continue;
            n->named = true;
            n->from[0] = 0;
            if (n->saved[0])
                syscall(SYS_unlinkat, AT_FDCWD, n->saved, 0);
            n->saved[0] = 0;
        }
    } else {
        node *n = find(path);
        if (n)
            n->synced = (long)st.st_size;
    }
    pthread_mutex_unlock(&lock);
}

void fault_power_renaming(const char *from, const char *to)
{
    pthread_mutex_lock(&lock);
    node *target = find(to), *n = find_or_add(from, true, size_of(from));
    char saved[MAX_PATH] = "";
    if (target && target != n) {
        snprintf(saved, sizeof saved, "%s", target->saved);
        forget(target);
    }
    if (!saved[0] && !access(to, F_OK)) {
        snprintf(saved, sizeof saved, "%.480s.saved-%u", to, saves++);
        syscall(SYS_linkat, AT_FDCWD, to, AT_FDCWD, saved, 0);
    }
    if (n->named)
        snprintf(n->from, sizeof n->from, "%s", from);
    snprintf(n->saved, sizeof n->saved, "%s", saved);
    snprintf(n->path, sizeof n->path, "%s", to);
    pthread_mutex_unlock(&lock);
}

void fault_power_unlinked(const char *path)
{
    pthread_mutex_lock(&lock);
    node *n = find(path);
    if (n)
        forget(n);
    pthread_mutex_unlock(&lock);
}

void fault_power_cut(void)
{
    pthread_mutex_lock(&lock);
    for (node *n = nodes; n; n = n->next) {
        if (size_of(n->path) > n->synced)
            syscall(SYS_truncate, n->path, n->synced);
        if (n->from[0])
            syscall(SYS_renameat2, AT_FDCWD, n->path, AT_FDCWD, n->from, 0);
        else if (!n->named)
            syscall(SYS_unlinkat, AT_FDCWD, n->path, 0);
        if (n->saved[0])
            syscall(SYS_renameat2, AT_FDCWD, n->saved, AT_FDCWD, n->path, 0);
    }
    fault_die();
}
