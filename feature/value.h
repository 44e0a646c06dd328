/* feature/value.h - what one raw value means: its canonical text, its number, its id.
 *
 * Two values are the same feature value when their canonical texts are equal byte for byte. Text is its own
 * canonical text and is never interpreted; an integer is its decimal digits; a double that is a whole number
 * is those digits too, any other double its shortest "%.{15,16,17}g" that reads back exactly. So "5", 5
 * and 5.0 are one value, while the text "5.0" is another one. Empty text and a double that is not finite
 * mean: missing. */
#pragma once
#include "base/arena.h"
#include "base/error.h"
#include "feature/event.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SLU_VALUE_SCRATCH 32 /* longest canonical text of a number is 24 bytes */

static inline slu_value slu_text_value(const char *p, size_t n)
{
    return (slu_value){.kind = SLU_VALUE_TEXT, .v.text = {p, n}};
}
static inline slu_value slu_integer_value(int64_t x)
{
    return (slu_value){.kind = SLU_VALUE_INTEGER, .v.integer = x};
}
static inline slu_value slu_number_value(double x)
{
    return (slu_value){.kind = SLU_VALUE_NUMBER, .v.number = x};
}

/* Canonical text of |v|: for text the very span, else written into |scratch| (SLU_VALUE_SCRATCH bytes, no
 * NUL). An empty span means missing. */
slu_span slu_value_text(const slu_value *v, char *scratch);

/* The number that |v| stands for. Text counts when the whole of it is a finite decimal number ("-1.5e3"; no
 * blanks, no hexadecimal). False: missing. */
bool slu_value_number(const slu_value *v, double *x);
bool slu_number_parse(const char *p, size_t n, double *x);

/* The id of |v| under |seed|: never 0; 0 is returned for missing. */
uint64_t slu_value_id(const slu_value *v, uint64_t seed);
/* The id that stands for a missing value: no value of any slot with that seed can have it by construction,
 * since it is the hash of nothing under another seed. */
uint64_t slu_missing_id(uint64_t seed);
/* The id of bucket |index| of a bucketed number. */
uint64_t slu_bucket_id(uint32_t index, uint64_t seed);

/* Sets fields[field] from a cell of a CSV file: empty is missing; fields that a multi or sequence feature
 * reads are split at '|' (empty parts are dropped), other text is one value as it stands. Values lie in
 * |arena|, text stays where it is. Returns 0 or SLU_EINVAL with |why| like slu_event_decode (invalid UTF-8,
 * too many values, arena limit). */
int slu_field_from_text(const slu_schema *s, uint32_t field, const char *p, size_t n, slu_arena *arena,
                        slu_values *fields, slu_dead_reason *why, slu_error *err);
