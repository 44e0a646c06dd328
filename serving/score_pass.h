/* serving/score_pass.h - some candidates of a request through encoder, rows and network, by one thread.
 *
 * What the candidates of a request share (user and context) is encoded, looked up and pooled once, by the
 * thread that has the request, in its scratch. Passes over ranges of its candidates read that and nothing
 * else of it, so that several threads can do them at once, each in scratch of its own. A candidate's
 * probabilities have the same bits in whatever pass it is, and whoever does it.
 *
 * Hundreds of candidates are one pass: the item rows of a slot are looked up together, with their cache
 * misses in flight at the same time, and the network runs on all of them. Nothing is allocated once it is
 * warm. */
#pragma once
#include "feature/encode.h"
#include "model/net_int8.h"
#include "serving/model_table.h"
#include "serving/score.h"
#include "serving/score_job.h"

/* Candidates of one pass: enough to fill the matrix kernels, few enough that their activations stay in the
 * second-level cache. */
#define SCORE_PASS 256u

/* What schema, network and options say, once and for all. Read by all threads. */
typedef struct score_plan {
    slu_scorer_config c;
    uint32_t K, T, slots, fields;
    uint32_t first, width; /* columns of x that are the same for all candidates and are multiplied apart */
    bool rest;             /* there are such columns beside them */
    uint32_t *looked_up;   /* (n_looked_up) slots that are not shared and have a table */
    uint32_t n_looked_up;
    size_t stride;      /* bytes of an encoded record */
    slu_net_int8 *int8; /* NULL: fp32 */
    size_t packed;      /* floats of fp32 weights in what is derived; those in integers follow */
} score_plan;

/* False: out of memory. Clear is fine in every case. */
bool score_plan_init(score_plan *p, const slu_scorer_config *config);
void score_plan_clear(score_plan *p);
/* What each version's parameters are to bring along (slu_model_derive; |ctx| is the plan): weights as the
 * products want them, behind each other at cache lines. */
size_t score_plan_derived(const score_plan *p);
void score_plan_derive(void *plan, const float *dense, float *derived);

typedef struct score_scratch score_scratch; /* of one thread */

score_scratch *score_scratch_new(const score_plan *p); /* NULL: out of memory */
void score_scratch_free(score_scratch *t);             /* NULL is fine */
slu_model_reader *score_scratch_reader(score_scratch *t);

/* One request that is being scored: written by its owner before the first pass, read by all passes. */
typedef struct score_scored {
    const score_plan *plan;
    score_scratch *owner; /* inside a read section until the last pass is over */
    slu_model_view view;  /* of that section */
    score_job *job;
} score_scored;

/* What all candidates share, into the owner's scratch. @thread owner */
void score_share(const score_scored *r);
/* Whether passes may be done in any order, by any thread: each column brings one value for each candidate.
 * Otherwise the owner does them in order. */
bool score_any_order(const score_scored *r);
/* Candidates [first, first + B), B <= SCORE_PASS, in the scratch |t|: |*conditional| and |*entire| (B, T) are
 * theirs until its next pass. */
void score_pass(const score_scored *r, score_scratch *t, uint32_t first, uint32_t B,
                const float **conditional, const float **entire);
