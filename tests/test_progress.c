#include "tests/pipeline_sample.h"
#include "trainer/progress.h"
#include <math.h>

#define SEED 20260101
#define N    4000

/* The slow, obvious AUC: every pair. */
static double auc_by_pairs(const double *p, const int *y, int n)
{
    double wins = 0, pairs = 0;
    for (int i = 0; i < n; i++)
        for (int j = 0; j < n; j++)
            if (y[i] && !y[j]) {
                pairs++;
                wins += p[i] > p[j] ? 1 : p[i] == p[j] ? 0.5 : 0;
            }
    return wins / pairs;
}

static double sigmoid(double a)
{
    return 1 / (1 + exp(-a));
}

START_TEST(test_against_plain_sums)
{
    slu_rng r;
    slu_rng_seed(&r, SEED);
    slu_progress *p = slu_progress_new(2);
    static double click[N], both[N], buy[N];
    static int y_click[N], y_both[N], y_buy[N];
    int clicks = 0;
    double logloss = 0, predicted = 0;
    for (int i = 0; i < N; i++) {
        float a[2] = {(float)(slu_rng_normal(&r) - 1), (float)(slu_rng_normal(&r) - 0.5)};
        int c = slu_rng_unit(&r) < sigmoid(a[0]), b = slu_rng_unit(&r) < sigmoid(a[1]);
        slu_progress_add(p, a, (uint32_t)(c | b << 1));
        click[i] = sigmoid(a[0]);
        both[i] = sigmoid(a[0]) * sigmoid(a[1]);
        y_click[i] = c;
        y_both[i] = c && b;
        if (c) {
            buy[clicks] = sigmoid(a[1]);
            y_buy[clicks++] = b;
        }
        logloss -= y_both[i] ? log(both[i]) : log1p(-both[i]);
        predicted += both[i];
    }
    slu_metric_row rows[2 * SLU_MAX_STEPS];
    ck_assert_uint_eq(slu_progress_rows(p, rows), 3);
    ck_assert(rows[0].step == 0 && rows[0].entire_space && rows[1].step == 1 && rows[1].entire_space);
    ck_assert(rows[2].step == 1 && !rows[2].entire_space);
    ck_assert_msg(fabs(rows[0].auc - auc_by_pairs(click, y_click, N)) < 1e-4, "seed %d", SEED);
    ck_assert_msg(fabs(rows[1].auc - auc_by_pairs(both, y_both, N)) < 1e-4, "seed %d", SEED);
    ck_assert_msg(fabs(rows[2].auc - auc_by_pairs(buy, y_buy, clicks)) < 1e-4, "seed %d", SEED);
    ck_assert_uint_eq(rows[2].count, (unsigned)clicks);
    ck_assert_double_eq_tol(rows[1].logloss, logloss / N, 1e-6);
    double base = (double)rows[1].positives / N;
    ck_assert_double_eq_tol(rows[1].ne, logloss / N / (-base * log(base) - (1 - base) * log(1 - base)), 1e-5);
    ck_assert_double_eq_tol(rows[1].calibration, predicted / (double)rows[1].positives, 1e-5);
    slu_progress_free(p);
}
END_TEST

START_TEST(test_a_step_without_the_one_before_is_no_conversion)
{
    slu_progress *p = slu_progress_new(2);
    slu_progress_add(p, (float[]){0, 0}, 2); /* bought without a click */
    slu_metric_row rows[2 * SLU_MAX_STEPS];
    slu_progress_rows(p, rows);
    ck_assert_uint_eq(rows[1].positives, 0);
    ck_assert_uint_eq(rows[2].count, 0);
    slu_progress_free(p);
}
END_TEST

START_TEST(test_nothing_is_not_a_number)
{
    slu_progress *p = slu_progress_new(1);
    slu_metric_row rows[2 * SLU_MAX_STEPS];
    ck_assert_uint_eq(slu_progress_rows(p, rows), 1);
    ck_assert(isnan(rows[0].auc) && isnan(rows[0].logloss) && isnan(rows[0].calibration));
    slu_progress_add(p, (float[]){1000}, 1); /* saturated logits stay finite */
    slu_progress_add(p, (float[]){-1000}, 1);
    slu_progress_rows(p, rows);
    ck_assert(isfinite(rows[0].logloss));
    slu_progress_free(p);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("progress");
    TCase *c = tcase_create("progress");
    tcase_add_test(c, test_against_plain_sums);
    tcase_add_test(c, test_a_step_without_the_one_before_is_no_conversion);
    tcase_add_test(c, test_nothing_is_not_a_number);
    suite_add_tcase(s, c);
    return sample_run(s);
}
