/* Every op of model/, described once in a table and put through four proofs on odd shapes: equal to its slow
 * twin, gradient equal to finite differences, backward accumulates, nothing outside the view is read or
 * written. */
#include "model/activation.h"
#include "model/gate.h"
#include "model/mixture.h"
#include "model/norm.h"
#include "model/weights.h"
#include "tests/numeric.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TENSORS 8

/* A (rows, cols) view with ld floats from row to row; what lies between cols and ld is not the op's business.
 */
typedef struct tensor {
    uint32_t rows, cols, ld;
    float *p;
} tensor;

typedef struct dims {
    uint32_t B, K, N;
} dims;

/* Lengths around the vector widths. */
static const dims shapes[] = {{1, 1, 1},   {1, 3, 2},  {2, 5, 3},   {3, 2, 7},   {7, 8, 5},  {5, 15, 8},
                              {4, 16, 15}, {8, 7, 16}, {9, 17, 17}, {17, 31, 9}, {6, 9, 33}, {33, 33, 4}};
#define N_SHAPES ((int)(sizeof shapes / sizeof *shapes))

typedef struct op_case {
    const char *name;
    double step, tolerance; /* of the finite differences */
    void (*describe)(const dims *d, tensor in[], uint32_t *n_in, tensor *out);
    void (*prepare)(tensor in[]); /* moves values away from kinks; may be NULL */
    void (*forward)(tensor *out, const tensor in[]);
    void (*reference)(tensor *out, const tensor in[]);
    void (*backward)(tensor din[], tensor *dout, const tensor in[], const tensor *out); /* may spoil dout */
} op_case;

/* ---- dense: x (B,K), w (N,K) ---- */
static void dense_describe(const dims *d, tensor in[], uint32_t *n, tensor *out)
{
    *n = 2;
    in[0] = (tensor){d->B, d->K, d->K + 3, NULL};
    in[1] = (tensor){d->N, d->K, d->K, NULL}; /* weights are always packed */
    *out = (tensor){d->B, d->N, d->N + 2, NULL};
}
static void dense_f(tensor *y, const tensor in[])
{
    slu_weights w = {.w = in[1].p, .K = in[0].cols, .N = y->cols};
    slu_weights_forward(&w, 0, w.K, y->rows, in[0].p, in[0].ld, false, y->p, y->ld, (slu_follow){.cols = 0});
}
static void dense_r(tensor *y, const tensor in[])
{
    slu_gemm_ref(false, true, y->rows, y->cols, in[0].cols, 1, in[0].p, in[0].ld, in[1].p, in[0].cols, 0,
                 y->p, y->ld);
}
static void dense_b(tensor din[], tensor *dy, const tensor in[], const tensor *y)
{
    (void)y;
    slu_weights w = {.w = in[1].p, .K = in[0].cols, .N = dy->cols};
    slu_gemm(true, false, w.N, w.K, dy->rows, 1, dy->p, dy->ld, in[0].p, in[0].ld, 1, din[1].p, w.K);
    slu_weights_backward(&w, 0, w.K, dy->rows, dy->p, dy->ld, true, din[0].p, din[0].ld);
}
static void dense_backward_ref(tensor din[], tensor *dy, const tensor in[], const tensor *y)
{
    (void)y;
    uint32_t B = dy->rows, K = in[0].cols, N = dy->cols;
    slu_gemm_ref(true, false, N, K, B, 1, dy->p, dy->ld, in[0].p, in[0].ld, 1, din[1].p, K);
    slu_gemm_ref(false, false, B, K, N, 1, dy->p, dy->ld, in[1].p, K, 1, din[0].p, din[0].ld);
}

/* ---- bias and ReLU: a (B,N), b (N) ---- */
static void relu_describe(const dims *d, tensor in[], uint32_t *n, tensor *out)
{
    *n = 2;
    in[0] = (tensor){d->B, d->N, d->N + 1, NULL};
    in[1] = (tensor){1, d->N, d->N, NULL};
    *out = (tensor){d->B, d->N, d->N + 2, NULL};
}
/* A finite difference across the kink at 0 is no derivative. */
static void relu_prepare(tensor in[])
{
    for (uint32_t b = 0; b < in[0].rows; b++)
        for (uint32_t j = 0; j < in[0].cols; j++) {
            float *a = &in[0].p[(size_t)b * in[0].ld + j];
            if (fabsf(*a + in[1].p[j]) < 0.05f)
                *a += 0.1f;
        }
}
static void copy_view(tensor *to, const tensor *from)
{
    for (uint32_t b = 0; b < to->rows; b++)
        memcpy(to->p + (size_t)b * to->ld, from->p + (size_t)b * from->ld, to->cols * sizeof(float));
}
static void relu_f(tensor *y, const tensor in[])
{
    copy_view(y, &in[0]);
    slu_bias_relu_forward(y->p, y->ld, in[1].p, true, y->rows, y->cols);
}
static void relu_r(tensor *y, const tensor in[])
{
    for (uint32_t b = 0; b < y->rows; b++)
        for (uint32_t j = 0; j < y->cols; j++) {
            float v = in[0].p[(size_t)b * in[0].ld + j] + in[1].p[j];
            y->p[(size_t)b * y->ld + j] = v > 0 ? v : 0;
        }
}
static void relu_b(tensor din[], tensor *dy, const tensor in[], const tensor *y)
{
    (void)in;
    slu_bias_relu_backward(dy->p, dy->ld, din[1].p, y->p, y->ld, true, dy->rows, dy->cols);
    for (uint32_t b = 0; b < dy->rows; b++) /* in place: dy is now the gradient of a */
        for (uint32_t j = 0; j < dy->cols; j++)
            din[0].p[(size_t)b * din[0].ld + j] += dy->p[(size_t)b * dy->ld + j];
}

/* ---- norms: x (B,N), gain (N), shift (N) ---- */
static void norm_describe(const dims *d, tensor in[], uint32_t *n, tensor *out)
{
    *n = 3;
    in[0] = (tensor){d->B, d->N, d->N + 2, NULL};
    in[1] = in[2] = (tensor){1, d->N, d->N, NULL};
    *out = (tensor){d->B, d->N, d->N + 1, NULL};
}
static void batch_describe(const dims *d, tensor in[], uint32_t *n, tensor *out)
{
    dims two = *d;
    two.B = d->B < 2 ? 2 : d->B; /* a single row has no batch statistics: test_batch_norm_single_row */
    norm_describe(&two, in, n, out);
}
/* A checkerboard keeps the spread near 1 in rows and columns: the curvature grows with 1/spread^3, and finite
 * differences would measure that instead. */
static void norm_prepare(tensor in[])
{
    for (uint32_t b = 0; b < in[0].rows; b++)
        for (uint32_t j = 0; j < in[0].cols; j++)
            in[0].p[(size_t)b * in[0].ld + j] += (b + j) % 2 ? 1.5f : -1.5f;
}
static float kept_mean[64], kept_rstd[64], running_mean[64], running_var[64], scratch[128];
static void batch_f(tensor *y, const tensor in[])
{
    slu_batch_norm_forward(y->p, y->ld, kept_mean, kept_rstd, running_mean, running_var, in[0].p, in[0].ld,
                           in[1].p, in[2].p, y->rows, y->cols);
}
static void batch_r(tensor *y, const tensor in[])
{
    slu_batch_norm_forward_ref(y->p, y->ld, in[0].p, in[0].ld, in[1].p, in[2].p, y->rows, y->cols);
}
static void batch_b(tensor din[], tensor *dy, const tensor in[], const tensor *y)
{
    (void)y;
    slu_batch_norm_backward(din[0].p, din[0].ld, din[1].p, din[2].p, scratch, dy->p, dy->ld, in[0].p,
                            in[0].ld, kept_mean, kept_rstd, in[1].p, dy->rows, dy->cols);
}
static void layer_f(tensor *y, const tensor in[])
{
    slu_layer_norm_forward(y->p, y->ld, kept_mean, kept_rstd, in[0].p, in[0].ld, in[1].p, in[2].p, y->rows,
                           y->cols);
}
static void layer_r(tensor *y, const tensor in[])
{
    slu_layer_norm_forward_ref(y->p, y->ld, in[0].p, in[0].ld, in[1].p, in[2].p, y->rows, y->cols);
}
static void layer_b(tensor din[], tensor *dy, const tensor in[], const tensor *y)
{
    (void)y;
    slu_layer_norm_backward(din[0].p, din[0].ld, din[1].p, din[2].p, dy->p, dy->ld, in[0].p, in[0].ld,
                            kept_mean, kept_rstd, in[1].p, dy->rows, dy->cols);
}

/* ---- softmax: a (B,N) ---- */
static void softmax_describe(const dims *d, tensor in[], uint32_t *n, tensor *out)
{
    *n = 1;
    in[0] = (tensor){d->B, d->N, d->N + 2, NULL};
    *out = (tensor){d->B, d->N, d->N + 1, NULL};
}
static void softmax_f(tensor *y, const tensor in[])
{
    slu_softmax_forward(y->p, y->ld, in[0].p, in[0].ld, y->rows, y->cols);
}
static void softmax_r(tensor *y, const tensor in[])
{
    slu_softmax_forward_ref(y->p, y->ld, in[0].p, in[0].ld, y->rows, y->cols);
}
static void softmax_b(tensor din[], tensor *dy, const tensor in[], const tensor *y)
{
    (void)in;
    slu_softmax_backward(din[0].p, din[0].ld, dy->p, dy->ld, y->p, y->ld, dy->rows, dy->cols);
}

/* ---- mixture of three experts: g (B,3), f_i (B,N), each with a row stride of its own ---- */
#define EXPERTS 3
static void mixture_describe(const dims *d, tensor in[], uint32_t *n, tensor *out)
{
    *n = 1 + EXPERTS;
    in[0] = (tensor){d->B, EXPERTS, EXPERTS + 2, NULL};
    for (uint32_t i = 1; i <= EXPERTS; i++)
        in[i] = (tensor){d->B, d->N, d->N + i, NULL};
    *out = (tensor){d->B, d->N, d->N + 1, NULL};
}
typedef void mix_forward(float *, uint32_t, const float *, uint32_t, const float *const *, const uint32_t *,
                         uint32_t, uint32_t, uint32_t);
typedef void mix_backward(float *, uint32_t, float *const *, const uint32_t *, const float *, uint32_t,
                          const float *, uint32_t, const float *const *, const uint32_t *, uint32_t, uint32_t,
                          uint32_t);
static void mix_forward_with(mix_forward *f, tensor *y, const tensor in[])
{
    const float *experts[EXPERTS] = {in[1].p, in[2].p, in[3].p};
    uint32_t ld[EXPERTS] = {in[1].ld, in[2].ld, in[3].ld};
    f(y->p, y->ld, in[0].p, in[0].ld, experts, ld, y->rows, EXPERTS, y->cols);
}
static void mix_backward_with(mix_backward *f, tensor din[], tensor *dy, const tensor in[])
{
    const float *experts[EXPERTS] = {in[1].p, in[2].p, in[3].p};
    float *dexperts[EXPERTS] = {din[1].p, din[2].p, din[3].p};
    uint32_t ld[EXPERTS] = {in[1].ld, in[2].ld, in[3].ld};
    f(din[0].p, din[0].ld, dexperts, ld, dy->p, dy->ld, in[0].p, in[0].ld, experts, ld, dy->rows, EXPERTS,
      dy->cols);
}
static void mixture_f(tensor *y, const tensor in[])
{
    mix_forward_with(slu_mixture_forward, y, in);
}
static void mixture_r(tensor *y, const tensor in[])
{
    mix_forward_with(slu_mixture_forward_ref, y, in);
}
static void mixture_b(tensor din[], tensor *dy, const tensor in[], const tensor *y)
{
    (void)y;
    mix_backward_with(slu_mixture_backward, din, dy, in);
}
static void mixture_backward_ref(tensor din[], tensor *dy, const tensor in[], const tensor *y)
{
    (void)y;
    mix_backward_with(slu_mixture_backward_ref, din, dy, in);
}

static const op_case cases[] = {
    /* Linear in each input: a wide step costs no accuracy, rounding of float outputs is all that is left. */
    {"dense", 0.05, 1e-4, dense_describe, NULL, dense_f, dense_r, dense_b},
    {"dense_ref", 0.05, 1e-4, dense_describe, NULL, dense_r, dense_f, dense_backward_ref},
    {"bias_relu", 0.02, 1e-4, relu_describe, relu_prepare, relu_f, relu_r, relu_b},
    {"mixture", 0.05, 1e-4, mixture_describe, NULL, mixture_f, mixture_r, mixture_b},
    {"mixture_ref", 0.05, 1e-4, mixture_describe, NULL, mixture_r, mixture_f, mixture_backward_ref},
    /* Curved: the step balances rounding (1e-7 / step) against what the fourth-order formula leaves (step^4).
     */
    {"batch_norm", 0.03, 5e-4, batch_describe, norm_prepare, batch_f, batch_r, batch_b},
    {"layer_norm", 0.03, 5e-4, norm_describe, norm_prepare, layer_f, layer_r, layer_b},
    {"softmax", 0.03, 2e-4, softmax_describe, NULL, softmax_f, softmax_r, softmax_b},
};
#define N_CASES ((int)(sizeof cases / sizeof *cases))

/* ---- the proofs ---- */

static const float canary = 12345.5f;

typedef struct fixture {
    const op_case *op;
    dims d;
    uint32_t n_in;
    tensor in[MAX_TENSORS], din[MAX_TENSORS], out, dout;
} fixture;

static size_t size_of(const tensor *t)
{
    return (size_t)t->rows * t->ld;
}

/* |gap| goes between the columns and the row stride: NaN where reading it would be a mistake. */
static void allocate(tensor *t, float gap)
{
    t->p = floats(size_of(t));
    for (size_t i = 0; i < size_of(t); i++)
        if (i % t->ld >= t->cols)
            t->p[i] = gap;
}

static void randomise(tensor *t, slu_rng *r)
{
    for (uint32_t b = 0; b < t->rows; b++)
        fill(t->p + (size_t)b * t->ld, t->cols, r);
}

static void set_up(fixture *x, int i)
{
    memset(x, 0, sizeof *x);
    x->op = &cases[i / N_SHAPES];
    x->d = shapes[i % N_SHAPES];
    slu_rng r;
    slu_rng_seed(&r, 1000 + (uint64_t)i);
    x->op->describe(&x->d, x->in, &x->n_in, &x->out);
    for (uint32_t k = 0; k < x->n_in; k++) {
        x->din[k] = x->in[k];
        allocate(&x->in[k], NAN);
        allocate(&x->din[k], canary);
        randomise(&x->in[k], &r);
    }
    if (x->op->prepare)
        x->op->prepare(x->in);
    x->dout = x->out;
    allocate(&x->out, canary);
    allocate(&x->dout, canary);
    randomise(&x->dout, &r);
}

static void tear_down(fixture *x)
{
    for (uint32_t k = 0; k < x->n_in; k++) {
        free(x->in[k].p);
        free(x->din[k].p);
    }
    free(x->out.p);
    free(x->dout.p);
}

static void backward(fixture *x)
{
    tensor dy = x->dout;
    allocate(&dy, canary);
    copy_view(&dy, &x->dout);
    x->op->backward(x->din, &dy, x->in, &x->out);
    free(dy.p);
}

/* sum of out * dout: the scalar whose gradient backward computes. */
static double objective(fixture *x)
{
    x->op->forward(&x->out, x->in);
    double sum = 0;
    for (uint32_t b = 0; b < x->out.rows; b++)
        for (uint32_t j = 0; j < x->out.cols; j++)
            sum += (double)x->out.p[(size_t)b * x->out.ld + j] * x->dout.p[(size_t)b * x->dout.ld + j];
    return sum;
}

static double objective_at(fixture *x, float *p, float value)
{
    float keep = *p;
    *p = value;
    double f = objective(x);
    *p = keep;
    return f;
}

/* Fourth order: (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h. */
static double slope(fixture *x, float *p)
{
    const float h = (float)x->op->step, v = *p;
    double near1 = objective_at(x, p, v + h) - objective_at(x, p, v - h);
    double near2 = objective_at(x, p, v + 2 * h) - objective_at(x, p, v - 2 * h);
    return (8 * near1 - near2) / (12 * (double)h);
}

START_TEST(test_gradient)
{
    fixture x;
    set_up(&x, _i);
    objective(&x);
    backward(&x);
    for (uint32_t k = 0; k < x.n_in; k++)
        for (size_t i = 0; i < size_of(&x.in[k]); i++) {
            if (i % x.in[k].ld >= x.in[k].cols)
                continue;
            ck_near(x.din[k].p[i], slope(&x, &x.in[k].p[i]), x.op->tolerance, "%s B=%u K=%u N=%u d in%u[%zu]",
                    x.op->name, x.d.B, x.d.K, x.d.N, k, i);
        }
    tear_down(&x);
}
END_TEST

START_TEST(test_equals_twin)
{
    fixture x;
    set_up(&x, _i);
    x.op->forward(&x.out, x.in);
    tensor slow = x.out;
    allocate(&slow, canary);
    x.op->reference(&slow, x.in);
    for (size_t i = 0; i < size_of(&slow); i++)
        ck_near(x.out.p[i], slow.p[i], 2e-5, "%s B=%u K=%u N=%u out[%zu]", x.op->name, x.d.B, x.d.K, x.d.N,
                i);
    free(slow.p);
    tear_down(&x);
}
END_TEST

START_TEST(test_accumulates)
{
    fixture x;
    set_up(&x, _i);
    x.op->forward(&x.out, x.in);
    backward(&x);
    float *once[MAX_TENSORS];
    for (uint32_t k = 0; k < x.n_in; k++) {
        once[k] = floats(size_of(&x.din[k]));
        memcpy(once[k], x.din[k].p, size_of(&x.din[k]) * sizeof(float));
    }
    backward(&x);
    for (uint32_t k = 0; k < x.n_in; k++) {
        for (size_t i = 0; i < size_of(&x.din[k]); i++) {
            bool inside = i % x.din[k].ld < x.din[k].cols;
            ck_near(x.din[k].p[i], inside ? 2.0 * once[k][i] : canary, 1e-5, "%s B=%u K=%u N=%u d in%u[%zu]",
                    x.op->name, x.d.B, x.d.K, x.d.N, k, i);
        }
        free(once[k]);
    }
    tear_down(&x);
}
END_TEST

/* ---- what the table cannot say ---- */

START_TEST(test_batch_norm_single_row)
{
    float x[3] = {1, -2, 5}, y[3], mean[3], rstd[3], rm[3] = {0, -1, 1}, rv[3] = {1, 4, 9};
    float gain[3] = {1, 2, 3}, shift[3] = {0, 1, 0}, infer[3], dx[3] = {0}, dg[3] = {0}, ds[3] = {0}, sums[6];
    const float keep_m[3] = {0, -1, 1}, keep_v[3] = {1, 4, 9}, dy[3] = {1, 1, 2};
    slu_batch_norm_forward(y, 3, mean, rstd, rm, rv, x, 3, gain, shift, 1, 3);
    slu_batch_norm_infer(infer, 3, rm, rv, x, 3, gain, shift, 1, 3);
    ck_assert_mem_eq(rm, keep_m, sizeof rm);
    ck_assert_mem_eq(rv, keep_v, sizeof rv);
    slu_batch_norm_backward(dx, 3, dg, ds, sums, dy, 3, x, 3, mean, rstd, gain, 1, 3);
    for (int j = 0; j < 3; j++) {
        ck_near(y[j], infer[j], 1e-6, "y[%d]", j);
        ck_near(dx[j], dy[j] * gain[j] / sqrt(keep_v[j] + SLU_NORM_EPSILON), 1e-5, "dx[%d]", j);
    }
}
END_TEST

/* However a stream is cut into batches, the running statistics end near its mean and variance. */
START_TEST(test_batch_norm_running)
{
    static const uint32_t sizes[] = {2, 32, 500};
    uint32_t B = sizes[_i];
    float *x = floats(B), *y = floats(B), mean, rstd, rm = 0, rv = 1, gain = 1, shift = 0;
    slu_rng r;
    slu_rng_seed(&r, 5);
    for (uint32_t done = 0; done < 50000; done += B) {
        for (uint32_t i = 0; i < B; i++)
            x[i] = (float)(3 + 2 * slu_rng_normal(&r));
        slu_batch_norm_forward(y, 1, &mean, &rstd, &rm, &rv, x, 1, &gain, &shift, B, 1);
    }
    /* Memory of 5,000 rows: deviation of the mean 2/sqrt(2*5000) = .02, of the variance 4*sqrt(2/10000) =
     * .06; wider for batches of two, whose variances scatter more. */
    ck_near(rm, 3, .1 / 3, "mean, B=%u", B);
    ck_near(rv, 4, .4 / 4, "variance, B=%u", B);
    free(x);
    free(y);
}
END_TEST

START_TEST(test_softmax_values)
{
    const float a[3] = {.5f, -.5f, 0}, expected[3] = {.506480f, .186324f, .307196f};
    float g[3], far[3] = {1000, -1000, 999};
    slu_softmax_forward(g, 3, a, 3, 1, 3);
    for (int i = 0; i < 3; i++)
        ck_near(g[i], expected[i], 1e-6, "gate %d", i);
    slu_softmax_forward(far, 3, far, 3, 1, 3); /* in place, no overflow */
    ck_near(far[0], 1 / (1 + exp(-1)), 1e-6, "largest");
    ck_assert(far[1] == 0);
}
END_TEST

START_TEST(test_log_sigmoid_tails)
{
    ck_near(slu_log_sigmoid(-800), -800, 1e-15, "left tail");
    ck_assert(slu_log_sigmoid(800) == 0);
    ck_near(slu_log_sigmoid(40) / -exp(-40), 1, 1e-12, "right tail, relative");
    ck_near(slu_log_sigmoid(.5), -.474077, 1e-6, "value");
    ck_near(slu_sigmoid(-1), .268941, 1e-6, "value");
    ck_assert(slu_sigmoid(-1000) == 0 && slu_sigmoid(1000) == 1);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("ops");
    TCase *t = tcase_create("table");
    tcase_set_timeout(t, 60);
    tcase_add_loop_test(t, test_gradient, 0, N_CASES * N_SHAPES);
    tcase_add_loop_test(t, test_equals_twin, 0, N_CASES * N_SHAPES);
    tcase_add_loop_test(t, test_accumulates, 0, N_CASES * N_SHAPES);
    suite_add_tcase(s, t);
    t = tcase_create("values");
    tcase_add_test(t, test_batch_norm_single_row);
    tcase_add_loop_test(t, test_batch_norm_running, 0, 3);
    tcase_add_test(t, test_softmax_values);
    tcase_add_test(t, test_log_sigmoid_tails);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
