#include "serving/model_store.h"
#include "base/log.h"
#include "serving/row_key.h"
#include "serving/row_load.h"
#include "serving/served.h"
#include "store/state.h"
#include "store/store.h"
#include <assert.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PIECE_BYTES (4u << 20)     /* of a base or of a deletion, in one commit */
#define MIXED       "scorer.mixed" /* META: 1 while the rows that count may have others among them */
#define SUMS        "scorer.sums"  /* META: version u64, row sum, dense digest; little-endian */

struct model_store {
    slu_store *store;
    slu_commit *commit;
    const slu_schema *schema;
    const slu_model_table *table;
    const char *topic;
    uint32_t generation; /* 0 or ROW_KEY_GENERATION: of the rows that count */
    bool base;           /* rows go to the other generation */
    bool dirty;          /* something waits that a commit should take */
    bool sweep;          /* the other generation has rows that count for nothing */
    bool foul;           /* the base on its way is written among such rows: they could not be deleted */
    bool mixed;          /* so was the one that counts; prune() */
    int64_t offset;      /* behind what was applied, -1 unknown */
    slu_error failed;    /* of a commit inside a sink; told by the next model_store_commit */
};

/* ---- opening ---- */

static int compare_schema(void *ctx, const char *stored, slu_error *err)
{
    const model_store *s = ctx;
    return slu_schema_compare(s->schema, stored, "the scorer's store", err);
}

int model_store_open(const slu_options *options, const slu_schema *schema, const slu_model_table *table,
                     model_store **sp, slu_error *err)
{
    *sp = NULL;
    model_store *s = calloc(1, sizeof *s);
    if (!s)
        return slu_fail(err, SLU_ENOMEM, "no memory for the scorer's store");
    s->schema = schema;
    s->table = table;
    s->topic = options->kafka.delta_topic;
    s->offset = -1;
    slu_store_config config = {.path = options->serving.store_path,
                               .block_cache_bytes = 8u << 20, /* rows are read once, at the start */
                               .sync = options->store.sync,
                               .create = true,
                               .schema_text = slu_schema_text(schema),
                               .compare = compare_schema,
                               .compare_ctx = s};
    int rc = slu_store_open(&config, &s->store, err);
    if (rc) {
        bool useless = rc == SLU_ESCHEMA || rc == SLU_ECORRUPT || rc == SLU_EFORMAT;
        if (useless && err && strlen(err->message) < sizeof err->message - 160)
            snprintf(err->message + strlen(err->message), sizeof err->message - strlen(err->message),
                     "; a scorer's store is a copy only: delete %s and start again",
                     options->serving.store_path);
        free(s);
        return rc;
    }
    s->commit = slu_commit_begin(s->store);
    *sp = s;
    return 0;
}

slu_store *model_store_raw(model_store *s)
{
    return s->store;
}

void model_store_close(model_store *s)
{
    if (!s)
        return;
    slu_commit_abandon(s->commit);
    slu_store_close(s->store);
    free(s);
}

uint64_t model_store_disk_bytes(model_store *s)
{
    return slu_store_disk_bytes(s->store);
}

/* ---- loading ---- */

/* Readers for a start. The other cores have nothing else to do then. */
static uint32_t load_threads(void)
{
    cpu_set_t ours;
    int n = sched_getaffinity(0, sizeof ours, &ours) ? 1 : CPU_COUNT(&ours);
    return n < 1 ? 1 : n > (int)ROW_LOAD_THREADS ? ROW_LOAD_THREADS : (uint32_t)n;
}

static int put_rows(void *ctx, uint32_t table, const uint64_t *ids, const float *v, uint32_t n,
                    slu_error *err)
{
    return slu_model_put_rows(ctx, table, ids, v, n, err);
}

static bool found_one(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)key, (void)key_len, (void)value, (void)value_len;
    *(bool *)ctx = true;
    return false;
}

/* Whether there are rows of the generation that does not count. */
static int look_for_stale(model_store *s, slu_error *err)
{
    uint8_t second[4] = {ROW_KEY_GENERATION >> 24};
    const bool high = !s->generation;
    return slu_store_scan(s->store, SLU_FAMILY_ROWS, high ? second : NULL, high ? sizeof second : 0,
                          high ? NULL : second, high ? 0 : sizeof second, found_one, &s->sweep, err);
}

static int load_rows(model_store *s, slu_model_table *table, slu_error *err)
{
    const row_load_from from = {s->store, s->generation, table, load_threads()};
    int rc = row_load(&from, put_rows, table, err);
    s->sweep = false;
    return rc ? rc : look_for_stale(s, err);
}

static void write_piece(model_store *s)
{
    if (slu_commit_bytes(s->commit) >= PIECE_BYTES && !s->failed.code)
        slu_commit_write(s->commit, &s->failed);
}

static bool clear_row(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    model_store *s = ctx;
    (void)value, (void)value_len;
    slu_commit_delete(s->commit, SLU_FAMILY_ROWS, key, key_len);
    s->dirty = true;
    write_piece(s);
    return true;
}

/* No version is there, so whatever rows there are count for nothing: the first one that comes, which need not
 * be a base, must not find them. */
static int clear_rows(model_store *s, slu_error *err)
{
    int rc = slu_store_scan(s->store, SLU_FAMILY_ROWS, NULL, 0, NULL, 0, clear_row, s, err);
    if (!rc && s->failed.code)
        rc = slu_fail(err, s->failed.code, "%s", s->failed.message);
    if (!rc && s->dirty)
        rc = slu_commit_write(s->commit, err);
    s->dirty = false;
    return rc;
}

static int load_position(model_store *s, slu_delta_position *at, slu_error *err)
{
    uint64_t learned = 0, committed = 0, generation = 0, mixed = 0;
    int rc = slu_state_get_u64(s->store, "scorer.lineage", 0, &at->lineage, err);
    if (!rc)
        rc = slu_state_get_u64(s->store, "scorer.version", 0, &at->version, err);
    if (!rc)
        rc = slu_state_get_u64(s->store, "scorer.learned_through_us", 0, &learned, err);
    if (!rc)
        rc = slu_state_get_u64(s->store, "scorer.committed_us", 0, &committed, err);
    if (!rc)
        rc = slu_state_get_u64(s->store, "scorer.generation", 0, &generation, err);
    if (!rc)
        rc = slu_state_get_u64(s->store, MIXED, 0, &mixed, err);
    at->learned_through_us = (int64_t)learned;
    at->committed_us = (int64_t)committed;
    s->generation = generation ? ROW_KEY_GENERATION : 0;
    if (!rc && mixed) {
        SLU_WARN("subscriber",
                 "the scorer's store holds rows of two bases, because the disk failed while one was written; "
                 "waiting for the next",
                 SLU_U64("version", at->version));
        *at = (slu_delta_position){0};
    }
    return rc;
}

static void put_sums(slu_commit *c, uint64_t version, slu_model_sums sums)
{
    uint8_t bytes[8 + 2 * SLU_SUM_BYTES];
    memcpy(bytes, &version, 8); /* little-endian, as model deltas are */
    slu_sum_write(bytes + 8, sums.rows);
    slu_sum_write(bytes + 8 + SLU_SUM_BYTES, sums.dense);
    slu_state_put_bytes(c, SUMS, bytes, sizeof bytes);
}

static bool same(slu_hash128 a, slu_hash128 b)
{
    return a.lo == b.lo && a.hi == b.hi;
}

/* Does what was loaded add up to what was written? A store of before sums were kept says nothing. */
static int check_sums(model_store *s, uint64_t version, slu_model_sums found, slu_error *err)
{
    slu_buf b = SLU_BUF_INIT;
    uint64_t of = 0;
    int rc = slu_state_get_bytes(s->store, SUMS, &b, err);
    if (rc == SLU_ENOTFOUND) {
        slu_buf_free(&b);
        return 0;
    }
    if (!rc && b.len != 8 + 2 * SLU_SUM_BYTES)
        rc = slu_fail(err, SLU_ECORRUPT, "value '" SUMS "' has %zu bytes", b.len);
    if (!rc) {
        memcpy(&of, b.data, 8);
        slu_hash128 rows = slu_sum_read(b.data + 8), dense = slu_sum_read(b.data + 8 + SLU_SUM_BYTES);
        if (of != version || !same(rows, found.rows) || !same(dense, found.dense))
            rc = slu_fail(err, SLU_ECORRUPT,
                          "version %llu was written with rows that add up to %016llx%016llx, but those found "
                          "add up to %016llx%016llx%s: the disk or the memory has changed a value",
                          (unsigned long long)version, (unsigned long long)rows.hi,
                          (unsigned long long)rows.lo, (unsigned long long)found.rows.hi,
                          (unsigned long long)found.rows.lo,
                          of != version              ? " (and the sums are of another version)"
                          : same(dense, found.dense) ? ""
                                                     : " (and other dense parameters)");
    }
    slu_buf_free(&b);
    return rc;
}

static int load_model(model_store *s, slu_model_table *table, const slu_delta_position *at, slu_error *err)
{
    size_t P = slu_model_dense(table);
    float *dense = malloc((P + 1) * sizeof *dense);
    if (!dense)
        return slu_fail(err, SLU_ENOMEM, "no memory for %zu dense parameters", P);
    int rc = slu_state_get_floats(s->store, "params", dense, P, err);
    if (rc == SLU_ENOTFOUND)
        rc = slu_fail(err, SLU_ECORRUPT, "version %llu has no dense parameters",
                      (unsigned long long)at->version);
    if (!rc && !served_finite(dense, P))
        rc = slu_fail(err, SLU_ECORRUPT, "a dense parameter is not finite");
    if (!rc)
        rc = check_sums(s, at->version, slu_model_next_sums(table, dense), err);
    if (!rc)
        rc = slu_model_publish(table, dense, at->version, at->learned_through_us, err);
    free(dense);
    return rc;
}

int model_store_load(model_store *s, slu_model_table *table, slu_delta_position *at, int64_t *offset,
                     slu_error *err)
{
    *offset = -1;
    int rc = load_position(s, at, err);
    if (!rc)
        rc = slu_model_begin_base(table, err);
    if (!rc)
        rc = at->version ? load_rows(s, table, err) : clear_rows(s, err);
    if (!rc && at->version)
        rc = slu_state_get_offset(s->store, s->topic, 0, offset, err);
    if (!rc && at->version)
        rc = load_model(s, table, at, err);
    if (rc || at->version == 0)
        slu_model_undo(table);
    s->offset = *offset;
    if (rc == SLU_ENOTFOUND)
        rc = slu_fail(err, SLU_ECORRUPT, "version %llu is there without its dense parameters",
                      (unsigned long long)at->version);
    if (rc)
        slu_error_context(err, "store %s, a copy: delete it and it comes back with the trainer's next base",
                          slu_store_path(s->store));
    return rc;
}

/* ---- changes ---- */

typedef struct sweeping {
    model_store *s;
    uint32_t tag; /* ROW_KEY_GENERATION or 0: what is deleted */
} sweeping;

static bool sweep_row(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    sweeping *w = ctx;
    (void)value, (void)value_len;
    if (key_len == ROW_KEY_BYTES && (row_key_tag(key) & ROW_KEY_GENERATION) != w->tag)
        return true;
    slu_commit_delete(w->s->commit, SLU_FAMILY_ROWS, key, key_len);
    write_piece(w->s);
    return true;
}

/* Deletes the rows of the generation that does not count. Whole commits only: nothing else may be pending.
 * Where the disk refuses to write, the deletions wait in the commit; where it refuses to read, it is still to
 * be done. */
static void sweep(model_store *s)
{
    sweeping w = {s, s->generation ^ ROW_KEY_GENERATION};
    slu_error err = SLU_ERROR_INIT;
    uint8_t from[4], to[4];
    row_key_put_u32(from, w.tag);
    row_key_put_u32(to, w.tag | ROW_KEY_GENERATION);
    s->sweep = slu_store_scan(s->store, SLU_FAMILY_ROWS, from, 4, w.tag ? NULL : to, w.tag ? 0 : 4, sweep_row,
                              &w, &err) != 0;
    if (s->sweep)
        SLU_WARN("subscriber", "rows of an earlier base cannot be deleted yet",
                 SLU_STR("reason", err.message));
    else if (!s->failed.code)
        slu_commit_write(s->commit, &s->failed);
}

static bool prune_row(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    model_store *s = ctx;
    (void)value;
    if (key_len == ROW_KEY_BYTES) {
        uint32_t tag = row_key_tag(key), table = tag & ~ROW_KEY_GENERATION;
        uint64_t id = row_key_id(key);
        if ((tag & ROW_KEY_GENERATION) != s->generation)
            return true; /* sweep() is for those */
        if (table < slu_model_tables(s->table) &&
            value_len == slu_model_served(s->table, table) * sizeof(float) &&
            slu_model_has_row(s->table, table, id))
            return true;
    }
    slu_commit_delete(s->commit, SLU_FAMILY_ROWS, key, key_len);
    write_piece(s);
    return true;
}

/* Deletes from the generation that counts what the model does not have. Whole commits only. */
static void prune(model_store *s)
{
    slu_error err = SLU_ERROR_INIT;
    if (slu_store_scan(s->store, SLU_FAMILY_ROWS, NULL, 0, NULL, 0, prune_row, s, &err)) {
        SLU_WARN("subscriber", "rows of an earlier base cannot be deleted yet",
                 SLU_STR("reason", err.message));
        return;
    }
    s->mixed = false;
    slu_state_put_u64(s->commit, MIXED, 0);
    if (!s->failed.code)
        slu_commit_write(s->commit, &s->failed);
}

static void on_begin(void *ctx, bool base)
{
    model_store *s = ctx;
    if (!base) {
        slu_commit_save(s->commit);
        return;
    }
    /* Versions before the base go first, with their offset: pieces of the base are commits of their own. */
    if (s->dirty)
        model_store_commit(s, &s->failed);
    if (s->sweep)
        sweep(s);
    s->foul = s->sweep;
    s->base = true;
}

static void on_abandon(void *ctx)
{
    model_store *s = ctx;
    if (!s->base) {
        slu_commit_take_back(s->commit);
        return;
    }
    if (!s->failed.code) { /* else it holds earlier versions too, and the rows do no harm */
        slu_commit_abandon(s->commit);
        s->commit = slu_commit_begin(s->store);
    }
    s->base = false;
    s->sweep = true;
}

static void on_row(void *ctx, uint32_t table, uint64_t id, const float *v)
{
    model_store *s = ctx;
    uint8_t key[ROW_KEY_BYTES];
    row_key_write(key, (s->base ? s->generation ^ ROW_KEY_GENERATION : s->generation) | table, id);
    if (v)
        slu_commit_put(s->commit, SLU_FAMILY_ROWS, key, sizeof key, v,
                       slu_model_served(s->table, table) * sizeof(float));
    else
        slu_commit_delete(s->commit, SLU_FAMILY_ROWS, key, sizeof key);
    if (s->base)
        write_piece(s);
}

static void on_published(void *ctx, const slu_delta_position *now, const float *dense)
{
    model_store *s = ctx;
    if (s->base) {
        s->generation ^= ROW_KEY_GENERATION;
        s->base = false;
        s->sweep = true;
        s->mixed = s->foul;
        slu_state_put_u64(s->commit, MIXED, s->mixed);
    } else {
        slu_commit_keep(s->commit);
    }
    if (dense)
        slu_state_put_floats(s->commit, "params", dense, slu_model_dense(s->table));
    slu_state_put_u64(s->commit, "scorer.lineage", now->lineage);
    slu_state_put_u64(s->commit, "scorer.version", now->version);
    slu_state_put_u64(s->commit, "scorer.learned_through_us", (uint64_t)now->learned_through_us);
    slu_state_put_u64(s->commit, "scorer.committed_us", (uint64_t)now->committed_us);
    slu_state_put_u64(s->commit, "scorer.generation", s->generation != 0);
    put_sums(s->commit, now->version, slu_model_current_sums(s->table));
    s->dirty = true;
}

slu_delta_sink model_store_sink(model_store *s)
{
    return (slu_delta_sink){on_begin, on_abandon, on_row, on_published, s};
}

void model_store_reached(model_store *s, int64_t offset)
{
    s->offset = offset;
}

bool model_store_dirty(const model_store *s)
{
    return s->dirty;
}

bool model_store_mixed(const model_store *s)
{
    return s->mixed;
}

size_t model_store_pending(const model_store *s)
{
    return slu_commit_bytes(s->commit);
}

int model_store_retry(model_store *s, slu_error *err)
{
    int rc = slu_commit_write(s->commit, err);
    if (!rc)
        slu_error_clear(&s->failed);
    return rc;
}

int model_store_commit(model_store *s, slu_error *err)
{
    assert(!s->base);
    if (s->failed.code && &s->failed != err) { /* a piece: what it held is still in the commit */
        SLU_WARN("subscriber", "the scorer's store refused a write; trying again",
                 SLU_STR("reason", s->failed.message));
        slu_error_clear(&s->failed);
    }
    if (s->offset >= 0)
        slu_state_put_offset(s->commit, s->topic, 0, s->offset);
    int rc = slu_commit_write(s->commit, err);
    if (rc)
        return rc;
    s->dirty = false;
    if (s->mixed)
        prune(s);
    if (s->sweep)
        sweep(s);
    return 0;
}
