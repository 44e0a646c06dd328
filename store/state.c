#include "store/state.h"
#include "base/digest.h"
#include <stdio.h>
#include <string.h>

enum { FLOATS_VERSION = 1, FLOATS_HEADER = 1 + 4, FLOATS_CHECKSUM = 8 };

int slu_state_get_u64(slu_store *s, const char *name, uint64_t fallback, uint64_t *out, slu_error *err)
{
    slu_buf b = SLU_BUF_INIT;
    int rc = slu_store_get(s, SLU_FAMILY_META, name, strlen(name), &b, err);
    if (!rc) {
        slu_reader r = slu_reader_of(b.data, b.len);
        *out = slu_get_u64(&r);
        if (r.bad || slu_reader_left(&r))
            rc = slu_fail(err, SLU_ECORRUPT, "store %s: value '%s' has %zu bytes instead of 8",
                          slu_store_path(s), name, b.len);
    } else if (rc == SLU_ENOTFOUND) {
        *out = fallback;
        rc = 0;
    }
    slu_buf_free(&b);
    return rc;
}

void slu_state_put_u64(slu_commit *c, const char *name, uint64_t value)
{
    uint8_t bytes[8];
    for (int i = 0; i < 8; i++)
        bytes[i] = (uint8_t)(value >> (8 * i));
    slu_commit_put(c, SLU_FAMILY_META, name, strlen(name), bytes, sizeof bytes);
}

int slu_state_get_bytes(slu_store *s, const char *name, slu_buf *out, slu_error *err)
{
    return slu_store_get(s, SLU_FAMILY_META, name, strlen(name), out, err);
}

void slu_state_put_bytes(slu_commit *c, const char *name, const void *p, size_t n)
{
    slu_commit_put(c, SLU_FAMILY_META, name, strlen(name), p, n);
}

void slu_state_delete(slu_commit *c, const char *name)
{
    slu_commit_delete(c, SLU_FAMILY_META, name, strlen(name));
}

int slu_state_parse_floats(const void *value, size_t len, const uint8_t **v, size_t *n, slu_error *err)
{
    if (len < FLOATS_HEADER + FLOATS_CHECKSUM)
        return slu_fail(err, SLU_ECORRUPT, "cut short (%zu bytes)", len);
    slu_reader r = slu_reader_of(value, len);
    uint8_t version = slu_get_u8(&r);
    if (version != FLOATS_VERSION)
        return slu_fail(err, SLU_EFORMAT, "format %u, this program knows %d", version, FLOATS_VERSION);
    size_t body = len - FLOATS_CHECKSUM;
    slu_reader sum = slu_reader_of((const uint8_t *)value + body, FLOATS_CHECKSUM);
    if (slu_get_u64(&sum) != slu_hash64(value, body, 0))
        return slu_fail(err, SLU_ECORRUPT, "fails its checksum");
    uint32_t stored = slu_get_u32(&r);
    if ((uint64_t)stored * sizeof(float) != body - FLOATS_HEADER)
        return slu_fail(err, SLU_ECORRUPT, "says %u floats in %zu bytes", stored, body - FLOATS_HEADER);
    *v = r.p;
    *n = stored;
    return 0;
}

static int read_floats(const slu_buf *b, float *out, size_t n, slu_error *err)
{
    const uint8_t *v;
    size_t stored;
    int rc = slu_state_parse_floats(b->data, b->len, &v, &stored, err);
    if (rc)
        return rc;
    if (stored != n)
        return slu_fail(err, SLU_EFORMAT, "has %zu floats, this model needs %zu", stored, n);
    slu_reader r = slu_reader_of(v, n * sizeof *out);
    for (size_t i = 0; i < n; i++)
        out[i] = slu_get_f32(&r);
    return 0;
}

int slu_state_get_floats(slu_store *s, const char *name, float *out, size_t n, slu_error *err)
{
    slu_buf b = SLU_BUF_INIT;
    int rc = slu_store_get(s, SLU_FAMILY_DENSE, name, strlen(name), &b, err);
    if (!rc && (rc = read_floats(&b, out, n, err)))
        slu_error_context(err, "store %s: dense '%s'", slu_store_path(s), name);
    slu_buf_free(&b);
    return rc;
}

void slu_state_put_floats(slu_commit *c, const char *name, const float *v, size_t n)
{
    slu_buf *b = slu_commit_scratch(c);
    slu_buf_reserve(b, FLOATS_HEADER + n * sizeof *v + FLOATS_CHECKSUM);
    slu_put_u8(b, FLOATS_VERSION);
    slu_put_u32(b, (uint32_t)n);
    slu_put_floats(b, v, n);
    slu_put_u64(b, slu_hash64(b->data, b->len, 0));
    slu_commit_put(c, SLU_FAMILY_DENSE, name, strlen(name), b->data, b->len);
}

/* "offset/<topic>/<partition>"; Kafka limits topics to 249 characters, recorded files have their path here.
 * Marks are "~mark/...": they add nothing to what the offset says of a model.
 */
enum { NAME = 4200 };

static void partition_name(char *out, size_t size, const char *what, const char *topic, int32_t partition)
{
    snprintf(out, size, "%s/%.4096s/%d", what, topic, partition);
}

int slu_state_get_offset(slu_store *s, const char *topic, int32_t partition, int64_t *offset, slu_error *err)
{
    char name[NAME];
    partition_name(name, sizeof name, "offset", topic, partition);
    uint64_t v = 0;
    int rc = slu_state_get_u64(s, name, (uint64_t)-1, &v, err);
    if (!rc && (int64_t)v < -1)
        rc = slu_fail(err, SLU_ECORRUPT, "store %s: value '%s' is %lld, which is no offset",
                      slu_store_path(s), name, (long long)v);
    if (!rc)
        *offset = (int64_t)v;
    return rc;
}

void slu_state_put_offset(slu_commit *c, const char *topic, int32_t partition, int64_t offset)
{
    char name[NAME];
    partition_name(name, sizeof name, "offset", topic, partition);
    slu_state_put_u64(c, name, (uint64_t)offset);
}

int slu_state_get_mark(slu_store *s, const char *topic, int32_t partition, uint64_t *mark, slu_error *err)
{
    char name[NAME];
    partition_name(name, sizeof name, "~mark", topic, partition);
    return slu_state_get_u64(s, name, 0, mark, err);
}

void slu_state_put_mark(slu_commit *c, const char *topic, int32_t partition, uint64_t mark)
{
    char name[NAME];
    partition_name(name, sizeof name, "~mark", topic, partition);
    slu_state_put_u64(c, name, mark);
}

typedef struct counting_partitions {
    size_t prefix; /* length of "offset/<topic>/" */
    int32_t n;
} counting_partitions;

static bool note_partition(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)value, (void)value_len;
    counting_partitions *c = ctx;
    const char *digits = (const char *)key + c->prefix;
    size_t len = key_len - c->prefix;
    int64_t number = 0;
    for (size_t i = 0; i < len; i++) {
        if (digits[i] < '0' || digits[i] > '9' || number > INT32_MAX)
            return true; /* of a name that goes on */
        number = number * 10 + (digits[i] - '0');
    }
    if (len && number < INT32_MAX && number + 1 > c->n)
        c->n = (int32_t)number + 1;
    return true;
}

int slu_state_partitions(slu_store *s, const char *topic, int32_t *n, slu_error *err)
{
    char from[NAME], to[NAME];
    snprintf(from, sizeof from, "offset/%.4096s/", topic);
    snprintf(to, sizeof to, "offset/%.4096s0", topic); /* '0' is what comes after '/' */
    counting_partitions c = {strlen(from), 0};
    int rc = slu_store_scan(s, SLU_FAMILY_META, from, strlen(from), to, strlen(to), note_partition, &c, err);
    *n = c.n;
    return rc;
}
