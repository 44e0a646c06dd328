/* base/arena.h - bump allocation: many small pieces, freed all at once.
 *
 * Blocks are kept across slu_arena_reset(), so a loop that resets once per event, request or batch stops
 * allocating once it is warm. Not thread-safe: one arena, one thread. */
#pragma once
#include <stddef.h>

typedef struct slu_arena slu_arena;

/* |block| is the size of the first block in bytes (0: 64 KiB); later blocks double. |limit| bounds the sum of all
 * blocks (0: none). NULL when out of memory. */
slu_arena *slu_arena_new(size_t block, size_t limit);
void slu_arena_free(slu_arena *a); /* NULL is fine */

/* Zero-filled? No: contents are undefined. Aligned to 64 bytes for size >= 64, else 16. NULL when the limit or memory is reached. */
void *slu_arena_alloc(slu_arena *a, size_t size);
void *slu_arena_zalloc(slu_arena *a, size_t size);
/* A copy of |len| bytes plus a final NUL. */
char *slu_arena_strndup(slu_arena *a, const char *s, size_t len);

/* Forgets every piece, keeps the memory. If more than one block was used they are merged into one. */
void slu_arena_reset(slu_arena *a);
size_t slu_arena_used(const slu_arena *a); /* bytes handed out since the last reset */
size_t slu_arena_held(const slu_arena *a); /* bytes of all blocks */
