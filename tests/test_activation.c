/* Bias and rectifier, with and without each, against plain loops, bit for bit: element by element and, in the
 * sums of backward, row by row. (Gradients by differences: test_ops.c.) */
#include "model/activation.h"
#include "tests/numeric.h"
#include "tests/suite.h"
#include <string.h>

#define SEED 20261126u

/* Rows: below, at and above the four that are taken at once; columns: below and above what a vector holds. */
static const uint32_t rows[] = {1, 2, 3, 4, 5, 8, 11}, cols[] = {1, 3, 8, 16, 17, 67};
enum { ROWS = sizeof rows / sizeof *rows, COLS = sizeof cols / sizeof *cols };
static const float canary = 12345.5f;

typedef struct view {
    float *p; /* (B, ld), of which N are used */
    uint32_t B, N, ld;
} view;

/* Every fifth value is a zero of one or the other sign. */
static view view_new(uint32_t B, uint32_t N, uint32_t gap, slu_rng *r)
{
    view v = {floats((size_t)B * (N + gap)), B, N, N + gap};
    fill(v.p, (size_t)B * v.ld, r);
    for (size_t i = 0; i < (size_t)B * v.ld; i++) {
        if (i % v.ld >= N)
            v.p[i] = canary;
        else if (slu_rng_below(r, 5) == 0)
            v.p[i] = slu_rng_below(r, 2) ? 0.0f : -0.0f;
    }
    return v;
}

static view view_copy(view v)
{
    const size_t n = (size_t)v.B * v.ld;
    view copy = v;
    copy.p = floats(n);
    memcpy(copy.p, v.p, n * sizeof *v.p);
    return copy;
}

static void expect_same(view got, view want, const char *what)
{
    if (memcmp(got.p, want.p, (size_t)got.B * got.ld * sizeof *got.p))
        ck_abort_msg("%s differs: B=%u N=%u", what, got.B, got.N);
}

static void plain_forward(view y, const float *b, bool relu)
{
    for (uint32_t i = 0; i < y.B; i++)
        for (uint32_t j = 0; j < y.N; j++) {
            float v = y.p[i * y.ld + j];
            if (b)
                v += b[j];
            y.p[i * y.ld + j] = relu && !(v > 0) ? 0 : v;
        }
}

static void plain_backward(view dy, float *db, view y, bool relu)
{
    for (uint32_t i = 0; i < dy.B; i++)
        for (uint32_t j = 0; j < dy.N; j++) {
            if (relu && !(y.p[i * y.ld + j] > 0)) /* at the kink it is 0 */
                dy.p[i * dy.ld + j] = 0;
            if (db)
                db[j] += dy.p[i * dy.ld + j];
        }
}

/* |what|: bit 0 a bias, bit 1 the rectifier. */
static void compare(uint32_t B, uint32_t N, int what, slu_rng *r)
{
    const bool relu = what & 2;
    view y = view_new(B, N, 3, r), want = view_copy(y), dy = view_new(B, N, 2, r), want_dy = view_copy(dy);
    view b = view_new(1, N, 0, r), db = view_new(1, N, 0, r), want_db = view_copy(db);
    slu_bias_relu_forward(y.p, y.ld, what & 1 ? b.p : NULL, relu, B, N);
    plain_forward(want, what & 1 ? b.p : NULL, relu);
    expect_same(y, want, "forward");
    slu_bias_relu_backward(dy.p, dy.ld, what & 1 ? db.p : NULL, relu ? y.p : NULL, y.ld, relu, B, N);
    plain_backward(want_dy, what & 1 ? want_db.p : NULL, want, relu);
    expect_same(dy, want_dy, "backward");
    expect_same(db, want_db, "sums");
    view *all[] = {&y, &want, &dy, &want_dy, &b, &db, &want_db};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]->p);
}

START_TEST(test_equals_plain_loops)
{
    printf("seed %u\n", SEED);
    slu_rng r;
    slu_rng_seed(&r, SEED);
    for (int i = 0; i < ROWS; i++)
        for (int j = 0; j < COLS; j++)
            for (int what = 0; what < 4; what++)
                for (int again = 0; again < 10; again++)
                    compare(rows[i], cols[j], what, &r);
}
END_TEST

/* What is not a number ends at the rectifier, in all places of a vector and beside it. */
START_TEST(test_not_a_number)
{
    for (uint32_t at = 0; at < 19; at++) {
        float y[19], dy[19], db[19] = {0}, b[19] = {0};
        for (int j = 0; j < 19; j++)
            y[j] = dy[j] = 1;
        y[at] = NAN;
        slu_bias_relu_forward(y, 19, at % 2 ? b : NULL, true, 1, 19);
        slu_bias_relu_backward(dy, 19, db, y, 19, true, 1, 19);
        for (uint32_t j = 0; j < 19; j++)
            if (y[j] != (j != at) || dy[j] != (j != at) || db[j] != (j != at))
                ck_abort_msg("NaN at %u: place %u is %g with gradient %g", at, j, y[j], dy[j]);
    }
}
END_TEST

/* Both functions of one logit agree, and with each other's mirror image, over all of their range. */
START_TEST(test_sigmoids_agree)
{
    for (double a = -740; a <= 740; a += .37) {
        double s = slu_sigmoid(a), l = slu_log_sigmoid(a);
        if (!(s >= 0 && s <= 1) || !(l <= 0) || !near(exp(l), s, 1e-13))
            ck_abort_msg("at %g: %.17g and its logarithm %.17g", a, s, l);
        if (!near(s + slu_sigmoid(-a), 1, 1e-15) || !near(l - slu_log_sigmoid(-a), a, 1e-13))
            ck_abort_msg("at %g: the mirror image is another one", a);
        if (a > -700 && fabs(s / exp(l) - 1) > 1e-12) /* relative, deep in the left tail */
            ck_abort_msg("at %g: %.17g is not exp(%.17g)", a, s, l);
        const double e = exp(-a); /* log(1 + e) lies between e - e^2 / 2 and e, also deep in the right tail */
        if (a > 0 && (-l > e * (1 + 1e-12) || -l < (e - e * e / 2) * (1 - 1e-12)))
            ck_abort_msg("at %g: %.17g", a, l);
        if (a > -740 && (slu_sigmoid(a - .37) > s || slu_log_sigmoid(a - .37) > l))
            ck_abort_msg("at %g: they fall", a);
    }
    ck_assert(slu_sigmoid(0) == .5);
}
END_TEST

int main(void)
{
    return run_suite("activation", (const TTest *[]){test_equals_plain_loops, test_not_a_number,
                                                     test_sigmoids_agree, NULL});
}
