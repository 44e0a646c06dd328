/* What of a pipeline reaches disk and Kafka, and how it comes back. Keys that start with "~" are
 * housekeeping: they may differ between two runs of the same records (how often was committed), so digests
 * leave them out. */
#include "base/log.h"
#include "base/rng.h"
#include "store/row_sum.h"
#include "store/state.h"
#include "trainer/pipeline_state.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- loading ---- */

static void put_counts(const slu_event_counts *c, slu_buf *out)
{
    slu_put_varint(out, c->received);
    slu_put_varint(out, c->learned);
    slu_put_varint(out, c->dead);
    slu_put_varint(out, SLU_DEAD_REASONS);
    for (int i = 0; i < SLU_DEAD_REASONS; i++)
        slu_put_varint(out, c->dead_by_reason[i]);
    slu_put_varint(out, c->impressions);
    for (int i = 0; i < SLU_MAX_STEPS; i++)
        slu_put_varint(out, c->steps[i]);
}

static int get_counts(slu_event_counts *c, const slu_buf *b, slu_error *err)
{
    slu_reader r = slu_reader_of(b->data, b->len);
    c->received = slu_get_varint(&r);
    c->learned = slu_get_varint(&r);
    c->dead = slu_get_varint(&r);
    uint64_t reasons = slu_get_varint(&r);
    for (uint64_t i = 0; i < reasons && !r.bad; i++) {
        uint64_t n = slu_get_varint(&r);
        if (i < SLU_DEAD_REASONS)
            c->dead_by_reason[i] = n;
    }
    c->impressions = slu_get_varint(&r);
    for (int i = 0; i < SLU_MAX_STEPS; i++)
        c->steps[i] = slu_get_varint(&r);
    return r.bad || slu_reader_left(&r)
               ? slu_fail(err, SLU_ECORRUPT,
                          "stored event counters are damaged: restore the store from a backup")
               : 0;
}

/* Reads a stored value and hands it to |load|; a value that was never stored is fine. */
static int restore(slu_pipeline *p, const char *name,
                   int (*load)(slu_pipeline *p, const slu_buf *b, slu_error *err), slu_error *err)
{
    slu_buf b = SLU_BUF_INIT;
    int rc = slu_state_get_bytes(p->store, name, &b, err);
    if (!rc)
        rc = load(p, &b, err);
    else if (rc == SLU_ENOTFOUND) {
        slu_error_clear(err);
        rc = 0;
    }
    slu_buf_free(&b);
    return rc;
}

static int load_counts(slu_pipeline *p, const slu_buf *b, slu_error *err)
{
    return get_counts(&p->counts, b, err);
}
static int load_watermark(slu_pipeline *p, const slu_buf *b, slu_error *err)
{
    return slu_watermark_load(p->watermark, b->data, b->len, err);
}
static int load_joiner(slu_pipeline *p, const slu_buf *b, slu_error *err)
{
    return slu_joiner_load(p->joiner, b->data, b->len, err);
}
static int load_batch(slu_pipeline *p, const slu_buf *b, slu_error *err)
{
    return slu_batch_load(p->batch, b->data, b->len, err);
}

/* The policy decides what waits in join records and batches: changing it mid-way would learn labels twice or
 * never. */
static int check_policy(slu_pipeline *p, slu_error *err)
{
    uint64_t policy;
    int rc = slu_state_get_u64(p->store, "policy", p->options->training.label_policy, &policy, err);
    if (!rc && policy != (uint64_t)p->options->training.label_policy)
        rc = slu_fail(err, SLU_ECONFIG,
                      "store %s was trained under another training.label_policy (number %llu): its open "
                      "windows would be "
                      "learned wrongly; set it back, or start with an empty store",
                      slu_store_path(p->store), (unsigned long long)policy);
    return rc;
}

/* Every commit leaves all of these, so a store has all or none of them. One that lacks some would go on as if
 * they had never been: with fresh parameters, say, under rows that were trained with others. */
static int check_complete(slu_pipeline *p, slu_error *err)
{
    static const struct {
        slu_family family;
        const char *name;
    } always[] = {
        {SLU_FAMILY_META, "~version"},     {SLU_FAMILY_META, "counts"},      {SLU_FAMILY_META, "watermark"},
        {SLU_FAMILY_META, "joiner"},       {SLU_FAMILY_META, "batch"},       {SLU_FAMILY_META, "policy"},
        {SLU_FAMILY_META, "join.records"}, {SLU_FAMILY_META, "join.timers"}, {SLU_FAMILY_DENSE, "params"}};
    enum { ALWAYS = sizeof always / sizeof *always };
    const char *lacks = NULL;
    slu_buf value = SLU_BUF_INIT;
    int present = 0, rc = 0;
    for (int i = 0; i < ALWAYS && !rc; i++) {
        rc = slu_store_get(p->store, always[i].family, always[i].name, strlen(always[i].name), &value, err);
        present += !rc;
        if (rc == SLU_ENOTFOUND) {
            lacks = always[i].name;
            rc = 0;
        }
    }
    slu_buf_free(&value);
    if (!rc && present && lacks)
        rc = slu_fail(err, SLU_ECORRUPT, "store %s lacks its value '%s': restore it from a backup",
                      slu_store_path(p->store), lacks);
    return rc;
}

static int new_builder(slu_pipeline *p, slu_error *err)
{
    p->delta = slu_delta_builder_new(slu_learner_served(p->learner), slu_learner_tables(p->learner),
                                     p->options->publish.chunk_bytes);
    return p->delta ? 0 : slu_fail(err, SLU_ENOMEM, "out of memory for deltas");
}

static int load_row_sum(slu_pipeline *p, slu_error *err)
{
    slu_row_sum sum;
    uint32_t n = slu_learner_tables(p->learner);
    p->rows = calloc(n + 1, sizeof *p->rows);
    if (!p->rows)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the pipeline");
    int rc = slu_row_sum_load(p->store, p->version, slu_learner_served(p->learner), n, &sum, p->rows, err);
    if (!rc)
        slu_row_table_set_sum(slu_learner_rows(p->learner), sum, p->rows);
    return rc;
}

int slu_pipeline_load(slu_pipeline *p, slu_error *err)
{
    uint64_t through = 0, committed = 0, arrival = 0, batch_arrival = 0;
    int rc = check_complete(p, err);
    if (!rc)
        rc = check_policy(p, err);
    if (!rc)
        rc = restore(p, "counts", load_counts, err);
    if (!rc)
        rc = restore(p, "watermark", load_watermark, err);
    if (!rc)
        rc = restore(p, "joiner", load_joiner, err);
    if (!rc)
        rc = restore(p, "batch", load_batch, err);
    if (!rc)
        rc = slu_state_get_u64(p->store, "~version", 0, &p->version, err);
    if (!rc)
        rc = load_row_sum(p, err);
    if (!rc)
        rc = slu_state_get_u64(p->store, "~lineage", 0, &p->lineage, err);
    if (!rc)
        rc = slu_state_get_u64(p->store, "~learned_through", 0, &through, err);
    if (!rc)
        rc = slu_state_get_u64(p->store, "~committed", 0, &committed, err);
    p->committed_us = (int64_t)committed;
    if (!rc)
        rc = slu_state_get_u64(p->store, "~newest_arrival", through, &arrival, err);
    p->learned_through_us = (int64_t)through;
    p->newest_arrival_us = (int64_t)arrival;
    if (!rc)
        rc = slu_state_get_u64(p->store, "batch_arrival", arrival, &batch_arrival, err);
    p->batch_arrival_us = (int64_t)batch_arrival;
    if (!rc && !p->lineage) /* a new store: tell its versions from those of any other */
        p->lineage = slu_mix64((uint64_t)slu_wall_us(p->config.clock) ^ ((uint64_t)getpid() << 48)) | 1;
    if (!rc && p->config.order)
        rc = slu_order_log_open(p->store, p->options->training.keep_order_bytes,
                                slu_options_fingerprint(p->options), &p->order, err);
    if (!rc && p->config.deltas)
        rc = new_builder(p, err);
    slu_outbox_gate(p->outbox, slu_pipeline_room, p);
    if (!rc)
        rc = slu_outbox_recover(p->outbox, slu_pipeline_send, p, err);
    if (!rc)
        slu_pipeline_facts(p, &p->durable);
    return rc;
}

/* ---- committing ---- */

slu_delta_head slu_pipeline_head(const slu_pipeline *p, bool base)
{
    return (slu_delta_head){
        .lineage = p->lineage,
        .version = p->version,
        .previous_version = p->version - 1,
        .base = base,
        .schema_fingerprint = slu_schema_fingerprint(p->config.schema),
        .schema_text = base ? slu_schema_text(p->config.schema) : NULL,
        .learned_through_us = p->learned_through_us,
        .committed_us = p->committed_us,
    };
}

static void delta_row(void *ctx, uint32_t table, const slu_row *row)
{
    slu_pipeline *p = ctx;
    if (row->admitted && !row->deleted)
        slu_delta_row(p->delta, table, row->id, row->v);
    else if (row->grave)
        slu_delta_tombstone(p->delta, table, row->id);
}

static void delta_to_outbox(void *ctx, const void *message, size_t len)
{
    slu_pipeline *p = ctx;
    slu_outbox_add(p->outbox, SLU_CHANNEL_DELTAS, message, len);
}

/* Rows and dense parameters into the commit, and into the version's delta while they pass. */
static int flush_model(slu_pipeline *p)
{
    if (!p->delta)
        return slu_learner_flush(p->learner, p->commit, NULL, NULL);
    slu_delta_head head = slu_pipeline_head(p, false);
    slu_delta_begin(p->delta, &head);
    if (slu_learner_dense_changed(p->learner)) {
        size_t n;
        const float *dense = slu_learner_dense(p->learner, &n);
        slu_delta_dense(p->delta, dense, n);
    }
    int rc = slu_learner_flush(p->learner, p->commit, delta_row, p);
    slu_delta_sums(p->delta, slu_row_table_sum(slu_learner_rows(p->learner)),
                   slu_learner_dense_digest(p->learner));
    slu_delta_finish(p->delta, delta_to_outbox, p);
    return rc;
}

static void put_saved(slu_pipeline *p, const char *name)
{
    slu_state_put_bytes(p->commit, name, p->scratch.data, p->scratch.len);
    slu_buf_clear(&p->scratch);
}

static void flush_state(slu_pipeline *p)
{
    slu_buf_clear(&p->scratch);
    put_counts(&p->counts, &p->scratch);
    put_saved(p, "counts");
    slu_watermark_save(p->watermark, &p->scratch);
    put_saved(p, "watermark");
    slu_joiner_save(p->joiner, &p->scratch);
    put_saved(p, "joiner");
    slu_batch_save(p->batch, &p->scratch);
    put_saved(p, "batch");
    slu_state_put_u64(p->commit, "batch_arrival", (uint64_t)p->batch_arrival_us);
    slu_state_put_u64(p->commit, "policy", p->options->training.label_policy);
    slu_state_put_u64(p->commit, "~version", p->version);
    slu_state_put_u64(p->commit, "~lineage", p->lineage);
    slu_pipeline_count_rows(p);
    slu_row_sum_record(p->commit, p->version, slu_learner_served(p->learner), p->rows,
                       slu_learner_tables(p->learner), slu_row_table_sum(slu_learner_rows(p->learner)));
    slu_state_put_u64(p->commit, "~committed", (uint64_t)p->committed_us);
    slu_state_put_u64(p->commit, "~newest_arrival", (uint64_t)p->newest_arrival_us);
    slu_state_put_u64(p->commit, "~learned_through", (uint64_t)p->learned_through_us);
    for (uint32_t i = 0; i < slu_watermark_count(p->watermark); i++) {
        slu_partition part;
        int64_t next;
        slu_watermark_at(p->watermark, i, &part, &next);
        if (next >= 0)
            slu_state_put_offset(p->commit, part.topic, part.partition, next);
        if (slu_watermark_mark(p->watermark, i))
            slu_state_put_mark(p->commit, part.topic, part.partition, slu_watermark_mark(p->watermark, i));
    }
}

bool slu_pipeline_collect_acks(slu_pipeline *p)
{
    bool any = false;
    for (int ch = SLU_CHANNEL_DELTAS; p->config.sink && ch < SLU_CHANNELS; ch++) {
        uint64_t acked = p->sink.acked(p->sink.ctx, (slu_channel)ch);
        if (acked <= p->acked[ch])
            continue;
        p->acked[ch] = acked;
        slu_outbox_ack(p->outbox, (slu_channel)ch, acked);
        any = true;
    }
    return any;
}

static int check_balance(const slu_pipeline *p, slu_error *err)
{
    const slu_event_counts *c = &p->counts;
    if (c->received == c->learned + slu_joiner_waiting(p->joiner) + c->dead)
        return 0;
    return slu_fail(err, SLU_ECORRUPT,
                    "events do not balance: received %llu, learned %llu, waiting %llu, dead %llu; this "
                    "is a defect of Sluice, "
                    "nothing was committed",
                    (unsigned long long)c->received, (unsigned long long)c->learned,
                    (unsigned long long)slu_joiner_waiting(p->joiner), (unsigned long long)c->dead);
}

static int gather_version(slu_pipeline *p, slu_error *err)
{
    p->version++;
    p->committed_us = slu_wall_us(p->config.clock);
    int rc = flush_model(p);
    if (!rc)
        rc = slu_join_table_flush(p->join_table, p->commit);
    flush_state(p);
    if (!rc && p->order)
        rc = slu_order_log_flush(p->order, p->commit, p->version, err);
    return rc;
}

int slu_pipeline_gather(slu_pipeline *p, slu_error *err)
{
    int rc = check_balance(p, err);
    if (!rc && p->changed)
        rc = gather_version(p, err);
    return rc ? rc : slu_outbox_flush(p->outbox, p->commit);
}

void slu_pipeline_settle(slu_pipeline *p)
{
    slu_learner_committed(p->learner);
    slu_join_table_committed(p->join_table);
    if (p->order)
        slu_order_log_committed(p->order);
    slu_outbox_committed(p->outbox, slu_pipeline_send, p);
}

void slu_pipeline_facts(const slu_pipeline *p, slu_commit_facts *out)
{
    uint32_t n = slu_watermark_numbers(p->watermark);
    if (n > out->cap) {
        out->next_offsets = reallocarray(out->next_offsets, n, sizeof *out->next_offsets);
        if (!out->next_offsets)
            abort(); /* partitions are few */
        out->cap = n;
    }
    for (uint32_t i = 0; i < n; i++)
        out->next_offsets[i] = slu_watermark_next_offset(p->watermark, i);
    out->n = n;
    out->version = p->version;
    out->learned_through_us = p->learned_through_us;
}

int slu_pipeline_pump(slu_pipeline *p, slu_error *err)
{
    return slu_outbox_pump(p->outbox, slu_pipeline_send, p, err);
}

uint64_t slu_pipeline_outbox_bytes(const slu_pipeline *p)
{
    return slu_outbox_bytes(p->outbox);
}
