#include "store/row_slab.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    EMPTY = 0, /* index entry without a slot */
    FIRST_INDEX = 64,
    ROW_ALIGN = 16,
    HUGE_PAGE = 2 << 20,
};

/* ---- memory ---- */

int slu_row_slab_init(slu_row_slab *s, uint32_t floats, uint64_t chunk_bytes)
{
    uint64_t bytes = sizeof(slu_row) + floats * sizeof(float);
    *s = (slu_row_slab){.stride = (uint32_t)((bytes + ROW_ALIGN - 1) / ROW_ALIGN * ROW_ALIGN),
                        .chunk_shift = 4, /* at least 16 rows */
                        .mask = FIRST_INDEX - 1};
    if (chunk_bytes > 2 * HUGE_PAGE)
        chunk_bytes = 2 * HUGE_PAGE; /* gives at least one huge page */
    while (((uint64_t)s->stride << (s->chunk_shift + 1)) <= chunk_bytes)
        s->chunk_shift++;
    s->index = calloc(FIRST_INDEX, sizeof *s->index);
    return s->index ? 0 : SLU_ENOMEM;
}

void slu_row_slab_free(slu_row_slab *s)
{
    while (s->n_chunks)
        free(s->chunks[--s->n_chunks]);
    free(s->chunks);
    free(s->index);
}

static size_t chunk_bytes(const slu_row_slab *s)
{
    return (size_t)s->stride << s->chunk_shift;
}

static char *new_chunk(const slu_row_slab *s)
{
    size_t bytes = chunk_bytes(s);
    void *p = NULL;
    if (posix_memalign(&p, bytes >= HUGE_PAGE ? HUGE_PAGE : 64, bytes))
        abort();
    if (bytes >= HUGE_PAGE)
        madvise(p, bytes, MADV_HUGEPAGE); /* rows are hit at random: fewer TLB misses */
    return p;
}

/* Keeps one empty chunk: a slab at a chunk's border would else allocate and free without end. */
static void drop_empty_chunks(slu_row_slab *s)
{
    uint32_t needed = (s->rows + (1u << s->chunk_shift) - 1) >> s->chunk_shift;
    while (s->n_chunks > needed + 1)
        free(s->chunks[--s->n_chunks]);
}

/* ---- index ---- */

static void index_put(slu_row_slab *s, uint32_t tag, uint32_t slot)
{
    uint32_t i = tag & s->mask;
    while (s->index[i].slot1 != EMPTY)
        i = (i + 1) & s->mask;
    s->index[i] = (slu_row_index_entry){tag, slot + 1};
}

static void index_grow(slu_row_slab *s)
{
    slu_row_index_entry *old = s->index;
    uint32_t old_mask = s->mask;
    s->mask = old_mask * 2 + 1;
    s->index = calloc((size_t)s->mask + 1, sizeof *s->index);
    if (!s->index)
        abort();
    for (uint32_t i = 0; i <= old_mask; i++)
        if (old[i].slot1 != EMPTY)
            index_put(s, old[i].tag, old[i].slot1 - 1);
    free(old);
}

/* Position of the entry of |slot|, which is there. */
static uint32_t index_position(const slu_row_slab *s, uint32_t tag, uint32_t slot)
{
    uint32_t i = tag & s->mask;
    while (s->index[i].slot1 != slot + 1) {
        assert(s->index[i].slot1 != EMPTY);
        i = (i + 1) & s->mask;
    }
    return i;
}

static void index_remove(slu_row_slab *s, uint32_t tag, uint32_t slot)
{
    uint32_t hole = index_position(s, tag, slot);
    for (uint32_t i = (hole + 1) & s->mask; s->index[i].slot1 != EMPTY; i = (i + 1) & s->mask) {
        uint32_t home = s->index[i].tag & s->mask;
        /* An entry may move back into the hole when its home is not behind the hole. */
        if (((i - home) & s->mask) >= ((i - hole) & s->mask)) {
            s->index[hole] = s->index[i];
            hole = i;
        }
    }
    s->index[hole] = (slu_row_index_entry){0, EMPTY};
}

/* ---- rows ---- */

slu_row *slu_row_slab_append(slu_row_slab *s, uint64_t id)
{
    uint32_t slot = s->rows;
    if (slot >> s->chunk_shift == s->n_chunks) {
        if (s->n_chunks == s->cap_chunks) {
            s->cap_chunks = s->cap_chunks ? 2 * s->cap_chunks : 8;
            s->chunks = reallocarray(s->chunks, s->cap_chunks, sizeof *s->chunks);
            if (!s->chunks)
                abort();
        }
        s->chunks[s->n_chunks++] = new_chunk(s);
    }
    if ((uint64_t)(s->rows + 1) * 5 > ((uint64_t)s->mask + 1) * 3)
        index_grow(s);
    s->rows++;
    slu_row *row = slu_row_slab_at(s, slot);
    *row = (slu_row){.id = id, .slot = slot};
    index_put(s, slu_row_slab_tag(id), slot);
    return row;
}

void slu_row_slab_remove(slu_row_slab *s, slu_row *row)
{
    uint32_t slot = row->slot, last = s->rows - 1;
    index_remove(s, slu_row_slab_tag(row->id), slot);
    if (slot != last) {
        slu_row *moved = slu_row_slab_at(s, last);
        s->index[index_position(s, slu_row_slab_tag(moved->id), last)].slot1 = slot + 1;
        memcpy(row, moved, s->stride);
        row->slot = slot;
    }
    s->rows--;
    drop_empty_chunks(s);
}
