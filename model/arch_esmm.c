/* ESMM (Ma et al., SIGIR 2018): a tower per task over the shared embeddings, nothing else shared. What makes
 * it an entire-space model is the loss (model/loss.h). */
#include "model/arch.h"

static int check(const slu_net_spec *spec, slu_error *err)
{
    (void)spec;
    (void)err;
    return 0;
}

static void build(slu_graph *g, const slu_net_spec *spec)
{
    slu_node_id x = slu_graph_input(g);
    for (uint32_t t = 0; t < spec->tasks; t++)
        slu_arch_tower(g, spec, x, t);
}

const slu_arch slu_arch_esmm = {"esmm", check, build};
