#include "tests/fuzz/delta_mutator.h"
#include "base/rng.h"
#include "serving/delta_applier.h"
#include "sluice/v1/delta.pb-c.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MESSAGES    24
#define CHANGES     4
#define TABLE_BYTES (64u << 20)

typedef Sluice__V1__ModelDelta model_delta;
typedef Sluice__V1__RowBlock row_block;
typedef Sluice__V1__DenseBlock dense_block;

typedef struct history {
    const delta_shape *shape;
    slu_rng *rng;
    model_delta *m[MESSAGES];
    size_t n;
} history;

static uint32_t draw(history *h, uint32_t n)
{
    return (uint32_t)slu_rng_below(h->rng, n);
}

/* ---- from bytes and back ---- */

static void drop_at(history *h, size_t i)
{
    sluice__v1__model_delta__free_unpacked(h->m[i], NULL);
    h->n--;
    memmove(h->m + i, h->m + i + 1, (h->n - i) * sizeof *h->m);
}

static void read_history(history *h, const uint8_t *data, size_t size)
{
    while (size >= 2 && h->n < MESSAGES) {
        size_t len = data[0] | (size_t)data[1] << 8;
        data += 2, size -= 2;
        len = len < size ? len : size;
        model_delta *m = sluice__v1__model_delta__unpack(NULL, len, data);
        if (m)
            h->m[h->n++] = m;
        data += len, size -= len;
    }
}

/* As many of the messages as there is room for. */
static size_t write_history(history *h, uint8_t *data, size_t most)
{
    size_t at = 0;
    for (size_t i = 0; i < h->n; i++) {
        size_t len = sluice__v1__model_delta__get_packed_size(h->m[i]);
        if (len > UINT16_MAX || len + 2 > most - at)
            break;
        data[at] = (uint8_t)len, data[at + 1] = (uint8_t)(len >> 8);
        at += 2 + sluice__v1__model_delta__pack(h->m[i], data + at + 2);
    }
    return at;
}

static model_delta *copy_of(const model_delta *m)
{
    size_t len = sluice__v1__model_delta__get_packed_size(m);
    uint8_t *bytes = malloc(len + 1);
    sluice__v1__model_delta__pack(m, bytes);
    model_delta *copy = sluice__v1__model_delta__unpack(NULL, len, bytes);
    free(bytes);
    return copy; /* NULL: bytes that may be written but not read, as schema_text that is not UTF-8 */
}

static void insert_at(history *h, size_t i, model_delta *m)
{
    if (!m || h->n == MESSAGES) {
        if (m)
            sluice__v1__model_delta__free_unpacked(m, NULL);
        return;
    }
    memmove(h->m + i + 1, h->m + i, (h->n - i) * sizeof *h->m);
    h->m[i] = m;
    h->n++;
}

void delta_patch(const delta_shape *shape, uint8_t *bytes, size_t len)
{
    uint64_t ours = slu_schema_fingerprint(shape->schema);
    for (size_t i = 0; i + 9 <= len; i++)
        if (bytes[i] == 0x31 && !memcmp(bytes + i + 1, DELTA_FINGERPRINT, 8))
            memcpy(bytes + i + 1, &ours, 8);
}

static uint64_t placeholder(void)
{
    uint64_t v;
    memcpy(&v, DELTA_FINGERPRINT, sizeof v);
    return v;
}

/* ---- numbers and bytes ---- */

static uint64_t number(history *h, uint64_t now)
{
    static const uint64_t special[] = {0,         1, 2, 255, UINT32_MAX, INT64_MAX, (uint64_t)INT64_MAX + 1,
                                       UINT64_MAX};
    switch (draw(h, 4)) {
    case 0:
        return now + 1;
    case 1:
        return now - 1;
    case 2:
        return draw(h, 16);
    default:
        return special[draw(h, sizeof special / sizeof *special)];
    }
}

/* A few ids that meet each other again, now and then one that only looks odd. */
static uint64_t some_id(history *h)
{
    return draw(h, 8) ? draw(h, 8) : number(h, 0);
}

static float some_float(history *h)
{
    static const float often[] = {0, .5f, -1, 1e-40f, 3e38f, -0.f};
    if (!draw(h, 200))
        return draw(h, 2) ? NAN : INFINITY;
    return often[draw(h, sizeof often / sizeof *often)];
}

static void resize(ProtobufCBinaryData *b, size_t len)
{
    uint8_t *p = realloc(b->data, len + 1);
    if (len > b->len)
        memset(p + b->len, 0, len - b->len);
    b->data = p;
    b->len = len;
}

static void append(ProtobufCBinaryData *b, const void *p, size_t n)
{
    resize(b, b->len + n);
    memcpy(b->data + b->len - n, p, n);
}

static void change_byte(history *h, ProtobufCBinaryData *b)
{
    if (b->len)
        b->data[draw(h, (uint32_t)b->len)] ^= (uint8_t)(1u << draw(h, 8));
}

/* ---- row blocks ---- */

static row_block *add_block(history *h, model_delta *m)
{
    row_block *b = malloc(sizeof *b);
    sluice__v1__row_block__init(b);
    b->table = draw(h, slu_schema_tables(h->shape->schema));
    m->rows = realloc(m->rows, (m->n_rows + 1) * sizeof *m->rows);
    m->rows[m->n_rows++] = b;
    return b;
}

static row_block *some_block(history *h, model_delta *m)
{
    return m->n_rows && draw(h, 4) ? m->rows[draw(h, (uint32_t)m->n_rows)] : add_block(h, m);
}

static void drop_block(history *h, model_delta *m)
{
    if (!m->n_rows)
        return;
    size_t i = draw(h, (uint32_t)m->n_rows);
    sluice__v1__row_block__free_unpacked(m->rows[i], NULL);
    m->n_rows--;
    memmove(m->rows + i, m->rows + i + 1, (m->n_rows - i) * sizeof(row_block *));
}

static uint32_t floats_of(const history *h, const row_block *b)
{
    return b->table < slu_schema_tables(h->shape->schema) ? h->shape->served[b->table] : 1;
}

static void add_row(history *h, row_block *b)
{
    uint64_t id = some_id(h);
    append(&b->ids, &id, sizeof id);
    for (uint32_t i = 0, n = floats_of(h, b); i < n; i++) {
        float v = some_float(h);
        append(&b->values, &v, sizeof v);
    }
}

static void change_rows(history *h, model_delta *m)
{
    row_block *b = some_block(h, m);
    uint64_t id = some_id(h);
    switch (draw(h, 8)) {
    case 0:
    case 1:
        add_row(h, b);
        break;
    case 2:
        append(&b->deleted, &id, sizeof id);
        break;
    case 3:
        if (b->ids.len >= sizeof id)
            memcpy(b->ids.data + draw(h, (uint32_t)(b->ids.len / sizeof id)) * sizeof id, &id, sizeof id);
        break;
    case 4:
        change_byte(h, draw(h, 2) ? &b->values : draw(h, 2) ? &b->ids : &b->deleted);
        break;
    case 5:
        resize(draw(h, 2) ? &b->values : draw(h, 2) ? &b->ids : &b->deleted, draw(h, 96));
        break;
    case 6:
        b->table = draw(h, 4) ? draw(h, slu_schema_tables(h->shape->schema)) : (uint32_t)number(h, b->table);
        break;
    default:
        drop_block(h, m);
    }
}

/* ---- dense parameters, fields ---- */

static dense_block *dense_of(model_delta *m)
{
    if (!m->dense) {
        m->dense = malloc(sizeof *m->dense);
        sluice__v1__dense_block__init(m->dense);
    }
    return m->dense;
}

static void whole_dense(history *h, model_delta *m)
{
    dense_block *d = dense_of(m);
    d->total = h->shape->dense;
    d->offset = 0;
    resize(&d->values, h->shape->dense * sizeof(float));
    float v = some_float(h);
    memcpy(d->values.data + draw(h, h->shape->dense) * sizeof v, &v, sizeof v);
}

static void change_dense(history *h, model_delta *m)
{
    dense_block *d = dense_of(m);
    switch (draw(h, 5)) {
    case 0:
        sluice__v1__dense_block__free_unpacked(m->dense, NULL);
        m->dense = NULL;
        break;
    case 1:
        d->offset = (uint32_t)number(h, d->offset);
        break;
    case 2:
        resize(&d->values, draw(h, h->shape->dense + 4) * (draw(h, 4) ? sizeof(float) : 1));
        break;
    case 3:
        d->total = (uint32_t)number(h, d->total);
        break;
    default:
        whole_dense(h, m);
    }
}

static void change_text(history *h, model_delta *m)
{
    const char *ours = slu_schema_text(h->shape->schema);
    char *text = strdup(ours);
    text[draw(h, (uint32_t)strlen(text))] = "0 \n:x"[draw(h, 5)];
    if (m->schema_text != protobuf_c_empty_string)
        free(m->schema_text);
    m->schema_text = text;
    m->schema_fingerprint = draw(h, 4);
}

static void change_sums(history *h, model_delta *m)
{
    ProtobufCBinaryData *b = draw(h, 2) ? &m->row_sum : &m->dense_digest;
    if (draw(h, 2))
        resize(b, draw(h, 3) ? 0 : draw(h, 18));
    else
        change_byte(h, b);
}

static void change_field(history *h, model_delta *m)
{
    switch (draw(h, 9)) {
    case 0:
        m->version = number(h, m->version);
        break;
    case 1:
        m->previous_version = number(h, m->previous_version);
        break;
    case 2:
        m->chunk = (uint32_t)number(h, m->chunk);
        break;
    case 3:
        m->chunks = (uint32_t)number(h, m->chunks);
        break;
    case 4:
        m->kind = (Sluice__V1__DeltaKind)draw(h, 4);
        break;
    case 5:
        m->lineage = number(h, m->lineage);
        break;
    case 6:
        m->committed_us = (int64_t)number(h, (uint64_t)m->committed_us);
        break;
    case 7:
        m->learned_through_us = (int64_t)number(h, (uint64_t)m->learned_through_us);
        break;
    default:
        change_text(h, m);
    }
}

/* ---- order ---- */

/* The last row block and the dense part become a chunk of their own. */
static void split(history *h, size_t i)
{
    model_delta *rest = copy_of(h->m[i]), *m = h->m[i];
    if (!rest || h->n == MESSAGES) {
        insert_at(h, i, rest);
        return;
    }
    m->chunks++;
    rest->chunks++;
    rest->chunk++;
    while (rest->n_rows > 1)
        sluice__v1__row_block__free_unpacked(rest->rows[--rest->n_rows], NULL);
    if (m->n_rows) {
        sluice__v1__row_block__free_unpacked(m->rows[0], NULL);
        memmove(m->rows, m->rows + 1, --m->n_rows * sizeof(row_block *));
    }
    if (m->dense) {
        sluice__v1__dense_block__free_unpacked(m->dense, NULL);
        m->dense = NULL;
    }
    insert_at(h, i + 1, rest);
}

static void follow(history *h)
{
    model_delta *m = h->n ? copy_of(h->m[h->n - 1]) : NULL;
    if (!m)
        return;
    m->previous_version = m->version++;
    m->kind = draw(h, 3) ? SLUICE__V1__DELTA_KIND__DELTA_KIND_DELTA : SLUICE__V1__DELTA_KIND__DELTA_KIND_BASE;
    m->committed_us++;
    insert_at(h, h->n, m);
}

static void change_order(history *h, size_t i)
{
    size_t j = draw(h, (uint32_t)h->n);
    model_delta *m = h->m[i];
    switch (draw(h, 6)) {
    case 0:
        insert_at(h, j, copy_of(m));
        break;
    case 1:
        if (h->n > 1)
            drop_at(h, i);
        break;
    case 2:
        h->m[i] = h->m[j];
        h->m[j] = m;
        break;
    case 3:
        follow(h);
        break;
    default:
        split(h, i);
    }
}

static void change(history *h)
{
    size_t i = draw(h, (uint32_t)h->n);
    switch (draw(h, 8)) {
    case 0:
    case 1:
        change_field(h, h->m[i]);
        break;
    case 2:
    case 3:
    case 4:
        change_rows(h, h->m[i]);
        break;
    case 5:
        change_dense(h, h->m[i]);
        break;
    case 6:
        change_sums(h, h->m[i]);
        break;
    default:
        change_order(h, i);
    }
}

/* ---- made right again ---- */

static void make_finite(ProtobufCBinaryData *b)
{
    for (size_t i = 0; i + sizeof(float) <= b->len; i += sizeof(float)) {
        float v;
        memcpy(&v, b->data + i, sizeof v);
        if (!isfinite(v))
            memset(b->data + i, 0, sizeof v);
    }
}

static void mend_body(history *h, model_delta *m)
{
    m->schema_fingerprint = placeholder();
    if (m->kind != SLUICE__V1__DELTA_KIND__DELTA_KIND_BASE)
        m->kind = SLUICE__V1__DELTA_KIND__DELTA_KIND_DELTA;
    for (size_t i = 0; i < m->n_rows; i++) {
        row_block *b = m->rows[i];
        b->table %= slu_schema_tables(h->shape->schema);
        resize(&b->ids, b->ids.len & ~(size_t)7);
        resize(&b->deleted, b->deleted.len & ~(size_t)7);
        resize(&b->values, b->ids.len / 8 * floats_of(h, b) * sizeof(float));
        make_finite(&b->values);
    }
    if (m->dense) {
        m->dense->total = h->shape->dense;
        make_finite(&m->dense->values);
    }
}

/* Messages in a row of one version become its chunks, the last one with all dense parameters if a base. */
static void mend_chunks(history *h)
{
    for (size_t i = 0, n; i < h->n; i += n) {
        const model_delta *first = h->m[i];
        for (n = 1; i + n < h->n && h->m[i + n]->version == first->version &&
                    h->m[i + n]->kind == first->kind && h->m[i + n]->lineage == first->lineage;)
            n++;
        bool base = first->kind == SLUICE__V1__DELTA_KIND__DELTA_KIND_BASE || !first->previous_version;
        for (size_t k = 0; k < n; k++) {
            model_delta *m = h->m[i + k];
            m->chunk = (uint32_t)k;
            m->chunks = (uint32_t)n;
            if (m->dense)
                sluice__v1__dense_block__free_unpacked(m->dense, NULL);
            m->dense = NULL;
            if (k == n - 1 && (base || draw(h, 2)))
                whole_dense(h, m);
        }
    }
}

/* A whole history: what begins a version follows the one before. */
static void mend_versions(history *h)
{
    uint64_t version = 0, old = UINT64_MAX;
    for (size_t i = 0; i < h->n; i++) {
        model_delta *m = h->m[i];
        m->lineage = h->m[0]->lineage;
        if (m->version != old || m->chunk == 0) {
            old = m->version;
            version += 1 + (draw(h, 8) == 0);
        }
        m->version = version;
        m->previous_version =
            m->kind == SLUICE__V1__DELTA_KIND__DELTA_KIND_BASE || version < 2 ? 0 : version - 1;
    }
}

/* Played without sums, each version says what it adds up to. */
static void mend_sums(history *h)
{
    slu_model_table *table;
    if (slu_model_table_new(h->shape->served, slu_schema_tables(h->shape->schema), h->shape->dense,
                            TABLE_BYTES, &table, NULL))
        abort();
    slu_delta_applier *a = slu_delta_applier_new(h->shape->schema, table);
    for (size_t i = 0; i < h->n; i++) {
        model_delta *m = h->m[i];
        resize(&m->row_sum, 0);
        resize(&m->dense_digest, 0);
        size_t len = sluice__v1__model_delta__get_packed_size(m);
        uint8_t *bytes = malloc(len + 1);
        sluice__v1__model_delta__pack(m, bytes);
        delta_patch(h->shape, bytes, len);
        if (slu_delta_apply(a, bytes, len, NULL) == 1) {
            slu_model_sums sums = slu_model_current_sums(table);
            resize(&m->row_sum, SLU_SUM_BYTES);
            resize(&m->dense_digest, SLU_SUM_BYTES);
            slu_sum_write(m->row_sum.data, sums.rows);
            slu_sum_write(m->dense_digest.data, sums.dense);
        }
        free(bytes);
    }
    slu_delta_applier_free(a);
    slu_model_table_free(table);
}

static void mend(history *h)
{
    if (draw(h, 4))
        for (size_t i = 0; i < h->n; i++)
            mend_body(h, h->m[i]);
    if (draw(h, 2))
        mend_versions(h);
    if (draw(h, 2))
        mend_chunks(h);
    if (draw(h, 4))
        mend_sums(h);
}

size_t delta_mutate(const delta_shape *shape, uint8_t *data, size_t size, size_t most, uint32_t seed)
{
    slu_rng rng;
    history h = {.shape = shape, .rng = &rng};
    slu_rng_seed(&rng, seed);
    read_history(&h, data, size);
    if (!h.n)
        return 0;
    for (uint32_t left = 1 + draw(&h, CHANGES); left; left--)
        change(&h);
    if (draw(&h, 2))
        mend(&h);
    size_t n = write_history(&h, data, most);
    while (h.n)
        drop_at(&h, h.n - 1);
    return n;
}
