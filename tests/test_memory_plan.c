#include "base/memory_plan.h"
#include "base/rng.h"
#include "tests/pipeline_sample.h"
#include "tests/suite.h"

#define MIB (1024ull * 1024)

static uint64_t sum(const slu_memory_plan *p)
{
    uint64_t total = 0;
    for (int i = 0; i < SLU_MEM_PARTS; i++)
        total += p->bytes[i];
    return total;
}

START_TEST(test_without_a_limit_it_is_the_sum)
{
    slu_options *o = sample_options((const char *[]){"store.cache=10MiB"}, 1);
    ck_assert_uint_eq(o->memory.bytes[SLU_MEM_ROWS], 10 * MIB);
    ck_assert_uint_eq(o->memory.bytes[SLU_MEM_JOIN], o->join.cache_bytes);
    ck_assert_uint_eq(o->join.cache_bytes, 256 * MIB);
    ck_assert_uint_eq(o->memory.total, sum(&o->memory));
    slu_options_free(o);
}
END_TEST

START_TEST(test_a_limit_is_divided)
{
    slu_options *o = sample_options((const char *[]){"training.memory=512MiB", "join.cache=32MiB"}, 2);
    ck_assert_uint_eq(o->join.cache_bytes, 32 * MIB); /* what is written stays */
    ck_assert_uint_eq(o->memory.total, 512 * MIB);
    ck_assert_uint_le(sum(&o->memory), 512 * MIB);
    ck_assert_uint_gt(sum(&o->memory), 500 * MIB);
    ck_assert_uint_eq(o->store.cache_bytes, o->memory.bytes[SLU_MEM_ROWS]);
    ck_assert_uint_eq(o->store.block_cache_bytes, o->memory.bytes[SLU_MEM_BLOCKS]);
    ck_assert_uint_gt(o->store.cache_bytes, 100 * MIB);
    slu_options_free(o);
}
END_TEST

START_TEST(test_too_small_says_the_sum)
{
    slu_options *o;
    slu_error err = SLU_ERROR_INIT;
    const char *const sets[] = {"training.memory=256MiB", "store.cache=200MiB"};
    ck_assert_int_eq(slu_options_parse(sample_yaml, strlen(sample_yaml), "s.yaml", sets, 2, &o, &err),
                     SLU_ECONFIG);
    ck_assert_msg(strstr(err.message, "training.memory") && strstr(err.message, "is 256MiB") &&
                      strstr(err.message, "at least 356MiB: rows 200MiB + join 4MiB + "),
                  "%s", err.message);
}
END_TEST

/* Whatever is given: never over the limit, never below what a part needs. */
START_TEST(test_any_division)
{
    slu_rng r;
    slu_rng_seed(&r, 5);
    for (int i = 0; i < 20000; i++) {
        uint64_t given[SLU_MEM_PARTS] = {0}, limit = slu_rng_below(&r, 4096 * MIB) + 1;
        uint64_t message = slu_rng_below(&r, 100 * MIB);
        for (int k = 0; k < SLU_MEM_PARTS; k++)
            if (slu_rng_below(&r, 4) == 0)
                given[k] = 1 + slu_rng_below(&r, 300 * MIB);
        slu_memory_plan p;
        if (slu_memory_divide(limit, given, message, &p, NULL))
            continue;
        ck_assert_uint_le(sum(&p), limit);
        for (int k = 0; k < SLU_MEM_PARTS; k++)
            ck_assert(given[k] ? p.bytes[k] == given[k] : p.bytes[k] >= 4 * MIB);
        ck_assert(given[SLU_MEM_FETCH] || p.bytes[SLU_MEM_FETCH] >= message);
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_without_a_limit_it_is_the_sum, test_a_limit_is_divided,
                                  test_too_small_says_the_sum, test_any_division, NULL};
    return run_suite("memory_plan", tests);
}
