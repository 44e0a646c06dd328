#include "store/keeper.h"
#include "base/clock.h"
#include "base/log.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define COMPONENT "backup"
enum { LINE_BYTES = 4200, ANSWER_SECONDS = 5 };
static const char SOCKET_NAME[] = "control";

struct slu_keeper {
    slu_keeper_config config;
    char dir[4096]; /* "" none */
    int folder;     /* of the store */
    int listening, wake[2];
    int64_t next_us;
    pthread_t thread;
};

/* ---- the socket; its path may be longer than an address allows, so it goes through the folder's descriptor
 */

static struct sockaddr_un address_in(int folder)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "/proc/self/fd/%d/%s", folder, SOCKET_NAME);
    return a;
}

static int listen_in(slu_keeper *k, slu_error *err)
{
    const char *path = slu_store_path(k->config.store);
    k->folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    k->listening = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = address_in(k->folder);
    if (k->folder >= 0)
        unlinkat(k->folder, SOCKET_NAME,
                 0); /* of a daemon that was killed: the store's lock says it is gone */
    if (k->folder < 0 || k->listening < 0 || fchmod(k->listening, 0600) ||
        bind(k->listening, (struct sockaddr *)&a, sizeof a) || listen(k->listening, 4) ||
        pipe2(k->wake, O_CLOEXEC))
        return slu_fail(err, SLU_EIO, "%s/%s: cannot listen there: %s", path, SOCKET_NAME, strerror(errno));
    return 0;
}

/* ---- one backup ---- */

static int make(slu_keeper *k, const char *dir, slu_backup *b, slu_error *err)
{
    int64_t began = slu_mono_us(&slu_system_clock);
    int rc = slu_backup_make(k->config.store, dir, b, err);
    if (!rc && !strcmp(dir, k->dir) && k->config.keep)
        rc = slu_backup_prune(dir, k->config.keep, err);
    if (rc)
        SLU_ERROR(COMPONENT, "no backup was made", SLU_STR("code", slu_code_name(rc)),
                  SLU_STR("reason", err->message));
    else
        SLU_INFO(COMPONENT, "made a backup", SLU_STR("path", b->path), SLU_U64("version", b->version),
                 SLU_U64("bytes", b->bytes),
                 SLU_F64("seconds", (double)(slu_mono_us(&slu_system_clock) - began) / 1e6));
    return rc;
}

static void by_the_clock(slu_keeper *k)
{
    slu_backup b;
    slu_error err = SLU_ERROR_INIT;
    k->next_us = slu_mono_us(&slu_system_clock) + k->config.every_us;
    make(k, k->dir, &b, &err);
}

/* ---- requests ---- */

static bool is_welcome(int fd)
{
    struct ucred who;
    socklen_t n = sizeof who;
    return !getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &n) && (who.uid == 0 || who.uid == geteuid());
}

/* Up to the end of the line; -1 when it does not come in time. */
static int read_line(int fd, char line[LINE_BYTES])
{
    size_t n = 0;
    while (n < LINE_BYTES - 1) {
        ssize_t got = recv(fd, line + n, LINE_BYTES - 1 - n, 0);
        if (got <= 0)
            return -1;
        n += (size_t)got;
        line[n] = 0;
        char *end = strchr(line, '\n');
        if (end) {
            *end = 0;
            return 0;
        }
    }
    return -1;
}

static void answer(slu_keeper *k, int fd)
{
    char line[LINE_BYTES], reply[LINE_BYTES];
    slu_backup b;
    slu_error err = SLU_ERROR_INIT;
    struct timeval patience = {.tv_sec = ANSWER_SECONDS};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (!is_welcome(fd) || read_line(fd, line))
        return;
    const char *dir = !strncmp(line, "backup ", 7) ? line + 7 : k->dir;
    int rc = strncmp(line, "backup", 6) || (line[6] && line[6] != ' ')
                 ? slu_fail(&err, SLU_EINVAL, "unknown request")
             : !*dir ? slu_fail(&err, SLU_EINVAL, "the daemon has no backup.path; say where with --to DIR")
                     : make(k, dir, &b, &err);
    int n = rc ? snprintf(reply, sizeof reply, "error %s\n", err.message)
               : snprintf(reply, sizeof reply, "ok %.4096s\n", b.path);
    if (send(fd, reply, (size_t)n, MSG_NOSIGNAL) < 0)
        SLU_WARN(COMPONENT, "whoever asked for a backup did not wait for it", SLU_STR("answer", reply));
}

static int wait_ms(const slu_keeper *k)
{
    int64_t left = (k->next_us - slu_mono_us(&slu_system_clock)) / 1000 + 1;
    return !k->next_us ? -1 : left < 0 ? 0 : left > 3600 * 1000 ? 3600 * 1000 : (int)left;
}

static void *run(void *arg)
{
    slu_keeper *k = arg;
    for (;;) {
        struct pollfd fds[2] = {{.fd = k->wake[0], .events = POLLIN}, {.fd = k->listening, .events = POLLIN}};
        if (poll(fds, 2, wait_ms(k)) < 0 && errno != EINTR)
            return NULL;
        if (fds[0].revents)
            return NULL;
        if (k->next_us && slu_mono_us(&slu_system_clock) >= k->next_us)
            by_the_clock(k);
        int fd = fds[1].revents ? accept4(k->listening, NULL, NULL, SOCK_CLOEXEC) : -1;
        if (fd >= 0) {
            answer(k, fd);
            close(fd);
        }
    }
}

/* ---- start and stop ---- */

static void release(slu_keeper *k)
{
    int fds[] = {k->listening, k->wake[0], k->wake[1]};
    for (size_t i = 0; i < sizeof fds / sizeof *fds; i++)
        if (fds[i] >= 0)
            close(fds[i]);
    if (k->folder >= 0) {
        unlinkat(k->folder, SOCKET_NAME, 0);
        close(k->folder);
    }
    free(k);
}

int slu_keeper_start(const slu_keeper_config *config, slu_keeper **kp, slu_error *err)
{
    *kp = NULL;
    slu_keeper *k = calloc(1, sizeof *k);
    if (!k)
        return slu_fail(err, SLU_ENOMEM, "out of memory for backups");
    *k = (slu_keeper){.config = *config, .folder = -1, .listening = -1, .wake = {-1, -1}};
    if (config->dir && *config->dir)
        snprintf(k->dir, sizeof k->dir, "%s/%s", config->dir, config->below);
    if (k->dir[0] && config->every_us)
        k->next_us = slu_mono_us(&slu_system_clock) + config->every_us;
    int rc = listen_in(k, err);
    if (!rc && pthread_create(&k->thread, NULL, run, k))
        rc = slu_fail(err, SLU_EIO, "the thread for backups cannot be started");
    if (rc)
        release(k);
    else
        *kp = k;
    return rc;
}

void slu_keeper_stop(slu_keeper *k)
{
    if (!k)
        return;
    if (write(k->wake[1], "", 1) == 1)
        pthread_join(k->thread, NULL);
    release(k);
}

/* ---- asking ---- */

int slu_keeper_ask(const char *store, const char *dir, char path[4096], slu_error *err)
{
    char line[LINE_BYTES];
    int folder = open(store, O_RDONLY | O_DIRECTORY | O_CLOEXEC), rc = 0;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = address_in(folder);
    if (folder < 0 || fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a)) {
        rc = errno == EACCES ? slu_fail(err, SLU_EIO, "store %s: its daemon runs as another user", store)
                             : SLU_ENOTFOUND;
    } else {
        int n = snprintf(line, sizeof line, dir ? "backup %s\n" : "backup\n", dir);
        if (send(fd, line, (size_t)n, MSG_NOSIGNAL) != n || read_line(fd, line))
            rc = slu_fail(err, SLU_EIO, "store %s: its daemon gave no answer; look into its log", store);
        else if (strncmp(line, "ok ", 3))
            rc = slu_fail(err, SLU_EIO, "%s", strncmp(line, "error ", 6) ? line : line + 6);
        else
            snprintf(path, 4096, "%.4095s", line + 3);
    }
    if (fd >= 0)
        close(fd);
    if (folder >= 0)
        close(folder);
    return rc;
}
