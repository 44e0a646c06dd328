#include "tests/pipeline_sample.h"
#include "trainer/steady_clock.h"

typedef struct fake {
    int64_t wall_us, mono_us;
} fake;

static int64_t fake_wall(void *ctx)
{
    return ((fake *)ctx)->wall_us;
}
static int64_t fake_mono(void *ctx)
{
    return ((fake *)ctx)->mono_us;
}

static void pass(fake *f, int64_t us)
{
    f->wall_us += us;
    f->mono_us += us;
}

#define YEAR (365 * 24 * HOUR)

START_TEST(test_a_step_back_is_not_followed)
{
    fake f = {T0, 5 * SECOND};
    slu_clock clock = {fake_wall, fake_mono, &f};
    slu_steady_clock c = slu_steady_clock_start(&clock);
    pass(&f, SECOND);
    ck_assert_int_eq(slu_steady_clock_now(&c), T0 + SECOND);
    f.wall_us -= YEAR;
    pass(&f, SECOND);
    ck_assert_int_eq(slu_steady_clock_now(&c), T0 + 2 * SECOND);
    ck_assert_int_eq(slu_steady_clock_off(&c), -YEAR);
    f.wall_us += YEAR; /* mended */
    ck_assert_int_eq(slu_steady_clock_now(&c), T0 + 2 * SECOND);
    ck_assert_int_eq(slu_steady_clock_off(&c), 0);
}
END_TEST

START_TEST(test_a_step_ahead_is_followed)
{
    fake f = {10 * SECOND, 3 * SECOND}; /* a machine that has just booted */
    slu_clock clock = {fake_wall, fake_mono, &f};
    slu_steady_clock c = slu_steady_clock_start(&clock);
    f.wall_us = T0;
    ck_assert_int_eq(slu_steady_clock_now(&c), T0);
    pass(&f, MINUTE);
    ck_assert_int_eq(slu_steady_clock_now(&c), T0 + MINUTE);
}
END_TEST

START_TEST(test_never_backwards)
{
    fake f = {T0, 0};
    slu_clock clock = {fake_wall, fake_mono, &f};
    slu_steady_clock c = slu_steady_clock_start(&clock);
    slu_rng r;
    slu_rng_seed(&r, 3);
    int64_t before = 0;
    for (int i = 0; i < 10000; i++) {
        f.mono_us += (int64_t)slu_rng_below(&r, SECOND);
        f.wall_us += (int64_t)slu_rng_below(&r, 2 * SECOND) - SECOND / 2;
        int64_t now = slu_steady_clock_now(&c);
        ck_assert_int_ge(now, before);
        ck_assert_int_ge(now, f.wall_us);
        before = now;
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("steady_clock");
    TCase *c = tcase_create("steady_clock");
    tcase_add_test(c, test_a_step_back_is_not_followed);
    tcase_add_test(c, test_a_step_ahead_is_followed);
    tcase_add_test(c, test_never_backwards);
    suite_add_tcase(s, c);
    return sample_run(s);
}
