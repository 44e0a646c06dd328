#include "base/background.h"
#include "base/metrics.h"
#include "tests/suite.h"
#include <pthread.h>
#include <sched.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* In place of the C library's, by the linker (tests/CMakeLists.txt). */
int __wrap_sched_yield(void);
static atomic_uint yields;

int __wrap_sched_yield(void)
{
    yields++;
    return 0;
}

/* A thread in the background that works or sleeps, until it is told to end. */
typedef struct worker {
    pthread_t thread;
    pid_t tid;
    sem_t ready, go;
    bool busy, enters;
    atomic_bool end;
} worker;

static void *work(void *arg)
{
    worker *w = arg;
    w->tid = gettid();
    if (w->enters)
        slu_background_enter();
    sem_post(&w->ready);
    if (!w->busy)
        sem_wait(&w->go);
    while (!w->end)
        ;
    return NULL;
}

static void start(worker *w, bool busy, bool enters)
{
    memset(w, 0, sizeof *w);
    w->busy = busy;
    w->enters = enters;
    sem_init(&w->ready, 0, 0);
    sem_init(&w->go, 0, 0);
    ck_assert_int_eq(pthread_create(&w->thread, NULL, work, w), 0);
    sem_wait(&w->ready);
}

static void stop(worker *w)
{
    w->end = true;
    sem_post(&w->go);
    pthread_join(w->thread, NULL);
}

/* Root, or a generous limit. */
static bool one_may_return(void)
{
    struct rlimit nice;
    return !geteuid() || (!getrlimit(RLIMIT_NICE, &nice) && nice.rlim_cur >= 10);
}

static int nice_of(pid_t tid)
{
    return getpriority(PRIO_PROCESS, (id_t)tid);
}

/* The children of a thread stand where it stands. */
static void *enter_and_start(void *child)
{
    slu_background_enter();
    start(child, false, false);
    return NULL;
}

START_TEST(test_a_thread_and_its_children_step_back)
{
    int before = nice_of(gettid()), policy = sched_getscheduler(0);
    worker child;
    pthread_t t;
    ck_assert_int_eq(pthread_create(&t, NULL, enter_and_start, &child), 0);
    pthread_join(t, NULL);
    ck_assert_int_ge(nice_of(child.tid), 10);
    if (one_may_return() && policy == SCHED_OTHER)
        ck_assert_int_eq(sched_getscheduler(child.tid), SCHED_IDLE);
    ck_assert_int_eq(nice_of(gettid()), before);
    ck_assert_int_eq(sched_getscheduler(0), policy);
    stop(&child);
}
END_TEST

START_TEST(test_whoever_cannot_return_is_only_nice)
{
    struct rlimit none = {0, 0};
    worker w;
    if (sched_getscheduler(0) != SCHED_OTHER)
        return;
    ck_assert_int_eq(setrlimit(RLIMIT_NICE, &none), 0);
    if (!geteuid())
        ck_assert_int_eq(setresuid(65534, 65534, 65534), 0);
    start(&w, true, true);
    ck_assert_int_eq(sched_getscheduler(w.tid), SCHED_OTHER);
    ck_assert_int_ge(nice_of(w.tid), 10);
    for (int i = 1; i < 5; i++) /* and there is nobody to let in */
        ck_assert_uint_eq(slu_background_watch((int64_t)i * SLU_BACKGROUND_LOOK_US), 0);
    stop(&w);
}
END_TEST

START_TEST(test_threads_are_adopted_by_name)
{
    worker one, other;
    start(&one, false, false);
    start(&other, false, false);
    pthread_setname_np(one.thread, "library) R:low0"); /* names may hold anything */
    pthread_setname_np(other.thread, "a library");
    slu_background_adopt("library");
    ck_assert_int_ge(nice_of(one.tid), 10);
    ck_assert_int_eq(nice_of(other.tid), nice_of(gettid()));
    ck_assert_int_eq(sched_getscheduler(other.tid), sched_getscheduler(0));
    stop(&one);
    stop(&other);
}
END_TEST

static void *enter_and_breathe(void *enters)
{
    if (*(bool *)enters)
        slu_background_enter();
    slu_background_breathe();
    return NULL;
}

static unsigned breathes(bool enters)
{
    pthread_t t;
    yields = 0;
    ck_assert_int_eq(pthread_create(&t, NULL, enter_and_breathe, &enters), 0);
    pthread_join(t, NULL);
    return yields;
}

/* Only who stands in the background lets go: others have their turn by right. */
START_TEST(test_breathing)
{
    const bool idle = sched_getscheduler(0) == SCHED_IDLE;
    ck_assert_uint_eq(breathes(false), idle);
    ck_assert_uint_eq(breathes(true), idle || (one_may_return() && sched_getscheduler(0) == SCHED_OTHER));
}
END_TEST

START_TEST(test_a_nicer_thread_stays_nicer)
{
    worker w;
    ck_assert_int_eq(setpriority(PRIO_PROCESS, (id_t)gettid(), 15), 0);
    start(&w, false, true);
    ck_assert_int_eq(nice_of(w.tid), 15);
    stop(&w);
}
END_TEST

/* Of a gauge: 0 as long as nobody has set it. */
static double metric(const char *name)
{
    return slu_metric_value(slu_gauge(name, NULL, ""));
}

/* All on one processor, which this thread never leaves. The time of the looks is made up: what counts is that
 * the other thread has hardly run in between. */
START_TEST(test_whoever_starves_is_let_in_for_a_while)
{
    cpu_set_t one;
    worker w;
    int64_t now = SLU_BACKGROUND_LOOK_US;
    if (!one_may_return() || sched_getscheduler(0) != SCHED_OTHER)
        return; /* test_whoever_cannot_return_is_only_nice */
    CPU_ZERO(&one);
    CPU_SET(sched_getcpu(), &one);
    ck_assert_int_eq(sched_setaffinity(0, sizeof one, &one), 0);
    start(&w, true, true);
    ck_assert_int_eq(sched_getscheduler(w.tid), SCHED_IDLE);
    ck_assert_uint_eq(slu_background_watch(now), 0); /* the first look has nothing to compare with */
    ck_assert(metric("sluice_background_threads") == 1 && metric("sluice_background_let_in") == 0);
    while (!slu_background_watch(now += SLU_BACKGROUND_LOOK_US))
        ;
    ck_assert_int_eq(sched_getscheduler(w.tid), SCHED_OTHER);
    ck_assert_int_ge(nice_of(w.tid), 10);
    ck_assert(metric("sluice_background_threads") == 1 && metric("sluice_background_let_in") == 1);
    ck_assert_uint_eq(slu_background_watch(now + SLU_BACKGROUND_LOOK_US - 1), 1);
    ck_assert_uint_eq(slu_background_watch(now += SLU_BACKGROUND_LOOK_US), 0);
    ck_assert_int_eq(sched_getscheduler(w.tid), SCHED_IDLE);
    ck_assert(metric("sluice_background_threads") == 1 && metric("sluice_background_let_in") == 0);
    while (!slu_background_watch(now += SLU_BACKGROUND_LOOK_US)) /* it still does, and stays longer */
        ;
    ck_assert_uint_eq(slu_background_watch(now + SLU_BACKGROUND_LOOK_US), 1);
    ck_assert_uint_eq(slu_background_watch(now + 2 * SLU_BACKGROUND_LOOK_US), 0);
    stop(&w);
}
END_TEST

START_TEST(test_whoever_sleeps_does_not_starve)
{
    worker w;
    int64_t now = 0;
    start(&w, false, true);
    for (int in_a_row = 0; in_a_row < 10;) /* it may be on its way to sleep still */
        in_a_row = slu_background_watch(now += SLU_BACKGROUND_LOOK_US) ? 0 : in_a_row + 1;
    stop(&w);
}
END_TEST

int main(void)
{
    return run_suite("background", (const TTest *[]){test_a_thread_and_its_children_step_back,
                                                     test_whoever_cannot_return_is_only_nice,
                                                     test_threads_are_adopted_by_name, test_breathing,
                                                     test_a_nicer_thread_stays_nicer,
                                                     test_whoever_starves_is_let_in_for_a_while,
                                                     test_whoever_sleeps_does_not_starve, NULL});
}
