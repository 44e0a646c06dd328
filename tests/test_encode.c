#include "base/metrics.h"
#include "tests/feature_sample.h"
#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define MAX_FIELDS 32

static slu_schema *schema;
static slu_encoder *encoder;
static slu_encoded *out;
static slu_values fields[MAX_FIELDS];

static void setup(void)
{
    ck_assert_int_eq(slu_schema_new(&sample_options, &schema, NULL), 0);
    encoder = slu_encoder_new(schema);
    out = calloc(1, slu_encoded_max(schema));
    memset(fields, 0, sizeof fields);
}

static void teardown(void)
{
    free(out);
    slu_encoder_free(encoder);
    slu_schema_free(schema);
}

static const slu_slot *slot(const char *name, uint32_t *index)
{
    for (uint32_t i = 0; i < slu_schema_slots(schema); i++) {
        *index = i;
        if (!strcmp(slu_schema_slot(schema, i)->opts->name, name))
            return slu_schema_slot(schema, i);
    }
    ck_abort_msg("no slot %s", name);
    return NULL;
}

static uint64_t seed(const char *name)
{
    uint32_t i;
    return slot(name, &i)->seed;
}

static void set(const char *field, const slu_value *v, uint32_t n)
{
    fields[sample_field(schema, field)] = (slu_values){v, n};
}

static void set_text(const char *field, const char *text)
{
    static slu_value one[MAX_FIELDS]; /* per field, since several are set for one record */
    slu_value *v = &one[sample_field(schema, field)];
    *v = slu_text_value(text, strlen(text));
    set(field, v, 1);
}

/* Ids of a slot in the record, after encoding. */
static const uint64_t *ids_of(const char *name, uint32_t *n)
{
    uint32_t index, first = 0;
    slot(name, &index);
    for (uint32_t i = 0; i < index; i++)
        first += slu_encoded_counts(out)[i];
    *n = slu_encoded_counts(out)[index];
    return slu_encoded_ids(out) + first;
}

static uint64_t only_id(const char *name)
{
    uint32_t n;
    const uint64_t *ids = ids_of(name, &n);
    ck_assert_uint_eq(n, 1);
    return ids[0];
}

static float number_of(const char *name)
{
    uint32_t index;
    return slu_encoded_numbers(out)[slot(name, &index)->number];
}

static uint64_t text_id(const char *text, const char *name)
{
    slu_value v = slu_text_value(text, strlen(text));
    return slu_value_id(&v, seed(name));
}

static void encode(void)
{
    slu_encode(encoder, fields, out);
    ck_assert(slu_encoded_valid(schema, out, out->bytes));
}

START_TEST(test_all_missing)
{
    encode();
    ck_assert_uint_eq(only_id("user"), slu_missing_id(seed("user")));
    ck_assert_uint_eq(only_id("device"), text_id("phone", "device"));
    ck_assert_uint_eq(only_id("tags"), slu_missing_id(seed("tags")));
    ck_assert_uint_eq(only_id("recent"), slu_missing_id(seed("recent")));
    ck_assert_uint_eq(only_id("price_bucket"), slu_missing_id(seed("price_bucket")));
    ck_assert_uint_eq(only_id("age_bucket"), slu_bucket_id(2, seed("age_bucket"))); /* missing: "50" */
    ck_assert_float_eq_tol(number_of("price"), -log1p(1.5), 1e-6);
    ck_assert_float_eq(number_of("age"), 0);
    ck_assert_float_eq(number_of("score"), 0);
    ck_assert_uint_ne(only_id("item_x_slot"), 0);
    ck_assert_uint_ne(only_id("lists"), 0);
}
END_TEST

START_TEST(test_empty_text_is_missing)
{
    static slu_encoded *other;
    encode();
    other = malloc(out->bytes);
    memcpy(other, out, out->bytes);
    for (uint32_t f = 0; f < slu_schema_fields(schema); f++)
        set_text(slu_schema_field_name(schema, f), "");
    encode();
    ck_assert_uint_eq(out->bytes, other->bytes);
    ck_assert_mem_eq(out, other, out->bytes);
    free(other);
}
END_TEST

START_TEST(test_categorical)
{
    slu_value v[2] = {slu_integer_value(5), slu_integer_value(6)};
    set_text("user", "u1");
    set("item", v, 2);
    encode();
    ck_assert_uint_eq(only_id("user"), text_id("u1", "user"));
    ck_assert_uint_eq(only_id("item"), text_id("5", "item"));
}
END_TEST

START_TEST(test_multi_keeps_the_first)
{
    slu_value v[6];
    uint32_t n;
    for (int i = 0; i < 6; i++)
        v[i] = slu_integer_value(i);
    v[1] = slu_text_value("", 0); /* does not take a place */
    slu_metric *cut = slu_counter("sluice_feature_values_cut_total", NULL, "");
    double before = slu_metric_value(cut);
    set("tags", v, 6);
    encode();
    const uint64_t *ids = ids_of("tags", &n);
    ck_assert_uint_eq(n, 3);
    ck_assert_uint_eq(ids[0], text_id("0", "tags"));
    ck_assert_uint_eq(ids[1], text_id("2", "tags"));
    ck_assert_uint_eq(ids[2], text_id("3", "tags"));
    ck_assert_double_eq(slu_metric_value(cut) - before, 2);
}
END_TEST

START_TEST(test_sequence_keeps_the_newest)
{
    slu_value v[6];
    uint32_t n;
    for (int i = 0; i < 6; i++)
        v[i] = slu_integer_value(i);
    set("recent", v, 6);
    encode();
    const uint64_t *ids = ids_of("recent", &n);
    ck_assert_uint_eq(n, 4);
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_uint_eq(ids[i], slu_value_id(&v[2 + i], seed("item"))); /* shared table, same ids */
    set("recent", v, 2);
    encode();
    ids = ids_of("recent", &n);
    ck_assert_uint_eq(n, 2);
    ck_assert_uint_eq(ids[0], slu_value_id(&v[0], seed("item")));
}
END_TEST

START_TEST(test_numbers)
{
    static const struct {
        const char *text;
        double log, standard, plain;
    } cases[] = {
        {"0", 0, -4, 0},
        {"50", 3.9318256327243257, 1, 50},
        {"-50", -3.9318256327243257, -9, -50},
        {"1e300", 690.7755278982137, 1e12, 1e12},
        {"-1e300", -690.7755278982137, -1e12, -1e12},
        {"fifty", -0.9162907318741551, 0, 0}, /* not a number: missing */
    };
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        set_text("price", cases[i].text);
        set_text("age", cases[i].text);
        set_text("score", cases[i].text);
        encode();
        ck_assert_float_eq(number_of("price"), (float)cases[i].log);
        ck_assert_float_eq(number_of("age"), (float)cases[i].standard);
        ck_assert_float_eq(number_of("score"), (float)cases[i].plain);
    }
}
END_TEST

START_TEST(test_buckets)
{
    static const struct {
        const char *text;
        uint32_t bucket;
    } cases[] = {{"-5", 0},        {"0", 0},   {"1e-300", 1}, {"10", 1},
                 {"10.000001", 2}, {"100", 2}, {"100.1", 3},  {"1e300", 3}};
    for (size_t i = 0; i < COUNT_OF(cases); i++) {
        set_text("price", cases[i].text);
        encode();
        ck_assert_uint_eq(only_id("price_bucket"), slu_bucket_id(cases[i].bucket, seed("price_bucket")));
    }
    set_text("price", "dear");
    encode();
    ck_assert_uint_eq(only_id("price_bucket"), slu_missing_id(seed("price_bucket")));
}
END_TEST

START_TEST(test_cross_depends_on_all_parts)
{
    uint64_t seen[8];
    int n = 0;
    static const char *const values[] = {"", "a", "b"};
    for (int i = 0; i < 3; i++)
        for (int k = 0; k < 3 && n < 8; k++) {
            set_text("item", values[i]);
            set_text("slot", values[k]);
            encode();
            seen[n] = only_id("item_x_slot");
            for (int before = 0; before < n; before++)
                ck_assert_uint_ne(seen[n], seen[before]);
            n++;
        }
}
END_TEST

/* tags x recent x price_bucket, the last part fastest, at most 5. */
START_TEST(test_cross_of_lists)
{
    slu_value tags[2] = {slu_integer_value(1), slu_integer_value(2)};
    slu_value recent[3] = {slu_integer_value(3), slu_integer_value(4), slu_integer_value(5)};
    uint64_t want[6], a, b, c;
    uint32_t n;
    set("tags", tags, 2);
    set("recent", recent, 3);
    set_text("price", "7");
    encode();
    for (int i = 0; i < 6; i++) {
        a = slu_value_id(&tags[i / 3], seed("tags"));
        b = slu_value_id(&recent[i % 3], seed("item"));
        c = slu_bucket_id(1, seed("price_bucket"));
        want[i] = slu_mix64(slu_mix64(slu_mix64(slu_mix64(seed("lists")) ^ a) ^ b) ^ c);
    }
    const uint64_t *ids = ids_of("lists", &n);
    ck_assert_uint_eq(n, 5);
    ck_assert_mem_eq(ids, want, 5 * sizeof *ids);
    set("tags", tags, 1);
    encode();
    ids = ids_of("lists", &n);
    ck_assert_uint_eq(n, 3);
    ck_assert_mem_eq(ids, want, 3 * sizeof *ids);
}
END_TEST

/* Every count is at most its bound and eight long lists do not overflow the number of combinations. */
START_TEST(test_cross_of_huge_lists)
{
    static slu_feature_opts f[9];
    static char names[9][4], *of[8];
    static slu_value v[SLU_MAX_VALUES];
    slu_options o = sample_options;
    teardown();
    for (int i = 0; i < 8; i++) {
        snprintf(names[i], sizeof names[i], "f%d", i);
        of[i] = names[i];
        f[i] = (slu_feature_opts){
            .name = names[i], .kind = SLU_MULTI, .dimension = 4, .max_ids = SLU_MAX_VALUES};
    }
    f[8] = (slu_feature_opts){
        .name = (char *)"x", .kind = SLU_CROSS, .of = of, .n_of = 8, .dimension = 4, .max_ids = 9};
    o.features = f;
    o.n_features = 9;
    ck_assert_int_eq(slu_schema_new(&o, &schema, NULL), 0);
    encoder = slu_encoder_new(schema);
    out = calloc(1, slu_encoded_max(schema));
    for (int i = 0; i < SLU_MAX_VALUES; i++)
        v[i] = slu_integer_value(i);
    for (int i = 0; i < 8; i++)
        set(names[i], v, SLU_MAX_VALUES);
    encode();
    ck_assert_uint_eq(out->total, 8 * SLU_MAX_VALUES + 9);
    ck_assert_uint_eq(out->bytes, slu_encoded_max(schema));
}
END_TEST

/* Ids and layout are stored in models and join state: this may only change with the schema's format. */
START_TEST(test_known_record)
{
    slu_value tags[2] = {slu_text_value("red", 3), slu_integer_value(7)};
    set_text("user", "u1");
    set_text("item", "i1");
    set_text("slot", "3");
    set_text("price", "9.5");
    set_text("age", "33");
    set("tags", tags, 2);
    encode();
    ck_assert_uint_eq(out->slots, 14);
    ck_assert_uint_eq(out->total, 13);
    ck_assert_uint_eq(out->bytes, 8 + 32 + 13 * 8 + 16);
    ck_assert_uint_eq(only_id("user"), 12057520360067222734ULL);
    ck_assert_uint_eq(only_id("item_x_slot"), 16512310943032092213ULL);
    slu_value whole = slu_text_value((const char *)out, out->bytes);
    ck_assert_uint_eq(slu_value_id(&whole, 0), 11471518010720896331ULL);
}
END_TEST

/* What the scorer does gives the very bytes that training saw. */
START_TEST(test_candidates_equal_whole_records)
{
    const uint64_t rng_seed = 31337;
    const uint32_t n = slu_schema_fields(schema);
    slu_value room[2][7 * MAX_FIELDS];
    slu_values user[MAX_FIELDS], item[MAX_FIELDS];
    slu_encoder *whole = slu_encoder_new(schema);
    slu_encoded *want = malloc(slu_encoded_max(schema));
    slu_rng r;
    slu_rng_seed(&r, rng_seed);
    for (int request = 0; request < 2000; request++) {
        sample_record(schema, &r, room[0], user);
        slu_encode_shared(encoder, user);
        for (int candidate = 0; candidate < 5; candidate++) {
            sample_record(schema, &r, room[1], item);
            for (uint32_t f = 0; f < n; f++)
                fields[f] = slu_schema_field_side(schema, f) == SLU_ITEM ? item[f] : user[f];
            memset(out, 0xaa, slu_encoded_max(schema));
            memset(want, 0x55, slu_encoded_max(schema));
            slu_encode_candidate(encoder, fields, out);
            slu_encode(whole, fields, want);
            ck_assert_msg(out->bytes == want->bytes && !memcmp(out, want, want->bytes),
                          "seed %llu request %d candidate %d", (unsigned long long)rng_seed, request,
                          candidate);
            ck_assert(slu_encoded_valid(schema, out, out->bytes));
        }
    }
    free(want);
    slu_encoder_free(whole);
}
END_TEST

/* Slot by slot gives what whole records have, missing values and several for one included. */
START_TEST(test_columns_equal_records)
{
    enum { CANDIDATES = 9 };
    const uint32_t slots = slu_schema_slots(schema);
    slu_value room[7 * MAX_FIELDS], v[CANDIDATES];
    uint64_t columns[32 * CANDIDATES];
    slu_rng r;
    slu_rng_seed(&r, 31338);
    ck_assert_uint_le(slots, 32);
    ck_assert(!slu_encode_has_columns(encoder)); /* there are lists among the items */
    for (int request = 0; request < 500; request++) {
        float numbers[2 * CANDIDATES], want_number[CANDIDATES];
        uint64_t want[32 * CANDIDATES];
        sample_record(schema, &r, room, fields);
        slu_encode_shared(encoder, fields);
        for (uint32_t i = 0; i < slots; i++) {
            const slu_slot *slot = slu_schema_slot(schema, i);
            const bool one = slot->opts->kind == SLU_CATEGORICAL || slot->opts->kind == SLU_NUMERIC;
            if (slot->shared || !one)
                continue;
            for (int c = 0; c < CANDIDATES; c++) {
                v[c] = sample_value(&r);
                const slu_values given = {v + c, 1};
                fields[slot->field] = given;
                slu_encode_candidate(encoder, fields, out);
                const uint64_t *id = slu_encoded_ids(out);
                for (uint32_t k = 0; k < i; k++)
                    id += slu_encoded_counts(out)[k];
                if (slot->table != SLU_NO_TABLE)
                    want[i * CANDIDATES + (uint32_t)c] = *id;
                else
                    want_number[c] = slu_encoded_numbers(out)[slot->number];
            }
            if (slot->table != SLU_NO_TABLE) {
                slu_encode_column_ids(encoder, i, v, CANDIDATES, columns + i * CANDIDATES);
                ck_assert(
                    !memcmp(columns + i * CANDIDATES, want + i * CANDIDATES, CANDIDATES * sizeof *want));
                continue;
            }
            slu_encode_column_numbers(encoder, i, v, CANDIDATES, numbers, 2);
            for (int c = 0; c < CANDIDATES; c++)
                ck_assert(!memcmp(&numbers[2 * c], &want_number[c], sizeof(float)));
        }
    }
}
END_TEST

/* An encoder keeps nothing of the record before. */
START_TEST(test_no_memory_between_records)
{
    slu_value room[7 * MAX_FIELDS];
    slu_values record[MAX_FIELDS];
    slu_encoded *want = malloc(slu_encoded_max(schema));
    slu_rng r;
    slu_rng_seed(&r, 5);
    encode(); /* all missing */
    memcpy(want, out, out->bytes);
    for (int i = 0; i < 500; i++) {
        sample_record(schema, &r, room, record);
        slu_encode(encoder, record, out);
        encode();
        ck_assert_mem_eq(out, want, want->bytes);
    }
    free(want);
}
END_TEST

START_TEST(test_valid_refuses)
{
    encode();
    const uint32_t n = out->bytes;
    char *copy = malloc(n + 9);
    for (size_t shift = 0; shift < 8; shift++) { /* any alignment */
        memcpy(copy + shift, out, n);
        ck_assert(slu_encoded_valid(schema, copy + shift, n));
    }
    for (uint32_t len = 0; len < n + 9; len++) {
        memcpy(copy, out, n);
        ck_assert_int_eq(slu_encoded_valid(schema, copy, len), len == n);
    }
    slu_encoded *bad = (slu_encoded *)copy;
    uint16_t *counts = (uint16_t *)(bad + 1);
#define REFUSES(change)                                                                                      \
    do {                                                                                                     \
        memcpy(copy, out, n);                                                                                \
        change;                                                                                              \
        ck_assert(!slu_encoded_valid(schema, copy, n));                                                      \
    } while (0)
    REFUSES(bad->bytes++);
    REFUSES(bad->slots--);
    REFUSES(bad->total++);
    REFUSES(counts[0] = 0);
    REFUSES((counts[0] = 0, counts[4] = 2)); /* the sum still holds, but a slot is empty */
    REFUSES((counts[0] = 2, counts[1] = 0));
    REFUSES(counts[6] = 1);
    REFUSES(counts[14] = 1); /* padding */
    REFUSES(((uint64_t *)slu_encoded_ids(bad))[3] = 0);
    REFUSES(((float *)slu_encoded_numbers(bad))[0] = NAN);
    REFUSES(((float *)slu_encoded_numbers(bad))[1] = INFINITY);
    REFUSES(((float *)slu_encoded_numbers(bad))[2] = 2e12f);
    REFUSES(((float *)slu_encoded_numbers(bad))[3] = 1); /* padding */
    free(copy);
}
END_TEST

START_TEST(test_schema_without_features)
{
    slu_options o = sample_options;
    teardown();
    o.n_features = 0;
    ck_assert_int_eq(slu_schema_new(&o, &schema, NULL), 0);
    encoder = slu_encoder_new(schema);
    out = calloc(1, slu_encoded_max(schema));
    encode();
    ck_assert_uint_eq(out->bytes, sizeof *out);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("encode");
    TCase *t = tcase_create("encode");
    tcase_set_timeout(t, 120);
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_test(t, test_all_missing);
    tcase_add_test(t, test_empty_text_is_missing);
    tcase_add_test(t, test_categorical);
    tcase_add_test(t, test_multi_keeps_the_first);
    tcase_add_test(t, test_sequence_keeps_the_newest);
    tcase_add_test(t, test_numbers);
    tcase_add_test(t, test_buckets);
    tcase_add_test(t, test_cross_depends_on_all_parts);
    tcase_add_test(t, test_cross_of_lists);
    tcase_add_test(t, test_cross_of_huge_lists);
    tcase_add_test(t, test_known_record);
    tcase_add_test(t, test_candidates_equal_whole_records);
    tcase_add_test(t, test_columns_equal_records);
    tcase_add_test(t, test_no_memory_between_records);
    tcase_add_test(t, test_valid_refuses);
    tcase_add_test(t, test_schema_without_features);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
