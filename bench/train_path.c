/* train_path: how many samples a second one core learns, raw and on the whole path.
 *
 *   train_path CONFIG DATA [RUNS [SET...]] > build/bench/train_path.json
 *
 * "step" is slu_learner_step() alone, on batches that are ready in memory: the first IMPRESSIONS of the
 * files, in the order in which they came ("pages": neighbours share their user) and shuffled ("mixed": they
 * do not). "replay" is all of it, from the gzipped files to the last commit. Time is CPU time of the whole
 * process (user and system, RocksDB's threads included), so that a busy machine disturbs little; each figure
 * is the median of RUNS runs. A table goes to standard error, JSON to standard output. */
#include "base/rng.h"
#include "feature/encode.h"
#include "model/gemm.h"
#include "model/loss.h"
#include "trainer/learner.h"
#include "trainer/pipeline.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

enum { IMPRESSIONS = 50000, MOST_RUNS = 15 };

typedef struct bench {
    const char *config, *data;
    const char *const *sets;
    size_t n_sets;
    int runs;
    slu_options *options; /* of the current case */
    slu_schema *schema;
    slu_encoded **x; /* (n) */
    uint32_t n;
    bool some; /* a row of JSON was written */
} bench;

static void need(int rc, const slu_error *err)
{
    if (rc >= 0)
        return;
    fprintf(stderr, "train_path: %s\n", err->message);
    exit(1);
}

static double cpu_seconds(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void report(bench *b, const char *what, uint32_t batch, uint64_t samples, double *seconds)
{
    qsort(seconds, (size_t)b->runs, sizeof *seconds, ascending);
    double median = seconds[b->runs / 2];
    fprintf(stderr, "%-14s %6u %10llu %12.0f %8.2f   (%.2f .. %.2f s)\n", what, batch,
            (unsigned long long)samples, (double)samples / median, median * 1e6 / (double)samples, seconds[0],
            seconds[b->runs - 1]);
    printf("%s{\"case\": \"%s\", \"batch_size\": %u, \"samples\": %llu, \"cpu_seconds\": %.3f, "
           "\"samples_per_cpu_second\": %.0f}",
           b->some ? ",\n  " : "", what, batch, (unsigned long long)samples, median,
           (double)samples / median);
    b->some = true;
}

/* ---- a store for one run ---- */

static void remove_flat_directory(const char *dir)
{
    DIR *d = opendir(dir);
    if (!d)
        return;
    for (struct dirent *e; (e = readdir(d));)
        unlinkat(dirfd(d), e->d_name, 0);
    closedir(d);
    rmdir(dir);
}

static slu_store *open_store(const bench *b, char dir[])
{
    slu_error err = SLU_ERROR_INIT;
    slu_store *store;
    if (!mkdtemp(dir)) {
        perror(dir);
        exit(1);
    }
    slu_store_config config = {.path = dir,
                               .block_cache_bytes = b->options->store.block_cache_bytes,
                               .create = true,
                               .schema_text = slu_schema_text(b->schema)};
    need(slu_store_open(&config, &store, &err), &err);
    return store;
}

static void open_case(bench *b, uint32_t batch)
{
    slu_error err = SLU_ERROR_INIT;
    char size[64];
    const char *sets[32];
    size_t n = 0;
    for (; n < b->n_sets && n < 31; n++)
        sets[n] = b->sets[n];
    snprintf(size, sizeof size, "training.batch_size=%u", batch);
    if (batch)
        sets[n++] = size;
    need(slu_options_load(b->config, sets, n, &b->options, &err), &err);
    need(slu_schema_new(b->options, &b->schema, &err), &err);
}

static void close_case(bench *b)
{
    slu_schema_free(b->schema);
    slu_options_free(b->options);
}

/* ---- the step alone ---- */

static void read_impressions(bench *b)
{
    slu_error err = SLU_ERROR_INIT;
    slu_source *source;
    slu_record r;
    slu_encoder *encoder = slu_encoder_new(b->schema);
    need(slu_file_source_open(b->options, b->schema, b->data, NULL, &source, &err), &err);
    b->x = calloc(IMPRESSIONS, sizeof *b->x);
    int rc;
    while (b->n < IMPRESSIONS && (rc = slu_source_next(source, 0, &r, &err)) != SLU_ECLOSED) {
        need(rc, &err);
        if (rc != 1 || r.kind != SLU_RECORD_EVENT || !r.event || r.event->kind != SLU_EVENT_IMPRESSION)
            continue;
        b->x[b->n] = malloc(slu_encoded_max(b->schema));
        slu_encode(encoder, r.event->fields, b->x[b->n++]);
    }
    source->ops->close(source);
    slu_encoder_free(encoder);
}

static void shuffle(bench *b)
{
    slu_rng r;
    slu_rng_seed(&r, 1);
    for (uint32_t i = b->n; i > 1; i--) {
        uint32_t j = (uint32_t)slu_rng_below(&r, i);
        slu_encoded *x = b->x[i - 1];
        b->x[i - 1] = b->x[j];
        b->x[j] = x;
    }
}

static int ignore_prediction(void *ctx, slu_hash128 key, const float *logits, slu_error *err)
{
    (void)ctx, (void)key, (void)logits, (void)err;
    return 0;
}

/* Learns every impression once, as a fake negative. */
static void learn_all(const bench *b, slu_learner *learner, slu_batch *batch)
{
    slu_error err = SLU_ERROR_INIT;
    for (uint32_t i = 0; i < b->n; i++) {
        slu_sample s = {.key = {i, i}, .time_us = 1, .arrival = true, .x = b->x[i]};
        for (uint32_t t = 0; t < b->options->n_steps; t++)
            s.say[t] = SLU_SAY_FNW_NEGATIVE;
        slu_batch_add(batch, &s, 0);
        if (!slu_batch_full(batch) && i + 1 < b->n)
            continue;
        double loss;
        uint32_t said;
        need(slu_learner_step(learner, batch, INT64_MIN, ignore_prediction, NULL, &loss, &said, &err), &err);
        slu_batch_clear(batch);
    }
}

static void bench_step(bench *b, const char *what, uint32_t size)
{
    double seconds[MOST_RUNS];
    open_case(b, size);
    for (int run = 0; run < b->runs; run++) {
        slu_error err = SLU_ERROR_INIT;
        char dir[] = "/tmp/train-path-XXXXXX";
        slu_learner *learner;
        slu_store *store = open_store(b, dir);
        need(slu_learner_open(b->options, b->schema, store, &learner, &err), &err);
        slu_batch *batch = slu_batch_new(b->schema, size);
        learn_all(b, learner, batch); /* makes the rows */
        double before = cpu_seconds();
        learn_all(b, learner, batch);
        seconds[run] = cpu_seconds() - before;
        slu_batch_free(batch);
        slu_learner_close(learner);
        slu_store_close(store);
        remove_flat_directory(dir);
    }
    report(b, what, size, b->n, seconds);
    close_case(b);
}

/* ---- the whole path ---- */

static uint64_t replay_once(bench *b)
{
    slu_error err = SLU_ERROR_INIT;
    char dir[] = "/tmp/train-path-XXXXXX";
    slu_store *store = open_store(b, dir);
    slu_source *source;
    slu_pipeline *pipeline;
    slu_pipeline_config config = {
        .options = b->options, .schema = b->schema, .store = store, .clock = &slu_system_clock};
    need(slu_file_source_open(b->options, b->schema, b->data, store, &source, &err), &err);
    need(slu_pipeline_open(&config, &pipeline, &err), &err);
    slu_record r;
    int rc;
    while ((rc = slu_source_next(source, 0, &r, &err)) != SLU_ECLOSED) {
        need(rc, &err);
        slu_partition part = source->ops->partition(source, r.partition);
        need(rc == 1 ? slu_pipeline_feed(pipeline, &part, &r, &err) : 0, &err);
        if (slu_pipeline_commit_due(pipeline))
            need(slu_pipeline_commit(pipeline, &err), &err);
    }
    need(slu_pipeline_finish(pipeline, &err), &err);
    slu_pipeline_stats stats;
    slu_pipeline_get_stats(pipeline, &stats);
    slu_pipeline_close(pipeline);
    source->ops->close(source);
    slu_store_close(store);
    remove_flat_directory(dir);
    return stats.samples;
}

static void bench_replay(bench *b)
{
    double seconds[MOST_RUNS];
    uint64_t samples = 0;
    open_case(b, 0);
    for (int run = 0; run < b->runs; run++) {
        double before = cpu_seconds();
        samples = replay_once(b);
        seconds[run] = cpu_seconds() - before;
    }
    report(b, "replay", b->options->training.batch_size, samples, seconds);
    close_case(b);
}

int main(int argc, char **argv)
{
    if (argc < 3) {
        fprintf(stderr, "usage: train_path CONFIG DATA [RUNS [SET...]]\n");
        return 2;
    }
    bench b = {.config = argv[1], .data = argv[2], .runs = argc > 3 ? atoi(argv[3]) : 3};
    if (b.runs < 1 || b.runs > MOST_RUNS)
        b.runs = 3;
    b.sets = (const char *const *)argv + (argc > 4 ? 4 : argc);
    b.n_sets = argc > 4 ? (size_t)argc - 4 : 0;
    static const uint32_t sizes[] = {16, 128, 512};
    open_case(&b, 0);
    read_impressions(&b);
    close_case(&b);
    fprintf(stderr, "%s, median of %d runs\n%-14s %6s %10s %12s %8s\n", slu_gemm_backend(), b.runs, "case",
            "batch", "samples", "samples/s", "us each");
    printf("{\"backend\": \"%s\", \"runs\": %d, \"cases\": [\n  ", slu_gemm_backend(), b.runs);
    for (int mixed = 0; mixed < 2; mixed++) {
        if (mixed)
            shuffle(&b);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            bench_step(&b, mixed ? "step, mixed" : "step, pages", sizes[i]);
    }
    bench_replay(&b);
    puts("\n]}");
    for (uint32_t i = 0; i < b.n; i++)
        free(b.x[i]);
    free(b.x);
    return 0;
}
