/* A store whose database could not be opened again after a failed write: until it can, every reader is told
 * so, nothing is "not found", and what is put into commits meanwhile keeps its order. */
#include "store/store_inside.h"
#include "tests/store_sample.h"
#include "tests/suite.h"
#include <pthread.h>
#include <stdatomic.h>

static void put(slu_commit *c, const char *key, const char *value)
{
    slu_commit_put(c, SLU_FAMILY_ROWS, key, strlen(key), value, strlen(value));
}

static void expect(slu_store *s, const char *key, const char *value)
{
    slu_buf b = SLU_BUF_INIT;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_store_get(s, SLU_FAMILY_ROWS, key, strlen(key), &b, &err);
    if (value) {
        ck_assert_msg(!rc, "%s: %s", key, err.message);
        ck_assert_msg(b.len == strlen(value) && !memcmp(b.data, value, b.len), "%s is %.*s, not %s", key,
                      (int)b.len, (const char *)b.data, value);
    } else {
        ck_assert_int_eq(rc, SLU_ENOTFOUND);
    }
    slu_buf_free(&b);
}

static void write_file(const char *path, const char *text, size_t n)
{
    FILE *f = fopen(path, "wb");
    ck_assert_ptr_nonnull(f);
    ck_assert_uint_eq(fwrite(text, 1, n, f), n);
    fclose(f);
}

static char current_path[400], current[64];
static size_t current_len;

/* As after a failed write, and then opening fails as well. */
static void close_by_trouble(slu_store *s, slu_commit *c)
{
    slu_error err = SLU_ERROR_INIT;
    snprintf(current_path, sizeof current_path, "%s/CURRENT", sample_path);
    FILE *f = fopen(current_path, "rb");
    ck_assert_ptr_nonnull(f);
    current_len = fread(current, 1, sizeof current, f);
    fclose(f);
    write_file(current_path, "nonsense", 8);
    s->broken = true;
    int rc = slu_commit_write(c, &err);
    ck_assert_msg(rc < 0 && err.message[0], "%d", rc);
    ck_assert_ptr_null(s->db);
}

static void mend(void)
{
    write_file(current_path, current, current_len);
}

static bool none(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)ctx, (void)key, (void)key_len, (void)value, (void)value_len;
    ck_abort_msg("an entry of a closed store");
    return true;
}

static void nothing(void *ctx, size_t i, const void *value, size_t len)
{
    (void)ctx, (void)i, (void)value, (void)len;
    ck_abort_msg("a value of a closed store");
}

START_TEST(test_readers_are_told)
{
    sample_setup();
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s);
    put(c, "k", "1");
    sample_write(c);
    close_by_trouble(s, c);
    slu_buf b = SLU_BUF_INIT;
    slu_error err = SLU_ERROR_INIT;
    slu_cursor *cursor;
    char digest[33], copy[400];
    const void *keys[] = {"k"};
    const size_t lens[] = {1};
    uint64_t blocks, memtables;
    ck_assert_int_eq(slu_store_get(s, SLU_FAMILY_ROWS, "k", 1, &b, &err), SLU_EIO);
    ck_assert_ptr_nonnull(strstr(err.message, sample_path));
    ck_assert_int_eq(slu_store_multiget(s, SLU_FAMILY_ROWS, keys, lens, 1, nothing, NULL, &err), SLU_EIO);
    ck_assert_int_eq(slu_store_scan(s, SLU_FAMILY_ROWS, NULL, 0, NULL, 0, none, NULL, &err), SLU_EIO);
    ck_assert_int_eq(slu_cursor_open(s, SLU_FAMILY_ROWS, &cursor, &err), SLU_EIO);
    ck_assert_int_eq(slu_store_digest(s, SLU_MODEL_FAMILIES, digest, &err), SLU_EIO);
    snprintf(copy, sizeof copy, "%s/copy", sample_root);
    ck_assert_int_eq(slu_store_checkpoint(s, copy, &err), SLU_EIO);
    slu_store_memory(s, &blocks, &memtables);
    ck_assert_uint_eq(blocks + memtables + slu_store_estimate_keys(s, SLU_FAMILY_ROWS), 0);
    mend();
    sample_write(c);
    expect(s, "k", "1");
    slu_store_close(s);
    sample_teardown();
}
END_TEST

/* Of two values of a key the later one counts, whatever part of a commit was put while the store was closed
 * and whoever opened it again. */
START_TEST(test_order_is_kept)
{
    sample_setup();
    slu_store *s = sample_open();
    slu_commit *c = slu_commit_begin(s), *other = slu_commit_begin(s);
    put(c, "k", "1");
    put(c, "gone", "1");
    put(c, "back", "1");
    close_by_trouble(s, c);
    put(c, "k", "2");
    slu_commit_delete(c, SLU_FAMILY_ROWS, "back", 4);
    slu_commit_save(c);
    put(c, "k", "9");
    slu_commit_take_back(c);
    mend();
    put(other, "other", "1");
    sample_write(other); /* opens it */
    expect(s, "other", "1");
    expect(s, "k", NULL);
    put(c, "k", "3");
    put(c, "back", "2");
    slu_commit_delete(c, SLU_FAMILY_ROWS, "gone", 4);
    slu_commit_save(c);
    put(c, "k", "9");
    slu_commit_take_back(c);
    sample_write(c);
    expect(s, "k", "3");
    expect(s, "back", "2");
    expect(s, "gone", NULL);
    put(c, "k", "4"); /* and it is a commit like any other */
    sample_write(c);
    expect(s, "k", "4");
    slu_store_close(s);
    s = sample_open();
    expect(s, "k", "4");
    slu_store_close(s);
    sample_teardown();
}
END_TEST

/* ---- readers of other threads while it is closed and opened ---- */

typedef struct readers {
    slu_store *store;
    atomic_bool stop;
    atomic_uint read, refused;
} readers;

static bool any(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)ctx, (void)key, (void)key_len, (void)value, (void)value_len;
    return true;
}

static void *keep_reading(void *arg)
{
    readers *r = arg;
    slu_buf b = SLU_BUF_INIT;
    uint64_t blocks, memtables;
    char digest[33];
    for (unsigned i = 0; !atomic_load(&r->stop); i++) {
        int rc = slu_store_get(r->store, SLU_FAMILY_ROWS, "k", 1, &b, NULL);
        ck_assert_msg(!rc || rc == SLU_EIO, "%s", slu_code_name(rc)); /* never "not found" */
        atomic_fetch_add(rc ? &r->refused : &r->read, 1);
        slu_store_memory(r->store, &blocks, &memtables);
        slu_store_estimate_keys(r->store, SLU_FAMILY_ROWS);
        if (i % 8 == 0) {
            slu_store_scan(r->store, SLU_FAMILY_ROWS, NULL, 0, NULL, 0, any, NULL, NULL);
            slu_store_digest(r->store, SLU_MODEL_FAMILIES, digest, NULL);
        }
        usleep(50);
    }
    slu_buf_free(&b);
    return NULL;
}

/* SLU_EAGAIN: a reader is in it at this moment. */
static int write_between(slu_commit *c)
{
    for (;;) {
        int rc = slu_commit_write(c, NULL);
        if (rc != SLU_EAGAIN)
            return rc;
        usleep(20);
    }
}

START_TEST(test_readers_beside)
{
    enum { ROUNDS = 15, READERS = 2 };
    sample_setup();
    readers r = {.store = sample_open()};
    slu_commit *c = slu_commit_begin(r.store);
    put(c, "k", "0");
    sample_write(c);
    pthread_t threads[READERS];
    for (int i = 0; i < READERS; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, keep_reading, &r), 0);
    for (int round = 0; round < ROUNDS; round++) {
        unsigned before = atomic_load(&r.refused), read = atomic_load(&r.read);
        put(c, "k", "1");
        r.store->broken = true;
        if (round % 2) {
            snprintf(current_path, sizeof current_path, "%s/CURRENT", sample_path);
            FILE *f = fopen(current_path, "rb");
            current_len = fread(current, 1, sizeof current, f);
            fclose(f);
            write_file(current_path, "nonsense", 8);
            ck_assert_int_lt(write_between(c), 0);
            put(c, "k", "2");
            while (atomic_load(&r.refused) == before)
                usleep(100);
            mend();
        }
        ck_assert_int_eq(write_between(c), 0);
        while (atomic_load(&r.read) == read)
            usleep(100);
    }
    atomic_store(&r.stop, true);
    for (int i = 0; i < READERS; i++)
        pthread_join(threads[i], NULL);
    expect(r.store, "k", "1");
    slu_store_close(r.store);
    sample_teardown();
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_readers_are_told, test_order_is_kept, test_readers_beside, NULL};
    return run_suite("store_closed", tests);
}
