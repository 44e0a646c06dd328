/* Which waits are allowed, and a server under three times its capacity in made-up time. */
#include "base/rng.h"
#include "serving/grpc_wait.h"
#include "tests/suite.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

START_TEST(test_limits)
{
    slu_grpc_wait w = {.max_us = 40000};
    ck_assert_int_eq(slu_grpc_wait_limit(&w, 5), 40000);
    ck_assert(slu_grpc_wait_admits(&w, 5));
    for (int i = 0; i < 200; i++)
        slu_grpc_wait_learn(&w, 1000, 1000);
    ck_assert_int_eq(slu_grpc_wait_predict(&w), 0);
    for (int i = 0; i < 20; i++)
        slu_grpc_wait_join(&w, 1000, 1000000);
    ck_assert_int_eq(slu_grpc_wait_predict(&w) / 100, 200);    /* twenty times a millisecond */
    ck_assert_int_eq(slu_grpc_wait_limit(&w, 1039999), 40000); /* a burst */
    ck_assert(slu_grpc_wait_admits(&w, 1039999));
    ck_assert_int_eq(slu_grpc_wait_limit(&w, 1040000), 10000); /* it stands */
    ck_assert(!slu_grpc_wait_admits(&w, 1040000));
    for (int i = 0; i < 20; i++)
        slu_grpc_wait_leave(&w, 1000, 1050000);
    ck_assert_int_eq(slu_grpc_wait_limit(&w, 1050000), 40000);
    for (int i = 0; i < 200; i++)
        slu_grpc_wait_learn(&w, 100000, 9000); /* large ones: two of them fit, or none would ever be taken */
    slu_grpc_wait_join(&w, 1, 1050000);
    ck_assert_int_eq(slu_grpc_wait_limit(&w, 2000000) / 100, 180 - 1);
    slu_grpc_wait none = {.max_us = 0};
    slu_grpc_wait_learn(&none, 1, 1000000);
    slu_grpc_wait_join(&none, 1 << 30, 0);
    ck_assert(slu_grpc_wait_admits(&none, 1ll << 40));
    ck_assert_int_eq(slu_grpc_wait_limit(&none, 1ll << 40), INT64_MAX);
}
END_TEST

/* ---- a simulation ---- */

typedef struct job {
    int64_t came_us;
    uint32_t bytes, us;
} job;

typedef struct outcome {
    uint64_t offered, done, refused, dropped;
    int64_t *took; /* (done) wait and work */
    double busy;   /* share of the time that the server worked */
} outcome;

static int by_time(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return x < y ? -1 : x > y;
}

/* Poisson arrivals at |load| times what one server can do for |us|; requests take 0.5 to 1.5 ms. */
static outcome simulate(double load, int64_t max_us, int64_t us, uint64_t seed)
{
    enum { MOST = 200000 };
    slu_grpc_wait w = {.max_us = max_us};
    job *queue = calloc(MOST, sizeof *queue);
    outcome o = {.took = calloc(MOST, sizeof(int64_t))};
    size_t head = 0, tail = 0;
    slu_rng rng;
    int64_t now = 0, worked = 0;
    double next = 0;
    slu_rng_seed(&rng, seed);
    while (now < us) {
        while (next <= (double)now) { /* all that came until now */
            job j = {(int64_t)next, (uint32_t)(500 + slu_rng_below(&rng, 1000)), 0};
            j.us = j.bytes;
            next += -log(1 - slu_rng_unit(&rng)) * 1000 / load;
            o.offered++;
            if (!slu_grpc_wait_admits(&w, now)) {
                o.refused++;
                continue;
            }
            slu_grpc_wait_join(&w, j.bytes, now);
            ck_assert_uint_lt(tail, MOST);
            queue[tail++] = j;
        }
        if (head == tail) {
            now = (int64_t)next + 1;
            continue;
        }
        job j = queue[head++];
        slu_grpc_wait_leave(&w, j.bytes, now);
        if (now - j.came_us > slu_grpc_wait_limit(&w, now)) {
            o.dropped++;
            continue;
        }
        now += j.us;
        worked += j.us;
        slu_grpc_wait_learn(&w, j.bytes, j.us);
        o.took[o.done++] = now - j.came_us;
    }
    qsort(o.took, o.done, sizeof *o.took, by_time);
    o.busy = (double)worked / (double)now;
    free(queue);
    return o;
}

static int64_t p99(const outcome *o)
{
    return o->took[o->done - 1 - o->done / 100];
}

static void show(const char *what, const outcome *o)
{
    printf("%-28s offered %6llu done %6llu refused %6llu dropped %5llu busy %3.0f %% p99 %6.1f ms\n", what,
           (unsigned long long)o->offered, (unsigned long long)o->done, (unsigned long long)o->refused,
           (unsigned long long)o->dropped, o->busy * 100, (double)p99(o) / 1000);
}

/* Time is made up, so these figures are always the same: what is accepted under two and three times the
 * capacity is about as fast as at full load, and the server never idles. Without a limit every answer is
 * late. */
START_TEST(test_overload)
{
    const int64_t run = 20 * 1000000;
    outcome full = simulate(0.95, 50000, run, 7), twice = simulate(2, 50000, run, 7),
            thrice = simulate(3, 50000, run, 7), without = simulate(3, 0, run, 7);
    show("95 % of capacity", &full);
    show("200 %", &twice);
    show("300 %", &thrice);
    show("300 %, no serving.max_wait", &without);
    ck_assert_uint_lt(full.refused + full.dropped, full.offered / 20);
    ck_assert_int_lt(p99(&twice), 16000); /* a quarter of max_wait and the work */
    ck_assert_int_lt(p99(&thrice), 16000);
    ck_assert_int_lt(p99(&thrice), 2 * p99(&full));
    ck_assert(twice.busy > 0.97 && thrice.busy > 0.97);
    ck_assert_uint_gt(thrice.done, thrice.offered * 30 / 100);
    ck_assert_uint_lt(thrice.dropped,
                      thrice.offered / 20); /* nearly all are refused at once, not after waiting */
    ck_assert_int_gt(p99(&without), 1000000);
    free(full.took);
    free(twice.took);
    free(thrice.took);
    free(without.took);
}
END_TEST

int main(void)
{
    return run_suite("grpc_wait", (const TTest *[]){test_limits, test_overload, NULL});
}
