/* A commit's way: gathered by the owner, written by the writer, settled by the owner. Between the first and
 * the last the owner goes on learning, so whatever takes part in a commit tells what it flushed from what
 * changed since.
 *
 * Until a commit is settled nobody outside hears of it: not Kafka (outbox), not the consumer group (offsets),
 * not the metrics (version). There is one slu_commit, so there is one on its way; what it frees, memory and
 * the right to learn further ahead, comes with settling it. */
#include "trainer/pipeline_state.h"

static bool committed_once_a_second(slu_pipeline *p)
{
    int64_t now = slu_mono_us(p->config.clock);
    bool due = now - p->metrics_at_us >= SLU_SECOND_US;
    if (due)
        p->metrics_at_us = now;
    return due;
}

static int begin(slu_pipeline *p, slu_error *err)
{
    int64_t start = slu_mono_us(p->config.clock);
    bool acks = slu_pipeline_collect_acks(p);
    if (!p->changed && !acks)
        return 0;
    int rc = slu_pipeline_gather(p, err);
    if (rc)
        return slu_fail(err, rc, "commit of version %llu failed", (unsigned long long)p->version);
    slu_pipeline_facts(p, &p->flying);
    p->changed = false;
    p->events_since_commit = 0;
    p->gather_us = slu_mono_us(p->config.clock) - start;
    p->flight = SLU_FLIGHT_WRITING;
    slu_writer_begin(p->writer, p->commit);
    return 0;
}

static void settle(slu_pipeline *p)
{
    slu_commit_facts facts = p->durable;
    p->durable = p->flying;
    p->flying = facts; /* its memory */
    p->flight = SLU_FLIGHT_NONE;
    slu_pipeline_settle(p);
    p->commits++;
    /* Metric rows walk big histograms: once a second is plenty. */
    slu_pipeline_refresh_stats(p, committed_once_a_second(p));
}

/* Waits for the commit that is on its way. Returns 1: it is durable and settled, 0: there was none. */
static int land(slu_pipeline *p, slu_error *err)
{
    if (p->flight == SLU_FLIGHT_NONE)
        return 0;
    if (p->flight == SLU_FLIGHT_FAILED) /* the same once more */
        slu_writer_begin(p->writer, p->commit);
    int64_t start = slu_mono_us(p->config.clock), took;
    int rc = slu_writer_wait(p->writer, &took, err);
    p->commit_wait_us += slu_mono_us(p->config.clock) - start;
    p->flight = rc ? SLU_FLIGHT_FAILED : SLU_FLIGHT_WRITING;
    if (rc)
        return slu_fail(err, rc, "commit of version %llu failed", (unsigned long long)p->flying.version);
    p->commit_us = p->gather_us + took;
    settle(p);
    return 1;
}

int slu_pipeline_commit_begin(slu_pipeline *p, slu_error *err)
{
    return p->flight == SLU_FLIGHT_NONE ? begin(p, err) : 0;
}

int slu_pipeline_commit_poll(slu_pipeline *p, slu_error *err)
{
    if (p->flight == SLU_FLIGHT_WRITING && slu_writer_busy(p->writer) && !slu_pipeline_commit_due(p))
        return 0;
    return land(p, err);
}

bool slu_pipeline_committing(const slu_pipeline *p)
{
    return p->flight != SLU_FLIGHT_NONE;
}

int slu_pipeline_commit(slu_pipeline *p, slu_error *err)
{
    int rc = land(p, err);
    if (rc >= 0)
        rc = begin(p, err);
    if (rc >= 0)
        rc = land(p, err);
    return rc < 0 ? rc : 0;
}

void slu_pipeline_offsets(const slu_pipeline *p, slu_source *source, int64_t *next, uint32_t n)
{
    (void)source;
    for (uint32_t i = 0; i < n; i++)
        next[i] = i < p->durable.n ? p->durable.next_offsets[i] : -1;
}

int slu_pipeline_digest(slu_pipeline *p, char out[33], slu_error *err)
{
    int rc = land(p, err);
    return rc < 0 ? rc : slu_store_digest(p->store, SLU_MODEL_FAMILIES, out, err);
}
