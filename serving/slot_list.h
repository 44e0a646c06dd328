/* serving/slot_list.h - a growable list of slots whose order does not matter.
 *
 * Room is made before something begins that must not fail half way (slot_list_reserve); pushing and moving
 * then only assert it. What a list would take for so many slots can be told before (slot_list_cap), for
 * limits that are checked before. Begins as {0}. @thread the owner's */
#pragma once
#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct slot_list {
    uint32_t *slots; /* (cap) of which n are used */
    size_t n, cap;
} slot_list;

void slot_list_free(slot_list *l);
/* What |l| has room for once |n| have it. */
size_t slot_list_cap(const slot_list *l, size_t n);
/* What slot_list_reserve() does where there is not enough. */
bool slot_list_grow(slot_list *l, size_t n);
/* Moves all of |from| to |to|, where there is room. */
void slot_list_move(slot_list *to, slot_list *from);

/* Makes room for |n| in all. False: out of memory, |l| is as it was. */
static inline bool slot_list_reserve(slot_list *l, size_t n)
{
    return n <= l->cap || slot_list_grow(l, n);
}

static inline void slot_list_push(slot_list *l, uint32_t slot)
{
    assert(l->n < l->cap);
    l->slots[l->n++] = slot;
}
