#include "store/store_inside.h"
#include <stdlib.h>
#include <string.h>

enum { FORMAT_VERSION = 1 };

static const char FORMAT_KEY[] = "~format";
static const char SCHEMA_KEY[] = "~schema";

static int check_schema(const slu_store_config *config, slu_store *s, slu_error *err)
{
    if (!config->schema_text || !strcmp(config->schema_text, s->schema))
        return 0;
    if (!config->compare)
        return slu_fail(
            err, SLU_ESCHEMA,
            "store %s was made for another schema; use another store.path, or the old configuration",
            s->path);
    int rc = config->compare(config->compare_ctx, s->schema, err);
    return rc ? slu_error_context(err, "store %s", s->path) : 0;
}

static int write_identity(slu_store *s, const char *schema_text, slu_error *err)
{
    uint8_t format[4] = {FORMAT_VERSION};
    slu_commit *c = slu_commit_begin(s);
    slu_commit_put(c, SLU_FAMILY_META, FORMAT_KEY, strlen(FORMAT_KEY), format, sizeof format);
    slu_commit_put(c, SLU_FAMILY_META, SCHEMA_KEY, strlen(SCHEMA_KEY), schema_text, strlen(schema_text));
    int rc = slu_commit_write(c, err);
    slu_commit_abandon(c);
    return rc;
}

static bool note_any(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)key, (void)key_len, (void)value, (void)value_len;
    *(bool *)ctx = true;
    return false;
}

/* A store that was created but died before its first write has nothing in it. */
static int is_blank(slu_store *s, bool *blank, slu_error *err)
{
    bool any = false;
    for (int f = 0; f < SLU_FAMILIES && !any; f++) {
        int rc = slu_store_scan(s, (slu_family)f, NULL, 0, NULL, 0, note_any, &any, err);
        if (rc)
            return rc;
    }
    *blank = !any;
    return 0;
}

int store_check_identity(const slu_store_config *config, slu_store *s, slu_error *err)
{
    slu_buf b = SLU_BUF_INIT;
    bool blank = false;
    int rc = slu_store_get(s, SLU_FAMILY_META, FORMAT_KEY, strlen(FORMAT_KEY), &b, err);
    if (rc == SLU_ENOTFOUND) {
        rc = is_blank(s, &blank, err);
        if (!rc && blank && config->create && !config->read_only) {
            rc = write_identity(s, config->schema_text ? config->schema_text : "", err);
            if (!rc)
                rc = slu_store_get(s, SLU_FAMILY_META, FORMAT_KEY, strlen(FORMAT_KEY), &b, err);
        } else if (!rc) {
            rc = blank ? slu_fail(err, SLU_ENOTFOUND, "store %s: is empty", s->path)
                       : slu_fail(err, SLU_EFORMAT,
                                  "store %s: has no format version, so it is not a Sluice store", s->path);
        }
    }
    if (rc)
        goto done;
    slu_reader r = slu_reader_of(b.data, b.len);
    uint32_t format = slu_get_u32(&r);
    if (r.bad || slu_reader_left(&r)) {
        rc = slu_fail(err, SLU_ECORRUPT, "store %s: its format version cannot be read", s->path);
        goto done;
    }
    if (format != FORMAT_VERSION) {
        rc = slu_fail(err, SLU_EFORMAT,
                      "store %s: has format %u, this program knows format %u; use the matching version",
                      s->path, format, (unsigned)FORMAT_VERSION);
        goto done;
    }
    rc = slu_store_get(s, SLU_FAMILY_META, SCHEMA_KEY, strlen(SCHEMA_KEY), &b, err);
    if (rc == SLU_ENOTFOUND)
        rc = slu_fail(err, SLU_ECORRUPT, "store %s: its schema is missing", s->path);
    if (rc)
        goto done;
    s->schema = strndup((const char *)(b.len ? b.data : (const uint8_t *)""), b.len);
    rc = s->schema ? check_schema(config, s, err)
                   : slu_fail(err, SLU_ENOMEM, "store %s: out of memory", s->path);
done:
    slu_buf_free(&b);
    return rc;
}
