#include "model/activation.h"
#include "model/loss.h"
#include "tests/numeric.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const float ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
static const uint8_t labels_all[8] = {SLU_SAY_LABEL, SLU_SAY_LABEL, SLU_SAY_LABEL, SLU_SAY_LABEL,
                                      SLU_SAY_LABEL, SLU_SAY_LABEL, SLU_SAY_LABEL, SLU_SAY_LABEL};

static double loss_of(float a, float b, float y, float z, float d[2])
{
    float logits[2] = {a, b}, labels[2] = {y, y * z};
    return slu_funnel_loss(d, logits, labels, labels_all, ones, 1, 2);
}

/* The check values of ESMM with a = .5, b = -1. */
START_TEST(test_check_values)
{
    float d[2], logits[2] = {.5f, -1}, c[2], p[2];
    slu_funnel_probabilities(c, p, logits, 1, 2);
    ck_near(c[0], .622459, 1e-6, "pCTR");
    ck_near(c[1], .268941, 1e-6, "pCVR");
    ck_near(p[0], .622459, 1e-6, "P0");
    ck_near(p[1], .167405, 1e-6, "pCTCVR");
    ck_near(loss_of(.5f, -1, 1, 0, d), .657285, 1e-6, "clicked");
    double r = .167405 / (1 - .167405);
    ck_near(d[0], .622459 - 1 + r * (1 - .622459), 1e-6, "da");
    ck_near(d[1], r * (1 - .268941), 1e-6, "db");
    ck_near(loss_of(.5f, -1, 1, 1, d), .474077 + 1.787339, 1e-6, "converted");
    ck_near(loss_of(.5f, -1, 0, 0, d), .974077 + .183208, 1e-6, "nothing");
}
END_TEST

/* With logits far out every term stays finite and keeps its limit. */
START_TEST(test_extremes)
{
    static const float far[] = {-1000, -200, -40, 40, 200, 1000};
    for (int i = 0; i < 6; i++)
        for (int j = 0; j < 6; j++)
            for (int label = 0; label < 3; label++) {
                float d[2], a = far[i], b = far[j];
                double loss = loss_of(a, b, label > 0, label > 1, d);
                ck_assert_msg(isfinite(loss) && loss >= 0, "a=%g b=%g label %d: loss %g", a, b, label, loss);
                ck_assert_msg(fabsf(d[0]) <= 2.0001f && fabsf(d[1]) <= 1.0001f, "a=%g b=%g: d %g %g", a, b,
                              d[0], d[1]);
            }
    float d[2];
    /* P near 1 and no click: each BCE is log(1 + e^a), its slope 1 - and the joint one is shared by who is
     * nearer to 0. */
    ck_near(loss_of(40, 40, 0, 0, d), 40 + (40 - M_LN2), 1e-6, "both sure, nothing came");
    ck_near(d[0], 1 + .5, 1e-6, "da");
    ck_near(d[1], .5, 1e-6, "db");
    ck_near(loss_of(1000, 1000, 0, 0, d), 1000 + 1000 - M_LN2, 1e-6, "very sure");
    ck_near(d[0], 1.5, 1e-6, "da");
}
END_TEST

/* Random funnels of 1..6 steps with every way of speaking: equal to the definition in double, and its
 * gradient to finite differences of the loss with detached weights held. */
START_TEST(test_against_reference)
{
    uint64_t seed = 300 + (uint64_t)_i;
    slu_rng r;
    slu_rng_seed(&r, seed);
    uint32_t T = 1 + (uint32_t)slu_rng_below(&r, 6), B = 1 + (uint32_t)slu_rng_below(&r, 9);
    float logits[60], labels[60], d[60], weight[6];
    double wide[60], dref[60];
    uint8_t say[60];
    for (uint32_t t = 0; t < T; t++)
        weight[t] = (float)(.2 + slu_rng_unit(&r));
    for (uint32_t i = 0; i < B * T; i++) {
        wide[i] = logits[i] = (float)(3 * slu_rng_normal(&r));
        labels[i] = _i % 3 == 0 ? (float)slu_rng_unit(&r) : (float)slu_rng_below(&r, 2);
        say[i] = (uint8_t)slu_rng_below(&r, 4);
    }
    double loss = slu_funnel_loss(d, logits, labels, say, weight, B, T);
    ck_near(loss, slu_funnel_loss_ref(dref, wide, labels, say, weight, B, T), 1e-9, "seed %llu",
            (unsigned long long)seed);
    for (uint32_t i = 0; i < B * T; i++)
        ck_near(d[i], dref[i], 1e-6, "seed %llu d[%u]", (unsigned long long)seed, i);
    /* Detached: turn FNW kinds into settled labels whose task weight is the FNW weight, row by row. */
    for (uint32_t b = 0; b < B; b++) {
        float fixed_weight[6], fixed_label[6], p[6];
        uint8_t fixed_say[6];
        slu_funnel_probabilities(NULL, p, logits + b * T, 1, T);
        for (uint32_t t = 0; t < T; t++) {
            uint8_t how = say[b * T + t];
            fixed_say[t] = how == SLU_SAY_NOTHING ? SLU_SAY_NOTHING : SLU_SAY_LABEL;
            fixed_label[t] = how == SLU_SAY_LABEL ? labels[b * T + t] : how == SLU_SAY_FNW_POSITIVE;
            fixed_weight[t] = how == SLU_SAY_FNW_NEGATIVE ? weight[t] * (1 - p[t]) : weight[t];
        }
        for (uint32_t s = 0; s < T; s++) {
            double a[6], unused[6], h = 1e-5;
            memcpy(a, wide + b * T, T * sizeof *a);
            a[s] += h;
            double up = slu_funnel_loss_ref(unused, a, fixed_label, fixed_say, fixed_weight, 1, T);
            a[s] -= 2 * h;
            double down = slu_funnel_loss_ref(unused, a, fixed_label, fixed_say, fixed_weight, 1, T);
            ck_near(d[b * T + s], (up - down) / (2 * h), 1e-5, "seed %llu row %u task %u",
                    (unsigned long long)seed, b, s);
        }
    }
}
END_TEST

START_TEST(test_silence)
{
    float logits[6] = {1, 2, 3, 4, 5, 6}, labels[6] = {1, 1, 1, 0, 0, 0}, d[6] = {9, 9, 9, 9, 9, 9};
    uint8_t say[6] = {0};
    ck_assert(slu_funnel_loss(d, logits, labels, say, ones, 2, 3) == 0);
    for (int i = 0; i < 6; i++)
        ck_assert(d[i] == 0);
    /* Only the first step speaks: later logits learn nothing. */
    say[0] = SLU_SAY_LABEL;
    ck_assert(slu_funnel_loss(d, logits, labels, say, ones, 2, 3) > 0);
    ck_assert(d[0] != 0 && d[1] == 0 && d[2] == 0);
    /* A task of weight 0 is as silent. */
    ck_assert(slu_funnel_loss(d, logits, labels, say, (float[3]){0, 1, 1}, 2, 3) == 0);
}
END_TEST

/* Every impression arrives as a negative and a share p of them again as a positive: at f = p the expected
 * gradient is 0. */
START_TEST(test_fake_negatives_are_unbiased)
{
    const double p = .2;
    float logit = (float)log(p / (1 - p)), negative, positive, label = 0;
    uint8_t n = SLU_SAY_FNW_NEGATIVE, y = SLU_SAY_FNW_POSITIVE;
    slu_funnel_loss(&negative, &logit, &label, &n, ones, 1, 1);
    slu_funnel_loss(&positive, &logit, &label, &y, ones, 1, 1);
    ck_near(negative, (1 - p) * p, 1e-6, "negative");
    ck_near(negative + p * positive, 0, 1e-7, "expected gradient");
    /* Weights are clipped: a sure model still learns from a negative. */
    logit = 60;
    slu_funnel_loss(&negative, &logit, &label, &n, ones, 1, 1);
    ck_near(negative * 1e6, 1, 1e-3, "clipped weight");
}
END_TEST

START_TEST(test_probabilities_fall_along_the_funnel)
{
    slu_rng r;
    slu_rng_seed(&r, 11);
    float logits[8], c[8], p[8];
    for (int n = 0; n < 1000; n++) {
        for (int t = 0; t < 8; t++)
            logits[t] = (float)(10 * slu_rng_normal(&r));
        slu_funnel_probabilities(c, p, logits, 1, 8);
        for (int t = 0; t < 8; t++) {
            ck_assert(c[t] >= 0 && c[t] <= 1 && p[t] <= c[t]);
            ck_assert(t == 0 || p[t] <= p[t - 1]);
        }
    }
    slu_funnel_probabilities(c, NULL, logits, 1, 8);
    slu_funnel_probabilities(NULL, NULL, logits, 1, 8);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("loss");
    TCase *t = tcase_create("funnel");
    tcase_add_test(t, test_check_values);
    tcase_add_test(t, test_extremes);
    tcase_add_loop_test(t, test_against_reference, 0, 60);
    tcase_add_test(t, test_silence);
    tcase_add_test(t, test_fake_negatives_are_unbiased);
    tcase_add_test(t, test_probabilities_fall_along_the_funnel);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
