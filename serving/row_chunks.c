#include "serving/row_chunks.h"
#include "base/error.h"
#include "serving/huge_memory.h"
#include <stdbool.h>

#define CHUNK_BYTES HUGE_PAGE

static size_t chunk_bytes(const row_chunks *c)
{
    return c->rows == 1 ? c->stride : CHUNK_BYTES;
}

void row_chunks_init(row_chunks *c, size_t row_bytes)
{
    c->stride = (uint32_t)((row_bytes + 7) & ~(size_t)7);
    c->rows = c->stride < CHUNK_BYTES ? (uint32_t)(CHUNK_BYTES / c->stride) : 1;
    while (1u << c->shift < c->rows)
        c->shift++;
}

void row_chunks_free(row_chunks *c)
{
    for (uint32_t i = 0; i < c->n; i++)
        huge_memory_free(c->at[i], chunk_bytes(c));
    c->n = c->slots = 0;
}

static bool add_chunk(row_chunks *c)
{
    char *p = huge_memory_new(chunk_bytes(c));
    if (!p)
        return false;
    c->at[c->n++] = p;
    if (c->rows == 1 || c->n == 1)
        return true;
    huge_memory_ask(p, CHUNK_BYTES);
    if (c->n == 2)
        huge_memory_merge(c->at[0], CHUNK_BYTES); /* its rows move into a huge page where they are */
    return true;
}

int row_chunks_take(row_chunks *c, uint32_t *slot)
{
    const uint32_t chunk = c->slots >> c->shift;
    if (chunk == ROW_CHUNKS_MOST || c->slots >= ROW_SLOTS_MOST)
        return SLU_ELIMIT;
    if (chunk == c->n && !add_chunk(c))
        return SLU_ENOMEM;
    *slot = c->slots++;
    if ((c->slots & ((1u << c->shift) - 1)) == c->rows) {
        const uint64_t next = (chunk + 1ull) << c->shift; /* behind the last chunk it is no slot any more */
        c->slots = next < ROW_SLOTS_MOST ? (uint32_t)next : ROW_SLOTS_MOST;
    }
    return 0;
}

/* Bytes of chunks once |slots| were given out: pages of the first, from then on whole ones. */
static uint64_t touched(const row_chunks *c, uint64_t slots)
{
    const uint64_t chunks = (slots + (1u << c->shift) - 1) >> c->shift;
    if (c->rows == 1)
        return chunks * huge_memory_pages(c->stride);
    return chunks > 1 || slots >= c->rows ? chunks * CHUNK_BYTES : huge_memory_pages(slots * c->stride);
}

uint64_t row_chunks_bytes(const row_chunks *c)
{
    return touched(c, c->slots);
}

uint64_t row_chunks_next_bytes(const row_chunks *c)
{
    return touched(c, c->slots + 1ull) - touched(c, c->slots);
}
