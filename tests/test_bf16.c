/* Rounding to bf16 against the twin that compares both neighbours. */
#include "model/bf16.h"
#include "tests/numeric.h"
#include <string.h>

static float from_bits(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static void expect(uint32_t bits, slu_bf16 want)
{
    slu_bf16 got = slu_bf16_of(from_bits(bits));
    ck_assert_msg(got == want, "%08x becomes %04x, not %04x", bits, got, want);
}

START_TEST(test_known_values)
{
    expect(0x3f800000, 0x3f80); /* 1 */
    expect(0x80000000, 0x8000); /* -0 */
    expect(0x3f808000, 0x3f80); /* ties go to the even neighbour, down */
    expect(0x3f818000, 0x3f82); /* and up */
    expect(0xbf818000, 0xbf82);
    expect(0x3f808001, 0x3f81);
    expect(0x3f817fff, 0x3f81);
    expect(0x3fffffff, 0x4000); /* into the next power of two */
    expect(0x7f7f7fff, 0x7f7f); /* the largest one */
    expect(0x7f7f8000, 0x7f80); /* what is beyond it is infinite */
    expect(0x7f800000, 0x7f80);
    expect(0xff800000, 0xff80);
    expect(0x7fc00000, 0x7fc0); /* NaN stays one, also when all that says so is in the lower half */
    expect(0x7f800001, 0x7fc0);
    expect(0xffffffff, 0xffff);
    expect(0x00000001, 0x0000); /* denormals are numbers like others */
    expect(0x00008000, 0x0000);
    expect(0x00018000, 0x0002);
    expect(0x007fffff, 0x0080);
    expect(0x80010000, 0x8001);
}
END_TEST

/* Around every bf16 number: itself, both ties, and beside the ties; signs, denormals, infinities and NaN are
 * among them. */
START_TEST(test_against_twin)
{
    static const uint32_t beside[] = {0, 1, 0x7fff, 0x8000, 0x8001, 0xffff};
    for (uint32_t upper = 0; upper < 0x10000; upper++)
        for (int i = 0; i < 6; i++) {
            float x = from_bits(upper << 16 | beside[i]);
            ck_assert_msg(slu_bf16_of(x) == slu_bf16_of_ref(x), "%08x: %04x, twin %04x",
                          upper << 16 | beside[i], slu_bf16_of(x), slu_bf16_of_ref(x));
        }
}
END_TEST

/* Rows of any width with gaps between them; nothing else is written. */
START_TEST(test_matrices)
{
    slu_rng r;
    slu_rng_seed(&r, 5);
    for (uint32_t cols = 1; cols < 70; cols++) {
        enum { ROWS = 3, LD = 80 };
        float in[ROWS * LD], wide[ROWS * LD];
        slu_bf16 narrow[ROWS * LD];
        for (int i = 0; i < ROWS * LD; i++)
            in[i] = from_bits((uint32_t)slu_rng_u64(&r));
        memset(wide, 0x55, sizeof wide);
        memset(narrow, 0x55, sizeof narrow);
        slu_bf16_narrow(narrow, LD - 1, in, LD, ROWS, cols);
        slu_bf16_round(wide, LD - 1, in, LD, ROWS, cols);
        for (uint32_t at = 0; at < ROWS * LD; at++) {
            uint32_t row = at / (LD - 1), col = at % (LD - 1), bits;
            bool written = row < ROWS && col < cols;
            slu_bf16 want = written ? slu_bf16_of_ref(in[row * LD + col]) : 0x5555;
            memcpy(&bits, &wide[at], sizeof bits);
            ck_assert_msg(narrow[at] == want, "%u columns, row %u, column %u", cols, row, col);
            ck_assert_msg(bits == (written ? (uint32_t)want << 16 : 0x55555555),
                          "%u columns, row %u, column %u", cols, row, col);
        }
    }
}
END_TEST

START_TEST(test_pairs)
{
    slu_rng r;
    slu_rng_seed(&r, 6);
    for (uint32_t n = 1; n < 70; n++) {
        float a[70], b[70];
        slu_bf16 out[142];
        fill(a, 70, &r);
        fill(b, 70, &r);
        memset(out, 0x55, sizeof out);
        slu_bf16_pairs(out + 1, a, b, n);
        for (uint32_t i = 0; i < 142; i++) {
            slu_bf16 want = 0x5555;
            if (i >= 1 && i <= 2 * n)
                want = slu_bf16_of_ref(i % 2 ? a[(i - 1) / 2] : b[(i - 1) / 2]);
            ck_assert_msg(out[i] == want, "%u pairs, number %u", n, i);
        }
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("bf16");
    TCase *t = tcase_create("bf16");
    tcase_set_timeout(t, 60);
    tcase_add_test(t, test_known_values);
    tcase_add_test(t, test_against_twin);
    tcase_add_test(t, test_matrices);
    tcase_add_test(t, test_pairs);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
