/* bench/train_data.h - the batches that bench/train and its twins learn from, and the parameters they start
 * with.
 *
 * One file, little-endian, read by C and by bench/peers/: 8 u32 (magic, version, batches, B, slots, ids per
 * slot, dimension, dense parameters), ids u32 (batches, B, slots) counted over all slots, labels u8 (batches,
 * B, 2), rows f32 (ids, dimension), dense f32 (P). Beside it FILE.json names the pieces of the dense vector.
 */
#pragma once
#include "model/net.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TRAIN_SLOTS = 24, TRAIN_IDS = 41667, TRAIN_TASKS = 2 }; /* 24 * 41,667 = 1,000,008 ids */

typedef struct train_data {
    uint32_t batches, B, dim, n_dense;
    uint32_t *ids;   /* (batches, B, TRAIN_SLOTS) */
    uint8_t *labels; /* (batches, B, TRAIN_TASKS) */
    float *rows;     /* (TRAIN_SLOTS * TRAIN_IDS, dim); written by the learner, read by the twin */
    float *dense;    /* (n_dense) */
} train_data;

/* Draws ids (Zipf with exponent 1.05 over each slot's own ids, or uniform) and labels that depend on them:
 * every id has a hidden weight. A function of its arguments alone. */
void train_data_make(train_data *d, bool zipf, uint64_t seed, uint32_t batches, uint32_t B);
void train_data_write(const train_data *d, const char *path);
/* PATH.json: offset, rows and columns of each piece of the dense vector, by name. */
void train_data_write_names(const slu_net *net, const char *path);
/* Ids and labels only. */
void train_data_read(train_data *d, const char *path);
void train_data_free(train_data *d);
