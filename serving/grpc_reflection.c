/* An answer to each request of the stream; what is not found is said in the answer (error_response), the
 * stream goes on. v1alpha has the same messages as v1 under another package name, so one handler serves both.
 */
#include "serving/grpc_reflection.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "serving/pb_arena.h"
#include <stdarg.h>
#include <stdio.h>

#define MAX_LISTED 512 /* files or services in one answer */

typedef Grpc__Reflection__V1__ServerReflectionRequest request;
typedef Grpc__Reflection__V1__ServerReflectionResponse response;

/* Everything that an answer may point to; lives as long as the call. */
typedef struct reply {
    response top;
    Grpc__Reflection__V1__FileDescriptorResponse files;
    Grpc__Reflection__V1__ListServiceResponse services;
    Grpc__Reflection__V1__ExtensionNumberResponse numbers;
    Grpc__Reflection__V1__ErrorResponse error;
    char text[300];
    ProtobufCBinaryData bytes[MAX_LISTED];
    Grpc__Reflection__V1__ServiceResponse names[MAX_LISTED];
    Grpc__Reflection__V1__ServiceResponse *name_list[MAX_LISTED];
    const slu_proto_index *index;
} reply;

static void set_error(reply *r, slu_grpc_status status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
static void set_error(reply *r, slu_grpc_status status, const char *fmt, ...)
{
    va_list args;
    va_start(args, fmt);
    vsnprintf(r->text, sizeof r->text, fmt, args);
    va_end(args);
    grpc__reflection__v1__error_response__init(&r->error);
    r->error.error_code = (int32_t)status;
    r->error.error_message = r->text;
    r->top.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    r->top.error_response = &r->error;
}

static void add_file(void *ctx, size_t file)
{
    reply *r = ctx;
    if (r->files.n_file_descriptor_proto == MAX_LISTED)
        return;
    ProtobufCBinaryData *to = &r->bytes[r->files.n_file_descriptor_proto++];
    to->data = (uint8_t *)slu_proto_index_bytes(r->index, file, &to->len);
}

static void set_files(reply *r, int file, const char *what, const char *name)
{
    if (file < 0) {
        set_error(r, SLU_GRPC_NOT_FOUND, "no %s %.200s", what, name);
        return;
    }
    grpc__reflection__v1__file_descriptor_response__init(&r->files);
    r->files.file_descriptor_proto = r->bytes;
    slu_proto_index_closure(r->index, (size_t)file, add_file, r);
    r->top.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    r->top.file_descriptor_response = &r->files;
}

static void set_services(reply *r, const slu_grpc_routes *routes)
{
    grpc__reflection__v1__list_service_response__init(&r->services);
    r->services.service = r->name_list;
    const char *name;
    for (size_t i = 0; i < MAX_LISTED && (name = slu_grpc_routes_service(routes, i)); i++) {
        grpc__reflection__v1__service_response__init(&r->names[i]);
        r->names[i].name = (char *)name;
        r->name_list[i] = &r->names[i];
        r->services.n_service++;
    }
    r->top.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
    r->top.list_services_response = &r->services;
}

/* Our contracts are proto3 and extend nothing, so a known message has no extensions. */
static void set_numbers(reply *r, char *type)
{
    if (!slu_proto_index_message(r->index, type)) {
        set_error(r, SLU_GRPC_NOT_FOUND, "no message %.200s", type);
        return;
    }
    grpc__reflection__v1__extension_number_response__init(&r->numbers);
    r->numbers.base_type_name = type;
    r->top.message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
    r->top.all_extension_numbers_response = &r->numbers;
}

static void fill(reply *r, const slu_grpc_routes *routes, request *q)
{
    switch (q->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        set_files(r, slu_proto_index_file(r->index, q->file_by_filename), "file", q->file_by_filename);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        set_files(r, slu_proto_index_symbol(r->index, q->file_containing_symbol), "symbol",
                  q->file_containing_symbol);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
        set_error(r, SLU_GRPC_NOT_FOUND, "no extension %d of %.200s",
                  q->file_containing_extension->extension_number,
                  q->file_containing_extension->containing_type);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
        set_numbers(r, q->all_extension_numbers_of_type);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        set_services(r, routes);
        break;
    default:
        set_error(r, SLU_GRPC_INVALID_ARGUMENT, "the request names nothing to look for");
        break;
    }
}

static slu_grpc_status info(void *ctx, slu_grpc_call *call)
{
    slu_grpc_reflection *reflection = ctx;
    ProtobufCAllocator allocator = slu_pb_allocator(call->arena);
    request *q =
        grpc__reflection__v1__server_reflection_request__unpack(&allocator, call->request_len, call->request);
    if (!q) {
        snprintf(call->message, sizeof call->message, "not a ServerReflectionRequest");
        return SLU_GRPC_INVALID_ARGUMENT;
    }
    reply *r = slu_arena_alloc(call->arena, sizeof *r);
    if (!r) {
        snprintf(call->message, sizeof call->message, "out of memory");
        return SLU_GRPC_RESOURCE_EXHAUSTED;
    }
    /* Members that we do not know are not echoed: protobuf-c takes some that nobody can read again. */
    q->base.n_unknown_fields = 0;
    if (q->message_request_case ==
        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION)
        q->file_containing_extension->base.n_unknown_fields = 0;
    r->index = reflection->index;
    grpc__reflection__v1__server_reflection_response__init(&r->top);
    r->top.valid_host = q->host;
    r->top.original_request = q;
    fill(r, reflection->routes, q);
    size_t size = grpc__reflection__v1__server_reflection_response__get_packed_size(&r->top);
    grpc__reflection__v1__server_reflection_response__pack(&r->top, slu_buf_reserve(call->response, size));
    call->response->len += size;
    return SLU_GRPC_OK;
}

int slu_grpc_reflection_add(slu_grpc_reflection *r, slu_grpc_routes *routes, slu_error *err)
{
    r->routes = routes;
    int rc = slu_grpc_routes_add(routes, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                                 SLU_GRPC_BIDI, false, info, r, err);
    return rc ? rc
              : slu_grpc_routes_add(routes, "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                                    SLU_GRPC_BIDI, false, info, r, err);
}
