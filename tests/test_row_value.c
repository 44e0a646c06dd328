/* The bytes of a stored row and of its key, by hand: what is on disk today must be read for ever. */
#include "base/rng.h"
#include "store/row_value.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

#define SEED 20261126u

static const uint8_t admitted[] = {1, 1,                             /* version, flags */
                                   4, 3, 2,    1,                    /* count */
                                   8, 7, 6,    5,                    /* last seen */
                                   0, 0, 0x80, 0x3f, 0, 0, 0, 0xc0}; /* 1, -2 */
static const uint8_t waiting[] = {1, 0, 4, 3, 2, 1, 8, 7, 6, 5};

START_TEST(test_bytes)
{
    uint8_t out[sizeof admitted];
    const float v[] = {1, -2};
    ck_assert_uint_eq(slu_row_value_write(out, 0x01020304, 0x05060708, true, v, 2), sizeof admitted);
    ck_assert_mem_eq(out, admitted, sizeof admitted);
    ck_assert_uint_eq(slu_row_value_write(out, 0x01020304, 0x05060708, false, v, 2), sizeof waiting);
    ck_assert_mem_eq(out, waiting, sizeof waiting);

    slu_row_value r;
    float back[2] = {7, 7};
    ck_assert_int_eq(slu_row_value_parse(admitted, sizeof admitted, &r, NULL), 0);
    ck_assert(r.admitted && r.count == 0x01020304 && r.last_seen == 0x05060708 && r.floats == 2);
    ck_assert_ptr_eq(r.v, admitted + SLU_ROW_VALUE_HEADER);
    slu_row_value_floats(&r, back);
    ck_assert(back[0] == 1 && back[1] == -2);
    ck_assert_int_eq(slu_row_value_parse(waiting, sizeof waiting, &r, NULL), 0);
    ck_assert(!r.admitted && r.count == 0x01020304 && r.last_seen == 0x05060708 && !r.floats && !r.v);
    slu_row_value_floats(&r, back); /* leaves it as it is */
    ck_assert(back[0] == 1 && back[1] == -2);
    /* A row of a table without floats is admitted, too. */
    ck_assert_uint_eq(slu_row_value_write(out, 1, 2, true, v, 0), SLU_ROW_VALUE_HEADER);
    ck_assert_int_eq(slu_row_value_parse(out, SLU_ROW_VALUE_HEADER, &r, NULL), 0);
    ck_assert(r.admitted && !r.floats);
}
END_TEST

static int parse(const uint8_t *p, size_t n, slu_error *err)
{
    slu_row_value r;
    uint8_t *exact = malloc(n + !n); /* so that a sanitizer sees a byte too far */
    memcpy(exact, p, n);
    slu_error_clear(err);
    int rc = slu_row_value_parse(exact, n, &r, err);
    ck_assert_int_eq(rc, err->code);
    free(exact);
    return rc;
}

START_TEST(test_what_is_no_row)
{
    slu_error err = SLU_ERROR_INIT;
    uint8_t bytes[sizeof admitted];
    for (size_t n = 0; n < sizeof admitted; n++) {
        int want = n < SLU_ROW_VALUE_HEADER || (n - SLU_ROW_VALUE_HEADER) % 4 ? SLU_ECORRUPT : 0;
        ck_assert_int_eq(parse(admitted, n, &err), want);
    }
    memcpy(bytes, admitted, sizeof bytes);
    bytes[1] = 0; /* not admitted, and floats all the same */
    ck_assert_int_eq(parse(bytes, sizeof bytes, &err), SLU_ECORRUPT);
    ck_assert_ptr_nonnull(strstr(err.message, "no row has 18 bytes"));
    for (int version = 0; version < 256; version++) {
        bytes[0] = (uint8_t)version;
        bytes[1] = 1;
        ck_assert_int_eq(parse(bytes, sizeof bytes, &err), version == 1 ? 0 : SLU_EFORMAT);
    }
    for (int flags = 0; flags < 256; flags++) {
        bytes[0] = 1;
        bytes[1] = (uint8_t)flags;
        ck_assert_int_eq(parse(bytes, SLU_ROW_VALUE_HEADER, &err), flags < 2 ? 0 : SLU_EFORMAT);
    }
}
END_TEST

START_TEST(test_keys)
{
    static const uint8_t want[] = {1, 2, 3, 4, 0x11, 0x12, 0x13, 0x14, 0x15, 0x16, 0x17, 0x18};
    uint8_t key[SLU_ROW_KEY_BYTES], other[SLU_ROW_KEY_BYTES];
    uint32_t table;
    uint64_t id;
    slu_error err = SLU_ERROR_INIT;
    slu_row_key_write(key, 0x01020304, 0x1112131415161718);
    ck_assert_mem_eq(key, want, sizeof want);
    for (size_t n = 0; n <= 2 * sizeof key; n++) {
        uint8_t bytes[2 * sizeof key] = {0};
        slu_error_clear(&err);
        ck_assert_int_eq(slu_row_key_parse(bytes, n, &table, &id, &err), n == sizeof key ? 0 : SLU_ECORRUPT);
    }
    /* They sort as bytes like (table, id), and come back. */
    printf("seed %u\n", SEED);
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    for (int i = 0; i < 100000; i++) {
        uint32_t ta = (uint32_t)(slu_rng_u64(&rng) >> (32 + slu_rng_below(&rng, 32)));
        uint32_t tb = slu_rng_below(&rng, 2) ? ta : (uint32_t)(slu_rng_u64(&rng) >> 33);
        uint64_t a = slu_rng_u64(&rng) >> slu_rng_below(&rng, 64);
        uint64_t b = slu_rng_below(&rng, 2) ? a + 1 : slu_rng_u64(&rng);
        slu_row_key_write(key, ta, a);
        slu_row_key_write(other, tb, b);
        int order = memcmp(key, other, sizeof key);
        bool before = ta != tb ? ta < tb : a < b, after = ta != tb ? ta > tb : a > b;
        if ((order < 0) != before || (order > 0) != after ||
            slu_row_key_parse(key, sizeof key, &table, &id, NULL) || table != ta || id != a)
            ck_abort_msg("keys of (%u, %llu) and (%u, %llu)", ta, (unsigned long long)a, tb,
                         (unsigned long long)b);
    }
}
END_TEST

int main(void)
{
    return run_suite("row_value", (const TTest *[]){test_bytes, test_what_is_no_row, test_keys, NULL});
}
