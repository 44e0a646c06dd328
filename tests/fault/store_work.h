/* tests/fault/store_work.h - work for a store whose state after commit k is a function of k alone, so that
 * what a fault leaves can be compared with a run that had none. */
#pragma once
#include "base/rng.h"
#include "store/store.h"
#include <stdio.h>
#include <string.h>

enum { WORK_ALL = (1 << SLU_FAMILIES) - 1, WORK_ROWS = 200, WORK_CHANGES = 24 };

static const char WORK_VERSION[] = "version";

static slu_store_config work_config(const char *path)
{
    return (slu_store_config){.path = path,
                              .block_cache_bytes = 1 << 20,
                              .write_buffer_bytes = 256 << 10, /* a run has flushes and compactions */
                              .sync = true,
                              .create = true,
                              .schema_text = "work"};
}

static void work_put_u64(slu_commit *c, slu_family f, const char *name, uint64_t v)
{
    slu_commit_put(c, f, name, strlen(name), &v, sizeof v);
}

/* What commit |k| changes: rows and a few that go, one message comes and an old one goes, order, timers. */
static void work_commit(slu_commit *c, uint64_t k)
{
    uint8_t value[600], key[12] = {0};
    uint64_t x = slu_mix64(k);
    for (int i = 0; i < WORK_CHANGES; i++) {
        x = slu_mix64(x);
        key[11] = (uint8_t)(x % WORK_ROWS);
        size_t n = 100 + (x >> 16) % 500;
        for (size_t j = 0; j < n; j++)
            value[j] = (uint8_t)(slu_mix64(x + j / 8) >> j % 8 * 8);
        if (i % 8 == 7)
            slu_commit_delete(c, SLU_FAMILY_ROWS, key, sizeof key);
        else
            slu_commit_put(c, SLU_FAMILY_ROWS, key, sizeof key, value, n);
    }
    char name[32];
    snprintf(name, sizeof name, "%08llu", (unsigned long long)k);
    slu_commit_put(c, SLU_FAMILY_OUTBOX, name, strlen(name), value, 50);
    slu_commit_put(c, SLU_FAMILY_ORDER, name, strlen(name), value, 20);
    slu_commit_put(c, SLU_FAMILY_TIMERS, name, strlen(name), value, 16);
    slu_commit_put(c, SLU_FAMILY_JOIN, value, 16, value, 90);
    slu_commit_put(c, SLU_FAMILY_DENSE, "w", 1, value, 300);
    if (k > 3) {
        snprintf(name, sizeof name, "%08llu", (unsigned long long)k - 3);
        slu_commit_delete(c, SLU_FAMILY_OUTBOX, name, strlen(name));
    }
    work_put_u64(c, SLU_FAMILY_META, WORK_VERSION, k);
}

static int work_version(slu_store *s, uint64_t *version, slu_error *err)
{
    slu_buf b = SLU_BUF_INIT;
    int rc = slu_store_get(s, SLU_FAMILY_META, WORK_VERSION, strlen(WORK_VERSION), &b, err);
    *version = 0;
    if (!rc && b.len == sizeof *version)
        memcpy(version, b.data, sizeof *version);
    slu_buf_free(&b);
    return rc == SLU_ENOTFOUND ? 0 : rc;
}
