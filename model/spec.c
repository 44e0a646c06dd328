#include "model/spec.h"

static slu_net_norm norm_of(slu_norm norm)
{
    switch (norm) {
    case SLU_NORM_BATCH:
        return SLU_NET_NORM_BATCH;
    case SLU_NORM_LAYER:
        return SLU_NET_NORM_LAYER;
    case SLU_NORM_NONE:
        break;
    }
    return SLU_NET_NORM_NONE;
}

int slu_net_spec_of(const slu_options *options, uint32_t inputs, slu_net_spec *out, slu_error *err)
{
    const slu_model_opts *m = &options->model;

    if (inputs == 0)
        return slu_fail(err, SLU_EINVAL,
                        "no feature has an input of the network; give at least one of them a dimension above "
                        "0 or kind: numeric");
    *out = (slu_net_spec){
        .architecture = m->architecture,
        .inputs = inputs,
        .tasks = options->n_steps,
        .bottom = m->bottom,
        .n_bottom = m->n_bottom,
        .towers = m->towers,
        .n_towers = m->n_towers,
        .experts = m->experts,
        .expert_layers = m->expert_layers,
        .n_expert_layers = m->n_expert_layers,
        .norm = norm_of(m->norm),
        .seed = m->seed,
    };
    return 0;
}

int slu_net_of(const slu_options *options, uint32_t inputs, slu_net **np, slu_error *err)
{
    slu_net_spec spec;
    *np = NULL;
    int rc = slu_net_spec_of(options, inputs, &spec, err);
    return rc ? rc : slu_net_build(&spec, np, err);
}

slu_row_rules slu_row_rules_of(const slu_options *options)
{
    const slu_optimizer_opts *o = &options->optimizer;

    return (slu_row_rules){
        .per_row = o->rows == SLU_ROW_ADAGRAD_ROW,
        .rate = o->row_rate,
        .epsilon = o->row_epsilon,
        .initial = o->row_initial,
        .l2 = o->row_l2,
        .clip = o->row_clip,
        .init = options->model.row_init,
        .wide_ftrl = o->wide == SLU_WIDE_FTRL,
        .wide_rate = o->wide_rate,
        .wide_beta = o->wide_beta,
        .wide_l1 = o->wide_l1,
        .wide_l2 = o->wide_l2,
    };
}
