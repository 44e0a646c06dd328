/* feature/encode.h - raw values in, ids and numbers out: the one encoder of trainer, scorer and replay.
 *
 * The result is a flat, position-independent record that can be stored as it is (join state) and read without
 * decoding. An id is a 64-bit XXH3 of the canonical value with the slot's seed, never 0; ids are not reduced
 * to a table size, so values collide only with probability 2^-64. */
#pragma once
#include "feature/event.h"
#include "feature/schema.h"

/* Layout: this header, then u16 counts[slots] (zero-padded to 8 bytes), u64 ids[total], float
 * numbers[numbers] (zero-padded to 8 bytes), so that records can lie one after the other and equal input
 * gives equal bytes. */
typedef struct slu_encoded {
    uint32_t bytes; /* of the whole record, a multiple of 8 */
    uint16_t slots; /* == slu_schema_slots */
    uint16_t total; /* ids */
} slu_encoded;

/* Upper bound of slu_encoded.bytes for this schema. */
size_t slu_encoded_max(const slu_schema *s);
static inline const uint16_t *slu_encoded_counts(const slu_encoded *e)
{
    return (const uint16_t *)(e + 1);
}
static inline const uint64_t *slu_encoded_ids(const slu_encoded *e)
{
    return (const uint64_t *)((const char *)(e + 1) + (((size_t)e->slots * 2 + 7) & ~(size_t)7));
}
static inline const float *slu_encoded_numbers(const slu_encoded *e)
{
    return (const float *)(slu_encoded_ids(e) + e->total);
}

typedef struct slu_encoder slu_encoder; /* scratch for one thread */
slu_encoder *slu_encoder_new(const slu_schema *s);
void slu_encoder_free(slu_encoder *e);

/* Encodes |fields| (slu_schema_fields) into |out| (slu_encoded_max bytes, 8-aligned). Never fails: missing
 * values have their token, text where a number is due counts as missing, lists are cut to max_ids (newest
 * kept for sequences, first kept otherwise; counted in sluice_feature_values_cut_total). Every slot with a
 * table has at least one id. Numbers are cut to +-SLU_NUMBER_LIMIT after their transform, so that one absurd
 * input cannot make a model infinite.
 * @thread the encoder's owner; no allocation. */
#define SLU_NUMBER_LIMIT 1e12f
void slu_encode(slu_encoder *e, const slu_values *fields, slu_encoded *out);

/* For scoring: slu_encode_shared() does the shared slots once, slu_encode_candidate() completes a copy of
 * them with the item slots of one candidate; the result equals slu_encode() of the merged fields bit for bit.
 * |fields| of a candidate holds item values at least; shared ones are not looked at again. slu_encode() on
 * the same encoder forgets what slu_encode_shared() did. */
void slu_encode_shared(slu_encoder *e, const slu_values *fields);
void slu_encode_candidate(slu_encoder *e, const slu_values *fields, slu_encoded *out);

/* For scoring slot by slot: where each slot that is not shared comes from one value (categorical and numeric
 * ones, and crosses of such), the candidates' values of a slot become ids, or numbers, all at once and
 * without records: the same as slu_encode_candidate()'s. An empty text stands for a missing value. */
bool slu_encode_has_columns(const slu_encoder *e);
void slu_encode_column_ids(const slu_encoder *e, uint32_t slot, const slu_value *v, uint32_t n,
                           uint64_t *ids);
/* A cross, behind slu_encode_shared(): the ids of its other parts lie at columns + part * apart, its own go
 * to columns + slot * apart. */
void slu_encode_column_cross(const slu_encoder *e, uint32_t slot, uint64_t *columns, uint32_t apart,
                             uint32_t n);
/* Numbers lie |apart| floats from each other. */
void slu_encode_column_numbers(const slu_encoder *e, uint32_t slot, const slu_value *v, uint32_t n,
                               float *numbers, uint32_t apart);

/* Checks that |n| bytes hold a well-formed record for |s|: for bytes read back from disk, any alignment. */
bool slu_encoded_valid(const slu_schema *s, const void *bytes, size_t n);
