/* tests/feature_sample.h - configurations filled by hand, for tests of the feature room that must not depend
 * on the YAML loader. */
#pragma once
#include "base/rng.h"
#include "feature/encode.h"
#include "feature/value.h"
#include <string.h>

#define COUNT_OF(a) (sizeof(a) / sizeof *(a))

static slu_step_opts sample_steps[] = {{(char *)"click", 3600000000LL, 1},
                                       {(char *)"conversion", 172800000000LL, 1}};
static double sample_buckets[] = {0, 10, 100};
static char *sample_of_plain[] = {(char *)"item", (char *)"slot"};
static char *sample_of_lists[] = {(char *)"tags", (char *)"recent", (char *)"price_bucket"};
static char *sample_of_user[] = {(char *)"user", (char *)"device"};
static uint32_t sample_towers[] = {16, 8};

#define S(text) ((char *)(text))
/* Every kind and every transform, on every side. `recent` shares the table of `item`; `price` is read twice.
 */
static slu_feature_opts sample_features[] = {
    {.name = S("user"), .side = SLU_USER, .dimension = 8, .wide = true},
    {.name = S("device"), .side = SLU_CONTEXT, .dimension = 4, .missing = S("phone")},
    {.name = S("item"), .side = SLU_ITEM, .dimension = 8, .wide = true},
    {.name = S("slot"), .side = SLU_CONTEXT, .dimension = 2, .seed = 77},
    {.name = S("tags"),
     .kind = SLU_MULTI,
     .side = SLU_ITEM,
     .dimension = 4,
     .max_ids = 3,
     .pooling = SLU_POOL_MEAN},
    {.name = S("recent"),
     .kind = SLU_SEQUENCE,
     .side = SLU_USER,
     .table = S("item"),
     .dimension = 8,
     .max_ids = 4},
    {.name = S("price"),
     .kind = SLU_NUMERIC,
     .side = SLU_ITEM,
     .transform = SLU_TRANSFORM_LOG,
     .missing = S("-1.5")},
    {.name = S("price_bucket"),
     .source = S("price"),
     .kind = SLU_NUMERIC,
     .side = SLU_ITEM,
     .dimension = 4,
     .transform = SLU_TRANSFORM_BUCKET,
     .buckets = sample_buckets,
     .n_buckets = 3},
    {.name = S("age"),
     .kind = SLU_NUMERIC,
     .side = SLU_USER,
     .transform = SLU_TRANSFORM_STANDARDIZE,
     .mean = 40,
     .deviation = 10},
    {.name = S("score"), .kind = SLU_NUMERIC, .side = SLU_CONTEXT},
    {.name = S("age_bucket"),
     .source = S("age"),
     .kind = SLU_NUMERIC,
     .side = SLU_USER,
     .dimension = 4,
     .transform = SLU_TRANSFORM_BUCKET,
     .buckets = sample_buckets,
     .n_buckets = 3,
     .missing = S("50")},
    {.name = S("item_x_slot"), .kind = SLU_CROSS, .of = sample_of_plain, .n_of = 2, .wide = true},
    {.name = S("lists"), .kind = SLU_CROSS, .of = sample_of_lists, .n_of = 3, .dimension = 4, .max_ids = 5},
    {.name = S("user_x_device"), .kind = SLU_CROSS, .of = sample_of_user, .n_of = 2, .dimension = 4},
};

static slu_options sample_options = {
    .name = S("sample"),
    .steps = sample_steps,
    .n_steps = COUNT_OF(sample_steps),
    .features = sample_features,
    .n_features = COUNT_OF(sample_features),
    .model = {.architecture = S("esmm"), .towers = sample_towers, .n_towers = 2, .wide = true},
    .kafka = {.max_message_bytes = 1 << 20},
};

/* The shape of examples/storefront.yaml: 17 categorical features and two crosses. */
static char *store_of[2][2] = {{S("item_name"), S("list_index")}, {S("item_name"), S("page_title")}};
#define PLAIN(text, where)                                                                                   \
    {                                                                                                        \
        .name = S(text), .side = where, .dimension = 16, .wide = true                                        \
    }
static slu_feature_opts store_features[] = {
    PLAIN("item_name", SLU_ITEM),
    PLAIN("item_category", SLU_ITEM),
    PLAIN("page_title", SLU_CONTEXT),
    PLAIN("page_location", SLU_CONTEXT),
    PLAIN("device_category", SLU_USER),
    PLAIN("os", SLU_USER),
    PLAIN("browser", SLU_USER),
    PLAIN("language", SLU_USER),
    PLAIN("country", SLU_USER),
    PLAIN("region", SLU_USER),
    PLAIN("traffic_medium", SLU_USER),
    PLAIN("traffic_source", SLU_USER),
    PLAIN("user_pseudo_id", SLU_USER),
    PLAIN("ga_session_id", SLU_USER),
    PLAIN("list_index", SLU_ITEM),
    PLAIN("price", SLU_ITEM),
    PLAIN("ga_session_number", SLU_USER),
    {.name = S("item_x_position"),
     .kind = SLU_CROSS,
     .of = store_of[0],
     .n_of = 2,
     .dimension = 16,
     .wide = true},
    {.name = S("item_x_page"),
     .kind = SLU_CROSS,
     .of = store_of[1],
     .n_of = 2,
     .dimension = 16,
     .wide = true},
};
#undef PLAIN
static const char *const store_values[] = {
    "Google F/C Long Sleeve Tee Charcoal",
    "Men's T-Shirts/",
    "Men's T-Shirts | Apparel | Google Merchandise Store",
    "https://shop.googlemerchandisestore.com/Google+Redesign/Apparel/Mens/Mens+T+Shirts",
    "desktop",
    "Windows",
    "Chrome",
    "en-us",
    "Denmark",
    "Region of Southern Denmark",
    "(none)",
    "(direct)",
    "3380520.8884755581",
    "6568989672",
    "10",
    "30.0",
    "1"};

__attribute__((unused)) static slu_options store_options(void)
{
    slu_options o = sample_options;
    o.features = store_features;
    o.n_features = COUNT_OF(store_features);
    return o;
}
#undef S

__attribute__((unused)) static uint32_t sample_field(const slu_schema *s, const char *name)
{
    return (uint32_t)slu_schema_field_find(s, name, strlen(name));
}

/* Small pieces of a random record: values come from small sets, so that ids repeat and edge cases are met
 * often. */
__attribute__((unused)) static slu_value sample_value(slu_rng *r)
{
    static const char *const texts[] = {"",
                                        "a",
                                        "b",
                                        "5",
                                        "5.0",
                                        "-3",
                                        "1e3",
                                        "x\xc3\xa9",
                                        "nan",
                                        "0x10",
                                        "phone",
                                        "a somewhat longer text with blanks",
                                        "12345678901234567890"};
    static const double numbers[] = {0.0, -0.0, 5, 0.1, -2.5, 1e19, 1e300, 10, 100, 100.0000001};
    const char *text;
    switch (slu_rng_below(r, 3)) {
    case 0:
        return slu_integer_value((int64_t)slu_rng_below(r, 200) - 50);
    case 1:
        return slu_number_value(numbers[slu_rng_below(r, COUNT_OF(numbers))]);
    default:
        text = texts[slu_rng_below(r, COUNT_OF(texts))];
        return slu_text_value(text, strlen(text));
    }
}

/* Fills |fields| with 0 to 7 values each, kept in |room| (7 per field). */
__attribute__((unused)) static void sample_record(const slu_schema *s, slu_rng *r, slu_value *room,
                                                  slu_values *fields)
{
    for (uint32_t f = 0; f < slu_schema_fields(s); f++, room += 7) {
        uint32_t n = (uint32_t)slu_rng_below(r, 3);
        if (n == 2)
            n = (uint32_t)slu_rng_below(r, 8);
        for (uint32_t i = 0; i < n; i++)
            room[i] = sample_value(r);
        fields[f] = (slu_values){n ? room : NULL, n};
    }
}
