#include "base/options_parts.h"
#include "base/text.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct setting {
    slu_tree *tree;
    const char *key; /* whole, for messages */
    const char *value;
    slu_error *err;
} setting;

__attribute__((format(printf, 2, 3))) static int fail(const setting *s, const char *fmt, ...)
{
    char what[500];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    slu_node at = {.set = s->key};
    return slu_tree_fail(s->tree, &at, s->key, s->err, "%s", what);
}

static const char *keep(const setting *s, const char *text, size_t n)
{
    const char *copy = slu_arena_strndup(s->tree->arena, text, n);
    if (!copy)
        slu_fail(s->err, SLU_ENOMEM, "out of memory");
    return copy;
}

static int put_value(const setting *s, slu_node *parent, const char *key, slu_node *old)
{
    slu_node *n = slu_tree_value(s->tree, s->value, s->key, s->err);
    if (!n)
        return s->err && s->err->code ? s->err->code : SLU_ECONFIG;
    slu_node_put(s->tree, parent, key, old, n);
    return 0;
}

/* The mapping |key| below |parent|, made when it is not there. */
static slu_node *section(const setting *s, slu_node *parent, const char *key)
{
    slu_node *n = slu_node_get(parent, key);
    if (n && n->kind == NODE_MAP)
        return n;
    if (!slu_node_is_null(n)) {
        fail(s, "'%.60s' has no keys in %.200s, line %d", key, s->tree->name, n->line);
        return NULL;
    }
    slu_node *fresh = slu_node_new(s->tree, NODE_MAP, 0, s->key);
    if (!fresh)
        slu_fail(s->err, SLU_ENOMEM, "out of memory");
    else
        slu_node_put(s->tree, parent, key, n, fresh);
    return fresh;
}

/* The entry called |name| (n): "[3]" or the value of its key 'name'. */
static slu_node *entry(const setting *s, slu_node *list, const char *name, size_t n)
{
    if (*name == '[') {
        char *end;
        unsigned long i = strtoul(name + 1, &end, 10);
        bool digits =
            end > name + 1 && name[1] >= '0' && name[1] <= '9' && end == name + n - 1 && *end == ']';
        slu_node *found = digits && i < list->count ? slu_node_at(list, (unsigned)i) : NULL;
        if (!found)
            fail(s, "there is no entry '%.*s'; %s", (int)(n < 40 ? n : 40), name,
                 list->count ? "entries count from [0]" : "the list is empty");
        return found;
    }
    const char *names[SLU_MAX_FEATURES + 1];
    unsigned count = 0;
    for (slu_node *e = list->first; e; e = e->next) {
        const slu_node *its = slu_node_get(e, "name");
        if (!its || its->kind != NODE_SCALAR)
            continue;
        if (strlen(its->text) == n && !strncmp(its->text, name, n))
            return e;
        if (count < SLU_MAX_FEATURES)
            names[count++] = its->text;
    }
    names[count] = NULL;
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%.*s", (int)(n < 60 ? n : 60), name);
    const char *near = slu_text_nearest(wanted, names);
    fail(s, "there is no entry named '%s'%s%.60s%s", wanted, near ? "; did you mean '" : "", near ? near : "",
         near ? "'?" : "");
    return NULL;
}

/* Where the next part of a path ends: at '.', before '[', or after the ']' of an index. */
static size_t part_length(const char *path)
{
    if (*path == '[') {
        const char *end = strchr(path, ']');
        return end ? (size_t)(end - path) + 1 : strlen(path);
    }
    return strcspn(path, ".[");
}

static const char *skip_dot(const char *rest)
{
    return *rest == '.' ? rest + 1 : rest;
}

static int set_below(const setting *s, slu_node *map, int row, const char *path);

/* |rest| goes on below the list |key| of |map|. */
static int set_in_list(const setting *s, slu_node *map, int row, const char *key, const char *rest)
{
    size_t n_rows;
    const slu_opt *o = &slu_opts(&n_rows)[row];
    slu_node *list = slu_node_get(map, key);
    if (!list || list->kind != NODE_LIST)
        return fail(s, "%.200s has no list '%s' to change; set it whole, e.g. %s=[...]", s->tree->name,
                    o->path, o->path);
    size_t n = part_length(rest);
    slu_node *e = entry(s, list, rest, n);
    if (!e)
        return SLU_ECONFIG;
    rest = skip_dot(rest + n);
    if (!*rest)
        return put_value(s, list, NULL, e);
    if (o->type != OPT_SECTIONS || e->kind != NODE_MAP)
        return fail(s, "entries of %s have no keys", o->path);
    return set_below(s, e, row, rest);
}

/* |path| is relative to |map|, the mapping of table row |row|. */
static int set_below(const setting *s, slu_node *map, int row, const char *path)
{
    size_t n_rows, n = part_length(path);
    const slu_opt *o = slu_opts(&n_rows);
    int child = n && *path != '[' ? slu_opt_find(row, path, n) : -1;
    const char *key = keep(s, path, n), *rest = skip_dot(path + n);
    if (!key)
        return SLU_ENOMEM;
    if (child < 0) {
        slu_node at = {.set = s->key};
        return slu_options_unknown(s->tree, &at, s->key, row, key, s->err);
    }
    if (!*rest)
        return path[n] == '.' ? fail(s, "ends with a dot") : put_value(s, map, key, slu_node_get(map, key));
    if (o[child].type == OPT_SECTIONS || slu_opt_is_list(&o[child]))
        return set_in_list(s, map, child, key, rest);
    if (o[child].type != OPT_SECTION && o[child].type != OPT_PAIRS)
        return fail(s, "'%s' is a single value and has no keys below it", o[child].path);
    slu_node *below = section(s, map, key);
    if (!below)
        return s->err && s->err->code ? s->err->code : SLU_ECONFIG;
    if (o[child].type == OPT_PAIRS) { /* dots belong to the key: kafka.rdkafka.security.protocol */
        const char *pair = keep(s, rest, strlen(rest));
        return pair ? put_value(s, below, pair, slu_node_get(below, pair)) : SLU_ENOMEM;
    }
    return set_below(s, below, child, rest);
}

int slu_options_set(slu_tree *t, const char *assignment, slu_error *err)
{
    const char *equals = strchr(assignment, '=');
    if (!equals || equals == assignment)
        return slu_fail(err, SLU_ECONFIG, "--set %.100s: write key=value, e.g. --set model.architecture=mmoe",
                        assignment);
    setting s = {.tree = t, .value = equals + 1, .err = err};
    for (const char *c = assignment; c < equals; c++)
        if ((unsigned char)*c <= ' ' || (unsigned char)*c >= 0x7f)
            return slu_fail(err, SLU_ECONFIG,
                            "--set: the key has a character that no key has; write key=value without spaces");
    s.key = keep(&s, assignment, (size_t)(equals - assignment));
    if (!s.key)
        return SLU_ENOMEM;
    return set_below(&s, t->root, -1, s.key);
}
