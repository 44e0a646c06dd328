#include "sim/world.h"
#include "base/clock.h"
#include "feature/value.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LATENT = 6, DEVICES = 3, INTERESTS = 4, NAME = 16, HOURS = 24 };

const char *const slu_world_feature_names[SLU_WORLD_FEATURES + 1] = {
    "user_id",  "segment", "interests", "recent_items", "device", "hour",
    "position", "item_id", "category",  "advertiser",   "price",  NULL};
enum {
    F_USER,
    F_SEGMENT,
    F_INTERESTS,
    F_RECENT,
    F_DEVICE,
    F_HOUR,
    F_POSITION,
    F_ITEM,
    F_CATEGORY,
    F_ADVERTISER,
    F_PRICE
};

static const char *const device_names[DEVICES] = {"mobile", "desktop", "tablet"};
static const double device_share[DEVICES] = {.6, .3, .1};
static const double device_click[DEVICES] = {0, .15, -.2};
static const double device_conversion[DEVICES] = {-.2, .4, 0};
/* People look at the top: share of showings and loss of logit by position. */
static const double position_share[SLU_WORLD_POSITIONS] = {.22, .18, .15, .12, .1, .09, .08, .06};
static const double position_click[SLU_WORLD_POSITIONS] = {0, -.35, -.6, -.8, -.95, -1.1, -1.2, -1.3};

/* How strong each part of the logits is (deviation over showings, roughly). */
static const double TASTE_CLICK = .8, QUALITY_CLICK = .5, DRIFT_CLICK = .1, PERSON_CLICK = .1,
                    RECENT_CLICK = .4, PRICE_CLICK = .2, HOUR_CLICK = .15;
static const double TASTE_CONVERSION = .75, ADVERTISER_CONVERSION = .6, PRICE_CONVERSION = .4,
                    QUALITY_CONVERSION = .15, HOUR_CONVERSION = .15;
/* A person is mostly their segment, an item mostly its category. */
static const double OWN_TASTE = .12;

typedef struct person {
    uint32_t segment;
    uint32_t interests[INTERESTS], n_interests; /* categories */
    uint32_t recent[SLU_WORLD_RECENT], n_recent;
    double click_taste[LATENT], conversion_taste[LATENT];
    double bias;
    char name[NAME];
} person;

typedef struct item {
    uint32_t category, advertiser;
    double price, log_price; /* log_price: standardised */
    double click_place[LATENT], conversion_place[LATENT];
    double quality, conversion_quality;
    double drift_period_us, drift_phase;
    char name[NAME];
} item;

struct slu_world {
    slu_world_opts o;
    person *people;
    item *items;
    double *people_cdf, *items_cdf;                                   /* popularity */
    double *price_minded;                                             /* (segments) */
    double *advertiser_conversion;                                    /* (advertisers) */
    double (*segment_taste)[2][LATENT], (*category_place)[2][LATENT]; /* click, conversion */
    char (*segment_names)[NAME], (*category_names)[NAME], (*advertiser_names)[NAME];
    double click_base, conversion_base; /* intercepts that give the wanted rates */
};

static double sigmoid(double x)
{
    return 1 / (1 + exp(-x));
}

/* Zipf with exponent |s|: few are everywhere, many are rare. */
static void fill_zipf_cdf(double *cdf, uint32_t n, double s)
{
    double sum = 0;
    for (uint32_t i = 0; i < n; i++)
        cdf[i] = sum += pow(i + 1, -s);
    for (uint32_t i = 0; i < n; i++)
        cdf[i] /= sum;
}

static uint32_t draw_share(const double *share, uint32_t n, slu_rng *rng)
{
    double u = slu_rng_unit(rng);
    for (uint32_t i = 0; i + 1 < n; i++) {
        if (u < share[i])
            return i;
        u -= share[i];
    }
    return n - 1;
}

static double dot(const double *a, const double *b)
{
    double sum = 0;
    for (int i = 0; i < LATENT; i++)
        sum += a[i] * b[i];
    return sum;
}

/* out = near + deviation * noise */
static void scatter(double *out, const double *near, double deviation, slu_rng *rng)
{
    for (int i = 0; i < LATENT; i++)
        out[i] = near[i] + deviation * slu_rng_normal(rng);
}

/* ---- the truth ---- */

static double recent_share(const slu_world *w, const slu_showing *s)
{
    uint32_t same = 0;
    for (uint32_t i = 0; i < s->n_recent; i++)
        same += w->items[s->recent[i]].category == w->items[s->item].category;
    return s->n_recent ? (double)same / s->n_recent : 0;
}

/* Some like it early, some late: a wave over the day. */
static double day_wave(int64_t time_us, double peak_hour)
{
    double hours = (double)(time_us / SLU_SECOND_US % 86400) / 3600;
    return cos((floor(hours) - peak_hour) * 2 * M_PI / HOURS);
}

static double click_logit(const slu_world *w, const slu_showing *s)
{
    const person *p = &w->people[s->user];
    const item *it = &w->items[s->item];
    double drift = sin(2 * M_PI * (double)s->time_us / it->drift_period_us + it->drift_phase);
    return w->click_base + TASTE_CLICK * dot(p->click_taste, it->click_place) / sqrt(LATENT) + p->bias +
           QUALITY_CLICK * it->quality + DRIFT_CLICK * drift + position_click[s->position - 1] +
           device_click[s->device] + HOUR_CLICK * day_wave(s->time_us, 20) +
           RECENT_CLICK * recent_share(w, s) - PRICE_CLICK * w->price_minded[p->segment] * it->log_price;
}

static double conversion_logit(const slu_world *w, const slu_showing *s)
{
    const person *p = &w->people[s->user];
    const item *it = &w->items[s->item];
    return w->conversion_base +
           TASTE_CONVERSION * dot(p->conversion_taste, it->conversion_place) / sqrt(LATENT) +
           ADVERTISER_CONVERSION * w->advertiser_conversion[it->advertiser] +
           QUALITY_CONVERSION * it->conversion_quality - PRICE_CONVERSION * it->log_price +
           device_conversion[s->device] + HOUR_CONVERSION * day_wave(s->time_us, 13);
}

void slu_world_judge(const slu_world *w, slu_showing *s)
{
    s->p_click = sigmoid(click_logit(w, s));
    s->p_conversion = sigmoid(conversion_logit(w, s));
}

void slu_world_next_candidate(const slu_world *w, slu_rng *rng, slu_showing *s)
{
    s->item = slu_rng_weighted(rng, w->items_cdf, w->o.items);
    s->position = (uint8_t)(1 + draw_share(position_share, SLU_WORLD_POSITIONS, rng));
    slu_world_judge(w, s);
}

void slu_world_show(const slu_world *w, slu_rng *rng, int64_t time_us, slu_showing *out)
{
    out->time_us = time_us;
    out->user = slu_rng_weighted(rng, w->people_cdf, w->o.users);
    out->device = (uint8_t)draw_share(device_share, DEVICES, rng);
    const person *p = &w->people[out->user];
    out->n_recent = (uint8_t)p->n_recent;
    memcpy(out->recent, p->recent, sizeof out->recent);
    slu_world_next_candidate(w, rng, out);
}

/* Clicks come after seconds. Conversions: some buy at once, some sleep over it, some wait for pay day; all
 * within 40 hours, so that a window of two days sees them all. */
static int64_t conversion_delay(slu_rng *rng)
{
    static const double share[] = {.5, .3, .2}, mean_s[] = {15 * 60, 3 * 3600, 16 * 3600};
    for (;;) {
        double s = 5 + mean_s[draw_share(share, 3, rng)] * slu_rng_exponential(rng);
        if (s < 40 * 3600)
            return (int64_t)(s * (double)SLU_SECOND_US);
    }
}

void slu_world_outcome(const slu_world *w, slu_rng *rng, const slu_showing *s, slu_outcome *out)
{
    (void)w;
    *out = (slu_outcome){.clicked = slu_rng_unit(rng) < s->p_click};
    if (!out->clicked)
        return;
    double seconds = 1 + 8 * slu_rng_exponential(rng);
    out->click_delay_us = (int64_t)(seconds * (double)SLU_SECOND_US);
    out->converted = slu_rng_unit(rng) < s->p_conversion;
    if (out->converted)
        out->conversion_delay_us = conversion_delay(rng);
}

void slu_world_clicked(slu_world *w, uint32_t user, uint32_t it)
{
    person *p = &w->people[user];
    if (p->n_recent == SLU_WORLD_RECENT)
        memmove(p->recent, p->recent + 1, (SLU_WORLD_RECENT - 1) * sizeof *p->recent);
    else
        p->n_recent++;
    p->recent[p->n_recent - 1] = it;
}

/* ---- making the world ---- */

static void name_all(char (*names)[NAME], uint32_t n, const char *prefix)
{
    for (uint32_t i = 0; i < n; i++)
        snprintf(names[i], NAME, "%s%u", prefix, i);
}

static void make_groups(slu_world *w, slu_rng *rng)
{
    static const double nowhere[LATENT];
    for (uint32_t i = 0; i < w->o.segments; i++) {
        scatter(w->segment_taste[i][0], nowhere, 1, rng);
        scatter(w->segment_taste[i][1], w->segment_taste[i][0], 1, rng); /* partly related */
        w->price_minded[i] = 1 + .3 * slu_rng_normal(rng);
    }
    for (uint32_t i = 0; i < w->o.categories; i++) {
        scatter(w->category_place[i][0], nowhere, 1, rng);
        scatter(w->category_place[i][1], nowhere, 1, rng);
    }
    for (uint32_t i = 0; i < w->o.advertisers; i++)
        w->advertiser_conversion[i] = slu_rng_normal(rng);
    name_all(w->segment_names, w->o.segments, "s");
    name_all(w->category_names, w->o.categories, "c");
    name_all(w->advertiser_names, w->o.advertisers, "a");
}

static void make_item(slu_world *w, uint32_t i, slu_rng *rng)
{
    item *it = &w->items[i];
    it->category = (uint32_t)slu_rng_below(rng, w->o.categories);
    it->advertiser = (uint32_t)slu_rng_below(rng, w->o.advertisers);
    it->log_price = slu_rng_normal(rng);
    it->price = round(exp(3 + .8 * it->log_price) * 100) / 100;
    scatter(it->click_place, w->category_place[it->category][0], OWN_TASTE, rng);
    scatter(it->conversion_place, w->category_place[it->category][1], OWN_TASTE, rng);
    it->quality = slu_rng_normal(rng);
    it->conversion_quality = slu_rng_normal(rng);
    it->drift_period_us = (15 + 25 * slu_rng_unit(rng)) * 86400e6;
    it->drift_phase = 2 * M_PI * slu_rng_unit(rng);
    snprintf(it->name, NAME, "i%u", i);
}

/* Declares the categories that suit the person best, not all of them. */
static void choose_interests(const slu_world *w, person *p, slu_rng *rng)
{
    uint32_t wanted = 1 + (uint32_t)slu_rng_below(rng, INTERESTS);
    bool taken[w->o.categories];
    memset(taken, 0, sizeof taken);
    for (p->n_interests = 0; p->n_interests < wanted && p->n_interests < w->o.categories; p->n_interests++) {
        uint32_t best = 0;
        double best_score = -INFINITY;
        for (uint32_t c = 0; c < w->o.categories; c++) {
            double score = dot(p->click_taste, w->category_place[c][0]);
            if (!taken[c] && score > best_score)
                best = c, best_score = score;
        }
        taken[best] = true;
        p->interests[p->n_interests] = best;
    }
}

static void make_person(slu_world *w, uint32_t i, slu_rng *rng)
{
    person *p = &w->people[i];
    p->segment = (uint32_t)slu_rng_below(rng, w->o.segments);
    scatter(p->click_taste, w->segment_taste[p->segment][0], OWN_TASTE, rng);
    scatter(p->conversion_taste, w->segment_taste[p->segment][1], OWN_TASTE, rng);
    for (int k = 0; k < LATENT; k++)
        p->conversion_taste[k] *= M_SQRT1_2; /* the sum of two: back to deviation 1 */
    p->bias = PERSON_CLICK * slu_rng_normal(rng);
    choose_interests(w, p, rng);
    snprintf(p->name, NAME, "u%u", i);
}

/* What people clicked before we came: drawn by their taste, from what is popular. */
static void make_history(slu_world *w, slu_rng *rng)
{
    for (uint32_t u = 0; u < w->o.users; u++) {
        const person *p = &w->people[u];
        uint32_t clicks = (uint32_t)slu_rng_below(rng, SLU_WORLD_RECENT + 1);
        for (uint32_t tries = 0; tries < 400 && p->n_recent < clicks; tries++) {
            uint32_t i = slu_rng_weighted(rng, w->items_cdf, w->o.items);
            double affinity = TASTE_CLICK * dot(p->click_taste, w->items[i].click_place) / sqrt(LATENT);
            if (slu_rng_unit(rng) < sigmoid(affinity + QUALITY_CLICK * w->items[i].quality - 2))
                slu_world_clicked(w, u, i);
        }
    }
}

/* Finds the intercepts that give the wanted mean rates over the same sample of showings. */
static void calibrate(slu_world *w, slu_rng *rng)
{
    enum { SAMPLE = 4000, ROUNDS = 40 };
    double click_lo = -12, click_hi = 6, conversion_lo = -12, conversion_hi = 6;
    const slu_rng start = *rng;
    for (int round = 0; round < ROUNDS; round++) {
        slu_rng r = start;
        double clicks = 0, conversions = 0;
        w->click_base = (click_lo + click_hi) / 2;
        w->conversion_base = (conversion_lo + conversion_hi) / 2;
        for (int i = 0; i < SAMPLE; i++) {
            slu_showing s;
            int64_t time_us = (int64_t)slu_rng_below(&r, 20 * 86400) * SLU_SECOND_US;
            slu_world_show(w, &r, time_us, &s);
            clicks += s.p_click;
            conversions += s.p_click * s.p_conversion;
        }
        if (clicks / SAMPLE < w->o.click_rate)
            click_lo = w->click_base;
        else
            click_hi = w->click_base;
        if (conversions / clicks < w->o.conversion_rate)
            conversion_lo = w->conversion_base;
        else
            conversion_hi = w->conversion_base;
    }
}

static void set_default(uint32_t *field, uint32_t value)
{
    if (!*field)
        *field = value;
}

static int check_opts(slu_world_opts *o, slu_error *err)
{
    set_default(&o->users, 3000);
    set_default(&o->items, 600);
    set_default(&o->segments, 12);
    set_default(&o->categories, 16);
    set_default(&o->advertisers, 60);
    if (o->click_rate == 0)
        o->click_rate = .065;
    if (o->conversion_rate == 0)
        o->conversion_rate = .08;
    if (!(o->click_rate > 0 && o->click_rate < .5) || !(o->conversion_rate > 0 && o->conversion_rate < .5))
        return slu_fail(err, SLU_EINVAL, "world: click and conversion rate must lie between 0 and 0.5");
    if (o->users > 10000000 || o->items > 10000000 || o->segments > 1000 || o->categories > 1000 ||
        o->advertisers > 100000)
        return slu_fail(err, SLU_EINVAL,
                        "world: too large (10,000,000 users or items, 1,000 segments or categories)");
    return 0;
}

int slu_world_new(const slu_world_opts *opts, slu_world **wp, slu_error *err)
{
    *wp = NULL;
    slu_world *w = calloc(1, sizeof *w);
    if (!w)
        return slu_fail(err, SLU_ENOMEM, "world: out of memory");
    w->o = *opts;
    int rc = check_opts(&w->o, err);
    if (rc)
        goto fail;
    const slu_world_opts *o = &w->o;
    w->people = calloc(o->users, sizeof *w->people);
    w->items = calloc(o->items, sizeof *w->items);
    w->people_cdf = calloc(o->users, sizeof *w->people_cdf);
    w->items_cdf = calloc(o->items, sizeof *w->items_cdf);
    w->price_minded = calloc(o->segments, sizeof *w->price_minded);
    w->segment_taste = calloc(o->segments, sizeof *w->segment_taste);
    w->category_place = calloc(o->categories, sizeof *w->category_place);
    w->advertiser_conversion = calloc(o->advertisers, sizeof *w->advertiser_conversion);
    w->segment_names = calloc(o->segments, NAME);
    w->category_names = calloc(o->categories, NAME);
    w->advertiser_names = calloc(o->advertisers, NAME);
    if (!w->people || !w->items || !w->people_cdf || !w->items_cdf || !w->price_minded || !w->segment_taste ||
        !w->category_place || !w->advertiser_conversion || !w->segment_names || !w->category_names ||
        !w->advertiser_names) {
        rc = slu_fail(err, SLU_ENOMEM, "world: out of memory for %u users and %u items", o->users, o->items);
        goto fail;
    }
    slu_rng rng;
    slu_rng_seed(&rng, slu_mix64(o->seed ^ 0x776f726c64ULL));
    fill_zipf_cdf(w->people_cdf, o->users, .5);
    fill_zipf_cdf(w->items_cdf, o->items, .8);
    make_groups(w, &rng);
    for (uint32_t i = 0; i < o->items; i++)
        make_item(w, i, &rng);
    for (uint32_t i = 0; i < o->users; i++)
        make_person(w, i, &rng);
    make_history(w, &rng);
    calibrate(w, &rng);
    *wp = w;
    return 0;
fail:
    slu_world_free(w);
    return rc;
}

void slu_world_free(slu_world *w)
{
    if (!w)
        return;
    free(w->people);
    free(w->items);
    free(w->people_cdf);
    free(w->items_cdf);
    free(w->price_minded);
    free(w->segment_taste);
    free(w->category_place);
    free(w->advertiser_conversion);
    free(w->segment_names);
    free(w->category_names);
    free(w->advertiser_names);
    free(w);
}

/* ---- what is known about a showing ---- */

static slu_value text_of(const char *s)
{
    return slu_text_value(s, strlen(s));
}

void slu_world_describe(const slu_world *w, const slu_showing *s, slu_world_values *out)
{
    const person *p = &w->people[s->user];
    const item *it = &w->items[s->item];
    slu_value *v = out->value;
#define ONE(f, x) (*v = (x), out->field[f] = (slu_values){v, 1}, v++)
    ONE(F_USER, text_of(p->name));
    ONE(F_SEGMENT, text_of(w->segment_names[p->segment]));
    out->field[F_INTERESTS] = (slu_values){v, p->n_interests};
    for (uint32_t i = 0; i < p->n_interests; i++)
        *v++ = text_of(w->category_names[p->interests[i]]);
    out->field[F_RECENT] = (slu_values){v, s->n_recent};
    for (uint32_t i = 0; i < s->n_recent; i++)
        *v++ = text_of(w->items[s->recent[i]].name);
    ONE(F_DEVICE, text_of(device_names[s->device]));
    ONE(F_HOUR, slu_integer_value(s->time_us / SLU_SECOND_US % 86400 / 3600));
    ONE(F_POSITION, slu_integer_value(s->position));
    ONE(F_ITEM, text_of(it->name));
    ONE(F_CATEGORY, text_of(w->category_names[it->category]));
    ONE(F_ADVERTISER, text_of(w->advertiser_names[it->advertiser]));
    ONE(F_PRICE, slu_number_value(it->price));
#undef ONE
}
