#include "base/arena.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Under AddressSanitizer the free part of every block is poisoned, so a piece used after slu_arena_reset() is
 * reported like any other use after free. */
#if defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ARENA_ASAN 1
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define ARENA_ASAN 1
#endif
#ifdef ARENA_ASAN
#include <sanitizer/asan_interface.h>
#define HIDE(p, n) ASAN_POISON_MEMORY_REGION(p, n)
#define SHOW(p, n) ASAN_UNPOISON_MEMORY_REGION(p, n)
#else
#define HIDE(p, n) ((void)(p), (void)(n))
#define SHOW(p, n) ((void)(p), (void)(n))
#endif

#define FIRST_BLOCK ((size_t)64 << 10)
#define BLOCK_ALIGN ((size_t)64)

typedef struct block {
    struct block *older;
    size_t cap, used; /* of data */
    _Alignas(64) unsigned char data[];
} block;

struct slu_arena {
    block *top;   /* newest block, the one that is allocated from */
    size_t next;  /* size of the next block */
    size_t limit; /* of held; 0: none */
    size_t held;  /* bytes of all blocks */
    size_t used;  /* handed out since the last reset */
};

static block *block_new(size_t cap)
{
    if (cap > SIZE_MAX / 2)
        return NULL;
    cap = (cap + BLOCK_ALIGN - 1) & ~(BLOCK_ALIGN - 1);
    block *b = aligned_alloc(BLOCK_ALIGN, sizeof(block) + cap);
    if (!b)
        return NULL;
    *b = (block){.cap = cap};
    HIDE(b->data, cap);
    return b;
}

static void blocks_free(block *b)
{
    while (b) {
        block *older = b->older;
        SHOW(b->data, b->cap);
        free(b);
        b = older;
    }
}

slu_arena *slu_arena_new(size_t first, size_t limit)
{
    slu_arena *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    a->limit = limit;
    a->next = first ? first : FIRST_BLOCK;
    if (limit && a->next > limit)
        a->next = limit;
    return a;
}

void slu_arena_free(slu_arena *a)
{
    if (!a)
        return;
    blocks_free(a->top);
    free(a);
}

/* A block with room for |size| bytes at the wanted alignment; blocks start 64-aligned, so |size| is enough.
 */
static block *grow(slu_arena *a, size_t size)
{
    size_t want = a->next;
    while (want < size) {
        if (want > SIZE_MAX / 2)
            return NULL;
        want *= 2;
    }
    if (a->limit) {
        size_t left = a->limit > a->held ? a->limit - a->held : 0;
        left &= ~(BLOCK_ALIGN - 1); /* block_new rounds up, and must not round over the limit */
        if (size > left)
            return NULL;
        if (want > left)
            want = left;
    }
    block *b = block_new(want);
    if (!b)
        return NULL;
    b->older = a->top;
    a->top = b;
    a->held += b->cap;
    a->next = b->cap > SIZE_MAX / 4 ? b->cap : b->cap * 2;
    return b;
}

void *slu_arena_alloc(slu_arena *a, size_t size)
{
    size_t align = size >= 64 ? 64 : 16;
    if (!size)
        size = 1; /* every piece has an address of its own */
    block *b = a->top;
    size_t at = b ? (b->used + align - 1) & ~(align - 1) : 0;
    if (!b || at > b->cap || size > b->cap - at) {
        b = grow(a, size);
        if (!b)
            return NULL;
        at = 0;
    }
    b->used = at + size;
    a->used += size;
    SHOW(b->data + at, size);
    return b->data + at;
}

void *slu_arena_zalloc(slu_arena *a, size_t size)
{
    void *p = slu_arena_alloc(a, size);
    return p ? memset(p, 0, size) : NULL;
}

char *slu_arena_strndup(slu_arena *a, const char *s, size_t len)
{
    if (len == SIZE_MAX)
        return NULL;
    char *p = slu_arena_alloc(a, len + 1);
    if (!p)
        return NULL;
    if (len)
        memcpy(p, s, len);
    p[len] = 0;
    return p;
}

void slu_arena_reset(slu_arena *a)
{
    a->used = 0;
    if (!a->top)
        return;
    if (a->top->older) {
        size_t all = a->held;
        block *one = NULL;
        /* The old blocks go first, so that the peak stays at |held|; if memory is gone in between, the arena
         * is simply empty and the next piece asks again. */
        blocks_free(a->top);
        a->top = NULL;
        a->held = 0;
        one = block_new(all);
        if (!one)
            return;
        a->top = one;
        a->held = one->cap;
        return;
    }
    a->top->used = 0;
    HIDE(a->top->data, a->top->cap);
}

size_t slu_arena_used(const slu_arena *a)
{
    return a->used;
}

size_t slu_arena_held(const slu_arena *a)
{
    return a->held;
}
