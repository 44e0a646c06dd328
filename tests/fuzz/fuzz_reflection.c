/* What the scorer answers about itself, and what it reads to know it: reflection and health requests, and a
 * descriptor set. The first byte says which. Answers must be messages of their kind that echo the question;
 * files of an accepted descriptor set must lie inside of it. */
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "proto/descriptors.h"
#include "serving/grpc_health.h"
#include "serving/grpc_reflection.h"
#include "tests/fuzz/require.h"

#define INFO "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"

static slu_grpc_routes *routes;
static slu_grpc_health health;
static slu_grpc_reflection reflection;
static slu_proto_index *own;
static slu_arena *arena;
static slu_buf response;

static void set_up(void)
{
    slu_error err = SLU_ERROR_INIT;
    routes = slu_grpc_routes_new();
    REQUIRE(!slu_proto_index_new(slu_descriptor_set, slu_descriptor_set_size, &own, &err));
    reflection.index = own;
    REQUIRE(!slu_grpc_health_add(&health, routes, &err));
    REQUIRE(!slu_grpc_reflection_add(&reflection, routes, &err));
    arena = slu_arena_new(0, 8u << 20);
}

static slu_grpc_status call(const char *path, const uint8_t *p, size_t n, char message[512])
{
    slu_grpc_route *route = slu_grpc_routes_find(routes, path, strlen(path));
    slu_grpc_call c = {
        .request = p, .request_len = n, .deadline_us = INT64_MAX, .arena = arena, .response = &response};
    slu_buf_clear(&response);
    REQUIRE(route);
    slu_grpc_status status = route->handler(route->ctx, &c);
    REQUIRE((status == SLU_GRPC_OK) == (c.message[0] == 0));
    memcpy(message, c.message, sizeof c.message);
    slu_arena_reset(arena);
    return status;
}

static void ask_reflection(const uint8_t *p, size_t n)
{
    char message[512];
    typedef Grpc__Reflection__V1__ServerReflectionRequest request;
    request *q = grpc__reflection__v1__server_reflection_request__unpack(NULL, n, p);
    slu_grpc_status status = call(INFO, p, n, message);
    REQUIRE((q != NULL) == (status == SLU_GRPC_OK));
    if (!q)
        return;
    Grpc__Reflection__V1__ServerReflectionResponse *r =
        grpc__reflection__v1__server_reflection_response__unpack(NULL, response.len, response.data);
    REQUIRE(r && r->original_request && !strcmp(r->valid_host, q->host));
    REQUIRE(r->original_request->message_request_case == q->message_request_case);
    switch (r->message_response_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE:
        REQUIRE(r->file_descriptor_response->n_file_descriptor_proto > 0);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE:
        REQUIRE(r->list_services_response->n_service == 3);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE:
        REQUIRE(slu_proto_index_message(own, r->all_extension_numbers_response->base_type_name));
        break;
    default:
        REQUIRE(r->message_response_case ==
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE);
        REQUIRE(r->error_response->error_code && r->error_response->error_message[0]);
    }
    grpc__reflection__v1__server_reflection_response__free_unpacked(r, NULL);
    grpc__reflection__v1__server_reflection_request__free_unpacked(q, NULL);
}

static void ask_health(const uint8_t *p, size_t n, bool watch)
{
    char message[512];
    slu_grpc_status status =
        call(watch ? "/grpc.health.v1.Health/Watch" : "/grpc.health.v1.Health/Check", p, n, message);
    Grpc__Health__V1__HealthCheckRequest *q = grpc__health__v1__health_check_request__unpack(NULL, n, p);
    REQUIRE((q != NULL) == (status != SLU_GRPC_INVALID_ARGUMENT));
    if (status == SLU_GRPC_OK) {
        Grpc__Health__V1__HealthCheckResponse *r =
            grpc__health__v1__health_check_response__unpack(NULL, response.len, response.data);
        bool known = !q->service[0] || slu_grpc_routes_has_service(routes, q->service);
        REQUIRE(r && known == (r->status !=
                               GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN));
        grpc__health__v1__health_check_response__free_unpacked(r, NULL);
    }
    if (q)
        grpc__health__v1__health_check_request__free_unpacked(q, NULL);
}

typedef struct seen {
    const slu_proto_index *index;
    size_t files;
} seen;

static void visit(void *ctx, size_t file)
{
    seen *s = ctx;
    REQUIRE(file < slu_proto_index_files(s->index));
    s->files++;
}

static void index_set(const uint8_t *p, size_t n)
{
    slu_proto_index *x;
    slu_error err = SLU_ERROR_INIT;
    int rc = slu_proto_index_new(p, n, &x, &err);
    REQUIRE(rc == err.code && (rc == 0 || err.message[0]));
    if (rc)
        return;
    size_t files = slu_proto_index_files(x);
    for (size_t i = 0; i < files; i++) {
        size_t len;
        const uint8_t *body = slu_proto_index_bytes(x, i, &len);
        REQUIRE(body >= p && len <= n && body + len <= p + n);
        seen s = {x, 0};
        slu_proto_index_closure(x, i, visit, &s);
        REQUIRE(s.files >= 1 && s.files <= files); /* each once */
    }
    slu_proto_index_symbol(x, "sluice.v1.Scoring.Score");
    slu_proto_index_message(x, "sluice.v1.ScoreRequest");
    slu_proto_index_file(x, "sluice/v1/score.proto");
    slu_proto_index_free(x);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!routes)
        set_up();
    if (!n)
        return 0;
    uint8_t *own_block = malloc(n);
    memcpy(own_block, data + 1, n - 1);
    switch (data[0] % 4) {
    case 0:
        ask_reflection(own_block, n - 1);
        break;
    case 1:
    case 2:
        health.serving = n % 2;
        ask_health(own_block, n - 1, data[0] % 4 == 2);
        break;
    case 3:
        index_set(own_block, n - 1);
        break;
    }
    free(own_block);
    return 0;
}
