/* base/bytes.h - growable byte buffers and a reader that cannot overrun.
 *
 * The one encoding for everything that Sluice stores or puts into deltas: little-endian integers, varints,
 * IEEE floats, length-prefixed strings. Keys that must sort use the _be writers. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct slu_buf {
    uint8_t *data; /* (cap) bytes, of which the first len are written */
    size_t len, cap;
} slu_buf;

#define SLU_BUF_INIT                                                                                         \
    {                                                                                                        \
        NULL, 0, 0                                                                                           \
    }

/* Makes room for |extra| more bytes and returns where they go; len is unchanged. Aborts when out of memory:
 * these buffers are bounded by their users, so running out means the machine is lost anyway. */
uint8_t *slu_buf_reserve(slu_buf *b, size_t extra);
/* The same for a buffer that bytes from outside may make large: false when there is no memory, |b| as it was.
 */
bool slu_buf_try_reserve(slu_buf *b, size_t extra);
void slu_buf_free(slu_buf *b); /* leaves an empty, reusable buffer */
static inline void slu_buf_clear(slu_buf *b)
{
    b->len = 0;
}
void slu_put_bytes(slu_buf *b, const void *p, size_t n);
void slu_put_u8(slu_buf *b, uint8_t v);
void slu_put_u16(slu_buf *b, uint16_t v);
void slu_put_u32(slu_buf *b, uint32_t v);
void slu_put_u64(slu_buf *b, uint64_t v);
void slu_put_u64_be(slu_buf *b, uint64_t v);
void slu_put_f64(slu_buf *b, double v);
void slu_put_floats(slu_buf *b, const float *v, size_t n); /* 4 bytes each, read by slu_get_f32 */
void slu_put_varint(slu_buf *b, uint64_t v);
void slu_put_str(slu_buf *b, const void *p, size_t n); /* varint length, then bytes */

/* Reader: on any overrun or bad varint `bad` becomes true and every further read returns 0 or an empty span.
 */
typedef struct slu_reader {
    const uint8_t *p, *end;
    bool bad;
} slu_reader;

slu_reader slu_reader_of(const void *p, size_t n);
static inline size_t slu_reader_left(const slu_reader *r)
{
    return (size_t)(r->end - r->p);
}
uint8_t slu_get_u8(slu_reader *r);
uint16_t slu_get_u16(slu_reader *r);
uint32_t slu_get_u32(slu_reader *r);
uint64_t slu_get_u64(slu_reader *r);
uint64_t slu_get_u64_be(slu_reader *r);
float slu_get_f32(slu_reader *r);
double slu_get_f64(slu_reader *r);
uint64_t slu_get_varint(slu_reader *r);
const uint8_t *slu_get_bytes(slu_reader *r, size_t n); /* NULL when bad */
const uint8_t *slu_get_str(slu_reader *r, size_t *n);  /* NULL and 0 when bad */
