#include "base/bytes.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void out_of_memory(size_t n)
{
    fprintf(stderr, "sluice: out of memory (%zu more bytes for a buffer)\n", n);
    abort();
}

bool slu_buf_try_reserve(slu_buf *b, size_t extra)
{
    if (extra <= b->cap - b->len && b->data)
        return true;
    if (extra > SIZE_MAX / 2 - b->len)
        return false;
    size_t cap = b->cap ? b->cap : 64;
    while (cap < b->len + extra)
        cap *= 2;
    uint8_t *data = realloc(b->data, cap);
    if (!data)
        return false;
    b->data = data;
    b->cap = cap;
    return true;
}

uint8_t *slu_buf_reserve(slu_buf *b, size_t extra)
{
    if (!slu_buf_try_reserve(b, extra))
        out_of_memory(extra);
    return b->data + b->len;
}

void slu_buf_free(slu_buf *b)
{
    free(b->data);
    *b = (slu_buf)SLU_BUF_INIT;
}

void slu_put_bytes(slu_buf *b, const void *p, size_t n)
{
    if (!n)
        return;
    memcpy(slu_buf_reserve(b, n), p, n);
    b->len += n;
}

/* Little-endian whatever the machine is; compilers turn this into one store on x86. */
static void put_le(slu_buf *b, uint64_t v, size_t n)
{
    uint8_t *p = slu_buf_reserve(b, n);
    for (size_t i = 0; i < n; i++)
        p[i] = (uint8_t)(v >> (8 * i));
    b->len += n;
}

void slu_put_u8(slu_buf *b, uint8_t v)
{
    put_le(b, v, 1);
}

void slu_put_u16(slu_buf *b, uint16_t v)
{
    put_le(b, v, 2);
}

void slu_put_u32(slu_buf *b, uint32_t v)
{
    put_le(b, v, 4);
}

void slu_put_u64(slu_buf *b, uint64_t v)
{
    put_le(b, v, 8);
}

void slu_put_u64_be(slu_buf *b, uint64_t v)
{
    uint8_t *p = slu_buf_reserve(b, 8);
    for (int i = 0; i < 8; i++)
        p[i] = (uint8_t)(v >> (56 - 8 * i));
    b->len += 8;
}

void slu_put_f64(slu_buf *b, double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    slu_put_u64(b, bits);
}

void slu_put_floats(slu_buf *b, const float *v, size_t n)
{
    _Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "floats are copied as they lie in memory");
    slu_put_bytes(b, v, n * sizeof *v);
}

void slu_put_varint(slu_buf *b, uint64_t v)
{
    uint8_t *p = slu_buf_reserve(b, 10);
    size_t n = 0;
    for (; v >= 0x80; v >>= 7)
        p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    b->len += n;
}

void slu_put_str(slu_buf *b, const void *p, size_t n)
{
    slu_put_varint(b, n);
    slu_put_bytes(b, p, n);
}

slu_reader slu_reader_of(const void *p, size_t n)
{
    static const uint8_t nothing[1];
    const uint8_t *start = p ? p : nothing; /* NULL + 0 is undefined in C */
    return (slu_reader){.p = start, .end = start + (p ? n : 0), .bad = !p && n};
}

const uint8_t *slu_get_bytes(slu_reader *r, size_t n)
{
    if (r->bad || n > slu_reader_left(r)) {
        r->bad = true;
        return NULL;
    }
    const uint8_t *p = r->p;
    r->p += n;
    return p;
}

static uint64_t get_le(slu_reader *r, size_t n)
{
    const uint8_t *p = slu_get_bytes(r, n);
    uint64_t v = 0;
    for (size_t i = 0; p && i < n; i++)
        v |= (uint64_t)p[i] << (8 * i);
    return v;
}

uint8_t slu_get_u8(slu_reader *r)
{
    return (uint8_t)get_le(r, 1);
}

uint16_t slu_get_u16(slu_reader *r)
{
    return (uint16_t)get_le(r, 2);
}

uint32_t slu_get_u32(slu_reader *r)
{
    return (uint32_t)get_le(r, 4);
}

uint64_t slu_get_u64(slu_reader *r)
{
    return get_le(r, 8);
}

uint64_t slu_get_u64_be(slu_reader *r)
{
    const uint8_t *p = slu_get_bytes(r, 8);
    uint64_t v = 0;
    for (int i = 0; p && i < 8; i++)
        v = v << 8 | p[i];
    return v;
}

float slu_get_f32(slu_reader *r)
{
    uint32_t bits = slu_get_u32(r);
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

double slu_get_f64(slu_reader *r)
{
    uint64_t bits = slu_get_u64(r);
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* Only the shortest form is accepted: equal values must have equal bytes, or digests would tell them apart.
 */
uint64_t slu_get_varint(slu_reader *r)
{
    uint64_t v = 0;
    for (int i = 0; i < 10; i++) {
        const uint8_t *p = slu_get_bytes(r, 1);
        if (!p)
            return 0;
        if (i == 9 && *p > 1)
            break;
        v |= (uint64_t)(*p & 0x7f) << (7 * i);
        if (!(*p & 0x80)) {
            if (i && !*p)
                break;
            return v;
        }
    }
    r->bad = true;
    return 0;
}

const uint8_t *slu_get_str(slu_reader *r, size_t *n)
{
    uint64_t len = slu_get_varint(r);
    const uint8_t *p = len <= SIZE_MAX ? slu_get_bytes(r, (size_t)len) : NULL;
    if (!p)
        r->bad = true;
    *n = p ? (size_t)len : 0;
    return p;
}
