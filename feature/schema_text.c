#include "feature/schema_text.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "base/text.h"
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Raised when the same config would encode or compute differently than before. */
#define SCHEMA_FORMAT 1

/* ---- writing ---- */

static void put(slu_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void put(slu_buf *b, const char *fmt, ...)
{
    char text[128]; /* two doubles and their keys; long text goes through put_quoted() */
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    slu_put_bytes(b, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

static void put_quoted(slu_buf *b, const char *text)
{
    slu_put_u8(b, '"');
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (c < 0x20 || c == '"' || c == '\\' || c == 0x7f)
            put(b, "\\x%02x", c);
        else
            slu_put_u8(b, c);
    }
    slu_put_u8(b, '"');
}

static void put_name(slu_buf *b, const char *key, const char *text)
{
    put(b, " %s=", key);
    put_quoted(b, text);
}

static void put_transform(slu_buf *b, const slu_feature_opts *f)
{
    static const char *const names[] = {"none", "log", "standardize", "bucket"};
    put(b, " transform=%s", names[f->transform]);
    if (f->transform == SLU_TRANSFORM_STANDARDIZE)
        put(b, " mean=%.17g deviation=%.17g", f->mean, f->deviation);
    if (f->transform == SLU_TRANSFORM_BUCKET)
        for (uint32_t i = 0; i < f->n_buckets; i++)
            put(b, "%s%.17g", i ? "," : " buckets=", f->buckets[i]);
}

static void put_feature(slu_buf *b, const slu_schema *s, const slu_slot *slot)
{
    static const char *const kinds[] = {"categorical", "multi", "numeric", "cross", "sequence"};
    const slu_feature_opts *f = slot->opts;
    const bool ids = slot->table != SLU_NO_TABLE;
    put(b, "feature ");
    put_quoted(b, f->name);
    put(b, " kind=%s", kinds[f->kind]);
    if (f->kind != SLU_CROSS)
        put_name(b, "source", slu_schema_field_name(s, slot->field));
    if (ids) {
        put_name(b, "table", slu_schema_table(s, slot->table)->name);
        put(b, " dimension=%u wide=%d seed=%016" PRIx64, f->dimension, slot->wide, slot->seed);
    }
    if (f->kind == SLU_NUMERIC)
        put_transform(b, f);
    if (slot->max_ids > 1 || f->kind == SLU_MULTI || f->kind == SLU_SEQUENCE)
        put(b, " pooling=%s max_ids=%u", f->pooling == SLU_POOL_MEAN ? "mean" : "sum", slot->max_ids);
    for (uint32_t i = 0; i < slot->n_of; i++) {
        put(b, i ? "," : " of=");
        put_quoted(b, f->of[i]);
    }
    if (f->missing)
        put_name(b, "missing", f->missing);
    put(b, "\n");
}

static void put_layers(slu_buf *b, const char *key, const uint32_t *widths, uint32_t n)
{
    put(b, "model %s=", key);
    for (uint32_t i = 0; i < n; i++)
        put(b, "%s%u", i ? "," : "", widths[i]);
    put(b, "\n");
}

/* Only what the architecture looks at, so that changing a property that it ignores does not strand a store.
 */
static void put_model(slu_buf *b, const slu_model_opts *m)
{
    static const char *const norms[] = {"none", "batch", "layer"};
    const char *name = m->architecture ? m->architecture : "";
    const bool shared_bottom = !strcmp(name, "shared_bottom"), esmm = !strcmp(name, "esmm");
    put(b, "model architecture=");
    put_quoted(b, name);
    put(b, "\n");
    if (!esmm && (shared_bottom || m->n_bottom))
        put_layers(b, "bottom", m->bottom, m->n_bottom);
    if (!esmm && !shared_bottom) {
        put(b, "model experts=%u\n", m->experts);
        put_layers(b, "expert_layers", m->expert_layers, m->n_expert_layers);
    }
    put_layers(b, "towers", m->towers, m->n_towers);
    put(b, "model norm=%s\nmodel wide=%d\n", norms[m->norm], m->wide);
}

char *schema_text(const slu_schema *s)
{
    const slu_options *o = slu_schema_options(s);
    slu_buf b = SLU_BUF_INIT;
    put(&b, "sluice-schema format=%d\n", SCHEMA_FORMAT);
    for (uint32_t i = 0; i < o->n_steps; i++) {
        put(&b, "step ");
        put_quoted(&b, o->steps[i].name);
        put(&b, " window_us=%" PRId64 "\n", o->steps[i].window_us);
    }
    for (uint32_t i = 0; i < slu_schema_slots(s); i++)
        put_feature(&b, s, slu_schema_slot(s, i));
    put_model(&b, &o->model);
    slu_put_u8(&b, 0);
    return (char *)b.data; /* slu_buf grows by realloc */
}

uint64_t schema_text_fingerprint(const char *text)
{
    return slu_hash64(text, strlen(text), 0);
}

/* ---- comparing ---- */

typedef struct line {
    const char *p;
    size_t n;
} line;

static line next_line(const char **text)
{
    line l = {*text, strcspn(*text, "\n")};
    *text += l.n + (l.p[l.n] == '\n');
    return l;
}

static bool same_line(line a, line b)
{
    return a.n == b.n && !memcmp(a.p, b.p, a.n);
}

/* What a line is about: its first two words without their value: feature "price", model towers. */
static line subject(line l)
{
    size_t i = 0;
    while (i < l.n && l.p[i] != ' ')
        i++;
    i += i < l.n;
    bool quoted = i < l.n && l.p[i] == '"';
    i += quoted;
    while (i < l.n && (quoted ? l.p[i] != '"' : l.p[i] != ' ' && l.p[i] != '='))
        i++;
    i += quoted && i < l.n;
    return (line){l.p, i};
}

#define EXCERPT 240

/* |n| bytes of |p|, which may come from anywhere, into |out| (n + 1) as text of one line. */
static const char *printable(const char *p, size_t n, char *out)
{
    for (size_t i = 0; i < n;) {
        size_t len = slu_text_utf8((const unsigned char *)p + i, n - i);
        bool odd = !len || (unsigned char)p[i] < 0x20 || p[i] == 0x7f;
        memcpy(out + i, p + i, len ? len : 1);
        if (odd)
            out[i] = '?';
        i += len ? len : 1;
    }
    out[n] = 0;
    return out;
}

/* At most EXCERPT bytes of |l|, from a little before |at|; a line that does not exist is "(nothing)". */
static const char *excerpt(line l, size_t at, char out[EXCERPT + 8])
{
    char text[EXCERPT + 1];
    if (!l.n)
        return "(nothing)";
    size_t from = l.n > EXCERPT && at > EXCERPT / 4 ? at - EXCERPT / 4 : 0;
    size_t n = l.n - from < EXCERPT ? l.n - from : EXCERPT;
    snprintf(out, EXCERPT + 8, "%s%s%s", from ? "..." : "", printable(l.p + from, n, text),
             from + n < l.n ? "..." : "");
    return out;
}

static size_t first_difference(line a, line b)
{
    size_t i = 0;
    while (i < a.n && i < b.n && a.p[i] == b.p[i])
        i++;
    return i;
}

int schema_text_compare(const char *config, const char *stored, const char *where, slu_error *err)
{
    const uint64_t ours = schema_text_fingerprint(config), theirs = schema_text_fingerprint(stored);
    char left[EXCERPT + 8], right[EXCERPT + 8], about[80 + 1];
    const char *a = stored, *b = config;
    line x, y;
    if (!strcmp(config, stored))
        return 0;
    do {
        x = next_line(&a);
        y = next_line(&b);
    } while (same_line(x, y) && (*a || *b));
    size_t at = first_difference(x, y);
    line what = subject(y.n ? y : x);
    return slu_fail(
        err, SLU_ESCHEMA,
        "%s was made for schema %016" PRIx64 ", this config is schema %016" PRIx64
        ": first difference in %s: stored '%s', config '%s'; restore the config that it was made with, "
        "or start empty",
        where, theirs, ours, printable(what.p, what.n < 80 ? what.n : 80, about), excerpt(x, at, left),
        excerpt(y, at, right));
}
