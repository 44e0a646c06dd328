#include "serving/row_index.h"
#include "serving/huge_memory.h"

#define ENTRIES_AT_FIRST 1024u

static size_t entries_bytes(uint64_t entries)
{
    return sizeof(row_entries) + entries * sizeof(uint64_t);
}

static row_entries *entries_new(uint64_t entries)
{
    const size_t bytes = entries_bytes(entries);
    row_entries *x = huge_memory_new(bytes);
    if (!x)
        return NULL;
    if (bytes >= HUGE_PAGE)
        huge_memory_ask(x, bytes);
    x->mask = entries - 1;
    return x;
}

static void entries_free(row_entries *x)
{
    if (x)
        huge_memory_free(x, entries_bytes(x->mask + 1));
}

bool row_index_init(row_index *x)
{
    *x = (row_index){.entries = entries_new(ENTRIES_AT_FIRST), .bytes = entries_bytes(ENTRIES_AT_FIRST)};
    return x->entries != NULL;
}

void row_index_free(row_index *x)
{
    row_index_reclaim(x);
    entries_free(x->entries);
}

void row_index_reclaim(row_index *x)
{
    while (x->retired) {
        row_entries *old = x->retired;
        x->retired = old->next;
        entries_free(old);
    }
    x->retired_bytes = 0;
}

static void copy_rows(row_entries *to, const row_entries *from)
{
    for (uint64_t i = 0; i <= from->mask; i++) {
        const uint64_t entry = from->at[i];
        if ((uint32_t)entry < ROW_ENTRY_FIRST)
            continue;
        uint64_t pos = entry >> 32;
        while (to->at[pos & to->mask] != ROW_ENTRY_EMPTY)
            pos++;
        to->at[pos & to->mask] = entry;
    }
}

bool row_index_grow(row_index *x, bool shared)
{
    row_entries *old = x->entries;
    const uint64_t rows = x->used - x->tombstones;
    uint64_t entries = old->mask + 1;
    while (entries < 2 * (rows + 1))
        entries *= 2;
    row_entries *larger = entries_new(entries);
    if (!larger)
        return false;
    copy_rows(larger, old);
    __atomic_store_n(&x->entries, larger, __ATOMIC_RELEASE);
    x->bytes = entries_bytes(entries);
    x->used = rows;
    x->tombstones = 0;
    if (!shared) {
        entries_free(old);
        return true;
    }
    old->next = x->retired;
    x->retired = old;
    x->retired_bytes += entries_bytes(old->mask + 1);
    return true;
}

uint64_t row_index_bytes(const row_index *x)
{
    return x->bytes + x->retired_bytes;
}

uint64_t row_index_next_bytes(const row_index *x)
{
    return row_index_is_full(x) ? 2 * x->bytes : 0;
}
