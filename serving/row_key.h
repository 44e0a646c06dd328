/* serving/row_key.h - keys of a scorer's rows in its store: (generation << 31 | table, u32) (id, u64), both
 * big-endian as a trainer's are, so that a generation, a table and a range of ids are each one range of keys.
 */
#pragma once
#include "store/row_value.h"
#include <stdint.h>

enum { ROW_KEY_BYTES = SLU_ROW_KEY_BYTES };
#define ROW_KEY_GENERATION 0x80000000u /* the second one's bit, beside the table */

static inline void row_key_put_u32(uint8_t *p, uint32_t v)
{
    for (int i = 0; i < 4; i++)
        p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static inline uint32_t row_key_u32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* |tag|: generation | table. */
static inline void row_key_write(uint8_t key[ROW_KEY_BYTES], uint32_t tag, uint64_t id)
{
    slu_row_key_write(key, tag, id);
}

static inline uint32_t row_key_tag(const void *key)
{
    return row_key_u32(key);
}

static inline uint64_t row_key_id(const void *key)
{
    return (uint64_t)row_key_u32((const uint8_t *)key + 4) << 32 | row_key_u32((const uint8_t *)key + 8);
}
