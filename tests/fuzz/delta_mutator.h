/* tests/fuzz/delta_mutator.h - changes a history of delta messages as a trainer gone wrong would: versions,
 * chunks, row blocks, dense parameters, order; often with everything behind it made right again, checksums
 * included, which bytes changed at random hardly ever are. */
#pragma once
#include "feature/schema.h"
#include <stddef.h>
#include <stdint.h>

/* Stands for the fingerprint of the schema in histories, so that they outlive a change of the sample. */
#define DELTA_FINGERPRINT "FINGERPR"

/* The model that the histories are for. */
typedef struct delta_shape {
    const slu_schema *schema;
    const uint32_t *served; /* floats of a row of each table */
    uint32_t dense;         /* floats */
} delta_shape;

/* Puts the schema's fingerprint where a message asks for it. */
void delta_patch(const delta_shape *shape, uint8_t *bytes, size_t len);

/* Changes a history (u16 length and bytes of each message) in place, as |seed| says; it has room for |most|
 * bytes. Returns its new size, 0 when there is nothing in it to change. */
size_t delta_mutate(const delta_shape *shape, uint8_t *data, size_t size, size_t most, uint32_t seed);
