/* feature/schema_text.h - the written form of a schema, line by line. Private to this room. */
#pragma once
#include "base/error.h"
#include "feature/schema.h"
#include <stdint.h>

/* malloc'd. Names and values are quoted and escaped, so a line never holds a newline. */
char *schema_text(const slu_schema *s);
uint64_t schema_text_fingerprint(const char *text);
int schema_text_compare(const char *config, const char *stored, const char *where, slu_error *err);
