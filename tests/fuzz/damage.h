/* tests/fuzz/damage.h - what a fuzzer's bytes do to the entries of the memory store (tests/memory_store.h):
 * change, cut, extend, delete, copy, insert. Integers at boundaries come ready-made, checksums can be made
 * right again: a fuzzer would hardly find either by itself. */
#pragma once
#include "base/digest.h"
#include "tests/memory_store.h"
#include <stdlib.h>
#include <string.h>

typedef struct damage_bytes {
    const uint8_t *p;
    size_t n;
} damage_bytes;

static inline uint64_t damage_take(damage_bytes *b, size_t n)
{
    uint64_t v = 0;
    for (size_t i = 0; i < n && b->n; i++, b->p++, b->n--)
        v |= (uint64_t)*b->p << (8 * i);
    return v;
}

/* The last eight bytes of a dense vector are the checksum of what is before them. */
static inline void damage_mend(uint8_t *value, size_t len)
{
    if (len < 8)
        return;
    uint64_t sum = slu_hash64(value, len - 8, 0);
    memcpy(value + len - 8, &sum, 8);
}

static inline uint64_t damage_number(uint64_t which)
{
    static const uint64_t special[] = {0,
                                       1,
                                       2,
                                       7,
                                       8,
                                       16,
                                       255,
                                       256,
                                       65535,
                                       INT32_MAX,
                                       UINT32_MAX,
                                       INT64_MAX,
                                       (uint64_t)INT64_MAX + 1,
                                       UINT64_MAX,
                                       UINT64_MAX - 1,
                                       1700000000000000ULL,
                                       253402300799999999ULL,
                                       0x7fc000007f800000ULL};
    return special[which % (sizeof special / sizeof *special)];
}

enum {
    DAMAGE_BYTE,
    DAMAGE_CUT,
    DAMAGE_NUMBER,
    DAMAGE_APPEND,
    DAMAGE_DELETE,
    DAMAGE_COPY,
    DAMAGE_KEY,
    DAMAGE_INSERT,
    DAMAGE_KINDS
};

/* The new value of an entry; |room| has space for its old length + 256. */
static inline size_t damage_value(uint8_t *room, const memory_entry *e, unsigned kind, damage_bytes *b)
{
    size_t n = e->value_len;
    memcpy(room, e->value, n);
    size_t at = n ? damage_take(b, 2) % n : 0;
    if (kind == DAMAGE_BYTE && n)
        room[at] ^= (uint8_t)damage_take(b, 1);
    else if (kind == DAMAGE_CUT)
        n = at;
    else if (kind == DAMAGE_NUMBER && n) {
        uint64_t width = 1ULL << damage_take(b, 1) % 4, v = damage_number(damage_take(b, 1));
        memcpy(room + at, &v, width < n - at ? width : n - at);
    } else if (kind == DAMAGE_APPEND) {
        for (uint64_t more = damage_take(b, 1) % 64; more; more--)
            room[n++] = (uint8_t)damage_take(b, 1);
    }
    return n;
}

/* |n| bytes of the input, zeros when it has no more. */
static inline void damage_fill(uint8_t *out, size_t n, damage_bytes *b)
{
    size_t have = n < b->n ? n : b->n;
    memset(out, 0, n);
    if (have)
        memcpy(out, b->p, have);
    b->p += have;
    b->n -= have;
}

static inline void damage_insert(damage_bytes *b)
{
    uint8_t key[64], value[256];
    slu_family f = (slu_family)(damage_take(b, 1) % SLU_FAMILIES);
    size_t k = damage_take(b, 1) % sizeof key, v = damage_take(b, 1);
    damage_fill(key, k, b);
    damage_fill(value, v, b);
    memory_store_put(f, key, k, value, v);
}

/* One change as the bytes say. */
static inline void damage_once(damage_bytes *b)
{
    unsigned kind = (unsigned)damage_take(b, 1);
    size_t i = damage_take(b, 1), n = memory_store_count();
    if (kind % DAMAGE_KINDS == DAMAGE_INSERT || !n) {
        damage_insert(b);
        return;
    }
    const memory_entry *e = memory_store_at(i % n);
    uint8_t key[4300]; /* a name of META may hold a path */
    slu_family f = e->family;
    size_t key_len = e->key_len < sizeof key ? e->key_len : sizeof key;
    memcpy(key, e->key, key_len);
    uint8_t *room = malloc(e->value_len + 256);
    size_t len = damage_value(room, e, kind % DAMAGE_KINDS, b);
    switch (kind % DAMAGE_KINDS) {
    case DAMAGE_DELETE:
        memory_store_delete(f, key, key_len);
        break;
    case DAMAGE_COPY: { /* another entry's value under this key */
        const memory_entry *from = memory_store_at(damage_take(b, 1) % n);
        size_t from_len = from->value_len;
        uint8_t *value = malloc(from_len + 1);
        memcpy(value, from->value, from_len);
        memory_store_put(f, key, key_len, value, from_len);
        free(value);
        break;
    }
    case DAMAGE_KEY: /* this value under another key */
        if (key_len)
            key[damage_take(b, 1) % key_len] ^= (uint8_t)damage_take(b, 1);
        memory_store_put(f, key, key_len, room, len);
        break;
    default:
        if (f == SLU_FAMILY_DENSE && kind & 0x80)
            damage_mend(room, len);
        memory_store_put(f, key, key_len, room, len);
    }
    free(room);
}
