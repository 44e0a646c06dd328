/* model/spec.h - what the options say about the network and the rows, in the model's own words.
 *
 * The one translation for trainer, scorer and replay: a network that is built from the same options has the
 * same parameters in the same order everywhere. The results point into the options and are valid as long as
 * they are. */
#pragma once
#include "base/error.h"
#include "base/options.h"
#include "model/net.h"
#include "model/optim.h"

/* |inputs|: columns of the network's input, slu_schema_inputs(). Returns 0 or SLU_EINVAL (nothing to feed the
 * network with). */
int slu_net_spec_of(const slu_options *options, uint32_t inputs, slu_net_spec *out, slu_error *err);

/* The network of the options, with slu_net_build's errors besides. */
int slu_net_of(const slu_options *options, uint32_t inputs, slu_net **np, slu_error *err);

slu_row_rules slu_row_rules_of(const slu_options *options);
