#include "serving/score_job.h"
#include "base/metrics.h"
#include "base/text.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- names ---- */

bool score_names_init(score_names *n, const slu_options *options, const slu_schema *schema)
{
    uint32_t fields = slu_schema_fields(schema), steps = slu_schema_steps(schema);
    slu_buf tasks = SLU_BUF_INIT;

    n->options = options;
    n->schema = schema;
    n->ignored = slu_counter("sluice_score_unknown_features_total", NULL,
                             "Features of score requests that are not in the config and were ignored.");
    n->fields = calloc(fields + 1, sizeof *n->fields);
    for (uint32_t i = 0; n->fields && i < fields; i++)
        n->fields[i] = slu_schema_field_name(schema, i);
    for (uint32_t i = 0; i < steps; i++) {
        if (i)
            slu_put_bytes(&tasks, ", ", 2);
        slu_put_bytes(&tasks, slu_schema_step_name(schema, i), strlen(slu_schema_step_name(schema, i)));
    }
    slu_put_u8(&tasks, 0);
    n->tasks = (char *)tasks.data;
    return n->fields != NULL;
}

void score_names_clear(score_names *n)
{
    free(n->fields);
    free(n->tasks);
}

/* A name from outside as it may stand in a message: cut, and harmless to a terminal. */
#define PRINTABLE 68
static const char *printable(slu_span name, char out[PRINTABLE])
{
    size_t n = name.n < PRINTABLE - 4 ? name.n : PRINTABLE - 4;
    for (size_t i = 0; i < n; i++)
        out[i] = name.p[i] >= ' ' && name.p[i] <= '~' ? name.p[i] : '?';
    memcpy(out + n, n < name.n ? "..." : "", n < name.n ? 4 : 1);
    return out;
}

/* ---- reading ---- */

/* A request being checked. */
typedef struct reading {
    score_job *job;
    const score_names *names;
    slu_arena *arena;
    uint64_t seen[(SLU_MAX_FEATURES + 63) / 64]; /* fields that came already */
    slu_error *err;
} reading;

/* "feature" or "column", for messages. */
static const char *noun(bool column)
{
    return column ? "column" : "feature";
}

static int no_room(slu_error *err)
{
    return slu_fail(err, SLU_ELIMIT,
                    "the request needs more memory than a call may take; send fewer candidates");
}

static int unknown_feature(reading *r, slu_span name, bool column)
{
    char shown[PRINTABLE];
    if (r->names->options->serving.unknown_features == SLU_UNKNOWN_IGNORE) {
        slu_metric_add(r->names->ignored, 1);
        return 0;
    }
    printable(name, shown);
    const char *near = slu_text_nearest(shown, r->names->fields);
    return slu_fail(r->err, SLU_EINVAL,
                    "%s '%s' is not in the scorer's config%s%s%s; add it there, leave it out, or set "
                    "serving.unknown_features: ignore",
                    noun(column), shown, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* Finds the field that |f| is for. *field is -1 when it is to be passed over. */
static int find_field(reading *r, const score_feature *f, bool column, int *field)
{
    char shown[PRINTABLE];
    *field = -1;
    if (f->name.n == 0)
        return slu_fail(r->err, SLU_EINVAL, "a %s has no name; give it the name of a feature's source",
                        noun(column));
    int i = slu_schema_field_find(r->names->schema, f->name.p, f->name.n);
    if (i < 0)
        return unknown_feature(r, f->name, column);
    if (r->seen[i / 64] >> (i % 64) & 1)
        return slu_fail(r->err, SLU_EINVAL,
                        "feature '%s' is given twice; send it once, in shared or in columns",
                        printable(f->name, shown));
    r->seen[i / 64] |= 1ull << (i % 64);
    if (f->lists > 1)
        return slu_fail(r->err, SLU_EINVAL,
                        "%s '%s' uses more than one of text, integers and numbers; use one", noun(column),
                        printable(f->name, shown));
    *field = i;
    return 0;
}

/* Up to 16 bytes of ASCII without NUL: valid, and what most texts are. */
static inline bool short_ascii(slu_span t)
{
    const uint64_t high = 0x8080808080808080u, one = 0x0101010101010101u;
    uint64_t a = one, b = one;
    if (t.n > 16)
        return false;
    if (t.n >= 8) {
        memcpy(&a, t.p, 8);
        memcpy(&b, t.p + t.n - 8, 8);
    } else if (t.n >= 4) {
        memcpy(&a, t.p, 4);
        memcpy((char *)&a + 4, t.p + t.n - 4, 4);
    } else {
        for (size_t i = 0; i < t.n; i++)
            ((char *)&a)[i] = t.p[i];
    }
    return !((a | (a - one) | b | (b - one)) & high);
}

static int check_values(reading *r, const score_feature *f, bool column)
{
    char shown[PRINTABLE];
    for (uint32_t i = 0; i < f->n; i++) {
        const slu_value *v = &f->v[i];
        if (v->kind == SLU_VALUE_TEXT && short_ascii(v->v.text))
            continue;
        if (v->kind == SLU_VALUE_TEXT && !slu_utf8_valid(v->v.text.p, v->v.text.n))
            return slu_fail(r->err, SLU_EINVAL, "%s '%s': value %u is not valid UTF-8 without NUL",
                            noun(column), printable(f->name, shown), i);
        if (v->kind == SLU_VALUE_NUMBER && !isfinite(v->v.number))
            return slu_fail(r->err, SLU_EINVAL,
                            "%s '%s': value %u is not a finite number; leave it out if it is missing",
                            noun(column), printable(f->name, shown), i);
    }
    return 0;
}

static int too_many(reading *r, const score_feature *f, bool column, uint32_t n)
{
    char shown[PRINTABLE];
    return slu_fail(r->err, SLU_EINVAL, "%s '%s' has %u values where at most %u are taken", noun(column),
                    printable(f->name, shown), n, SLU_MAX_VALUES);
}

static int read_shared(reading *r, const score_feature *f)
{
    int field;
    int rc = find_field(r, f, false, &field);
    if (rc || field < 0)
        return rc;
    if (f->n > SLU_MAX_VALUES)
        return too_many(r, f, false, f->n);
    r->job->fields[field] = (slu_values){f->v, f->n};
    return check_values(r, f, false);
}

/* Without lengths there is a value for each candidate; with them, as many as they say. */
static int check_shape(reading *r, const score_feature *f)
{
    char shown[PRINTABLE];
    uint32_t candidates = r->job->request.candidates;
    uint64_t sum = 0;

    if (f->n_lengths == 0) {
        if (f->n != candidates)
            return slu_fail(
                r->err, SLU_EINVAL,
                "column '%s' has %u values for %u candidates; send one each, or say with lengths how many "
                "each one has",
                printable(f->name, shown), f->n, candidates);
        return 0;
    }
    if (f->n_lengths != candidates)
        return slu_fail(r->err, SLU_EINVAL, "column '%s' has %u lengths for %u candidates",
                        printable(f->name, shown), f->n_lengths, candidates);
    for (uint32_t i = 0; i < candidates; i++) {
        if (f->lengths[i] > SLU_MAX_VALUES)
            return too_many(r, f, true, f->lengths[i]);
        sum += f->lengths[i];
    }
    if (sum != f->n)
        return slu_fail(r->err, SLU_EINVAL, "column '%s' has %u values but its lengths sum to %llu",
                        printable(f->name, shown), f->n, (unsigned long long)sum);
    return 0;
}

static const char *side_name(slu_side side)
{
    return side == SLU_USER ? "user" : "context";
}

static int read_column(reading *r, const score_feature *f)
{
    char shown[PRINTABLE];
    int field;
    int rc = find_field(r, f, true, &field);
    if (rc || field < 0)
        return rc;
    slu_side side = slu_schema_field_side(r->names->schema, (uint32_t)field);
    if (side != SLU_ITEM)
        return slu_fail(r->err, SLU_EINVAL,
                        "column '%s' is a %s feature, the same for all candidates; send it once, in shared",
                        printable(f->name, shown), side_name(side));
    rc = check_shape(r, f);
    if (!rc)
        rc = check_values(r, f, true);
    r->job->columns[r->job->n_columns++] =
        (score_column){(uint32_t)field, f->v, f->n_lengths ? f->lengths : NULL};
    r->job->plain &= !f->n_lengths;
    return rc;
}

static int read_tasks(reading *r)
{
    char shown[PRINTABLE];
    score_job *job = r->job;
    uint32_t steps = slu_schema_steps(r->names->schema), seen = 0;

    if (job->request.n_tasks == 0) {
        job->n_tasks = steps;
        for (uint32_t i = 0; i < steps; i++)
            job->tasks[i] = i;
        return 0;
    }
    for (uint32_t i = 0; i < job->request.n_tasks; i++) {
        slu_span name = job->request.tasks[i];
        int step = slu_schema_step_find(r->names->schema, name.p, name.n);
        if (step < 0)
            return slu_fail(r->err, SLU_EINVAL, "task '%s' is not a step of the funnel; known tasks: %s",
                            printable(name, shown), r->names->tasks);
        if (seen >> step & 1)
            return slu_fail(r->err, SLU_EINVAL, "task '%s' is asked for twice", printable(name, shown));
        seen |= 1u << step;
        job->tasks[job->n_tasks++] = (uint32_t)step;
    }
    return 0;
}

static int check_candidates(reading *r)
{
    uint32_t n = r->job->request.candidates, most = r->names->options->serving.max_candidates;
    if (n == 0)
        return slu_fail(r->err, SLU_EINVAL,
                        "the request has no candidates; set candidates to how many there are, at least 1");
    if (n > most)
        return slu_fail(r->err, SLU_EINVAL,
                        "the request has %u candidates, this scorer takes at most %u; split it, or raise "
                        "serving.max_candidates",
                        n, most);
    return 0;
}

int score_job_read(score_job *job, const score_names *names, const void *bytes, size_t len, slu_arena *arena,
                   slu_error *err)
{
    reading r = {.job = job, .names = names, .arena = arena, .err = err};
    job->n_columns = job->n_tasks = 0;
    job->plain = true;
    int rc = score_request_decode(bytes, len, arena, &job->request, err);
    if (rc)
        return rc;
    rc = check_candidates(&r);
    if (!rc)
        rc = read_tasks(&r);
    if (rc)
        return rc;
    job->fields = slu_arena_zalloc(arena, (slu_schema_fields(names->schema) + 1) * sizeof *job->fields);
    job->columns = slu_arena_alloc(arena, (job->request.n_columns + 1) * sizeof *job->columns);
    if (!job->fields || !job->columns)
        return no_room(err);
    for (uint32_t i = 0; i < job->request.n_shared && !rc; i++)
        rc = read_shared(&r, &job->request.shared[i]);
    for (uint32_t i = 0; i < job->request.n_columns && !rc; i++)
        rc = read_column(&r, &job->request.columns[i]);
    return rc;
}

void score_job_next(score_job *job, slu_values *fields)
{
    for (uint32_t i = 0; i < job->n_columns; i++) {
        score_column *c = &job->columns[i];
        uint32_t n = c->lengths ? *c->lengths++ : 1;
        fields[c->field] = (slu_values){c->next, n};
        c->next += n;
    }
}

const slu_value *score_job_column(const score_job *job, uint32_t field)
{
    for (uint32_t i = 0; i < job->n_columns; i++)
        if (job->columns[i].field == field)
            return job->columns[i].next;
    return NULL;
}

/* ---- the answer ---- */

enum { VARINT = 0, BYTES = 2 };
#define TAG(field, type) ((uint8_t)((field) << 3 | (type)))

static size_t varint_size(uint64_t v)
{
    size_t n = 1;
    while (v >>= 7)
        n++;
    return n;
}

/* Room for a packed list of floats; returns where it begins. */
static size_t lay_out_floats(slu_buf *out, uint8_t tag, size_t bytes)
{
    slu_put_u8(out, tag);
    slu_put_varint(out, bytes);
    size_t at = out->len;
    slu_buf_reserve(out, bytes);
    out->len += bytes;
    return at;
}

void score_answer_begin(score_answer *a, const score_job *job, const score_names *names, slu_buf *out)
{
    size_t bytes = (size_t)job->request.candidates * sizeof(float);

    a->out = out;
    a->n_tasks = job->n_tasks;
    for (uint32_t i = 0; i < job->n_tasks; i++) {
        const char *name = slu_schema_step_name(names->schema, job->tasks[i]);
        size_t n = strlen(name);
        size_t list = 1 + varint_size(bytes) + bytes;
        a->at[i].task = job->tasks[i];
        slu_put_u8(out, TAG(1, BYTES)); /* tasks */
        slu_put_varint(out, 1 + varint_size(n) + n + 2 * list);
        slu_put_u8(out, TAG(1, BYTES)); /* task */
        slu_put_str(out, name, n);
        a->at[i].conditional = lay_out_floats(out, TAG(2, BYTES), bytes);
        a->at[i].entire = lay_out_floats(out, TAG(3, BYTES), bytes);
    }
}

void score_answer_put(score_answer *a, const float *conditional, const float *entire, uint32_t first,
                      uint32_t B, uint32_t T)
{
    for (uint32_t i = 0; i < a->n_tasks; i++) {
        uint8_t *c = a->out->data + a->at[i].conditional + first * sizeof(float);
        uint8_t *e = a->out->data + a->at[i].entire + first * sizeof(float);
        for (uint32_t b = 0; b < B; b++) {
            memcpy(c + b * sizeof(float), &conditional[b * T + a->at[i].task], sizeof(float));
            memcpy(e + b * sizeof(float), &entire[b * T + a->at[i].task], sizeof(float));
        }
    }
}

static uint64_t zigzag(int64_t v)
{
    return ((uint64_t)v << 1) ^ (uint64_t)(v >> 63);
}

void score_answer_end(score_answer *a, uint64_t version, int64_t learned_through_us, int64_t now_us)
{
    int64_t freshness = learned_through_us ? now_us - learned_through_us : -1;
    if (learned_through_us && freshness < 0)
        freshness = 0; /* clocks of broker and scorer differ a little */
    slu_put_u8(a->out, TAG(2, VARINT));
    slu_put_varint(a->out, version);
    slu_put_u8(a->out, TAG(3, VARINT));
    slu_put_varint(a->out, zigzag(learned_through_us));
    slu_put_u8(a->out, TAG(4, VARINT));
    slu_put_varint(a->out, zigzag(freshness));
}
