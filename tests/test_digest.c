#include "base/digest.h"
#include "tests/suite.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

START_TEST(test_pieces_do_not_matter)
{
    char text[1000], whole[33], parts[33];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (char)(i * 7);
    slu_digest *a = slu_digest_new(), *b = slu_digest_new();
    slu_digest_add(a, text, sizeof text);
    for (size_t at = 0, n = 1; at < sizeof text;
         at += n, n = n * 2 < sizeof text - at ? n * 2 : sizeof text - at)
        slu_digest_add(b, text + at, n < sizeof text - at ? n : sizeof text - at);
    slu_digest_add(b, NULL, 0);
    slu_digest_hex(a, whole);
    slu_digest_hex(b, parts);
    ck_assert_str_eq(whole, parts);
    ck_assert_uint_eq(strspn(whole, "0123456789abcdef"), 32);
    slu_hash128 once = slu_hash_128(text, sizeof text, 0);
    char hex[33];
    snprintf(hex, sizeof hex, "%016llx%016llx", (unsigned long long)once.hi, (unsigned long long)once.lo);
    ck_assert_str_eq(hex, whole);
    slu_digest_add(b, "x", 1); /* reading does not end it */
    slu_digest_hex(b, parts);
    ck_assert_str_ne(whole, parts);
    slu_digest_free(a);
    slu_digest_free(b);
    slu_digest_free(NULL);
}
END_TEST

START_TEST(test_known_hashes)
{
    /* Published test values of XXH3: stored models depend on them. */
    ck_assert_uint_eq(slu_hash64("", 0, 0), 0x2d06800538d394c2ULL);
    ck_assert_uint_eq(slu_hash_128("", 0, 0).lo, 0x6001c324468d497fULL);
    ck_assert_uint_eq(slu_hash_128("", 0, 0).hi, 0x99aa06d3014798d8ULL);
    ck_assert_uint_ne(slu_hash64("a", 1, 0), slu_hash64("a", 1, 1));
}
END_TEST

/* The sum that the wire promises, computed from its definition. */
static slu_row_sum defined_sum(uint32_t table, uint64_t id, const float *v, uint32_t n)
{
    uint8_t *bytes = malloc(12 + 4 * (size_t)n);
    memcpy(bytes, &table, 4);
    memcpy(bytes + 4, &id, 8);
    memcpy(bytes + 12, v, 4 * (size_t)n);
    slu_hash128 h = slu_hash_128(bytes, 12 + 4 * (size_t)n, 0);
    free(bytes);
    return h;
}

START_TEST(test_sum_of_rows)
{
    static const uint32_t lengths[] = {0, 1, 16, 252, 253, 254, 1000};
    float v[1000];
    for (int i = 0; i < 1000; i++)
        v[i] = (float)i / 3;
    slu_row_sum sum = {0}, expected = {0};
    for (uint32_t i = 0; i < 7; i++) {
        slu_hash128 h = defined_sum(i, 100 - i, v, lengths[i]);
        slu_row_sum_add(&sum, i, 100 - i, v, lengths[i]);
        expected.lo += h.lo;
        expected.hi += h.hi;
        ck_assert(sum.lo == expected.lo && sum.hi == expected.hi);
    }
    uint8_t bytes[SLU_SUM_BYTES];
    slu_sum_write(bytes, sum);
    ck_assert_uint_eq(bytes[0], sum.lo & 0xff);
    ck_assert_uint_eq(bytes[15], sum.hi >> 56);
    slu_hash128 again = slu_sum_read(bytes);
    ck_assert(again.lo == sum.lo && again.hi == sum.hi);
    /* In another order nothing is left. */
    for (uint32_t i = 7; i-- > 0;)
        slu_row_sum_remove(&sum, 6 - i, 94 + i, v, lengths[6 - i]);
    ck_assert(sum.lo == 0 && sum.hi == 0);
}
END_TEST

int main(void)
{
    return run_suite("digest",
                     (const TTest *[]){test_pieces_do_not_matter, test_known_hashes, test_sum_of_rows, NULL});
}
