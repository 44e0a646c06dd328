/* serving/served.h - how the rows of a model look to a scorer.
 *
 * A scorer needs the first part of a trainer's row: the embedding, then a wide weight per task where any
 * feature of the table is wide (model/optim.h, slu_row_layout.served). */
#pragma once
#include "base/options.h"
#include "feature/schema.h"
#include "model/net.h"
#include "serving/model_table.h"
#include <stdbool.h>
#include <stdint.h>

/* Floats per row of each table into served (slu_schema_tables). */
void served_floats(const slu_options *options, const slu_schema *schema, uint32_t *served);
/* An empty table for a model of |net| over |schema|; |max_bytes| and errors as slu_model_table_new. */
int slu_served_table(const slu_options *options, const slu_schema *schema, const slu_net *net,
                     uint64_t max_bytes, slu_model_table **tp, slu_error *err);
/* Whether all |floats| at |bytes|, aligned or not, are numbers. */
bool served_finite(const void *bytes, size_t floats);
