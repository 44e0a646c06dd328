/* base/digest.h - a 128-bit streaming digest (XXH3) of a model or file, printed as 32 hex digits. For
 * equality, not for security. */
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

/* What the rows of a served model add up to: the wrapping sum, half by half, of the 128-bit hashes of (table
 * u32, id u64, floats), all little-endian. It depends on the rows alone, not on their order, so trainer and
 * scorer each keep one while rows come, change and go, and compare. {0, 0}: no rows. @thread any */
typedef slu_hash128 slu_row_sum;
enum {
    SLU_SUM_BYTES = 16 /* of a slu_row_sum or slu_hash128 on the wire and on disk: lo, hi, little-endian */
};

void slu_row_sum_add(slu_row_sum *sum, uint32_t table, uint64_t id, const float *floats, uint32_t n);
void slu_row_sum_remove(slu_row_sum *sum, uint32_t table, uint64_t id, const float *floats, uint32_t n);
void slu_sum_write(uint8_t out[SLU_SUM_BYTES], slu_hash128 sum);
slu_hash128 slu_sum_read(const uint8_t in[SLU_SUM_BYTES]);
