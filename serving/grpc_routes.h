/* serving/grpc_routes.h - which handler a :path goes to, and the names of the services behind them.
 *
 * Built once before the threads start and read-only afterwards, but for the counters. */
#pragma once
#include "base/metrics.h"
#include "serving/grpc_server.h"
#include "serving/grpc_status.h"
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>

typedef enum slu_grpc_kind {
    SLU_GRPC_UNARY, /* one request, one answer */
    SLU_GRPC_BIDI,  /* an answer to each request of a stream, in order */
    SLU_GRPC_WATCH, /* one request; an answer now and again whenever the answer changes */
} slu_grpc_kind;

typedef struct slu_grpc_route {
    char *path;
    slu_grpc_kind kind;
    bool at_once; /* cheap and wanted most when the server is busy (health): does not wait in the queue */
    slu_grpc_handler handler;
    void *ctx;
    _Atomic(slu_metric *) calls[SLU_GRPC_CODES]; /* registered when first counted */
    slu_metric *seconds;
} slu_grpc_route;

typedef struct slu_grpc_routes slu_grpc_routes;

slu_grpc_routes *slu_grpc_routes_new(void);    /* NULL: out of memory */
void slu_grpc_routes_free(slu_grpc_routes *r); /* NULL is fine */
/* Returns 0, SLU_EINVAL (not "/service/method", or there already), SLU_ENOMEM. */
int slu_grpc_routes_add(slu_grpc_routes *r, const char *path, slu_grpc_kind kind, bool at_once,
                        slu_grpc_handler handler, void *ctx, slu_error *err);
/* NULL: no such method. */
slu_grpc_route *slu_grpc_routes_find(const slu_grpc_routes *r, const void *path, size_t len);
/* Stands for every path that was not found, so that strangers cannot make new metrics. */
slu_grpc_route *slu_grpc_routes_unknown(slu_grpc_routes *r);
/* Name |i| of the services, in order of registration; NULL after the last. */
const char *slu_grpc_routes_service(const slu_grpc_routes *r, size_t i);
bool slu_grpc_routes_has_service(const slu_grpc_routes *r, const char *name);
/* Counts one finished call. */
void slu_grpc_route_count(slu_grpc_route *route, int status);
