/* serving/served.h - how the rows of a model look to a scorer.
 *
 * A scorer needs the first part of a trainer's row: the embedding, then a wide weight per task where any
 * feature of the table is wide (model/optim.h, slu_row_layout.served). */
#pragma once
#include "base/options.h"
#include "feature/schema.h"
#include <stdint.h>

/* Floats per row of each table into served (slu_schema_tables). */
void served_floats(const slu_options *options, const slu_schema *schema, uint32_t *served);
