#include "model/blocks.h"
#include "base/error.h"
#include "model/bf16.h"
#include <stdlib.h>
#include <string.h>

/* Where index |i| of dimension |d| puts an element. */
static size_t place(const slu_blocking *b, uint32_t d, size_t i)
{
    size_t at = 0, below = 1;
    for (uint32_t k = b->n; k-- > 0;) {
        if (b->of[k] == d) {
            at += i % b->size[k] * below;
            i /= b->size[k];
        }
        below *= b->size[k];
    }
    return at + i * b->stride[d];
}

int slu_blocks_init(slu_blocks *b, uint32_t K, uint32_t N, const slu_blocking *how)
{
    *b = (slu_blocks){K, N, calloc(K + 1, sizeof *b->at_k), calloc(N + 1, sizeof *b->at_n), false};
    if (!b->at_k || !b->at_n)
        return SLU_ENOMEM;
    b->pairs = how->n && how->of[how->n - 1] == 0 && how->size[how->n - 1] % 2 == 0;
    for (uint32_t k = 0; k < K; k++)
        b->at_k[k] = (uint32_t)place(how, 0, k);
    for (uint32_t n = 0; n < N; n++)
        b->at_n[n] = (uint32_t)place(how, 1, n);
    return 0;
}

void slu_blocks_free(slu_blocks *b)
{
    free(b->at_k);
    free(b->at_n);
    *b = (slu_blocks){0};
}

/* Columns from |n| on whose elements lie |step| apart, at most |most|. */
static uint32_t run_from(const slu_blocks *b, uint32_t n, uint32_t step, uint32_t most)
{
    uint32_t end = n + 1;
    while (end < b->N && end - n < most && b->at_n[end] == b->at_n[end - 1] + step)
        end++;
    return end - n;
}

/* A row of B is one half of a row of pairs. */
static void pack_rows_of_pairs(const slu_blocks *b, slu_bf16 *out, const float *B, uint32_t ldb)
{
    enum { MOST = 512 };
    static const float zeros[MOST];
    for (uint32_t k = 0; k < b->K; k += 2) {
        const float *row = B + (size_t)k * ldb;
        for (uint32_t n = 0, run; n < b->N; n += run) {
            run = run_from(b, n, 2, MOST);
            slu_bf16_pairs(out + b->at_k[k] + b->at_n[n], row + n, k + 1 < b->K ? row + ldb + n : zeros, run);
        }
    }
}

/* A row of B transposed has its pairs side by side already. A few pairs of each row at a time: their places
 * lie so far apart that those of a whole row would drive each other out of the cache. */
static void pack_columns_of_pairs(const slu_blocks *b, slu_bf16 *out, const float *B, uint32_t ldb)
{
    enum { FEW = 32, ROWS = 16 };
    slu_bf16 rows[ROWS][FEW];
    for (uint32_t k = 0; k < b->K; k += FEW) {
        const uint32_t count = b->K - k < FEW ? b->K - k : FEW;
        for (uint32_t n = 0, run; n < b->N; n += run) {
            run = run_from(b, n, 2, ROWS);
            if (count % 2)
                memset(rows, 0, sizeof rows);
            slu_bf16_narrow(rows[0], FEW, B + (size_t)n * ldb + k, ldb, run, count);
            for (uint32_t i = 0; i < (count + 1) / 2; i++) {
                slu_bf16 *to = out + b->at_k[k + 2 * i] + b->at_n[n];
                for (uint32_t j = 0; j < run; j++)
                    memcpy(to + 2 * j, &rows[j][2 * i], 2 * sizeof *to);
            }
        }
    }
}

static const float *element(const slu_blocks *b, uint32_t i, bool transpose_b, const float *B, uint32_t ldb,
                            size_t *at)
{
    const uint32_t k = transpose_b ? i % b->K : i / b->N, n = transpose_b ? i / b->K : i % b->N;
    *at = (size_t)b->at_k[k] + b->at_n[n];
    return B + (transpose_b ? (size_t)n * ldb + k : (size_t)k * ldb + n);
}

void slu_blocks_pack_bf16(const slu_blocks *b, uint16_t *out, bool transpose_b, const float *B, uint32_t ldb)
{
    if (b->pairs && transpose_b) {
        pack_columns_of_pairs(b, out, B, ldb);
    } else if (b->pairs) {
        pack_rows_of_pairs(b, out, B, ldb);
    } else {
        for (uint32_t i = 0; i < b->K * b->N; i++) {
            size_t at;
            float x = *element(b, i, transpose_b, B, ldb, &at);
            out[at] = slu_bf16_of(x);
        }
    }
}

void slu_blocks_pack(const slu_blocks *b, float *out, bool transpose_b, const float *B, uint32_t ldb)
{
    for (uint32_t i = 0; i < b->K * b->N; i++) {
        size_t at;
        float x = *element(b, i, transpose_b, B, ldb, &at);
        out[at] = x;
    }
}
