/* trainer/dead_letter.h - what could not be used, as one JSON object: nothing vanishes.
 *
 *   {"reason":"late","message":"...","topic":"t","partition":0,"offset":17,"arrival_us":1,"payload":"...","bytes":12}
 *
 * The payload is text when it is valid UTF-8, else payload_base64. A payload above SLU_DEAD_PAYLOAD_MAX is
 * cut, text between two characters, and says so with "truncated":true; topic, partition and offset lead to
 * the whole of it. */
#pragma once
#include "base/bytes.h"
#include "trainer/source.h"

#define SLU_DEAD_PAYLOAD_MAX (64 * 1024)

/* Appends the object (no newline). */
void slu_dead_letter_write(slu_buf *out, slu_dead_reason why, const char *message, const slu_partition *part,
                           const slu_record *r);
/* The same for a step that the joiner gave up on; its position in Kafka is no longer known. */
void slu_dead_letter_step(slu_buf *out, slu_dead_reason why, const char *message, const char *step,
                          slu_span id, slu_span impression_id, int64_t time_us);
