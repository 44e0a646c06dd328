#include "trainer/kafka_shelf.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Many items share a block, so that little is allocated; a large one has its own. */
#define BLOCK ((size_t)32 << 10)

struct slu_shelf_block {
    slu_shelf_block *next;
    size_t at, len, cap; /* items lie in [at, len) */
    unsigned char bytes[];
};

static size_t room_of(size_t len)
{
    return sizeof(slu_shelf_item) + (len + 7) / 8 * 8; /* the next header is aligned */
}

static slu_shelf_block *add_block(slu_shelf *s, slu_shelf_room *room, size_t need)
{
    size_t cap = need > BLOCK ? need : BLOCK, size = sizeof(slu_shelf_block) + cap;
    if (room->used && room->used + size > room->limit)
        return NULL;
    slu_shelf_block *b = malloc(size);
    if (!b)
        return NULL;
    *b = (slu_shelf_block){.cap = cap};
    room->used += size;
    if (s->last)
        s->last->next = b;
    else
        s->first = b;
    s->last = b;
    return b;
}

bool slu_shelf_put(slu_shelf *s, slu_shelf_room *room, const slu_shelf_item *item)
{
    size_t need = room_of(item->len);
    slu_shelf_block *b = s->last;
    if (!b || b->len + need > b->cap)
        b = add_block(s, room, need);
    if (!b)
        return false;
    unsigned char *to = b->bytes + b->len;
    slu_shelf_item header = *item;
    header.bytes = to + sizeof header;
    memcpy(to, &header, sizeof header);
    memcpy(to + sizeof header, item->bytes, item->len);
    b->len += need;
    s->n++;
    s->next = item->end ? item->offset : item->offset + 1;
    return true;
}

static void drop_first(slu_shelf *s, slu_shelf_room *room)
{
    slu_shelf_block *b = s->first;
    s->first = b->next;
    if (!s->first)
        s->last = NULL;
    room->used -= sizeof *b + b->cap;
    free(b);
}

bool slu_shelf_first(slu_shelf *s, slu_shelf_room *room, slu_shelf_item *item)
{
    while (s->first && s->first->at == s->first->len)
        drop_first(s, room);
    if (!s->first)
        return false;
    memcpy(item, s->first->bytes + s->first->at, sizeof *item);
    return true;
}

void slu_shelf_shift(slu_shelf *s)
{
    slu_shelf_item header;
    assert(s->n && s->first && s->first->at < s->first->len);
    memcpy(&header, s->first->bytes + s->first->at, sizeof header);
    s->first->at += room_of(header.len);
    s->n--;
}

void slu_shelf_clear(slu_shelf *s, slu_shelf_room *room)
{
    while (s->first)
        drop_first(s, room);
    s->n = 0;
}
