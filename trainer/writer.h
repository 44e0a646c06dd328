/* trainer/writer.h - writes the commits of a pipeline on a thread of its own, one at a time, so that whoever
 * learns waits for no disk.
 *
 * From slu_writer_begin to slu_writer_wait the commit belongs to the writer: nobody else may put anything
 * into it. What was learned before begin is all that it holds, because it holds copies. @thread the owner;
 * the thread inside calls slu_commit_write and nothing else */
#pragma once
#include "store/store.h"
#include <stdbool.h>
#include <stdint.h>

typedef struct slu_writer slu_writer;

/* |threaded| false: no thread, slu_writer_begin writes before it returns. SLU_ENOMEM, SLU_EIO. */
int slu_writer_start(bool threaded, slu_writer **wp, slu_error *err);
void slu_writer_stop(slu_writer *w); /* ends the write that is on its way; NULL is fine */
/* Nothing may be on its way: each begin has its wait. */
void slu_writer_begin(slu_writer *w, slu_commit *c);
/* Whether slu_writer_wait would have to wait; costs nothing. */
bool slu_writer_busy(const slu_writer *w);
/* Waits for the end of the write. Returns what slu_commit_write did; |*took_us|: how long it took. */
int slu_writer_wait(slu_writer *w, int64_t *took_us, slu_error *err);
