/* Out of memory, at every allocation once, in what handles bytes from outside: events, requests, gRPC,
 * deltas, configuration, recorded files, stored values. Nothing crashes or leaks; it is refused with
 * SLU_ENOMEM (or the encoding's word for it), the connection is given up, or the process ends by the policy
 * of base/bytes.h. */
#include "base/log.h"
#include "feature/encode.h"
#include "model/products.h"
#include "model/spec.h"
#include "proto/descriptors.h"
#include "serving/delta_applier.h"
#include "serving/grpc_health.h"
#include "serving/grpc_reflection.h"
#include "serving/grpc_session.h"
#include "serving/score.h"
#include "serving/served.h"
#include "tests/alloc_failure.h"
#include "tests/feature_sample.h"
#include "tests/memory_store.h"
#include "tests/suite.h"
#include "trainer/order.h"
#include "trainer/pipeline.h"
#include "trainer/source.h"
#include <stdio.h>
#include <unistd.h>

#define CORPUS "tests/fuzz/corpus/"

typedef struct input {
    uint8_t bytes[8192];
    size_t n;
} input;

static slu_schema *schema;

/* A seed of the fuzzers. */
static input seed(const char *path)
{
    static char whole[300];
    input in = {.n = 0};
    snprintf(whole, sizeof whole, CORPUS "%s", path);
    FILE *f = fopen(whole, "rb");
    ck_assert_msg(f, "cannot read %s: start the test in the source folder", whole);
    in.n = fread(in.bytes, 1, sizeof in.bytes, f);
    fclose(f);
    return in;
}

static void setup(void)
{
    slu_log_setup(SLU_LOG_ERROR + 1, SLU_LOGFMT);
    if (!schema)
        ck_assert_int_eq(slu_schema_new(&sample_options, &schema, NULL), 0);
}

/* Refused, for lack of memory alone. */
static bool refused(int rc, const slu_error *err)
{
    return rc == SLU_ENOMEM && err->code == rc && err->message[0] && alloc_failure_happened();
}

static void check(const char *name, bool (*scenario)(void))
{
    setup();
    alloc_report r = alloc_failure_run(name, scenario);
    ck_assert_int_eq(r.wrong, 0);
    ck_assert_int_gt(r.allocations, 0);
    ck_assert_int_eq(r.survived + r.gave_up, r.allocations);
}

/* ---- events ---- */

static input event_bytes;
static slu_encoding encoding;

static bool decode_event(void)
{
    slu_event e;
    slu_dead_reason why = SLU_DEAD_NONE;
    slu_error err = SLU_ERROR_INIT;
    slu_arena *arena = slu_arena_new(0, 1 << 20);
    slu_encoder *encoder = slu_encoder_new(schema);
    slu_encoded *out = malloc(slu_encoded_max(schema));
    bool right = alloc_failure_happened();
    if (arena && encoder && out) {
        int rc = slu_event_decode(schema, encoding, SLU_UNKNOWN_IGNORE, event_bytes.bytes, event_bytes.n,
                                  arena, &e, &why, &err);
        right = rc == 0 || (rc == err.code && why != SLU_DEAD_NONE && alloc_failure_happened());
        if (rc == 0 && e.kind == SLU_EVENT_IMPRESSION)
            slu_encode(encoder, e.fields, out);
    }
    free(out);
    slu_encoder_free(encoder);
    slu_arena_free(arena);
    return right;
}

START_TEST(events)
{
    event_bytes = seed("event_json/seed2");
    encoding = SLU_ENCODING_JSON;
    check("JSON event", decode_event);
    event_bytes = seed("event_protobuf/seed2");
    encoding = SLU_ENCODING_PROTOBUF;
    check("protobuf event", decode_event);
}
END_TEST

/* ---- configuration ---- */

static input yaml;

static bool parse_config(void)
{
    static const char *const sets[] = {"model.towers=[8, 4]", "training.batch_size=16"};
    slu_options *o = NULL;
    slu_schema *s = NULL;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_options_parse((const char *)yaml.bytes, yaml.n, "t.yaml", sets, 2, &o, &err);
    if (!rc)
        rc = slu_schema_new(o, &s, &err);
    if (!rc)
        free(slu_options_dump(o));
    bool right = (rc == 0 && err.code == 0) || refused(rc, &err);
    slu_schema_free(s);
    slu_options_free(o);
    return right;
}

START_TEST(configuration)
{
    yaml = seed("config/full");
    check("configuration", parse_config);
}
END_TEST

/* ---- requests ---- */

static input request;
static slu_precision precision;

static bool score(void)
{
    static uint32_t large[] = {64, 48}; /* layers that are worth integers */
    static slu_options options;
    slu_net *net = NULL;
    slu_model_table *table = NULL;
    slu_scorer *scorer = NULL;
    slu_buf response = SLU_BUF_INIT;
    slu_error err = SLU_ERROR_INIT;
    options = sample_options;
    options.serving.max_candidates = 300;
    options.serving.precision = precision;
    if (precision == SLU_INT8)
        options.model.towers = large;
    slu_arena *arena = slu_arena_new(0, 16 << 20);
    int rc = arena ? slu_net_of(&options, slu_schema_inputs(schema), &net, &err) : SLU_ENOMEM;
    if (!rc)
        rc = slu_served_table(&options, schema, net, 0, &table, &err);
    float *dense = rc ? NULL : calloc(slu_net_params(net), sizeof *dense);
    if (!rc)
        rc = dense ? slu_model_publish(table, dense, 1, 1, &err) : SLU_ENOMEM;
    free(dense);
    slu_scorer_config config = {&options, schema, net, table, &slu_system_clock, 1};
    if (!rc)
        rc = slu_scorer_new(&config, &scorer, &err);
    bool right = rc == 0 || (rc == SLU_ENOMEM && alloc_failure_happened());
    for (int i = 0; i < 2 && !rc; i++) { /* the second finds everything warm */
        slu_grpc_call call = {.request = request.bytes,
                              .request_len = request.n,
                              .deadline_us = INT64_MAX,
                              .arena = arena,
                              .response = &response};
        slu_buf_clear(&response);
        slu_grpc_status status = slu_score(scorer, &call);
        right = right && (status == SLU_GRPC_OK ||
                          (alloc_failure_happened() && call.message[0] &&
                           (status == SLU_GRPC_RESOURCE_EXHAUSTED || status == SLU_GRPC_INTERNAL)));
        slu_arena_reset(arena);
    }
    slu_scorer_free(scorer);
    slu_model_table_free(table);
    slu_net_free(net);
    slu_arena_free(arena);
    slu_buf_free(&response);
    return right;
}

START_TEST(score_requests)
{
    request = seed("score/plain");
    check("score request", score);
}
END_TEST

START_TEST(score_requests_in_int8)
{
    request = seed("score/plain");
    precision = SLU_INT8;
    check("score request in int8", score);
}
END_TEST

/* ---- training passes ---- */

static bool train_in_bf16(void)
{
    static const uint32_t tower[] = {64, 48};
    const slu_net_spec spec = {
        .architecture = "esmm", .inputs = 40, .tasks = 2, .towers = tower, .n_towers = 2, .seed = 1};
    slu_net *net = NULL;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_net_build(&spec, &net, &err);
    slu_workspace *w = rc ? NULL : slu_workspace_new(net, 50, true);
    float *params = rc ? NULL : calloc(slu_net_params(net), sizeof *params);
    float *grads = rc ? NULL : calloc(slu_net_params(net), sizeof *grads);
    if (!rc && (!w || !params || !grads))
        rc = SLU_ENOMEM;
    if (!rc)
        rc = slu_workspace_precision(w, true);
    if (!rc)
        rc = slu_workspace_pack(w, params);
    if (!rc) {
        slu_net_forward(net, params, w, 33, SLU_TRAIN);
        memset(slu_workspace_dlogits(w), 0, 33 * 2 * sizeof(float));
        slu_net_backward(net, params, grads, w, 33);
    }
    slu_workspace_free(w);
    slu_net_free(net);
    free(params);
    free(grads);
    return rc == 0 || (rc == SLU_ENOMEM && alloc_failure_happened());
}

START_TEST(training_in_bf16)
{
    slu_products_choose(SLU_PRODUCTS_ROUNDED); /* what the library does without memory is not ours */
    check("training pass in bf16", train_in_bf16);
}
END_TEST

/* ---- gRPC ---- */

static int64_t now;
static input wire;

static int64_t get_now(void *ctx)
{
    (void)ctx;
    return now;
}

static slu_grpc_status echo(void *ctx, slu_grpc_call *call)
{
    (void)ctx;
    slu_put_bytes(call->response, call->request, call->request_len);
    return SLU_GRPC_OK;
}

static bool converse(void)
{
    static const uint8_t opening[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    static slu_grpc_health health;
    static slu_grpc_reflection reflection;
    const slu_clock clock = {get_now, get_now, NULL};
    slu_serving_opts opts = {.max_request_bytes = 2000, .max_streams = 20, .max_queue = 6};
    slu_grpc_limits limits = slu_grpc_limits_of(&opts);
    slu_error err = SLU_ERROR_INIT;
    slu_proto_index *index = NULL;
    now = 1000000;
    slu_grpc_routes *routes = slu_grpc_routes_new();
    int rc =
        routes ? slu_proto_index_new(slu_descriptor_set, slu_descriptor_set_size, &index, &err) : SLU_ENOMEM;
    reflection.index = index;
    if (!rc)
        rc = slu_grpc_routes_add(routes, "/t.S/E", SLU_GRPC_UNARY, false, echo, NULL, &err);
    if (!rc)
        rc = slu_grpc_routes_add(routes, "/t.S/B", SLU_GRPC_BIDI, false, echo, NULL, &err);
    if (!rc)
        rc = slu_grpc_health_add(&health, routes, &err);
    if (!rc)
        rc = slu_grpc_reflection_add(&reflection, routes, &err);
    slu_grpc_core *core = rc ? NULL : slu_grpc_core_new(&limits, routes, 0);
    slu_grpc_session *s = core ? slu_grpc_session_new(core, &now, now) : NULL;
    bool right = rc == 0 ? s || alloc_failure_happened() : rc == SLU_ENOMEM && alloc_failure_happened();
    if (s) {
        const uint8_t *p;
        size_t n;
        rc = wire.bytes[0] & 1 ? slu_grpc_session_feed(s, opening, sizeof opening - 1, now) : 0;
        if (!rc)
            rc = slu_grpc_session_feed(s, wire.bytes + 2, wire.n - 2, now);
        while (slu_grpc_core_run(core, &clock))
            ;
        while ((n = slu_grpc_session_output(s, &p)))
            slu_grpc_session_sent(s, n, now);
        right = rc == 0 || alloc_failure_happened(); /* the connection is given up */
        slu_grpc_session_free(s);
    }
    slu_grpc_core_free(core);
    slu_grpc_routes_free(routes);
    slu_proto_index_free(index);
    return right;
}

/* Counters are registered when they first count, and then stay. */
static void register_counters(void)
{
    static const char *const paths[] = {"/t.S/E", "/t.S/B"};
    slu_error err = SLU_ERROR_INIT;
    slu_grpc_health health;
    slu_grpc_reflection reflection;
    slu_grpc_routes *routes = slu_grpc_routes_new();
    for (int i = 0; i < 2; i++)
        ck_assert_int_eq(slu_grpc_routes_add(routes, paths[i], SLU_GRPC_UNARY, false, echo, NULL, &err), 0);
    ck_assert_int_eq(slu_grpc_health_add(&health, routes, &err), 0);
    ck_assert_int_eq(slu_grpc_reflection_add(&reflection, routes, &err), 0);
    const char *const all[] = {"/t.S/E",
                               "/t.S/B",
                               "/grpc.health.v1.Health/Check",
                               "/grpc.health.v1.Health/Watch",
                               "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                               "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"};
    for (int status = 0; status <= SLU_GRPC_UNAVAILABLE + 2; status++) {
        for (size_t i = 0; i < COUNT_OF(all); i++)
            slu_grpc_route_count(slu_grpc_routes_find(routes, all[i], strlen(all[i])), status);
        slu_grpc_route_count(slu_grpc_routes_unknown(routes), status);
    }
    slu_grpc_routes_free(routes);
}

START_TEST(grpc)
{
    register_counters();
    static const char *const seeds[] = {"unary", "chat", "health", "reflection"};
    for (int i = 0; i < 4; i++) {
        char path[64];
        snprintf(path, sizeof path, "grpc/%s", seeds[i]);
        wire = seed(path);
        check(path, converse);
    }
}
END_TEST

/* ---- deltas ---- */

static input history;

static bool apply(void)
{
    static slu_options options;
    static slu_schema *small;
    static uint32_t served[64];
    if (!small) {
        options = sample_options;
        options.n_features = 2;
        if (slu_schema_new(&options, &small, NULL))
            return false;
        served_floats(&options, small, served);
    }
    uint64_t ours = slu_schema_fingerprint(small);
    slu_model_table *table = NULL;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_model_table_new(served, slu_schema_tables(small), 20, 64 << 20, &table, &err);
    slu_delta_applier *a = rc ? NULL : slu_delta_applier_new(small, table);
    bool right = rc ? refused(rc, &err) : a || alloc_failure_happened();
    for (size_t at = 0; a && at + 2 <= history.n;) {
        size_t len = history.bytes[at] | (size_t)history.bytes[at + 1] << 8;
        at += 2;
        len = len < history.n - at ? len : history.n - at;
        for (size_t i = at; i + 9 <= at + len; i++)
            if (!memcmp(history.bytes + i, "1FINGERPR", 9))
                memcpy(history.bytes + i + 1, &ours, 8);
        slu_error why = SLU_ERROR_INIT;
        uint64_t before = slu_delta_applier_position(a).version;
        rc = slu_delta_apply(a, history.bytes + at, len, &why);
        right = right && (rc >= 0 || (alloc_failure_happened() && why.message[0]));
        right = right && (rc == 1 || slu_delta_applier_position(a).version == before);
        right = right && slu_model_current(table).version == slu_delta_applier_position(a).version;
        at += len;
    }
    slu_delta_applier_free(a);
    slu_model_table_free(table);
    return right;
}

START_TEST(deltas)
{
    history = seed("delta/base_and_deltas");
    check("deltas", apply);
    history = seed("delta/chunks");
    check("deltas in chunks", apply);
}
END_TEST

/* ---- recorded files ---- */

static slu_options *file_options;
static slu_schema *file_schema;

static bool read_files(void)
{
    slu_source *s = NULL;
    slu_record r;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_file_source_open(file_options, file_schema, "/tmp", NULL, &s, &err), n = 0;
    if (rc)
        return refused(rc, &err) || (rc == SLU_EIO && alloc_failure_happened()); /* zlib has no word for it */
    while ((rc = slu_source_next(s, 0, &r, &err)) == 1)
        n++;
    s->ops->close(s);
    return rc == SLU_ECLOSED ? n > 2 || alloc_failure_happened() : alloc_failure_happened() && err.message[0];
}

START_TEST(recorded_files)
{
    static const char text[] =
        "funnel: {steps: [{name: click, window: 10m}]}\n"
        "features: [{name: user, side: user, dimension: 2}, {name: item, side: item, dimension: 2}]\n"
        "kafka: {brokers: \"b:1\", topics: [t]}\n"
        "files:\n"
        "  - {path: x, id_column: id, time_column: at, kind_column: what, impression_column: of}\n"
        "  - {path: x, format: jsonl}\n"
        "store: {path: /nonexistent}\n";
    static const char csv[] = "id,at,what,of,user,item\ni1,1700000000000000,impression,,\"u \"\"1\",p\n"
                              "e1,1700000000000001,click,i1,,\n\"open\n";
    static const char json[] =
        "{\"step\":{\"id\":\"e\",\"step\":\"click\",\"impression_id\":\"i1\",\"time_us\":5}}\nx\n";
    const char *const contents[] = {csv, json};
    char names[2][32];
    slu_error err = SLU_ERROR_INIT;
    setup();
    ck_assert_msg(!slu_options_parse(text, strlen(text), "t", NULL, 0, &file_options, &err), "%s",
                  err.message);
    ck_assert_int_eq(slu_schema_new(file_options, &file_schema, &err), 0);
    for (int i = 0; i < 2; i++) {
        strcpy(names[i], "/tmp/sluice-alloc-XXXXXX");
        int fd = mkstemp(names[i]);
        ck_assert_int_eq(write(fd, contents[i], strlen(contents[i])), (int)strlen(contents[i]));
        close(fd);
        free(file_options->files[i].path);
        file_options->files[i].path = strdup(names[i] + 5);
    }
    check("recorded files", read_files);
    for (int i = 0; i < 2; i++)
        unlink(names[i]);
}
END_TEST

/* ---- stored values ---- */

static slu_options *trainer_options;
static memory_copy *stopped;

static void nothing(void *ctx, slu_channel ch, uint64_t sequence, const void *message, size_t len)
{
    (void)ctx, (void)ch, (void)sequence, (void)message, (void)len;
}

static void no_base(void *ctx, const void *message, size_t len)
{
    (void)ctx, (void)message, (void)len;
}

static uint64_t none(void *ctx, slu_channel ch)
{
    (void)ctx, (void)ch;
    return 0;
}

/* Goes on from what is stored with one more event, and commits. */
static int train(slu_schema *s, int number, slu_error *err)
{
    static const slu_sink sink = {.send = nothing, .send_base = no_base, .acked = none};
    static const slu_partition part = {"t", 0};
    char text[200];
    slu_store *store = NULL;
    slu_pipeline *p = NULL;
    slu_store_config config = {.path = "memory", .create = true, .schema_text = slu_schema_text(s)};
    int rc = slu_store_open(&config, &store, err);
    slu_pipeline_config pc = {.options = trainer_options,
                              .schema = s,
                              .store = store,
                              .sink = &sink,
                              .deltas = true,
                              .order = true,
                              .clock = &slu_system_clock};
    if (!rc)
        rc = slu_pipeline_open(&pc, &p, err);
    snprintf(text, sizeof text,
             "{\"impression\":{\"id\":\"i%d\",\"time_us\":1700000000000000,\"features\":{\"user\":\"u\","
             "\"item\":3}}}",
             number);
    slu_record r = {.kind = SLU_RECORD_EVENT,
                    .offset = number,
                    .encoding = SLU_ENCODING_JSON,
                    .bytes = text,
                    .len = strlen(text)};
    if (!rc)
        rc = slu_pipeline_feed(p, &part, &r, err);
    if (!rc)
        rc = slu_pipeline_finish(p, err);
    slu_pipeline_close(p);
    slu_store_close(store);
    return rc;
}

static bool go_on(void)
{
    slu_error err = SLU_ERROR_INIT;
    memory_store_restore(stopped);
    int rc = train(file_schema, 2, &err);
    memory_store_clear();
    return rc == 0 || refused(rc, &err);
}

START_TEST(stored_values)
{
    static const char text[] =
        "funnel: {steps: [{name: click, window: 10m}]}\n"
        "features: [{name: user, side: user, dimension: 2}, {name: item, side: item, dimension: 2}]\n"
        "model: {towers: [2]}\n"
        "training: {batch_size: 4}\n"
        "join: {cache: 1MiB}\n"
        "kafka: {brokers: \"b:1\", topics: [t]}\n"
        "store: {path: /nonexistent, cache: 1MiB}\n";
    slu_error err = SLU_ERROR_INIT;
    setup();
    ck_assert_msg(!slu_options_parse(text, strlen(text), "t", NULL, 0, &trainer_options, &err), "%s",
                  err.message);
    ck_assert_int_eq(slu_schema_new(trainer_options, &file_schema, &err), 0);
    memory_store_clear();
    ck_assert_msg(!train(file_schema, 1, &err), "%s", err.message);
    stopped = memory_store_copy();
    check("stored values", go_on);
}
END_TEST

static bool read_order(void)
{
    static const uint8_t damaged[] = {1, 9, 9};
    slu_order_reader *r = NULL;
    slu_order_run run;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_order_open(history.bytes, history.n, &r, &err);
    while (!rc && (rc = slu_order_next(r, &run, &err)) == 1)
        rc = 0;
    slu_order_close(r);
    bool right = rc == 0 || refused(rc, &err);
    slu_error_clear(&err);
    if (!slu_order_open(damaged, sizeof damaged, &r, &err))
        slu_order_close(r);
    return right;
}

START_TEST(orders)
{
    history = seed("order/usual");
    check("order", read_order);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {
        events, configuration, score_requests, score_requests_in_int8, training_in_bf16,
        grpc,   deltas,        recorded_files, stored_values,          orders,
        NULL};
    setenv("CK_TIMEOUT_MULTIPLIER", "4", 0); /* thousands of processes */
    return run_suite("allocation failure", tests);
}
