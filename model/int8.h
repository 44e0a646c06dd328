/* model/int8.h - products of rows and weights in 8-bit integers, for scoring.
 *
 * A row of activations becomes unsigned integers of 7 bits with a step and a zero point of its own, a column
 * of weights becomes signed ones with a step of its own; their products are summed exactly. So an element's
 * value does not depend on the rows beside it, and the kernels for AVX2 and for AVX-512 VNNI and the plain
 * loops, which run everywhere else, give the same bits.
 *
 * The AVX2 kernel adds GROUP products in two 16-bit sums before it widens them. That they cannot overflow is
 * the weights' duty: a column's step is the smallest with which no group of its integers can, whatever the
 * activations are, and none is beyond 127.
 *
 * Letters: B rows, K inputs, N outputs. Values that are not finite count as zero. @thread any */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLU_INT8_LEVELS 127 /* activations are integers from 0 to this */
#define SLU_INT8_GROUP  16u
#define SLU_INT8_ROWS   24u        /* are multiplied together: fewer cost more each */
#define SLU_INT8_PANEL  8u         /* columns whose weights lie together */
#define SLU_INT8_MAX_K  (1u << 16) /* so that sums fit into 32 bits */

/* The inputs that a product reads: all of K but [first, first + width), which are left to others. */
typedef struct slu_int8_inputs {
    uint32_t K, first, width;
} slu_int8_inputs;

static inline uint32_t slu_int8_count(slu_int8_inputs in)
{
    return in.K - in.width;
}

/* Weights of a layer, packed: read-only, in the caller's memory. */
typedef struct slu_int8_weights {
    uint32_t K, N;       /* K: inputs that are read */
    const float *step;   /* (N) */
    const int32_t *sum;  /* (N) of a column's integers */
    const int8_t *panel; /* (k, j) of a panel lies at k / 4 * 32 + j * 4 + k % 4, padded with zeros */
} slu_int8_weights;

/* Bytes of a layer, a multiple of 64. */
size_t slu_int8_packed(uint32_t K, uint32_t N);
/* |w| (N, in.K), |ldw| floats from row to row, into |out|, 64-byte aligned. */
void slu_int8_pack(void *out, const float *w, size_t ldw, slu_int8_inputs in, uint32_t N);
slu_int8_weights slu_int8_weights_at(const void *packed, uint32_t K, uint32_t N);

/* Activations of some rows. */
typedef struct slu_int8_rows {
    uint8_t *q;    /* (B, ld) and SLU_INT8_SLACK bytes */
    uint32_t ld;   /* slu_int8_row(K) at least */
    float *step;   /* (B) */
    int32_t *zero; /* (B) */
} slu_int8_rows;

#define SLU_INT8_SLACK 32u
uint32_t slu_int8_row(uint32_t K);
/* Writes rows [0, B) of |out|; what lies behind a row's last input is anything below LEVELS + 1. */
void slu_int8_quantise(const float *x, uint32_t ldx, uint32_t B, slu_int8_inputs in, slu_int8_rows out);
/* One row of K values as two rows of |out| that add up to it: the second has what the first leaves, so that
 * together they have twice the bits. |rest| (K) is scratch. */
void slu_int8_quantise_twice(const float *x, uint32_t K, float *rest, slu_int8_rows out);
/* y (B, N) = x w^T + bias (N; NULL: none), then ReLU. */
void slu_int8_product(slu_int8_rows x, uint32_t B, slu_int8_weights w, const float *bias, bool relu, float *y,
                      uint32_t ldy);

/* "avx512-vnni int8 kernels", "avx2 int8 kernels" or "plain int8 loops": for logs and bench output. */
const char *slu_int8_backend(void);
/* For tests, before any other thread multiplies. False, with nothing changed: this machine cannot. */
typedef enum slu_int8_kind { SLU_INT8_BEST, SLU_INT8_PLAIN, SLU_INT8_AVX2, SLU_INT8_VNNI } slu_int8_kind;
bool slu_int8_choose(slu_int8_kind kind);
