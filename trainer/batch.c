#include "trainer/batch.h"
#include "model/loss.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct slu_batch {
    const slu_schema *schema;
    slu_sample *samples; /* (capacity) */
    uint8_t *encoded;    /* (capacity, stride) */
    size_t stride;
    uint32_t n, capacity;
    int64_t opened_us;
};

slu_batch *slu_batch_new(const slu_schema *schema, uint32_t capacity)
{
    slu_batch *b = calloc(1, sizeof *b);
    if (!b)
        return NULL;
    b->schema = schema;
    b->capacity = capacity;
    b->stride = (slu_encoded_max(schema) + 7) & ~(size_t)7;
    b->samples = calloc(capacity, sizeof *b->samples);
    b->encoded = malloc(capacity * b->stride);
    b->opened_us = INT64_MAX;
    if (!b->samples || !b->encoded) {
        slu_batch_free(b);
        return NULL;
    }
    return b;
}

void slu_batch_free(slu_batch *b)
{
    if (!b)
        return;
    free(b->samples);
    free(b->encoded);
    free(b);
}

void slu_batch_add(slu_batch *b, const slu_sample *s, int64_t clock_us)
{
    assert(b->n < b->capacity && s->x->bytes <= b->stride);
    uint8_t *copy = b->encoded + b->n * b->stride;
    memcpy(copy, s->x, s->x->bytes);
    b->samples[b->n] = *s;
    b->samples[b->n].x = (const slu_encoded *)copy;
    if (b->n++ == 0)
        b->opened_us = clock_us;
}

uint32_t slu_batch_count(const slu_batch *b)
{
    return b->n;
}

bool slu_batch_full(const slu_batch *b)
{
    return b->n == b->capacity;
}

int64_t slu_batch_opened_us(const slu_batch *b)
{
    return b->opened_us;
}

const slu_sample *slu_batch_at(const slu_batch *b, uint32_t i)
{
    assert(i < b->n);
    return &b->samples[i];
}

void slu_batch_clear(slu_batch *b)
{
    b->n = 0;
    b->opened_us = INT64_MAX;
}

void slu_batch_save(const slu_batch *b, slu_buf *out)
{
    slu_put_u64(out, (uint64_t)b->opened_us);
    slu_put_varint(out, b->n);
    for (uint32_t i = 0; i < b->n; i++) {
        const slu_sample *s = &b->samples[i];
        slu_put_u64(out, s->key.lo);
        slu_put_u64(out, s->key.hi);
        slu_put_u64(out, (uint64_t)s->time_us);
        slu_put_bytes(out, s->say, sizeof s->say);
        slu_put_u8(out, s->labels);
        slu_put_u8(out, s->arrival);
        slu_put_str(out, s->x, s->x->bytes);
    }
}

int slu_batch_load(slu_batch *b, const void *p, size_t n, slu_error *err)
{
    slu_reader r = slu_reader_of(p, n);
    slu_batch_clear(b);
    int64_t opened = (int64_t)slu_get_u64(&r);
    uint64_t count = slu_get_varint(&r);
    if (count > b->capacity)
        return slu_fail(
            err, SLU_ECONFIG,
            "the store holds %llu samples that wait in a batch, training.batch_size is %u: set it back to at "
            "least %llu for one start",
            (unsigned long long)count, b->capacity, (unsigned long long)count);
    for (uint64_t i = 0; i < count && !r.bad; i++) {
        slu_sample s = {0};
        s.key.lo = slu_get_u64(&r);
        s.key.hi = slu_get_u64(&r);
        s.time_us = (int64_t)slu_get_u64(&r);
        const uint8_t *say = slu_get_bytes(&r, sizeof s.say);
        s.labels = slu_get_u8(&r);
        s.arrival = slu_get_u8(&r);
        size_t len;
        const uint8_t *x = slu_get_str(&r, &len);
        if (r.bad || len > b->stride)
            break;
        memcpy(s.say, say, sizeof s.say);
        /* Into place first: the stored bytes may be unaligned. */
        uint8_t *copy = b->encoded + b->n * b->stride;
        memcpy(copy, x, len);
        if (!slu_encoded_valid(b->schema, copy, len)) {
            r.bad = true;
            break;
        }
        s.x = (const slu_encoded *)copy;
        b->samples[b->n++] = s;
    }
    if (r.bad || b->n != count || slu_reader_left(&r)) {
        slu_batch_clear(b);
        return slu_fail(err, SLU_ECORRUPT, "the stored batch is damaged: restore the store from a backup");
    }
    b->opened_us = opened;
    return 0;
}
