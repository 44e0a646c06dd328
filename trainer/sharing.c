#include "trainer/sharing.h"
#include "base/digest.h"
#include <stdlib.h>
#include <string.h>

static bool can_share(const slu_slot *s)
{
    return s->shared && s->table != SLU_NO_TABLE;
}

static void find_widest(slu_sharing *s, const slu_schema *schema)
{
    uint32_t slots = slu_schema_slots(schema);
    for (uint32_t i = 0; i < slots; i++) {
        uint32_t end = i, width = 0;
        for (; end < slots && can_share(slu_schema_slot(schema, end)); end++)
            width += slu_schema_slot(schema, end)->width;
        if (width > s->width) {
            s->slot = i;
            s->end = end;
            s->column = slu_schema_slot(schema, i)->input;
            s->width = width;
        }
        if (end > i)
            i = end - 1;
    }
}

int slu_sharing_init(slu_sharing *s, const slu_schema *schema, uint32_t batch_size)
{
    memset(s, 0, sizeof *s);
    find_widest(s, schema);
    uint32_t cells = 16;
    while (cells < 2 * batch_size)
        cells *= 2;
    s->mask = cells - 1;
    s->of = malloc(batch_size * sizeof *s->of);
    s->sample = malloc(batch_size * sizeof *s->sample);
    s->counts = malloc(batch_size * sizeof *s->counts);
    s->refs = malloc(batch_size * sizeof *s->refs);
    s->cells = malloc(cells * sizeof *s->cells);
    return s->of && s->sample && s->counts && s->refs && s->cells ? 0 : SLU_ENOMEM;
}

void slu_sharing_free(slu_sharing *s)
{
    free(s->of);
    free(s->sample);
    free(s->counts);
    free(s->refs);
    free(s->cells);
}

/* A table of the size that this batch needs: clearing that of the largest would cost small ones. */
void slu_sharing_begin(slu_sharing *s, uint32_t samples)
{
    s->n = 0;
    uint32_t cells = 16;
    while (cells < 2 * samples)
        cells *= 2;
    s->mask = cells - 1;
    memset(s->cells, 0, cells * sizeof *s->cells);
}

void slu_sharing_add(slu_sharing *s, uint32_t b, const uint16_t *counts, const uint32_t *refs)
{
    size_t slots = s->end - s->slot, n = 0;
    counts += s->slot;
    for (size_t i = 0; i < slots; i++)
        n += counts[i];
    uint32_t cell = (uint32_t)slu_hash64(refs, n * sizeof *refs, 0) & s->mask;
    for (; s->cells[cell]; cell = (cell + 1) & s->mask) {
        uint32_t row = s->cells[cell] - 1;
        if (memcmp(s->counts[row], counts, slots * sizeof *counts) == 0 &&
            memcmp(s->refs[row], refs, n * sizeof *refs) == 0) {
            s->of[b] = row;
            return;
        }
    }
    s->counts[s->n] = counts;
    s->refs[s->n] = refs;
    s->sample[s->n] = b;
    s->of[b] = s->n;
    s->cells[cell] = ++s->n;
}

bool slu_sharing_end(const slu_sharing *s, uint32_t samples)
{
    return s->width && 2 * s->n <= samples;
}
