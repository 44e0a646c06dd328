#include "model/optim.h"
#include "tests/numeric.h"
#include <stdio.h>
#include <string.h>

/* ---- Adam ---- */

static const size_t lengths[] = {1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33, 1000};
#define N_LENGTHS ((int)(sizeof lengths / sizeof *lengths))

/* Ten steps against the paper's equations in double. */
START_TEST(test_adam_equations)
{
    size_t n = lengths[_i];
    slu_adam a = {
        .rate = .01, .beta1 = .9, .beta2 = .99, .epsilon = 1e-8, .l2 = .05, .clip = _i % 2 ? .5 : 0};
    float *p = floats(n), *m = floats(n), *v = floats(n), *g = floats(n);
    double *P = calloc(n, sizeof *P), *M = calloc(n, sizeof *M), *V = calloc(n, sizeof *V);
    slu_rng r;
    slu_rng_seed(&r, 9);
    fill(p, n, &r);
    for (size_t i = 0; i < n; i++)
        P[i] = p[i];
    for (uint64_t t = 1; t <= 10; t++) {
        const double scale = 1 / 32.0;
        fill(g, n, &r);
        double norm = 0;
        for (size_t i = 0; i < n; i++)
            norm += scale * g[i] * scale * g[i];
        norm = sqrt(norm);
        double clip = a.clip > 0 && norm > a.clip ? a.clip / norm : 1;
        for (size_t i = 0; i < n; i++) {
            double d = clip * scale * g[i] + a.l2 * P[i];
            M[i] = a.beta1 * M[i] + (1 - a.beta1) * d;
            V[i] = a.beta2 * V[i] + (1 - a.beta2) * d * d;
            P[i] -= a.rate * M[i] / (1 - pow(a.beta1, (double)t)) /
                    (sqrt(V[i] / (1 - pow(a.beta2, (double)t))) + a.epsilon);
        }
        ck_near(slu_adam_step(&a, p, m, v, g, n, t, scale, NULL), norm, 1e-6, "norm");
        for (size_t i = 0; i < n; i++) {
            ck_near(p[i], P[i], 1e-5, "n=%zu step %d p[%zu]", n, (int)t, i);
            ck_assert(g[i] == 0);
        }
    }
    free(p);
    free(m);
    free(v);
    free(g);
    free(P);
    free(M);
    free(V);
}
END_TEST

/* The first step moves every element by the rate, whatever the size of its gradient. */
START_TEST(test_adam_first_step)
{
    slu_adam a = {.rate = .01, .beta1 = .9, .beta2 = .999, .epsilon = 1e-8};
    float p[3] = {1, 1, 1}, m[3] = {0}, v[3] = {0}, g[3] = {100, -.001f, 0};
    slu_adam_step(&a, p, m, v, g, 3, 1, 1, NULL);
    ck_near(p[0], .99, 1e-6, "up");
    ck_near(p[1], 1.01, 1e-5, "down");
    ck_assert(p[2] == 1);
}
END_TEST

START_TEST(test_adam_refuses_what_is_not_finite)
{
    slu_adam a = {.rate = .01, .beta1 = .9, .beta2 = .999, .epsilon = 1e-8};
    const float bad[] = {NAN, INFINITY, -INFINITY};
    float p[9], keep[9], m[9] = {0}, v[9] = {0}, g[9] = {0}, zero[9] = {0};
    for (int i = 0; i < 9; i++)
        keep[i] = p[i] = (float)i;
    g[0] = 1;
    g[8] = bad[_i];
    ck_assert(!isfinite(slu_adam_step(&a, p, m, v, g, 9, 1, 1, NULL)));
    ck_assert_mem_eq(p, keep, sizeof p);
    ck_assert_mem_eq(m, zero, sizeof m);
    ck_assert_mem_eq(g, zero, sizeof g);
}
END_TEST

/* ---- rows ---- */

static slu_row_rules rules(int per_row, int ftrl)
{
    return (slu_row_rules){.per_row = per_row,
                           .rate = .05,
                           .epsilon = 1e-6,
                           .initial = .1,
                           .init = .02,
                           .wide_ftrl = ftrl,
                           .wide_rate = .1,
                           .wide_beta = 1,
                           .wide_l1 = 0,
                           .wide_l2 = 0};
}

START_TEST(test_layout)
{
    slu_row_rules r = rules(0, 1);
    slu_row_layout l = slu_row_layout_of(16, 3, &r);
    ck_assert_uint_eq(l.served, 19);
    ck_assert_uint_eq(l.state_at, 19);
    ck_assert_uint_eq(l.wide_state_at, 35);
    ck_assert_uint_eq(l.floats, 41);
    r = rules(1, 0);
    l = slu_row_layout_of(16, 3, &r);
    ck_assert_uint_eq(l.wide_state_at, 20);
    ck_assert_uint_eq(l.floats, 23);
    l = slu_row_layout_of(0, 2, &r); /* wide only */
    ck_assert_uint_eq(l.served, 2);
    ck_assert_uint_eq(l.floats, 4);
    l = slu_row_layout_of(8, 0, &r); /* no wide part */
    ck_assert_uint_eq(l.served, 8);
    ck_assert_uint_eq(l.floats, 9);
}
END_TEST

START_TEST(test_init_is_a_function_of_seed_table_and_id)
{
    slu_row_rules r = rules(0, 1);
    slu_row_layout l = slu_row_layout_of(16, 3, &r);
    float a[64], b[64];
    slu_row_init(&l, &r, 1, 2, 3, a);
    slu_row_init(&l, &r, 1, 2, 3, b);
    ck_assert_mem_eq(a, b, l.floats * sizeof *a);
    const uint64_t others[3][3] = {{2, 2, 3}, {1, 3, 3}, {1, 2, 4}};
    for (int i = 0; i < 3; i++) {
        slu_row_init(&l, &r, others[i][0], (uint32_t)others[i][1], others[i][2], b);
        ck_assert_mem_ne(a, b, 16 * sizeof *a);
    }
    double sum = 0, squares = 0;
    const int n = 4000;
    for (int id = 0; id < n; id++) {
        slu_row_init(&l, &r, 7, 0, (uint64_t)id, a);
        for (int i = 0; i < 16; i++) {
            sum += a[i];
            squares += (double)a[i] * a[i];
        }
        for (uint32_t i = 16; i < 19; i++)
            ck_assert(a[i] == 0); /* wide weights */
        for (uint32_t i = l.state_at; i < l.wide_state_at; i++)
            ck_assert(a[i] == .1f);
        for (uint32_t i = l.wide_state_at; i < l.floats; i++)
            ck_assert(a[i] == 0);
    }
    /* 64,000 draws: deviation of the mean .02/253, of the deviation .02/358. */
    ck_assert(fabs(sum / (16 * n)) < .02 / 253 * 4);
    ck_near(sqrt(squares / (16 * n)) / .02, 1, .012, "deviation");
}
END_TEST

/* Adagrad of both kinds on every width, against double, with and without clipping and L2. */
START_TEST(test_adagrad)
{
    uint32_t D = (uint32_t)lengths[_i % 11];
    slu_row_rules r = rules(_i / 11 % 2, 1);
    r.clip = _i / 22 % 2 ? .7 : 0;
    r.l2 = _i / 22 % 2 ? .01 : 0;
    slu_row_layout l = slu_row_layout_of(D, 0, &r);
    float row[80], g[40];
    double w[40], acc[40];
    slu_rng rng;
    slu_rng_seed(&rng, 60);
    slu_row_init(&l, &r, 1, 1, 1, row);
    for (uint32_t i = 0; i < D; i++) {
        w[i] = row[i];
        acc[i] = r.initial;
    }
    for (int step = 0; step < 20; step++) {
        fill(g, D, &rng);
        slu_row_update(&l, &r, row, g, NULL);
        double norm = 0, mean = 0, d[40];
        for (uint32_t i = 0; i < D; i++)
            norm += (double)g[i] * g[i];
        double scale = r.clip > 0 && sqrt(norm) > r.clip ? r.clip / sqrt(norm) : 1;
        for (uint32_t i = 0; i < D; i++) {
            d[i] = scale * g[i] + r.l2 * w[i];
            mean += d[i] * d[i] / D;
        }
        for (uint32_t i = 0; i < D; i++) {
            double *a = r.per_row ? &acc[0] : &acc[i];
            if (!r.per_row || i == 0)
                *a += r.per_row ? mean : d[i] * d[i];
            w[i] -= r.rate * d[i] / (sqrt(*a) + r.epsilon);
            ck_near(row[i], w[i], 1e-5, "D=%u per_row=%d step %d w[%u]", D, r.per_row, step, i);
            ck_near(row[l.state_at + (r.per_row ? 0 : i)], *a, 1e-5, "accumulator %u", i);
        }
    }
}
END_TEST

/* 2,000 updates of FTRL-proximal against the paper's equations in double; l1 keeps weak weights at exactly 0.
 */
START_TEST(test_ftrl)
{
    slu_row_rules r = rules(0, 1);
    r.wide_l1 = _i ? 1.5 : 0;
    r.wide_l2 = _i ? .3 : 0;
    slu_row_layout l = slu_row_layout_of(2, 3, &r);
    float row[32], g[3];
    double w[3] = {0}, z[3] = {0}, n[3] = {0};
    slu_rng rng;
    slu_rng_seed(&rng, 61);
    slu_row_init(&l, &r, 1, 1, 1, row);
    for (int step = 0; step < 2000; step++) {
        for (int t = 0; t < 3; t++) {
            g[t] = (float)((2 * slu_rng_unit(&rng) - 1) * (t + 1) * .3 + (t == 2 ? w[2] : 0));
            double sigma = (sqrt(n[t] + (double)g[t] * g[t]) - sqrt(n[t])) / r.wide_rate;
            z[t] += g[t] - sigma * w[t];
            n[t] += (double)g[t] * g[t];
            w[t] = fabs(z[t]) <= r.wide_l1 ? 0
                                           : -(z[t] - copysign(r.wide_l1, z[t])) /
                                                 ((r.wide_beta + sqrt(n[t])) / r.wide_rate + r.wide_l2);
        }
        slu_row_update(&l, &r, row, NULL, g);
        for (int t = 0; t < 3; t++) {
            ck_near(row[2 + t], w[t], 1e-3, "l1=%g step %d w[%d]", r.wide_l1, step, t);
            if (step == 0 && r.wide_l1 > 1)
                ck_assert(row[2 + t] == 0);
        }
    }
}
END_TEST

START_TEST(test_wide_adagrad)
{
    slu_row_rules r = rules(0, 0);
    r.wide_rate = .05;
    r.wide_beta = 1e-8;
    slu_row_layout l = slu_row_layout_of(0, 2, &r);
    float row[4], g[2] = {.5f, -4};
    slu_row_init(&l, &r, 1, 1, 1, row);
    slu_row_update(&l, &r, row, NULL, g);
    ck_near(row[0], -.05, 1e-6, "first step is the rate");
    ck_near(row[1], .05, 1e-6, "first step is the rate");
    slu_row_update(&l, &r, row, NULL, g);
    ck_near(row[0], -.05 - .05 / sqrt(2), 1e-6, "second step");
}
END_TEST

/* A gradient of zeros, or one that is not finite, leaves the row bit for bit. */
START_TEST(test_nothing_to_learn)
{
    slu_row_rules r = rules(_i & 1, _i >> 1 & 1);
    r.l2 = r.wide_l2 = .1;
    slu_row_layout l = slu_row_layout_of(17, 3, &r);
    float row[80], keep[80], g[17], wide[3] = {.1f, -.2f, .3f};
    slu_rng rng;
    slu_rng_seed(&rng, 62);
    slu_row_init(&l, &r, 1, 1, 1, row);
    for (int step = 0; step < 5; step++) {
        fill(g, 17, &rng);
        slu_row_update(&l, &r, row, g, wide);
    }
    row[0] = -0.0f;
    memcpy(keep, row, sizeof row);
    const float nothing[17] = {0, -0.0f}, poison[17] = {1, NAN}, endless[17] = {0, 0, INFINITY};
    slu_row_update(&l, &r, row, nothing, nothing);
    slu_row_update(&l, &r, row, NULL, NULL);
    slu_row_update(&l, &r, row, poison, NULL);
    slu_row_update(&l, &r, row, endless, (float[3]){NAN, INFINITY, -INFINITY});
    ck_assert_mem_eq(row, keep, l.floats * sizeof *row);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("optim");
    TCase *t = tcase_create("adam");
    tcase_add_loop_test(t, test_adam_equations, 0, N_LENGTHS);
    tcase_add_test(t, test_adam_first_step);
    tcase_add_loop_test(t, test_adam_refuses_what_is_not_finite, 0, 3);
    suite_add_tcase(s, t);
    t = tcase_create("rows");
    tcase_add_test(t, test_layout);
    tcase_add_test(t, test_init_is_a_function_of_seed_table_and_id);
    tcase_add_loop_test(t, test_adagrad, 0, 44);
    tcase_add_loop_test(t, test_ftrl, 0, 2);
    tcase_add_test(t, test_wide_adagrad);
    tcase_add_loop_test(t, test_nothing_to_learn, 0, 4);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
