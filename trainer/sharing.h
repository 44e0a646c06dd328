/* trainer/sharing.h - which samples of a batch agree in the features that an impression shares with its page.
 *
 * A page view brings a dozen impressions that differ in the item alone: what the user and the context put
 * into the network is the same dozen times. The widest run of neighbouring slots that are `shared` and have a
 * table is found once; then, batch by batch, equal rows of it. It pays when they are few: see
 * slu_sharing_end(). */
#pragma once
#include "feature/schema.h"

typedef struct slu_sharing {
    uint32_t slot, end;     /* slots [slot, end); equal: no such slots */
    uint32_t column, width; /* their columns of the network's input */
    uint32_t n;             /* different rows of the batch so far */
    uint32_t *of;           /* (B) the row of each sample */
    uint32_t *sample;       /* (n) the first sample of each row */
    /* private */
    const uint16_t **counts; /* (n) */
    const uint32_t **refs;   /* (n) */
    uint32_t *cells;         /* (mask + 1) open addressing: row + 1 */
    uint32_t mask;
} slu_sharing;

int slu_sharing_init(slu_sharing *s, const slu_schema *schema, uint32_t batch_size); /* 0 or SLU_ENOMEM */
void slu_sharing_free(slu_sharing *s);
void slu_sharing_begin(slu_sharing *s, uint32_t samples);
/* Notes sample |b|, in order: its |counts| (slots) and |refs|, which begins with those of slot s->slot. What
 * they point to stays until the next begin. Equal refs of a slot mean equal ids. */
void slu_sharing_add(slu_sharing *s, uint32_t b, const uint16_t *counts, const uint32_t *refs);
/* True when at most half of the |samples| rows are different, so that computing them apart is a gain. */
bool slu_sharing_end(const slu_sharing *s, uint32_t samples);
