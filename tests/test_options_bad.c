/* Wrong configurations, each with the words that its message must have: file and line, key, what is wrong,
 * what is allowed. A row is either extra text for a good file, or --set on top of it. */
#include "base/options.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

/* 13 lines, so extra text starts on line 14. */
static const char good[] =
    "name: t\n"
    "funnel:\n"
    "  steps:\n"
    "    - {name: click, window: 30m}\n"
    "    - {name: order, window: 2d}\n"
    "features:\n"
    "  - {name: user, side: user}\n"
    "  - {name: item, side: item}\n"
    "  - {name: tags, kind: multi, side: item}\n"
    "  - {name: price, kind: numeric, side: item}\n"
    "  - {name: age, kind: numeric, side: user, transform: bucket, buckets: [18, 30]}\n"
    "  - {name: both, kind: cross,\n"
    "     of: [user, item]}\n";

/* Fails as it should and returns the message. */
static const char *message_of(const char *yaml, size_t len, const char *const *sets, size_t n_sets)
{
    static slu_error err;
    slu_options *o = (void *)1;
    err = (slu_error)SLU_ERROR_INIT;
    int rc = slu_options_parse(yaml, len, "t.yaml", sets, n_sets, &o, &err);
    ck_assert_msg(rc == SLU_ECONFIG, "%s: %s", slu_code_name(rc), sets ? sets[0] : yaml);
    ck_assert_int_eq(err.code, SLU_ECONFIG);
    ck_assert_ptr_null(o);
    return err.message;
}

static void check_message(const char *message, const char *expected)
{
    ck_assert_msg(!strcmp(message, expected), "\n got: %s\nwant: %s", message, expected);
}

typedef struct bad {
    const char *text, *message;
} bad;

/* Added to the good file. */
static const bad extras[] = {
    {"modle:\n  seed: 1\n",
     "t.yaml:14: modle: unknown key; did you mean 'model'? allowed: name, funnel, features, model, "
     "optimizer, training, join, kafka, files, store, backup, publish, serving, admin, log"},
    {"model:\n  architecture: esm\n",
     "t.yaml:15: model.architecture: unknown value 'esm'; allowed: shared_bottom, esmm, mmoe"},
    {"training: {label_policy: [fnw]}\n",
     "t.yaml:14: training.label_policy: expected a single value, got a list"},
    {"training:\n\n  batch_size: 0\n",
     "t.yaml:16: training.batch_size: 0 is out of range; allowed: 1 to 65536"},
    {"training: {batch_size: -5}\n",
     "t.yaml:14: training.batch_size: -5 is out of range; allowed: 1 to 65536"},
    {"training: {batch_size: 99999999999999999999999}\n",
     "t.yaml:14: training.batch_size: 99999999999999999999999 is out of range; allowed: 1 to 65536"},
    {"training: {batch_size: 1e3}\n", "t.yaml:14: training.batch_size: expected a whole number, got '1e3'"},
    {"training: {max_batch_delay: 1 second}\n",
     "t.yaml:14: training.max_batch_delay: expected a duration, got '1 second'; write a whole number and a "
     "unit (us, ms, s, m, "
     "h, d), e.g. 30m"},
    {"training: {commit_every: 2d}\n",
     "t.yaml:14: training.commit_every: 2d is out of range; allowed: 1ms to 1h"},
    {"training: {dense_every: 0}\n",
     "t.yaml:14: training.dense_every: 0 is out of range; allowed: 1 to 1000000"},
    {"join: {cache: 64MB}\n",
     "t.yaml:14: join.cache: expected a size, got '64MB'; write a whole number and a unit (B, KiB, MiB, "
     "GiB, TiB), e.g. 64MiB"},
    {"join: {cache: 1KiB}\n", "t.yaml:14: join.cache: 1KiB is out of range; allowed: 1MiB to 16TiB"},
    {"optimizer:\n  rows:\n    rate: fast\n",
     "t.yaml:16: optimizer.rows.rate: expected a number, got 'fast'"},
    {"optimizer: {rows: {rate: 0x10}}\n", "t.yaml:14: optimizer.rows.rate: expected a number, got '0x10'"},
    {"optimizer: {rows: {rate: .inf}}\n", "t.yaml:14: optimizer.rows.rate: expected a number, got '.inf'"},
    {"optimizer: {rows: {rate: 1e999}}\n",
     "t.yaml:14: optimizer.rows.rate: 1e999 is out of range; allowed: 0 to 100"},
    {"optimizer: {dense: {beta1: 1}}\n",
     "t.yaml:14: optimizer.dense.beta1: 1 is out of range; allowed: 0 to 0.999999"},
    {"optimizer: fast\n", "t.yaml:14: optimizer: expected keys and values, got 'fast'"},
    {"optimizer: {rows: {kimd: adagrad}}\n", "t.yaml:14: optimizer.rows.kimd: unknown key; did you mean "
                                             "'kind'? allowed: kind, rate, epsilon, initial, l2, clip"},
    {"model: {towers: 128}\n", "t.yaml:14: model.towers: expected a list, e.g. [128, 64], got '128'"},
    {"model:\n  towers:\n    - 128\n    - 0\n",
     "t.yaml:17: model.towers[1]: 0 is out of range; allowed: 1 to 65536"},
    {"model: {towers: [1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1]}\n",
     "t.yaml:14: model.towers: has 17 entries; allowed: 0 to 16"},
    {"model: {wide: maybe}\n", "t.yaml:14: model.wide: expected true or false, got 'maybe'"},
    {"model: {architecture: shared_bottom, bottom: []}\n",
     "t.yaml:14: model.bottom: is empty, but shared_bottom needs layers to share, e.g. [128]"},
    {"model: {architecture: mmoe, expert_layers: []}\n",
     "t.yaml:14: model.expert_layers: is empty, but mmoe needs layers in its experts, e.g. [128]"},
    {"model: {architecture: mmoe, experts: 0}\n",
     "t.yaml:14: model.experts: 0 is out of range; allowed: 1 to 256"},
    {"kafka: {topics: []}\n", "t.yaml:14: kafka.topics: has 0 entries; allowed: 1 to 64"},
    {"kafka: {topics: [a, b, a]}\n", "t.yaml:14: kafka.topics[2]: 'a' is here twice"},
    {"kafka: {topics: [a b]}\n",
     "t.yaml:14: kafka.topics[0]: 'a b' is not a Kafka topic; use 1 to 249 letters, digits, '.', _ and -"},
    {"kafka: {topics: [x], delta_topic: x}\n",
     "t.yaml:14: kafka.delta_topic: 'x' is also an event topic; deltas need one of their own"},
    {"kafka: {topics: [x],\n dead_letter_topic: x}\n",
     "t.yaml:15: kafka.dead_letter_topic: 'x' is also an event topic: dead letters would come back"},
    {"kafka: {dead_letter_topic: sluice.deltas}\n",
     "t.yaml:14: kafka.dead_letter_topic: 'sluice.deltas' is also the delta topic; use another one"},
    {"kafka: {brokers: ''}\n", "t.yaml:14: kafka.brokers: must not be empty"},
    {"kafka:\n  rdkafka:\n    sasl: {password: x}\n",
     "t.yaml:16: kafka.rdkafka.sasl: expected a single value; write dotted keys, e.g. 'sasl.name: value'"},
    {"kafka: {rdkafka: {ssl.ca.location: }}\n",
     "t.yaml:14: kafka.rdkafka.ssl.ca.location: has no value; write \"\" for an empty one"},
    {"kafka: {rdkafka: [a]}\n",
     "t.yaml:14: kafka.rdkafka: expected keys and values, e.g. 'security.protocol: SSL', got a list"},
    {"serving: {listen: 7070}\n",
     "t.yaml:14: serving.listen: '7070' is not an address; write host:port, e.g. 127.0.0.1:7070, "
     "0.0.0.0:7070 or [::1]:7070"},
    {"admin: {trainer: '127.0.0.1:70000'}\n",
     "t.yaml:14: admin.trainer: '127.0.0.1:70000' is not an address; write host:port, e.g. 127.0.0.1:7070, "
     "0.0.0.0:7070 or "
     "[::1]:7070"},
    {"serving: {tls: {key: /k}}\n",
     "t.yaml:14: serving.tls.certificate: is missing; serving.tls.key has no meaning without it"},
    {"serving: {tls: {client_ca: /k}}\n",
     "t.yaml:14: serving.tls.certificate: is missing; serving.tls.client_ca has no meaning without it"},
    {"serving: {tls: {certificate: /c}}\n",
     "t.yaml:14: serving.tls.key: is missing; a certificate is of no use without its private key"},
    {"serving: {tls: {certificate: /c, key: '-----BEGIN PRIVATE KEY-----c4n4ry'}}\n",
     "t.yaml:14: serving.tls.key: is the name of a file, not its contents"},
    {"admin:\n  trainer: 0.0.0.0:9464\n", "t.yaml:15: admin.trainer: '0.0.0.0:9464' can be reached from "
                                          "other machines, and the page has no password; "
                                          "use 127.0.0.1, or set admin.allow_remote: true"},
    {"admin: {scorer: '[::]:9465'}\n", "t.yaml:14: admin.scorer: '[::]:9465' can be reached from other "
                                       "machines, and the page has no password; use "
                                       "127.0.0.1, or set admin.allow_remote: true"},
    {"admin: {scorer: '127.0.0.1.example.com:9465', allow_remote: false}\n",
     "t.yaml:14: admin.scorer: '127.0.0.1.example.com:9465' can be reached from other machines, and the page "
     "has no "
     "password; use 127.0.0.1, or set admin.allow_remote: true"},
    {"store: {path: /x}\nserving: {store: /x}\n",
     "t.yaml:15: serving.store: is the trainer's store.path; the scorer needs a folder of its own"},
    {"log: {level: verbose}\n",
     "t.yaml:14: log.level: unknown value 'verbose'; allowed: debug, info, warn, error"},
    {"files: {path: x}\n",
     "t.yaml:14: files: expected a list of entries that start with '-', got keys and values"},
    {"files:\n  - {format: csv}\n",
     "t.yaml:15: files[0].path: is missing. Relative to `--data`; `.gz` is fine."},
    {"files:\n  - {path: x}\n",
     "t.yaml:15: files[0].time_column: is missing; name the column with the event's time"},
    {"files:\n  - {path: x, time_column: t}\n",
     "t.yaml:15: files[0].event: give either event (a file of one kind) or kind_column "
     "(a column says it), one is needed"},
    {"files:\n  - {path: x, time_column: t, event: click, kind_column: k}\n",
     "t.yaml:15: files[0].event: give either event (a file of one kind) or kind_column (a column says it), "
     "not both"},
    {"files:\n  - {path: x, time_column: t, event: clik}\n",
     "t.yaml:15: files[0].event: 'clik' is neither 'impression' nor a step of the funnel"},
    {"files:\n  - {path: x, time_column: t, event: impression}\n",
     "t.yaml:15: files[0].id_column: is missing; impressions need an id"},
    {"files:\n  - {path: x, time_column: t, event: click}\n",
     "t.yaml:15: files[0].impression_column: is missing; name the column with the id of the impression that "
     "a step answers"},
    {"files:\n  - {path: x, time_column: t, event: click, impression_column: i, skip: [a]}\n",
     "t.yaml:15: files[0].skip: has no meaning without kind_column; remove it"},
    {"files:\n  - {path: x, format: jsonl,\n     id_column: i}\n",
     "t.yaml:16: files[0].id_column: has no meaning for format jsonl; remove it"},
    {"name: again\n", "t.yaml:14: key 'name' is here twice (first on line 1)"},
    {"model: &m {seed: 1}\n", "t.yaml:14: anchors (&name) are not supported; write the value out"},
    {"model: *m\n", "t.yaml:14: aliases (*name) are not supported; write the value out"},
    {"model: {seed: \"1\\0\"}\n",
     "t.yaml:14: control characters (also line breaks) are not allowed in values"},
    {"---\nname: x\n", "t.yaml:14: a second document starts here; one file holds one configuration"},
    {"? [a]\n: b\n", "t.yaml:14: a key must be a plain word"},
};

START_TEST(test_extras)
{
    char yaml[4000];
    int n = snprintf(yaml, sizeof yaml, "%s%s", good, extras[_i].text);
    check_message(message_of(yaml, (size_t)n, NULL, 0), extras[_i].message);
}
END_TEST

/* --set on the good file: wrong settings, and rules between values, which name the line of the file. */
static const bad settings[] = {
    {"model.foo=1", "--set model.foo: unknown key; allowed: architecture, seed, bottom, towers, experts, "
                    "expert_layers, norm, "
                    "row_init, wide"},
    {"model.architecure=mmoe",
     "--set model.architecure: unknown key; did you mean 'architecture'? allowed: architecture, seed, "
     "bottom, towers, experts, expert_layers, norm, row_init, wide"},
    {"model.architecture=mmo",
     "--set model.architecture: unknown value 'mmo'; allowed: shared_bottom, esmm, mmoe"},
    {"model.towers=[64, x]", "--set model.towers: model.towers[1]: expected a whole number, got 'x'"},
    {"model.towers=[64",
     "--set model.towers: not valid YAML: did not find expected ',' or ']' while parsing a flow sequence"},
    {"model.towers.x=1",
     "--set model.towers.x: t.yaml has no list 'model.towers' to change; set it whole, e.g. "
     "model.towers=[...]"},
    {"model.seed.x=1", "--set model.seed.x: 'model.seed' is a single value and has no keys below it"},
    {"model=5", "--set model: expected keys and values, got '5'"},
    {"model.=5", "--set model.: ends with a dot"},
    {"[0]=5", "--set [0]: unknown key; allowed: name, funnel, features, model, optimizer, training, join, "
              "kafka, files, store, backup, "
              "publish, serving, admin, log"},
    {"features.itme.dimension=8",
     "--set features.itme.dimension: there is no entry named 'itme'; did you mean 'item'?"},
    {"features[9].dimension=8",
     "--set features[9].dimension: there is no entry '[9]'; entries count from [0]"},
    {"features[-1].dimension=8",
     "--set features[-1].dimension: there is no entry '[-1]'; entries count from [0]"},
    {"features[0]x.dimension=8",
     "--set features[0]x.dimension: unknown key; allowed: name, kind, side, source, table, dimension, "
     "wide, pooling, transform, mean, deviation, buckets, of, max_ids, missing, admit_after, ttl, seed"},
    {"features.item.dimension=5000",
     "--set features.item.dimension: features[1].dimension: 5000 is out of range; allowed: 0 to 1024"},
    {"nonsense", "--set nonsense: write key=value, e.g. --set model.architecture=mmoe"},
    {"=1", "--set =1: write key=value, e.g. --set model.architecture=mmoe"},
    {"model .seed=1", "--set: the key has a character that no key has; write key=value without spaces"},
    {"name=a\nb", "--set name: the value has control characters or is not UTF-8"},
    {"name=\xff", "--set name: the value has control characters or is not UTF-8"},
    {"name=a b", "--set name: 'a b' is not a name; use 1 to 64 letters, digits, _ and -"},
    {"kafka.rdkafka.a b=1", "--set: the key has a character that no key has; write key=value without spaces"},
    {"funnel.steps=[]", "--set funnel.steps: has 0 entries; allowed: 1 to 8"},
    {"funnel.steps=",
     "t.yaml:2: funnel.steps: is missing. One entry per step, first to last, e.g. click then conversion."},
    {"funnel.steps=[{name: click}]", "--set funnel.steps: funnel.steps[0].window: is missing. Attribution "
                                     "window: how long after the impression the step still "
                                     "counts. Not shorter than that of the step before."},
    {"funnel.steps[1].window=20m",
     "--set funnel.steps[1].window: is shorter than that of 'click' before it, so 'order' could "
     "close first; make it at least as long"},
    {"funnel.steps[0].window=3d",
     "t.yaml:5: funnel.steps[1].window: is shorter than that of 'click' before it, so 'order' could "
     "close first; make it at least as long"},
    {"funnel.steps[1].name=click",
     "--set funnel.steps[1].name: 'click' is here twice (also funnel.steps[0])"},
    {"funnel.steps[0].name=impression",
     "--set funnel.steps[0].name: 'impression' is what comes before the first step; call the "
     "step something else"},
    {"funnel.steps=[{name: a, window: 1h, weight: 0}]",
     "--set funnel.steps: all weights are 0, so nothing would be learned; give one step a weight"},
    {"features=[]", "--set features: has 0 entries; allowed: 1 to 256"},
    {"features[1].name=user", "--set features[1].name: 'user' is here twice (also features[0])"},
    {"features[1].side=", "t.yaml:8: features[1].side: is missing; allowed: user, item, context"},
    {"features[0].buckets=[1]",
     "--set features[0].buckets: has no meaning for this feature, it needs kind numeric; remove it"},
    {"features[0].max_ids=5", "--set features[0].max_ids: has no meaning for this feature, it needs kind "
                              "multi, cross or sequence; remove it"},
    {"features[0].of=[item, tags]",
     "--set features[0].of: has no meaning for this feature, it needs kind cross; remove it"},
    {"features.both.source=x", "--set features.both.source: features[5].source: has no meaning for this "
                               "feature, it needs a kind other than cross; remove it"},
    {"features.price.dimension=4",
     "--set features.price.dimension: features[3].dimension: has no meaning for this feature, it "
     "needs rows, and a plain number has none (transform bucket has); remove it"},
    {"features.price.mean=4", "--set features.price.mean: features[3].mean: has no meaning for this feature, "
                              "it needs transform standardize; remove it"},
    {"features.price.missing=cheap",
     "--set features.price.missing: features[3].missing: expected a number, got 'cheap'"},
    {"features.age.buckets=[1, 3, 2]",
     "--set features.age.buckets: features[4].buckets[2]: bounds must ascend, but 2 comes after 3"},
    {"features.age.buckets=",
     "t.yaml:11: features[4].buckets: is missing; give ascending upper bounds, e.g. [1, 10, 100]"},
    {"features.both.of=[user]", "--set features.both.of: features[5].of: has 1 entries; allowed: 2 to 8"},
    {"features.both.of=",
     "t.yaml:12: features[5].of: a cross needs the names of 2 to 8 features, e.g. of: [country, device]"},
    {"features.both.of=[user, itme]",
     "--set features.both.of: features[5].of[1]: there is no feature 'itme'; did you mean 'item'?"},
    {"features.both.of=[user, nobody]",
     "--set features.both.of: features[5].of[1]: there is no feature 'nobody'"},
    {"features.both.of=[user, both]",
     "--set features.both.of: features[5].of[1]: 'both' is a cross itself; name the features it is made of"},
    {"features.both.of=[user, price]", "--set features.both.of: features[5].of[1]: 'price' is a number; give "
                                       "it transform: bucket, or leave it out"},
    {"features.both.of=[user, user]",
     "--set features.both.of: features[5].of[1]: 'user' is in this cross twice"},
    {"features.item.dimension=0",
     "--set features.item.dimension: features[1].dimension: is 0, so 'item' would have no effect "
     "without model.wide: true; set that, or a dimension"},
    {"features[1]={name: item, side: item, dimension: 0, wide: false}",
     "--set features[1]: features[1].dimension: is 0 and wide is false, so 'item' would have no effect; "
     "change one"},
    {"features[1]={name: item, side: item, table: user, dimension: 8}",
     "--set features[1]: features[1].dimension: is 8, but 'user' shares table 'user' with dimension 16; make "
     "them equal or use "
     "another table"},
    {"features[1]={name: item, side: item, table: user, seed: 3}",
     "--set features[1]: features[1].seed: differs from that of 'user', which shares table 'user': equal "
     "values would not meet; "
     "make them equal"},
    {"features=[{name: a, kind: multi, side: user, max_ids: 5000}]",
     "--set features: features[0].max_ids: 5000 is out of range; allowed: 1 to 4096"},
};

START_TEST(test_settings)
{
    check_message(message_of(good, sizeof good - 1, &settings[_i].text, 1), settings[_i].message);
}
END_TEST

/* Whole files. */
static const bad files[] = {
    {"", "t.yaml: is empty; see examples/ads.yaml for a start"},
    {"# nothing\n", "t.yaml: is empty; see examples/ads.yaml for a start"},
    {"- a\n", "t.yaml:1: expected keys and values, e.g. 'name: ads'"},
    {"ads\n", "t.yaml:1: expected keys and values, e.g. 'name: ads'"},
    {"name: x\n",
     "t.yaml:1: funnel.steps: is missing. One entry per step, first to last, e.g. click then conversion."},
    {"funnel:\n  steps: [{name: c, window: 1h}]\n",
     "t.yaml:1: features: is missing. What the model looks at, one entry per feature. Kinds: `categorical` "
     "one value; `multi` "
     "several values, pooled; `numeric` a number; `cross` each combination of other features' values; "
     "`sequence` ids in time "
     "order."},
    {"name: [\n", "t.yaml:2: not valid YAML: did not find expected node content while parsing a flow node"},
    {"name: x\n\tfunnel: y\n", "t.yaml:2: not valid YAML: found a tab character that violates indentation "
                               "while scanning a plain scalar"},
    {"name: \"\xff\"\n", "t.yaml:1: not valid YAML: invalid leading UTF-8 octet"},
    {"a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: {a: 1}}}}}}}}}}}}}}}}}\n",
     "t.yaml:1: nested too deeply"},
    {"funnel: {steps: [{name: c, window: 1h}]}\nfeatures:\n  - {name: a, side: user, dimension: 0}\nmodel: "
     "{wide: true}\n",
     "t.yaml:2: features: none is an input of the network; give at least one a dimension above 0"},
};

START_TEST(test_files)
{
    check_message(message_of(files[_i].text, strlen(files[_i].text), NULL, 0), files[_i].message);
}
END_TEST

START_TEST(test_limits)
{
    size_t n = 0, size = (size_t)5 << 20;
    char *yaml = malloc(size);
    memset(yaml, '#', size);
    ck_assert_ptr_nonnull(
        strstr(message_of(yaml, size, NULL, 0), "are too many for a configuration (at most 4194304)"));
    for (int i = 0; i < 1000; i++)
        n += (size_t)sprintf(yaml + n, "key%d: 1\n", i);
    check_message(message_of(yaml, n, NULL, 0), "t.yaml:513: too many keys in one mapping");
    n = (size_t)sprintf(yaml, "features: [");
    while (n < 300000)
        n += (size_t)sprintf(yaml + n, "a,");
    n += (size_t)sprintf(yaml + n, "a]\n");
    ck_assert_ptr_nonnull(strstr(message_of(yaml, n, NULL, 0), "too many values"));
    n = (size_t)sprintf(yaml, "%s", good);
    for (int i = 0; i < 17; i++)
        n += (size_t)sprintf(yaml + n, "  - {name: m%d, kind: multi, side: item, max_ids: 4096}\n", i);
    ck_assert_ptr_nonnull(
        strstr(message_of(yaml, n, NULL, 0), "ids per event; allowed: up to 65535; lower max_ids"));
    for (int i = 0; i < 300; i++)
        n += (size_t)sprintf(yaml + n, "  - {name: n%d, side: item}\n", i);
    check_message(message_of(yaml, n, NULL, 0), "t.yaml:6: features: has 323 entries; allowed: 1 to 256");
    free(yaml);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bad options");
    TCase *all = tcase_create("messages");
    tcase_add_loop_test(all, test_extras, 0, sizeof extras / sizeof *extras);
    tcase_add_loop_test(all, test_settings, 0, sizeof settings / sizeof *settings);
    tcase_add_loop_test(all, test_files, 0, sizeof files / sizeof *files);
    tcase_add_test(all, test_limits);
    tcase_set_timeout(all, 60);
    suite_add_tcase(suite, all);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
