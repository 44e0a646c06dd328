#include "model/norm.h"
#include "model/simd.h"
#include <math.h>
#include <stddef.h>

/* y = gain * (x - mean) * rstd + shift with one mean and rstd per column. */
SLU_INLINE void normalise_columns(float *y, uint32_t ldy, const float *x, uint32_t ldx,
                                  const float *restrict mean, const float *restrict rstd,
                                  const float *restrict gain, const float *restrict shift, uint32_t B,
                                  uint32_t N)
{
    for (uint32_t b = 0; b < B; b++) {
        float *restrict out = y + (size_t)b * ldy;
        const float *restrict in = x + (size_t)b * ldx;
        for (uint32_t j = 0; j < N; j++)
            out[j] = (in[j] - mean[j]) * rstd[j] * gain[j] + shift[j];
    }
}

/* Column means and biased variances of x; |var| (N). Two passes: the textbook one-pass form loses all digits
 * when the mean is large against the spread. */
SLU_INLINE void column_moments(float *restrict mean, float *restrict var, const float *x, uint32_t ldx,
                               uint32_t B, uint32_t N)
{
    const float inverse = 1.0f / (float)B;
    memset(mean, 0, N * sizeof *mean);
    memset(var, 0, N * sizeof *var);
    for (uint32_t b = 0; b < B; b++) {
        const float *restrict in = x + (size_t)b * ldx;
        for (uint32_t j = 0; j < N; j++)
            mean[j] += in[j];
    }
    for (uint32_t j = 0; j < N; j++)
        mean[j] *= inverse;
    for (uint32_t b = 0; b < B; b++) {
        const float *restrict in = x + (size_t)b * ldx;
        for (uint32_t j = 0; j < N; j++)
            var[j] += (in[j] - mean[j]) * (in[j] - mean[j]);
    }
    for (uint32_t j = 0; j < N; j++)
        var[j] *= inverse;
}

SLU_CLONES
void slu_batch_norm_forward(float *y, uint32_t ldy, float *mean, float *rstd, float *running_mean,
                            float *running_var, const float *x, uint32_t ldx, const float *gain,
                            const float *shift, uint32_t B, uint32_t N)
{
    if (B > 1) {
        const float step = (float)B / ((float)B + SLU_NORM_MEMORY);
        const float unbiased = (float)B / (float)(B - 1);
        column_moments(mean, rstd, x, ldx, B, N);
        for (uint32_t j = 0; j < N; j++) {
            running_mean[j] += step * (mean[j] - running_mean[j]);
            running_var[j] += step * (rstd[j] * unbiased - running_var[j]);
        }
    } else {
        memcpy(mean, running_mean, N * sizeof *mean);
        memcpy(rstd, running_var, N * sizeof *rstd);
    }
    for (uint32_t j = 0; j < N; j++)
        rstd[j] = 1.0f / sqrtf(rstd[j] + SLU_NORM_EPSILON);
    normalise_columns(y, ldy, x, ldx, mean, rstd, gain, shift, B, N);
}

SLU_CLONES
void slu_batch_norm_infer(float *y, uint32_t ldy, const float *running_mean, const float *running_var,
                          const float *x, uint32_t ldx, const float *gain, const float *shift, uint32_t B,
                          uint32_t N)
{
    for (uint32_t b = 0; b < B; b++) {
        float *restrict out = y + (size_t)b * ldy;
        const float *restrict in = x + (size_t)b * ldx;
        for (uint32_t j = 0; j < N; j++)
            out[j] = (in[j] - running_mean[j]) * (1.0f / sqrtf(running_var[j] + SLU_NORM_EPSILON)) * gain[j] +
                     shift[j];
    }
}

/* With xh = (x - mean) rstd: dgain = sum dy xh, dshift = sum dy, and since mean and rstd depend on every row
 * dx = gain rstd (dy - dshift/B - xh dgain/B). With one row the statistics were constants: dx = gain rstd dy.
 */
SLU_CLONES
void slu_batch_norm_backward(float *dx, uint32_t lddx, float *dgain, float *dshift, float *sums,
                             const float *dy, uint32_t lddy, const float *x, uint32_t ldx, const float *mean,
                             const float *rstd, const float *gain, uint32_t B, uint32_t N)
{
    float *restrict sum_dy = sums, *restrict sum_dyxh = sums + N;
    memset(sums, 0, 2 * (size_t)N * sizeof *sums);
    for (uint32_t b = 0; b < B; b++) {
        const float *restrict d = dy + (size_t)b * lddy;
        const float *restrict in = x + (size_t)b * ldx;
        for (uint32_t j = 0; j < N; j++) {
            sum_dy[j] += d[j];
            sum_dyxh[j] += d[j] * (in[j] - mean[j]) * rstd[j];
        }
    }
    for (uint32_t j = 0; j < N; j++) {
        dgain[j] += sum_dyxh[j];
        dshift[j] += sum_dy[j];
    }
    const float inverse = B > 1 ? 1.0f / (float)B : 0.0f;
    for (uint32_t b = 0; b < B; b++) {
        float *restrict out = dx + (size_t)b * lddx;
        const float *restrict d = dy + (size_t)b * lddy;
        const float *restrict in = x + (size_t)b * ldx;
        for (uint32_t j = 0; j < N; j++) {
            float xh = (in[j] - mean[j]) * rstd[j];
            out[j] += gain[j] * rstd[j] * (d[j] - inverse * (sum_dy[j] + xh * sum_dyxh[j]));
        }
    }
}

/* y is used as scratch for the centred row, so that its square sum is one dot product. */
SLU_CLONES
void slu_layer_norm_forward(float *y, uint32_t ldy, float *mean, float *rstd, const float *x, uint32_t ldx,
                            const float *gain, const float *shift, uint32_t B, uint32_t N)
{
    for (uint32_t b = 0; b < B; b++) {
        float *restrict out = y + (size_t)b * ldy;
        const float *restrict in = x + (size_t)b * ldx;
        const float m = slu_sum(in, N) / (float)N;
        for (uint32_t j = 0; j < N; j++)
            out[j] = in[j] - m;
        const float r = 1.0f / sqrtf(slu_dot(out, out, N) / (float)N + SLU_NORM_EPSILON);
        for (uint32_t j = 0; j < N; j++)
            out[j] = out[j] * r * gain[j] + shift[j];
        if (mean)
            mean[b] = m;
        if (rstd)
            rstd[b] = r;
    }
}

/* As for batch norm, with rows and columns exchanged: dx = rstd (e - mean(e) - xh mean(e xh)), e = gain dy.
 */
SLU_CLONES
void slu_layer_norm_backward(float *dx, uint32_t lddx, float *dgain, float *dshift, const float *dy,
                             uint32_t lddy, const float *x, uint32_t ldx, const float *mean,
                             const float *rstd, const float *gain, uint32_t B, uint32_t N)
{
    const float inverse = 1.0f / (float)N;
    for (uint32_t b = 0; b < B; b++) {
        float *restrict out = dx + (size_t)b * lddx;
        const float *restrict d = dy + (size_t)b * lddy;
        const float *restrict in = x + (size_t)b * ldx;
        float *restrict gains = dgain, *restrict shifts = dshift;
        const float m = mean[b], r = rstd[b];
        for (uint32_t j = 0; j < N; j++) {
            gains[j] += d[j] * (in[j] - m) * r;
            shifts[j] += d[j];
        }
        const float mean_e = slu_dot(d, gain, N) * inverse;
        float sum_exh = 0;
        slu_lanes lanes = {0};
        uint32_t j = 0;
        for (; j + SLU_LANES <= N; j += SLU_LANES) {
            slu_lanes dv, gv, xv;
            memcpy(&dv, d + j, sizeof dv);
            memcpy(&gv, gain + j, sizeof gv);
            memcpy(&xv, in + j, sizeof xv);
            lanes += dv * gv * ((xv - m) * r);
        }
        for (int k = 0; k < SLU_LANES; k++)
            sum_exh += lanes[k];
        for (; j < N; j++)
            sum_exh += d[j] * gain[j] * ((in[j] - m) * r);
        const float mean_exh = sum_exh * inverse;
        for (j = 0; j < N; j++)
            out[j] += r * (d[j] * gain[j] - mean_e - (in[j] - m) * r * mean_exh);
    }
}

static void normalise_ref(float *y, size_t ystride, const float *x, size_t xstride, const float *gain,
                          const float *shift, size_t gstride, uint32_t n)
{
    double mean = 0, var = 0;
    for (uint32_t i = 0; i < n; i++)
        mean += x[i * xstride];
    mean /= n;
    for (uint32_t i = 0; i < n; i++)
        var += (x[i * xstride] - mean) * (x[i * xstride] - mean);
    double rstd = 1 / sqrt(var / n + SLU_NORM_EPSILON);
    for (uint32_t i = 0; i < n; i++)
        y[i * ystride] = (float)((x[i * xstride] - mean) * rstd * gain[i * gstride] + shift[i * gstride]);
}

void slu_batch_norm_forward_ref(float *y, uint32_t ldy, const float *x, uint32_t ldx, const float *gain,
                                const float *shift, uint32_t B, uint32_t N)
{
    for (uint32_t j = 0; j < N; j++)
        normalise_ref(y + j, ldy, x + j, ldx, gain + j, shift + j, 0, B);
}

void slu_layer_norm_forward_ref(float *y, uint32_t ldy, const float *x, uint32_t ldx, const float *gain,
                                const float *shift, uint32_t B, uint32_t N)
{
    for (uint32_t b = 0; b < B; b++)
        normalise_ref(y + (size_t)b * ldy, 1, x + (size_t)b * ldx, 1, gain, shift, 1, N);
}
