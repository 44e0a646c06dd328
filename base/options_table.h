/* base/options_table.h - the one table behind the configuration: every key with its type, place, default,
 * range and meaning. Parsing (options_check.c, options_bind.c), defaults, --set, --dump-config, fingerprint
 * (options_print.c) and docs/config.md (options_doc.c) all walk it; a new key is one row here and one member
 * in options.h.
 *
 * For base/options*.c only. Immutable after slu_opts() ran once; any thread may read. */
#pragma once
#include "base/options.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum slu_opt_type {
    OPT_SECTION,  /* keys below it */
    OPT_SECTIONS, /* a list of entries with keys of their own */
    OPT_PAIRS,    /* free keys with text values */
    OPT_NAME,     /* a short name: letters, digits, _ and - */
    OPT_TEXT,
    OPT_WORD,   /* text out of |choices| */
    OPT_LISTEN, /* host:port */
    OPT_TOPIC,  /* a Kafka topic */
    OPT_ENUM,   /* int out of |choices| */
    OPT_BOOL,
    OPT_U32,
    OPT_U64,
    OPT_REAL,
    OPT_DURATION, /* int64_t microseconds */
    OPT_SIZE32,   /* uint32_t bytes */
    OPT_SIZE64,   /* uint64_t bytes */
    OPT_NAMES,    /* lists of the above */
    OPT_TEXTS,
    OPT_TOPICS,
    OPT_WIDTHS, /* of OPT_U32 */
    OPT_REALS,
} slu_opt_type;

typedef struct slu_opt_choice {
    const char *name;
    int value;
} slu_opt_choice;

enum {
    OPT_REQUIRED = 1, /* no default: the key has to be there */
    OPT_LEARNED = 2,  /* decides what is learned: part of the fingerprint */
    OPT_LATER = 4, /* a choice that older programs did not have: at its default it leaves the fingerprint as
                      they made it */
};

typedef struct slu_opt {
    const char *path; /* "model.towers"; "features[].kind" below a list */
    slu_opt_type type;
    unsigned flags;
    uint32_t offset;       /* within slu_options, or within the entry for paths with [] */
    uint32_t count_offset; /* lists: of the uint32_t that counts */
    uint32_t size;         /* OPT_SECTIONS, OPT_PAIRS: of one entry */
    const char *fallback;  /* default as it would be written; NULL: none */
    const char *derived;   /* default in words, where it depends on other keys */
    double min, max;       /* numbers, durations (us), sizes (bytes) and the entries of number lists */
    uint32_t least, most;  /* lists: entries; texts: bytes */
    const slu_opt_choice *choices;
    unsigned kinds;      /* features[]: bits of slu_feature_kind for which it has a meaning; 0: all */
    unsigned transforms; /* features[]: bits of slu_transform for which it has a meaning; 0: all */
    const char *help;
    /* Filled in by slu_opts(). */
    const char *key; /* last part of path */
    int parent;      /* row of the section that holds it, -1: top level */
} slu_opt;

/* The table and its length. Row order is the order of documentation and dump; a section comes before its
 * keys. */
const slu_opt *slu_opts(size_t *n);

/* The row of |key| (len) directly below row |parent| (-1: top level), or -1. */
int slu_opt_find(int parent, const char *key, size_t len);

/* NULL when key |o| means something for a feature like this, else words for what it would need: "kind multi,
 * cross or sequence". */
const char *slu_opt_unfit(const slu_opt *o, slu_feature_kind kind, slu_transform transform);

bool slu_opt_is_list(const slu_opt *o); /* of scalars */
