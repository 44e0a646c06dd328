/* Orders in blocks against their own formula, written out for each; packing against picking element by
 * element. */
#include "model/bf16.h"
#include "model/blocks.h"
#include "tests/numeric.h"
#include "tests/suite.h"
#include <string.h>

enum { MOST = 200, ROOM = 256 * 320 };

/* Where element (k, n) lies, by the order's name. */
static size_t row_major(uint32_t k, uint32_t n, uint32_t K, uint32_t N)
{
    (void)K;
    return (size_t)k * N + n;
}

static size_t column_major(uint32_t k, uint32_t n, uint32_t K, uint32_t N)
{
    (void)N;
    return (size_t)n * K + k;
}

/* Blocks of 64 columns, in them 16 pairs of rows after each other (AMX and AVX-512 BF16 like it). */
static size_t pairs_of_64(uint32_t k, uint32_t n, uint32_t K, uint32_t N)
{
    (void)N;
    size_t k_blocks = (K + 31) / 32;
    return (n / 64 * k_blocks + k / 32) * 2048 + k % 32 / 2 * 128 + n % 64 * 2 + k % 2;
}

/* Blocks of 48 columns and 16 rows, of floats. */
static size_t floats_of_48(uint32_t k, uint32_t n, uint32_t K, uint32_t N)
{
    (void)N;
    size_t k_blocks = (K + 15) / 16;
    return (n / 48 * k_blocks + k / 16) * 768 + k % 16 * 48 + n % 48;
}

static slu_blocking blocking_of(int which, uint32_t K, uint32_t N)
{
    switch (which) {
    case 0:
        return (slu_blocking){.stride = {N, 1}};
    case 1:
        return (slu_blocking){.stride = {1, K}};
    case 2:
        return (slu_blocking){
            .stride = {2048, (K + 31) / 32 * 2048u}, .n = 3, .of = {0, 1, 0}, .size = {16, 64, 2}};
    default:
        return (slu_blocking){.stride = {768, (K + 15) / 16 * 768u}, .n = 2, .of = {0, 1}, .size = {16, 48}};
    }
}

START_TEST(test_every_element)
{
    static size_t (*const orders[])(uint32_t, uint32_t, uint32_t, uint32_t) = {row_major, column_major,
                                                                               pairs_of_64, floats_of_48};
    static const uint32_t sizes[] = {1, 2, 15, 16, 31, 32, 33, 64, 65, 96, 130, MOST};
    static float B[MOST * (MOST + 3)], wide[ROOM], want_wide[ROOM];
    static slu_bf16 narrow[ROOM], want[ROOM];
    const int which = _i % 4;
    slu_rng r;
    slu_rng_seed(&r, (uint64_t)_i);
    const uint32_t K = sizes[slu_rng_below(&r, 12)], N = sizes[slu_rng_below(&r, 12)];
    const bool transposed = slu_rng_below(&r, 2);
    const uint32_t ldb = (transposed ? K : N) + (uint32_t)slu_rng_below(&r, 4);
    fill(B, (size_t)(transposed ? N : K) * ldb, &r);
    memset(wide, 0, sizeof wide);
    memset(narrow, 0, sizeof narrow);
    memset(want_wide, 0, sizeof want_wide);
    memset(want, 0, sizeof want);
    for (uint32_t k = 0; k < K; k++)
        for (uint32_t n = 0; n < N; n++) {
            size_t at = orders[which](k, n, K, N);
            ck_assert_uint_lt(at, ROOM);
            want_wide[at] = B[transposed ? (size_t)n * ldb + k : (size_t)k * ldb + n];
            want[at] = slu_bf16_of(want_wide[at]);
        }
    slu_blocks b;
    slu_blocking how = blocking_of(which, K, N);
    ck_assert_int_eq(slu_blocks_init(&b, K, N, &how), 0);
    if (which == 2)
        ck_assert(b.pairs);
    if (which == 0 && K > 1 && N > 1)
        ck_assert(!b.pairs);
    slu_blocks_pack_bf16(&b, narrow, transposed, B, ldb);
    slu_blocks_pack(&b, wide, transposed, B, ldb);
    ck_assert_msg(!memcmp(narrow, want, sizeof want), "seed %d order %d K=%u N=%u transposed=%d in bf16", _i,
                  which, K, N, transposed);
    ck_assert_msg(!memcmp(wide, want_wide, sizeof wide), "seed %d order %d K=%u N=%u transposed=%d in floats",
                  _i, which, K, N, transposed);
    slu_blocks_free(&b);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("blocks");
    TCase *t = tcase_create("blocks");
    tcase_set_timeout(t, 60 * suite_slowness());
    tcase_add_loop_test(t, test_every_element, 0, suite_share(200, 12));
    suite_add_tcase(s, t);
    return finish_suite(s);
}
