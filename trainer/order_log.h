/* trainer/order_log.h - the order of records (trainer/order.h) as part of each commit.
 *
 * Family ORDER: version (u64 be) -> the order of the records between the commit before and this one. Digests
 * leave it out, since it tells where commits fell. The log is bounded: a commit drops the oldest versions
 * that go over the limit. @thread one, the owner of the pipeline */
#pragma once
#include "store/store.h"
#include "trainer/order.h"

typedef struct slu_order_log slu_order_log;

/* |keep_bytes| 0 records nothing, and drops what an earlier run recorded. |config|: fingerprint of the
 * configuration under which versions are learned from now on; noted with the first of them when it is another
 * than before. SLU_ENOMEM or what reading gives.
 */
int slu_order_log_open(slu_store *store, uint64_t keep_bytes, uint64_t config, slu_order_log **lp,
                       slu_error *err);
void slu_order_log_close(slu_order_log *l); /* NULL is fine */
void slu_order_log_add(slu_order_log *l, const slu_record *r, const slu_partition *part);
/* Puts what was added into the commit of |version|, and forgets it: should writing fail, that very commit is
 * to be written again. What is added from now on is of the next one. SLU_EIO, SLU_ECORRUPT. */
int slu_order_log_flush(slu_order_log *l, slu_commit *commit, uint64_t version, slu_error *err);
/* The commit is durable. */
void slu_order_log_committed(slu_order_log *l);

/* Keys of the family. */
void slu_order_key(uint64_t version, uint8_t key[8]);
/* 0 when |key| is none (versions begin at 1). */
uint64_t slu_order_key_parse(const void *key, size_t len);

/* The first of the versions |from| to |until| that is known to have been learned under another configuration
 * than |config|, and under which; *version 0: none is. */
int slu_order_other_config(slu_store *store, uint64_t from, uint64_t until, uint64_t config,
                           uint64_t *version, uint64_t *other, slu_error *err);
