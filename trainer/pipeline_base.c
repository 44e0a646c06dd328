/* The pipeline's bases, and what waits for them. */
#include "trainer/pipeline_state.h"
#include <assert.h>

void slu_pipeline_count_rows(slu_pipeline *p)
{
    for (uint32_t i = 0; i < slu_learner_tables(p->learner); i++)
        p->rows[i] = slu_row_table_served(slu_learner_rows(p->learner), i);
}

void slu_pipeline_send(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len)
{
    slu_pipeline *p = ctx;
    if (p->config.sink)
        p->sink.send(p->sink.ctx, ch, sequence, message, len);
}

/* The chunks of a base come one after the other, so deltas wait in the store until it is out. */
bool slu_pipeline_room(void *ctx, slu_channel ch, size_t len)
{
    slu_pipeline *p = ctx;
    if (ch == SLU_CHANNEL_DELTAS && p->base)
        return false;
    return !p->config.room_for || p->config.room_for(p->sink.ctx, ch, len);
}

bool slu_pipeline_base_going(const slu_pipeline *p)
{
    return p->base != NULL;
}

int slu_pipeline_base_begin(slu_pipeline *p, slu_error *err)
{
    assert(p->delta);
    if (p->base)
        return 0;
    int rc = slu_pipeline_commit(p, err); /* so that memory and store say the same */
    if (rc)
        return rc;
    slu_pipeline_count_rows(p);
    slu_base_spec spec = {
        .store = p->store,
        .head = slu_pipeline_head(p, true),
        .served = slu_learner_served(p->learner),
        .rows = p->rows,
        .n_tables = slu_learner_tables(p->learner),
        .chunk_bytes = p->options->publish.chunk_bytes,
        .row_sum = slu_row_table_sum(slu_learner_rows(p->learner)),
        .dense_digest = slu_learner_dense_digest(p->learner),
    };
    spec.dense = slu_learner_dense(p->learner, &spec.n_dense);
    return slu_base_begin(&spec, &p->base, err);
}

static void send_base(void *ctx, const void *message, size_t len)
{
    slu_pipeline *p = ctx;
    p->sink.send_base(p->sink.ctx, message, len);
}

int slu_pipeline_base_abandon(slu_pipeline *p, slu_error *err)
{
    slu_base_close(p->base);
    p->base = NULL;
    return slu_outbox_pump(p->outbox, slu_pipeline_send, p, err);
}

static int next_piece(slu_pipeline *p, slu_error *err)
{
    int rc = slu_base_next(p->base, send_base, p, err);
    if (rc > 0)
        return rc;
    slu_error why = SLU_ERROR_INIT;
    int sent = slu_pipeline_base_abandon(p, rc ? &why : err); /* complete, or given up */
    return rc ? rc : sent;
}

int slu_pipeline_base_next(slu_pipeline *p, slu_error *err)
{
    if (!p->base)
        return 0;
    if (p->sink.room && !p->sink.room(p->sink.ctx))
        return 1;
    return next_piece(p, err);
}

int slu_pipeline_publish_base(slu_pipeline *p, slu_error *err)
{
    int rc = slu_pipeline_base_begin(p, err);
    while (!rc && p->base) {
        rc = next_piece(p, err);
        rc = rc > 0 ? 0 : rc;
    }
    return rc;
}
