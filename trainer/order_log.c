#include "trainer/order_log.h"
#include "store/state.h"
#include <stdlib.h>

/* A limit that was lowered is reached over several commits, so that none of them takes long. */
enum { DROPS_PER_COMMIT = 64 };

struct slu_order_log {
    slu_store *store;
    uint64_t keep_bytes;
    slu_order *order; /* NULL: nothing is recorded */
    uint64_t bytes;   /* of all stored values */
    uint64_t oldest;  /* version that is dropped next; 0: nothing was ever recorded */
    slu_buf scratch;
};

void slu_order_key(uint64_t version, uint8_t key[8])
{
    for (int i = 0; i < 8; i++)
        key[i] = (uint8_t)(version >> (56 - 8 * i));
}

uint64_t slu_order_key_parse(const void *key, size_t len)
{
    slu_reader r = slu_reader_of(key, len);
    uint64_t version = slu_get_u64_be(&r);
    return slu_reader_left(&r) ? 0 : version;
}

int slu_order_log_open(slu_store *store, uint64_t keep_bytes, slu_order_log **lp, slu_error *err)
{
    *lp = NULL;
    slu_order_log *l = calloc(1, sizeof *l);
    if (!l)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the order of records");
    l->store = store;
    l->keep_bytes = keep_bytes;
    int rc = 0;
    if (keep_bytes && !(l->order = slu_order_new()))
        rc = slu_fail(err, SLU_ENOMEM, "out of memory for the order of records");
    if (!rc)
        rc = slu_state_get_u64(store, "~order.bytes", 0, &l->bytes, err);
    if (!rc)
        rc = slu_state_get_u64(store, "~order.oldest", 0, &l->oldest, err);
    if (rc) {
        slu_order_log_close(l);
        return rc;
    }
    *lp = l;
    return 0;
}

void slu_order_log_close(slu_order_log *l)
{
    if (!l)
        return;
    slu_order_free(l->order);
    slu_buf_free(&l->scratch);
    free(l);
}

void slu_order_log_add(slu_order_log *l, const slu_record *r, const slu_partition *part)
{
    if (l->order)
        slu_order_add(l->order, r, part);
}

/* Drops the oldest versions until the rest fits; the newest always stays. */
static int trim(slu_order_log *l, slu_commit *commit, uint64_t version, slu_error *err)
{
    for (int i = 0; i < DROPS_PER_COMMIT && l->bytes > l->keep_bytes && l->oldest < version; i++) {
        uint8_t key[8];
        slu_order_key(l->oldest, key);
        int rc = slu_store_get(l->store, SLU_FAMILY_ORDER, key, sizeof key, &l->scratch, err);
        if (rc && rc != SLU_ENOTFOUND) /* a version of a time when nothing was recorded */
            return rc;
        l->bytes -= l->scratch.len < l->bytes ? l->scratch.len : l->bytes;
        slu_commit_delete(commit, SLU_FAMILY_ORDER, key, sizeof key);
        l->oldest++;
    }
    return 0;
}

int slu_order_log_flush(slu_order_log *l, slu_commit *commit, uint64_t version, slu_error *err)
{
    if (l->order) {
        uint8_t key[8];
        slu_order_key(version, key);
        slu_buf_clear(&l->scratch);
        slu_order_save(l->order, &l->scratch);
        slu_commit_put(commit, SLU_FAMILY_ORDER, key, sizeof key, l->scratch.data, l->scratch.len);
        l->bytes += l->scratch.len;
        if (!l->oldest)
            l->oldest = version;
    }
    if (!l->oldest)
        return 0;
    int rc = trim(l, commit, version, err);
    slu_state_put_u64(commit, "~order.bytes", l->bytes);
    slu_state_put_u64(commit, "~order.oldest", l->oldest);
    return rc;
}

void slu_order_log_committed(slu_order_log *l)
{
    if (l->order)
        slu_order_clear(l->order);
}
