/* train: how fast the learner's step is for one large network, on batches that its twins learn too.
 *
 *   train make zipf|uniform SEED BATCHES FILE     writes batches and first parameters (and FILE.json)
 *   train run FILE WARM TIMED [SET...]            learns WARM + TIMED batches; JSON with times and losses
 *   train floor THREADS                           bare products and memory traffic of a step; JSON
 *
 * bench/train.py calls these and bench/peers/train_torch.py and compares. */
#include "bench/floor.h"
#include "bench/measure.h"
#include "bench/train_data.h"
#include "feature/value.h"
#include "model/loss.h"
#include "model/products.h"
#include "model/spec.h"
#include "trainer/learner.h"
#include <dirent.h>
#include <math.h>
#include <string.h>
#include <unistd.h>

enum { ROWS_AT_ONCE = 512 };

typedef struct trained {
    slu_options *options;
    slu_schema *schema;
    slu_encoder *encoder;
    slu_encoded *x; /* one record */
    slu_store *store;
    slu_learner *learner;
    char directory[64];
    float *seen; /* (B, tasks) logits of the last step */
    uint32_t n_seen;
} trained;

static void need(int rc, const slu_error *err)
{
    must(rc >= 0, err->message);
}

/* ---- setting up ---- */

static void encode(trained *t, const uint32_t *ids)
{
    slu_value values[TRAIN_SLOTS];
    slu_values fields[TRAIN_SLOTS];
    for (uint32_t s = 0; s < TRAIN_SLOTS; s++) {
        values[s] = slu_integer_value(ids[s] - s * TRAIN_IDS);
        fields[s] = (slu_values){&values[s], 1};
    }
    slu_encode(t->encoder, fields, t->x);
}

/* Brings every row into memory; |rows| (ids, dim), if any, receives the embeddings. A slot has a table of its
 * own. */
static void make_rows(trained *t, float *rows)
{
    slu_error err = SLU_ERROR_INIT;
    slu_row_table *table = slu_learner_rows(t->learner);
    const uint32_t dim = slu_learner_layout(t->learner, 0)->dim;
    static uint64_t ids[TRAIN_SLOTS][ROWS_AT_ONCE];
    static slu_row *got[ROWS_AT_ONCE];
    for (uint32_t at = 0; at < TRAIN_IDS; at += ROWS_AT_ONCE) {
        uint32_t n = TRAIN_IDS - at < ROWS_AT_ONCE ? TRAIN_IDS - at : ROWS_AT_ONCE, raw[TRAIN_SLOTS];
        for (uint32_t i = 0; i < n; i++) {
            for (uint32_t s = 0; s < TRAIN_SLOTS; s++)
                raw[s] = s * TRAIN_IDS + at + i;
            encode(t, raw);
            for (uint32_t s = 0; s < TRAIN_SLOTS; s++)
                ids[s][i] = slu_encoded_ids(t->x)[s];
        }
        for (uint32_t s = 0; s < TRAIN_SLOTS; s++) {
            need(slu_row_table_fetch(table, s, ids[s], n, got, &err), &err);
            for (uint32_t i = 0; rows && i < n; i++)
                memcpy(rows + ((size_t)s * TRAIN_IDS + at + i) * dim, got[i]->v, dim * sizeof *rows);
            need(slu_row_table_release(table, &err), &err);
        }
    }
}

static void open_all(trained *t, const char *const *sets, size_t n_sets)
{
    slu_error err = SLU_ERROR_INIT;
    *t = (trained){.directory = "/tmp/sluice-train-XXXXXX"};
    must(mkdtemp(t->directory) != NULL, "no directory below /tmp");
    need(slu_options_load("bench/mmoe24.yaml", sets, n_sets, &t->options, &err), &err);
    need(slu_schema_new(t->options, &t->schema, &err), &err);
    slu_store_config config = {.path = t->directory,
                               .block_cache_bytes = 64 << 20,
                               .create = true,
                               .schema_text = slu_schema_text(t->schema)};
    need(slu_store_open(&config, &t->store, &err), &err);
    need(slu_learner_open(t->options, t->schema, t->store, &t->learner, &err), &err);
    t->encoder = slu_encoder_new(t->schema);
    t->x = malloc(slu_encoded_max(t->schema));
    t->seen = malloc((size_t)t->options->training.batch_size * TRAIN_TASKS * sizeof *t->seen);
    must(t->encoder && t->x && t->seen, "out of memory");
}

static void close_all(trained *t)
{
    slu_learner_close(t->learner);
    slu_store_close(t->store);
    slu_encoder_free(t->encoder);
    slu_schema_free(t->schema);
    slu_options_free(t->options);
    free(t->x);
    free(t->seen);
    DIR *d = opendir(t->directory);
    for (struct dirent *e; d && (e = readdir(d));)
        unlinkat(dirfd(d), e->d_name, 0);
    if (d)
        closedir(d);
    rmdir(t->directory);
}

/* ---- make ---- */

static void write_names(const trained *t, const char *path)
{
    slu_error err = SLU_ERROR_INIT;
    slu_net *net;
    need(slu_net_of(t->options, slu_schema_inputs(t->schema), &net, &err), &err);
    train_data_write_names(net, path);
    slu_net_free(net);
}

static int make(const char *distribution, const char *seed, const char *batches, const char *path)
{
    trained t;
    train_data d;
    open_all(&t, NULL, 0);
    train_data_make(&d, strcmp(distribution, "zipf") == 0, strtoull(seed, NULL, 10),
                    (uint32_t)strtoul(batches, NULL, 10), t.options->training.batch_size);
    size_t n_dense;
    const float *dense = slu_learner_dense(t.learner, &n_dense);
    d.n_dense = (uint32_t)n_dense;
    d.dim = slu_learner_layout(t.learner, 0)->dim;
    d.rows = malloc((size_t)TRAIN_SLOTS * TRAIN_IDS * d.dim * sizeof *d.rows);
    d.dense = malloc(n_dense * sizeof *d.dense);
    must(d.rows && d.dense, "out of memory");
    memcpy(d.dense, dense, n_dense * sizeof *dense);
    make_rows(&t, d.rows);
    train_data_write(&d, path);
    write_names(&t, path);
    train_data_free(&d);
    close_all(&t);
    return 0;
}

/* ---- run ---- */

static int note(void *ctx, slu_hash128 key, const float *logits, slu_error *err)
{
    trained *t = ctx;
    (void)key, (void)err;
    memcpy(t->seen + (size_t)t->n_seen++ * TRAIN_TASKS, logits, TRAIN_TASKS * sizeof *logits);
    return 0;
}

static void fill(trained *t, const train_data *d, uint32_t batch, slu_batch *out)
{
    slu_batch_clear(out);
    for (uint32_t b = 0; b < d->B; b++) {
        size_t at = (size_t)batch * d->B + b;
        encode(t, d->ids + at * TRAIN_SLOTS);
        const uint8_t *label = d->labels + at * TRAIN_TASKS;
        slu_sample s = {.key = {at, at},
                        .time_us = 1700000000000000 + (int64_t)at,
                        .say = {SLU_SAY_LABEL, SLU_SAY_LABEL},
                        .labels = (uint8_t)(label[0] | label[1] << 1),
                        .arrival = true,
                        .x = t->x};
        slu_batch_add(out, &s, 0);
    }
}

/* Area under the curve of P(click) over what was seen, by ranks. */
typedef struct scored {
    float score;
    uint8_t label;
} scored;

static int by_score(const void *a, const void *b)
{
    float x = ((const scored *)a)->score, y = ((const scored *)b)->score;
    return (x > y) - (x < y);
}

static double auc(scored *s, size_t n)
{
    double positives = 0, ranks = 0;
    qsort(s, n, sizeof *s, by_score);
    for (size_t i = 0; i < n; i++)
        if (s[i].label) {
            positives++;
            ranks += (double)i + 1;
        }
    return (ranks - positives * (positives + 1) / 2) / (positives * ((double)n - positives));
}

static int run(const char *path, uint32_t warm, uint32_t timed, const char *const *sets, size_t n_sets)
{
    slu_error err = SLU_ERROR_INIT;
    train_data d;
    trained t;
    train_data_read(&d, path);
    open_all(&t, sets, n_sets);
    must(t.options->training.batch_size == d.B, "batches of another size than the config's");
    must(warm + timed <= d.batches, "the file has fewer batches than that");
    make_rows(&t, NULL);
    slu_batch *batch = slu_batch_new(t.schema, d.B);
    double *cpu = malloc((timed + 1) * sizeof *cpu), *wall = malloc((timed + 1) * sizeof *wall);
    scored *scores = malloc((size_t)(warm + timed) * d.B * sizeof *scores);
    must(batch && cpu && wall && scores, "out of memory");
    printf("{\"backend\": \"%s\", \"bf16_unit\": %s, \"losses\": [", slu_learner_products(t.learner),
           slu_products_best(true, NULL) == SLU_PRODUCTS_BF16 ? "true" : "false");
    for (uint32_t i = 0; i < warm + timed; i++) {
        double loss;
        uint32_t said;
        fill(&t, &d, i, batch);
        t.n_seen = 0;
        double cpu_before = cpu_seconds(), wall_before = wall_seconds();
        need(slu_learner_step(t.learner, batch, INT64_MIN, note, &t, &loss, &said, &err), &err);
        if (i >= warm) {
            cpu[i - warm] = cpu_seconds() - cpu_before;
            wall[i - warm] = wall_seconds() - wall_before;
        }
        printf("%s%.9g", i ? ", " : "", loss / d.B);
        for (uint32_t b = 0; b < d.B; b++)
            scores[(size_t)i * d.B + b] =
                (scored){t.seen[b * TRAIN_TASKS], d.labels[((size_t)i * d.B + b) * TRAIN_TASKS]};
    }
    printf("],\n \"cpu_ms\": %.4f, \"wall_ms\": %.4f, \"auc\": %.6f}\n", 1e3 * median_of(cpu, timed),
           1e3 * median_of(wall, timed), auc(scores, (size_t)(warm + timed) * d.B));
    free(cpu);
    free(wall);
    free(scores);
    slu_batch_free(batch);
    train_data_free(&d);
    close_all(&t);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 6 && strcmp(argv[1], "make") == 0)
        return make(argv[2], argv[3], argv[4], argv[5]);
    if (argc >= 5 && strcmp(argv[1], "run") == 0)
        return run(argv[2], (uint32_t)atoi(argv[3]), (uint32_t)atoi(argv[4]), (const char *const *)argv + 5,
                   (size_t)argc - 5);
    if (argc == 3 && strcmp(argv[1], "floor") == 0)
        return floor_print((uint32_t)atoi(argv[2]));
    fprintf(stderr, "usage: train make zipf|uniform SEED BATCHES FILE | train run FILE WARM TIMED [SET...] | "
                    "train floor THREADS\n");
    return 2;
}
