/* One number shared out over everything in a scorer that can grow: the parts add up to it, each keeps to its
 * bounds, and what leaves no room for a model is refused with the arithmetic. */
#include "base/error.h"
#include "base/rng.h"
#include "serving/grpc_core.h"
#include "serving/scorer_memory.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define SEED        20261126u
#define MIB         (1ull << 20)
#define GIB         (1ull << 30)
#define LEAST_MODEL (8 * MIB)

static slu_options options(uint64_t memory, uint32_t threads, uint32_t max_request, uint32_t connections)
{
    return (slu_options){.serving = {.memory_bytes = memory,
                                     .threads = threads,
                                     .max_request_bytes = max_request,
                                     .max_connections = connections}};
}

static slu_scorer_memory share(uint64_t memory, uint32_t threads, uint32_t max_request, uint32_t connections)
{
    slu_options o = options(memory, threads, max_request, connections);
    slu_scorer_memory p;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_scorer_memory_of(&o, &p, &err);
    ck_assert_msg(!rc, "%s", err.message);
    return p;
}

static uint64_t sum(const slu_scorer_memory *p)
{
    return p->model + p->deltas + p->requests + p->scratch + p->connections + p->store + p->kafka +
           p->program;
}

static uint64_t between(uint64_t x, uint64_t low, uint64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* Whatever is asked for: the sum is the number, or it is refused and a little more of it would be, too. */
START_TEST(test_any_number)
{
    printf("seed %u\n", SEED);
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    int shared = 0, refused = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t memory = MIB + slu_rng_below(&rng, 1ull << (24 + slu_rng_below(&rng, 16)));
        uint32_t threads = 1 + (uint32_t)slu_rng_below(&rng, 64);
        uint32_t request = 1 + (uint32_t)slu_rng_below(&rng, 1u << slu_rng_below(&rng, 28));
        uint32_t connections = 1 + (uint32_t)slu_rng_below(&rng, 20000);
        slu_options o = options(memory, threads, request, connections);
        slu_scorer_memory p;
        if (slu_scorer_memory_of(&o, &p, NULL)) {
            o.serving.memory_bytes--;
            if (!slu_scorer_memory_of(&o, &p, NULL))
                ck_abort_msg("round %d: %llu is refused, one less is not", i, (unsigned long long)memory);
            refused++;
            continue;
        }
        shared++;
        if (p.total != memory || sum(&p) != memory || p.model < LEAST_MODEL)
            ck_abort_msg("round %d: %llu are shared out of %llu", i, (unsigned long long)sum(&p),
                         (unsigned long long)memory);
        if (p.delta != between(memory / 32, 16 * MIB, 512 * MIB) || p.deltas != 4 * p.delta)
            ck_abort_msg("round %d: deltas get %llu", i, (unsigned long long)p.delta);
        if (p.held < 2ull * request + MIB)
            ck_abort_msg("round %d: a thread has room for no request and its answer", i);
        if (p.requests != 2ull * threads * p.held || p.connections != 65536ull * connections ||
            p.scratch != threads * (8 * MIB + (uint64_t)slu_grpc_arena_limit(request)))
            ck_abort_msg("round %d: a part of all threads or connections is wrong", i);
    }
    ck_assert_int_gt(shared, 2000);
    ck_assert_int_gt(refused, 2000);
}
END_TEST

START_TEST(test_bounds_of_parts)
{
    ck_assert_uint_eq(share(512 * MIB, 1, 4096, 100).delta, 16 * MIB);
    ck_assert_uint_eq(share(512 * MIB + 32, 1, 4096, 100).delta, 16 * MIB + 1);
    ck_assert_uint_eq(share(16 * GIB, 1, 4096, 100).delta, 512 * MIB);
    ck_assert_uint_eq(share(16 * GIB - 32, 1, 4096, 100).delta, 512 * MIB - 1);
    ck_assert_uint_eq(share(1024 * GIB, 1, 4096, 100).delta, 512 * MIB);
    /* A thirty-second by thread, but at least two requests and a bit, at most 256 MiB. */
    ck_assert_uint_eq(share(4 * GIB, 4, 4096, 100).held, 32 * MIB);
    ck_assert_uint_eq(share(4 * GIB, 8, 8 << 20, 100).held, 17 * MIB);
    ck_assert_uint_eq(share(64 * GIB, 4, 4096, 100).held, 256 * MIB);
    ck_assert_uint_eq(share(1024 * GIB, 1, 127 << 20, 100).held, 256 * MIB);
    ck_assert_uint_eq(share(1024 * GIB, 1, 256 << 20, 100).held, 513 * MIB); /* however large they are */
}
END_TEST

/* The least that is enough, found from outside, and what is said a byte below it. */
START_TEST(test_the_least)
{
    slu_options o = options(0, 2, 4 << 20, 1000);
    slu_scorer_memory p;
    slu_error err = SLU_ERROR_INIT;
    uint64_t low = 1, high = 8 * GIB;
    while (low < high) {
        o.serving.memory_bytes = (low + high) / 2;
        if (slu_scorer_memory_of(&o, &p, NULL))
            low = o.serving.memory_bytes + 1;
        else
            high = o.serving.memory_bytes;
    }
    o.serving.memory_bytes = low;
    ck_assert_int_eq(slu_scorer_memory_of(&o, &p, NULL), 0);
    ck_assert_uint_eq(p.model, LEAST_MODEL);
    o.serving.memory_bytes = low - 1;
    ck_assert_int_eq(slu_scorer_memory_of(&o, &p, &err), SLU_ECONFIG);
    ck_assert_int_eq(err.code, SLU_ECONFIG);
    char part[200];
    snprintf(part, sizeof part,
             "serving.memory: %llu MiB leave no room for a model: versions take up to %llu, ",
             (unsigned long long)((low - 1) / MIB), (unsigned long long)(p.deltas / MIB));
    ck_assert_msg(strstr(err.message, part) && strstr(err.message, "scratch of 2 threads") &&
                      strstr(err.message, "store 112, Kafka 48, the program 64 MiB; give more, or lower "
                                          "serving.threads, serving.max_request or serving.max_connections"),
                  "%s", err.message);
    /* Each of the three remedies is one. */
    slu_options less[3] = {o, o, o};
    less[0].serving.threads = 1;
    less[1].serving.max_request_bytes = 1 << 20;
    less[2].serving.max_connections = 900;
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(slu_scorer_memory_of(&less[i], &p, NULL), 0);
}
END_TEST

/* Nothing said: four fifths of the machine. */
START_TEST(test_share_of_the_machine)
{
    const double machine = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    slu_scorer_memory p = share(0, 1, 4096, 10);
    ck_assert_uint_le(p.total, (uint64_t)(machine * .8));
    ck_assert_uint_gt(p.total, (uint64_t)(machine * .79));
    ck_assert_uint_eq(sum(&p), p.total);
}
END_TEST

int main(void)
{
    return run_suite("scorer_memory", (const TTest *[]){test_any_number, test_bounds_of_parts, test_the_least,
                                                        test_share_of_the_machine, NULL});
}
