/* Messages of the delta topic, several in a row: each input byte string is cut at its length prefixes, so
 * that the fuzzer can play a whole history. Whatever comes, the model stays one whole version of finite
 * numbers. */
#include "serving/delta_applier.h"
#include "serving/served.h"
#include "tests/feature_sample.h"
#include <math.h>
#include <stdlib.h>

#define DENSE 20u

static slu_options options; /* few tables: each run makes them anew */
static slu_schema *schema;
static uint32_t served[64];

static void check(slu_model_table *t, const slu_delta_applier *a)
{
    slu_model_view v = slu_model_current(t);
    if (v.version != slu_delta_applier_position(a).version)
        abort();
    for (uint32_t i = 0; i < DENSE; i++)
        if (!isfinite(v.dense[i]))
            abort();
}

/* The sample's fingerprint where the fuzzer asks for it: it would never guess one. */
static void patch(uint8_t *bytes, size_t len)
{
    uint64_t ours = slu_schema_fingerprint(schema);
    for (size_t i = 0; i + 9 <= len; i++)
        if (bytes[i] == 0x31 && !memcmp(bytes + i + 1, "FINGERPR", 8))
            memcpy(bytes + i + 1, &ours, 8);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    slu_model_table *table;
    if (!schema) {
        options = sample_options;
        options.n_features = 2;
        if (slu_schema_new(&options, &schema, NULL))
            abort();
        served_floats(&options, schema, served);
    }
    if (slu_model_table_new(served, slu_schema_tables(schema), DENSE, 64 << 20, &table, NULL))
        abort();
    slu_delta_applier *a = slu_delta_applier_new(schema, table);
    while (size >= 2) {
        size_t len = data[0] | (size_t)data[1] << 8;
        data += 2, size -= 2;
        len = len < size ? len : size;
        uint8_t *bytes = malloc(len + 1);
        memcpy(bytes, data, len);
        patch(bytes, len);
        slu_error err = SLU_ERROR_INIT;
        uint64_t before = slu_delta_applier_position(a).version;
        int rc = slu_delta_apply(a, bytes, len, &err);
        if ((rc < 0) != (err.code < 0) || (rc < 0 && !err.message[0]))
            abort();
        if (rc < 0 && slu_delta_applier_position(a).version != before)
            abort();
        check(table, a);
        free(bytes);
        data += len, size -= len;
    }
    slu_delta_applier_free(a);
    slu_model_table_free(table);
    return 0;
}
