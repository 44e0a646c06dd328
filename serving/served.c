#include "serving/served.h"
#include "model/spec.h"
#include <stdlib.h>
#include <string.h>

void served_floats(const slu_options *options, const slu_schema *schema, uint32_t *served)
{
    slu_row_rules rules = slu_row_rules_of(options);
    for (uint32_t i = 0; i < slu_schema_tables(schema); i++) {
        const slu_table *t = slu_schema_table(schema, i);
        served[i] = slu_row_layout_of(t->dimension, t->wide ? slu_schema_steps(schema) : 0, &rules).served;
    }
}

int slu_served_table(const slu_options *options, const slu_schema *schema, const slu_net *net,
                     uint64_t max_bytes, slu_model_table **tp, slu_error *err)
{
    *tp = NULL;
    uint32_t *served = calloc(slu_schema_tables(schema) + 1, sizeof *served);
    if (!served)
        return slu_fail(err, SLU_ENOMEM, "no memory for the tables of the schema");
    served_floats(options, schema, served);
    int rc = slu_model_table_new(served, slu_schema_tables(schema), slu_net_params(net), max_bytes, tp, err);
    free(served);
    return rc;
}

bool served_finite(const void *bytes, size_t floats)
{
    float v[64];
    for (size_t at = 0; at < floats; at += 64) {
        size_t m = floats - at < 64 ? floats - at : 64;
        float sum = 0;
        memcpy(v, (const char *)bytes + at * sizeof(float), m * sizeof(float));
        for (size_t i = 0; i < m; i++)
            sum += v[i] * 0; /* 0, or NaN from any infinity or NaN */
        if (sum != 0)
            return false;
    }
    return true;
}
