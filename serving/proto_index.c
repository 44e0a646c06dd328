#include "serving/proto_index.h"
#include "base/bytes.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NESTING 64
#define MAX_FILES   256

typedef struct span {
    const uint8_t *p;
    size_t n;
} span;

typedef struct symbol {
    char *name; /* fully qualified, without a leading dot */
    uint32_t file;
    bool message;
} symbol;

struct slu_proto_index {
    span *files; /* (n_files) */
    char **names;
    size_t n_files;
    symbol *symbols; /* (n_symbols) sorted by name */
    size_t n_symbols, cap_symbols;
    bool no_memory;
};

/* One field of a message: its number and, for length-delimited ones, its bytes. */
typedef struct field {
    uint32_t number;
    uint32_t type; /* wire type */
    span bytes;
} field;

static bool next_field(slu_reader *r, field *f)
{
    if (!slu_reader_left(r))
        return false;
    uint64_t key = slu_get_varint(r);
    *f = (field){.number = (uint32_t)(key >> 3), .type = (uint32_t)(key & 7)};
    switch (f->type) {
    case 0:
        slu_get_varint(r);
        break;
    case 1:
        slu_get_bytes(r, 8);
        break;
    case 2:
        f->bytes.p = slu_get_str(r, &f->bytes.n);
        break;
    case 5:
        slu_get_bytes(r, 4);
        break;
    default:
        r->bad = true;
        break;
    }
    return !r->bad;
}

static span find_bytes(span message, uint32_t number)
{
    slu_reader r = slu_reader_of(message.p, message.n);
    field f;
    while (next_field(&r, &f))
        if (f.number == number && f.type == 2)
            return f.bytes;
    return (span){(const uint8_t *)"", 0};
}

/* "scope.name", or "name" where there is no scope; the index owns it as a symbol. */
static const char *add_symbol(slu_proto_index *x, uint32_t file, const char *scope, span name, bool message)
{
    if (x->n_symbols == x->cap_symbols) {
        size_t cap = x->cap_symbols ? x->cap_symbols * 2 : 256;
        symbol *more = realloc(x->symbols, cap * sizeof *more);
        if (!more) {
            x->no_memory = true;
            return "";
        }
        x->symbols = more;
        x->cap_symbols = cap;
    }
    char *full = NULL;
    if (asprintf(&full, "%s%s%.*s", scope, *scope ? "." : "", (int)name.n, (const char *)name.p) < 0) {
        x->no_memory = true;
        return "";
    }
    x->symbols[x->n_symbols++] = (symbol){full, file, message};
    return full;
}

static void add_enum(slu_proto_index *x, uint32_t file, const char *scope, span body)
{
    add_symbol(x, file, scope, find_bytes(body, 1), false);
    slu_reader r = slu_reader_of(body.p, body.n);
    field f;
    while (next_field(&r, &f))
        if (f.type == 2 && f.number == 2) /* values are siblings of their enum, as in C++ */
            add_symbol(x, file, scope, find_bytes(f.bytes, 1), false);
}

/* Fields 2 (field), 3 (nested_type), 4 (enum_type), 6 (extension), 8 (oneof_decl) of DescriptorProto. */
static void add_message(slu_proto_index *x, uint32_t file, const char *scope, span body, int depth)
{
    const char *name = add_symbol(x, file, scope, find_bytes(body, 1), true);
    if (depth > MAX_NESTING)
        return;
    slu_reader r = slu_reader_of(body.p, body.n);
    field f;
    while (next_field(&r, &f)) {
        if (f.type != 2)
            continue;
        if (f.number == 2 || f.number == 6 || f.number == 8)
            add_symbol(x, file, name, find_bytes(f.bytes, 1), false);
        else if (f.number == 3)
            add_message(x, file, name, f.bytes, depth + 1);
        else if (f.number == 4)
            add_enum(x, file, name, f.bytes);
    }
}

static void add_service(slu_proto_index *x, uint32_t file, const char *scope, span body)
{
    const char *name = add_symbol(x, file, scope, find_bytes(body, 1), false);
    slu_reader r = slu_reader_of(body.p, body.n);
    field f;
    while (next_field(&r, &f))
        if (f.type == 2 && f.number == 2)
            add_symbol(x, file, name, find_bytes(f.bytes, 1), false);
}

/* Fields 2 (package), 4 (message_type), 5 (enum_type), 6 (service), 7 (extension) of FileDescriptorProto. */
static bool add_symbols(slu_proto_index *x, uint32_t file)
{
    span body = x->files[file], package = find_bytes(body, 2);
    char *scope = strndup((const char *)package.p, package.n);
    if (!scope) {
        x->no_memory = true;
        return false;
    }
    slu_reader r = slu_reader_of(body.p, body.n);
    field f;
    while (next_field(&r, &f)) {
        if (f.type != 2)
            continue;
        if (f.number == 4)
            add_message(x, file, scope, f.bytes, 0);
        else if (f.number == 5)
            add_enum(x, file, scope, f.bytes);
        else if (f.number == 6)
            add_service(x, file, scope, f.bytes);
        else if (f.number == 7)
            add_symbol(x, file, scope, find_bytes(f.bytes, 1), false);
    }
    free(scope);
    return !r.bad;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const symbol *)a)->name, ((const symbol *)b)->name);
}

static bool read_files(slu_proto_index *x, const uint8_t *set, size_t len)
{
    slu_reader r = slu_reader_of(set, len);
    field f;
    while (next_field(&r, &f)) {
        if (f.number != 1 || f.type != 2)
            continue;
        if (x->n_files == MAX_FILES)
            return false;
        span name = find_bytes(f.bytes, 1);
        x->names[x->n_files] = strndup((const char *)name.p, name.n);
        if (!x->names[x->n_files]) {
            x->no_memory = true;
            return false;
        }
        x->files[x->n_files++] = f.bytes;
    }
    return !r.bad;
}

int slu_proto_index_new(const uint8_t *set, size_t len, slu_proto_index **ip, slu_error *err)
{
    *ip = NULL;
    slu_proto_index *x = calloc(1, sizeof *x);
    if (!x)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the descriptor index");
    x->files = calloc(MAX_FILES, sizeof *x->files);
    x->names = calloc(MAX_FILES, sizeof *x->names);
    x->no_memory = !x->files || !x->names;
    bool ok = !x->no_memory && read_files(x, set, len);
    for (size_t i = 0; ok && i < x->n_files; i++)
        ok = add_symbols(x, (uint32_t)i);
    if (!ok || x->no_memory) {
        bool no_memory = x->no_memory;
        slu_proto_index_free(x);
        return no_memory ? slu_fail(err, SLU_ENOMEM, "out of memory for the descriptor index")
                         : slu_fail(err, SLU_EFORMAT, "the descriptor set is broken");
    }
    if (x->n_symbols)
        qsort(x->symbols, x->n_symbols, sizeof *x->symbols, by_name);
    *ip = x;
    return 0;
}

void slu_proto_index_free(slu_proto_index *x)
{
    if (!x)
        return;
    for (size_t i = 0; i < x->n_files; i++)
        free(x->names[i]);
    for (size_t i = 0; i < x->n_symbols; i++)
        free(x->symbols[i].name);
    free(x->symbols);
    free(x->files);
    free(x->names);
    free(x);
}

size_t slu_proto_index_files(const slu_proto_index *x)
{
    return x->n_files;
}

int slu_proto_index_file(const slu_proto_index *x, const char *name)
{
    for (size_t i = 0; i < x->n_files; i++)
        if (!strcmp(x->names[i], name))
            return (int)i;
    return -1;
}

static const symbol *find_symbol(const slu_proto_index *x, const char *name)
{
    symbol key = {.name = (char *)name + (*name == '.')};
    return x->n_symbols ? bsearch(&key, x->symbols, x->n_symbols, sizeof key, by_name) : NULL;
}

int slu_proto_index_symbol(const slu_proto_index *x, const char *name)
{
    const symbol *s = find_symbol(x, name);
    return s ? (int)s->file : -1;
}

bool slu_proto_index_message(const slu_proto_index *x, const char *name)
{
    const symbol *s = find_symbol(x, name);
    return s && s->message;
}

const uint8_t *slu_proto_index_bytes(const slu_proto_index *x, size_t i, size_t *len)
{
    *len = x->files[i].n;
    return x->files[i].p;
}

static void visit_file(const slu_proto_index *x, size_t i, bool *seen, void (*visit)(void *, size_t),
                       void *ctx)
{
    if (seen[i])
        return;
    seen[i] = true;
    visit(ctx, i);
    slu_reader r = slu_reader_of(x->files[i].p, x->files[i].n);
    field f;
    while (next_field(&r, &f)) {
        if (f.number != 3 || f.type != 2)
            continue;
        for (size_t j = 0; j < x->n_files; j++)
            if (strlen(x->names[j]) == f.bytes.n && !memcmp(x->names[j], f.bytes.p, f.bytes.n))
                visit_file(x, j, seen, visit, ctx);
    }
}

void slu_proto_index_closure(const slu_proto_index *x, size_t i, void (*visit)(void *ctx, size_t file),
                             void *ctx)
{
    bool seen[MAX_FILES] = {false};
    visit_file(x, i, seen, visit, ctx);
}
