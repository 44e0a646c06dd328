/* feature/schema.h - the compiled form of the config's features: fields, slots, tables, and a fingerprint.
 *
 * A *field* is a raw input by name (features[].source); a *slot* is a feature in config order; a *table* is a
 * set of embedding rows, shared by the slots that name it. Numeric slots without buckets have no table but a
 * place in the dense numbers. Immutable once made; any thread may read it. */
#pragma once
#include "base/error.h"
#include "base/options.h"
#include "feature/event.h"

#define SLU_NO_TABLE UINT32_MAX

typedef struct slu_slot {
    const slu_feature_opts *opts;
    uint32_t field;   /* index of the raw field; UINT32_MAX for crosses */
    uint32_t table;   /* index of the table or SLU_NO_TABLE (numeric) */
    uint32_t max_ids; /* ids that it can produce: 1, or the bound of multi, sequence, cross */
    uint32_t number;  /* numeric: index into the encoded numbers */
    uint32_t input;   /* first of its columns in the network's input x (B, K), slots in order */
    uint32_t width;   /* columns in x: the table's dimension, or 1 for numeric, 0 for wide only */
    bool wide;        /* has wide weights: its own wide, model.wide and a table */
    bool shared;      /* its field is not an item's (a cross: all its parts are shared) */
    uint32_t of[8];   /* cross: slots of its parts */
    uint32_t n_of;
    uint64_t seed; /* of the hash */
} slu_slot;

typedef struct slu_table {
    const char *name;
    uint32_t dimension;
    bool wide;            /* any slot of it is wide */
    uint32_t admit_after; /* the largest of its slots' */
    int64_t ttl_us;       /* the largest of its slots'; 0 never, also when one of them is 0 */
} slu_table;

/* Compiles |opts| (which must outlive it and has been checked by slu_options_load). Returns 0, SLU_ENOMEM, or
 * SLU_ECONFIG for what shows only here: more than 65535 ids in one impression, a table with two dimensions, a
 * cross of something that has no ids. */
int slu_schema_new(const slu_options *opts, slu_schema **sp, slu_error *err);
void slu_schema_free(slu_schema *s); /* NULL is fine */
const slu_options *slu_schema_options(const slu_schema *s);

uint32_t slu_schema_slots(const slu_schema *s);
const slu_slot *slu_schema_slot(const slu_schema *s, uint32_t i);
uint32_t slu_schema_tables(const slu_schema *s);
const slu_table *slu_schema_table(const slu_schema *s, uint32_t i);
uint32_t slu_schema_fields(const slu_schema *s);
const char *slu_schema_field_name(const slu_schema *s, uint32_t i);
/* The side of the features that read it; SLU_ITEM as soon as one of them is an item feature (and then none of
 * them is `shared`), so that one answer holds for the field as a whole. */
slu_side slu_schema_field_side(const slu_schema *s, uint32_t i);
/* A multi or sequence feature reads it: text from CSV is split at '|'. */
bool slu_schema_field_multi(const slu_schema *s, uint32_t i);
/* Index of the field of that name, or -1. One probe of a hash table, no allocation. */
int slu_schema_field_find(const slu_schema *s, const char *name, size_t len);
uint32_t slu_schema_numbers(const slu_schema *s); /* dense numbers per impression */
uint32_t slu_schema_inputs(const slu_schema *s);  /* K: columns of the network's input */
/* The longest run of neighbouring columns of the network's input that belong to `shared` slots, so that all
 * candidates of a request agree in them. */
void slu_schema_shared_columns(const slu_schema *s, uint32_t *first, uint32_t *width);
uint32_t slu_schema_max_ids(const slu_schema *s); /* most ids one impression can have */
/* The funnel. */
uint32_t slu_schema_steps(const slu_schema *s);
const char *slu_schema_step_name(const slu_schema *s, uint32_t i);
int slu_schema_step_find(const slu_schema *s, const char *name, size_t len); /* or -1 */

/* The schema as text, a line per step, feature and network property that a model depends on, and its hash.
 * Stored with every model and published with every base. What only steers learning (side, admission, time to
 * live, task weights, optimizers) is not in it and may change between runs. */
const char *slu_schema_text(const slu_schema *s);
uint64_t slu_schema_fingerprint(const slu_schema *s);
/* Compares with the text of another schema. 0 when equal, else SLU_ESCHEMA with a message that has both
 * fingerprints, the first line that differs on each side and |where| (e.g. "store /var/lib/x"). */
int slu_schema_compare(const slu_schema *s, const char *text, const char *where, slu_error *err);
