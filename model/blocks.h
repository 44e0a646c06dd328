/* model/blocks.h - a matrix in blocks, the order in which libraries like to read weights: where each element
 * lies, and putting it there.
 *
 * An order is a number with mixed digits: the innermost blocks are its lowest ones, and each digit belongs to
 * one of the two dimensions. So the parts that row and column contribute to a place simply add up.
 *
 * Letters: the matrix is op(B) (K, N). */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLU_BLOCKS_MAX 12

/* E.g. columns in blocks of 64, within them pairs of rows, 16 pairs: n 3, of {0, 1, 0}, size {16, 64, 2}. */
typedef struct slu_blocking {
    size_t stride[2]; /* elements from one block to the next, along K and along N */
    uint32_t n;       /* inner blocks, outermost first */
    uint32_t of[SLU_BLOCKS_MAX], size[SLU_BLOCKS_MAX]; /* 0: of K, 1: of N; elements */
} slu_blocking;

typedef struct slu_blocks {
    uint32_t K, N;
    uint32_t *at_k, *at_n; /* (K), (N): element (k, n) is number at_k[k] + at_n[n] */
    bool pairs; /* the innermost blocks are (k, k + 1) of even k, or longer: a half one is filled up */
} slu_blocks;

/* 0 or SLU_ENOMEM. Free it in every case. */
int slu_blocks_init(slu_blocks *b, uint32_t K, uint32_t N, const slu_blocking *how);
void slu_blocks_free(slu_blocks *b); /* all zero is fine */

/* |B|, (K, N) or transposed (N, K), into |out|, rounded or as it is. What lies between elements is left as it
 * was. */
void slu_blocks_pack_bf16(const slu_blocks *b, uint16_t *out, bool transpose_b, const float *B, uint32_t ldb);
void slu_blocks_pack(const slu_blocks *b, float *out, bool transpose_b, const float *B, uint32_t ldb);
