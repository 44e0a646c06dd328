/* sim/exchange.h - the world's events in the order in which they arrive: impressions, what comes of them, and
 * the accidents of a real stream (duplicates, disorder, lateness, orphans).
 *
 * A function of its options: the same seed and start give the same events. Time is event time; who sends them
 * decides how fast it passes. @thread one */
#pragma once
#include "feature/schema.h"
#include "sim/world.h"

typedef struct slu_exchange_opts {
    uint64_t seed;
    int64_t start_us;  /* event time of the beginning */
    int64_t span_us;   /* impressions are spread over this time */
    int64_t settle_us; /* after the last impression, steps are still told for so long; later ones never */
    uint64_t impressions;
    double duplicates; /* share of events that arrive twice */
    double disorder;   /* share of events that arrive up to two minutes late */
    double late;       /* share of events that arrive three days late */
    double orphans;    /* steps without any impression, per impression */
} slu_exchange_opts;

typedef struct slu_exchange_counts {
    uint64_t impressions, steps[SLU_WORLD_STEPS]; /* real ones, each once */
    uint64_t duplicates, disordered, late, orphans;
    int64_t time_us; /* event time reached */
} slu_exchange_counts;

typedef struct slu_exchange slu_exchange;
/* |world| and |schema| must outlive it; the world's recent clicks change. The funnel's first step is the
 * click, the second, if there is one, the conversion. Fields of the schema that the world does not know stay
 * missing. Returns 0, SLU_ECONFIG (more than two steps, no field known, rates outside 0..1) or SLU_ENOMEM. */
int slu_exchange_new(const slu_exchange_opts *opts, slu_world *world, const slu_schema *schema,
                     slu_exchange **xp, slu_error *err);
void slu_exchange_free(slu_exchange *x); /* NULL is fine */

/* The next event to arrive; false at the end. It is valid until the next call. */
bool slu_exchange_next(slu_exchange *x, slu_event *out);
slu_exchange_counts slu_exchange_count(const slu_exchange *x);

/* Puts what is known about |s| where |schema|'s fields are: fields (slu_schema_fields), valid as long as
 * |values|. */
void slu_exchange_fields(const slu_world *w, const slu_schema *schema, const slu_showing *s,
                         slu_world_values *values, slu_values *fields);
