#include "serving/delta_applier.h"
#include "base/background.h"
#include "base/bytes.h"
#include "base/digest.h"
#include "serving/served.h"
#include "sluice/v1/delta.pb-c.h"
#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "deltas are little-endian and copied as they are"
#endif

/* A delta changes what one commit interval has learned: tens of MiB are much. More chunks than this are not
 * kept in memory for one version; a base has no such bound, it is applied chunk by chunk. */
#define MAX_DELTA_BYTES (512u << 20)
#define BREATH          32                /* rows, about 0.1 ms with the sink's part */
#define KEPT_BYTES      ((size_t)4 << 20) /* a larger buffer is not held for the next version */

typedef Sluice__V1__ModelDelta model_delta;
typedef Sluice__V1__RowBlock row_block;
typedef Sluice__V1__DenseBlock dense_block;

typedef enum assembly { NOTHING, DELTA, BASE } assembly;

struct slu_delta_applier {
    const slu_schema *schema;
    slu_model_table *table;
    slu_delta_sink sink;
    slu_delta_position at;
    slu_delta_counts counts;
    uint64_t verified;
    uint64_t max_delta;
    bool waiting;  /* for a base: the gap was counted */
    bool changing; /* between the sink's begin and its published or abandon */

    /* The version that is being assembled. */
    assembly doing;
    uint64_t lineage, version;
    uint32_t chunks, next;
    slu_buf kept;     /* DELTA: u64 length and bytes of each chunk so far */
    float *dense;     /* (P) */
    size_t dense_has; /* floats of it that have come, in order */
    float *row;       /* the longest row: values in a message need not be aligned */
    uint32_t changes; /* of rows, ever */

    /* Only a base says what is different about its schema; deltas of the same schema repeat it. */
    uint64_t foreign;
    char foreign_why[800];
};

slu_delta_applier *slu_delta_applier_new(const slu_schema *schema, slu_model_table *table)
{
    uint32_t longest = 1;
    slu_delta_applier *a = calloc(1, sizeof *a);
    if (!a)
        return NULL;
    for (uint32_t i = 0; i < slu_model_tables(table); i++)
        if (slu_model_served(table, i) > longest)
            longest = slu_model_served(table, i);
    a->schema = schema;
    a->table = table;
    a->max_delta = MAX_DELTA_BYTES;
    a->row = malloc(longest * sizeof(float));
    a->dense = malloc((slu_model_dense(table) + 1) * sizeof(float));
    if (!a->row || !a->dense) {
        slu_delta_applier_free(a);
        return NULL;
    }
    return a;
}

static void begin_changes(slu_delta_applier *a, bool base)
{
    a->changing = true;
    if (a->sink.begin)
        a->sink.begin(a->sink.ctx, base);
}

/* Forgets the version that is being assembled, and what of it has been done to the table. */
static void drop(slu_delta_applier *a)
{
    if (a->changing) {
        slu_model_undo(a->table);
        if (a->sink.abandon)
            a->sink.abandon(a->sink.ctx);
    }
    a->changing = false;
    a->doing = NOTHING;
    slu_buf_clear(&a->kept);
    if (a->kept.cap > KEPT_BYTES)
        slu_buf_free(&a->kept);
}

void slu_delta_applier_free(slu_delta_applier *a)
{
    if (!a)
        return;
    drop(a);
    slu_buf_free(&a->kept);
    free(a->row);
    free(a->dense);
    free(a);
}

void slu_delta_applier_limit(slu_delta_applier *a, uint64_t bytes)
{
    a->max_delta = bytes;
}

void slu_delta_applier_sink(slu_delta_applier *a, const slu_delta_sink *sink)
{
    a->sink = *sink;
}

void slu_delta_applier_resume(slu_delta_applier *a, const slu_delta_position *at)
{
    a->at = *at;
}

slu_delta_position slu_delta_applier_position(const slu_delta_applier *a)
{
    return a->at;
}

uint64_t slu_delta_applier_verified(const slu_delta_applier *a)
{
    return a->verified;
}

slu_delta_counts slu_delta_applier_counts(const slu_delta_applier *a)
{
    return a->counts;
}

bool slu_delta_applier_midway(const slu_delta_applier *a)
{
    return a->doing != NOTHING;
}

/* ---- checks, before anything changes ---- */

static int check_block(const slu_delta_applier *a, const row_block *b, slu_error *err)
{
    if (b->table >= slu_model_tables(a->table))
        return slu_fail(err, SLU_EFORMAT, "rows of table %u, but the schema has %u tables", b->table,
                        slu_model_tables(a->table));
    uint32_t served = slu_model_served(a->table, b->table);
    const char *name = slu_schema_table(a->schema, b->table)->name;
    if (b->ids.len % sizeof(uint64_t) || b->deleted.len % sizeof(uint64_t))
        return slu_fail(err, SLU_EFORMAT, "ids of table '%s' take %zu and %zu bytes, not a multiple of 8",
                        name, b->ids.len, b->deleted.len);
    size_t rows = b->ids.len / sizeof(uint64_t);
    if (b->values.len != rows * served * sizeof(float))
        return slu_fail(err, SLU_EFORMAT, "table '%s' has %zu ids of %u floats but %zu bytes of values", name,
                        rows, served, b->values.len);
    if (!served_finite(b->values.data, rows * served))
        return slu_fail(err, SLU_EFORMAT, "a row of table '%s' holds a number that is not finite", name);
    return 0;
}

static int check_dense(const slu_delta_applier *a, const dense_block *d, slu_error *err)
{
    size_t total = slu_model_dense(a->table), floats = d->values.len / sizeof(float);
    if (d->total != total)
        return slu_fail(err, SLU_EFORMAT, "%u dense parameters, but this network has %zu", d->total, total);
    if (d->values.len % sizeof(float) || d->offset > total || floats > total - d->offset)
        return slu_fail(err, SLU_EFORMAT, "%zu bytes of dense parameters from %u on do not fit into %zu",
                        d->values.len, d->offset, total);
    if (!served_finite(d->values.data, floats))
        return slu_fail(err, SLU_EFORMAT, "a dense parameter is not finite");
    return 0;
}

static int check_head(const model_delta *m, slu_error *err)
{
    if (m->kind != SLUICE__V1__DELTA_KIND__DELTA_KIND_DELTA &&
        m->kind != SLUICE__V1__DELTA_KIND__DELTA_KIND_BASE)
        return slu_fail(err, SLU_EFORMAT, "unknown kind %d", (int)m->kind);
    if (m->version == 0)
        return slu_fail(err, SLU_EFORMAT, "version 0");
    if (m->chunks == 0 || m->chunk >= m->chunks)
        return slu_fail(err, SLU_EFORMAT, "chunk %u of %u", m->chunk, m->chunks);
    if ((m->row_sum.len && m->row_sum.len != SLU_SUM_BYTES) ||
        (m->dense_digest.len && m->dense_digest.len != SLU_SUM_BYTES))
        return slu_fail(err, SLU_EFORMAT, "sums of %zu and %zu bytes instead of %d", m->row_sum.len,
                        m->dense_digest.len, SLU_SUM_BYTES);
    return 0;
}

static int check_schema(slu_delta_applier *a, const model_delta *m, slu_error *err)
{
    if (m->schema_fingerprint == slu_schema_fingerprint(a->schema))
        return 0;
    slu_error why = SLU_ERROR_INIT;
    char where[64];
    snprintf(where, sizeof where, "version %" PRIu64 " of the trainer", m->version);
    bool text = m->schema_text && m->schema_text[0];
    if (text && slu_schema_compare(a->schema, m->schema_text, where, &why)) {
        a->foreign = m->schema_fingerprint;
        snprintf(a->foreign_why, sizeof a->foreign_why, "%.*s", (int)sizeof a->foreign_why - 1, why.message);
    }
    if (a->foreign_why[0] && a->foreign == m->schema_fingerprint)
        return slu_fail(err, SLU_ESCHEMA, "%s", a->foreign_why);
    return slu_fail(err, SLU_ESCHEMA,
                    "version %" PRIu64 " was trained for schema %016" PRIx64
                    ", this scorer's config is schema %016" PRIx64
                    "; start trainer and scorer with the same features, funnel and network",
                    m->version, m->schema_fingerprint, slu_schema_fingerprint(a->schema));
}

static int check_body(const slu_delta_applier *a, const model_delta *m, slu_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < m->n_rows && !rc; i++)
        rc = check_block(a, m->rows[i], err);
    if (!rc && m->dense)
        rc = check_dense(a, m->dense, err);
    return rc;
}

/* ---- changes ---- */

static uint64_t id_at(const ProtobufCBinaryData *ids, size_t i)
{
    uint64_t id;
    memcpy(&id, ids->data + i * sizeof id, sizeof id);
    return id;
}

/* The values of row i, aligned. */
static const float *values_at(slu_delta_applier *a, const row_block *b, size_t i)
{
    size_t bytes = slu_model_served(a->table, b->table) * sizeof(float);
    if (bytes)
        memcpy(a->row, b->values.data + i * bytes, bytes);
    return a->row;
}

/* A change is made: now and then whoever waits for the processor gets it, however small the blocks are. */
static void breathe(slu_delta_applier *a)
{
    if (++a->changes % BREATH == 0)
        slu_background_breathe();
}

/* Into the table, and told to the sink. */
static int put_block(slu_delta_applier *a, const row_block *b, slu_error *err)
{
    for (size_t i = 0; i < b->ids.len / sizeof(uint64_t); i++) {
        uint64_t id = id_at(&b->ids, i);
        const float *v = values_at(a, b, i);
        int rc = slu_model_put_row(a->table, b->table, id, v, err);
        if (rc)
            return rc;
        if (a->sink.row)
            a->sink.row(a->sink.ctx, b->table, id, v);
        breathe(a);
    }
    for (size_t i = 0; i < b->deleted.len / sizeof(uint64_t); i++) {
        uint64_t id = id_at(&b->deleted, i);
        int rc = slu_model_delete_row(a->table, b->table, id, err);
        if (rc)
            return rc;
        if (a->sink.row)
            a->sink.row(a->sink.ctx, b->table, id, NULL);
        breathe(a);
    }
    return 0;
}

static int put_rows(slu_delta_applier *a, const model_delta *m, slu_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < m->n_rows && !rc; i++)
        rc = put_block(a, m->rows[i], err);
    return rc;
}

/* The same over the chunks that were kept. They were checked when they came. */
static int put_kept(slu_delta_applier *a, slu_error *err)
{
    slu_reader r = slu_reader_of(a->kept.data, a->kept.len);
    int rc = 0;
    while (slu_reader_left(&r) && !rc) {
        size_t len = slu_get_u64(&r);
        const uint8_t *bytes = slu_get_bytes(&r, len);
        model_delta *m = sluice__v1__model_delta__unpack(NULL, len, bytes);
        rc = m ? put_rows(a, m, err) : slu_fail(err, SLU_ENOMEM, "no memory for a chunk of %zu bytes", len);
        if (m)
            sluice__v1__model_delta__free_unpacked(m, NULL);
    }
    return rc;
}

/* Dense parameters come in order, so that it is known when all are there. */
static int take_dense(slu_delta_applier *a, const dense_block *d, slu_error *err)
{
    if (!d)
        return 0;
    if (d->offset != a->dense_has)
        return slu_fail(err, SLU_EFORMAT, "dense parameters from %u on, expected from %zu", d->offset,
                        a->dense_has);
    if (d->values.len)
        memcpy(a->dense + a->dense_has, d->values.data, d->values.len);
    a->dense_has += d->values.len / sizeof(float);
    return 0;
}

/* A gap is one event, however many deltas pass until the base comes. */
static int wait_for_base(slu_delta_applier *a, const model_delta *m, const char *why, slu_error *err)
{
    if (!a->waiting)
        a->counts.gaps++;
    a->waiting = true;
    return slu_fail(err, SLU_EAGAIN,
                    "version %" PRIu64 " cannot follow version %" PRIu64
                    ": %s; waiting for the trainer's next base",
                    m->version, a->at.version, why);
}

static int begin(slu_delta_applier *a, const model_delta *m, slu_error *err)
{
    bool known = a->at.version && a->at.lineage == m->lineage;
    bool base = m->kind == SLUICE__V1__DELTA_KIND__DELTA_KIND_BASE;

    drop(a);
    if (!base && m->previous_version == 0 && !known)
        base = true; /* stands on the empty model */
    if (!base && !known)
        return wait_for_base(
            a, m, a->at.version ? "the trainer's store is another one" : "there is no model yet", err);
    if (!base && m->previous_version > a->at.version)
        return wait_for_base(a, m, "versions between them are missing", err);
    if (base) {
        int rc = slu_model_begin_base(a->table, err);
        if (rc)
            return rc;
        begin_changes(a, true);
    }
    a->doing = base ? BASE : DELTA;
    a->lineage = m->lineage;
    a->version = m->version;
    a->chunks = m->chunks;
    a->next = 0;
    a->dense_has = 0;
    return 0;
}

static bool same(slu_hash128 a, slu_hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

static int differs(slu_delta_applier *a, const char *what, slu_hash128 theirs, slu_hash128 ours,
                   slu_error *err)
{
    a->counts.mismatches++;
    if (!a->waiting)
        a->counts.gaps++;
    a->waiting = true;
    return slu_fail(err, SLU_ECORRUPT,
                    "%s of version %" PRIu64 " %s to %016" PRIx64 "%016" PRIx64
                    " at the trainer and to %016" PRIx64 "%016" PRIx64 " here; version %" PRIu64
                    " stays, waiting for the trainer's next base",
                    a->doing == BASE ? "the base" : "the delta", a->version, what, theirs.hi, theirs.lo,
                    ours.hi, ours.lo, a->at.version);
}

/* Is what has been put together what the trainer has? */
static int verify(slu_delta_applier *a, const model_delta *last, slu_error *err)
{
    slu_model_sums ours = slu_model_next_sums(a->table, a->dense_has ? a->dense : NULL);
    if (last->row_sum.len) {
        slu_hash128 theirs = slu_sum_read(last->row_sum.data);
        if (!same(theirs, ours.rows))
            return differs(a, "adds up its rows", theirs, ours.rows, err);
    }
    if (last->dense_digest.len) {
        slu_hash128 theirs = slu_sum_read(last->dense_digest.data);
        if (!same(theirs, ours.dense))
            return differs(a, "digests its dense parameters", theirs, ours.dense, err);
    }
    return 0;
}

/* Makes the version the one that serves. */
static int publish(slu_delta_applier *a, const model_delta *last, slu_error *err)
{
    const float *dense = a->dense_has ? a->dense : NULL;
    int rc = verify(a, last, err);
    if (!rc)
        rc = slu_model_publish(a->table, dense, a->version, last->learned_through_us, err);
    if (rc)
        return rc;
    a->at = (slu_delta_position){a->lineage, a->version, last->learned_through_us, last->committed_us};
    a->counts.applied++;
    if (last->row_sum.len && last->dense_digest.len)
        a->verified = a->version;
    a->waiting = false;
    a->changing = false;
    if (a->sink.published)
        a->sink.published(a->sink.ctx, &a->at, dense);
    drop(a);
    return 1;
}

static int keep(slu_delta_applier *a, const void *message, size_t len, slu_error *err)
{
    if (a->kept.len + len > a->max_delta)
        return slu_fail(err, SLU_ELIMIT,
                        "version %" PRIu64 " changes more than the %" PRIu64
                        " MiB that serving.memory allows for one; waiting for the next base",
                        a->version, a->max_delta >> 20);
    if (!slu_buf_try_reserve(&a->kept, sizeof(uint64_t) + len))
        return slu_fail(err, SLU_ENOMEM, "version %" PRIu64 ": no memory for a chunk of %zu bytes",
                        a->version, len);
    slu_put_u64(&a->kept, len);
    slu_put_bytes(&a->kept, message, len);
    return 0;
}

/* The last chunk of a delta: from here on the table changes. */
static int finish_delta(slu_delta_applier *a, const model_delta *m, slu_error *err)
{
    size_t total = slu_model_dense(a->table);
    if (a->dense_has && a->dense_has != total)
        return slu_fail(err, SLU_EFORMAT, "%zu of %zu dense parameters", a->dense_has, total);
    begin_changes(a, false);
    int rc = put_kept(a, err);
    if (!rc)
        rc = put_rows(a, m, err);
    return rc ? rc : publish(a, m, err);
}

static int take_base_chunk(slu_delta_applier *a, const model_delta *m, slu_error *err)
{
    int rc = put_rows(a, m, err);
    if (rc || a->next < a->chunks)
        return rc;
    size_t total = slu_model_dense(a->table);
    if (a->dense_has != total && m->kind == SLUICE__V1__DELTA_KIND__DELTA_KIND_DELTA)
        return wait_for_base(a, m, "it does not bring all dense parameters", err);
    if (a->dense_has != total)
        return slu_fail(err, SLU_EFORMAT, "a base with %zu of %zu dense parameters", a->dense_has, total);
    return publish(a, m, err);
}

static int take_chunk(slu_delta_applier *a, const model_delta *m, const void *message, size_t len,
                      slu_error *err)
{
    bool same =
        a->doing != NOTHING && a->lineage == m->lineage && a->version == m->version && a->chunks == m->chunks;
    int rc = 0;

    if (m->chunk == 0)
        rc = begin(a, m, err);
    else if (same && m->chunk < a->next)
        return 0; /* again */
    else if (!same || m->chunk > a->next)
        rc = wait_for_base(a, m, "chunks of it are missing", err);
    if (rc)
        return rc;
    a->next = m->chunk + 1;
    rc = take_dense(a, m->dense, err);
    if (rc)
        return rc;
    if (a->doing == BASE)
        return take_base_chunk(a, m, err);
    return a->next == a->chunks ? finish_delta(a, m, err) : keep(a, message, len, err);
}

/* A trainer whose store was restored from a backup begins a branch: its versions are old numbers, but they
 * were committed later. Only a base can lead there. (A base of the branch that is served has the very
 * committed_us of its delta.) */
static bool leads_to_a_branch(const slu_delta_applier *a, const model_delta *m)
{
    return m->kind == SLUICE__V1__DELTA_KIND__DELTA_KIND_BASE && m->committed_us > a->at.committed_us;
}

static int take(slu_delta_applier *a, const model_delta *m, const void *message, size_t len, slu_error *err)
{
    int rc = check_head(m, err);
    if (!rc)
        rc = check_schema(a, m, err);
    if (rc)
        return rc;
    if (m->lineage == a->at.lineage && m->version <= a->at.version && !leads_to_a_branch(a, m)) {
        a->counts.skipped++;
        return 0;
    }
    rc = check_body(a, m, err);
    return rc ? rc : take_chunk(a, m, message, len, err);
}

int slu_delta_apply(slu_delta_applier *a, const void *message, size_t len, slu_error *err)
{
    slu_error own = SLU_ERROR_INIT;
    model_delta *m = sluice__v1__model_delta__unpack(NULL, len, message);
    int rc;

    if (!m) {
        drop(a);
        a->counts.refused++;
        return slu_fail(err, SLU_EFORMAT, "%zu bytes that are not a ModelDelta message", len);
    }
    rc = take(a, m, message, len, &own);
    if (rc < 0) {
        drop(a);
        a->counts.refused += rc != SLU_EAGAIN && rc != SLU_ECORRUPT;
        if (rc != SLU_EAGAIN && rc != SLU_ESCHEMA && rc != SLU_ECORRUPT)
            slu_error_context(&own, "delta version %" PRIu64 " chunk %u", m->version, m->chunk);
        slu_fail(err, rc, "%s", own.message);
    }
    sluice__v1__model_delta__free_unpacked(m, NULL);
    return rc;
}
