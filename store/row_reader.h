/* store/row_reader.h - reads rows that a batch will want while the batch is still filling, on a thread of its
 * own.
 *
 * What was read lies here until slu_row_reader_clear. It cannot be stale, because whoever uses it keeps three
 * rules: a key is wanted only while its row is not in the row cache, so its row is clean and what was last
 * committed of it is durable; rows change only in steps of learning, and a step that loads a row keeps it in
 * the cache until the commit that writes it is durable; clear ends each step. So nothing can have been
 * written under a key between want and clear unless its row is in the cache by then, where it is looked for
 * first.
 *
 * Bounded: so many keys for one batch; what is wanted beyond them is not read ahead. A read that fails is as
 * if it was not wanted: who reads the row itself learns why. No allocation after the start. @thread the
 * owner; the thread inside calls slu_store_multiget and nothing else. An owner that would wait reads along.
 */
#pragma once
#include "store/row_value.h"
#include "store/store.h"
#include <stdbool.h>

typedef struct slu_row_reader slu_row_reader;

/* |value_bytes|: of the longest row. SLU_ENOMEM, SLU_EIO. */
int slu_row_reader_start(slu_store *s, size_t value_bytes, slu_row_reader **rp, slu_error *err);
void slu_row_reader_stop(slu_row_reader *r); /* NULL is fine */
void slu_row_reader_want(slu_row_reader *r, const uint8_t key[SLU_ROW_KEY_BYTES]);
/* Reads along until all is read that was handed over. What was wanted last was not yet: it will not be read.
 */
void slu_row_reader_arrive(slu_row_reader *r);
/* After arrive. True when |key| was read: *|value| (len) as stored, NULL when nothing is. */
bool slu_row_reader_find(const slu_row_reader *r, const uint8_t key[SLU_ROW_KEY_BYTES], const void **value,
                         size_t *len);
void slu_row_reader_clear(slu_row_reader *r);
