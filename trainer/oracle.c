#include "trainer/oracle.h"
#include "base/arena.h"
#include "feature/schema.h"
#include <stdlib.h>

/* Open addressing, power of two, at most half full. An impression is kept with its time so that steps can be
 * checked against their windows; a step that comes before its impression waits in |early|. */
typedef struct seen {
    slu_hash128 key;
    int64_t time_us; /* 0: free */
    uint32_t steps;
} seen;

typedef struct early_step {
    slu_hash128 impression;
    int64_t time_us;
    uint32_t step;
} early_step;

struct slu_oracle {
    seen *table; /* (mask + 1) */
    uint64_t mask, n;
    early_step *early; /* (n_early); only while reading */
    size_t n_early, cap_early;
    uint64_t events;
    const slu_options *options;
};

static seen *find(const slu_oracle *o, slu_hash128 key)
{
    for (uint64_t i = key.lo & o->mask;; i = (i + 1) & o->mask) {
        seen *s = &o->table[i];
        if (s->time_us == 0 || (s->key.lo == key.lo && s->key.hi == key.hi))
            return s;
    }
}

static int grow(slu_oracle *o, slu_error *err)
{
    slu_oracle bigger = {.mask = 2 * (o->mask + 1) - 1};
    bigger.table = calloc(bigger.mask + 1, sizeof *bigger.table);
    if (!bigger.table)
        return slu_fail(err, SLU_ENOMEM, "out of memory reading labels ahead (%llu impressions)",
                        (unsigned long long)o->n);
    for (uint64_t i = 0; o->table && i <= o->mask; i++)
        if (o->table[i].time_us)
            *find(&bigger, o->table[i].key) = o->table[i];
    free(o->table);
    o->table = bigger.table;
    o->mask = bigger.mask;
    return 0;
}

static void apply_step(slu_oracle *o, slu_hash128 key, uint32_t step, int64_t time_us)
{
    seen *s = find(o, key);
    if (!s->time_us || time_us < s->time_us || time_us - s->time_us > o->options->steps[step].window_us)
        return;
    s->steps |= 1u << step;
}

static int keep_early(slu_oracle *o, slu_hash128 key, uint32_t step, int64_t time_us, slu_error *err)
{
    if (o->n_early == o->cap_early) {
        size_t cap = o->cap_early ? 2 * o->cap_early : 1024;
        early_step *early = realloc(o->early, cap * sizeof *early);
        if (!early)
            return slu_fail(err, SLU_ENOMEM, "out of memory reading labels ahead");
        o->early = early;
        o->cap_early = cap;
    }
    o->early[o->n_early++] = (early_step){key, time_us, step};
    return 0;
}

static int take_event(slu_oracle *o, const slu_event *e, slu_error *err)
{
    slu_hash128 key = slu_hash_128(e->impression_id.p, e->impression_id.n, 0);
    seen *s = find(o, key);
    if (e->kind == SLU_EVENT_STEP) {
        if (!s->time_us)
            return keep_early(o, key, e->step, e->time_us, err);
        apply_step(o, key, e->step, e->time_us);
        return 0;
    }
    if (s->time_us)
        return 0; /* a duplicate: the first one counts */
    *s = (seen){key, e->time_us, 0};
    return ++o->n * 2 > o->mask ? grow(o, err) : 0;
}

static int take_record(slu_oracle *o, const slu_schema *schema, const slu_record *r, slu_arena *arena,
                       slu_error *err)
{
    if (r->kind != SLU_RECORD_EVENT)
        return 0;
    o->events++;
    if (r->dead)
        return 0;
    slu_event decoded;
    const slu_event *e = r->event;
    if (!e) {
        slu_dead_reason why;
        slu_error ignored = SLU_ERROR_INIT; /* the pipeline will say it */
        slu_arena_reset(arena);
        if (slu_event_decode(schema, r->encoding, o->options->training.unknown_features, r->bytes, r->len,
                             arena, &decoded, &why, &ignored))
            return 0;
        e = &decoded;
    }
    return take_event(o, e, err);
}

static int read_all(slu_oracle *o, slu_source *source, const slu_schema *schema, slu_arena *arena,
                    slu_error *err)
{
    slu_record r;
    int rc;
    while ((rc = slu_source_next(source, 1000, &r, err)) >= 0) {
        rc = rc ? take_record(o, schema, &r, arena, err) : 0;
        if (rc)
            return rc;
    }
    return rc == SLU_ECLOSED ? 0 : rc;
}

int slu_oracle_read(slu_source *source, const slu_options *options, const slu_schema *schema, slu_oracle **op,
                    slu_error *err)
{
    *op = NULL;
    slu_oracle *o = calloc(1, sizeof *o);
    slu_arena *arena = slu_arena_new(0, 0);
    int rc = o && arena ? 0 : slu_fail(err, SLU_ENOMEM, "out of memory reading labels ahead");
    if (!rc) {
        o->mask = (1 << 16) - 1;
        o->options = options;
        o->table = calloc(o->mask + 1, sizeof *o->table);
        rc = o->table ? 0 : slu_fail(err, SLU_ENOMEM, "out of memory reading labels ahead");
    }
    if (!rc)
        rc = read_all(o, source, schema, arena, err);
    slu_arena_free(arena);
    if (rc) {
        slu_oracle_free(o);
        return rc;
    }
    for (size_t i = 0; i < o->n_early; i++)
        apply_step(o, o->early[i].impression, o->early[i].step, o->early[i].time_us);
    free(o->early);
    o->early = NULL;
    *op = o;
    return 0;
}

void slu_oracle_free(slu_oracle *o)
{
    if (!o)
        return;
    free(o->table);
    free(o->early);
    free(o);
}

uint32_t slu_oracle_steps(const slu_oracle *o, slu_hash128 impression)
{
    const seen *s = find(o, impression);
    return s->time_us ? s->steps : 0;
}

uint64_t slu_oracle_events(const slu_oracle *o)
{
    return o->events;
}
