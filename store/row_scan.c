#include "store/row_scan.h"
#include "base/bytes.h"
#include "store/row_value.h"

typedef struct scanning {
    slu_row_each_fn each;
    void *ctx;
    slu_buf floats; /* aligned copy of one row's */
    const char *path;
    int rc;
    slu_error *err;
} scanning;

static bool scan_row(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    scanning *s = ctx;
    uint32_t which = 0;
    uint64_t id = 0;
    slu_row_value row;
    s->rc = slu_row_key_parse(key, key_len, &which, &id, s->err);
    if (!s->rc)
        s->rc = slu_row_value_parse(value, value_len, &row, s->err);
    if (s->rc) {
        slu_error_context(s->err, "store %s: table %u: row %llu", s->path, which, (unsigned long long)id);
        return false;
    }
    slu_buf_clear(&s->floats);
    slu_buf_reserve(&s->floats, (size_t)row.floats * sizeof(float));
    slu_row_value_floats(&row, (float *)(void *)s->floats.data);
    return s->each(s->ctx, which, id, row.count, row.last_seen, row.admitted,
                   (const float *)(void *)s->floats.data, row.floats);
}

int slu_row_scan(slu_store *s, slu_row_each_fn each, void *ctx, slu_error *err)
{
    scanning scan = {.each = each, .ctx = ctx, .path = slu_store_path(s), .err = err};
    int rc = slu_store_scan(s, SLU_FAMILY_ROWS, NULL, 0, NULL, 0, scan_row, &scan, err);
    slu_buf_free(&scan.floats);
    return rc ? rc : scan.rc;
}

int slu_row_walk(slu_store *s, slu_cursor *at, size_t n, slu_row_each_fn each, void *ctx, slu_error *err)
{
    scanning scan = {.each = each, .ctx = ctx, .path = slu_store_path(s), .err = err};
    int rc = slu_cursor_next(at, n, scan_row, &scan, err);
    slu_buf_free(&scan.floats);
    return rc < 0 || !scan.rc ? rc : scan.rc;
}
