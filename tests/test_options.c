#include "base/options.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

static const char least[] = "funnel:\n"
                            "  steps:\n"
                            "    - {name: click, window: 30m}\n"
                            "    - {name: conversion, window: 2d}\n"
                            "features:\n"
                            "  - {name: user_id, side: user}\n"
                            "  - {name: item_id, side: item}\n"
                            "  - {name: price, kind: numeric, side: item, transform: log}\n"
                            "  - {name: user_x_item, kind: cross, of: [user_id, item_id]}\n";

static slu_options *parse(const char *yaml, const char *const *sets)
{
    slu_options *o;
    slu_error err = SLU_ERROR_INIT;
    size_t n = 0;
    while (sets && sets[n])
        n++;
    ck_assert_msg(!slu_options_parse(yaml, strlen(yaml), "test.yaml", sets, n, &o, &err), "%s", err.message);
    ck_assert_ptr_nonnull(o);
    return o;
}

START_TEST(test_defaults)
{
    slu_options *o = parse(least, NULL);
    ck_assert_str_eq(o->name, "sluice");
    ck_assert_uint_eq(o->n_steps, 2);
    ck_assert_str_eq(o->steps[1].name, "conversion");
    ck_assert_int_eq(o->steps[1].window_us, 2 * 86400 * 1000000LL);
    ck_assert_double_eq(o->steps[0].weight, 1);
    ck_assert_uint_eq(o->n_features, 4);
    const slu_feature_opts *user = &o->features[0], *price = &o->features[2], *cross = &o->features[3];
    ck_assert_int_eq(user->kind, SLU_CATEGORICAL);
    ck_assert_int_eq(user->side, SLU_USER);
    ck_assert_str_eq(user->source, "user_id");
    ck_assert_str_eq(user->table, "user_id");
    ck_assert_uint_eq(user->dimension, 16);
    ck_assert(user->wide);
    ck_assert_uint_eq(user->max_ids, 1);
    ck_assert_ptr_null(user->missing);
    ck_assert_uint_ne(user->seed, 0);
    ck_assert_uint_ne(user->seed, o->features[1].seed);
    ck_assert_int_eq(price->transform, SLU_TRANSFORM_LOG);
    ck_assert_uint_eq(price->dimension, 0);
    ck_assert_ptr_null(price->table);
    ck_assert(!price->wide);
    ck_assert_int_eq(cross->side, SLU_ITEM);
    ck_assert_uint_eq(cross->n_of, 2);
    ck_assert_str_eq(cross->of[1], "item_id");
    ck_assert_ptr_null(cross->source);
    ck_assert_str_eq(o->model.architecture, "esmm");
    ck_assert_uint_eq(o->model.n_towers, 2);
    ck_assert_uint_eq(o->model.towers[0], 128);
    ck_assert_uint_eq(o->model.towers[1], 64);
    ck_assert_double_eq(o->optimizer.dense_rate, 0.001);
    ck_assert_double_eq(o->optimizer.row_rate, 0.02);
    ck_assert_int_eq(o->optimizer.wide, SLU_WIDE_FTRL);
    ck_assert_int_eq(o->training.label_policy, SLU_POLICY_FNW);
    ck_assert_uint_eq(o->training.batch_size, 256);
    ck_assert_int_eq(o->training.commit_every_us, 250000);
    ck_assert_int_eq(o->join.orphan_wait_us, 3600000000LL);
    ck_assert_uint_eq(o->kafka.n_topics, 1);
    ck_assert_ptr_null(o->kafka.dead_letter_topic);
    ck_assert_uint_eq(o->kafka.max_message_bytes, 1 << 20);
    ck_assert_uint_eq(o->n_files, 0);
    ck_assert(o->store.sync && o->publish.enabled);
    ck_assert_str_eq(o->serving.listen, "127.0.0.1:7070");
    ck_assert_str_eq(o->trainer_admin, "127.0.0.1:9464");
    ck_assert_int_eq(o->log.level, 1);
    slu_options_free(o);
    slu_options_free(NULL);
}
END_TEST

START_TEST(test_everything_written)
{
    slu_options *o = parse(
        "name: shop\n"
        "funnel: {steps: [{name: click, window: 1h, weight: 0.5}]}\n"
        "features:\n"
        "  - {name: a, kind: multi, side: user, source: raw a, table: ids, dimension: 4, wide: no, pooling: "
        "mean, max_ids: 7,\n"
        "     missing: none, admit_after: 3, ttl: 30d, seed: 18446744073709551615}\n"
        "  - {name: b, kind: sequence, side: context, table: ids, dimension: 4, seed: 18446744073709551615}\n"
        "  - {name: c, kind: numeric, side: item, transform: standardize, mean: -1.5, deviation: 2e3, "
        "missing: '0'}\n"
        "  - {name: d, kind: numeric, side: item, transform: bucket, buckets: [-1, 0.5, 1e3], dimension: 0}\n"
        "  - {name: e, kind: cross, of: [a, d], max_ids: 9}\n"
        "model: {architecture: mmoe, seed: 5, towers: [], experts: 3, expert_layers: [32, 16], norm: layer, "
        "wide: true}\n"
        "optimizer:\n"
        "  dense: {rate: 1e-4, clip: 5}\n"
        "  rows: {kind: adagrad_row, l2: 1e-6}\n"
        "  wide: {kind: adagrad, rate: .05}\n"
        "training: {label_policy: window, unknown_features: ignore}\n"
        "join: {cache: 1GiB}\n"
        "kafka:\n"
        "  topics: [x, y]\n"
        "  encoding: json\n"
        "  rdkafka:\n"
        "    security.protocol: SASL_SSL\n"
        "    sasl.password: \"se: cr\\\"et\"\n"
        "files: [{path: a.jsonl, format: jsonl}]\n"
        "admin: {trainer: '[::1]:0'}\n"
        "log: {level: debug, format: json}\n",
        NULL);
    const slu_feature_opts *f = o->features;
    ck_assert_str_eq(f[0].source, "raw a");
    ck_assert_str_eq(f[0].missing, "none");
    ck_assert(!f[0].wide);
    ck_assert_int_eq(f[0].pooling, SLU_POOL_MEAN);
    ck_assert_int_eq(f[0].ttl_us, 30 * 86400000000LL);
    ck_assert_uint_eq(f[0].seed, UINT64_MAX);
    ck_assert_uint_eq(f[0].admit_after, 3);
    ck_assert_double_eq(f[2].deviation, 2000);
    ck_assert_uint_eq(f[3].n_buckets, 3);
    ck_assert_double_eq(f[3].buckets[1], 0.5);
    ck_assert_str_eq(f[3].table, "d");
    ck_assert_int_eq(f[4].side, SLU_ITEM);
    ck_assert_uint_eq(o->model.n_towers, 0);
    ck_assert_uint_eq(o->model.expert_layers[1], 16);
    ck_assert_int_eq(o->model.norm, SLU_NORM_LAYER);
    ck_assert_int_eq(o->optimizer.rows, SLU_ROW_ADAGRAD_ROW);
    ck_assert_double_eq(o->optimizer.wide_rate, 0.05);
    ck_assert_int_eq(o->kafka.encoding, SLU_ENCODING_JSON);
    ck_assert_uint_eq(o->kafka.n_rdkafka, 2);
    ck_assert_str_eq(o->kafka.rdkafka[0].key, "security.protocol");
    ck_assert_str_eq(o->kafka.rdkafka[1].value, "se: cr\"et");
    ck_assert_int_eq(o->files[0].format, SLU_FILE_JSONL);
    ck_assert_str_eq(o->trainer_admin, "[::1]:0");
    ck_assert_int_eq(o->log.format, 1);
    slu_options_free(o);
}
END_TEST

START_TEST(test_sets)
{
    static const char *const sets[] = {"model.architecture=mmoe",
                                       "model.towers=[32]",
                                       "model.expert_layers[0]=48",
                                       "funnel.steps[0].window=2h",
                                       "funnel.steps.conversion.weight=0.25",
                                       "features.item_id.dimension=8",
                                       "features[0].ttl=7d",
                                       "training.batch_size=1",
                                       "training.batch_size=2",
                                       "kafka.brokers=a:1,b:2",
                                       "kafka.rdkafka.security.protocol=SSL",
                                       "kafka.rdkafka.sasl.password=#not *a {comment",
                                       "kafka.topics=[one, two]",
                                       "kafka.topics[1]=three",
                                       "optimizer={dense: {rate: 0.5}}",
                                       "name='007'",
                                       NULL};
    char yaml[2000];
    snprintf(yaml, sizeof yaml, "%smodel:\n  expert_layers: [8, 8]\ntraining:\n", least);
    slu_options *o = parse(yaml, sets);
    ck_assert_str_eq(o->model.architecture, "mmoe");
    ck_assert_uint_eq(o->model.n_towers, 1);
    ck_assert_uint_eq(o->model.expert_layers[0], 48);
    ck_assert_uint_eq(o->model.expert_layers[1], 8);
    ck_assert_int_eq(o->steps[0].window_us, 7200000000LL);
    ck_assert_double_eq(o->steps[1].weight, 0.25);
    ck_assert_uint_eq(o->features[1].dimension, 8);
    ck_assert_int_eq(o->features[0].ttl_us, 7 * 86400000000LL);
    ck_assert_uint_eq(o->training.batch_size, 2);
    ck_assert_str_eq(o->kafka.brokers, "a:1,b:2");
    ck_assert_str_eq(o->kafka.rdkafka[1].key, "sasl.password");
    ck_assert_str_eq(o->kafka.rdkafka[1].value, "#not *a {comment");
    ck_assert_str_eq(o->kafka.topics[1], "three");
    ck_assert_double_eq(o->optimizer.dense_rate, 0.5);
    ck_assert_str_eq(o->name, "007");
    slu_options_free(o);
}
END_TEST

static char *dump_of(const char *yaml, const char *const *sets, uint64_t *fingerprint)
{
    slu_options *o = parse(yaml, sets);
    char *text = slu_options_dump(o);
    *fingerprint = slu_options_fingerprint(o);
    slu_options_free(o);
    return text;
}

/* A dump is a configuration with the same meaning. */
static void check_round_trip(const char *yaml, const char *const *sets)
{
    uint64_t before, after;
    char *first = dump_of(yaml, sets, &before), *second = dump_of(first, NULL, &after);
    ck_assert_str_eq(first, second);
    ck_assert_uint_eq(before, after);
    free(first);
    free(second);
}

static char *read_file(const char *path)
{
    FILE *f = fopen(path, "r");
    ck_assert_msg(f != NULL, "cannot open %s; run the tests from the top folder", path);
    char *text = calloc(1, 1 << 20);
    ck_assert_uint_lt(fread(text, 1, (1 << 20) - 1, f), (1 << 20) - 1);
    fclose(f);
    return text;
}

START_TEST(test_dump_reads_back)
{
    check_round_trip(least, NULL);
    check_round_trip(least, (const char *const[]){"features[2].transform=standardize", "features[2].mean=0.1",
                                                  "kafka.rdkafka.x=a: \"b\" \\ #c", "kafka.group=null",
                                                  "name=_", NULL});
    check_round_trip(least, (const char *const[]){
                                "features[2]={name: p, side: item, kind: numeric, transform: bucket, "
                                "buckets: [1, 2.5]}",
                                "files=[{path: x, format: jsonl}, {path: y, event: click, time_column: t, "
                                "impression_column: i}]",
                                NULL});
    char *ads = read_file("examples/ads.yaml"), *shop = read_file("examples/storefront.yaml");
    check_round_trip(ads, NULL);
    check_round_trip(shop, NULL);
    free(ads);
    free(shop);
}
END_TEST

START_TEST(test_admin_addresses)
{
    static const char *const good[][2] = {{"admin.trainer=localhost:1", NULL},
                                          {"admin.trainer=127.0.0.2:1", NULL},
                                          {"admin.scorer='[::1]:1'", NULL},
                                          {"admin.scorer=0.0.0.0:1", "admin.allow_remote=true"}};
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
        slu_options *o;
        slu_error err = SLU_ERROR_INIT;
        ck_assert_msg(
            !slu_options_parse(least, sizeof least - 1, "t.yaml", good[i], good[i][1] ? 2 : 1, &o, &err),
            "%s", err.message);
        ck_assert_int_eq(o->admin_allow_remote, good[i][1] != NULL);
        slu_options_free(o);
    }
}
END_TEST

START_TEST(test_dump_masks_secrets)
{
    uint64_t fingerprint;
    char *text = dump_of(
        least,
        (const char *const[]){"kafka.rdkafka.sasl.password=hunter2", "kafka.rdkafka.ssl.key.password=hunter2",
                              "kafka.rdkafka.ssl.key.pem=hunter2", "kafka.rdkafka.sasl.username=joe",
                              "kafka.rdkafka.ssl.keystore.password=hunter2",
                              "kafka.rdkafka.sasl.oauthbearer.client.secret=hunter2",
                              "kafka.rdkafka.sasl.oauthbearer.config=hunter2",
                              "kafka.rdkafka.ssl.key.location=/etc/key.pem", NULL},
        &fingerprint);
    ck_assert_ptr_null(strstr(text, "hunter2"));
    ck_assert_ptr_nonnull(strstr(text, "sasl.password: \"***\""));
    ck_assert_ptr_nonnull(strstr(text, "sasl.username: joe"));
    ck_assert_ptr_nonnull(strstr(text, "ssl.key.location: /etc/key.pem"));
    free(text);
}
END_TEST

START_TEST(test_secrets_from_the_environment)
{
    static const char *const sets[] = {"kafka.rdkafka.sasl.password=${SLU_TEST_SECRET}",
                                       "kafka.rdkafka.x=a${SLU_TEST_SECRET}"};
    slu_options *o;
    slu_error err = SLU_ERROR_INIT;
    setenv("SLU_TEST_SECRET", "p\xc3\xa4ss: \"w\"", 1);
    ck_assert_msg(!slu_options_parse(least, sizeof least - 1, "t.yaml", sets, 2, &o, &err), "%s",
                  err.message);
    ck_assert_str_eq(o->kafka.rdkafka[0].value, "p\xc3\xa4ss: \"w\"");
    ck_assert_str_eq(o->kafka.rdkafka[1].value, "a${SLU_TEST_SECRET}");
    ck_assert_str_eq(o->kafka.rdkafka[0].environment, "SLU_TEST_SECRET");
    ck_assert_ptr_null(o->kafka.rdkafka[1].environment);
    char *text = slu_options_dump(o);
    ck_assert_ptr_null(strstr(text, "p\xc3\xa4ss"));
    ck_assert_ptr_nonnull(strstr(text, "sasl.password: \"${SLU_TEST_SECRET}\""));
    slu_fail(&err, SLU_EINVAL, "the broker does not like p\xc3\xa4ss: \"w\"");
    ck_assert_str_eq(err.message, "the broker does not like ***");
    slu_error_clear(&err);
    free(text);
    slu_options_free(o);
    setenv("SLU_TEST_SECRET", "line\nbreak", 1);
    ck_assert_int_eq(slu_options_parse(least, sizeof least - 1, "t.yaml", sets, 2, &o, &err), SLU_ECONFIG);
    ck_assert_str_eq(
        err.message,
        "--set kafka.rdkafka.sasl.password: the environment variable 'SLU_TEST_SECRET' has control "
        "characters or is not UTF-8");
    unsetenv("SLU_TEST_SECRET");
    slu_error_clear(&err);
    ck_assert_int_eq(slu_options_parse(least, sizeof least - 1, "t.yaml", sets, 2, &o, &err), SLU_ECONFIG);
    ck_assert_str_eq(
        err.message,
        "--set kafka.rdkafka.sasl.password: the environment variable 'SLU_TEST_SECRET' is not set");
}
END_TEST

START_TEST(test_fingerprint)
{
    static const struct {
        const char *set;
        bool learned;
    } cases[] = {{"model.seed=2", true},
                 {"training.batch_size=64", true},
                 {"features.item_id.ttl=1d", true},
                 {"join.orphan_wait=2h", true},
                 {"optimizer.rows.rate=.03", true},
                 {"funnel.steps[0].weight=2", true},
                 {"kafka.brokers=x:1", false},
                 {"name=other", false},
                 {"serving.threads=9", false},
                 {"store.path=/elsewhere", false},
                 {"training.commit_every=1s", false},
                 {"join.cache=2GiB", false},
                 {"log.level=debug", false},
                 {"model.seed=1", false /* the default, written out */},
                 {"training.precision=bf16", true},
                 {"training.precision=fp32", false}};
    uint64_t plain, changed;
    free(dump_of(least, NULL, &plain));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        free(dump_of(least, (const char *const[]){cases[i].set, NULL}, &changed));
        ck_assert_msg((plain != changed) == cases[i].learned, "%s", cases[i].set);
    }
}
END_TEST

START_TEST(test_examples_load)
{
    static const char *const paths[] = {"examples/ads.yaml", "examples/storefront.yaml"};
    static const char *const architectures[] = {"model.architecture=shared_bottom", "model.architecture=esmm",
                                                "model.architecture=mmoe"};
    for (size_t i = 0; i < 2; i++) {
        for (size_t j = 0; j < 3; j++) {
            slu_options *o;
            slu_error err = SLU_ERROR_INIT;
            ck_assert_msg(!slu_options_load(paths[i], &architectures[j], 1, &o, &err), "%s", err.message);
            slu_options_free(o);
        }
    }
}
END_TEST

START_TEST(test_missing_file)
{
    slu_options *o;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_options_load("/no/such.yaml", NULL, 0, &o, &err), SLU_EIO);
    ck_assert_ptr_null(o);
    ck_assert_str_eq(err.message, "cannot open configuration /no/such.yaml: No such file or directory");
    slu_error_clear(&err);
    ck_assert_int_eq(slu_options_load("/", NULL, 0, &o, &err), SLU_EIO);
}
END_TEST

int main(void)
{
    return run_suite("options",
                     (const TTest *[]){test_defaults, test_everything_written, test_sets,
                                       test_dump_reads_back, test_dump_masks_secrets, test_admin_addresses,
                                       test_secrets_from_the_environment, test_fingerprint,
                                       test_examples_load, test_missing_file, NULL});
}
