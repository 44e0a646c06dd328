#include "base/background.h"
#include "base/metrics.h"
#include <dirent.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { NICE = 10, MOST_THREADS = 256 };
enum { STARVING = 50 };                /* thousandths of the time, and less */
enum { LONGEST_US = 8 * 1000 * 1000 }; /* that threads are let in at a time */

/* A thread as /proc shows it. */
typedef struct thread {
    pid_t tid;
    char name[16];
    char state; /* 'R': runs, or would like to */
    int policy;
    uint64_t ticks; /* of processor time */
} thread;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static bool may_return;

/* ---- one thread ---- */

static void be_nice(pid_t tid)
{
    /* To Linux a thread is what others call a process. Never forwards, and a machine that refuses has lost
     * nothing but latency. */
    if (getpriority(PRIO_PROCESS, (id_t)tid) < NICE)
        (void)setpriority(PRIO_PROCESS, (id_t)tid, NICE);
}

static bool set_policy(pid_t tid, int policy)
{
    return !sched_setscheduler(tid, policy, &(struct sched_param){0});
}

/* A thread that may be lost: there is no way to ask but to try. */
static void *there_and_back(void *yes)
{
    be_nice(gettid());
    *(bool *)yes =
        sched_getscheduler(0) == SCHED_OTHER && set_policy(0, SCHED_IDLE) && set_policy(0, SCHED_OTHER);
    return NULL;
}

static void look_whether_one_may_return(void)
{
    pthread_t t;
    if (!pthread_create(&t, NULL, there_and_back, &may_return))
        pthread_join(t, NULL);
}

static void step_back(pid_t tid)
{
    pthread_once(&once, look_whether_one_may_return);
    be_nice(tid);
    if (may_return && sched_getscheduler(tid) == SCHED_OTHER)
        (void)set_policy(tid, SCHED_IDLE);
}

void slu_background_enter(void)
{
    step_back(gettid());
}

void slu_background_breathe(void)
{
    if (sched_getscheduler(0) == SCHED_IDLE) /* whoever was let in gets little enough */
        sched_yield();
}

/* ---- all threads ---- */

/* The name stands in brackets and may hold anything, so counting starts behind the last one. */
static bool read_thread(pid_t tid, thread *t)
{
    char path[64], text[1024];
    unsigned long user = 0, system = 0;
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", (int)tid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false; /* ended meanwhile */
    size_t n = fread(text, 1, sizeof text - 1, f);
    fclose(f);
    text[n] = 0;
    const char *open = strchr(text, '('), *close = strrchr(text, ')');
    if (!open || !close ||
        sscanf(close + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &t->state, &user, &system) !=
            3)
        return false;
    t->tid = tid;
    t->policy = sched_getscheduler(tid);
    t->ticks = user + system;
    snprintf(t->name, sizeof t->name, "%.*s", (int)(close - open - 1), open + 1);
    return true;
}

/* Calls |each| for every thread of the process. */
static void each_thread(void (*each)(void *ctx, const thread *t), void *ctx)
{
    DIR *d = opendir("/proc/self/task");
    const struct dirent *e;
    while (d && (e = readdir(d))) {
        thread t;
        pid_t tid = (pid_t)atoi(e->d_name);
        if (tid > 0 && read_thread(tid, &t))
            each(ctx, &t);
    }
    if (d)
        closedir(d);
}

static void adopt(void *prefix, const thread *t)
{
    if (!strncmp(t->name, prefix, strlen(prefix)))
        step_back(t->tid);
}

void slu_background_adopt(const char *prefix)
{
    char copy[16];
    snprintf(copy, sizeof copy, "%s", prefix);
    each_thread(adopt, copy);
}

/* ---- seeing to it that nobody starves ---- */

/* Threads in the background at one moment. */
typedef struct look {
    int64_t at_us; /* 0: never */
    uint32_t n;
    thread threads[MOST_THREADS];
} look;

static look last, now; /* of the watching thread, too large for its stack */
static struct {
    uint32_t n;
    pid_t tids[MOST_THREADS];
    int64_t stay_us, until_us;
} in;

static const thread *as_it_was(pid_t tid)
{
    for (uint32_t i = 0; i < last.n; i++)
        if (last.threads[i].tid == tid)
            return &last.threads[i];
    return NULL;
}

/* Wanted to run at both looks and hardly did in between. */
static bool starves(const thread *t)
{
    const thread *was = as_it_was(t->tid);
    if (!was || was->state != 'R' || t->state != 'R')
        return false;
    int64_t ran_us = (int64_t)(t->ticks - was->ticks) * 1000000 / sysconf(_SC_CLK_TCK);
    return ran_us * 1000 < (now.at_us - last.at_us) * STARVING;
}

static void see(void *ctx, const thread *t)
{
    look *l = ctx;
    if (t->policy == SCHED_IDLE && l->n < MOST_THREADS)
        l->threads[l->n++] = *t;
}

static void send_back(void)
{
    for (uint32_t i = 0; i < in.n; i++)
        (void)set_policy(in.tids[i], SCHED_IDLE);
    in.n = 0;
}

/* They work for each other, so all are let in when one starves. Where that is so again and again, they stay
 * longer each time. */
static void let_in(void)
{
    in.stay_us = in.stay_us ? 2 * in.stay_us : SLU_BACKGROUND_LOOK_US;
    if (in.stay_us > LONGEST_US)
        in.stay_us = LONGEST_US;
    in.until_us = now.at_us + in.stay_us;
    for (uint32_t i = 0; i < now.n; i++)
        if (set_policy(now.threads[i].tid, SCHED_OTHER))
            in.tids[in.n++] = now.threads[i].tid;
}

static void tell(void)
{
    static slu_metric *threads, *inside;
    if (!threads) {
        threads = slu_gauge("sluice_background_threads", NULL,
                            "Threads that work in the time that others leave, at the last look.");
        inside = slu_gauge("sluice_background_let_in", NULL,
                           "Of these threads, those that starved and have a share of the time for now.");
    }
    slu_metric_set(threads, now.n);
    slu_metric_set(inside, in.n);
}

unsigned slu_background_watch(int64_t now_us)
{
    if (!may_return || now_us < in.until_us || now_us - last.at_us < SLU_BACKGROUND_LOOK_US)
        return in.n;
    bool fresh = in.n > 0 || !last.at_us,
         starving = false; /* what they did while they were in says nothing */
    send_back();
    now.at_us = now_us;
    now.n = 0;
    each_thread(see, &now);
    for (uint32_t i = 0; i < now.n && !fresh; i++)
        starving |= starves(&now.threads[i]);
    if (starving)
        let_in();
    else if (!fresh)
        in.stay_us = 0;
    last = now;
    tell();
    return in.n;
}
