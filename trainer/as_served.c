#include "trainer/as_served.h"
#include "base/cache_line.h"
#include "model/net_int8.h"
#include "model/shared.h"
#include <stdlib.h>
#include <string.h>

struct slu_as_served {
    const slu_net *net;
    uint32_t first, width; /* columns that a scorer multiplies apart */
    slu_net_int8 *q;
    slu_workspace *work; /* one row */
    slu_shared *shared;
    float *fp32, *int8; /* packed weights; fp32 is NULL where nothing packs */
};

slu_as_served *slu_as_served_new(const slu_schema *schema, const slu_net *net)
{
    static const uint32_t zero;
    slu_as_served *s = calloc(1, sizeof *s);
    if (!s)
        return NULL;
    s->net = net;
    if (slu_net_shares(net))
        slu_schema_shared_columns(schema, &s->first, &s->width);
    s->q = slu_net_int8_new(net, s->first, s->width);
    s->work = slu_workspace_new(net, 1, false);
    s->shared = s->work && s->width ? slu_workspace_share(s->work, s->first, s->width) : NULL;
    s->fp32 = slu_net_packed(net) ? slu_cache_lines_alloc(slu_net_packed(net) * sizeof *s->fp32) : NULL;
    s->int8 = s->q ? slu_cache_lines_alloc(slu_net_int8_packed(s->q) * sizeof *s->int8) : NULL;
    if (!s->q || !s->work || !s->int8 || (s->width && !s->shared) || (slu_net_packed(net) && !s->fp32) ||
        slu_workspace_int8(s->work, s->q)) {
        slu_as_served_free(s);
        return NULL;
    }
    if (s->shared) {
        s->shared->n = 1;
        s->shared->of = &zero;
    }
    return s;
}

void slu_as_served_free(slu_as_served *s)
{
    if (!s)
        return;
    slu_workspace_free(s->work);
    slu_net_int8_free(s->q);
    free(s->fp32);
    free(s->int8);
    free(s);
}

void slu_as_served_weights(slu_as_served *s, const float *params)
{
    if (s->fp32)
        slu_net_pack(s->net, params, s->fp32);
    slu_net_int8_pack(s->q, params, s->int8);
    slu_workspace_use_packed(s->work, s->fp32);
    slu_workspace_use_int8(s->work, s->int8);
}

void slu_as_served_logits(slu_as_served *s, float *params, const float *x, float *logits)
{
    memcpy(slu_workspace_x(s->work), x, slu_net_inputs(s->net) * sizeof *x);
    if (s->shared)
        memcpy(s->shared->x, x + s->first, s->width * sizeof *x);
    slu_net_forward(s->net, params, s->work, 1, SLU_INFER);
    memcpy(logits, slu_workspace_logits(s->work), slu_net_tasks(s->net) * sizeof *logits);
}
