#include "trainer/dense.h"
#include "base/log.h"
#include "store/state.h"
#include <math.h>
#include <stdlib.h>

static int load(slu_dense *d, const slu_net *net, slu_store *store, slu_error *err)
{
    slu_net_init(net, d->params);
    int rc = slu_state_get_floats(store, "params", d->params, d->n_params, err);
    if (rc == SLU_ENOTFOUND) {
        slu_error_clear(err);
        d->changed.params = d->changed.moments = true;
        return 0;
    }
    if (!rc)
        rc = slu_state_get_floats(store, "adam.m", d->m, d->n_trainable, err);
    if (!rc)
        rc = slu_state_get_floats(store, "adam.v", d->v, d->n_trainable, err);
    uint64_t gathered = 0;
    if (!rc)
        rc = slu_state_get_u64(store, "adam.steps", 0, &d->steps, err);
    if (!rc)
        rc = slu_state_get_u64(store, "gathered", 0, &gathered, err);
    d->gathered = (uint32_t)gathered;
    if (!rc && gathered)
        rc = slu_state_get_floats(store, "gradients", d->grads, d->n_trainable, err);
    if (rc == SLU_ENOTFOUND)
        rc = slu_fail(
            err, SLU_ECORRUPT,
            "store %s: holds parameters but not all of the optimizer's state: restore it from a backup",
            slu_store_path(store));
    return rc;
}

int slu_dense_open(slu_dense *d, const slu_options *options, const slu_net *net, slu_store *store,
                   slu_error *err)
{
    const slu_optimizer_opts *o = &options->optimizer;
    *d = (slu_dense){
        .n_params = slu_net_params(net),
        .n_trainable = slu_net_trainable(net),
        .adam = {o->dense_rate, o->dense_beta1, o->dense_beta2, o->dense_epsilon, o->dense_l2, o->dense_clip},
        .every = options->training.dense_every,
        .skipped = slu_counter("sluice_trainer_skipped_dense_steps_total", NULL,
                               "Dense steps left out because their gradient was not finite.")};
    d->params = calloc(d->n_params + 1, sizeof *d->params);
    d->grads = calloc(d->n_trainable + 1, sizeof *d->grads);
    d->m = calloc(d->n_trainable + 1, sizeof *d->m);
    d->v = calloc(d->n_trainable + 1, sizeof *d->v);
    if (!d->params || !d->grads || !d->m || !d->v)
        return slu_fail(err, SLU_ENOMEM, "out of memory for a network of %zu parameters", d->n_params);
    return load(d, net, store, err);
}

void slu_dense_free(slu_dense *d)
{
    free(d->params);
    free(d->grads);
    free(d->m);
    free(d->v);
}

void slu_dense_params_changed(slu_dense *d)
{
    d->changed.params = true;
    d->digest_known = false;
}

bool slu_dense_gathered(slu_dense *d, uint32_t samples, const slu_parallel *parallel)
{
    d->gathered += samples;
    d->changed.grads = true;
    if (d->gathered < d->every)
        return false;
    double norm = slu_adam_step(&d->adam, d->params, d->m, d->v, d->grads, d->n_trainable, ++d->steps,
                                1.0 / d->gathered, parallel);
    if (!isfinite(norm)) {
        slu_metric_add(d->skipped, 1);
        SLU_WARN("learner", "the gathered gradient is not finite; its dense step was skipped",
                 SLU_U64("samples", d->gathered), SLU_U64("step", d->steps));
    }
    d->gathered = 0;
    d->changed.moments = true;
    slu_dense_params_changed(d);
    return true;
}

slu_hash128 slu_dense_digest(slu_dense *d)
{
    if (!d->digest_known)
        d->digest = slu_hash_128(d->params, d->n_params * sizeof *d->params, 0);
    d->digest_known = true;
    return d->digest;
}

void slu_dense_flush(slu_dense *d, slu_commit *c)
{
    d->changed.params |= d->flushed.params;
    d->changed.moments |= d->flushed.moments;
    d->changed.grads |= d->flushed.grads;
    if (d->changed.params)
        slu_state_put_floats(c, "params", d->params, d->n_params);
    if (d->changed.moments) {
        slu_state_put_floats(c, "adam.m", d->m, d->n_trainable);
        slu_state_put_floats(c, "adam.v", d->v, d->n_trainable);
        slu_state_put_u64(c, "adam.steps", d->steps);
    }
    if (d->changed.grads) {
        slu_state_put_u64(c, "gathered", d->gathered);
        slu_state_put_floats(c, "gradients", d->grads, d->n_trainable);
    }
    d->flushed = d->changed;
    d->changed = (slu_dense_changes){false, false, false};
}

void slu_dense_committed(slu_dense *d)
{
    d->flushed = (slu_dense_changes){false, false, false};
}
