#include "base/bytes.h"
#include "base/options_parts.h"
#include <cyaml/cyaml.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cyaml_schema_value_t whole; /* of an slu_options */
static pthread_once_t once = PTHREAD_ONCE_INIT;

static const cyaml_config_t config = {.mem_fn = cyaml_mem, .flags = CYAML_CFG_NO_ALIAS};

static void *must(void *p)
{
    if (!p) {
        fprintf(stderr, "sluice: out of memory (configuration schema)\n");
        abort();
    }
    return p;
}

static const cyaml_schema_value_t text_value = {.type = CYAML_STRING,
                                                .flags = CYAML_FLAG_POINTER,
                                                .data_size = sizeof(char),
                                                .string = {.min = 0, .max = CYAML_UNLIMITED}};
static const cyaml_schema_value_t u32_value = {.type = CYAML_UINT, .data_size = sizeof(uint32_t)};
static const cyaml_schema_value_t real_value = {.type = CYAML_FLOAT, .data_size = sizeof(double)};

static const cyaml_schema_field_t pair_fields[] = {
    CYAML_FIELD_STRING_PTR("key", CYAML_FLAG_POINTER, slu_kv_opts, key, 0, CYAML_UNLIMITED),
    CYAML_FIELD_STRING_PTR("value", CYAML_FLAG_POINTER, slu_kv_opts, value, 0, CYAML_UNLIMITED),
    CYAML_FIELD_STRING_PTR("environment", CYAML_FLAG_POINTER | CYAML_FLAG_OPTIONAL, slu_kv_opts, environment,
                           0, CYAML_UNLIMITED),
    CYAML_FIELD_END};

static const cyaml_schema_field_t *fields_of(int row);

/* A sequence whose entries are |entry|, |size| bytes each. */
static void make_sequence(cyaml_schema_field_t *f, const slu_opt *o, const cyaml_schema_value_t *entry,
                          size_t size)
{
    f->count_offset = o->count_offset;
    f->count_size = sizeof(uint32_t);
    f->value.type = CYAML_SEQUENCE;
    f->value.flags |= CYAML_FLAG_POINTER;
    f->value.data_size = (uint32_t)size;
    f->value.sequence.entry = entry;
    f->value.sequence.min = 0;
    f->value.sequence.max = CYAML_UNLIMITED;
}

static void make_entries(cyaml_schema_field_t *f, const slu_opt *o, const cyaml_schema_field_t *fields)
{
    cyaml_schema_value_t *entry = must(calloc(1, sizeof *entry));
    entry->type = CYAML_MAPPING;
    entry->data_size = o->size;
    entry->mapping.fields = fields;
    make_sequence(f, o, entry, o->size);
}

static void make_field(cyaml_schema_field_t *f, const slu_opt *o, int row)
{
    f->key = o->key;
    f->data_offset = o->offset;
    f->value.flags = CYAML_FLAG_OPTIONAL;
    switch (o->type) {
    case OPT_SECTION: /* keys of a section are members of the structure around it */
        f->value.type = CYAML_MAPPING;
        f->value.data_size = sizeof(slu_options);
        f->value.mapping.fields = fields_of(row);
        break;
    case OPT_SECTIONS:
        make_entries(f, o, fields_of(row));
        break;
    case OPT_PAIRS:
        make_entries(f, o, pair_fields);
        break;
    case OPT_NAME:
    case OPT_TEXT:
    case OPT_WORD:
    case OPT_LISTEN:
    case OPT_TOPIC:
        f->value = text_value;
        f->value.flags |= CYAML_FLAG_OPTIONAL;
        break;
    case OPT_ENUM:
        f->value.type = CYAML_INT;
        f->value.data_size = sizeof(int);
        break;
    case OPT_BOOL:
        f->value.type = CYAML_BOOL;
        f->value.data_size = sizeof(bool);
        break;
    case OPT_U32:
    case OPT_SIZE32:
        f->value.type = CYAML_UINT;
        f->value.data_size = sizeof(uint32_t);
        break;
    case OPT_U64:
    case OPT_SIZE64:
        f->value.type = CYAML_UINT;
        f->value.data_size = sizeof(uint64_t);
        break;
    case OPT_DURATION:
        f->value.type = CYAML_INT;
        f->value.data_size = sizeof(int64_t);
        break;
    case OPT_REAL:
        f->value.type = CYAML_FLOAT;
        f->value.data_size = sizeof(double);
        break;
    case OPT_NAMES:
    case OPT_TEXTS:
    case OPT_TOPICS:
        make_sequence(f, o, &text_value, sizeof(char *));
        break;
    case OPT_WIDTHS:
        make_sequence(f, o, &u32_value, sizeof(uint32_t));
        break;
    case OPT_REALS:
        make_sequence(f, o, &real_value, sizeof(double));
        break;
    }
}

/* The keys below table row |row| (-1: top level). */
static const cyaml_schema_field_t *fields_of(int row)
{
    size_t n, used = 0;
    const slu_opt *o = slu_opts(&n);
    for (size_t i = 0; i < n; i++)
        used += o[i].parent == row;
    cyaml_schema_field_t *fields = must(calloc(used + 1, sizeof *fields)),
                         *f = fields; /* a NULL key ends it */
    for (size_t i = 0; i < n; i++)
        if (o[i].parent == row)
            make_field(f++, &o[i], (int)i);
    return fields;
}

/* Made once and kept: libcyaml needs the schema again to free what it loaded. */
static void make_schema(void)
{
    whole.type = CYAML_MAPPING;
    whole.flags = CYAML_FLAG_POINTER;
    whole.data_size = sizeof(slu_options);
    whole.mapping.fields = fields_of(-1);
}

static void put_quoted(slu_buf *out, const char *s)
{
    slu_put_u8(out, '"');
    for (; *s; s++) {
        if (*s == '"' || *s == '\\')
            slu_put_u8(out, '\\');
        slu_put_u8(out, (uint8_t)*s);
    }
    slu_put_u8(out, '"');
}

/* Flow style with every text in quotes is the form of YAML with the fewest surprises. */
static void put_node(slu_buf *out, const slu_node *n)
{
    if (n->kind == NODE_SCALAR) {
        put_quoted(out, n->text);
        return;
    }
    bool first = true;
    slu_put_u8(out, n->kind == NODE_MAP ? '{' : '[');
    for (const slu_node *child = n->first; child; child = child->next) {
        if (slu_node_is_null(child))
            continue;
        if (!first)
            slu_put_bytes(out, ",\n", 2);
        first = false;
        if (n->kind == NODE_MAP) {
            put_quoted(out, child->key);
            slu_put_bytes(out, ": ", 2);
        }
        put_node(out, child);
    }
    slu_put_u8(out, n->kind == NODE_MAP ? '}' : ']');
}

int slu_options_bind(const slu_tree *t, slu_options **op, slu_error *err)
{
    slu_buf yaml = SLU_BUF_INIT;
    pthread_once(&once, make_schema);
    put_node(&yaml, t->root);
    cyaml_data_t *data = NULL;
    cyaml_err_t rc = cyaml_load_data(yaml.data, yaml.len, &config, &whole, &data, NULL);
    slu_buf_free(&yaml);
    *op = data;
    if (rc == CYAML_OK)
        return 0;
    *op = NULL;
    /* The text is our own, so what the parser below libcyaml cannot do with it is for lack of memory. */
    bool memory =
        rc == CYAML_ERR_OOM || rc == CYAML_ERR_LIBYAML_PARSER || rc == CYAML_ERR_LIBYAML_PARSER_INIT;
    return slu_fail(err, memory ? SLU_ENOMEM : SLU_ECONFIG, "%.200s: libcyaml: %s", t->name,
                    cyaml_strerror(rc));
}

void slu_options_free(slu_options *o)
{
    if (!o)
        return;
    pthread_once(&once, make_schema);
    cyaml_free(&config, &whole, o, 0);
}
