#include "base/digest.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* a state on the stack */
#include <xxhash.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "rows are hashed as they lie in memory");

struct slu_digest {
    XXH3_state_t *state;
};

slu_digest *slu_digest_new(void)
{
    slu_digest *d = calloc(1, sizeof *d);
    if (!d)
        return NULL;
    d->state = XXH3_createState(); /* wants 64-byte alignment, which it arranges itself */
    if (!d->state) {
        free(d);
        return NULL;
    }
    XXH3_128bits_reset(d->state);
    return d;
}

void slu_digest_add(slu_digest *d, const void *p, size_t n)
{
    if (n)
        XXH3_128bits_update(d->state, p, n);
}

void slu_digest_hex(const slu_digest *d, char out[33])
{
    XXH128_hash_t h = XXH3_128bits_digest(d->state);
    snprintf(out, 33, "%016llx%016llx", (unsigned long long)h.high64, (unsigned long long)h.low64);
}

void slu_digest_free(slu_digest *d)
{
    if (!d)
        return;
    XXH3_freeState(d->state);
    free(d);
}

uint64_t slu_hash64(const void *p, size_t n, uint64_t seed)
{
    return XXH3_64bits_withSeed(p, n, seed);
}

slu_hash128 slu_hash_128(const void *p, size_t n, uint64_t seed)
{
    XXH128_hash_t h = XXH3_128bits_withSeed(p, n, seed);
    return (slu_hash128){.lo = h.low64, .hi = h.high64};
}

/* ---- sums of rows ---- */

static slu_hash128 hash_row(uint32_t table, uint64_t id, const float *floats, uint32_t n)
{
    enum { HEAD = sizeof table + sizeof id, MOST = 1024 };
    uint8_t bytes[MOST];
    size_t body = (size_t)n * sizeof *floats;
    memcpy(bytes, &table, sizeof table);
    memcpy(bytes + sizeof table, &id, sizeof id);
    if (body <= MOST - HEAD) {
        if (body)
            memcpy(bytes + HEAD, floats, body);
        return slu_hash_128(bytes, HEAD + body, 0);
    }
    XXH3_state_t state;
    XXH3_128bits_reset(&state);
    XXH3_128bits_update(&state, bytes, HEAD);
    XXH3_128bits_update(&state, floats, body);
    XXH128_hash_t h = XXH3_128bits_digest(&state);
    return (slu_hash128){.lo = h.low64, .hi = h.high64};
}

void slu_row_sum_add(slu_row_sum *sum, uint32_t table, uint64_t id, const float *floats, uint32_t n)
{
    slu_hash128 h = hash_row(table, id, floats, n);
    sum->lo += h.lo;
    sum->hi += h.hi;
}

void slu_row_sum_remove(slu_row_sum *sum, uint32_t table, uint64_t id, const float *floats, uint32_t n)
{
    slu_hash128 h = hash_row(table, id, floats, n);
    sum->lo -= h.lo;
    sum->hi -= h.hi;
}

void slu_sum_write(uint8_t out[SLU_SUM_BYTES], slu_hash128 sum)
{
    memcpy(out, &sum.lo, sizeof sum.lo);
    memcpy(out + sizeof sum.lo, &sum.hi, sizeof sum.hi);
}

slu_hash128 slu_sum_read(const uint8_t in[SLU_SUM_BYTES])
{
    slu_hash128 sum;
    memcpy(&sum.lo, in, sizeof sum.lo);
    memcpy(&sum.hi, in + sizeof sum.lo, sizeof sum.hi);
    return sum;
}
