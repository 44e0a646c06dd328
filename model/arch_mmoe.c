/* MMoE (Ma et al., KDD 2018): experts that all tasks share, mixed for each task by a gate of its own, then
 * its tower. Experts' first layers and the gates read x, so all of them run as one matrix product. */
#include "model/arch.h"

static int check(const slu_net_spec *spec, slu_error *err)
{
    if (spec->experts == 0 || spec->experts > SLU_NET_MAX_EXPERTS)
        return slu_fail(err, SLU_EINVAL, "architecture 'mmoe': %u experts; allowed: 1 to %d", spec->experts,
                        SLU_NET_MAX_EXPERTS);
    if (spec->n_expert_layers == 0)
        return slu_fail(err, SLU_EINVAL, "architecture 'mmoe' needs at least one layer in 'expert_layers'");
    return 0;
}

static void build(slu_graph *g, const slu_net_spec *spec)
{
    slu_node_id experts[SLU_NET_MAX_EXPERTS], x = slu_graph_input(g);
    for (uint32_t i = 0; i < spec->experts; i++)
        experts[i] =
            slu_graph_mlp(g, x, spec->expert_layers, spec->n_expert_layers, spec->norm, "expert.%u", i);
    for (uint32_t t = 0; t < spec->tasks; t++) {
        slu_node_id gate = slu_graph_gate(g, x, spec->experts, "gate.%u", t);
        slu_node_id mixed = slu_graph_mixture(g, gate, experts, spec->experts, "mixture.%u", t);
        slu_arch_tower(g, spec, mixed, t);
    }
}

const slu_arch slu_arch_mmoe = {"mmoe", check, build};
