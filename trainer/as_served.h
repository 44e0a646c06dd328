/* trainer/as_served.h - what a scorer with serving.precision int8 would say of a sample, for evaluation.
 *
 * Rows go through the network one by one: the integers of a row do not depend on the others
 * (model/net_int8.h), so the logits are those of any request that the row is in, wide part aside. Slow, and
 * nothing of training. */
#pragma once
#include "feature/schema.h"
#include "model/net.h"

typedef struct slu_as_served slu_as_served;

/* |net| outlives it. NULL: out of memory. */
slu_as_served *slu_as_served_new(const slu_schema *schema, const slu_net *net);
void slu_as_served_free(slu_as_served *s); /* NULL is fine */
/* The dense parameters from now on: they are rounded here, once. */
void slu_as_served_weights(slu_as_served *s, const float *params);
/* x (K) -> logits (T). |params| are those of the last slu_as_served_weights(). */
void slu_as_served_logits(slu_as_served *s, float *params, const float *x, float *logits);
