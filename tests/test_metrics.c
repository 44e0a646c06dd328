#include "base/metrics.h"
#include "tests/suite.h"
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

static const char *printed(void)
{
    static slu_buf out;
    slu_buf_clear(&out);
    slu_metrics_print(&out);
    slu_put_u8(&out, 0);
    return (const char *)out.data;
}

START_TEST(test_counters_and_gauges)
{
    slu_metric *a = slu_counter("t_events_total", "kind=\"click\"", "Events.");
    slu_metric *b = slu_counter("t_events_total", "kind=\"order\"", "Events.");
    ck_assert_ptr_ne(a, b);
    ck_assert_ptr_eq(a, slu_counter("t_events_total", "kind=\"click\"", "Events."));
    slu_metric_add(a, 1);
    slu_metric_add(a, 2.5);
    slu_metric *g = slu_gauge("t_lag", NULL, "With \\ and\nnewline.");
    slu_metric_set(g, -7);
    slu_metric_add(g, 2);
    ck_assert_double_eq(slu_metric_value(a), 3.5);
    ck_assert_str_eq(printed(), "# HELP t_events_total Events.\n"
                                "# TYPE t_events_total counter\n"
                                "t_events_total{kind=\"click\"} 3.5\n"
                                "t_events_total{kind=\"order\"} 0\n"
                                "# HELP t_lag With \\\\ and\\nnewline.\n"
                                "# TYPE t_lag gauge\n"
                                "t_lag -5\n");
    slu_metric_set(g, INFINITY);
    ck_assert_ptr_nonnull(strstr(printed(), "t_lag +Inf\n"));
    slu_metric_set(g, 1234567890123.0); /* not rounded to 1.23457e+12 */
    ck_assert_ptr_nonnull(strstr(printed(), "t_lag 1234567890123\n"));
}
END_TEST

START_TEST(test_histogram)
{
    slu_metric *h = slu_histogram("t_seconds", "rpc=\"score\"", "Time.", 0.001, 10, 3);
    ck_assert_double_eq(slu_metric_quantile(h, 0.99), 0);
    for (int i = 0; i < 90; i++)
        slu_metric_observe(h, 0.001); /* bounds are inclusive */
    for (int i = 0; i < 9; i++)
        slu_metric_observe(h, 0.05);
    slu_metric_observe(h, 5);
    ck_assert_double_eq(slu_metric_value(h), 100);
    ck_assert_double_eq_tol(slu_metric_sum(h), 90 * 0.001 + 9 * 0.05 + 5, 1e-9);
    ck_assert_double_eq(slu_metric_quantile(h, 0), 0.001);
    ck_assert_double_eq(slu_metric_quantile(h, 0.5), 0.001);
    ck_assert_double_eq_tol(slu_metric_quantile(h, 0.95), 0.1, 1e-12);
    ck_assert(isinf(slu_metric_quantile(h, 1)));
    const char *text = printed();
    ck_assert_ptr_nonnull(strstr(text, "# TYPE t_seconds histogram\n"
                                       "t_seconds_bucket{rpc=\"score\",le=\"0.001\"} 90\n"
                                       "t_seconds_bucket{rpc=\"score\",le=\"0.01\"} 90\n"
                                       "t_seconds_bucket{rpc=\"score\",le=\"0.1\"} 99\n"
                                       "t_seconds_bucket{rpc=\"score\",le=\"+Inf\"} 100\n"
                                       "t_seconds_sum{rpc=\"score\"} 5.54\n"
                                       "t_seconds_count{rpc=\"score\"} 100\n"));
    slu_metric *plain = slu_histogram("t_plain", NULL, "Plain.", 1, 2, 1);
    slu_metric_observe(plain, NAN); /* counted above all bounds, not lost */
    ck_assert_double_eq(slu_metric_value(plain), 1);
    ck_assert_ptr_nonnull(strstr(printed(), "t_plain_bucket{le=\"1\"} 0\nt_plain_bucket{le=\"+Inf\"} 1\n"));
}
END_TEST

static void *count_up(void *arg)
{
    slu_metric *own = slu_counter("t_threads_total", NULL, "Registered by all.");
    for (int i = 0; i < 20000; i++) {
        slu_metric_add(own, 1);
        slu_metric_observe(arg, i % 3);
    }
    return NULL;
}

START_TEST(test_threads)
{
    pthread_t threads[4];
    slu_metric *h = slu_histogram("t_threads", NULL, "Shared.", 1, 2, 2);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, count_up, h), 0);
    for (int i = 0; i < 20; i++)
        printed();
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    ck_assert_double_eq(slu_metric_value(slu_counter("t_threads_total", NULL, "")), 80000);
    ck_assert_double_eq(slu_metric_value(h), 80000);
}
END_TEST

START_TEST(test_type_clash_aborts)
{
    slu_counter("t_clash", NULL, "A counter.");
    slu_gauge("t_clash", NULL, "A gauge.");
}
END_TEST

START_TEST(test_bad_name_aborts)
{
    slu_counter("t-clash", NULL, "Not a name.");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("metrics");
    TCase *good = tcase_create("good"), *bad = tcase_create("programmer mistakes");
    tcase_add_test(good, test_counters_and_gauges);
    tcase_add_test(good, test_histogram);
    tcase_add_test(good, test_threads);
    tcase_add_test_raise_signal(bad, test_type_clash_aborts, SIGABRT);
    tcase_add_test_raise_signal(bad, test_bad_name_aborts, SIGABRT);
    suite_add_tcase(suite, good);
    suite_add_tcase(suite, bad);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
