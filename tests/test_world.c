/* Is the simulated exchange what it claims: seeded, with the promised rates, and worth learning? */
#include "sim/ranking.h"
#include "sim/world.h"
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SEED = 1, SHOWN = 200000 };
#define DAY_US 86400000000LL

static slu_world *world;

static void setup(void)
{
    slu_error err = SLU_ERROR_INIT;
    slu_world_opts o = {.seed = SEED};
    ck_assert_msg(!slu_world_new(&o, &world, &err), "%s", err.message);
}

static void teardown(void)
{
    slu_world_free(world);
}

START_TEST(test_same_seed_same_world)
{
    slu_error err = SLU_ERROR_INIT;
    slu_world *twin, *other;
    ck_assert(!slu_world_new(&(slu_world_opts){.seed = SEED}, &twin, &err));
    ck_assert(!slu_world_new(&(slu_world_opts){.seed = SEED + 1}, &other, &err));
    slu_rng a, b, c;
    slu_rng_seed(&a, 5), slu_rng_seed(&b, 5), slu_rng_seed(&c, 5);
    int different = 0;
    for (int i = 0; i < 1000; i++) {
        slu_showing x = {0}, y = {0}, z = {0};
        slu_world_show(world, &a, i * DAY_US / 100, &x);
        slu_world_show(twin, &b, i * DAY_US / 100, &y);
        slu_world_show(other, &c, i * DAY_US / 100, &z);
        ck_assert(x.user == y.user && x.item == y.item && x.position == y.position);
        ck_assert(x.p_click == y.p_click && x.p_conversion == y.p_conversion);
        different += x.p_click != z.p_click;
    }
    ck_assert_int_gt(different, 900);
    slu_world_free(twin);
    slu_world_free(other);
}
END_TEST

/* The figures that the demo's tolerance and the header's promise rest on. */
START_TEST(test_rates_and_ceiling)
{
    slu_rng rng;
    slu_rng_seed(&rng, 7);
    slu_ranked *click = malloc(SHOWN * sizeof *click), *conversion = malloc(SHOWN * sizeof *conversion);
    double p = 0, pc = 0;
    int clicks = 0, conversions = 0;
    for (int i = 0; i < SHOWN; i++) {
        slu_showing s;
        slu_outcome o;
        slu_world_show(world, &rng, (int64_t)i * 6 * DAY_US / SHOWN, &s);
        slu_world_outcome(world, &rng, &s, &o);
        ck_assert(s.p_click > 0 && s.p_click < 1 && s.p_conversion > 0 && s.p_conversion < 1);
        ck_assert(!o.converted || o.clicked);
        if (o.clicked)
            ck_assert(o.click_delay_us > 0 && o.click_delay_us < DAY_US / 24 / 2);
        if (o.converted)
            ck_assert(o.conversion_delay_us > 0 && o.conversion_delay_us < 2 * DAY_US - DAY_US / 48);
        p += s.p_click, pc += s.p_click * s.p_conversion;
        clicks += o.clicked, conversions += o.converted;
        click[i] = (slu_ranked){s.p_click, s.p_click, s.p_click, 1 - s.p_click};
        conversion[i] = (slu_ranked){s.p_conversion, s.p_conversion, s.p_click * s.p_conversion,
                                     s.p_click * (1 - s.p_conversion)};
    }
    slu_ranking r, rc;
    slu_rank(click, SHOWN, &r);
    slu_rank(conversion, SHOWN, &rc);
    printf("seed %d: click rate %.4f, AUC of truth %.4f; conversion rate %.4f, AUC of truth %.4f\n", SEED,
           p / SHOWN, r.ceiling, pc / p, rc.ceiling);
    ck_assert_double_eq_tol(p / SHOWN, .065, .005);
    ck_assert_double_eq_tol(pc / p, .08, .01);
    /* Tossed coins agree with the probabilities: four standard deviations of a binomial. */
    ck_assert_double_eq_tol(clicks, p, 4 * sqrt(p));
    ck_assert_double_eq_tol(conversions, pc, 4 * sqrt(pc));
    ck_assert(r.ceiling > .75 && r.ceiling < .80);
    ck_assert(rc.ceiling > .72 && rc.ceiling < .82);
    ck_assert_double_eq_tol(r.calibration, 1, 1e-9);
    free(click);
    free(conversion);
}
END_TEST

START_TEST(test_recent_clicks_are_shown_and_matter)
{
    slu_rng rng;
    slu_rng_seed(&rng, 3);
    slu_showing s;
    slu_world_show(world, &rng, DAY_US, &s);
    for (int i = 0; i < SLU_WORLD_RECENT + 3; i++)
        slu_world_clicked(world, s.user, s.item);
    slu_showing later = s;
    uint32_t user = s.user, item = s.item;
    while (slu_world_show(world, &rng, DAY_US, &later), later.user != user)
        ;
    ck_assert_int_eq(later.n_recent, SLU_WORLD_RECENT);
    ck_assert_int_eq(later.recent[SLU_WORLD_RECENT - 1], item);
    later.item = item, later.position = 1;
    slu_world_judge(world, &later);
    double with = later.p_click;
    later.n_recent = 0;
    slu_world_judge(world, &later);
    ck_assert_double_gt(with, later.p_click);
}
END_TEST

START_TEST(test_features_by_name)
{
    slu_rng rng;
    slu_rng_seed(&rng, 4);
    for (int i = 0; i < 1000; i++) {
        slu_showing s;
        slu_world_values v;
        slu_world_show(world, &rng, i * 3600000000LL, &s);
        slu_world_describe(world, &s, &v);
        for (int f = 0; f < SLU_WORLD_FEATURES; f++) {
            bool list = !strcmp(slu_world_feature_names[f], "recent_items") ||
                        !strcmp(slu_world_feature_names[f], "interests");
            ck_assert_msg(list || v.field[f].n == 1, "%s", slu_world_feature_names[f]);
            if (!strcmp(slu_world_feature_names[f], "hour"))
                ck_assert_int_eq(v.field[f].v->v.integer, i % 24);
            if (!strcmp(slu_world_feature_names[f], "recent_items"))
                ck_assert_uint_eq(v.field[f].n, s.n_recent);
        }
    }
    ck_assert_ptr_null(slu_world_feature_names[SLU_WORLD_FEATURES]);
}
END_TEST

START_TEST(test_impossible_worlds_are_refused)
{
    slu_error err = SLU_ERROR_INIT;
    slu_world *w = world;
    ck_assert_int_eq(slu_world_new(&(slu_world_opts){.click_rate = 1.5}, &w, &err), SLU_EINVAL);
    ck_assert_ptr_null(w);
    slu_error_clear(&err);
    ck_assert_int_eq(slu_world_new(&(slu_world_opts){.segments = 5000}, &w, &err), SLU_EINVAL);
}
END_TEST

/* Known answers: ties count half, an inverted order is the complement, deciles add up. */
START_TEST(test_ranking_by_hand)
{
    slu_ranked r[] = {{.9, .9, 1, 0}, {.8, .1, 0, 1}, {.8, .8, 1, 0}, {.1, .1, 0, 1}};
    slu_ranking out;
    slu_rank(r, 4, &out);
    ck_assert_double_eq_tol(out.auc, 3.5 / 4, 1e-12);
    ck_assert_double_eq_tol(out.ceiling, 1, 1e-12);
    ck_assert_double_eq_tol(out.calibration, 2.6 / 2, 1e-12);
    slu_ranked one[] = {{.5, .5, 1, 0}};
    slu_rank(one, 1, &out);
    ck_assert(isnan(out.auc));
    slu_ranked many[20];
    for (int i = 0; i < 20; i++)
        many[i] = (slu_ranked){i / 20.0, .5, i >= 10, i < 10};
    slu_rank(many, 20, &out);
    slu_decile d[10];
    slu_deciles(many, 20, d);
    ck_assert_double_eq_tol(d[0].predicted, .025, 1e-12);
    ck_assert_double_eq_tol(d[9].observed, 1, 1e-12);
    ck_assert_double_eq_tol(d[4].observed, 0, 1e-12);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("world");
    TCase *t = tcase_create("world");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, test_same_seed_same_world);
    tcase_add_test(t, test_rates_and_ceiling);
    tcase_add_test(t, test_recent_clicks_are_shown_and_matter);
    tcase_add_test(t, test_features_by_name);
    tcase_add_test(t, test_impossible_worlds_are_refused);
    tcase_add_test(t, test_ranking_by_hand);
    suite_add_tcase(s, t);
    SRunner *sr = srunner_create(s);
    srunner_run_all(sr, CK_NORMAL);
    int failed = srunner_ntests_failed(sr);
    srunner_free(sr);
    return failed != 0;
}
