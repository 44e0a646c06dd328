#include "sim/question.h"
#include "feature/value.h"
#include "sluice/v1/score.pb-c.h"
#include <string.h>

/* One of the three lists of a Column or SharedFeature. */
typedef struct list {
    slu_arena *arena;
    char **text;
    int64_t *integers;
    double *numbers;
    size_t n;
    int kind;  /* of slu_value; mixed values are told as text */
    bool full; /* out of memory */
} list;

/* The one kind of the values of |field| over all candidates, or text when they differ. */
static int common_kind(const slu_values *const *fields, uint32_t n, uint32_t field, size_t *values)
{
    int kind = -1;
    *values = 0;
    for (uint32_t c = 0; c < n; c++) {
        const slu_values *v = &fields[c][field];
        *values += v->n;
        for (uint32_t i = 0; i < v->n; i++)
            kind = kind < 0 || kind == (int)v->v[i].kind ? (int)v->v[i].kind : SLU_VALUE_TEXT;
    }
    return kind < 0 ? SLU_VALUE_TEXT : kind;
}

static list list_of(slu_arena *arena, int kind, size_t values)
{
    list l = {.arena = arena, .kind = kind};
    void *room = slu_arena_alloc(arena, (values + 1) * 8);
    l.full = !room;
    if (kind == SLU_VALUE_INTEGER)
        l.integers = room;
    else if (kind == SLU_VALUE_NUMBER)
        l.numbers = room;
    else
        l.text = room;
    return l;
}

static void add(list *l, const slu_values *values)
{
    for (uint32_t i = 0; i < values->n && !l->full; i++) {
        const slu_value *v = &values->v[i];
        if (l->kind == SLU_VALUE_INTEGER) {
            l->integers[l->n] = v->v.integer;
        } else if (l->kind == SLU_VALUE_NUMBER) {
            l->numbers[l->n] = v->v.number;
        } else {
            char scratch[SLU_VALUE_SCRATCH];
            slu_span text = slu_value_text(v, scratch);
            l->text[l->n] = slu_arena_strndup(l->arena, text.p, text.n);
            l->full = !l->text[l->n];
        }
        l->n += !l->full;
    }
}

#define PUT_LIST(message, l)                                                                                 \
    do {                                                                                                     \
        (message)->text = (l).text, (message)->n_text = (l).text ? (l).n : 0;                                \
        (message)->integers = (l).integers, (message)->n_integers = (l).integers ? (l).n : 0;                \
        (message)->numbers = (l).numbers, (message)->n_numbers = (l).numbers ? (l).n : 0;                    \
    } while (0)

static Sluice__V1__SharedFeature *make_shared(const slu_schema *s, uint32_t field,
                                              const slu_values *const *fields, slu_arena *arena)
{
    size_t values;
    int kind = common_kind(fields, 1, field, &values);
    list l = list_of(arena, kind, values);
    Sluice__V1__SharedFeature *m = slu_arena_alloc(arena, sizeof *m);
    if (!m || l.full)
        return NULL;
    sluice__v1__shared_feature__init(m);
    m->name = (char *)slu_schema_field_name(s, field);
    add(&l, &fields[0][field]);
    PUT_LIST(m, l);
    return l.full ? NULL : m;
}

static Sluice__V1__Column *make_column(const slu_schema *s, uint32_t field, const slu_values *const *fields,
                                       uint32_t n, slu_arena *arena)
{
    size_t values;
    int kind = common_kind(fields, n, field, &values);
    list l = list_of(arena, kind, values);
    Sluice__V1__Column *m = slu_arena_alloc(arena, sizeof *m);
    uint32_t *lengths = slu_arena_alloc(arena, n * sizeof *lengths);
    bool uneven = false;
    if (!m || !lengths || l.full)
        return NULL;
    sluice__v1__column__init(m);
    m->name = (char *)slu_schema_field_name(s, field);
    for (uint32_t c = 0; c < n; c++) {
        lengths[c] = fields[c][field].n;
        uneven |= lengths[c] != 1;
        add(&l, &fields[c][field]);
    }
    PUT_LIST(m, l);
    if (uneven)
        m->lengths = lengths, m->n_lengths = n;
    return l.full ? NULL : m;
}

int slu_question_pack(const slu_schema *schema, const slu_values *const *fields, uint32_t n, slu_arena *arena,
                      slu_buf *out, slu_error *err)
{
    uint32_t n_fields = slu_schema_fields(schema);
    Sluice__V1__ScoreRequest request = SLUICE__V1__SCORE_REQUEST__INIT;
    request.candidates = n;
    request.shared = slu_arena_alloc(arena, (n_fields + 1) * sizeof *request.shared);
    request.columns = slu_arena_alloc(arena, (n_fields + 1) * sizeof *request.columns);
    bool full = !request.shared || !request.columns;
    for (uint32_t f = 0; f < n_fields && !full; f++) {
        if (slu_schema_field_side(schema, f) == SLU_ITEM)
            full = !(request.columns[request.n_columns++] = make_column(schema, f, fields, n, arena));
        else if (fields[0][f].n) /* one that is missing need not be named */
            full = !(request.shared[request.n_shared++] = make_shared(schema, f, fields, arena));
    }
    if (full)
        return slu_fail(err, SLU_ENOMEM, "question: out of memory for %u candidates", n);
    size_t size = sluice__v1__score_request__get_packed_size(&request);
    out->len += sluice__v1__score_request__pack(&request, slu_buf_reserve(out, size));
    return 0;
}

slu_values *slu_question_keep(const slu_schema *schema, const slu_values *fields, slu_arena *arena)
{
    uint32_t n_fields = slu_schema_fields(schema);
    slu_values *copy = slu_arena_alloc(arena, n_fields * sizeof *copy);
    for (uint32_t f = 0; copy && f < n_fields; f++) {
        slu_value *v = slu_arena_alloc(arena, (fields[f].n + 1) * sizeof *v);
        if (!v)
            return NULL;
        for (uint32_t i = 0; i < fields[f].n; i++)
            v[i] = fields[f].v[i];
        for (uint32_t i = 0; i < fields[f].n; i++)
            if (v[i].kind == SLU_VALUE_TEXT &&
                !(v[i].v.text.p = slu_arena_strndup(arena, v[i].v.text.p, v[i].v.text.n)))
                return NULL;
        copy[f] = (slu_values){v, fields[f].n};
    }
    return copy;
}
