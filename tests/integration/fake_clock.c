/* A wall clock on command, for LD_PRELOAD: CLOCK_REALTIME plus the seconds in the file $FAKE_CLOCK, which is
 * read again all the time. Monotonic time stays what it is, and so do waits: a deadline in wall time that a
 * program worked out from the shifted clock is moved back before the system sees it. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <threads.h>
#include <time.h>
#include <unistd.h>

static long shift(void)
{
    static _Thread_local struct timespec read_at;
    static _Thread_local long seconds;
    struct timespec now;
    syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    if (read_at.tv_sec == now.tv_sec && now.tv_nsec - read_at.tv_nsec < 20000000)
        return seconds;
    read_at = now;
    const char *path = getenv("FAKE_CLOCK");
    FILE *f = path ? fopen(path, "re") : NULL;
    if (!f)
        return seconds;
    if (fscanf(f, "%ld", &seconds) != 1)
        seconds = 0;
    fclose(f);
    return seconds;
}

int clock_gettime(clockid_t id, struct timespec *t)
{
    int rc = (int)syscall(SYS_clock_gettime, id, t);
    if (!rc && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        t->tv_sec += shift();
    return rc;
}

int gettimeofday(struct timeval *t, void *zone)
{
    (void)zone;
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    *t = (struct timeval){now.tv_sec, now.tv_nsec / 1000};
    return 0;
}

time_t time(time_t *out)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out)
        *out = now.tv_sec;
    return now.tv_sec;
}

int timespec_get(struct timespec *t, int base)
{
    return base == TIME_UTC && !clock_gettime(CLOCK_REALTIME, t) ? base : 0;
}

static struct timespec moved_back(const struct timespec *until)
{
    struct timespec t = *until;
    if (t.tv_sec > 1000000000) /* no machine has been up that long: it is wall time */
        t.tv_sec -= shift();
    return t;
}

int pthread_cond_timedwait(pthread_cond_t *c, pthread_mutex_t *m, const struct timespec *until)
{
    static int (*real)(pthread_cond_t *, pthread_mutex_t *, const struct timespec *);
    if (!real)
        *(void **)&real = dlvsym(RTLD_NEXT, "pthread_cond_timedwait", "GLIBC_2.3.2");
    struct timespec t = moved_back(until);
    return real(c, m, &t);
}

/* librdkafka waits by C11. */
int cnd_timedwait(cnd_t *c, mtx_t *m, const struct timespec *until)
{
    static int (*real)(cnd_t *, mtx_t *, const struct timespec *);
    if (!real)
        *(void **)&real = dlsym(RTLD_NEXT, "cnd_timedwait");
    struct timespec t = moved_back(until);
    return real(c, m, &t);
}
