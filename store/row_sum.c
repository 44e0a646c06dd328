#include "store/row_sum.h"
#include "store/row_scan.h"
#include "store/row_table.h"
#include "store/row_value.h"
#include "store/state.h"
#include <stdlib.h>
#include <string.h>

static const char RECORD[] = "~row_sum";

/* In a scorer's store bit 31 of the table tells the two generations apart (serving/model_store.h). */
#define GENERATION (1u << 31)

/* ---- the record ---- */

typedef struct record {
    uint64_t version;
    slu_row_sum sum;
    uint32_t n_tables;
    uint32_t *served; /* (n_tables), owned */
    uint64_t *rows;   /* (n_tables), owned */
} record;

enum { TABLE_BYTES = sizeof(uint32_t) + sizeof(uint64_t) };

static void record_free(record *r)
{
    free(r->served);
    free(r->rows);
}

void slu_row_sum_record(slu_commit *c, uint64_t version, const uint32_t *served, const uint64_t *rows,
                        uint32_t n_tables, slu_row_sum sum)
{
    slu_buf b = SLU_BUF_INIT;
    uint8_t bytes[SLU_SUM_BYTES];
    slu_sum_write(bytes, sum);
    slu_put_u64(&b, version);
    slu_put_bytes(&b, bytes, sizeof bytes);
    slu_put_u32(&b, n_tables);
    for (uint32_t i = 0; i < n_tables; i++) {
        slu_put_u32(&b, served[i]);
        slu_put_u64(&b, rows[i]);
    }
    slu_state_put_bytes(c, RECORD, b.data, b.len);
    slu_buf_free(&b);
}

/* SLU_ENOTFOUND, without a message, when there is none. */
static int read_record(slu_store *s, record *out, slu_error *err)
{
    slu_buf b = SLU_BUF_INIT;
    *out = (record){0};
    int rc = slu_state_get_bytes(s, RECORD, &b, err);
    if (rc)
        goto done;
    slu_reader r = slu_reader_of(b.data, b.len);
    out->version = slu_get_u64(&r);
    const uint8_t *sum = slu_get_bytes(&r, SLU_SUM_BYTES);
    out->n_tables = slu_get_u32(&r);
    if (r.bad || slu_reader_left(&r) != (size_t)out->n_tables * TABLE_BYTES) {
        rc = slu_fail(err, SLU_ECORRUPT, "store %s: value '%s' is damaged; restore a backup",
                      slu_store_path(s), RECORD);
        goto done;
    }
    out->sum = slu_sum_read(sum);
    out->served = malloc((out->n_tables + 1) * sizeof *out->served);
    out->rows = malloc((out->n_tables + 1) * sizeof *out->rows);
    if (!out->served || !out->rows) {
        rc = slu_fail(err, SLU_ENOMEM, "store %s: out of memory", slu_store_path(s));
        goto done;
    }
    for (uint32_t i = 0; i < out->n_tables; i++) {
        out->served[i] = slu_get_u32(&r);
        out->rows[i] = slu_get_u64(&r);
    }
done:
    slu_buf_free(&b);
    return rc;
}

/* ---- a trainer's rows ---- */

typedef struct summing {
    const char *path;
    const uint32_t *served; /* (n_tables) */
    uint32_t n_tables;
    slu_row_sum sum;
    uint64_t *rows; /* (n_tables) */
    int rc;
    slu_error *err;
} summing;

static bool sum_row(void *ctx, uint32_t table, uint64_t id, uint32_t count, uint32_t last_seen, bool admitted,
                    const float *v, uint32_t floats)
{
    summing *g = ctx;
    (void)count, (void)last_seen;
    if (!admitted)
        return true;
    if (table >= g->n_tables || floats < g->served[table]) {
        g->rc = slu_fail(g->err, SLU_EFORMAT,
                         "store %s: row %llu of table %u has %u floats, which this model does not know",
                         g->path, (unsigned long long)id, table, floats);
        return false;
    }
    slu_row_sum_add(&g->sum, table, id, v, g->served[table]);
    g->rows[table]++;
    return true;
}

static int sum_rows(slu_store *s, const uint32_t *served, uint32_t n_tables, slu_row_sum *out, uint64_t *rows,
                    slu_error *err)
{
    summing g = {.path = slu_store_path(s), .served = served, .n_tables = n_tables, .rows = rows, .err = err};
    memset(rows, 0, n_tables * sizeof *rows);
    int rc = slu_row_scan(s, sum_row, &g, err);
    *out = g.sum;
    return rc ? rc : g.rc;
}

int slu_row_sum_load(slu_store *s, uint64_t version, const uint32_t *served, uint32_t n_tables,
                     slu_row_sum *out, uint64_t *rows, slu_error *err)
{
    record r;
    int rc = read_record(s, &r, err);
    bool good = !rc && r.version == version && r.n_tables == n_tables &&
                !memcmp(r.served, served, n_tables * sizeof *served);
    if (good) {
        *out = r.sum;
        memcpy(rows, r.rows, n_tables * sizeof *rows);
    } else if (!rc || rc == SLU_ENOTFOUND) {
        rc = sum_rows(s, served, n_tables, out, rows, err);
    }
    record_free(&r);
    return rc;
}

/* ---- a scorer's rows ---- */

typedef struct scorer_summing {
    uint32_t generation; /* 0 or GENERATION: of the rows that count */
    slu_store_sums *out;
    slu_buf floats; /* aligned copy of one row's */
    bool bad;
} scorer_summing;

static bool sum_scorer_row(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    scorer_summing *g = ctx;
    uint32_t table;
    uint64_t id;
    g->bad = slu_row_key_parse(key, key_len, &table, &id, NULL) || value_len % sizeof(float);
    if (g->bad)
        return false;
    if ((table & GENERATION) != g->generation)
        return true;
    slu_buf_clear(&g->floats);
    slu_put_bytes(&g->floats, value, value_len);
    slu_row_sum_add(&g->out->row_sum, table & ~GENERATION, id, (const float *)(void *)g->floats.data,
                    (uint32_t)(value_len / sizeof(float)));
    g->out->rows++;
    return true;
}

static int sum_scorer(slu_store *s, slu_store_sums *out, slu_error *err)
{
    uint64_t generation;
    scorer_summing g = {.out = out};
    int rc = slu_state_get_u64(s, "scorer.generation", 0, &generation, err);
    if (rc)
        return rc;
    g.generation = generation ? GENERATION : 0;
    rc = slu_store_scan(s, SLU_FAMILY_ROWS, NULL, 0, NULL, 0, sum_scorer_row, &g, err);
    slu_buf_free(&g.floats);
    if (!rc && g.bad)
        rc = slu_fail(err, SLU_ECORRUPT, "store %s: a row cannot be read", slu_store_path(s));
    return rc;
}

/* ---- any store ---- */

static int digest_dense(slu_store *s, slu_hash128 *out, slu_error *err)
{
    static const char NAME[] = "params";
    slu_buf b = SLU_BUF_INIT;
    const uint8_t *v;
    size_t n;
    int rc = slu_store_get(s, SLU_FAMILY_DENSE, NAME, strlen(NAME), &b, err);
    if (rc == SLU_ENOTFOUND)
        rc = slu_fail(err, rc, "there is no model yet");
    if (!rc)
        rc = slu_state_parse_floats(b.data, b.len, &v, &n, err);
    if (rc)
        slu_error_context(err, "store %s: dense '%s'", slu_store_path(s), NAME);
    else
        *out = slu_hash_128(v, n * sizeof(float), 0);
    slu_buf_free(&b);
    return rc;
}

static int sum_trainer(slu_store *s, slu_store_sums *out, slu_error *err)
{
    record r;
    int rc = read_record(s, &r, err);
    if (rc == SLU_ENOTFOUND)
        rc = slu_fail(
            err, rc,
            "store %s: no sum was recorded: its last commit is of an older version of Sluice; let the "
            "trainer commit once",
            slu_store_path(s));
    uint64_t *rows = rc ? NULL : calloc(r.n_tables + 1, sizeof *rows);
    if (!rc && !rows)
        rc = slu_fail(err, SLU_ENOMEM, "store %s: out of memory", slu_store_path(s));
    if (!rc)
        rc = sum_rows(s, r.served, r.n_tables, &out->row_sum, rows, err);
    for (uint32_t i = 0; !rc && i < r.n_tables; i++) {
        out->rows += rows[i];
        out->record_rows += r.rows[i];
    }
    out->recorded = !rc && r.version == out->version;
    out->record = r.sum;
    free(rows);
    record_free(&r);
    return rc;
}

int slu_store_sums_of(slu_store *s, slu_store_sums *out, slu_error *err)
{
    *out = (slu_store_sums){0};
    int rc = digest_dense(s, &out->dense_digest, err);
    uint64_t scorer = 0;
    if (!rc)
        rc = slu_state_get_u64(s, "scorer.version", 0, &scorer, err);
    out->scorer = scorer != 0;
    out->version = scorer;
    if (!rc && !scorer)
        rc = slu_state_get_u64(s, "~version", 0, &out->version, err);
    if (rc)
        return rc;
    return scorer ? sum_scorer(s, out, err) : sum_trainer(s, out, err);
}
