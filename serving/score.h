/* serving/score.h - the Score method: a request's features through the encoder, the rows and the network.
 *
 * Hundreds of candidates are one batch: what they share (user and context) is encoded, looked up and pooled
 * once; the item rows of a slot are looked up together, with their cache misses in flight at the same time;
 * the forward pass runs in chunks that stay in the cache (serving/score_pass.h). A large request is cut into
 * pieces that idle threads help with, where the call has a crew (serving/crew.h): the same bits, sooner. All
 * scratch belongs to the threads, so nothing is allocated once it is warm. Every number of an answer comes
 * from one version.
 *
 * What is not known counts as the trainer counts it: an unseen value has no row and contributes nothing, a
 * field that is not given is missing. What cannot be meant is refused with a message that names it. */
#pragma once
#include "base/clock.h"
#include "base/error.h"
#include "base/options.h"
#include "feature/schema.h"
#include "model/net.h"
#include "serving/grpc_server.h"
#include "serving/model_table.h"

typedef struct slu_scorer slu_scorer;

typedef struct slu_scorer_config { /* everything outlives the scorer */
    const slu_options *options;
    const slu_schema *schema;
    const slu_net *net;
    slu_model_table *table;
    const slu_clock *clock;
    uint32_t threads; /* that will call, numbered 0..threads-1 */
} slu_scorer_config;

int slu_scorer_new(const slu_scorer_config *config, slu_scorer **sp, slu_error *err);
void slu_scorer_free(slu_scorer *s); /* after the last call and the table's last publication; NULL is fine */

/* How products are computed, for logs and the status page: "int8: 97 % of the products by avx2 int8 kernels,
 * the rest fp32 by avx2 kernels (openblas 0.3.21 Zen)". The scorer's. */
const char *slu_scorer_products(const slu_scorer *s);

#define SLU_SCORE_PATH "/sluice.v1.Scoring/Score"

/* An slu_grpc_handler; |ctx| is the slu_scorer. Answers INVALID_ARGUMENT, UNAVAILABLE (no model yet),
 * DEADLINE_EXCEEDED (looked at between passes), RESOURCE_EXHAUSTED (arena), or OK. @thread call->thread */
slu_grpc_status slu_score(void *ctx, slu_grpc_call *call);
