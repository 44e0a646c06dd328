#include "base/bytes.h"
#include "base/rng.h"
#include "tests/suite.h"
#include <math.h>
#include <string.h>

static const uint64_t edges[] = {0, 1, 0x7f, 0x80, 0xff, 0x3fff, 0x4000, 0xffffffff, 0x100000000, UINT64_MAX};
#define EDGES (sizeof edges / sizeof *edges)

START_TEST(test_everything_reads_back)
{
    slu_buf b = SLU_BUF_INIT;
    for (size_t i = 0; i < EDGES; i++) {
        slu_put_u8(&b, (uint8_t)edges[i]);
        slu_put_u16(&b, (uint16_t)edges[i]);
        slu_put_u32(&b, (uint32_t)edges[i]);
        slu_put_u64(&b, edges[i]);
        slu_put_u64_be(&b, edges[i]);
        slu_put_varint(&b, edges[i]);
    }
    slu_put_floats(&b, (const float[]){-0.0f}, 1);
    slu_put_f64(&b, 0.1);
    slu_put_floats(&b, (const float[]){1.5f, -2.25f, NAN}, 3);
    slu_put_floats(&b, NULL, 0);
    slu_put_str(&b, "caf\xc3\xa9", 5);
    slu_put_str(&b, NULL, 0);
    slu_reader r = slu_reader_of(b.data, b.len);
    for (size_t i = 0; i < EDGES; i++) {
        ck_assert_uint_eq(slu_get_u8(&r), (uint8_t)edges[i]);
        ck_assert_uint_eq(slu_get_u16(&r), (uint16_t)edges[i]);
        ck_assert_uint_eq(slu_get_u32(&r), (uint32_t)edges[i]);
        ck_assert_uint_eq(slu_get_u64(&r), edges[i]);
        ck_assert_uint_eq(slu_get_u64_be(&r), edges[i]);
        ck_assert_uint_eq(slu_get_varint(&r), edges[i]);
    }
    ck_assert(signbit(slu_get_f32(&r)));
    ck_assert_double_eq(slu_get_f64(&r), 0.1);
    ck_assert(slu_get_f32(&r) == 1.5f && slu_get_f32(&r) == -2.25f && isnan(slu_get_f32(&r)));
    size_t n;
    const uint8_t *s = slu_get_str(&r, &n);
    ck_assert_uint_eq(n, 5);
    ck_assert_mem_eq(s, "caf\xc3\xa9", 5);
    ck_assert_ptr_nonnull(slu_get_str(&r, &n));
    ck_assert_uint_eq(n, 0);
    ck_assert(!r.bad);
    ck_assert_uint_eq(slu_reader_left(&r), 0);
    slu_buf_free(&b);
    ck_assert_ptr_null(b.data);
}
END_TEST

START_TEST(test_known_bytes)
{
    /* Stores and topics of older versions have these bytes: a change here is a new format. */
    slu_buf b = SLU_BUF_INIT;
    slu_put_u32(&b, 0x01020304);
    slu_put_u64_be(&b, 0x0102030405060708);
    slu_put_varint(&b, 300);
    slu_put_floats(&b, (const float[]){1.0f}, 1);
    static const uint8_t expected[] = {4, 3, 2, 1, 1, 2, 3, 4, 5, 6, 7, 8, 0xac, 2, 0, 0, 0x80, 0x3f};
    ck_assert_uint_eq(b.len, sizeof expected);
    ck_assert_mem_eq(b.data, expected, sizeof expected);
    slu_buf_free(&b);
}
END_TEST

START_TEST(test_overrun_is_sticky)
{
    slu_reader r = slu_reader_of("\x01\x02\x03", 3);
    ck_assert_uint_eq(slu_get_u32(&r), 0);
    ck_assert(r.bad);
    ck_assert_uint_eq(slu_get_u8(&r), 0);
    ck_assert_ptr_null(slu_get_bytes(&r, 0));
    r = slu_reader_of("\x05xy", 3); /* a text longer than what is left */
    size_t n = 99;
    ck_assert_ptr_null(slu_get_str(&r, &n));
    ck_assert_uint_eq(n, 0);
    ck_assert(r.bad);
    r = slu_reader_of(NULL, 0);
    ck_assert(!r.bad);
    ck_assert_uint_eq(slu_get_u8(&r), 0);
    ck_assert(r.bad);
}
END_TEST

START_TEST(test_bad_varints)
{
    static const struct {
        const char *bytes;
        size_t n;
    } bad[] = {
        {"\x80", 1},                                      /* ends in the middle */
        {"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", 10}, /* above 64 bits */
        {"\x80\x80\x80\x80\x80\x80\x80\x80\x80\x80\x01", 11},
        {"\x81\x00", 2}, /* longer than needed */
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        slu_reader r = slu_reader_of(bad[i].bytes, bad[i].n);
        ck_assert_uint_eq(slu_get_varint(&r), 0);
        ck_assert_msg(r.bad, "case %zu", i);
    }
}
END_TEST

START_TEST(test_random_bytes_never_overrun)
{
    /* Under AddressSanitizer a read beyond |bytes| would end the test. */
    slu_rng rng;
    slu_rng_seed(&rng, 7);
    for (int round = 0; round < 20000; round++) {
        size_t n = slu_rng_below(&rng, 20), len;
        uint8_t *bytes = malloc(n ? n : 1);
        for (size_t i = 0; i < n; i++)
            bytes[i] = (uint8_t)slu_rng_u64(&rng);
        slu_reader r = slu_reader_of(bytes, n);
        while (!r.bad && slu_reader_left(&r)) {
            switch (slu_rng_below(&rng, 4)) {
            case 0:
                slu_get_varint(&r);
                break;
            case 1:
                slu_get_str(&r, &len);
                break;
            case 2:
                slu_get_u64(&r);
                break;
            default:
                slu_get_bytes(&r, slu_rng_u64(&rng) >> slu_rng_below(&rng, 64));
            }
        }
        free(bytes);
    }
}
END_TEST

int main(void)
{
    return run_suite("bytes",
                     (const TTest *[]){test_everything_reads_back, test_known_bytes, test_overrun_is_sticky,
                                       test_bad_varints, test_random_bytes_never_overrun, NULL});
}
