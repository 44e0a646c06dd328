/* model/onednn.h - matrix products by oneDNN (libdnnl.so.2), loaded while the program runs, where it is
 * installed.
 *
 * What it is for: CPUs whose units our own kernels do not use (AVX-512, AVX-512 BF16, AMX). Nothing links it,
 * so a machine without it runs the same programs. It never starts a thread here: whoever calls it gets a team
 * of one, whatever OMP_NUM_THREADS says.
 *
 * A slu_matmul is one product of fixed shape, made once, then run any number of times by up to |threads|
 * threads at once. It has all memory that it needs; what the library allocates while it runs, a few hundred
 * bytes for its arguments, is not ours to avoid. Its bits depend on the shape and the machine, not on who
 * runs it. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Loads the library at the first call. "onednn 2.6.3", or NULL, then |*why| says why in words. @thread any */
const char *slu_onednn(const char **why);

/* C (M, N) = op(A) (M, K) B (K, N); A and B in floats or slu_bf16, C and sums in floats. */
typedef struct slu_matmul_spec {
    uint32_t M, N, K;
    uint32_t lda, ldb, ldc; /* numbers from row to row; ldb where B is not packed */
    bool bf16;
    bool transpose_a; /* A is (K, M) */
    bool packed;      /* B is in the library's own order, else row-major */
    bool bias, relu;  /* + bias (N) of floats, then ReLU */
    bool add;         /* + C, before that ReLU */
} slu_matmul_spec;

typedef struct slu_matmul slu_matmul;
/* For |threads| at once. With |like|, B is packed as for that one. NULL: the library or this machine cannot,
 * or has nothing but its reference loops for it, or no memory. Free it before the process ends, with free on
 * NULL fine. */
slu_matmul *slu_matmul_new(const slu_matmul_spec *spec, const slu_matmul *like, uint32_t threads);
void slu_matmul_free(slu_matmul *m);
/* The library's name for what it runs: "brg:avx512_core_amx_bf16". */
const char *slu_matmul_kernel(const slu_matmul *m);

/* Bytes of a packed B; the caller's, 64-byte aligned, zero before the first packing. */
size_t slu_matmul_packed(const slu_matmul *m);
/* op(B) (K, N) of floats, rounded where the product is in bf16, into |out|. */
void slu_matmul_pack(const slu_matmul *m, void *out, bool transpose_b, const float *B, uint32_t ldb);

void slu_matmul_run(slu_matmul *m, const void *A, const void *B, const float *bias, float *C);
