#include "base/address.h"
#include "base/bytes.h"
#include "base/clock.h"
#include "base/options_parts.h"
#include "base/secret.h"
#include "base/text.h"
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PATH_BYTES 160

typedef struct checker {
    slu_tree *tree;
    slu_error *err;
    char path[PATH_BYTES]; /* of the value at hand, for messages */
} checker;

__attribute__((format(printf, 3, 4))) static int fail(const checker *c, const slu_node *at, const char *fmt,
                                                      ...)
{
    char what[700];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    return slu_tree_fail(c->tree, at, c->path, c->err, "%s", what);
}

static int out_of_memory(const checker *c)
{
    return slu_fail(c->err, SLU_ENOMEM, "%.200s: out of memory for the configuration", c->tree->name);
}

/* Appends |key|, or |index| when there is no key, to the path; the result goes to path_pop(). Too long a path
 * is cut, it only serves messages. */
static size_t path_push(checker *c, const char *key, long index)
{
    size_t n = strlen(c->path);
    if (!key)
        snprintf(c->path + n, sizeof c->path - n, "[%ld]", index);
    else
        snprintf(c->path + n, sizeof c->path - n, "%s%s", n ? "." : "", key);
    return n;
}

static void path_pop(checker *c, size_t n)
{
    c->path[n] = 0;
}

/* What a wrong value is, for "expected a list, got ...". */
static const char *description(const slu_node *n, char *out, size_t size)
{
    if (n->kind == NODE_SCALAR && slu_node_is_null(n))
        return "nothing";
    if (n->kind == NODE_SCALAR)
        snprintf(out, size, "'%.60s'", n->text);
    else
        snprintf(out, size, "%s", n->kind == NODE_LIST ? "a list" : "keys and values");
    return out;
}

static void list_choices(const slu_opt_choice *choices, slu_buf *out)
{
    for (const slu_opt_choice *k = choices; k->name; k++) {
        if (k > choices)
            slu_put_bytes(out, ", ", 2);
        slu_put_bytes(out, k->name, strlen(k->name));
    }
    slu_put_u8(out, 0);
}

int slu_options_unknown(const slu_tree *t, const slu_node *at, const char *path, int parent, const char *key,
                        slu_error *err)
{
    size_t n_rows, n = 0;
    const slu_opt *o = slu_opts(&n_rows);
    const char *keys[64];
    slu_buf allowed = SLU_BUF_INIT;
    for (size_t i = 0; i < n_rows && n < 63; i++) {
        if (o[i].parent != parent)
            continue;
        if (n)
            slu_put_bytes(&allowed, ", ", 2);
        slu_put_bytes(&allowed, o[i].key, strlen(o[i].key));
        keys[n++] = o[i].key;
    }
    keys[n] = NULL;
    slu_put_u8(&allowed, 0);
    const char *near = slu_text_nearest(key, keys);
    int rc = slu_tree_fail(t, at, path, err, "unknown key; %s%s%sallowed: %s", near ? "did you mean '" : "",
                           near ? near : "", near ? "'? " : "", (char *)allowed.data);
    slu_buf_free(&allowed);
    return rc;
}

static int rewrite(const checker *c, slu_node *n, const char *text)
{
    n->text = slu_arena_strndup(c->tree->arena, text, strlen(text));
    n->plain = false;
    return n->text ? 0 : out_of_memory(c);
}

/* A bound as people write it. */
static const char *bound(const slu_opt *o, double v, char *out, size_t size)
{
    if (o->type == OPT_DURATION)
        return slu_format_duration((int64_t)v, out, size);
    if (o->type == OPT_SIZE32 || o->type == OPT_SIZE64)
        return slu_format_size((uint64_t)v, out, size);
    snprintf(out, size, o->type == OPT_REAL || o->type == OPT_REALS ? "%g" : "%.0f", v);
    return out;
}

static int check_range(const checker *c, const slu_node *n, const slu_opt *o, double v)
{
    char lo[40], hi[40];
    if (v >= o->min && v <= o->max)
        return 0;
    return fail(c, n, "%.60s is out of range; allowed: %s to %s", n->text, bound(o, o->min, lo, sizeof lo),
                bound(o, o->max, hi, sizeof hi));
}

static int check_whole(const checker *c, slu_node *n, const slu_opt *o)
{
    char text[32];
    size_t digits = strspn(n->text, "0123456789");
    errno = 0;
    uint64_t v = strtoull(n->text, NULL, 10);
    bool negative = n->text[0] == '-' && n->text[1] && !n->text[1 + strspn(n->text + 1, "0123456789")];
    if (negative || (digits && !n->text[digits] && errno))
        return check_range(c, n, o, negative ? -1 : INFINITY);
    if (!digits || n->text[digits])
        return fail(c, n, "expected a whole number, got '%.60s'", n->text);
    int rc = check_range(c, n, o, (double)v);
    snprintf(text, sizeof text, "%" PRIu64, v);
    return rc ? rc : rewrite(c, n, text);
}

static int check_real(const checker *c, slu_node *n, const slu_opt *o)
{
    char text[40], *end;
    errno = 0;
    double v = strtod(n->text, &end);
    /* Hexadecimal, "inf" and "nan" are numbers to strtod but not to people. */
    if (!*n->text || *end || strspn(n->text, "0123456789+-.eE") != strlen(n->text))
        return fail(c, n, "expected a number, got '%.60s'", n->text);
    if (errno == ERANGE && v != 0 && fabs(v) < 1)
        v = 0; /* too small for a double */
    int rc = check_range(c, n, o, v);
    snprintf(text, sizeof text, "%.17g", v);
    return rc ? rc : rewrite(c, n, text);
}

static int check_duration(const checker *c, slu_node *n, const slu_opt *o)
{
    char text[32];
    int64_t v;
    if (slu_parse_duration(n->text, &v))
        return fail(c, n,
                    "expected a duration, got '%.60s'; write a whole number and a unit (us, ms, s, m, h, d), "
                    "e.g. 30m",
                    n->text);
    int rc = check_range(c, n, o, (double)v);
    snprintf(text, sizeof text, "%" PRId64, v);
    return rc ? rc : rewrite(c, n, text);
}

static int check_size(const checker *c, slu_node *n, const slu_opt *o)
{
    char text[32];
    uint64_t v;
    if (slu_parse_size(n->text, &v))
        return fail(c, n,
                    "expected a size, got '%.60s'; write a whole number and a unit (B, KiB, MiB, GiB, TiB), "
                    "e.g. 64MiB",
                    n->text);
    int rc = check_range(c, n, o, (double)v);
    snprintf(text, sizeof text, "%" PRIu64, v);
    return rc ? rc : rewrite(c, n, text);
}

static int check_bool(const checker *c, slu_node *n)
{
    static const char *const yes[] = {"true", "yes", "on", "True", "TRUE"}, *const no[] = {"false", "no",
                                                                                           "off", "False",
                                                                                           "FALSE"};
    for (size_t i = 0; i < sizeof yes / sizeof *yes; i++) {
        if (!strcmp(n->text, yes[i]))
            return rewrite(c, n, "true");
        if (!strcmp(n->text, no[i]))
            return rewrite(c, n, "false");
    }
    return fail(c, n, "expected true or false, got '%.60s'", n->text);
}

static int check_choice(const checker *c, slu_node *n, const slu_opt *o)
{
    char text[16];
    for (const slu_opt_choice *k = o->choices; k->name; k++) {
        if (strcmp(k->name, n->text))
            continue;
        if (o->type == OPT_WORD)
            return 0;
        snprintf(text, sizeof text, "%d", k->value);
        return rewrite(c, n, text);
    }
    slu_buf allowed = SLU_BUF_INIT;
    list_choices(o->choices, &allowed);
    int rc = fail(c, n, "unknown value '%.60s'; allowed: %s", n->text, (char *)allowed.data);
    slu_buf_free(&allowed);
    return rc;
}

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define DIGITS  "0123456789"

static int check_name(const checker *c, const slu_node *n)
{
    size_t len = strlen(n->text);
    if (len && len <= 64 && strspn(n->text, LETTERS DIGITS "_-") == len && n->text[0] != '-')
        return 0;
    return fail(c, n, "'%.60s' is not a name; use 1 to 64 letters, digits, _ and -", n->text);
}

static int check_topic(const checker *c, const slu_node *n)
{
    size_t len = strlen(n->text);
    if (len && len <= 249 && strspn(n->text, LETTERS DIGITS "._-") == len && strcmp(n->text, ".") &&
        strcmp(n->text, ".."))
        return 0;
    return fail(c, n, "'%.60s' is not a Kafka topic; use 1 to 249 letters, digits, '.', _ and -", n->text);
}

static int check_text(const checker *c, const slu_node *n, const slu_opt *o)
{
    size_t len = strlen(n->text), most = o->most ? o->most : 256;
    if (!len)
        return fail(c, n, "must not be empty");
    return len <= most ? 0 : fail(c, n, "has %zu bytes; allowed: up to %zu", len, most);
}

/* Every address of this machine has to be said with 0.0.0.0 or [::]. */
static int check_listen(const checker *c, const slu_node *n)
{
    slu_error why = SLU_ERROR_INIT;
    slu_address at;
    if (slu_address_parse(n->text, &at, &why))
        return fail(c, n, "%s", why.message);
    return *at.host ? 0
                    : fail(c, n, "'%s' has no host; write 0.0.0.0:%s for every address", n->text, at.port);
}

static int check_scalar(const checker *c, slu_node *n, const slu_opt *o)
{
    char got[80];
    if (n->kind != NODE_SCALAR)
        return fail(c, n, "expected a single value, got %s", description(n, got, sizeof got));
    switch (o->type) {
    case OPT_NAME:
    case OPT_NAMES:
        return check_name(c, n);
    case OPT_TEXT:
    case OPT_TEXTS:
        return check_text(c, n, o);
    case OPT_TOPIC:
    case OPT_TOPICS:
        return check_topic(c, n);
    case OPT_LISTEN:
        return check_listen(c, n);
    case OPT_WORD:
    case OPT_ENUM:
        return check_choice(c, n, o);
    case OPT_BOOL:
        return check_bool(c, n);
    case OPT_U32:
    case OPT_U64:
    case OPT_WIDTHS:
        return check_whole(c, n, o);
    case OPT_REAL:
    case OPT_REALS:
        return check_real(c, n, o);
    case OPT_DURATION:
        return check_duration(c, n, o);
    case OPT_SIZE32:
    case OPT_SIZE64:
        return check_size(c, n, o);
    case OPT_SECTION:
    case OPT_SECTIONS:
    case OPT_PAIRS:
        break;
    }
    return 0;
}

static const char *list_example(const slu_opt *o)
{
    return o->type == OPT_WIDTHS   ? "[128, 64]"
           : o->type == OPT_REALS  ? "[0.5, 1, 2]"
           : o->type == OPT_TOPICS ? "[clicks, orders]"
                                   : "[one, two]";
}

static int check_section(checker *c, slu_node *n, int row);

/* Lists of scalars and of sections. */
static int check_list(checker *c, slu_node *n, const slu_opt *o, int row)
{
    char got[80];
    if (n->kind != NODE_LIST && o->type == OPT_SECTIONS)
        return fail(c, n, "expected a list of entries that start with '-', got %s",
                    description(n, got, sizeof got));
    if (n->kind != NODE_LIST)
        return fail(c, n, "expected a list, e.g. %s, got %s", list_example(o),
                    description(n, got, sizeof got));
    if (n->count < o->least || n->count > o->most)
        return fail(c, n, "has %u entries; allowed: %u to %u", n->count, o->least, o->most);
    long i = 0;
    for (slu_node *e = n->first; e; e = e->next, i++) {
        size_t mark = path_push(c, NULL, i);
        int rc = o->type == OPT_SECTIONS ? check_section(c, e, row) : check_scalar(c, e, o);
        path_pop(c, mark);
        if (rc)
            return rc;
    }
    return 0;
}

/* "${NAME}" as a whole value stands for a variable of the environment, so that secrets need not be in a file.
 * |name| (64) receives NAME, or nothing. */
static int take_from_environment(const checker *c, slu_node *n, char *name)
{
    size_t len = strlen(n->text);
    *name = 0;
    if (len < 4 || strncmp(n->text, "${", 2) || n->text[len - 1] != '}')
        return 0;
    snprintf(name, 64, "%.*s", (int)(len - 3 < 63 ? len - 3 : 63), n->text + 2);
    const char *value = getenv(name);
    if (!value)
        return fail(c, n, "the environment variable '%s' is not set", name);
    if (!slu_text_is_line(value))
        return fail(c, n, "the environment variable '%s' has control characters or is not UTF-8", name);
    return rewrite(c, n, value);
}

/* One property: its value is replaced by that of the variable it names, and remembered as a secret when it is
 * one. What comes out of the environment counts as secret too, unless it is the place of a file. */
static int check_property(const checker *c, slu_node *value, slu_node *pair)
{
    char name[64];
    int rc = take_from_environment(c, value, name);
    if (rc)
        return rc;
    if (slu_secret_key(value->key) || (*name && !strstr(value->key, ".location")))
        slu_secret_add(value->text);
    if (strlen(value->text) > 65536)
        return fail(c, value, "the value is too long");
    if (!*name)
        return 0;
    slu_node *from = slu_node_new(c->tree, NODE_SCALAR, value->line, value->set);
    if (!from || rewrite(c, from, name))
        return out_of_memory(c);
    slu_node_add(c->tree, pair, "environment", from);
    return 0;
}

/* Turns {security.protocol: SSL} into [{key: security.protocol, value: SSL}], which libcyaml can read. */
static int check_pairs(checker *c, slu_node *n, const slu_opt *o)
{
    char got[80];
    if (n->kind != NODE_MAP)
        return fail(c, n, "expected keys and values, e.g. 'security.protocol: SSL', got %s",
                    description(n, got, sizeof got));
    if (n->count > o->most)
        return fail(c, n, "has %u entries; allowed: up to %u", n->count, o->most);
    slu_node *next, *first = n->first;
    n->kind = NODE_LIST;
    n->first = n->last = NULL;
    n->count = 0;
    for (slu_node *value = first; value; value = next) {
        next = value->next;
        const char *name = value->key;
        size_t mark = path_push(c, name, -1), len = strlen(name);
        if (!len || len > 128 || strspn(name, LETTERS DIGITS "._-") != len)
            return fail(c, value, "is not a property of librdkafka; use letters, digits, '.', _ and -");
        if (value->kind != NODE_SCALAR)
            return fail(c, value, "expected a single value; write dotted keys, e.g. '%.60s.name: value'",
                        name);
        if (slu_node_is_null(value))
            return fail(c, value, "has no value; write \"\" for an empty one");
        slu_node *pair = slu_node_new(c->tree, NODE_MAP, value->line, value->set);
        slu_node *key = slu_node_new(c->tree, NODE_SCALAR, value->line, value->set);
        if (!pair || !key)
            return out_of_memory(c);
        int rc = check_property(c, value, pair);
        if (rc)
            return rc;
        path_pop(c, mark);
        key->text = name;
        slu_node_add(c->tree, pair, "key", key);
        slu_node_add(c->tree, pair, "value", value);
        slu_node_add(c->tree, n, NULL, pair);
    }
    return 0;
}

/* A node for what was not written: the default, an empty section, or none (*|out| NULL). */
static int fill(checker *c, const slu_node *parent, const slu_opt *o, slu_node **out)
{
    *out = NULL;
    if (o->flags & OPT_REQUIRED)
        return fail(c, parent, "is missing. %s", o->help);
    if (o->type == OPT_SECTION || o->type == OPT_PAIRS)
        *out = slu_node_new(c->tree, NODE_MAP, parent->line, parent->set);
    else if (o->type == OPT_SECTIONS)
        *out = slu_node_new(c->tree, NODE_LIST, parent->line, parent->set);
    else if (!o->fallback)
        return 0;
    else
        *out = slu_tree_value(c->tree, o->fallback, NULL, c->err);
    if (!*out)
        return out_of_memory(c);
    (*out)->filled = true;
    (*out)->line = parent->line;
    (*out)->set = parent->set;
    return 0;
}

static int check_value(checker *c, slu_node *n, int row)
{
    size_t n_rows;
    const slu_opt *o = &slu_opts(&n_rows)[row];
    if (o->type == OPT_SECTION)
        return check_section(c, n, row);
    if (o->type == OPT_PAIRS)
        return check_pairs(c, n, o);
    if (o->type == OPT_SECTIONS || slu_opt_is_list(o))
        return check_list(c, n, o, row);
    return check_scalar(c, n, o);
}

static int check_keys(checker *c, slu_node *n, int row)
{
    for (const slu_node *child = n->first; child; child = child->next) {
        if (slu_opt_find(row, child->key, strlen(child->key)) >= 0)
            continue;
        char key[64];
        snprintf(key, sizeof key, "%s", child->key);
        path_push(c, key, -1);
        return slu_options_unknown(c->tree, child, c->path, row, key, c->err);
    }
    return 0;
}

/* The mapping of table row |row|, or the whole file (-1). */
static int check_section(checker *c, slu_node *n, int row)
{
    char got[80];
    size_t n_rows;
    const slu_opt *o = slu_opts(&n_rows);
    if (n->kind != NODE_MAP)
        return fail(c, n, "expected keys and values, got %s", description(n, got, sizeof got));
    int rc = check_keys(c, n, row);
    for (size_t i = 0; i < n_rows && !rc; i++) {
        if (o[i].parent != row)
            continue;
        slu_node *child = slu_node_get(n, o[i].key);
        size_t mark = path_push(c, o[i].key, -1);
        if (slu_node_is_null(child)) {
            slu_node *filled;
            rc = fill(c, n, &o[i], &filled);
            if (!rc && filled)
                slu_node_put(c->tree, n, o[i].key, child, filled);
            child = filled;
        }
        if (!rc && child)
            rc = check_value(c, child, (int)i);
        path_pop(c, mark);
    }
    return rc;
}

int slu_options_check(slu_tree *t, slu_error *err)
{
    checker c = {.tree = t, .err = err};
    return check_section(&c, t->root, -1);
}
