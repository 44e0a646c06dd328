#include "model/pooling.h"
#include "model/simd.h"

/* out = sum of the vectors at rows[i][at ..), or their mean. */
SLU_INLINE void gather(float *restrict out, const float *const *rows, uint32_t n, uint32_t at, uint32_t width,
                       int mean)
{
    if (n == 1) {
        if (rows[0])
            memcpy(out, rows[0] + at, width * sizeof *out);
        else
            memset(out, 0, width * sizeof *out);
        return;
    }
    memset(out, 0, width * sizeof *out);
    for (uint32_t i = 0; i < n; i++) {
        if (!rows[i])
            continue;
        const float *restrict in = rows[i] + at;
        for (uint32_t j = 0; j < width; j++)
            out[j] += in[j];
    }
    if (mean && n > 1) {
        const float inverse = 1.0f / (float)n;
        for (uint32_t j = 0; j < width; j++)
            out[j] *= inverse;
    }
}

SLU_INLINE void spread(float *const *drows, const float *restrict dout, uint32_t n, uint32_t width, int mean)
{
    const float scale = mean && n > 1 ? 1.0f / (float)n : 1.0f;
    for (uint32_t i = 0; i < n; i++) {
        float *restrict drow = drows[i];
        if (!drow)
            continue;
        for (uint32_t j = 0; j < width; j++)
            drow[j] += scale * dout[j];
    }
}

SLU_CLONES
void slu_pool_forward(float *x, const float *const *rows, uint32_t n, uint32_t D, int mean)
{
    gather(x, rows, n, 0, D, mean);
}

SLU_INLINE void place(float *restrict x, uint32_t ldx, const float *const *rows, uint32_t B, uint32_t D)
{
    for (uint32_t b = 0; b < B; b++, x += ldx)
        if (rows[b])
            memcpy(x, rows[b], D * sizeof *x);
        else
            memset(x, 0, D * sizeof *x);
}

/* Calls of memcpy() would take longer than most rows, so usual widths are known when this is compiled. */
SLU_CLONES
void slu_pool_rows(float *x, uint32_t ldx, const float *const *rows, uint32_t B, uint32_t D)
{
    switch (D) {
    case 8:
        place(x, ldx, rows, B, 8);
        break;
    case 16:
        place(x, ldx, rows, B, 16);
        break;
    case 32:
        place(x, ldx, rows, B, 32);
        break;
    default:
        place(x, ldx, rows, B, D);
    }
}

SLU_CLONES
void slu_pool_backward(float *const *drows, const float *dx, uint32_t n, uint32_t D, int mean)
{
    spread(drows, dx, n, D, mean);
}

/* Wide vectors have a float per task, too short for clones to matter. */
void slu_wide_forward(float *logits, const float *const *rows, uint32_t n, uint32_t at, uint32_t T, int mean)
{
    const float scale = mean && n > 1 ? 1.0f / (float)n : 1.0f;
    for (uint32_t i = 0; i < n; i++) {
        if (!rows[i])
            continue;
        const float *w = rows[i] + at;
        for (uint32_t t = 0; t < T; t++)
            logits[t] += scale * w[t];
    }
}

void slu_wide_backward(float *const *dwides, const float *dlogits, uint32_t n, uint32_t T, int mean)
{
    spread(dwides, dlogits, n, T, mean);
}
