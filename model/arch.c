#include "model/arch.h"
#include <string.h>

static const slu_arch *const all[] = {&slu_arch_shared_bottom, &slu_arch_esmm, &slu_arch_mmoe};
#define N_ALL (sizeof all / sizeof *all)
static const char *const names[N_ALL + 1] = {"shared_bottom", "esmm", "mmoe", NULL};

const slu_arch *slu_arch_find(const char *name)
{
    for (size_t i = 0; i < N_ALL; i++)
        if (strcmp(all[i]->name, name) == 0)
            return all[i];
    return NULL;
}

const char *const *slu_net_architectures(void)
{
    return names;
}

void slu_arch_tower(slu_graph *g, const slu_net_spec *spec, slu_node_id in, uint32_t t)
{
    in = slu_graph_mlp(g, in, spec->towers, spec->n_towers, spec->norm, "tower.%u", t);
    slu_graph_logit(g, in, "tower.%u.logit", t);
}
