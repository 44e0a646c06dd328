/* base/options_yaml.h - a YAML text as a tree that remembers where everything was written.
 *
 * libcyaml fills structures but knows no line numbers afterwards, so the configuration is first read into
 * this tree, changed there by --set, checked and completed with defaults, and then written out again for
 * libcyaml. For base/options*.c only. One thread. All memory belongs to the tree's arena.
 *
 * Bounded against hostile input: bytes, nodes, depth, entries of a mapping. Anchors and aliases are refused.
 */
#pragma once
#include "base/arena.h"
#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>

typedef enum slu_node_kind { NODE_SCALAR, NODE_LIST, NODE_MAP } slu_node_kind;

typedef struct slu_node {
    slu_node_kind kind;
    const char *key;                      /* in a mapping */
    const char *text;                     /* scalar; valid UTF-8 without control characters */
    bool plain;                           /* scalar without quotes */
    bool filled;                          /* a default, not written by anybody */
    int line;                             /* from 1 */
    const char *set;                      /* the --set key that it came from, else NULL */
    struct slu_node *first, *last, *next; /* children, and the sibling in the parent's list */
    unsigned count;                       /* children */
} slu_node;

typedef struct slu_tree {
    slu_arena *arena;
    const char *name; /* of the file, for messages */
    slu_node *root;   /* a mapping */
    unsigned nodes;
} slu_tree;

/* |name| must outlive the tree. Returns 0, SLU_ECONFIG or SLU_ENOMEM; slu_tree_free in either case. */
int slu_tree_parse(slu_tree *t, const char *yaml, size_t len, const char *name, slu_error *err);
void slu_tree_free(slu_tree *t);

/* A node for the value of --set |set| or of a default (|set| NULL). Text that starts with [, { or a quote is
 * YAML, all other text is taken as it is: passwords need no quoting. NULL: |err| says why. */
slu_node *slu_tree_value(slu_tree *t, const char *text, const char *set, slu_error *err);

slu_node *slu_node_new(slu_tree *t, slu_node_kind kind, int line, const char *set);
/* |key| NULL in lists; copied. */
void slu_node_add(slu_tree *t, slu_node *parent, const char *key, slu_node *child);
/* Puts |child| in the place of |old|, or adds it when |old| is NULL. */
void slu_node_put(slu_tree *t, slu_node *parent, const char *key, slu_node *old, slu_node *child);
slu_node *slu_node_get(const slu_node *map, const char *key); /* or NULL */
slu_node *slu_node_at(const slu_node *list, unsigned i);      /* or NULL */
bool slu_node_is_null(const slu_node *n); /* absent, empty, ~ or null: as if not written */

/* Fails with "file:line: path: message", or "--set key: message" for what came from there. Out of memory and
 * other earlier errors survive. |at| NULL: no line. */
int slu_tree_fail(const slu_tree *t, const slu_node *at, const char *path, slu_error *err, const char *fmt,
                  ...) __attribute__((format(printf, 5, 6)));
