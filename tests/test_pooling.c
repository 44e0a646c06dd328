#include "model/pooling.h"
#include "tests/numeric.h"
#include <stdio.h>
#include <string.h>

static const uint32_t widths[] = {1, 2, 3, 5, 7, 8, 15, 16, 17, 31, 33};
#define N_WIDTHS ((int)(sizeof widths / sizeof *widths))
#define MAX_ROWS 5

typedef struct bag {
    float store[MAX_ROWS][40], grads[MAX_ROWS][40];
    const float *rows[MAX_ROWS];
    float *drows[MAX_ROWS];
} bag;

static void make_bag(bag *b, uint32_t n, uint64_t seed)
{
    slu_rng r;
    slu_rng_seed(&r, seed);
    memset(b, 0, sizeof *b);
    for (uint32_t i = 0; i < n; i++) {
        fill(b->store[i], 40, &r);
        bool missing = n > 1 && i == 1;
        b->rows[i] = missing ? NULL : b->store[i];
        b->drows[i] = missing ? NULL : b->grads[i];
    }
}

/* Sum and mean of 0..5 rows, one of them missing, and the gradients back. */
START_TEST(test_pool)
{
    uint32_t D = widths[_i];
    for (uint32_t n = 0; n <= MAX_ROWS; n++)
        for (int mean = 0; mean < 2; mean++) {
            bag b;
            make_bag(&b, n, 70 + n);
            float x[41], dx[41];
            x[D] = 77;
            slu_pool_forward(x, b.rows, n, D, mean);
            for (uint32_t j = 0; j < D; j++) {
                double sum = 0;
                for (uint32_t i = 0; i < n; i++)
                    sum += b.rows[i] ? b.rows[i][j] : 0;
                ck_near(x[j], mean && n ? sum / n : sum, 1e-6, "D=%u n=%u x[%u]", D, n, j);
                dx[j] = (float)j + 1;
            }
            ck_assert(x[D] == 77);
            slu_pool_backward(b.drows, dx, n, D, mean);
            slu_pool_backward(b.drows, dx, n, D, mean); /* adds */
            for (uint32_t i = 0; i < n; i++)
                for (uint32_t j = 0; j < 40; j++)
                    ck_near(b.grads[i][j], b.rows[i] && j < D ? 2 * dx[j] / (mean ? n : 1) : 0, 1e-6,
                            "D=%u n=%u row %u[%u]", D, n, i, j);
        }
}
END_TEST

/* A row for each sample, some of them missing; what lies between is left alone. */
START_TEST(test_pool_rows)
{
    enum { B = 5, LD = 45 };
    const uint32_t D = _i < N_WIDTHS ? widths[_i] : 32;
    bag b;
    float x[B * LD];
    make_bag(&b, B, 90);
    for (uint32_t i = 0; i < B * LD; i++)
        x[i] = 77;
    slu_pool_rows(x, LD, b.rows, B, D);
    for (uint32_t i = 0; i < B; i++)
        for (uint32_t j = 0; j < LD; j++)
            ck_assert(x[i * LD + j] == (j >= D ? 77 : b.rows[i] ? b.rows[i][j] : 0));
}
END_TEST

START_TEST(test_wide)
{
    const uint32_t at = 16;
    for (uint32_t T = 1; T <= 5; T++)
        for (uint32_t n = 0; n <= MAX_ROWS; n++)
            for (int mean = 0; mean < 2; mean++) {
                bag b;
                make_bag(&b, n, 90 + n);
                float logits[5] = {1, 2, 3, 4, 5}, dlogits[5] = {.1f, .2f, .3f, .4f, .5f};
                slu_wide_forward(logits, b.rows, n, at, T, mean);
                for (uint32_t t = 0; t < 5; t++) {
                    double sum = 0;
                    for (uint32_t i = 0; i < n; i++)
                        sum += b.rows[i] && t < T ? b.rows[i][at + t] : 0;
                    ck_near(logits[t], t + 1 + (mean && n ? sum / n : sum), 1e-6, "T=%u n=%u logit %u", T, n,
                            t);
                }
                slu_wide_backward(b.drows, dlogits, n, T, mean);
                for (uint32_t i = 0; i < n; i++)
                    for (uint32_t t = 0; t < 5; t++)
                        ck_near(b.grads[i][t], b.rows[i] && t < T ? dlogits[t] / (mean ? n : 1) : 0, 1e-6,
                                "T=%u n=%u row %u task %u", T, n, i, t);
            }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("pooling");
    TCase *t = tcase_create("pooling");
    tcase_add_loop_test(t, test_pool, 0, N_WIDTHS);
    tcase_add_loop_test(t, test_pool_rows, 0, N_WIDTHS + 1);
    tcase_add_test(t, test_wide);
    suite_add_tcase(s, t);
    return finish_suite(s);
}
