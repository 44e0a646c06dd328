#include "tests/pipeline_sample.h"
#include "trainer/watermark.h"

static slu_watermark *with_partitions(uint32_t n)
{
    slu_watermark *w = slu_watermark_new(10, 0);
    for (uint32_t i = 0; i < n; i++)
        slu_watermark_partition(w, i, &(slu_partition){"t", (int32_t)i});
    return w;
}

START_TEST(test_slowest_partition_decides)
{
    slu_watermark *w = with_partitions(2);
    slu_watermark_event(w, 0, 1000);
    ck_assert_int_eq(slu_watermark_now(w), INT64_MIN); /* partition 1 has yet to deliver */
    slu_watermark_event(w, 1, 500);
    ck_assert_int_eq(slu_watermark_now(w), 490);
    slu_watermark_event(w, 1, 2000);
    ck_assert_int_eq(slu_watermark_now(w), 990);
    ck_assert_int_eq(slu_watermark_newest(w), 2000);
    slu_watermark_free(w);
}
END_TEST

START_TEST(test_never_backwards)
{
    slu_watermark *w = with_partitions(1);
    slu_watermark_event(w, 0, 1000);
    slu_watermark_event(w, 0, 100);
    ck_assert_int_eq(slu_watermark_now(w), 990);
    /* A partition that comes later and lies behind holds it, but does not pull it back. */
    slu_watermark_partition(w, 1, &(slu_partition){"t", 1});
    slu_watermark_event(w, 1, 100);
    slu_watermark_event(w, 0, 5000);
    ck_assert_int_eq(slu_watermark_now(w), 990);
    slu_watermark_event(w, 1, 5000);
    ck_assert_int_eq(slu_watermark_now(w), 4990);
    slu_watermark_free(w);
}
END_TEST

START_TEST(test_idle_lets_go_until_next_event)
{
    slu_watermark *w = with_partitions(3);
    slu_watermark_event(w, 0, 1000);
    slu_watermark_event(w, 1, 200);
    slu_watermark_idle(w, 2);
    ck_assert_int_eq(slu_watermark_now(w), 190);
    slu_watermark_idle(w, 1);
    ck_assert_int_eq(slu_watermark_now(w), 990);
    slu_watermark_idle(w, 0); /* all idle: stands still */
    ck_assert_int_eq(slu_watermark_now(w), 990);
    slu_watermark_event(w, 2, 1500);
    ck_assert_int_eq(slu_watermark_now(w), 1490);
    slu_watermark_event(w, 0, 1600);
    slu_watermark_event(w, 2, 9000);
    ck_assert_int_eq(slu_watermark_now(w), 1590);
    slu_watermark_free(w);
}
END_TEST

START_TEST(test_wakes_alone)
{
    slu_watermark *w = with_partitions(2);
    slu_watermark_event(w, 0, 1000);
    slu_watermark_event(w, 1, 200);
    slu_watermark_idle(w, 0);
    slu_watermark_idle(w, 1); /* the slowest was the last to fall silent */
    ck_assert_int_eq(slu_watermark_now(w), 190);
    slu_watermark_event(w, 0, 900); /* nothing new, but nobody else holds it now */
    ck_assert_int_eq(slu_watermark_now(w), 990);
    slu_watermark_event(w, 0, 2000);
    ck_assert_int_eq(slu_watermark_now(w), 1990);
    slu_watermark_free(w);
}
END_TEST

/* At any moment: the lowest newest time of the active ones less the lateness, or what it was before. */
START_TEST(test_equals_its_definition)
{
    enum { PARTS = 5, STEPS = 20000 };
    slu_rng r;
    slu_rng_seed(&r, 11);
    slu_watermark *w = with_partitions(PARTS);
    int64_t newest[PARTS], expected = INT64_MIN, now = 1000;
    bool idle[PARTS] = {0};
    for (int i = 0; i < PARTS; i++)
        newest[i] = INT64_MIN;
    for (int step = 0; step < STEPS; step++) {
        uint32_t at = (uint32_t)slu_rng_below(&r, PARTS);
        uint64_t what = slu_rng_below(&r, 10);
        now += (int64_t)slu_rng_below(&r, 30);
        if (what < 4) {
            idle[at] = true;
            slu_watermark_idle(w, at);
        } else if (what < 5) {
            idle[at] = false;
            slu_watermark_hold(w, at);
            continue; /* seen with what comes next */
        } else {
            int64_t time_us = now - (int64_t)slu_rng_below(&r, 100);
            idle[at] = false;
            newest[at] = time_us > newest[at] ? time_us : newest[at];
            slu_watermark_event(w, at, time_us);
        }
        int64_t slowest = INT64_MAX;
        for (int i = 0; i < PARTS; i++)
            if (!idle[i] && newest[i] < slowest)
                slowest = newest[i];
        if (slowest != INT64_MAX && slowest != INT64_MIN && slowest - 10 > expected)
            expected = slowest - 10;
        ck_assert_msg(slu_watermark_now(w) == expected, "seed 11, step %d: %lld, expected %lld", step,
                      (long long)slu_watermark_now(w), (long long)expected);
    }
    slu_watermark_free(w);
}
END_TEST

START_TEST(test_read_again_holds)
{
    slu_watermark *w = with_partitions(2);
    slu_watermark_event(w, 0, 1000);
    slu_watermark_event(w, 1, 200);
    slu_watermark_idle(w, 1);
    ck_assert_int_eq(slu_watermark_now(w), 990);
    /* After a restart partition 1 has a backlog; partition 0's comes first. */
    slu_watermark_hold(w, 1);
    slu_watermark_event(w, 0, 9000);
    ck_assert_int_eq(slu_watermark_now(w), 990);
    slu_watermark_event(w, 1, 3000);
    ck_assert_int_eq(slu_watermark_now(w), 2990);
    slu_watermark_retire(w, 1); /* its topic is gone */
    ck_assert_int_eq(slu_watermark_now(w), 8990);
    slu_watermark_free(w);
}
END_TEST

START_TEST(test_saved_by_name)
{
    slu_watermark *w = with_partitions(2);
    slu_watermark_event(w, 0, 1000);
    slu_watermark_event(w, 1, 800);
    slu_watermark_offset(w, 0, 7, 0);
    slu_watermark_idle(w, 1);
    slu_buf b = SLU_BUF_INIT;
    slu_watermark_save(w, &b);
    slu_watermark *v = slu_watermark_new(10, 0);
    OK(slu_watermark_load(v, b.data, b.len, err));
    ck_assert_int_eq(slu_watermark_now(v), slu_watermark_now(w));
    /* The source may number its partitions the other way round now. */
    slu_watermark_partition(v, 0, &(slu_partition){"t", 1});
    slu_watermark_partition(v, 1, &(slu_partition){"t", 0});
    ck_assert_int_eq(slu_watermark_next_offset(v, 1), 7);
    ck_assert_int_eq(slu_watermark_next_offset(v, 0), -1);
    ck_assert_uint_eq(slu_watermark_count(v), 2);
    const size_t arrivals = 8 + 2 * 24; /* what older versions did not write */
    for (size_t cut = 0; cut < b.len; cut++) {
        slu_error err = SLU_ERROR_INIT;
        ck_assert_int_eq(slu_watermark_load(v, b.data, cut, &err),
                         cut == b.len - arrivals ? 0 : SLU_ECORRUPT);
    }
    slu_buf_free(&b);
    slu_watermark_free(v);
    slu_watermark_free(w);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("watermark");
    TCase *c = tcase_create("watermark");
    tcase_add_test(c, test_slowest_partition_decides);
    tcase_add_test(c, test_never_backwards);
    tcase_add_test(c, test_idle_lets_go_until_next_event);
    tcase_add_test(c, test_wakes_alone);
    tcase_add_test(c, test_equals_its_definition);
    tcase_add_test(c, test_read_again_holds);
    tcase_add_test(c, test_saved_by_name);
    suite_add_tcase(s, c);
    return sample_run(s);
}
