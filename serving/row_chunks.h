/* serving/row_chunks.h - where the rows of a table are: equal rows by number (slot), in chunks of a huge
 * page.
 *
 * Chunks never move and none is given back before all are, so a pointer to a row stays good, and readers find
 * the row of a slot without asking anybody. Slots are given out in order, once each: which of them are free
 * again is the owner's business (serving/row_set.c). Where the rows of a chunk are no power of two, the
 * numbers between its last row and the next chunk's first are no slots.
 *
 * A table's first chunk has small pages, of which only those touched count, until there is a second one; so
 * tiny tables cost little. From then on every chunk is asked to be one huge page (serving/huge_memory.h).
 * A row that is as long as a chunk, or nearly, has one for itself.
 *
 * INVARIANT: a new row is zeroed, and begins at a multiple of 8.
 *
 * The directory is part of the struct, so that a look-up reads no pointer to it: let a row_chunks be the last
 * thing in what holds it, zeroed by calloc (untouched pages of it cost nothing).
 * @thread the writer's; readers call row_chunks_at() with slots that the writer has published */
#pragma once
#include <stddef.h>
#include <stdint.h>

#define ROW_CHUNKS_MOST 65536u
#define ROW_SLOTS_MOST                                                                                       \
    (UINT32_MAX - 2) /* slots are smaller; the numbers from here on are for others to use */

typedef struct row_chunks {
    uint32_t stride; /* bytes from row to row */
    uint32_t rows;   /* a chunk has so many rows */
    uint32_t shift;  /* and so many numbers of slots, log2; those behind its rows are not used */
    uint32_t n;      /* chunks in use */
    uint32_t slots;  /* the next one that was never given out */
    char *at[ROW_CHUNKS_MOST];
} row_chunks;

/* |c| is zeroed. Takes no memory yet. */
void row_chunks_init(row_chunks *c, size_t row_bytes);
void row_chunks_free(row_chunks *c); /* the rows; |c| itself is the owner's */

/* A new slot. SLU_ENOMEM or SLU_ELIMIT (no more slots), without a message, leave |c| as it was. */
int row_chunks_take(row_chunks *c, uint32_t *slot);

uint64_t row_chunks_bytes(const row_chunks *c);
/* Bytes that the next slot takes, for limits that are checked before. */
uint64_t row_chunks_next_bytes(const row_chunks *c);

/* Inline: part of every look-up. */
static inline void *row_chunks_at(const row_chunks *c, uint32_t slot)
{
    const uint32_t within = slot & ((1u << c->shift) - 1);
    return c->at[slot >> c->shift] + (size_t)within * c->stride;
}
