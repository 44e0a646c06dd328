#include "feature/encode.h"
#include "base/metrics.h"
#include "base/rng.h"
#include "feature/value.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* What the encoder needs of a slot, worked out once. */
typedef struct plan {
    const slu_slot *slot;
    uint32_t first;         /* of its ids in slu_encoder.ids, room for max_ids */
    uint64_t missing_id;    /* slots with a table */
    float missing_number;   /* numeric slots */
    const uint64_t *bucket; /* (n_buckets + 1) their ids */
} plan;

/* Each slot's ids have a fixed place here and are packed into the record at the end. What one slot gets
 * depends on its own fields only (a cross: on its parts' places), so the shared slots can stay while
 * candidates come and go. */
struct slu_encoder {
    const slu_schema *schema;
    plan *plans;          /* (slots) */
    uint16_t *counts;     /* (slots) */
    uint64_t *ids;        /* (max_ids) */
    float *numbers;       /* (numbers) */
    uint64_t *bucket_ids; /* of all slots, what plan.bucket points into */
    uint32_t *order;      /* (slots) crosses last, since they read other slots' ids */
    slu_metric *cut;
};

static size_t padded(size_t n)
{
    return (n + 7) & ~(size_t)7;
}

static size_t encoded_bytes(uint32_t slots, uint32_t ids, uint32_t numbers)
{
    return sizeof(slu_encoded) + padded((size_t)slots * 2) + (size_t)ids * 8 + padded((size_t)numbers * 4);
}

size_t slu_encoded_max(const slu_schema *s)
{
    return encoded_bytes(slu_schema_slots(s), slu_schema_max_ids(s), slu_schema_numbers(s));
}

/* ---- numbers ---- */

static double transform(const slu_feature_opts *f, double x)
{
    switch (f->transform) {
    case SLU_TRANSFORM_LOG:
        return copysign(log1p(fabs(x)), x);
    case SLU_TRANSFORM_STANDARDIZE:
        return (x - f->mean) / (f->deviation != 0 ? f->deviation : 1);
    default:
        return x;
    }
}

static float network_number(const slu_feature_opts *f, double x)
{
    double y = transform(f, x) + 0.0; /* -0 becomes 0: equal values, equal bytes */
    return y > SLU_NUMBER_LIMIT ? SLU_NUMBER_LIMIT : y < -SLU_NUMBER_LIMIT ? -SLU_NUMBER_LIMIT : (float)y;
}

/* Index of the first bound >= x, n_buckets above them all. */
static uint32_t bucket_of(const slu_feature_opts *f, double x)
{
    uint32_t low = 0, high = f->n_buckets;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (f->buckets[middle] >= x)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

static float encode_number(const plan *p, const slu_values *values)
{
    double x;
    if (values->n && slu_value_number(values->v, &x))
        return network_number(p->slot->opts, x);
    return p->missing_number;
}

static uint64_t encode_bucket(const plan *p, const slu_values *values)
{
    double x;
    if (values->n && slu_value_number(values->v, &x))
        return p->bucket[bucket_of(p->slot->opts, x)];
    return p->missing_id;
}

/* ---- ids ---- */

static uint64_t encode_one(const plan *p, const slu_values *values)
{
    uint64_t id = values->n ? slu_value_id(values->v, p->slot->seed) : 0;
    return id ? id : p->missing_id;
}

static void count_cut(slu_encoder *e, uint64_t values)
{
    slu_metric_add(e->cut, (double)values);
}

static uint16_t first_values(slu_encoder *e, const plan *p, const slu_values *values, uint64_t *ids)
{
    uint32_t n = 0, i;
    for (i = 0; i < values->n && n < p->slot->max_ids; i++) {
        uint64_t id = slu_value_id(values->v + i, p->slot->seed);
        if (id)
            ids[n++] = id;
    }
    if (i < values->n)
        count_cut(e, values->n - i);
    return (uint16_t)n;
}

/* The newest values are at the end; they keep their order. */
static uint16_t last_values(slu_encoder *e, const plan *p, const slu_values *values, uint64_t *ids)
{
    const uint32_t room = p->slot->max_ids;
    uint32_t n = 0, i;
    for (i = values->n; i && n < room; i--) {
        uint64_t id = slu_value_id(values->v + i - 1, p->slot->seed);
        if (id)
            ids[room - ++n] = id;
    }
    if (n < room)
        memmove(ids, ids + room - n, n * sizeof *ids);
    if (i)
        count_cut(e, i);
    return (uint16_t)n;
}

static uint16_t encode_several(slu_encoder *e, const plan *p, const slu_values *values, uint64_t *ids)
{
    uint16_t n = p->slot->opts->kind == SLU_SEQUENCE ? last_values(e, p, values, ids)
                                                     : first_values(e, p, values, ids);
    if (n)
        return n;
    ids[0] = p->missing_id;
    return 1;
}

/* One step of folding the parts' ids into one. Mixing after each part makes their order count. */
static uint64_t fold(uint64_t state, uint64_t id)
{
    return slu_mix64(state ^ id);
}

/* Saturates: eight long lists have more than 2^64. */
static uint64_t count_combinations(const slu_encoder *e, const slu_slot *slot)
{
    uint64_t n = 1;
    for (uint32_t i = 0; i < slot->n_of; i++) {
        n *= e->counts[slot->of[i]];
        if (n > UINT32_MAX)
            n = UINT32_MAX;
    }
    return n;
}

/* All combinations of the parts' ids, the last part turning fastest, up to max_ids. */
static uint16_t encode_cross(slu_encoder *e, const plan *p, uint64_t *ids)
{
    const slu_slot *slot = p->slot;
    uint32_t at[8] = {0}, n = 0;
    const uint64_t combinations = count_combinations(e, slot);
    while (n < slot->max_ids && n < combinations) {
        uint64_t state = slu_mix64(slot->seed);
        for (uint32_t i = 0; i < slot->n_of; i++)
            state = fold(state, e->ids[e->plans[slot->of[i]].first + at[i]]);
        ids[n++] = state ? state : 1;
        for (uint32_t i = slot->n_of; i-- > 0;) {
            if (++at[i] < e->counts[slot->of[i]])
                break;
            at[i] = 0;
        }
    }
    if (combinations > n)
        count_cut(e, combinations - n);
    return (uint16_t)n;
}

/* ---- records ---- */

static void encode_slot(slu_encoder *e, uint32_t i, const slu_values *fields)
{
    const plan *p = &e->plans[i];
    const slu_slot *slot = p->slot;
    uint64_t *ids = e->ids + p->first;
    switch (slot->opts->kind) {
    case SLU_CATEGORICAL:
        ids[0] = encode_one(p, &fields[slot->field]);
        break;
    case SLU_MULTI:
    case SLU_SEQUENCE:
        e->counts[i] = encode_several(e, p, &fields[slot->field], ids);
        break;
    case SLU_NUMERIC:
        if (p->bucket)
            ids[0] = encode_bucket(p, &fields[slot->field]);
        else
            e->numbers[slot->number] = encode_number(p, &fields[slot->field]);
        break;
    case SLU_CROSS:
        e->counts[i] = encode_cross(e, p, ids);
        break;
    }
}

static void pack(const slu_encoder *e, slu_encoded *out)
{
    const uint32_t slots = slu_schema_slots(e->schema), numbers = slu_schema_numbers(e->schema);
    uint16_t *counts = (uint16_t *)(out + 1);
    out->slots = (uint16_t)slots;
    memcpy(counts, e->counts, slots * sizeof *counts);
    memset(counts + slots, 0, padded((size_t)slots * 2) - (size_t)slots * 2);
    uint64_t *ids = (uint64_t *)((char *)counts + padded((size_t)slots * 2));
    uint32_t total = 0;
    for (uint32_t i = 0; i < slots; i++) {
        const uint64_t *from = e->ids + e->plans[i].first;
        for (uint32_t k = 0; k < e->counts[i]; k++)
            ids[total++] = from[k];
    }
    out->total = (uint16_t)total;
    out->bytes = (uint32_t)encoded_bytes(slots, total, numbers);
    float *to = (float *)(ids + total);
    memcpy(to, e->numbers, numbers * sizeof *to);
    if (numbers % 2)
        to[numbers] = 0;
}

void slu_encode(slu_encoder *e, const slu_values *fields, slu_encoded *out)
{
    for (uint32_t i = 0; i < slu_schema_slots(e->schema); i++)
        encode_slot(e, e->order[i], fields);
    pack(e, out);
}

void slu_encode_shared(slu_encoder *e, const slu_values *fields)
{
    for (uint32_t i = 0; i < slu_schema_slots(e->schema); i++)
        if (e->plans[e->order[i]].slot->shared)
            encode_slot(e, e->order[i], fields);
}

void slu_encode_candidate(slu_encoder *e, const slu_values *fields, slu_encoded *out)
{
    for (uint32_t i = 0; i < slu_schema_slots(e->schema); i++)
        if (!e->plans[e->order[i]].slot->shared)
            encode_slot(e, e->order[i], fields);
    pack(e, out);
}

/* ---- columns ---- */

static bool has_one_id(const slu_slot *slot)
{
    return slot->table != SLU_NO_TABLE &&
           (slot->opts->kind == SLU_CATEGORICAL || slot->opts->kind == SLU_NUMERIC);
}

static bool has_column(const slu_encoder *e, const slu_slot *slot)
{
    if (slot->opts->kind != SLU_CROSS)
        return has_one_id(slot) || slot->opts->kind == SLU_NUMERIC;
    for (uint32_t i = 0; i < slot->n_of; i++)
        if (!has_one_id(e->plans[slot->of[i]].slot))
            return false;
    return true;
}

bool slu_encode_has_columns(const slu_encoder *e)
{
    for (uint32_t i = 0; i < slu_schema_slots(e->schema); i++)
        if (!e->plans[i].slot->shared && !has_column(e, e->plans[i].slot))
            return false;
    return true;
}

void slu_encode_column_ids(const slu_encoder *e, uint32_t slot, const slu_value *v, uint32_t n, uint64_t *ids)
{
    const plan *p = &e->plans[slot];
    for (uint32_t i = 0; i < n; i++) {
        const slu_values one = {v + i, 1};
        ids[i] = p->bucket ? encode_bucket(p, &one) : encode_one(p, &one);
    }
}

void slu_encode_column_cross(const slu_encoder *e, uint32_t slot, uint64_t *columns, uint32_t apart,
                             uint32_t n)
{
    const slu_slot *cross = e->plans[slot].slot;
    uint64_t *ids = columns + (size_t)slot * apart;
    for (uint32_t b = 0; b < n; b++)
        ids[b] = slu_mix64(cross->seed);
    for (uint32_t i = 0; i < cross->n_of; i++) {
        const plan *part = &e->plans[cross->of[i]];
        const uint64_t *of = columns + (size_t)cross->of[i] * apart;
        for (uint32_t b = 0; b < n; b++)
            ids[b] = fold(ids[b], part->slot->shared ? e->ids[part->first] : of[b]);
    }
    for (uint32_t b = 0; b < n; b++)
        ids[b] = ids[b] ? ids[b] : 1;
}

void slu_encode_column_numbers(const slu_encoder *e, uint32_t slot, const slu_value *v, uint32_t n,
                               float *numbers, uint32_t apart)
{
    for (uint32_t i = 0; i < n; i++) {
        const slu_values one = {v + i, 1};
        numbers[(size_t)i * apart] = encode_number(&e->plans[slot], &one);
    }
}

/* ---- making ---- */

static bool is_bucketed(const slu_slot *slot)
{
    return slot->opts->kind == SLU_NUMERIC && slot->table != SLU_NO_TABLE;
}

/* What stands for a missing value, from the option `missing` or, without it, the token or 0. */
static void plan_missing(plan *p)
{
    const slu_feature_opts *f = p->slot->opts;
    const slu_value given = slu_text_value(f->missing, f->missing ? strlen(f->missing) : 0);
    double x = 0;
    const bool number = f->missing && slu_value_number(&given, &x);
    p->missing_number = number ? network_number(f, x) : 0;
    p->missing_id = slu_missing_id(p->slot->seed);
    if (p->bucket && number)
        p->missing_id = p->bucket[bucket_of(f, x)];
    else if (!p->bucket && given.v.text.n)
        p->missing_id = slu_value_id(&given, p->slot->seed);
}

static void plan_slots(slu_encoder *e)
{
    const uint32_t slots = slu_schema_slots(e->schema);
    uint64_t *bucket = e->bucket_ids;
    uint32_t first = 0, ordered = 0;
    for (uint32_t i = 0; i < slots; i++) {
        plan *p = &e->plans[i];
        p->slot = slu_schema_slot(e->schema, i);
        p->first = first;
        first += p->slot->max_ids;
        e->counts[i] = p->slot->table != SLU_NO_TABLE; /* of those that never change it */
        if (is_bucketed(p->slot)) {
            p->bucket = bucket;
            for (uint32_t k = 0; k <= p->slot->opts->n_buckets; k++)
                *bucket++ = slu_bucket_id(k, p->slot->seed);
        }
        plan_missing(p);
    }
    for (int crosses = 0; crosses < 2; crosses++)
        for (uint32_t i = 0; i < slots; i++)
            if ((e->plans[i].slot->opts->kind == SLU_CROSS) == crosses)
                e->order[ordered++] = i;
}

static size_t count_bucket_ids(const slu_schema *s)
{
    size_t n = 0;
    for (uint32_t i = 0; i < slu_schema_slots(s); i++)
        if (is_bucketed(slu_schema_slot(s, i)))
            n += slu_schema_slot(s, i)->opts->n_buckets + 1;
    return n;
}

slu_encoder *slu_encoder_new(const slu_schema *s)
{
    const size_t slots = slu_schema_slots(s);
    slu_encoder *e = calloc(1, sizeof *e);
    if (!e)
        return NULL;
    e->schema = s;
    e->plans = calloc(slots + 1, sizeof *e->plans);
    e->counts = calloc(slots + 1, sizeof *e->counts);
    e->order = calloc(slots + 1, sizeof *e->order);
    e->ids = calloc(slu_schema_max_ids(s) + 1, sizeof *e->ids);
    e->numbers = calloc(slu_schema_numbers(s) + 1, sizeof *e->numbers);
    e->bucket_ids = calloc(count_bucket_ids(s) + 1, sizeof *e->bucket_ids);
    if (!e->plans || !e->counts || !e->order || !e->ids || !e->numbers || !e->bucket_ids) {
        slu_encoder_free(e);
        return NULL;
    }
    e->cut = slu_counter("sluice_feature_values_cut_total", NULL,
                         "Values of lists and combinations of crosses beyond max_ids that were cut.");
    plan_slots(e);
    return e;
}

void slu_encoder_free(slu_encoder *e)
{
    if (!e)
        return;
    free(e->plans);
    free(e->counts);
    free(e->order);
    free(e->ids);
    free(e->numbers);
    free(e->bucket_ids);
    free(e);
}

/* ---- checking ---- */

static bool counts_valid(const slu_schema *s, const char *bytes, uint32_t total)
{
    uint32_t sum = 0;
    for (uint32_t i = 0; i < slu_schema_slots(s); i++) {
        const slu_slot *slot = slu_schema_slot(s, i);
        uint16_t count;
        memcpy(&count, bytes + (size_t)i * 2, sizeof count);
        if (count > slot->max_ids || (slot->table != SLU_NO_TABLE && !count))
            return false;
        sum += count;
    }
    return sum == total;
}

static bool ids_valid(const char *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        uint64_t id;
        memcpy(&id, bytes + (size_t)i * 8, sizeof id);
        if (!id)
            return false;
    }
    return true;
}

static bool numbers_valid(const char *bytes, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        float x;
        memcpy(&x, bytes + (size_t)i * 4, sizeof x);
        if (!(fabsf(x) <= SLU_NUMBER_LIMIT)) /* also when not a number */
            return false;
    }
    return true;
}

static bool all_zero(const char *p, const char *end)
{
    while (p < end && !*p)
        p++;
    return p == end;
}

bool slu_encoded_valid(const slu_schema *s, const void *bytes, size_t n)
{
    const uint32_t slots = slu_schema_slots(s), numbers = slu_schema_numbers(s);
    slu_encoded head;
    if (n < sizeof head)
        return false;
    memcpy(&head, bytes, sizeof head);
    if (head.bytes != n || head.slots != slots || n != encoded_bytes(slots, head.total, numbers))
        return false;
    const char *counts = (const char *)bytes + sizeof head;
    const char *ids = counts + padded((size_t)slots * 2);
    const char *floats = ids + (size_t)head.total * 8;
    return counts_valid(s, counts, head.total) && all_zero(counts + (size_t)slots * 2, ids) &&
           ids_valid(ids, head.total) && numbers_valid(floats, numbers) &&
           all_zero(floats + (size_t)numbers * 4, (const char *)bytes + n);
}
