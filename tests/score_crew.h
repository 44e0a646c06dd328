/* tests/score_crew.h - a thread that helps as an event loop does: member 0 of a crew of two, whose member 1
 * is the test. */
#pragma once
#include "serving/crew.h"
#include <check.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

typedef struct helper {
    slu_crew *crew;
    int wake;
    atomic_bool stop;
    uint64_t did; /* pieces; read it when it is stopped */
    pthread_t thread;
} helper;

static inline void *helper_main(void *arg)
{
    helper *h = arg;
    uint64_t count;
    while (!atomic_load(&h->stop)) {
        if (slu_crew_help(h->crew, 0)) {
            h->did++;
            continue;
        }
        if (!slu_crew_sleep(h->crew, 0))
            continue;
        poll(&(struct pollfd){.fd = h->wake, .events = POLLIN}, 1, -1);
        slu_crew_awake(h->crew, 0);
        (void)!read(h->wake, &count, sizeof count);
    }
    return NULL;
}

static inline void helper_start(helper *h)
{
    *h = (helper){.crew = slu_crew_new(2), .wake = eventfd(0, EFD_NONBLOCK)};
    ck_assert(h->crew && h->wake >= 0);
    slu_crew_enlist(h->crew, 0, h->wake);
    ck_assert_int_eq(pthread_create(&h->thread, NULL, helper_main, h), 0);
}

/* Until it has nothing to do. */
static inline void helper_settle(helper *h)
{
    while (!slu_crew_idle(h->crew))
        usleep(10);
}

static inline void helper_stop(helper *h)
{
    atomic_store(&h->stop, true);
    (void)!write(h->wake, &(uint64_t){1}, sizeof(uint64_t));
    pthread_join(h->thread, NULL);
    close(h->wake);
    slu_crew_free(h->crew);
}
