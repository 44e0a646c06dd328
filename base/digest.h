/* base/digest.h - a 128-bit streaming digest (XXH3) of a model or file, printed as 32 hex digits. For equality, not for security. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct slu_digest slu_digest;

slu_digest *slu_digest_new(void);
void slu_digest_add(slu_digest *d, const void *p, size_t n);
void slu_digest_hex(const slu_digest *d, char out[33]);
void slu_digest_free(slu_digest *d);

/* One-shot 64-bit and 128-bit hashes with a seed (XXH3). */
uint64_t slu_hash64(const void *p, size_t n, uint64_t seed);
typedef struct slu_hash128 {
    uint64_t lo, hi;
} slu_hash128;
slu_hash128 slu_hash_128(const void *p, size_t n, uint64_t seed);
