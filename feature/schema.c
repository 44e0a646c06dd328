#include "feature/schema.h"
#include "base/digest.h"
#include "feature/schema_text.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DEFAULT_MAX_IDS 64 /* multi, sequence and cross whose options do not say */

typedef struct field {
    const char *name;
    slu_side side;
    bool multi;
} field;

/* Open addressing with linear probing, at most a quarter full; built once, then only read. */
typedef struct name_table {
    struct name_entry {
        uint32_t hash;
        int32_t index; /* -1: free */
    } * entries;       /* (mask + 1) */
    uint32_t mask;
} name_table;

struct slu_schema {
    const slu_options *opts;
    slu_slot *slots;   /* (opts->n_features) */
    slu_table *tables; /* (n_tables) */
    field *fields;     /* (n_fields) */
    uint32_t n_tables, n_fields, numbers, inputs, max_ids;
    name_table field_names;
    char *text;
    uint64_t fingerprint;
};

/* ---- lookup by name ---- */

static uint32_t name_hash(const char *name, size_t len)
{
    return (uint32_t)slu_hash64(name, len, 0);
}

static int names_init(name_table *t, uint32_t names)
{
    uint32_t size = 8;
    while (size < names * 4)
        size *= 2;
    t->mask = size - 1;
    t->entries = malloc(size * sizeof *t->entries);
    if (!t->entries)
        return SLU_ENOMEM;
    for (uint32_t i = 0; i < size; i++)
        t->entries[i].index = -1;
    return 0;
}

static void names_add(name_table *t, const char *name, uint32_t index)
{
    uint32_t hash = name_hash(name, strlen(name)), i = hash & t->mask;
    while (t->entries[i].index >= 0)
        i = (i + 1) & t->mask;
    t->entries[i].hash = hash;
    t->entries[i].index = (int32_t)index;
}

static bool same_name(const char *name, const char *p, size_t len)
{
    return strlen(name) == len && !memcmp(name, p, len);
}

int slu_schema_field_find(const slu_schema *s, const char *name, size_t len)
{
    const name_table *t = &s->field_names;
    uint32_t hash = name_hash(name, len);
    for (uint32_t i = hash & t->mask; t->entries[i].index >= 0; i = (i + 1) & t->mask)
        if (t->entries[i].hash == hash && same_name(s->fields[t->entries[i].index].name, name, len))
            return t->entries[i].index;
    return -1;
}

int slu_schema_step_find(const slu_schema *s, const char *name, size_t len)
{
    for (uint32_t i = 0; i < s->opts->n_steps; i++)
        if (same_name(s->opts->steps[i].name, name, len))
            return (int)i;
    return -1;
}

/* ---- compiling ---- */

static const char *or_name(const slu_feature_opts *f, const char *text)
{
    return text ? text : f->name;
}

static bool bucketed(const slu_feature_opts *f)
{
    return f->kind == SLU_NUMERIC && f->transform == SLU_TRANSFORM_BUCKET;
}

static bool has_ids(const slu_feature_opts *f)
{
    return f->kind != SLU_NUMERIC || bucketed(f);
}

static bool several(const slu_feature_opts *f)
{
    return f->kind == SLU_MULTI || f->kind == SLU_SEQUENCE;
}

/* The field that |f| reads, made when it is new. */
static uint32_t add_field(slu_schema *s, const slu_feature_opts *f)
{
    const char *name = or_name(f, f->source);
    int found = slu_schema_field_find(s, name, strlen(name));
    uint32_t i = found < 0 ? s->n_fields : (uint32_t)found;
    if (found < 0) {
        s->fields[s->n_fields++] = (field){.name = name, .side = f->side};
        names_add(&s->field_names, name, i);
    }
    if (f->side == SLU_ITEM)
        s->fields[i].side = SLU_ITEM;
    s->fields[i].multi = s->fields[i].multi || several(f);
    return i;
}

static int add_table(slu_schema *s, const slu_feature_opts *f, bool wide, uint32_t *index, slu_error *err)
{
    const char *name = or_name(f, f->table);
    uint32_t i = 0;
    while (i < s->n_tables && strcmp(s->tables[i].name, name))
        i++;
    slu_table *t = &s->tables[i];
    *index = i;
    if (i == s->n_tables) {
        s->n_tables++;
        *t = (slu_table){name, f->dimension, wide, f->admit_after, f->ttl_us};
        return 0;
    }
    if (t->dimension != f->dimension)
        return slu_fail(err, SLU_ECONFIG,
                        "feature '%s': table '%s' has dimension %u by another feature, not %u", f->name, name,
                        t->dimension, f->dimension);
    t->wide = t->wide || wide;
    t->admit_after = f->admit_after > t->admit_after ? f->admit_after : t->admit_after;
    t->ttl_us = !t->ttl_us || !f->ttl_us ? 0 : f->ttl_us > t->ttl_us ? f->ttl_us : t->ttl_us;
    return 0;
}

static uint64_t seed_of(const slu_feature_opts *f)
{
    const char *table = or_name(f, f->table);
    return f->seed ? f->seed : slu_hash64(table, strlen(table), 0);
}

/* Everything of a slot but what needs other slots. */
static int compile_slot(slu_schema *s, uint32_t i, slu_error *err)
{
    const slu_feature_opts *f = &s->opts->features[i];
    slu_slot *slot = &s->slots[i];
    uint32_t bound = f->max_ids ? f->max_ids : DEFAULT_MAX_IDS;
    *slot = (slu_slot){.opts = f, .field = UINT32_MAX, .table = SLU_NO_TABLE, .seed = seed_of(f)};
    if (f->kind != SLU_CROSS)
        slot->field = add_field(s, f);
    if (!has_ids(f)) {
        slot->number = s->numbers++;
        slot->width = 1;
    } else {
        slot->max_ids = several(f) || f->kind == SLU_CROSS ? bound : 1;
        slot->wide = f->wide && s->opts->model.wide;
        int rc = add_table(s, f, slot->wide, &slot->table, err);
        if (rc)
            return rc;
        slot->width = f->dimension;
    }
    slot->input = s->inputs;
    s->inputs += slot->width;
    return 0;
}

static int find_feature(const slu_options *o, const char *name)
{
    for (uint32_t i = 0; i < o->n_features; i++)
        if (!strcmp(o->features[i].name, name))
            return (int)i;
    return -1;
}

static int compile_cross(slu_schema *s, slu_slot *slot, slu_error *err)
{
    const slu_feature_opts *f = slot->opts;
    uint64_t combinations = 1;
    if (f->n_of < 2 || f->n_of > sizeof slot->of / sizeof *slot->of)
        return slu_fail(err, SLU_ECONFIG, "feature '%s': a cross is of 2 to %zu features, not %u", f->name,
                        sizeof slot->of / sizeof *slot->of, f->n_of);
    slot->shared = true;
    for (uint32_t i = 0; i < f->n_of; i++) {
        int part = find_feature(s->opts, f->of[i]);
        if (part < 0 || !has_ids(&s->opts->features[part]) || s->opts->features[part].kind == SLU_CROSS)
            return slu_fail(
                err, SLU_ECONFIG,
                "feature '%s': of: '%s' is not a categorical, multi, sequence or bucketed feature", f->name,
                f->of[i]);
        slot->of[slot->n_of++] = (uint32_t)part;
        slot->shared = slot->shared && s->slots[part].shared;
        combinations *= s->slots[part].max_ids;
        if (combinations > slot->max_ids)
            combinations = slot->max_ids;
    }
    slot->max_ids = (uint32_t)combinations;
    return 0;
}

static int compile(slu_schema *s, slu_error *err)
{
    const uint32_t n = s->opts->n_features;
    uint64_t ids = 0;
    int rc = 0;
    for (uint32_t i = 0; i < n && !rc; i++)
        rc = compile_slot(s, i, err);
    for (uint32_t i = 0; i < n && !rc; i++)
        if (s->slots[i].field != UINT32_MAX)
            s->slots[i].shared = s->fields[s->slots[i].field].side != SLU_ITEM;
    for (uint32_t i = 0; i < n && !rc; i++)
        if (s->slots[i].opts->kind == SLU_CROSS)
            rc = compile_cross(s, &s->slots[i], err);
    for (uint32_t i = 0; i < n && !rc; i++)
        ids += s->slots[i].max_ids;
    if (!rc && ids > UINT16_MAX)
        rc = slu_fail(err, SLU_ECONFIG,
                      "features: max_ids of all features sum to %llu, at most %u are allowed",
                      (unsigned long long)ids, UINT16_MAX);
    s->max_ids = (uint32_t)ids;
    return rc;
}

int slu_schema_new(const slu_options *opts, slu_schema **sp, slu_error *err)
{
    const uint32_t room = opts->n_features ? opts->n_features : 1;
    int rc = SLU_ENOMEM;
    *sp = NULL;
    if (opts->n_features > SLU_MAX_FEATURES)
        return slu_fail(err, SLU_ECONFIG, "features: %u are too many, at most %d are allowed",
                        opts->n_features, SLU_MAX_FEATURES);
    slu_schema *s = calloc(1, sizeof *s);
    if (!s)
        goto fail;
    s->opts = opts;
    s->slots = calloc(room, sizeof *s->slots);
    s->tables = calloc(room, sizeof *s->tables);
    s->fields = calloc(room, sizeof *s->fields);
    if (!s->slots || !s->tables || !s->fields || names_init(&s->field_names, room))
        goto fail;
    rc = compile(s, err);
    if (rc)
        goto fail;
    s->text = schema_text(s);
    s->fingerprint = schema_text_fingerprint(s->text);
    *sp = s;
    return 0;
fail:
    slu_schema_free(s);
    return rc == SLU_ENOMEM ? slu_fail(err, rc, "out of memory for the schema") : rc;
}

void slu_schema_free(slu_schema *s)
{
    if (!s)
        return;
    free(s->slots);
    free(s->tables);
    free(s->fields);
    free(s->field_names.entries);
    free(s->text);
    free(s);
}

/* ---- reading ---- */

const slu_options *slu_schema_options(const slu_schema *s)
{
    return s->opts;
}

uint32_t slu_schema_slots(const slu_schema *s)
{
    return s->opts->n_features;
}

const slu_slot *slu_schema_slot(const slu_schema *s, uint32_t i)
{
    return &s->slots[i];
}

uint32_t slu_schema_tables(const slu_schema *s)
{
    return s->n_tables;
}

const slu_table *slu_schema_table(const slu_schema *s, uint32_t i)
{
    return &s->tables[i];
}

uint32_t slu_schema_fields(const slu_schema *s)
{
    return s->n_fields;
}

const char *slu_schema_field_name(const slu_schema *s, uint32_t i)
{
    return s->fields[i].name;
}

slu_side slu_schema_field_side(const slu_schema *s, uint32_t i)
{
    return s->fields[i].side;
}

bool slu_schema_field_multi(const slu_schema *s, uint32_t i)
{
    return s->fields[i].multi;
}

uint32_t slu_schema_numbers(const slu_schema *s)
{
    return s->numbers;
}

void slu_schema_shared_columns(const slu_schema *s, uint32_t *first, uint32_t *width)
{
    uint32_t from = 0, n = 0;
    *first = *width = 0;
    for (uint32_t i = 0; i < slu_schema_slots(s); i++) {
        const slu_slot *slot = &s->slots[i];
        if (!slot->shared && slot->width)
            n = 0;
        if (!slot->shared || !slot->width)
            continue;
        if (!n)
            from = slot->input;
        n += slot->width;
        if (n > *width) {
            *first = from;
            *width = n;
        }
    }
}

uint32_t slu_schema_inputs(const slu_schema *s)
{
    return s->inputs;
}

uint32_t slu_schema_max_ids(const slu_schema *s)
{
    return s->max_ids;
}

uint32_t slu_schema_steps(const slu_schema *s)
{
    return s->opts->n_steps;
}

const char *slu_schema_step_name(const slu_schema *s, uint32_t i)
{
    return s->opts->steps[i].name;
}

const char *slu_schema_text(const slu_schema *s)
{
    return s->text;
}

uint64_t slu_schema_fingerprint(const slu_schema *s)
{
    return s->fingerprint;
}

int slu_schema_compare(const slu_schema *s, const char *text, const char *where, slu_error *err)
{
    return schema_text_compare(s->text, text, where, err);
}
