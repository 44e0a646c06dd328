/* proto/descriptors.h - the compiled description of every .proto file, for gRPC reflection.
 *
 * A serialised google.protobuf.FileDescriptorSet, imports before their users, made by protoc at build time. */
#pragma once
#include <stddef.h>

extern const unsigned char slu_descriptor_set[]; /* (slu_descriptor_set_size) bytes */
extern const size_t slu_descriptor_set_size;
