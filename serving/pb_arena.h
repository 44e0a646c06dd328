/* serving/pb_arena.h - unpacks protobuf-c messages into an arena: nothing is freed piece by piece. */
#pragma once
#include "base/arena.h"
#include <protobuf-c/protobuf-c.h>

static inline void *slu_pb_arena_alloc(void *arena, size_t size)
{
    return slu_arena_alloc(arena, size);
}

static inline void slu_pb_arena_free(void *arena, void *p)
{
    (void)arena, (void)p;
}

/* Good for *_unpack(&allocator, ...); the message lives until the arena is reset and is never freed itself.
 */
static inline ProtobufCAllocator slu_pb_allocator(slu_arena *arena)
{
    return (ProtobufCAllocator){slu_pb_arena_alloc, slu_pb_arena_free, arena};
}
