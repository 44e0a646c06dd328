/* serving/model_store.h - the model of a scorer on disk, so that a restarted one continues where it stopped.
 *
 * Rows (as served), the dense vector, version and the offset of the delta topic behind it reach the store in
 * one commit. A base can be larger than a commit should be: its rows are written in pieces under a second
 * generation of keys that counts for nothing until the commit that completes the base makes it the current
 * one; the old generation is deleted afterwards. Whatever instant the process dies at, what is loaded again
 * is one whole version with its own offset.
 *
 * With each version goes what the model adds up to (slu_model_sums). Loading is a walk over all rows anyway,
 * so it adds them up anew: a bit that changed on its way to the disk or on it is found at the start.
 *
 * Keys: ROWS (serving/row_key.h) -> served floats; DENSE "params"; META "scorer.*". @thread one, the
 * subscriber; a start reads with several (serving/row_load.h) */
#pragma once
#include "base/options.h"
#include "feature/schema.h"
#include "serving/delta_applier.h"
#include "serving/model_table.h"
#include "store/store.h"

typedef struct model_store model_store;

/* Opens or makes serving.store_path. Returns 0, SLU_ESCHEMA (made for another schema; the message has the
 * first difference and the remedy), SLU_EIO, SLU_ECORRUPT ... */
int model_store_open(const slu_options *options, const slu_schema *schema, const slu_model_table *table,
                     model_store **sp, slu_error *err);
/* Its store, for backups. @thread any */
slu_store *model_store_raw(model_store *s);
void model_store_close(model_store *s); /* drops what is not committed; NULL is fine */
/* Puts what is stored into |table| and publishes it. |offset|: where to go on in the delta topic, -1 from the
 * beginning. at->version 0: there was nothing. SLU_ECORRUPT: a value is damaged, or the model does not add up
 * to what was written with it; |table| is empty then, and deleting the store is the remedy. */
int model_store_load(model_store *s, slu_model_table *table, slu_delta_position *at, int64_t *offset,
                     slu_error *err);
/* Takes what an applier changes. */
slu_delta_sink model_store_sink(model_store *s);
/* Everything up to |offset| has been applied: goes with the next commit. */
void model_store_reached(model_store *s, int64_t offset);
bool model_store_dirty(const model_store *s);
/* True while a base stands among rows of an earlier one that could not be deleted, because the disk failed;
 * the commits after it try again. A store that is opened in this state has no model and waits for the next
 * base. */
bool model_store_mixed(const model_store *s);
size_t model_store_pending(const model_store *s); /* bytes that wait for a commit */
/* Returns 0 or SLU_EIO; then nothing is lost and the call can be repeated. */
int model_store_commit(model_store *s, slu_error *err);
/* Within a base: writes what waits after a piece was refused. Returns 0 or SLU_EIO. */
int model_store_retry(model_store *s, slu_error *err);
uint64_t model_store_disk_bytes(model_store *s);
