/* Encoded records as they come back from disk: what slu_encoded_valid() accepts can be read to its last byte.
 */
#include "tests/fuzz/fuzz_event_check.h"
#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_event *f = fuzz_event_get();
    if (!slu_encoded_valid(f->schema, data, size))
        return 0;
    slu_encoded *e = malloc(size); /* of exactly that size, so that ASan sees a read too far */
    memcpy(e, data, size);
    uint32_t at = 0;
    for (uint32_t i = 0; i < e->slots; i++) {
        REQUIRE(slu_encoded_counts(e)[i] <= slu_schema_slot(f->schema, i)->max_ids);
        for (uint32_t k = 0; k < slu_encoded_counts(e)[i]; k++)
            REQUIRE(slu_encoded_ids(e)[at++] != 0);
    }
    REQUIRE(at == e->total && size <= slu_encoded_max(f->schema));
    for (uint32_t i = 0; i < slu_schema_numbers(f->schema); i++)
        REQUIRE(isfinite(slu_encoded_numbers(e)[i]));
    free(e);
    return 0;
}
