/* Pieces are taken once each, whoever takes them, and a run is over when the last one is done. */
#include "base/pieces.h"
#include "tests/suite.h"
#include <time.h>

enum { N = 9 };

typedef struct job {
    uint32_t by[N], times[N]; /* plain: the end of the run must make them visible */
    uint32_t slow;            /* this piece takes long */
} job;

static void piece(void *ctx, uint32_t who, uint32_t i)
{
    job *j = ctx;
    if (i == j->slow)
        nanosleep(&(struct timespec){0, 3000000}, NULL); /* longer than looking: the owner sleeps */
    j->by[i] = who;
    j->times[i]++;
}

START_TEST(test_one_by_one)
{
    slu_pieces p;
    slu_pieces_init(&p);
    ck_assert(!slu_pieces_open(&p));
    ck_assert(!slu_pieces_do(&p, 0));
    for (int run = 0; run < 3; run++) {
        job j = {.slow = N};
        slu_pieces_begin(&p, piece, &j, N);
        for (uint32_t i = 0; i < N; i++) {
            ck_assert(slu_pieces_open(&p));
            ck_assert(slu_pieces_do(&p, 70 + i));
            ck_assert_uint_eq(j.by[i], 70 + i);
            ck_assert_uint_eq(j.times[i], 1);
        }
        ck_assert(!slu_pieces_open(&p));
        ck_assert(!slu_pieces_do(&p, 1));
        slu_pieces_wait(&p);
    }
    slu_pieces_clear(&p);
}
END_TEST

typedef struct other {
    slu_pieces pieces;
    atomic_bool stop;
} other;

static void *take_what_there_is(void *arg)
{
    other *o = arg;
    while (!atomic_load(&o->stop))
        if (!slu_pieces_do(&o->pieces, 1))
            slu_pieces_breathe();
    return NULL;
}

/* The other thread has the last piece, which is late: the owner waits for it, looking or asleep. */
START_TEST(test_waits_for_the_last)
{
    other o = {.stop = false};
    pthread_t thread;
    slu_pieces_init(&o.pieces);
    ck_assert_int_eq(pthread_create(&thread, NULL, take_what_there_is, &o), 0);
    for (uint32_t run = 0; run < 200; run++) {
        job j = {.slow = run % 20 ? N : N - 1};
        slu_pieces_begin(&o.pieces, piece, &j, N);
        while (slu_pieces_open(&o.pieces)) /* it takes them all */
            slu_pieces_breathe();
        slu_pieces_wait(&o.pieces);
        for (uint32_t i = 0; i < N; i++) {
            ck_assert_uint_eq(j.times[i], 1);
            ck_assert_uint_eq(j.by[i], 1);
        }
    }
    atomic_store(&o.stop, true);
    pthread_join(thread, NULL);
    slu_pieces_clear(&o.pieces);
}
END_TEST

int main(void)
{
    return run_suite("pieces", (const TTest *const[]){test_one_by_one, test_waits_for_the_last, NULL});
}
