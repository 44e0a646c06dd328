#include "model/activation.h"
#include "model/simd.h"
#include <math.h>
#include <stddef.h>

SLU_CLONES
void slu_bias_relu_forward(float *y, uint32_t ld, const float *b, bool relu, uint32_t B, uint32_t N)
{
    for (uint32_t i = 0; i < B; i++, y += ld) {
        float *restrict row = y;
        if (b && relu)
            for (uint32_t j = 0; j < N; j++) {
                float v = row[j] + b[j];
                row[j] = v > 0 ? v : 0;
            }
        else if (b)
            for (uint32_t j = 0; j < N; j++)
                row[j] += b[j];
        else if (relu)
            for (uint32_t j = 0; j < N; j++)
                row[j] = row[j] > 0 ? row[j] : 0;
    }
}

/* Four rows at once read and write the sums a fourth as often; each sum still adds its rows in order. */
SLU_INLINE void relu_backward_4(float *restrict d, size_t ld, float *restrict db, const float *restrict y,
                                size_t ldy, uint32_t N)
{
    for (uint32_t j = 0; j < N; j++) {
        float a = y[j] > 0 ? d[j] : 0, b = y[ldy + j] > 0 ? d[ld + j] : 0,
              c = y[2 * ldy + j] > 0 ? d[2 * ld + j] : 0, e = y[3 * ldy + j] > 0 ? d[3 * ld + j] : 0;
        d[j] = a;
        d[ld + j] = b;
        d[2 * ld + j] = c;
        d[3 * ld + j] = e;
        db[j] = db[j] + a + b + c + e;
    }
}

SLU_CLONES
void slu_bias_relu_backward(float *dy, uint32_t ld, float *db, const float *y, uint32_t ldy, bool relu,
                            uint32_t B, uint32_t N)
{
    uint32_t i = 0;
    for (; relu && db && i + 4 <= B; i += 4)
        relu_backward_4(dy + (size_t)i * ld, ld, db, y + (size_t)i * ldy, ldy, N);
    for (; i < B; i++) {
        float *restrict drow = dy + (size_t)i * ld;
        const float *restrict row = y + (size_t)i * ldy;
        if (relu)
            for (uint32_t j = 0; j < N; j++)
                drow[j] = row[j] > 0 ? drow[j] : 0;
        if (db) {
            float *restrict sums = db;
            for (uint32_t j = 0; j < N; j++)
                sums[j] += drow[j];
        }
    }
}

double slu_log_sigmoid(double a)
{
    return a < 0 ? a - log1p(exp(a)) : -log1p(exp(-a));
}

double slu_sigmoid(double a)
{
    if (a >= 0)
        return 1 / (1 + exp(-a));
    double e = exp(a);
    return e / (1 + e);
}
