/* serving/grpc_health.h - the standard health service, grpc.health.v1: Check and Watch. */
#pragma once
#include "serving/grpc_routes.h"
#include <stdatomic.h>

typedef struct slu_grpc_health {
    atomic_bool serving;
    const slu_grpc_routes *routes; /* the services that have a status; the empty name is the whole server */
} slu_grpc_health;

/* Adds both methods to |routes|; |h| outlives them. Returns what slu_grpc_routes_add() does. */
int slu_grpc_health_add(slu_grpc_health *h, slu_grpc_routes *routes, slu_error *err);
