#include "store/row_value.h"
#include "base/bytes.h"
#include <string.h>

enum { ROW_VERSION = 1, ROW_ADMITTED = 1 };

/* Floats are copied as they lie in memory. */
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "stored rows are little-endian");

static void put_le32(uint8_t *p, uint32_t v)
{
    memcpy(p, &v, sizeof v);
}

void slu_row_key_write(uint8_t key[SLU_ROW_KEY_BYTES], uint32_t table, uint64_t id)
{
    table = __builtin_bswap32(table);
    id = __builtin_bswap64(id);
    memcpy(key, &table, sizeof table);
    memcpy(key + 4, &id, sizeof id);
}

int slu_row_key_parse(const void *key, size_t len, uint32_t *table, uint64_t *id, slu_error *err)
{
    if (len != SLU_ROW_KEY_BYTES)
        return slu_fail(err, SLU_ECORRUPT, "a row key has %zu bytes instead of %d", len, SLU_ROW_KEY_BYTES);
    memcpy(table, key, sizeof *table);
    memcpy(id, (const uint8_t *)key + 4, sizeof *id);
    *table = __builtin_bswap32(*table);
    *id = __builtin_bswap64(*id);
    return 0;
}

size_t slu_row_value_write(uint8_t *out, uint32_t count, uint32_t last_seen, bool admitted, const float *v,
                           uint32_t floats)
{
    out[0] = ROW_VERSION;
    out[1] = admitted ? ROW_ADMITTED : 0;
    put_le32(out + 2, count);
    put_le32(out + 6, last_seen);
    if (!admitted)
        return SLU_ROW_VALUE_HEADER;
    memcpy(out + SLU_ROW_VALUE_HEADER, v, (size_t)floats * sizeof *v);
    return SLU_ROW_VALUE_HEADER + (size_t)floats * sizeof *v;
}

int slu_row_value_parse(const void *value, size_t len, slu_row_value *out, slu_error *err)
{
    slu_reader r = slu_reader_of(value, len);
    uint8_t version = slu_get_u8(&r), flags = slu_get_u8(&r);
    *out = (slu_row_value){0};
    if (!r.bad && version != ROW_VERSION)
        return slu_fail(err, SLU_EFORMAT, "row format %u, this program knows %d", version, ROW_VERSION);
    if (!r.bad && (flags & ~ROW_ADMITTED))
        return slu_fail(err, SLU_EFORMAT, "row flags 0x%x are unknown", flags);
    out->count = slu_get_u32(&r);
    out->last_seen = slu_get_u32(&r);
    size_t left = slu_reader_left(&r);
    out->admitted = flags & ROW_ADMITTED;
    if (r.bad || left % sizeof(float) || left / sizeof(float) > UINT32_MAX || (!out->admitted && left))
        return slu_fail(err, SLU_ECORRUPT, "no row has %zu bytes", len);
    out->floats = (uint32_t)(left / sizeof(float));
    out->v = out->admitted ? r.p : NULL;
    return 0;
}

void slu_row_value_floats(const slu_row_value *r, float *v)
{
    if (r->floats)
        memcpy(v, r->v, (size_t)r->floats * sizeof *v);
}
