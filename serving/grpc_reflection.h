/* serving/grpc_reflection.h - the standard reflection service, grpc.reflection.v1 and v1alpha, which tools
 * use to call a server without its .proto files. */
#pragma once
#include "serving/grpc_routes.h"
#include "serving/proto_index.h"

typedef struct slu_grpc_reflection {
    const slu_grpc_routes *routes; /* list_services names these */
    const slu_proto_index *index;
} slu_grpc_reflection;

/* Adds both versions to |routes|; |r| (with |index| set) outlives them. Returns what slu_grpc_routes_add()
 * does. */
int slu_grpc_reflection_add(slu_grpc_reflection *r, slu_grpc_routes *routes, slu_error *err);
