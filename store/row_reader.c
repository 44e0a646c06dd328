#include "store/row_reader.h"
#include "base/rng.h"
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { GROUP = 64, MOST_KEYS = 16384, MOST_BYTES = 8 << 20 };
#define NOT_READ UINT32_MAX
#define ABSENT   (UINT32_MAX - 1)

typedef struct wanted {
    uint8_t key[SLU_ROW_KEY_BYTES];
    uint32_t len; /* of its value, or why there is none */
} wanted;

struct slu_row_reader {
    slu_store *store;
    size_t value_bytes;
    uint32_t cap;
    /* [0, taken) are read or being read, [taken, handed) wait, [handed, n) are the owner's */
    wanted *keys;    /* (cap) */
    uint8_t *values; /* (cap, value_bytes) */
    uint32_t *index; /* (mask + 1) place in keys + 1, open addressing */
    uint32_t mask;
    uint32_t n; /* the owner's */
    pthread_t thread;
    bool running;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    uint32_t handed, taken, read; /* these and the next under the lock; |read|: how many are */
    bool stopping;
};

/* ---- the thread ---- */

typedef struct reading {
    slu_row_reader *r;
    uint32_t first;
} reading;

static void take_value(void *ctx, size_t i, const void *value, size_t len)
{
    reading *g = ctx;
    slu_row_reader *r = g->r;
    wanted *w = &r->keys[g->first + i];
    w->len = len <= r->value_bytes ? (uint32_t)len : NOT_READ;
    if (w->len != NOT_READ)
        memcpy(r->values + (g->first + i) * r->value_bytes, value, len);
}

static void read_group(slu_row_reader *r, uint32_t first, uint32_t n)
{
    const void *keys[GROUP] = {NULL};
    size_t lengths[GROUP] = {0};
    reading g = {r, first};
    for (uint32_t i = 0; i < n; i++) {
        keys[i] = r->keys[first + i].key;
        lengths[i] = SLU_ROW_KEY_BYTES;
        r->keys[first + i].len = ABSENT;
    }
    if (slu_store_multiget(r->store, SLU_FAMILY_ROWS, keys, lengths, n, take_value, &g, NULL))
        for (uint32_t i = 0; i < n; i++)
            r->keys[first + i].len = NOT_READ;
}

/* Inside the lock, which is open while it reads: the next group of those that wait. */
static void read_next(slu_row_reader *r)
{
    uint32_t first = r->taken, n = r->handed - first;
    n = n < GROUP ? n : GROUP;
    r->taken += n;
    pthread_mutex_unlock(&r->lock);
    read_group(r, first, n);
    pthread_mutex_lock(&r->lock);
    r->read += n;
    if (r->read == r->handed)
        pthread_cond_broadcast(&r->changed);
}

static void *run(void *arg)
{
    slu_row_reader *r = arg;
    pthread_mutex_lock(&r->lock);
    while (!r->stopping) {
        if (r->taken == r->handed)
            pthread_cond_wait(&r->changed, &r->lock);
        else
            read_next(r);
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* ---- life ---- */

static int start_thread(slu_row_reader *r)
{
    sigset_t all, before;
    sigfillset(&all); /* signals are for the owner */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r->running = !pthread_create(&r->thread, NULL, run, r);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return r->running ? 0 : SLU_EIO;
}

int slu_row_reader_start(slu_store *s, size_t value_bytes, slu_row_reader **rp, slu_error *err)
{
    *rp = NULL;
    slu_row_reader *r = calloc(1, sizeof *r);
    if (!r)
        return slu_fail(err, SLU_ENOMEM, "store %s: out of memory", slu_store_path(s));
    pthread_mutex_init(&r->lock, NULL);
    pthread_cond_init(&r->changed, NULL);
    r->store = s;
    r->value_bytes = value_bytes;
    r->cap = MOST_BYTES / value_bytes < MOST_KEYS ? (uint32_t)(MOST_BYTES / value_bytes) : MOST_KEYS;
    r->mask = 2 * MOST_KEYS - 1;
    r->keys = calloc(r->cap + 1, sizeof *r->keys);
    r->values = malloc(r->cap * value_bytes + 1);
    r->index = calloc(r->mask + 1, sizeof *r->index);
    int rc = 0;
    if (!r->keys || !r->values || !r->index)
        rc = slu_fail(err, SLU_ENOMEM, "store %s: out of memory", slu_store_path(s));
    else if (start_thread(r))
        rc = slu_fail(err, SLU_EIO, "store %s: the thread that reads rows cannot be started",
                      slu_store_path(s));
    if (rc)
        slu_row_reader_stop(r);
    else
        *rp = r;
    return rc;
}

void slu_row_reader_stop(slu_row_reader *r)
{
    if (!r)
        return;
    if (r->running) {
        pthread_mutex_lock(&r->lock);
        r->stopping = true;
        pthread_cond_broadcast(&r->changed);
        pthread_mutex_unlock(&r->lock);
        pthread_join(r->thread, NULL);
    }
    pthread_cond_destroy(&r->changed);
    pthread_mutex_destroy(&r->lock);
    free(r->keys);
    free(r->values);
    free(r->index);
    free(r);
}

/* ---- the owner ---- */

/* Where |key| is in the index, or the empty place where it would be. */
static uint32_t place_of(const slu_row_reader *r, const uint8_t key[SLU_ROW_KEY_BYTES])
{
    uint64_t id;
    memcpy(&id, key + SLU_ROW_KEY_BYTES - sizeof id, sizeof id);
    uint32_t at = (uint32_t)slu_mix64(id) & r->mask;
    while (r->index[at] && memcmp(r->keys[r->index[at] - 1].key, key, SLU_ROW_KEY_BYTES) != 0)
        at = (at + 1) & r->mask;
    return at;
}

void slu_row_reader_want(slu_row_reader *r, const uint8_t key[SLU_ROW_KEY_BYTES])
{
    uint32_t at = place_of(r, key);
    if (r->index[at] || r->n == r->cap)
        return;
    memcpy(r->keys[r->n].key, key, SLU_ROW_KEY_BYTES);
    r->keys[r->n].len = NOT_READ;
    r->index[at] = ++r->n;
    if (r->n % GROUP)
        return;
    pthread_mutex_lock(&r->lock);
    r->handed = r->n;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
}

void slu_row_reader_arrive(slu_row_reader *r)
{
    pthread_mutex_lock(&r->lock);
    while (r->taken < r->handed) /* who would wait reads along */
        read_next(r);
    while (r->read < r->handed)
        pthread_cond_wait(&r->changed, &r->lock);
    pthread_mutex_unlock(&r->lock);
}

bool slu_row_reader_find(const slu_row_reader *r, const uint8_t key[SLU_ROW_KEY_BYTES], const void **value,
                         size_t *len)
{
    uint32_t at = r->n ? r->index[place_of(r, key)] : 0;
    if (!at || r->keys[at - 1].len == NOT_READ)
        return false;
    *len = r->keys[at - 1].len == ABSENT ? 0 : r->keys[at - 1].len;
    *value = r->keys[at - 1].len == ABSENT ? NULL : r->values + (at - 1) * r->value_bytes;
    return true;
}

void slu_row_reader_clear(slu_row_reader *r)
{
    slu_row_reader_arrive(r);
    for (; r->n; r->n--) /* the last one first: it stands in no other's way */
        r->index[place_of(r, r->keys[r->n - 1].key)] = 0;
    pthread_mutex_lock(&r->lock);
    r->handed = r->taken = r->read = 0;
    pthread_mutex_unlock(&r->lock);
}
