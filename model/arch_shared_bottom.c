/* Shared bottom (Caruana 1997): one MLP that all tasks share, then a tower per task. */
#include "model/arch.h"

static int check(const slu_net_spec *spec, slu_error *err)
{
    if (spec->n_bottom == 0)
        return slu_fail(err, SLU_EINVAL, "architecture 'shared_bottom' needs at least one layer in 'bottom'");
    return 0;
}

static void build(slu_graph *g, const slu_net_spec *spec)
{
    slu_node_id x = slu_graph_input(g);
    slu_node_id bottom = slu_graph_mlp(g, x, spec->bottom, spec->n_bottom, spec->norm, "bottom");
    for (uint32_t t = 0; t < spec->tasks; t++)
        slu_arch_tower(g, spec, bottom, t);
}

const slu_arch slu_arch_shared_bottom = {"shared_bottom", check, build};
