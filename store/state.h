/* store/state.h - the small pieces of a commit: named values, float vectors, Kafka offsets.
 *
 * Thin, typed helpers over slu_store_get and slu_commit_put, so that there is one place that knows the keys.
 */
#pragma once
#include "store/store.h"

/* META: "name" -> u64. A missing value reads as |fallback|. */
int slu_state_get_u64(slu_store *s, const char *name, uint64_t fallback, uint64_t *out, slu_error *err);
void slu_state_put_u64(slu_commit *c, const char *name, uint64_t value);
/* META: "name" -> bytes. SLU_ENOTFOUND leaves |out| empty. */
int slu_state_get_bytes(slu_store *s, const char *name, slu_buf *out, slu_error *err);
void slu_state_put_bytes(slu_commit *c, const char *name, const void *p, size_t n);
void slu_state_delete(slu_commit *c, const char *name);
/* DENSE: "name" -> float vector of known length, with a checksum. SLU_ENOTFOUND, SLU_EFORMAT (another
 * length), SLU_ECORRUPT. */
int slu_state_get_floats(slu_store *s, const char *name, float *out, size_t n, slu_error *err);
/* The floats (n, little-endian, unaligned) inside a DENSE value; codes as above. */
int slu_state_parse_floats(const void *value, size_t len, const uint8_t **v, size_t *n, slu_error *err);
void slu_state_put_floats(slu_commit *c, const char *name, const float *v, size_t n);
/* META: next offset to read of a topic partition; -1 when none is stored. */
int slu_state_get_offset(slu_store *s, const char *topic, int32_t partition, int64_t *offset, slu_error *err);
void slu_state_put_offset(slu_commit *c, const char *topic, int32_t partition, int64_t offset);
/* META: the mark (trainer/kafka_mark.h) of the record before that offset; 0 when none is stored. */
int slu_state_get_mark(slu_store *s, const char *topic, int32_t partition, uint64_t *mark, slu_error *err);
void slu_state_put_mark(slu_commit *c, const char *topic, int32_t partition, uint64_t mark);
/* One more than the highest partition of |topic| that has an offset, 0: none has. */
int slu_state_partitions(slu_store *s, const char *topic, int32_t *n, slu_error *err);
