/* sim/question.h - builds score requests out of what is known about candidates: the shared side once, the
 * item side in columns. */
#pragma once
#include "base/arena.h"
#include "base/bytes.h"
#include "feature/schema.h"

/* Appends a packed sluice.v1.ScoreRequest for |n| candidates; |fields| (n) points to the values of each, by
 * field of the schema, of which user and context fields are taken from the first. |arena| is scratch. Returns
 * 0 or SLU_ENOMEM.
 */
int slu_question_pack(const slu_schema *schema, const slu_values *const *fields, uint32_t n, slu_arena *arena,
                      slu_buf *out, slu_error *err);
/* A deep copy of |fields| (slu_schema_fields) in |arena|; NULL when it is full. */
slu_values *slu_question_keep(const slu_schema *schema, const slu_values *fields, slu_arena *arena);
