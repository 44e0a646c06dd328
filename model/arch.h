/* model/arch.h - the registry of architectures. To add one: a file arch_<name>.c and its line in arch.c. */
#pragma once
#include "model/graph.h"

typedef struct slu_arch {
    const char *name;
    /* Names what is missing or makes no sense for this architecture; the common checks have passed. Returns 0
     * or SLU_EINVAL. */
    int (*check)(const slu_net_spec *spec, slu_error *err);
    /* Adds the nodes between slu_graph_input() and the T logits. Failures stick to the graph. */
    void (*build)(slu_graph *g, const slu_net_spec *spec);
} slu_arch;

extern const slu_arch slu_arch_shared_bottom, slu_arch_esmm, slu_arch_mmoe;

const slu_arch *slu_arch_find(const char *name); /* NULL: no such architecture */

/* A tower of spec->towers over |in| and the logit of task |t|: how every architecture so far ends. */
void slu_arch_tower(slu_graph *g, const slu_net_spec *spec, slu_node_id in, uint32_t t);
