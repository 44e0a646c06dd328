/* start: how long a scorer takes from its store to a model that answers, without Kafka and gRPC.
 *
 *   start make DIRECTORY ROWS     writes a store of the network of bench/mmoe24.yaml with ROWS rows in all
 *   start load DIRECTORY RUNS     loads it RUNS times, each time into an empty table; prints JSON
 *
 * Ids are hashes, as they are in life; the store is compacted by RocksDB as it likes. bench/start.py makes
 * and loads. */
#include "base/rng.h"
#include "bench/measure.h"
#include "model/spec.h"
#include "serving/model_store.h"
#include "serving/served.h"
#include <string.h>

enum { MOST_FLOATS = 64, MOST_RUNS = 101 };

typedef struct bench {
    slu_options *options;
    slu_schema *schema;
    slu_net *net;
    slu_model_table *table;
    model_store *store;
    slu_delta_position at;
} bench;

static void need(int rc, const slu_error *err)
{
    must(rc >= 0, err->message);
}

static void open_store(bench *b, const char *directory)
{
    char set[512];
    const char *sets[] = {set};
    slu_error err = SLU_ERROR_INIT;
    int64_t offset;
    snprintf(set, sizeof set, "serving.store=%s", directory);
    *b = (bench){0};
    need(slu_options_load("bench/mmoe24.yaml", sets, 1, &b->options, &err), &err);
    need(slu_schema_new(b->options, &b->schema, &err), &err);
    need(slu_net_of(b->options, slu_schema_inputs(b->schema), &b->net, &err), &err);
    need(slu_served_table(b->options, b->schema, b->net, 0, &b->table, &err), &err);
    need(model_store_open(b->options, b->schema, b->table, &b->store, &err), &err);
    need(model_store_load(b->store, b->table, &b->at, &offset, &err), &err);
}

static void close_store(bench *b)
{
    model_store_close(b->store);
    slu_model_table_free(b->table);
    slu_net_free(b->net);
    slu_schema_free(b->schema);
    slu_options_free(b->options);
}

/* One base with all rows, as the subscriber would take it. */
static int make(const char *directory, uint64_t rows)
{
    bench b;
    slu_error err = SLU_ERROR_INIT;
    slu_rng r;
    float v[MOST_FLOATS];
    open_store(&b, directory);
    must(b.at.version == 0, "the directory holds a model already");
    slu_rng_seed(&r, 1);
    float *dense = malloc(slu_net_params(b.net) * sizeof *dense);
    must(dense != NULL, "out of memory");
    slu_net_init(b.net, dense);
    slu_delta_sink sink = model_store_sink(b.store);
    need(slu_model_begin_base(b.table, &err), &err);
    sink.begin(sink.ctx, true);
    for (uint64_t i = 0; i < rows; i++) {
        uint32_t table = (uint32_t)(i % slu_model_tables(b.table)), n = slu_model_served(b.table, table);
        must(n <= MOST_FLOATS, "rows of more floats than this program knows");
        for (uint32_t k = 0; k < n; k++)
            v[k] = (float)slu_rng_unit(&r) - .5f;
        need(slu_model_put_row(b.table, table, slu_mix64(i), v, &err), &err);
        sink.row(sink.ctx, table, slu_mix64(i), v);
    }
    need(slu_model_publish(b.table, dense, 1, 0, &err), &err);
    sink.published(sink.ctx, &(slu_delta_position){.lineage = 1, .version = 1}, dense);
    model_store_reached(b.store, 1);
    need(model_store_commit(b.store, &err), &err);
    free(dense);
    close_store(&b);
    return 0;
}

static int load(const char *directory, uint32_t runs)
{
    static double wall[MOST_RUNS], cpu[MOST_RUNS];
    uint64_t rows = 0;
    must(runs > 0 && runs <= MOST_RUNS, "1 to 101 runs");
    for (uint32_t i = 0; i < runs; i++) {
        bench b;
        double w = wall_seconds(), c = cpu_seconds();
        open_store(&b, directory);
        wall[i] = wall_seconds() - w;
        cpu[i] = cpu_seconds() - c;
        must(b.at.version == 1, "the directory holds no model: 'start make' first");
        rows = slu_model_rows(b.table);
        close_store(&b);
    }
    printf("{\"rows\": %llu, \"wall_s\": %.4f, \"cpu_s\": %.4f}\n", (unsigned long long)rows,
           median_of(wall, runs), median_of(cpu, runs));
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 4 && strcmp(argv[1], "make") == 0)
        return make(argv[2], (uint64_t)strtod(argv[3], NULL));
    if (argc == 4 && strcmp(argv[1], "load") == 0)
        return load(argv[2], (uint32_t)atoi(argv[3]));
    fprintf(stderr, "usage: start make DIRECTORY ROWS | start load DIRECTORY RUNS\n");
    return 2;
}
