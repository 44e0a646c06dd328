/* Watch is the same handler, run again at each change (kind WATCH); it differs only for unknown services:
 * Check fails, Watch answers SERVICE_UNKNOWN and goes on, since the service may appear later. */
#include "serving/grpc_health.h"
#include "grpc/health/v1/health.pb-c.h"
#include "serving/pb_arena.h"
#include <stdio.h>

typedef Grpc__Health__V1__HealthCheckResponse answer;

static slu_grpc_status put(slu_grpc_call *call, int status)
{
    answer a;
    grpc__health__v1__health_check_response__init(&a);
    a.status = (Grpc__Health__V1__HealthCheckResponse__ServingStatus)status;
    size_t size = grpc__health__v1__health_check_response__get_packed_size(&a);
    grpc__health__v1__health_check_response__pack(&a, slu_buf_reserve(call->response, size));
    call->response->len += size;
    return SLU_GRPC_OK;
}

static slu_grpc_status health(slu_grpc_health *h, slu_grpc_call *call, bool watch)
{
    ProtobufCAllocator allocator = slu_pb_allocator(call->arena);
    Grpc__Health__V1__HealthCheckRequest *request =
        grpc__health__v1__health_check_request__unpack(&allocator, call->request_len, call->request);
    if (!request) {
        snprintf(call->message, sizeof call->message, "not a grpc.health.v1.HealthCheckRequest");
        return SLU_GRPC_INVALID_ARGUMENT;
    }
    if (*request->service && !slu_grpc_routes_has_service(h->routes, request->service)) {
        if (watch)
            return put(call, GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVICE_UNKNOWN);
        snprintf(call->message, sizeof call->message, "unknown service %.200s", request->service);
        return SLU_GRPC_NOT_FOUND;
    }
    return put(call, atomic_load(&h->serving)
                         ? GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__SERVING
                         : GRPC__HEALTH__V1__HEALTH_CHECK_RESPONSE__SERVING_STATUS__NOT_SERVING);
}

static slu_grpc_status check(void *ctx, slu_grpc_call *call)
{
    return health(ctx, call, false);
}

static slu_grpc_status watch(void *ctx, slu_grpc_call *call)
{
    return health(ctx, call, true);
}

int slu_grpc_health_add(slu_grpc_health *h, slu_grpc_routes *routes, slu_error *err)
{
    h->routes = routes;
    int rc = slu_grpc_routes_add(routes, "/grpc.health.v1.Health/Check", SLU_GRPC_UNARY, true, check, h, err);
    return rc ? rc
              : slu_grpc_routes_add(routes, "/grpc.health.v1.Health/Watch", SLU_GRPC_WATCH, false, watch, h,
                                    err);
}
