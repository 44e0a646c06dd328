/* trainer/kafka_shelf.h - what was fetched of a partition that waits for others (trainer/pace.h), in order,
 * until it goes on.
 *
 * Kafka delivers partitions in pieces that may be longer than join.max_skew. To drop the rest of a piece and
 * to fetch it again would cost many times what is used, so it is copied here: a copy, because a message of
 * librdkafka keeps the whole response alive that it came with. All shelves share one bound.
 * @thread one, the owner of the source */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* A message, or the end of the partition. */
typedef struct slu_shelf_item {
    int64_t offset;
    int64_t stamp_us; /* of the message; the end: our clock when the partition was known to end there */
    uint64_t mark;    /* trainer/kafka_mark.h */
    size_t len;
    const void *bytes; /* (len), never NULL */
    bool end;
} slu_shelf_item;

typedef struct slu_shelf_block slu_shelf_block;
typedef struct slu_shelf {
    slu_shelf_block *first, *last;
    uint64_t n;   /* items */
    int64_t next; /* offset behind the newest message; holds while there are items */
} slu_shelf;

typedef struct slu_shelf_room {
    size_t limit, used; /* bytes of all shelves */
} slu_shelf_room;

/* Copies |item| behind the others. False: there is no room (with all shelves empty any item finds some), or
 * no memory. */
bool slu_shelf_put(slu_shelf *s, slu_shelf_room *room, const slu_shelf_item *item);
/* The oldest item; false: there is none. Its bytes hold until the next call of this, or clear. */
bool slu_shelf_first(slu_shelf *s, slu_shelf_room *room, slu_shelf_item *item);
/* The oldest is done with; there must be one. */
void slu_shelf_shift(slu_shelf *s);
void slu_shelf_clear(slu_shelf *s, slu_shelf_room *room);
