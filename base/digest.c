#include "base/digest.h"
#include <stdio.h>
#include <stdlib.h>
#include <xxhash.h>

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
