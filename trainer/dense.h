/* trainer/dense.h - the dense parameters of a model and all that moves them: gathered gradients, Adam's
 * moments and steps; how they lie in a store, and what of them a commit still has to write.
 *
 * Gradients are gathered until training.dense_every samples have contributed, then the parameters step with
 * their mean. A gradient that is not finite is left out, with a warning and a count. @thread the pipeline's
 */
#pragma once
#include "base/digest.h"
#include "base/metrics.h"
#include "base/options.h"
#include "base/parallel.h"
#include "model/net.h"
#include "model/optim.h"
#include "store/store.h"

typedef struct slu_dense_changes {
    bool params, moments, grads;
} slu_dense_changes;

/* Fields are for reading, but params (by a network's running statistics; tell slu_dense_params_changed) and
 * grads, to which whoever learns adds. */
typedef struct slu_dense {
    float *params, *grads, *m, *v; /* (n_params), (n_trainable) ... */
    size_t n_params, n_trainable;
    slu_adam adam;
    uint32_t every;    /* samples a step */
    uint32_t gathered; /* samples in grads */
    uint64_t steps;
    /* Since the last commit; those of a commit that is written but not confirmed have flags of their own. */
    slu_dense_changes changed, flushed;
    bool digest_known; /* |digest| is of |params| */
    slu_hash128 digest;
    slu_metric *skipped;
} slu_dense;

/* Loads what |store| holds, or begins with |net|'s initial parameters. SLU_ENOMEM, SLU_EIO, SLU_ECORRUPT.
 * Free it in every case. */
int slu_dense_open(slu_dense *d, const slu_options *options, const slu_net *net, slu_store *store,
                   slu_error *err);
void slu_dense_free(slu_dense *d); /* all zero is fine */

void slu_dense_params_changed(slu_dense *d);
/* |samples| more are in the gradients. True: the parameters have stepped. |parallel| may be NULL. */
bool slu_dense_gathered(slu_dense *d, uint32_t samples, const slu_parallel *parallel);
slu_hash128 slu_dense_digest(slu_dense *d); /* of all parameters now */

/* As slu_learner_flush: what a flush wrote whose commit never came about is written again by the next one. */
void slu_dense_flush(slu_dense *d, slu_commit *c);
void slu_dense_committed(slu_dense *d);
/* Whether parameters changed since the last commit that was confirmed. */
static inline bool slu_dense_is_changed(const slu_dense *d)
{
    return d->changed.params || d->flushed.params;
}
