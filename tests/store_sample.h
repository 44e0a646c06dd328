/* tests/store_sample.h - a throw-away directory and a store in it, for the tests of the store room. */
#pragma once
#include "base/rng.h"
#include "store/store.h"
#include <check.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static char sample_root[256], sample_path[300]; /* sample_path does not exist yet */

static int sample_remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void sample_remove(const char *path)
{
    nftw(path, sample_remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

static inline void sample_setup(void)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(sample_root, sizeof sample_root, "%.200s/sluice-test-XXXXXX", tmp ? tmp : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(sample_root));
    snprintf(sample_path, sizeof sample_path, "%s/store", sample_root);
}

static inline void sample_teardown(void)
{
    sample_remove(sample_root);
}

static inline slu_store *sample_open_as(slu_store_config config)
{
    slu_error err = SLU_ERROR_INIT;
    slu_store *s = NULL;
    int rc = slu_store_open(&config, &s, &err);
    ck_assert_msg(!rc, "open: %s", err.message);
    ck_assert_ptr_nonnull(s);
    return s;
}

static inline slu_store_config sample_config(void)
{
    return (slu_store_config){
        .path = sample_path, .block_cache_bytes = 4 << 20, .create = true, .schema_text = "s"};
}

static inline slu_store *sample_open(void)
{
    return sample_open_as(sample_config());
}

static inline void sample_write(slu_commit *c)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_commit_write(c, &err), "commit: %s", err.message);
}

/* Fixed unless SLU_TEST_SEED is set; printed so that a failure can be repeated. */
static inline uint64_t sample_seed(uint64_t fallback)
{
    const char *text = getenv("SLU_TEST_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 0) : fallback;
    printf("seed %llu (SLU_TEST_SEED)\n", (unsigned long long)seed);
    fflush(stdout);
    return seed;
}
