#include "sim/exchange.h"
#include "base/clock.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DISORDER_US (120 * SLU_SECOND_US)
#define LATE_US     (3 * 86400 * SLU_SECOND_US)
enum { IMPRESSION = -1, ID = 48 };

/* Something on its way. Steps need only the user and item of the showing. */
typedef struct pending {
    int64_t arrive_us;
    uint64_t order;  /* of making: ties arrive in it */
    uint64_t number; /* of the impression */
    int64_t time_us; /* of the event */
    int step;        /* or IMPRESSION */
    bool again;      /* a duplicate */
    bool orphan, late;
    slu_showing s;
} pending;

struct slu_exchange {
    slu_exchange_opts o;
    slu_world *world;
    const slu_schema *schema;
    uint32_t steps;
    slu_rng rng;
    uint32_t run;  /* part of every id: another run, other ids */
    pending *heap; /* (n) least arrive_us first */
    size_t n, cap;
    uint64_t made, orders; /* impressions, pending things */
    int64_t next_us;       /* time of the next impression */
    slu_exchange_counts counts;
    slu_world_values values;
    slu_values *fields; /* (schema fields) */
    char id[ID + 16], impression_id[ID];
};

/* ---- heap ---- */

static bool sooner(const pending *a, const pending *b)
{
    return a->arrive_us != b->arrive_us ? a->arrive_us < b->arrive_us : a->order < b->order;
}

static void push(slu_exchange *x, pending p)
{
    p.order = x->orders++;
    if (x->n == x->cap) {
        x->cap = x->cap ? 2 * x->cap : 1024;
        x->heap = realloc(x->heap, x->cap * sizeof *x->heap);
        if (!x->heap) {
            fprintf(stderr, "sluice-sim: out of memory for %zu pending events\n", x->cap);
            abort();
        }
    }
    size_t i = x->n++;
    for (; i && sooner(&p, &x->heap[(i - 1) / 2]); i = (i - 1) / 2)
        x->heap[i] = x->heap[(i - 1) / 2];
    x->heap[i] = p;
}

static pending pop(slu_exchange *x)
{
    pending top = x->heap[0], last = x->heap[--x->n];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < x->n; i = child) {
        if (child + 1 < x->n && sooner(&x->heap[child + 1], &x->heap[child]))
            child++;
        if (!sooner(&x->heap[child], &last))
            break;
        x->heap[i] = x->heap[child];
    }
    if (x->n)
        x->heap[i] = last;
    return top;
}

/* ---- making events ---- */

static bool chance(slu_exchange *x, double p)
{
    return p > 0 && slu_rng_unit(&x->rng) < p;
}

/* When an event of |time_us| arrives: at once, mostly. */
static int64_t arrival(slu_exchange *x, int64_t time_us, bool *late)
{
    *late = chance(x, x->o.late);
    if (*late) {
        x->counts.late++;
        return time_us + LATE_US;
    }
    if (chance(x, x->o.disorder)) {
        x->counts.disordered++;
        return time_us + (int64_t)(slu_rng_unit(&x->rng) * (double)DISORDER_US);
    }
    return time_us;
}

static void push_step(slu_exchange *x, const pending *impression, int step, int64_t time_us)
{
    pending p = *impression;
    p.step = step;
    p.time_us = time_us;
    p.arrive_us = arrival(x, time_us, &p.late);
    push(x, p);
}

static int64_t impression_time(slu_exchange *x)
{
    double gap = (double)x->o.span_us / (double)x->o.impressions;
    return x->o.start_us + (int64_t)(((double)x->made + slu_rng_unit(&x->rng)) * gap);
}

/* Lets the world show one item, and decides now what will come of it. */
static pending make_impression(slu_exchange *x)
{
    pending p = {.step = IMPRESSION, .number = x->made++, .time_us = x->next_us};
    slu_outcome o;
    slu_world_show(x->world, &x->rng, p.time_us, &p.s);
    slu_world_outcome(x->world, &x->rng, &p.s, &o);
    if (o.clicked)
        push_step(x, &p, 0, p.time_us + o.click_delay_us);
    if (o.converted && x->steps > 1)
        push_step(x, &p, 1, p.time_us + o.click_delay_us + o.conversion_delay_us);
    if (chance(x, x->o.orphans)) {
        pending orphan = p;
        orphan.orphan = true;
        push_step(x, &orphan, 0, p.time_us);
    }
    p.arrive_us = arrival(x, p.time_us, &p.late);
    if (x->made < x->o.impressions)
        x->next_us = impression_time(x);
    return p;
}

/* ---- telling them ---- */

static void count(slu_exchange *x, const pending *p)
{
    if (p->arrive_us > x->counts.time_us)
        x->counts.time_us = p->arrive_us;
    if (p->again)
        x->counts.duplicates++;
    else if (p->orphan)
        x->counts.orphans++;
    else if (p->step == IMPRESSION)
        x->counts.impressions++;
    else
        x->counts.steps[p->step]++;
}

void slu_exchange_fields(const slu_world *w, const slu_schema *schema, const slu_showing *s,
                         slu_world_values *values, slu_values *fields)
{
    slu_world_describe(w, s, values);
    for (uint32_t i = 0; i < slu_schema_fields(schema); i++) {
        fields[i] = (slu_values){NULL, 0};
        const char *name = slu_schema_field_name(schema, i);
        for (int k = 0; k < SLU_WORLD_FEATURES; k++)
            if (!strcmp(name, slu_world_feature_names[k]))
                fields[i] = values->field[k];
    }
}

static slu_span span_of(const char *s)
{
    return (slu_span){s, strlen(s)};
}

static void tell(slu_exchange *x, const pending *p, slu_event *out)
{
    const char *step = p->step == IMPRESSION ? "" : p->step == 0 ? "-click" : "-conversion";
    snprintf(x->impression_id, ID, "%s%08" PRIx32 "-%" PRIu64, p->orphan ? "o" : "", x->run, p->number);
    snprintf(x->id, sizeof x->id, "%s%s", x->impression_id, step);
    *out = (slu_event){.kind = p->step == IMPRESSION ? SLU_EVENT_IMPRESSION : SLU_EVENT_STEP,
                       .id = span_of(x->id),
                       .impression_id = span_of(x->impression_id),
                       .time_us = p->time_us};
    if (p->step == IMPRESSION) {
        slu_exchange_fields(x->world, x->schema, &p->s, &x->values, x->fields);
        out->fields = x->fields;
    } else {
        out->step = (uint32_t)p->step;
        if (p->step == 0 && !p->again && !p->orphan && !p->late)
            slu_world_clicked(x->world, p->s.user, p->s.item);
    }
    count(x, p);
    if (!p->again && chance(x, x->o.duplicates)) {
        pending twin = *p;
        twin.again = true;
        twin.arrive_us += (int64_t)(slu_rng_unit(&x->rng) * (double)DISORDER_US);
        push(x, twin);
    }
}

bool slu_exchange_next(slu_exchange *x, slu_event *out)
{
    while (x->made < x->o.impressions && (!x->n || x->heap[0].arrive_us > x->next_us)) {
        pending p = make_impression(x);
        if (p.arrive_us == p.time_us) { /* in time: no need to go through the heap */
            tell(x, &p, out);
            return true;
        }
        push(x, p);
    }
    if (!x->n || x->heap[0].arrive_us > x->o.start_us + x->o.span_us + x->o.settle_us)
        return false;
    pending p = pop(x);
    tell(x, &p, out);
    return true;
}

slu_exchange_counts slu_exchange_count(const slu_exchange *x)
{
    return x->counts;
}

static bool is_share(double x)
{
    return x >= 0 && x <= 1;
}

static int check_opts(const slu_exchange_opts *o, const slu_schema *schema, slu_error *err)
{
    if (!is_share(o->duplicates) || !is_share(o->disorder) || !is_share(o->late) || !is_share(o->orphans))
        return slu_fail(err, SLU_ECONFIG,
                        "rates of duplicates, disorder, late events and orphans are shares, 0 to 1");
    if (!o->impressions || o->span_us <= 0 || o->start_us <= 0 || o->settle_us < 0)
        return slu_fail(err, SLU_ECONFIG, "a run needs impressions, a start and a span of time");
    if (slu_schema_steps(schema) > SLU_WORLD_STEPS)
        return slu_fail(err, SLU_ECONFIG,
                        "funnel.steps: the simulator knows click and conversion, not %u steps",
                        slu_schema_steps(schema));
    for (int k = 0; k < SLU_WORLD_FEATURES; k++)
        if (slu_schema_field_find(schema, slu_world_feature_names[k], strlen(slu_world_feature_names[k])) >=
            0)
            return 0;
    return slu_fail(err, SLU_ECONFIG,
                    "features: none of them is one that the simulator has (user_id, item_id ...; see "
                    "examples/ads.yaml)");
}

int slu_exchange_new(const slu_exchange_opts *opts, slu_world *world, const slu_schema *schema,
                     slu_exchange **xp, slu_error *err)
{
    *xp = NULL;
    int rc = check_opts(opts, schema, err);
    if (rc)
        return rc;
    slu_exchange *x = calloc(1, sizeof *x);
    if (!x)
        return slu_fail(err, SLU_ENOMEM, "exchange: out of memory");
    x->fields = calloc(slu_schema_fields(schema), sizeof *x->fields);
    if (!x->fields) {
        slu_exchange_free(x);
        return slu_fail(err, SLU_ENOMEM, "exchange: out of memory");
    }
    x->o = *opts;
    x->world = world;
    x->schema = schema;
    x->steps = slu_schema_steps(schema);
    slu_rng_seed(&x->rng, slu_mix64(opts->seed ^ 0x65786368ULL));
    x->run = (uint32_t)slu_mix64(opts->seed ^ slu_mix64((uint64_t)opts->start_us));
    x->counts.time_us = opts->start_us;
    x->next_us = impression_time(x);
    *xp = x;
    return 0;
}

void slu_exchange_free(slu_exchange *x)
{
    if (!x)
        return;
    free(x->heap);
    free(x->fields);
    free(x);
}
