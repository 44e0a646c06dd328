/* store/row_slab.h - the rows of one table that are in memory, and where they are by id.
 *
 * Rows lie without gaps in equal chunks that never move, so a row pointer stays good until a row is removed:
 * the last row then fills the hole, which keeps the slab dense, lets empty chunks go back to the system and
 * makes a memory bound exact whatever mix of tables is hot.
 *
 * The index maps the low bits of a row's hash to {tag, slot + 1}, linear probing, at most 60 % full, deletion
 * by shifting back. The tag is the hash's low 32 bits: it holds the home position, so growing and deleting
 * never touch a row, and nearly every false match stops at the tag.
 *
 * Looking is inline, since a batch does it for each of its ids. Running out of memory ends the process
 * (base/bytes.h): whoever appends keeps a bound. @thread the owner's */
#pragma once
#include "base/rng.h"
#include "store/row_table.h"

typedef struct slu_row_index_entry {
    uint32_t tag, slot1; /* slot + 1; 0: empty */
} slu_row_index_entry;

typedef struct slu_row_slab {
    uint32_t stride;      /* bytes per row */
    uint32_t chunk_shift; /* rows per chunk, log2 */
    char **chunks;        /* (n_chunks of cap_chunks) */
    uint32_t n_chunks, cap_chunks;
    uint32_t rows;
    slu_row_index_entry *index; /* (mask + 1) */
    uint32_t mask;
} slu_row_slab;

/* For rows of |floats| floats in chunks of about |chunk_bytes| at most. SLU_ENOMEM. */
int slu_row_slab_init(slu_row_slab *s, uint32_t floats, uint64_t chunk_bytes);
void slu_row_slab_free(slu_row_slab *s); /* all zero is fine */

/* A row for |id|, which has none: everything but id and slot is 0, the floats are not set. */
slu_row *slu_row_slab_append(slu_row_slab *s, uint64_t id);
/* The last row lies where |row| was, if that was another one. */
void slu_row_slab_remove(slu_row_slab *s, slu_row *row);

static inline uint64_t slu_row_slab_index_bytes(const slu_row_slab *s)
{
    return ((uint64_t)s->mask + 1) * sizeof *s->index;
}

static inline uint32_t slu_row_slab_tag(uint64_t id)
{
    return (uint32_t)slu_mix64(id);
}

static inline slu_row *slu_row_slab_at(const slu_row_slab *s, uint32_t slot)
{
    uint32_t in_chunk = slot & ((1u << s->chunk_shift) - 1);
    return (slu_row *)(s->chunks[slot >> s->chunk_shift] + (size_t)in_chunk * s->stride);
}

/* Asks memory for what a look for |tag| needs first. */
static inline void slu_row_slab_prefetch(const slu_row_slab *s, uint32_t tag)
{
    __builtin_prefetch(&s->index[tag & s->mask]);
}

/* NULL: there is none. */
static inline slu_row *slu_row_slab_find(const slu_row_slab *s, uint64_t id)
{
    uint32_t tag = slu_row_slab_tag(id);
    for (uint32_t i = tag & s->mask; s->index[i].slot1; i = (i + 1) & s->mask) {
        if (s->index[i].tag != tag)
            continue;
        slu_row *row = slu_row_slab_at(s, s->index[i].slot1 - 1);
        if (row->id == id)
            return row;
    }
    return NULL;
}

/* First row whose tag matches, its id not compared: touching it would wait for memory. */
static inline slu_row *slu_row_slab_find_tag(const slu_row_slab *s, uint32_t tag)
{
    for (uint32_t i = tag & s->mask; s->index[i].slot1; i = (i + 1) & s->mask)
        if (s->index[i].tag == tag)
            return slu_row_slab_at(s, s->index[i].slot1 - 1);
    return NULL;
}
