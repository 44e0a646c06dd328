/* trainer/batch_rows.h - one table's share of a batch: its ids, each once, and what is gathered for each of
 * them until its row is touched. Memory is for the largest batch; nothing is allocated later. @thread the
 * pipeline's */
#pragma once
#include "model/optim.h"
#include "store/row_table.h"
#include <assert.h>

/* U different ids of the batch, D the table's dimension, T its wide tasks. */
typedef struct slu_batch_rows {
    slu_row_layout layout;
    uint32_t u, max_u;
    uint64_t *ids;      /* (U) in order of first use */
    slu_row **rows;     /* (U) */
    float *grads;       /* (U, D + T): embedding, then wide */
    uint32_t *arrivals; /* (U) impressions that brought it */
    uint32_t *seen;     /* (U) newest event time, seconds */
    uint8_t *learns;    /* (U) at least one sample with a label uses it */
    uint32_t *index;    /* (index_mask + 1) open addressing: position in ids, valid when stamp matches */
    uint32_t *stamps;
    uint32_t index_mask, stamp;
} slu_batch_rows;

/* For at most |max_u| ids. Sets everything but the layout, which is the caller's to set before. SLU_ENOMEM;
 * free it in every case. */
int slu_batch_rows_init(slu_batch_rows *t, uint32_t max_u);
void slu_batch_rows_free(slu_batch_rows *t);  /* all zero is fine */
void slu_batch_rows_begin(slu_batch_rows *t); /* a new batch: no ids */
/* Position of |id| among those of the batch; a new one is appended, with nothing seen of it. */
static inline uint32_t slu_batch_rows_at(slu_batch_rows *t, uint64_t id)
{
    /* Ids are hashes already: their low bits will do. */
    for (uint32_t cell = (uint32_t)id & t->index_mask;; cell = (cell + 1) & t->index_mask) {
        if (t->stamps[cell] != t->stamp) {
            assert(t->u < t->max_u);
            t->stamps[cell] = t->stamp;
            t->index[cell] = t->u;
            t->ids[t->u] = id;
            t->arrivals[t->u] = 0;
            t->seen[t->u] = 0;
            t->learns[t->u] = 0;
            return t->u++;
        }
        if (t->ids[t->index[cell]] == id)
            return t->index[cell];
    }
}
