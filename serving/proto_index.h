/* serving/proto_index.h - finds files and symbols in a serialised google.protobuf.FileDescriptorSet.
 *
 * Reads the wire format itself (field numbers from descriptor.proto, which never change), so it needs no
 * generated code for it. Nothing is copied but names: the set outlives the index. Read-only once made. */
#pragma once
#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct slu_proto_index slu_proto_index;

/* Returns 0, SLU_EFORMAT (not a descriptor set), SLU_ENOMEM. */
int slu_proto_index_new(const uint8_t *set, size_t len, slu_proto_index **ip, slu_error *err);
void slu_proto_index_free(slu_proto_index *x); /* NULL is fine */

size_t slu_proto_index_files(const slu_proto_index *x);
/* Number of the file, or -1. */
int slu_proto_index_file(const slu_proto_index *x, const char *name);
/* The file that declares |symbol|: message, enum, field, enum value, service, method, extension; -1: none. */
int slu_proto_index_symbol(const slu_proto_index *x, const char *symbol);
/* True when |symbol| is a message. */
bool slu_proto_index_message(const slu_proto_index *x, const char *symbol);
/* The serialised FileDescriptorProto of file |i|. */
const uint8_t *slu_proto_index_bytes(const slu_proto_index *x, size_t i, size_t *len);
/* Calls |visit| for file |i| and then once for each file that it imports, directly or not. */
void slu_proto_index_closure(const slu_proto_index *x, size_t i, void (*visit)(void *ctx, size_t file),
                             void *ctx);
