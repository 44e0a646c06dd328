/* What a scorer keeps on disk, damaged: rows of both generations, dense vector, position, offset. A scorer
 * has applied a base and a delta and stopped; the input says what happens to its entries; then a new one
 * loads them. It refuses with a code and a message, or serves one version of finite numbers, takes the next
 * delta, and what it then stores loads again as it was. */
#include "base/log.h"
#include "serving/delta_applier.h"
#include "serving/model_store.h"
#include "serving/served.h"
#include "tests/feature_sample.h"
#include "tests/fuzz/damage.h"
#include "tests/fuzz/require.h"
#include "trainer/delta.h"
#include <math.h>

#define DENSE 20u
#define ROWS  6u

static slu_options options;
static slu_schema *schema;
static uint32_t served[64];
static slu_delta_builder *builder;
static memory_copy *stopped[2];
static slu_error err;

typedef struct scorer {
    slu_model_table *table;
    slu_delta_applier *applier;
    model_store *store;
    slu_delta_position at;
    int64_t offset;
} scorer;

static void apply(void *ctx, const void *message, size_t len)
{
    slu_error why = SLU_ERROR_INIT;
    scorer *s = ctx;
    int rc = slu_delta_apply(s->applier, message, len, &why);
    REQUIRE(rc == 1 || (rc <= 0 && rc == why.code));
    if (s->offset < INT64_MAX) /* a damaged one may be the last there is; Kafka's never are */
        s->offset++;
    model_store_reached(s->store, s->offset);
}

static void send_version(scorer *s, uint64_t version, bool base)
{
    float row[64], dense[DENSE];
    for (uint32_t i = 0; i < 64; i++)
        row[i] = (float)version;
    for (uint32_t i = 0; i < DENSE; i++)
        dense[i] = (float)version / 2;
    slu_delta_head head = {.lineage = 7,
                           .version = version,
                           .previous_version = version - 1,
                           .base = base,
                           .schema_fingerprint = slu_schema_fingerprint(schema),
                           .schema_text = slu_schema_text(schema),
                           .learned_through_us = (int64_t)(version * 1000),
                           .committed_us = (int64_t)(version * 1000 + 1)};
    slu_delta_begin(builder, &head);
    for (uint32_t t = 0; t < slu_schema_tables(schema); t++)
        for (uint64_t id = version; id < version + ROWS; id++)
            slu_delta_row(builder, t, id * 0x9e3779b97f4a7c15ULL, row);
    slu_delta_tombstone(builder, 0, version * 0x9e3779b97f4a7c15ULL);
    slu_delta_dense(builder, dense, DENSE);
    slu_delta_finish(builder, apply, s);
}

static int start(scorer *s)
{
    *s = (scorer){.offset = -1};
    slu_error_clear(&err);
    REQUIRE(!slu_model_table_new(served, slu_schema_tables(schema), DENSE, 64 << 20, &s->table, &err));
    s->applier = slu_delta_applier_new(schema, s->table);
    int rc = model_store_open(&options, schema, s->table, &s->store, &err);
    if (!rc)
        rc = model_store_load(s->store, s->table, &s->at, &s->offset, &err);
    REQUIRE(rc == err.code && (!rc || err.message[0]));
    if (rc)
        return rc;
    slu_delta_sink sink = model_store_sink(s->store);
    slu_delta_applier_sink(s->applier, &sink);
    slu_delta_applier_resume(s->applier, &s->at);
    return 0;
}

static void stop(scorer *s)
{
    slu_delta_applier_free(s->applier);
    model_store_close(s->store);
    slu_model_table_free(s->table);
}

static void check(const scorer *s)
{
    slu_model_view v = slu_model_current(s->table);
    slu_model_reader *r = slu_model_reader_new(s->table);
    float row[64];
    REQUIRE(v.version == s->at.version && s->offset >= -1);
    for (uint32_t i = 0; v.version && i < DENSE; i++)
        REQUIRE(isfinite(v.dense[i]));
    slu_model_read_begin(r);
    for (uint32_t t = 0; t < slu_schema_tables(schema); t++)
        for (uint64_t k = 0; k < 20; k++) {
            uint64_t id = k * 0x9e3779b97f4a7c15ULL;
            slu_model_read_rows(r, t, &id, 1, row);
            for (uint32_t i = 0; i < served[t]; i++)
                REQUIRE(isfinite(row[i]));
        }
    slu_model_read_end(r);
    slu_model_reader_free(r);
}

static void set_up(void)
{
    scorer s;
    slu_log_setup(SLU_LOG_ERROR + 1, SLU_LOGFMT);
    options = sample_options;
    options.n_features = 2;
    options.kafka.delta_topic = (char *)"d";
    options.serving.store_path = (char *)"memory";
    REQUIRE(!slu_schema_new(&options, &schema, NULL));
    served_floats(&options, schema, served);
    builder = slu_delta_builder_new(served, slu_schema_tables(schema), 1 << 16);
    memory_store_clear();
    REQUIRE(!start(&s));
    send_version(&s, 1, true);
    send_version(&s, 2, false);
    REQUIRE(!model_store_commit(s.store, &err));
    stopped[0] = memory_store_copy();
    send_version(&s, 3, true); /* the other generation, and the first one not swept away yet */
    REQUIRE(!model_store_commit(s.store, &err));
    stopped[1] = memory_store_copy();
    stop(&s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    scorer s, again;
    if (!schema)
        set_up();
    damage_bytes b = {data, size};
    memory_store_restore(stopped[damage_take(&b, 1) % 2]);
    unsigned failing = (unsigned)damage_take(&b, 1);
    for (int i = 0; i < 12 && b.n; i++)
        damage_once(&b);
    memory_store_fail(failing);
    if (!start(&s)) {
        check(&s);
        uint64_t version = s.at.version;
        send_version(&s, version < UINT64_MAX ? version + 1 : version, data[0] & 4);
        s.at = slu_delta_applier_position(s.applier);
        check(&s);
        slu_error_clear(&err);
        int rc = model_store_commit(s.store, &err);
        if (rc) /* an injected failure: nothing is lost, the next attempt writes it */
            rc = model_store_commit(s.store, &(slu_error)SLU_ERROR_INIT);
        memory_store_fail(0);
        if (!rc) {
            REQUIRE(!start(&again));
            check(&again);
            if (!model_store_mixed(s.store)) {
                REQUIRE(again.at.version == s.at.version && again.at.lineage == s.at.lineage);
                REQUIRE(!s.at.version || again.offset == s.offset);
                REQUIRE(slu_model_rows(again.table) == slu_model_rows(s.table));
            }
            stop(&again);
        }
    }
    memory_store_fail(0);
    stop(&s);
    return 0;
}
