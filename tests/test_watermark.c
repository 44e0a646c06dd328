#include "tests/pipeline_sample.h"
#include "trainer/watermark.h"

static slu_watermark *with_partitions(uint32_t n)
{
    slu_watermark *w = slu_watermark_new(10);
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

START_TEST(test_saved_by_name)
{
    slu_watermark *w = with_partitions(2);
    slu_watermark_event(w, 0, 1000);
    slu_watermark_event(w, 1, 800);
    slu_watermark_offset(w, 0, 7);
    slu_watermark_idle(w, 1);
    slu_buf b = SLU_BUF_INIT;
    slu_watermark_save(w, &b);
    slu_watermark *v = slu_watermark_new(10);
    OK(slu_watermark_load(v, b.data, b.len, err));
    ck_assert_int_eq(slu_watermark_now(v), slu_watermark_now(w));
    /* The source may number its partitions the other way round now. */
    slu_watermark_partition(v, 0, &(slu_partition){"t", 1});
    slu_watermark_partition(v, 1, &(slu_partition){"t", 0});
    ck_assert_int_eq(slu_watermark_next_offset(v, 1), 7);
    ck_assert_int_eq(slu_watermark_next_offset(v, 0), -1);
    ck_assert_uint_eq(slu_watermark_count(v), 2);
    for (size_t cut = 0; cut < b.len; cut++) {
        slu_error err = SLU_ERROR_INIT;
        ck_assert_int_eq(slu_watermark_load(v, b.data, cut, &err), SLU_ECORRUPT);
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
    tcase_add_test(c, test_saved_by_name);
    suite_add_tcase(s, c);
    return sample_run(s);
}
