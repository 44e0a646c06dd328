#include "base/pool.h"
#include "tests/suite.h"
#include <stdatomic.h>
#include <stdlib.h>
#include <time.h>

static slu_pool *make(uint32_t threads)
{
    slu_error err = SLU_ERROR_INIT;
    slu_pool *pool;
    ck_assert_msg(slu_pool_new(threads, &pool, &err) == 0, "%s", err.message);
    return pool;
}

typedef struct job {
    uint32_t n, salt;
    _Atomic uint32_t *times; /* (n) */
    uint64_t *wrote;         /* (n) plain: the join must make it visible */
    uint32_t slow;           /* this piece takes long */
} job;

static void piece(void *ctx, uint32_t i)
{
    job *j = ctx;
    ck_assert_uint_lt(i, j->n);
    if (i == j->slow)
        nanosleep(&(struct timespec){0, 2000000}, NULL);
    j->wrote[i] = (uint64_t)j->salt * 1000003 + i;
    atomic_fetch_add(&j->times[i], 1);
}

static void run_and_check(const slu_parallel *p, job *j, uint32_t n, uint32_t salt, uint32_t slow)
{
    j->n = n;
    j->salt = salt;
    j->slow = slow;
    for (uint32_t i = 0; i < n; i++)
        atomic_store(&j->times[i], 0);
    slu_parallel_run(p, piece, j, n);
    for (uint32_t i = 0; i < n; i++) {
        ck_assert_uint_eq(atomic_load(&j->times[i]), 1);
        ck_assert_uint_eq(j->wrote[i], (uint64_t)salt * 1000003 + i);
    }
}

/* Every piece once and seen by the caller, run after run: close to each other, and after the others fell
 * asleep. */
START_TEST(test_each_piece_once)
{
    static const uint32_t threads[] = {0, 1, 2, 3, 8};
    slu_pool *pool = NULL;
    if (threads[_i])
        pool = make(threads[_i]);
    const slu_parallel *p = pool ? slu_pool_parallel(pool) : NULL;
    ck_assert_uint_eq(slu_parallel_threads(p), threads[_i] ? threads[_i] : 1);
    job j = {.times = calloc(1000, sizeof *j.times), .wrote = calloc(1000, sizeof *j.wrote)};
    for (uint32_t round = 0; round < 2000; round++) {
        run_and_check(p, &j, round % 37, round, UINT32_MAX);
        if (round % 400 == 399)
            nanosleep(&(struct timespec){0, 3000000}, NULL); /* long enough to fall asleep */
    }
    for (uint32_t slow = 0; slow < 3; slow++)
        run_and_check(p, &j, 3, slow, slow); /* the last piece is late: the caller sleeps too */
    run_and_check(p, &j, 1000, 7, UINT32_MAX);
    slu_pool_free(pool);
    free(j.times);
    free(j.wrote);
}
END_TEST

typedef struct meeting {
    _Atomic uint32_t here;
} meeting;

static void meet(void *ctx, uint32_t i)
{
    meeting *m = ctx;
    (void)i;
    atomic_fetch_add(&m->here, 1);
    while (atomic_load(&m->here) < 2) /* never ends unless two threads work at once */
        ;
}

START_TEST(test_two_work_at_once)
{
    slu_pool *pool = make(2);
    for (int round = 0; round < 20; round++) {
        meeting m = {0};
        slu_parallel_run(slu_pool_parallel(pool), meet, &m, 2);
        ck_assert_uint_eq(atomic_load(&m.here), 2);
    }
    slu_pool_free(pool);
}
END_TEST

START_TEST(test_freed_unused)
{
    slu_pool *pool = make(SLU_POOL_MAX_THREADS);
    slu_pool_free(pool);
    slu_pool_free(NULL);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pool");
    TCase *t = tcase_create("pool");
    tcase_set_timeout(t, 120);
    tcase_add_loop_test(t, test_each_piece_once, 0, 5);
    tcase_add_test(t, test_two_work_at_once);
    tcase_add_test(t, test_freed_unused);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_ENV);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
