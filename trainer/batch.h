/* trainer/batch.h - samples that wait to be learned together.
 *
 * A sample is one thing to say about one impression: which tasks, which labels, with which weighting. One
 * impression may become several samples. A sample that says nothing is there to be predicted only. The batch
 * owns copies of the encoded impressions and can be stored, because a commit may come while it is half full.
 */
#pragma once
#include "base/bytes.h"
#include "base/digest.h"
#include "base/options.h"
#include "feature/encode.h"

typedef struct slu_sample {
    slu_hash128 key;            /* of the impression */
    int64_t time_us;            /* of the impression */
    uint8_t say[SLU_MAX_STEPS]; /* slu_say per task */
    uint8_t labels;             /* bit per task */
    bool arrival;         /* the first of its impression: its prediction is kept, its values are counted */
    const slu_encoded *x; /* features; in the batch: owned by it */
} slu_sample;

typedef struct slu_batch slu_batch;

slu_batch *slu_batch_new(const slu_schema *schema, uint32_t capacity);
void slu_batch_free(slu_batch *b);
/* Copies the sample. The batch must not be full. |clock_us| is event time now: the first sample starts the
 * batch's age. */
void slu_batch_add(slu_batch *b, const slu_sample *s, int64_t clock_us);
uint32_t slu_batch_count(const slu_batch *b);
bool slu_batch_full(const slu_batch *b);
int64_t slu_batch_opened_us(const slu_batch *b); /* event clock at the first sample; INT64_MAX when empty */
const slu_sample *slu_batch_at(const slu_batch *b, uint32_t i);
void slu_batch_clear(slu_batch *b);

void slu_batch_save(const slu_batch *b, slu_buf *out);
int slu_batch_load(slu_batch *b, const void *p, size_t n, slu_error *err); /* SLU_ECORRUPT */
