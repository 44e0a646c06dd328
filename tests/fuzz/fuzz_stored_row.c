/* Bytes of a stored row or dense vector, perhaps damaged: whatever is accepted can be read to its end and,
 * written again, gives the same bytes. */
#include "store/row_value.h"
#include "store/state.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(x)                                                                                           \
    do {                                                                                                     \
        if (!(x))                                                                                            \
            abort();                                                                                         \
    } while (0)

static void try_row(const uint8_t *data, size_t size)
{
    slu_row_value row;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_row_value_parse(data, size, &row, &err);
    REQUIRE(rc == err.code);
    if (rc)
        return;
    float *v = malloc(row.floats * sizeof *v + 1);
    uint8_t *again = malloc(size);
    slu_row_value_floats(&row, v);
    REQUIRE(slu_row_value_write(again, row.count, row.last_seen, row.admitted, v, row.floats) == size);
    REQUIRE(!memcmp(again, data, size));
    free(again);
    free(v);
}

static void try_key(const uint8_t *data, size_t size)
{
    uint32_t table;
    uint64_t id;
    uint8_t again[SLU_ROW_KEY_BYTES];
    slu_error err = SLU_ERROR_INIT;
    if (slu_row_key_parse(data, size, &table, &id, &err))
        return;
    slu_row_key_write(again, table, id);
    REQUIRE(!memcmp(again, data, size));
}

static void try_floats(const uint8_t *data, size_t size)
{
    const uint8_t *v;
    size_t n;
    slu_error err = SLU_ERROR_INIT;
    if (slu_state_parse_floats(data, size, &v, &n, &err))
        return;
    slu_reader r = slu_reader_of(v, n * sizeof(float));
    for (size_t i = 0; i < n; i++)
        slu_get_f32(&r);
    REQUIRE(!r.bad && v + n * sizeof(float) <= data + size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    try_row(data, size);
    try_key(data, size);
    try_floats(data, size);
    return 0;
}
