/* base/text.h - small help with names that people type. */
#pragma once
#include <stdbool.h>
#include <stddef.h>

/* How many single-character insertions, deletions, replacements or swaps of neighbours turn |a| into |b|.
 * Names longer than 63 bytes count as far from everything. */
size_t slu_text_distance(const char *a, const char *b);

/* The candidate that |word| was most likely meant to be, or NULL when none is close. |names| ends with NULL.
 */
const char *slu_text_nearest(const char *word, const char *const *names);

/* Bytes of the well-formed UTF-8 character (no surrogates, no overlong form) at |s|, at most |left|; 0 when
 * it is none. */
size_t slu_text_utf8(const unsigned char *s, size_t left);

/* Is it well-formed UTF-8 without control characters other than tab? */
bool slu_text_is_line(const char *s);
