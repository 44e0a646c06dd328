#include "trainer/order_log.h"
#include "store/state.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A limit that was lowered is reached over several commits, so that none of them takes long. */
enum { DROPS_PER_COMMIT = 64 };

struct slu_order_log {
    slu_store *store;
    uint64_t keep_bytes;
    slu_order *order; /* NULL: nothing is recorded */
    uint64_t bytes;   /* of all stored values */
    uint64_t oldest;  /* version that is dropped next; 0: nothing was ever recorded */
    uint64_t config;
    bool config_noted;
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

/* ---- configurations: META "~config/<version>" -> fingerprint, from that version on ---- */

enum { CONFIG_NAME = 48 };
static const char CONFIGS[] = "~config/", BEHIND_CONFIGS[] = "~config0"; /* '0' is what comes after '/' */

static void config_name(char name[CONFIG_NAME], uint64_t version)
{
    snprintf(name, CONFIG_NAME, "%s%020" PRIu64, CONFIGS, version); /* so that they sort by version */
}

typedef struct config_search {
    uint64_t from, until, config;
    uint64_t version, other; /* the result */
    bool damaged;
} config_search;

static bool look_at_config(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    config_search *c = ctx;
    char text[CONFIG_NAME] = "";
    slu_reader r = slu_reader_of(value, value_len);
    uint64_t config = slu_get_u64(&r);
    if (r.bad || key_len != sizeof CONFIGS - 1 + 20) {
        c->damaged = true;
        return false;
    }
    memcpy(text, (const char *)key + sizeof CONFIGS - 1, 20);
    uint64_t version = strtoull(text, NULL, 10);
    if (version > c->until)
        return false;
    if (version > c->from && c->version)
        return false;
    bool differs = config != c->config;
    c->version = differs ? (version > c->from ? version : c->from) : 0;
    c->other = config;
    return true;
}

int slu_order_other_config(slu_store *store, uint64_t from, uint64_t until, uint64_t config,
                           uint64_t *version, uint64_t *other, slu_error *err)
{
    config_search c = {.from = from, .until = until, .config = config};
    int rc = slu_store_scan(store, SLU_FAMILY_META, CONFIGS, strlen(CONFIGS), BEHIND_CONFIGS,
                            strlen(BEHIND_CONFIGS), look_at_config, &c, err);
    if (!rc && c.damaged)
        rc = slu_fail(err, SLU_ECORRUPT, "store %s: a stored fingerprint is damaged: restore a backup",
                      slu_store_path(store));
    *version = c.version;
    *other = c.other;
    return rc;
}

/* Whether the newest version was learned under |config|, and is known to have been. */
static int is_noted(slu_store *store, uint64_t config, bool *noted, slu_error *err)
{
    uint64_t version, other;
    int rc = slu_order_other_config(store, UINT64_MAX, UINT64_MAX, ~config, &version, &other, err);
    *noted = version && other == config;
    return rc;
}

/* ---- the log ---- */

int slu_order_log_open(slu_store *store, uint64_t keep_bytes, uint64_t config, slu_order_log **lp,
                       slu_error *err)
{
    *lp = NULL;
    slu_order_log *l = calloc(1, sizeof *l);
    if (!l)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the order of records");
    l->store = store;
    l->keep_bytes = keep_bytes;
    l->config = config;
    int rc = 0;
    if (keep_bytes && !(l->order = slu_order_new()))
        rc = slu_fail(err, SLU_ENOMEM, "out of memory for the order of records");
    if (!rc)
        rc = slu_state_get_u64(store, "~order.bytes", 0, &l->bytes, err);
    if (!rc)
        rc = slu_state_get_u64(store, "~order.oldest", 0, &l->oldest, err);
    if (!rc)
        rc = is_noted(store, config, &l->config_noted, err);
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

static void note_config(slu_order_log *l, slu_commit *commit, uint64_t version)
{
    char name[CONFIG_NAME];
    if (l->config_noted)
        return;
    config_name(name, version);
    slu_state_put_u64(commit, name, l->config);
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
        note_config(l, commit, version);
        slu_order_clear(l->order); /* the next records are of the next commit, also while this is written */
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
        l->config_noted = true;
}
