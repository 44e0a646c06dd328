#include "serving/slot_list.h"
#include <stdlib.h>
#include <string.h>

enum { SLOTS_FIRST = 256 };

void slot_list_free(slot_list *l)
{
    free(l->slots);
    *l = (slot_list){0};
}

size_t slot_list_cap(const slot_list *l, size_t n)
{
    if (n <= l->cap)
        return l->cap;
    size_t cap = l->cap ? l->cap * 2 : SLOTS_FIRST;
    while (cap < n)
        cap *= 2;
    return cap;
}

bool slot_list_grow(slot_list *l, size_t n)
{
    const size_t cap = slot_list_cap(l, n);
    uint32_t *slots = realloc(l->slots, cap * sizeof *slots);
    if (!slots)
        return false;
    l->slots = slots;
    l->cap = cap;
    return true;
}

void slot_list_move(slot_list *to, slot_list *from)
{
    assert(to->cap >= to->n + from->n);
    if (from->n)
        memcpy(to->slots + to->n, from->slots, from->n * sizeof *from->slots);
    to->n += from->n;
    from->n = 0;
}
