/* store/row_value.h - the bytes of one stored embedding row, and of its key.
 *
 * Value: version u8, flags u8 (1: admitted), count u32, last seen u32 (seconds), then the floats if admitted;
 * all little-endian. Key: table u32, id u64, both big-endian. @thread any */
#pragma once
#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SLU_ROW_KEY_BYTES = 12, SLU_ROW_VALUE_HEADER = 10 };

typedef struct slu_row_value {
    uint32_t count, last_seen;
    bool admitted;
    const uint8_t *v; /* (floats) little-endian, unaligned, inside the parsed bytes; NULL when not admitted */
    uint32_t floats;  /* 0 when not admitted */
} slu_row_value;

void slu_row_key_write(uint8_t key[SLU_ROW_KEY_BYTES], uint32_t table, uint64_t id);
int slu_row_key_parse(const void *key, size_t len, uint32_t *table, uint64_t *id, slu_error *err);

/* Writes SLU_ROW_VALUE_HEADER bytes, plus 4 * |floats| when |admitted|; returns the length. */
size_t slu_row_value_write(uint8_t *out, uint32_t count, uint32_t last_seen, bool admitted, const float *v,
                           uint32_t floats);
/* Returns 0, SLU_EFORMAT (unknown version or flags) or SLU_ECORRUPT (a length that no row has). */
int slu_row_value_parse(const void *value, size_t len, slu_row_value *out, slu_error *err);
/* Copies the floats of a parsed row. */
void slu_row_value_floats(const slu_row_value *r, float *v);
