#include "store/verify.h"
#include "store/row_sum.h"
#include "store/row_value.h"
#include "store/state.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { PROGRESS_EVERY = 1 << 20, MOST_FINDINGS = 20 };

typedef struct checking {
    slu_store *s;
    const slu_verify *v;
    int wrong;
    slu_family family;
    uint64_t entries, bytes, odd; /* of the family; odd: wrong ones among them */
    uint64_t counts[SLU_FAMILIES];
    uint64_t last[3]; /* outbox: last sequence per channel; order: last version */
    uint64_t without_record;
    bool scorer;
    int rc; /* of a look-up inside a walk */
    slu_error *err;
} checking;

static void say(checking *c, bool bad, const char *format, ...) __attribute__((format(printf, 3, 4)));
static void say(checking *c, bool bad, const char *format, ...)
{
    char line[1200];
    va_list args;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    c->wrong += bad;
    c->v->say(c->v->ctx, bad, line);
}

static void key_text(const uint8_t *key, size_t n, char out[80])
{
    size_t at = 0;
    for (size_t i = 0; i < n && i < 32; i++)
        at += (size_t)snprintf(out + at, 80 - at, "%02x", key[i]);
    out[at] = 0;
}

/* One bad entry: the first ones are named, the rest counted. */
static void odd(checking *c, const uint8_t *key, size_t key_len, const char *why)
{
    char text[80];
    key_text(key, key_len, text);
    if (++c->odd <= MOST_FINDINGS)
        say(c, true, "%s: key %s: %s", slu_family_name(c->family), text, why);
}

/* ---- each family's entries ---- */

static void check_row(checking *c, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)
{
    uint32_t table;
    uint64_t id;
    slu_row_value row;
    slu_error err = SLU_ERROR_INIT;
    if (slu_row_key_parse(key, key_len, &table, &id, &err) ||
        (!c->scorer && slu_row_value_parse(value, value_len, &row, &err)))
        odd(c, key, key_len, err.message);
    else if (c->scorer && value_len % sizeof(float))
        odd(c, key, key_len, "a length that no row has");
}

static void check_dense(checking *c, const uint8_t *key, size_t key_len, const uint8_t *value,
                        size_t value_len)
{
    const uint8_t *v;
    size_t n;
    slu_error err = SLU_ERROR_INIT;
    if (slu_state_parse_floats(value, value_len, &v, &n, &err))
        odd(c, key, key_len, err.message);
}

static void check_join(checking *c, const uint8_t *key, size_t key_len, const uint8_t *value,
                       size_t value_len)
{
    (void)value;
    if (key_len != 16 || !value_len)
        odd(c, key, key_len, "no join record");
}

static void check_timer(checking *c, const uint8_t *key, size_t key_len, const uint8_t *value,
                        size_t value_len)
{
    slu_buf record = SLU_BUF_INIT;
    if (key_len != 16 || value_len != 16) {
        odd(c, key, key_len, "no timer");
        return;
    }
    int rc = slu_store_get(c->s, SLU_FAMILY_JOIN, value, value_len, &record, c->err);
    slu_buf_free(&record);
    c->without_record += rc == SLU_ENOTFOUND;
    if (rc && rc != SLU_ENOTFOUND)
        c->rc = rc;
}

static void check_message(checking *c, const uint8_t *key, size_t key_len, const uint8_t *value,
                          size_t value_len)
{
    slu_reader r = slu_reader_of(key, key_len);
    uint8_t channel = slu_get_u8(&r);
    uint64_t sequence = slu_get_u64_be(&r);
    (void)value;
    if (r.bad || slu_reader_left(&r) || channel < 1 || channel > 2 || !value_len) {
        odd(c, key, key_len, "no message");
        return;
    }
    if (c->last[channel] && sequence != c->last[channel] + 1)
        odd(c, key, key_len, "messages before it are missing");
    c->last[channel] = sequence;
}

static void check_order(checking *c, const uint8_t *key, size_t key_len, const uint8_t *value,
                        size_t value_len)
{
    slu_reader r = slu_reader_of(key, key_len);
    uint64_t version = slu_get_u64_be(&r);
    (void)value;
    if (r.bad || slu_reader_left(&r) || !value_len)
        odd(c, key, key_len, "no order");
    else if (c->last[0] && version != c->last[0] + 1)
        odd(c, key, key_len, "versions before it are missing");
    c->last[0] = version;
}

typedef void check_fn(checking *c, const uint8_t *key, size_t key_len, const uint8_t *value,
                      size_t value_len);

static check_fn *const CHECKS[SLU_FAMILIES] = {
    [SLU_FAMILY_ROWS] = check_row,     [SLU_FAMILY_DENSE] = check_dense,    [SLU_FAMILY_JOIN] = check_join,
    [SLU_FAMILY_TIMERS] = check_timer, [SLU_FAMILY_OUTBOX] = check_message, [SLU_FAMILY_ORDER] = check_order,
};

static bool check_entry(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    checking *c = ctx;
    c->entries++;
    c->bytes += key_len + value_len;
    if (CHECKS[c->family])
        CHECKS[c->family](c, key, key_len, value, value_len);
    if (c->v->progress && c->entries % PROGRESS_EVERY == 0)
        c->v->progress(c->v->ctx, slu_family_name(c->family), c->entries);
    return !c->rc;
}

static int check_family(checking *c, slu_family f)
{
    slu_error err = SLU_ERROR_INIT;
    c->family = f;
    c->entries = c->bytes = c->odd = 0;
    int rc = slu_store_scan(c->s, f, NULL, 0, NULL, 0, check_entry, c, &err);
    if (rc == SLU_ECORRUPT || rc == SLU_EIO) { /* the other families may still tell something */
        say(c, true, "%s: unreadable after %" PRIu64 " entries: %s", slu_family_name(f), c->entries,
            err.message);
        return 0;
    }
    if (rc || c->rc)
        return rc ? slu_fail(c->err, rc, "%s", err.message) : c->rc;
    c->counts[f] = c->entries;
    if (c->odd > MOST_FINDINGS)
        say(c, true, "%s: %" PRIu64 " more like these", slu_family_name(f), c->odd - MOST_FINDINGS);
    if (!c->odd)
        say(c, false, "%s: %" PRIu64 " entries, %" PRIu64 " bytes, all checksums right, all decode",
            slu_family_name(f), c->entries, c->bytes);
    return 0;
}

/* ---- balances ---- */

static int compare_count(checking *c, const char *name, slu_family f)
{
    uint64_t counted;
    int rc = slu_state_get_u64(c->s, name, 0, &counted, c->err);
    if (!rc)
        say(c, counted != c->counts[f], "%s: %" PRIu64 " entries, %" PRIu64 " counted", slu_family_name(f),
            c->counts[f], counted);
    return rc;
}

/* The first numbers of "counts" and "joiner", as the trainer writes them (trainer/pipeline_commit.c,
 * trainer/joiner.c). */
static int check_events(checking *c)
{
    slu_buf b = SLU_BUF_INIT;
    int rc = slu_state_get_bytes(c->s, "counts", &b, c->err);
    slu_reader r = slu_reader_of(b.data, b.len);
    uint64_t received = slu_get_varint(&r), learned = slu_get_varint(&r), dead = slu_get_varint(&r);
    bool bad = r.bad;
    if (!rc)
        rc = slu_state_get_bytes(c->s, "joiner", &b, c->err);
    r = slu_reader_of(b.data, b.len);
    slu_get_u64(&r);
    uint64_t waiting = slu_get_u64(&r);
    bad |= r.bad;
    slu_buf_free(&b);
    if (rc == SLU_ENOTFOUND) {
        say(c, true, "the counters of events are missing");
        return 0;
    }
    if (!rc)
        say(c, bad || received != learned + waiting + dead,
            "events: received %" PRIu64 " = learned %" PRIu64 " + waiting %" PRIu64 " + dead %" PRIu64,
            received, learned, waiting, dead);
    return rc;
}

static int check_next(checking *c, const char *name, uint8_t channel)
{
    uint64_t next;
    int rc = slu_state_get_u64(c->s, name, 0, &next, c->err);
    if (!rc && c->last[channel])
        say(c, c->last[channel] + 1 != next, "%s is %" PRIu64 ", the last message is %" PRIu64, name, next,
            c->last[channel]);
    return rc;
}

static bool count_offset(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    checking *c = ctx;
    slu_reader r = slu_reader_of(value, value_len);
    int64_t offset = (int64_t)slu_get_u64(&r);
    if (r.bad || slu_reader_left(&r) || offset < 0)
        odd(c, key, key_len, "no offset");
    c->entries++;
    return true;
}

static int check_trainer(checking *c)
{
    uint64_t version;
    int rc = check_events(c);
    if (!rc)
        rc = compare_count(c, "join.records", SLU_FAMILY_JOIN);
    if (!rc)
        rc = compare_count(c, "join.timers", SLU_FAMILY_TIMERS);
    if (!rc)
        say(c, false,
            "timers: %" PRIu64
            " lead to no record: they were set for steps whose impression came and is settled",
            c->without_record);
    if (!rc)
        rc = check_next(c, "~outbox.deltas.next", 1);
    if (!rc)
        rc = check_next(c, "~outbox.dead-letters.next", 2);
    if (!rc)
        rc = slu_state_get_u64(c->s, "~version", 0, &version, c->err);
    if (!rc && c->last[0])
        say(c, c->last[0] != version, "order: up to version %" PRIu64 " of %" PRIu64, c->last[0], version);
    c->family = SLU_FAMILY_META;
    c->entries = 0;
    if (!rc)
        rc = slu_store_scan(c->s, SLU_FAMILY_META, "offset/", 7, "offset0", 7, count_offset, c, c->err);
    if (!rc)
        say(c, !c->entries, "offsets: %" PRIu64 " partitions", c->entries);
    return rc;
}

static int check_sums(checking *c)
{
    slu_store_sums sums;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_store_sums_of(c->s, &sums, &err);
    if (rc == SLU_ENOTFOUND)
        return 0;
    if (rc) {
        say(c, true, "the sum over the rows: %s", err.message);
        return 0;
    }
    bool differ = sums.recorded && memcmp(&sums.row_sum, &sums.record, sizeof sums.record);
    say(c, differ, "row sum %016" PRIx64 "%016" PRIx64 " over %" PRIu64 " served rows%s", sums.row_sum.hi,
        sums.row_sum.lo, sums.rows,
        differ          ? " is not that of the last commit: rows are missing or wrong"
        : sums.recorded ? ", as the last commit says"
                        : "");
    return 0;
}

int slu_verify_store(slu_store *s, const slu_verify *v, slu_error *err)
{
    checking c = {.s = s, .v = v, .err = err};
    uint64_t lineage = 0;
    int rc = slu_state_get_u64(s, "~lineage", 0, &lineage, err);
    c.scorer = !lineage;
    for (int f = 0; f < SLU_FAMILIES && !rc; f++)
        rc = check_family(&c, (slu_family)f);
    if (!rc && lineage)
        rc = check_trainer(&c);
    if (!rc)
        rc = check_sums(&c);
    return rc ? rc : c.wrong;
}
