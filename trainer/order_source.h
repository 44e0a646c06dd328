/* trainer/order_source.h - a live run again: its records in the order that its store tells, its events from
 * Kafka.
 *
 * Every record that the live trainer fed up to the wanted version comes once, in the same order, so the
 * pipeline ends in the same bytes. It commits where the live trainer did, so versions mean the same in both
 * stores. Partitions are those that the order names, whatever kafka.topics says. @thread one, the owner */
#pragma once
#include "trainer/source.h"

/* |from|: the live trainer's store, opened read only beside it, or a copy; it stays the caller's and open.
 * |into|: the store that is fed; what it has is not repeated, so it may be new, a copy of |from| as it was
 * earlier, or what such a replay left. |until|: last version, 0: the newest of |from|. Returns 0, or
 *   SLU_ECONFIG   there is no such version, |into| is beyond it, or is not of the same run
 *   SLU_ENOTFOUND |from| keeps no order, or no longer that of the first version that is needed
 *   SLU_EKAFKA    no broker answers, or a topic does not exist
 *   SLU_ECORRUPT, SLU_EFORMAT, SLU_EIO, SLU_ENOMEM
 * Later slu_source_next() returns SLU_EKAFKA when a topic no longer has an event of the order: by retention,
 * or because it was made anew. */
int slu_order_source_open(const slu_options *options, slu_store *from, slu_store *into, uint64_t until,
                          slu_source **sp, slu_error *err);
/* True when the record last handed out was the last one of a version: commit behind it, and only there. */
bool slu_order_source_commit_due(const slu_source *s);
/* The version where it ends. */
uint64_t slu_order_source_until(const slu_source *s);
