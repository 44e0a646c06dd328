/* The configuration as text: for people (--dump-config) and for the fingerprint, which is the hash of that
 * text. */
#include "base/bytes.h"
#include "base/clock.h"
#include "base/digest.h"
#include "base/options_table.h"
#include "base/secret.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct printer {
    slu_buf out;
    bool learned; /* only what decides what is learned */
    int indent;
} printer;

static void put(printer *p, const char *s)
{
    slu_put_bytes(&p->out, s, strlen(s));
}

static void put_indent(printer *p)
{
    for (int i = 0; i < p->indent; i++)
        put(p, " ");
}

/* Plain where YAML reads it back as the same text, else in double quotes. */
static void put_text(printer *p, const char *s)
{
    static const char safe[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_./-";
    if (*s && strspn(s, safe) == strlen(s) && *s != '-' && strcmp(s, "null")) {
        put(p, s);
        return;
    }
    put(p, "\"");
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            put(p, "\\");
        slu_put_u8(&p->out, (uint8_t)*s);
    }
    put(p, "\"");
}

static void put_real(printer *p, double v)
{
    char text[40];
    for (int digits = 6; digits <= 17; digits++) { /* the shortest that reads back as the same number */
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v)
            break;
    }
    put(p, text);
}

static void put_u64(printer *p, uint64_t v)
{
    char text[32];
    snprintf(text, sizeof text, "%" PRIu64, v);
    put(p, text);
}

static void put_choice(printer *p, const slu_opt *o, int v)
{
    for (const slu_opt_choice *k = o->choices; k->name; k++)
        if (k->value == v)
            put(p, k->name);
}

static void put_element(printer *p, const slu_opt *o, const void *list, uint32_t i)
{
    if (o->type == OPT_WIDTHS)
        put_u64(p, (*(uint32_t *const *)list)[i]);
    else if (o->type == OPT_REALS)
        put_real(p, (*(double *const *)list)[i]);
    else
        put_text(p, (*(char **const *)list)[i]);
}

static void put_list(printer *p, const slu_opt *o, const char *base)
{
    uint32_t n = *(const uint32_t *)(base + o->count_offset);
    put(p, "[");
    for (uint32_t i = 0; i < n; i++) {
        if (i)
            put(p, ", ");
        put_element(p, o, base + o->offset, i);
    }
    put(p, "]");
}

static void put_value(printer *p, const slu_opt *o, const char *base)
{
    const void *v = base + o->offset;
    char text[40];
    switch (o->type) {
    case OPT_NAME:
    case OPT_TEXT:
    case OPT_WORD:
    case OPT_LISTEN:
    case OPT_TOPIC:
        put_text(p, *(char *const *)v);
        break;
    case OPT_ENUM:
        put_choice(p, o, *(const int *)v);
        break;
    case OPT_BOOL:
        put(p, *(const bool *)v ? "true" : "false");
        break;
    case OPT_U32:
        put_u64(p, *(const uint32_t *)v);
        break;
    case OPT_U64:
        put_u64(p, *(const uint64_t *)v);
        break;
    case OPT_REAL:
        put_real(p, *(const double *)v);
        break;
    case OPT_DURATION:
        put(p, slu_format_duration(*(const int64_t *)v, text, sizeof text));
        break;
    case OPT_SIZE32:
        put(p, slu_format_size(*(const uint32_t *)v, text, sizeof text));
        break;
    case OPT_SIZE64:
        put(p, slu_format_size(*(const uint64_t *)v, text, sizeof text));
        break;
    case OPT_NAMES:
    case OPT_TEXTS:
    case OPT_TOPICS:
    case OPT_WIDTHS:
    case OPT_REALS:
        put_list(p, o, base);
        break;
    case OPT_SECTION:
    case OPT_SECTIONS:
    case OPT_PAIRS:
        break;
    }
}

/* The name of the variable says where a value came from, and the dump can be read back. */
static void put_property(printer *p, const slu_kv_opts *pair)
{
    char reference[80];
    snprintf(reference, sizeof reference, "${%.64s}", pair->environment ? pair->environment : "");
    put_text(p, pair->environment ? reference : slu_secret_key(pair->key) ? "***" : pair->value);
}

static void put_pairs(printer *p, const slu_opt *o, const char *base)
{
    uint32_t n = *(const uint32_t *)(base + o->count_offset);
    const slu_kv_opts *pairs = *(slu_kv_opts *const *)(base + o->offset);
    if (!n)
        put(p, " {}");
    put(p, "\n");
    p->indent += 2;
    for (uint32_t i = 0; i < n; i++) {
        put_indent(p);
        put_text(p, pairs[i].key);
        put(p, ": ");
        put_property(p, &pairs[i]);
        put(p, "\n");
    }
    p->indent -= 2;
}

static void put_section(printer *p, int row, const char *base, bool first_inline);

static void put_sections(printer *p, int row, const slu_opt *o, const char *base)
{
    uint32_t n = *(const uint32_t *)(base + o->count_offset);
    const char *entries = *(char *const *)(base + o->offset);
    put(p, n ? "\n" : " []\n");
    p->indent += 2;
    for (uint32_t i = 0; i < n; i++) {
        const char *entry = entries + (size_t)i * o->size;
        put_indent(p);
        put(p, "- ");
        p->indent += 2;
        put_section(p, row, entry, true);
        p->indent -= 2;
    }
    p->indent -= 2;
}

/* Without a value: texts and lists that have neither been written nor a default. */
static bool absent(const slu_opt *o, const char *base)
{
    if (slu_opt_is_list(o))
        return !o->fallback && !*(const uint32_t *)(base + o->count_offset);
    bool text = o->type == OPT_NAME || o->type == OPT_TEXT || o->type == OPT_WORD || o->type == OPT_LISTEN ||
                o->type == OPT_TOPIC;
    return text && !*(char *const *)(base + o->offset);
}

static bool holds_learned(int row)
{
    size_t n;
    const slu_opt *o = slu_opts(&n);
    if (o[row].flags & OPT_LEARNED)
        return true;
    for (size_t i = 0; i < n; i++)
        if (o[i].parent == row && holds_learned((int)i))
            return true;
    return false;
}

/* Keys that would be refused where they stand: of features of another kind, of CSV columns for JSON lines. */
static bool out_of_place(const slu_opt *o, const char *base)
{
    if (!strncmp(o->path, "features[].", 11)) {
        const slu_feature_opts *f = (const void *)base;
        return slu_opt_unfit(o, f->kind, f->transform);
    }
    if (!strncmp(o->path, "files[].", 8))
        return ((const slu_file_opts *)(const void *)base)->format == SLU_FILE_JSONL &&
               strcmp(o->key, "path") && strcmp(o->key, "format");
    return false;
}

static bool as_before_there_was_one(const slu_opt *o, const char *base)
{
    if (!(o->flags & OPT_LATER))
        return false;
    const slu_opt_choice *c = o->choices;
    while (strcmp(c->name, o->fallback))
        c++;
    return *(const int *)(const void *)(base + o->offset) == c->value;
}

static bool shown(const printer *p, const slu_opt *o, int row, const char *base)
{
    if ((p->learned && (!holds_learned(row) || as_before_there_was_one(o, base))) || out_of_place(o, base))
        return false;
    return o->type <= OPT_PAIRS || !absent(o, base);
}

/* The keys below |row|. |first_inline|: the first one follows "- " on the same line. */
static void put_section(printer *p, int row, const char *base, bool first_inline)
{
    size_t n;
    const slu_opt *o = slu_opts(&n);
    for (size_t i = 0; i < n; i++) {
        if (o[i].parent != row || !shown(p, &o[i], (int)i, base))
            continue;
        if (!first_inline)
            put_indent(p);
        first_inline = false;
        put(p, o[i].key);
        put(p, ":");
        if (o[i].type == OPT_SECTION) {
            put(p, "\n");
            p->indent += 2;
            put_section(p, (int)i, base, false);
            p->indent -= 2;
        } else if (o[i].type == OPT_SECTIONS) {
            put_sections(p, (int)i, &o[i], base);
        } else if (o[i].type == OPT_PAIRS) {
            put_pairs(p, &o[i], base);
        } else {
            put(p, " ");
            put_value(p, &o[i], base);
            put(p, "\n");
        }
    }
}

char *slu_options_dump(const slu_options *o)
{
    printer p = {.out = SLU_BUF_INIT};
    put_section(&p, -1, (const char *)o, false);
    slu_put_u8(&p.out, 0);
    return (char *)p.out.data;
}

uint64_t slu_options_fingerprint(const slu_options *o)
{
    printer p = {.out = SLU_BUF_INIT, .learned = true};
    put_section(&p, -1, (const char *)o, false);
    uint64_t hash = slu_hash64(p.out.data, p.out.len, 0);
    slu_buf_free(&p.out);
    return hash;
}
