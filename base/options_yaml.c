#include "base/options_yaml.h"
#include "base/text.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

#define MAX_BYTES   ((size_t)4 << 20)
#define MAX_MEMORY  ((size_t)64 << 20)
#define MAX_NODES   100000
#define MAX_DEPTH   16
#define MAX_ENTRIES 512 /* keys of one mapping: they are compared with each other */

int slu_tree_fail(const slu_tree *t, const slu_node *at, const char *path, slu_error *err, const char *fmt,
                  ...)
{
    char what[700];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(what, sizeof what, fmt, ap);
    va_end(ap);
    const char *between = path && *path ? ": " : "";
    if (!path)
        path = "";
    if (at && at->set && !strcmp(at->set, path))
        return slu_fail(err, SLU_ECONFIG, "--set %.100s: %s", at->set, what);
    if (at && at->set)
        return slu_fail(err, SLU_ECONFIG, "--set %.100s%s%.100s: %s", at->set, between, path, what);
    if (at)
        return slu_fail(err, SLU_ECONFIG, "%.200s:%d%s%.100s: %s", t->name, at->line, between, path, what);
    return slu_fail(err, SLU_ECONFIG, "%.200s%s%.100s: %s", t->name, between, path, what);
}

slu_node *slu_node_new(slu_tree *t, slu_node_kind kind, int line, const char *set)
{
    slu_node *n = slu_arena_zalloc(t->arena, sizeof *n);
    if (!n)
        return NULL;
    t->nodes++;
    n->kind = kind;
    n->line = line;
    n->set = set;
    return n;
}

void slu_node_add(slu_tree *t, slu_node *parent, const char *key, slu_node *child)
{
    assert((parent->kind == NODE_MAP) == (key != NULL));
    (void)t;
    child->key = key;
    child->next = NULL;
    if (parent->last)
        parent->last->next = child;
    else
        parent->first = child;
    parent->last = child;
    parent->count++;
}

void slu_node_put(slu_tree *t, slu_node *parent, const char *key, slu_node *old, slu_node *child)
{
    if (!old) {
        slu_node_add(t, parent, key, child);
        return;
    }
    child->key = old->key;
    child->next = old->next;
    slu_node **link = &parent->first;
    while (*link != old)
        link = &(*link)->next;
    *link = child;
    if (parent->last == old)
        parent->last = child;
}

slu_node *slu_node_get(const slu_node *map, const char *key)
{
    if (!map || map->kind != NODE_MAP)
        return NULL;
    for (slu_node *n = map->first; n; n = n->next)
        if (!strcmp(n->key, key))
            return n;
    return NULL;
}

slu_node *slu_node_at(const slu_node *list, unsigned i)
{
    slu_node *n = list && list->kind == NODE_LIST ? list->first : NULL;
    while (n && i--)
        n = n->next;
    return n;
}

bool slu_node_is_null(const slu_node *n)
{
    return !n || (n->kind == NODE_SCALAR && n->plain &&
                  (!*n->text || !strcmp(n->text, "~") || !strcmp(n->text, "null")));
}

/* What is being read: a file, or the value of one --set. */
typedef struct reading {
    slu_tree *tree;
    yaml_parser_t parser;
    const char *set;
    slu_error *err;
} reading;

static int fail_at(reading *r, size_t line, const char *message)
{
    slu_node at = {.line = (int)line + 1, .set = r->set};
    return slu_tree_fail(r->tree, &at, r->set ? r->set : NULL, r->err, "%s", message);
}

static int out_of_memory(reading *r)
{
    return slu_fail(r->err, SLU_ENOMEM, "%.200s: out of memory for the configuration", r->tree->name);
}

static int next_event(reading *r, yaml_event_t *e)
{
    char what[200];
    if (yaml_parser_parse(&r->parser, e))
        return 0;
    if (r->parser.error == YAML_MEMORY_ERROR)
        return out_of_memory(r);
    const char *problem = r->parser.problem ? r->parser.problem : "unreadable";
    snprintf(what, sizeof what, "not valid YAML: %s%s%s", problem, r->parser.context ? " " : "",
             r->parser.context ? r->parser.context : "");
    return fail_at(r, r->parser.problem_mark.line, what);
}

static bool has_controls(const yaml_char_t *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((s[i] < 0x20 && s[i] != '\t') || s[i] == 0x7f)
            return true;
    return false;
}

static int read_value(reading *r, yaml_event_t *e, int depth, slu_node **out);

/* The key of the next entry, or NULL at the mapping's end. */
static int read_key(reading *r, const slu_node *map, const char **key, size_t *line)
{
    yaml_event_t e;
    int rc = next_event(r, &e);
    if (rc)
        return rc;
    *line = e.start_mark.line;
    *key = NULL;
    if (e.type == YAML_SCALAR_EVENT && has_controls(e.data.scalar.value, e.data.scalar.length)) {
        rc = fail_at(r, *line, "control characters are not allowed in keys");
    } else if (e.type == YAML_SCALAR_EVENT) {
        *key = slu_arena_strndup(r->tree->arena, (char *)e.data.scalar.value, e.data.scalar.length);
        rc = *key ? 0 : out_of_memory(r);
    } else if (e.type != YAML_MAPPING_END_EVENT) {
        rc = fail_at(r, *line, "a key must be a plain word");
    }
    yaml_event_delete(&e);
    if (rc || !*key)
        return rc;
    const slu_node *twin = slu_node_get(map, *key);
    if (twin) {
        slu_node at = {.line = (int)*line + 1, .set = r->set};
        return slu_tree_fail(r->tree, &at, NULL, r->err, "key '%.60s' is here twice (first on line %d)", *key,
                             twin->line);
    }
    return map->count < MAX_ENTRIES ? 0 : fail_at(r, *line, "too many keys in one mapping");
}

static int read_map(reading *r, slu_node *map, int depth)
{
    for (;;) {
        const char *key;
        size_t line;
        yaml_event_t e;
        slu_node *child;
        int rc = read_key(r, map, &key, &line);
        if (rc || !key)
            return rc;
        if ((rc = next_event(r, &e)) || (rc = read_value(r, &e, depth, &child)))
            return rc;
        child->line =
            r->set ? 0 : (int)line + 1; /* where its key is: an empty value's own mark is the next line */
        slu_node_add(r->tree, map, key, child);
    }
}

static int read_list(reading *r, slu_node *list, int depth)
{
    for (;;) {
        yaml_event_t e;
        slu_node *child;
        int rc = next_event(r, &e);
        if (rc)
            return rc;
        if (e.type == YAML_SEQUENCE_END_EVENT) {
            yaml_event_delete(&e);
            return 0;
        }
        if ((rc = read_value(r, &e, depth, &child)))
            return rc;
        slu_node_add(r->tree, list, NULL, child);
    }
}

/* The value that starts with |e|, which is consumed. */
static int read_value(reading *r, yaml_event_t *e, int depth, slu_node **out)
{
    size_t line = e->start_mark.line;
    const yaml_char_t *anchor = NULL;
    slu_node_kind kind = NODE_SCALAR;
    slu_node *n = NULL;
    int rc = 0;

    *out = NULL;
    if (e->type == YAML_SCALAR_EVENT) {
        anchor = e->data.scalar.anchor;
    } else if (e->type == YAML_SEQUENCE_START_EVENT) {
        anchor = e->data.sequence_start.anchor;
        kind = NODE_LIST;
    } else if (e->type == YAML_MAPPING_START_EVENT) {
        anchor = e->data.mapping_start.anchor;
        kind = NODE_MAP;
    } else {
        rc = fail_at(r, line,
                     e->type == YAML_ALIAS_EVENT ? "aliases (*name) are not supported; write the value out"
                                                 : "a value is missing");
        goto done;
    }
    if (anchor) {
        rc = fail_at(r, line, "anchors (&name) are not supported; write the value out");
        goto done;
    }
    if (depth >= MAX_DEPTH || r->tree->nodes >= MAX_NODES) {
        rc = fail_at(r, line, depth >= MAX_DEPTH ? "nested too deeply" : "too many values");
        goto done;
    }
    if (kind == NODE_SCALAR && has_controls(e->data.scalar.value, e->data.scalar.length)) {
        rc = fail_at(r, line, "control characters (also line breaks) are not allowed in values");
        goto done;
    }
    n = slu_node_new(r->tree, kind, (int)line + 1, r->set);
    if (n && kind == NODE_SCALAR) {
        n->plain = e->data.scalar.style == YAML_PLAIN_SCALAR_STYLE;
        n->text = slu_arena_strndup(r->tree->arena, (char *)e->data.scalar.value, e->data.scalar.length);
    }
    if (!n || (kind == NODE_SCALAR && !n->text))
        rc = out_of_memory(r);
done:
    yaml_event_delete(e);
    if (!rc && kind == NODE_MAP)
        rc = read_map(r, n, depth + 1);
    else if (!rc && kind == NODE_LIST)
        rc = read_list(r, n, depth + 1);
    if (!rc)
        *out = n;
    return rc;
}

/* Reads the one document of |yaml|; *|out| is NULL when there is none. */
static int read_document(reading *r, const char *yaml, size_t len, slu_node **out)
{
    yaml_event_t e;
    int rc = 0;

    *out = NULL;
    if (!yaml_parser_initialize(&r->parser))
        return slu_fail(r->err, SLU_ENOMEM, "out of memory");
    yaml_parser_set_input_string(&r->parser, (const unsigned char *)yaml, len);
    for (;;) {
        rc = next_event(r, &e);
        if (rc)
            break;
        yaml_event_type_t type = e.type;
        if (type == YAML_STREAM_END_EVENT || type == YAML_STREAM_START_EVENT ||
            type == YAML_DOCUMENT_START_EVENT || type == YAML_DOCUMENT_END_EVENT) {
            size_t line = e.start_mark.line;
            yaml_event_delete(&e);
            if (type == YAML_STREAM_END_EVENT)
                break;
            if (type == YAML_DOCUMENT_START_EVENT && *out) {
                rc = fail_at(r, line, "a second document starts here; one file holds one configuration");
                break;
            }
            continue;
        }
        rc = read_value(r, &e, 0, out);
        if (rc)
            break;
    }
    yaml_parser_delete(&r->parser);
    if (rc)
        *out = NULL;
    return rc;
}

int slu_tree_parse(slu_tree *t, const char *yaml, size_t len, const char *name, slu_error *err)
{
    *t = (slu_tree){.arena = slu_arena_new(0, MAX_MEMORY), .name = name};
    if (!t->arena)
        return slu_fail(err, SLU_ENOMEM, "out of memory");
    if (len > MAX_BYTES)
        return slu_tree_fail(t, NULL, NULL, err, "%zu bytes are too many for a configuration (at most %zu)",
                             len, MAX_BYTES);
    reading r = {.tree = t, .err = err};
    int rc = read_document(&r, yaml, len, &t->root);
    if (rc)
        return rc;
    if (slu_node_is_null(t->root))
        return slu_tree_fail(t, NULL, NULL, err, "is empty; see examples/ads.yaml for a start");
    if (t->root->kind != NODE_MAP)
        return slu_tree_fail(t, t->root, NULL, err, "expected keys and values, e.g. 'name: ads'");
    return 0;
}

void slu_tree_free(slu_tree *t)
{
    slu_arena_free(t->arena);
    *t = (slu_tree){0};
}

slu_node *slu_tree_value(slu_tree *t, const char *text, const char *set, slu_error *err)
{
    reading r = {.tree = t, .set = set, .err = err};
    slu_node *n = NULL;
    if (*text && strchr("[{\"'", *text)) {
        if (!read_document(&r, text, strlen(text), &n) && !n)
            fail_at(&r, 0, "the value is missing");
        return n;
    }
    if (!slu_text_is_line(text)) {
        fail_at(&r, 0, "the value has control characters or is not UTF-8");
        return NULL;
    }
    n = slu_node_new(t, NODE_SCALAR, 0, set);
    if (n) {
        n->plain = true;
        n->text = slu_arena_strndup(t->arena, text, strlen(text));
    }
    if (!n || !n->text) {
        out_of_memory(&r);
        return NULL;
    }
    return n;
}
