#include "base/arena.h"
#include "base/rng.h"
#include "tests/suite.h"
#include <stdint.h>
#include <string.h>

START_TEST(test_pieces_do_not_overlap)
{
    enum { N = 500 };
    static unsigned char *piece[N];
    static size_t size[N];
    slu_arena *a = slu_arena_new(128, 0);
    slu_rng r;
    slu_rng_seed(&r, 1);
    size_t sum = 0;
    for (int i = 0; i < N; i++) {
        size[i] = 1 + slu_rng_below(&r, 300);
        piece[i] = slu_arena_alloc(a, size[i]);
        ck_assert_ptr_nonnull(piece[i]);
        ck_assert_uint_eq((uintptr_t)piece[i] % (size[i] >= 64 ? 64 : 16), 0);
        memset(piece[i], i & 0xff, size[i]);
        sum += size[i];
    }
    for (int i = 0; i < N; i++)
        for (size_t j = 0; j < size[i]; j++)
            ck_assert_uint_eq(piece[i][j], i & 0xff);
    ck_assert_uint_eq(slu_arena_used(a), sum);
    ck_assert_uint_ge(slu_arena_held(a), sum);
    slu_arena_free(a);
    slu_arena_free(NULL);
}
END_TEST

START_TEST(test_warm_arena_stops_growing)
{
    slu_arena *a = slu_arena_new(64, 0);
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 100; i++)
            ck_assert_ptr_nonnull(slu_arena_alloc(a, 100));
        slu_arena_reset(a);
        ck_assert_uint_eq(slu_arena_used(a), 0);
    }
    size_t held = slu_arena_held(a);
    for (int round = 0; round < 50; round++) {
        for (int i = 0; i < 100; i++)
            ck_assert_ptr_nonnull(slu_arena_alloc(a, 100));
        slu_arena_reset(a);
        ck_assert_uint_eq(slu_arena_held(a), held);
    }
    slu_arena_free(a);
}
END_TEST

START_TEST(test_limit)
{
    slu_arena *a = slu_arena_new(64, 1024);
    size_t got = 0;
    while (slu_arena_alloc(a, 60))
        got++;
    ck_assert_uint_ge(got, 8); /* doubling may waste a little at the end, not half of it */
    ck_assert_uint_le(slu_arena_held(a), 1024);
    ck_assert_ptr_null(slu_arena_alloc(a, 4096));
    ck_assert_ptr_null(slu_arena_alloc(a, SIZE_MAX));
    ck_assert_ptr_null(slu_arena_strndup(a, "", SIZE_MAX));
    slu_arena_reset(a);
    ck_assert_uint_le(slu_arena_held(a), 1024);
    ck_assert_ptr_nonnull(slu_arena_alloc(a, 60));
    slu_arena_free(a);
}
END_TEST

START_TEST(test_copies_and_zeros)
{
    slu_arena *a = slu_arena_new(0, 0);
    ck_assert_str_eq(slu_arena_strndup(a, "impression", 5), "impre");
    ck_assert_str_eq(slu_arena_strndup(a, NULL, 0), "");
    memset(slu_arena_alloc(a, 200), 0xff, 200);
    slu_arena_reset(a);
    unsigned char *zeros = slu_arena_zalloc(a, 300);
    for (int i = 0; i < 300; i++)
        ck_assert_uint_eq(zeros[i], 0);
    ck_assert_ptr_ne(slu_arena_alloc(a, 0), slu_arena_alloc(a, 0));
    slu_arena_free(a);
}
END_TEST

int main(void)
{
    return run_suite("arena", (const TTest *[]){test_pieces_do_not_overlap, test_warm_arena_stops_growing,
                                                test_limit, test_copies_and_zeros, NULL});
}
