#include "serving/served.h"
#include "model/spec.h"

void served_floats(const slu_options *options, const slu_schema *schema, uint32_t *served)
{
    slu_row_rules rules = slu_row_rules_of(options);
    for (uint32_t i = 0; i < slu_schema_tables(schema); i++) {
        const slu_table *t = slu_schema_table(schema, i);
        served[i] = slu_row_layout_of(t->dimension, t->wide ? slu_schema_steps(schema) : 0, &rules).served;
    }
}
