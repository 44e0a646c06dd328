#include "base/rng.h"
#include "tests/suite.h"
#include "trainer/kafka_shelf.h"
#include <stdlib.h>
#include <string.h>

#define LIMIT ((size_t)256 << 10)

/* Item |i| of shelf |which|: its bytes, their number and whether it is an end follow from both. */
static slu_shelf_item item_of(uint32_t which, uint64_t i, unsigned char *bytes)
{
    slu_rng rng;
    slu_rng_seed(&rng, i * 8 + which);
    size_t len = slu_rng_below(&rng, 50) ? slu_rng_below(&rng, 300) : slu_rng_below(&rng, 60000);
    memset(bytes, (int)(i + which), len);
    return (slu_shelf_item){.offset = (int64_t)i * 2,
                            .stamp_us = (int64_t)slu_rng_below(&rng, 1000),
                            .mark = i + which,
                            .len = len,
                            .bytes = bytes,
                            .end = slu_rng_below(&rng, 9) == 0};
}

/* What is taken is what was put, in order; the bound holds; and what there is no room for is not there. */
START_TEST(test_random)
{
    const uint64_t seed = 20261125;
    static unsigned char bytes[60000];
    slu_rng rng;
    slu_rng_seed(&rng, seed);
    slu_shelf_room room = {.limit = LIMIT};
    slu_shelf s[3] = {0};
    uint64_t put[3] = {0}, taken[3] = {0}, refused = 0, ends = 0;
    for (int turn = 0; turn < 200000; turn++) {
        uint32_t w = (uint32_t)slu_rng_below(&rng, 3);
        slu_shelf_item got, want;
        if (slu_rng_below(&rng, 5) < (turn / 1000 % 2 ? 2 : 3)) {
            want = item_of(w, put[w], bytes);
            if (slu_shelf_put(&s[w], &room, &want)) {
                put[w]++;
                ck_assert_int_eq(s[w].next, want.offset + !want.end);
            } else {
                refused++;
            }
        } else if (slu_shelf_first(&s[w], &room, &got)) {
            want = item_of(w, taken[w]++, bytes);
            ck_assert(got.offset == want.offset && got.stamp_us == want.stamp_us && got.mark == want.mark &&
                      got.len == want.len && got.end == want.end);
            ck_assert_int_eq(memcmp(got.bytes, want.bytes, want.len), 0);
            ends += got.end;
            slu_shelf_shift(&s[w]);
        } else {
            ck_assert_uint_eq(taken[w], put[w]);
        }
        ck_assert_uint_eq(s[w].n, put[w] - taken[w]);
        ck_assert_uint_le(room.used, LIMIT);
    }
    ck_assert(refused && ends && taken[0] > 1000);
    for (int w = 0; w < 3; w++)
        slu_shelf_clear(&s[w], &room);
    ck_assert_uint_eq(room.used, 0);
}
END_TEST

START_TEST(test_one_larger_than_the_bound)
{
    slu_shelf_room room = {.limit = 1000};
    slu_shelf a = {0}, b = {0};
    slu_shelf_item item = {.offset = 5, .len = 100000, .bytes = calloc(1, 100000)}, got;
    ck_assert(slu_shelf_put(&a, &room, &item));
    ck_assert(!slu_shelf_put(&a, &room, &item) && !slu_shelf_put(&b, &room, &item));
    ck_assert(slu_shelf_first(&a, &room, &got) && got.len == 100000);
    slu_shelf_shift(&a);
    ck_assert_uint_eq(((const unsigned char *)got.bytes)[99999], 0); /* still there */
    ck_assert(!slu_shelf_first(&a, &room, &got));
    ck_assert_uint_eq(room.used, 0);
    ck_assert(slu_shelf_put(&b, &room, &item));
    slu_shelf_clear(&b, &room);
    free((void *)(uintptr_t)item.bytes);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_random, test_one_larger_than_the_bound, NULL};
    return run_suite("kafka_shelf", tests);
}
