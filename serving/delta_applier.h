/* serving/delta_applier.h - turns messages of the delta topic (proto/sluice/v1/delta.proto) into a model.
 *
 * The pure core of the subscriber: bytes in, changes of a model table out; no clock, no I/O. A version takes
 * effect whole: the chunks of a DELTA are kept until the last one is there and are checked before the first
 * row changes; a BASE is built beside the serving model and swapped in by its last chunk. A chunk 0 always
 * starts anew, so what a trainer publishes again after a crash is harmless.
 *
 * A DELTA without a previous version stands on the empty model, so it is taken like a BASE. Another lineage
 * (a trainer that began with an empty store) counts as version 0: the model that is there keeps serving until
 * a BASE of that lineage is complete.
 *
 * A trainer that was restored from a backup repeats version numbers of its lineage: a BASE that was committed
 * after what serves is taken though its number is not higher.
 *
 * A version says what the model adds up to after it (row sum and digest of the dense vector, base/digest.h).
 * It is compared before anybody sees the version: one that does not come out is taken back whole, a base as
 * well as a delta, and the model that serves stays until a base comes out. So what serves is what the trainer
 * had at that version, to the bit, or it is older.
 *
 * What changes is also told to a sink, so that a subscriber can write it into its store. @thread one, the
 * writer of the table */
#pragma once
#include "feature/schema.h"
#include "serving/model_table.h"

typedef struct slu_delta_applier slu_delta_applier;

/* Version that a model is at. */
typedef struct slu_delta_position {
    uint64_t lineage, version;
    int64_t learned_through_us, committed_us;
} slu_delta_position;

/* Called while a message is applied; any member may be NULL. Rows between begin and published change the
 * model, or, with |base|, are all of a new one; abandon instead of published means that they count for
 * nothing. */
typedef struct slu_delta_sink {
    void (*begin)(void *ctx, bool base);
    void (*abandon)(void *ctx);
    void (*row)(void *ctx, uint32_t table, uint64_t id, const float *v); /* (served) NULL: deleted */
    void (*published)(void *ctx, const slu_delta_position *now, const float *dense); /* NULL: unchanged */
    void *ctx;
} slu_delta_sink;

/* Messages that were passed over because they bring nothing new, and so on. */
typedef struct slu_delta_counts {
    uint64_t applied;    /* versions */
    uint64_t skipped;    /* chunks of versions that are known already */
    uint64_t gaps;       /* times that a base had to be waited for */
    uint64_t mismatches; /* versions that did not add up to what the trainer says */
    uint64_t refused;    /* messages of another schema, malformed, or over a limit */
} slu_delta_counts;

/* Both must outlive it. NULL: out of memory. */
slu_delta_applier *slu_delta_applier_new(const slu_schema *schema, slu_model_table *table);
void slu_delta_applier_free(slu_delta_applier *a); /* NULL is fine; a base under construction is dropped */
/* Bytes of a delta's chunks that are kept until it is whole: a larger one waits for the next base. */
void slu_delta_applier_limit(slu_delta_applier *a, uint64_t bytes);
void slu_delta_applier_sink(slu_delta_applier *a, const slu_delta_sink *sink);
/* The table holds this version already (loaded from a store). */
void slu_delta_applier_resume(slu_delta_applier *a, const slu_delta_position *at);

/* Takes one message. Returns 1 when a version became current, 0 when more chunks are due or the message
 * brought nothing new, or: SLU_EFORMAT (not a usable message), SLU_ESCHEMA (the message names the first
 * difference), SLU_EAGAIN (gap: waiting for a base), SLU_ECORRUPT (sums differ: the message has both; waiting
 * for a base), SLU_ELIMIT, SLU_ENOMEM. After an error the model that serves is a whole version still, and the
 * next base heals everything. */
int slu_delta_apply(slu_delta_applier *a, const void *message, size_t len, slu_error *err);

slu_delta_position slu_delta_applier_position(const slu_delta_applier *a);
/* The newest version whose sums were compared and are equal; 0: none yet. */
uint64_t slu_delta_applier_verified(const slu_delta_applier *a);
slu_delta_counts slu_delta_applier_counts(const slu_delta_applier *a);
/* True between the chunks of a version. */
bool slu_delta_applier_midway(const slu_delta_applier *a);
