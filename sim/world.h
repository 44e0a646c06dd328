/* sim/world.h - a small ad exchange whose true probabilities are known.
 *
 * Users belong to segments, items to categories and advertisers. Both have a place in a latent space of
 * tastes; the logit of a click is their affinity there, plus what the item is worth (drifting slowly), the
 * position's bias, device, hour, how much of the user's recent clicks lies in the same category, and a price
 * that segments mind differently. Whether a click converts comes from another, partly related space, from the
 * advertiser, the price and the device. So what a model can use is mostly shared structure (segment x
 * category, item, position), a little is personal, and the rest is the coin: the AUC of the true
 * probabilities is the ceiling.
 *
 * Everything is a function of the options, the random numbers handed in and the time handed in; no clock, no
 * I/O. The only state is each user's recent clicks. @thread one per world */
#pragma once
#include "base/error.h"
#include "base/rng.h"
#include "feature/event.h"
#include <stdbool.h>
#include <stdint.h>

#define SLU_WORLD_RECENT    10 /* clicks remembered per user */
#define SLU_WORLD_POSITIONS 8
#define SLU_WORLD_STEPS     2 /* click, conversion */

typedef struct slu_world_opts {
    uint64_t seed;
    uint32_t users, items, segments, categories, advertisers; /* 0: the default */
    double click_rate, conversion_rate; /* means over impressions and over clicks; 0: the default */
} slu_world_opts;

/* One item shown to one user: who, where, when, and how likely what follows is. */
typedef struct slu_showing {
    uint32_t user, item;
    uint8_t device, position; /* position: 1 is best */
    uint8_t n_recent;
    uint32_t recent[SLU_WORLD_RECENT]; /* (n_recent) items that the user clicked, oldest first */
    int64_t time_us;
    double p_click;      /* P(click | shown) */
    double p_conversion; /* P(conversion | click) */
} slu_showing;

/* What really happens then. Delays count from the showing (click) and from the click (conversion). */
typedef struct slu_outcome {
    bool clicked, converted;
    int64_t click_delay_us, conversion_delay_us;
} slu_outcome;

typedef struct slu_world slu_world;
/* Returns 0, SLU_EINVAL (sizes or rates that make no world) or SLU_ENOMEM. */
int slu_world_new(const slu_world_opts *opts, slu_world **wp, slu_error *err);
void slu_world_free(slu_world *w); /* NULL is fine */

/* Draws user, device, item and position, and works out the probabilities. */
void slu_world_show(const slu_world *w, slu_rng *rng, int64_t time_us, slu_showing *out);
/* Draws another item and position for the same user, device and moment: the next candidate. */
void slu_world_next_candidate(const slu_world *w, slu_rng *rng, slu_showing *s);
/* The probabilities of |s| as it stands (fills p_click and p_conversion). */
void slu_world_judge(const slu_world *w, slu_showing *s);
void slu_world_outcome(const slu_world *w, slu_rng *rng, const slu_showing *s, slu_outcome *out);
/* The user clicked: remembered for later showings. */
void slu_world_clicked(slu_world *w, uint32_t user, uint32_t item);

/* The names of the features that a showing has, NULL-terminated, and their values in that order. Values lie
 * in |values|, text belongs to the world. */
#define SLU_WORLD_FEATURES   11
#define SLU_WORLD_MAX_VALUES 48
extern const char *const slu_world_feature_names[SLU_WORLD_FEATURES + 1];
typedef struct slu_world_values {
    slu_values field[SLU_WORLD_FEATURES];
    slu_value value[SLU_WORLD_MAX_VALUES];
} slu_world_values;
void slu_world_describe(const slu_world *w, const slu_showing *s, slu_world_values *out);
