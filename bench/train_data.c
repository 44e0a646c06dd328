#include "bench/train_data.h"
#include "base/rng.h"
#include "bench/measure.h"
#include <math.h>
#include <string.h>

enum { MAGIC = 0x42554c53, VERSION = 1, HEADER = 8 };
#define EXPONENT 1.05
#define SCATTER  40009u /* a prime: frequent ids are no neighbours in memory */

static double *zipf_cumulated(void)
{
    double *sum = malloc(TRAIN_IDS * sizeof *sum), total = 0;
    must(sum != NULL, "out of memory");
    for (uint32_t i = 0; i < TRAIN_IDS; i++)
        sum[i] = total += pow(i + 1, -EXPONENT);
    return sum;
}

/* In (-1, 1), fixed per id and task. */
static double hidden_weight(uint32_t id, uint32_t task)
{
    return (double)(slu_mix64(id * 2ull + task + 1) >> 11) * 0x1p-52 - 1;
}

static void draw_labels(slu_rng *r, const uint32_t *ids, uint8_t *labels)
{
    double click = -1.5, conversion = -1;
    for (uint32_t s = 0; s < TRAIN_SLOTS; s++) {
        click += 0.5 * hidden_weight(ids[s], 0);
        conversion += 0.5 * hidden_weight(ids[s], 1);
    }
    labels[0] = slu_rng_unit(r) < 1 / (1 + exp(-click));
    labels[1] = (slu_rng_unit(r) < 1 / (1 + exp(-conversion))) & labels[0];
}

static void reserve(train_data *d)
{
    size_t samples = (size_t)d->batches * d->B;
    d->ids = malloc(samples * TRAIN_SLOTS * sizeof *d->ids);
    d->labels = malloc(samples * TRAIN_TASKS);
    must(d->ids && d->labels, "out of memory");
}

void train_data_make(train_data *d, bool zipf, uint64_t seed, uint32_t batches, uint32_t B)
{
    *d = (train_data){.batches = batches, .B = B};
    reserve(d);
    double *sum = zipf_cumulated();
    slu_rng r;
    slu_rng_seed(&r, seed);
    for (size_t i = 0; i < (size_t)batches * B; i++) {
        uint32_t *ids = d->ids + i * TRAIN_SLOTS;
        for (uint32_t s = 0; s < TRAIN_SLOTS; s++) {
            uint32_t rank =
                zipf ? slu_rng_weighted(&r, sum, TRAIN_IDS) : (uint32_t)slu_rng_below(&r, TRAIN_IDS);
            ids[s] = s * TRAIN_IDS + (uint32_t)((uint64_t)rank * SCATTER % TRAIN_IDS);
        }
        draw_labels(&r, ids, d->labels + i * TRAIN_TASKS);
    }
    free(sum);
}

static void put(FILE *f, const void *p, size_t size, size_t n)
{
    must(fwrite(p, size, n, f) == n, "cannot write the batches");
}

void train_data_write(const train_data *d, const char *path)
{
    size_t samples = (size_t)d->batches * d->B;
    uint32_t header[HEADER] = {MAGIC, VERSION, d->batches, d->B, TRAIN_SLOTS, TRAIN_IDS, d->dim, d->n_dense};
    FILE *f = fopen(path, "wb");
    must(f != NULL, "cannot create the file for the batches");
    put(f, header, sizeof *header, HEADER);
    put(f, d->ids, sizeof *d->ids, samples * TRAIN_SLOTS);
    put(f, d->labels, 1, samples * TRAIN_TASKS);
    put(f, d->rows, sizeof *d->rows, (size_t)TRAIN_SLOTS * TRAIN_IDS * d->dim);
    put(f, d->dense, sizeof *d->dense, d->n_dense);
    must(fclose(f) == 0, "cannot write the batches");
}

void train_data_write_names(const slu_net *net, const char *path)
{
    char name[1024];
    snprintf(name, sizeof name, "%s.json", path);
    FILE *f = fopen(name, "w");
    must(f != NULL, "cannot write the names of the parameters");
    fputs("{", f);
    for (size_t i = 0; i < slu_net_param_count(net); i++) {
        const slu_net_param *p = slu_net_param_at(net, i);
        fprintf(f, "%s\n \"%s\": [%zu, %u, %u]", i ? "," : "", p->name, p->offset, p->rows, p->cols);
    }
    fputs("\n}\n", f);
    fclose(f);
}

void train_data_read(train_data *d, const char *path)
{
    uint32_t header[HEADER];
    FILE *f = fopen(path, "rb");
    must(f != NULL, "cannot open the batches; 'train make' writes them");
    must(fread(header, sizeof *header, HEADER, f) == HEADER && header[0] == MAGIC && header[1] == VERSION &&
             header[4] == TRAIN_SLOTS && header[5] == TRAIN_IDS,
         "this is no file of batches, or of another version");
    *d = (train_data){.batches = header[2], .B = header[3], .dim = header[6], .n_dense = header[7]};
    reserve(d);
    size_t samples = (size_t)d->batches * d->B;
    must(fread(d->ids, sizeof *d->ids * TRAIN_SLOTS, samples, f) == samples &&
             fread(d->labels, TRAIN_TASKS, samples, f) == samples,
         "the file of batches is cut short");
    fclose(f);
}

void train_data_free(train_data *d)
{
    free(d->ids);
    free(d->labels);
    free(d->rows);
    free(d->dense);
}
