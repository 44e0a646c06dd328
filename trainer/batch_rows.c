#include "trainer/batch_rows.h"
#include <stdlib.h>
#include <string.h>

int slu_batch_rows_init(slu_batch_rows *t, uint32_t max_u)
{
    uint32_t width = t->layout.dim + t->layout.tasks;
    uint32_t cells = 16;
    while (cells < 2 * max_u)
        cells *= 2;
    t->max_u = max_u;
    t->ids = malloc(max_u * sizeof *t->ids);
    t->rows = malloc(max_u * sizeof *t->rows);
    t->grads = malloc((size_t)max_u * width * sizeof *t->grads + 1);
    t->arrivals = malloc(max_u * sizeof *t->arrivals);
    t->seen = malloc(max_u * sizeof *t->seen);
    t->learns = malloc(max_u);
    t->index = malloc(cells * sizeof *t->index);
    t->stamps = calloc(cells, sizeof *t->stamps);
    t->index_mask = cells - 1;
    return t->ids && t->rows && t->grads && t->arrivals && t->seen && t->learns && t->index && t->stamps
               ? 0
               : SLU_ENOMEM;
}

void slu_batch_rows_free(slu_batch_rows *t)
{
    free(t->ids);
    free(t->rows);
    free(t->grads);
    free(t->arrivals);
    free(t->seen);
    free(t->learns);
    free(t->index);
    free(t->stamps);
}

void slu_batch_rows_begin(slu_batch_rows *t)
{
    t->u = 0;
    if (++t->stamp == 0) { /* wrapped: old stamps would look new */
        memset(t->stamps, 0, (t->index_mask + 1) * sizeof *t->stamps);
        t->stamp = 1;
    }
}
