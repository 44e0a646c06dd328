/* trainer/text_file.h - lines of a recorded file, plain or .gz, read through one bounded buffer.
 *
 * A line lies contiguous in the buffer and is handed out without copying. A line can be extended by the lines
 * behind it (a CSV record may span several) and taken back to its first one when that led nowhere. Lines end
 * with LF or CR LF; the last one needs no end. Lines over |limit| bytes are handed out cut, as SLU_ELIMIT,
 * and the rest of them is passed over, so the buffer stays bounded whatever the file holds.
 * @thread one */
#pragma once
#include "base/error.h"
#include "feature/event.h"
#include <stdint.h>

typedef struct slu_text_file slu_text_file;

/* Returns 0 or SLU_EIO with path and reason. */
int slu_text_file_open(const char *path, size_t limit, slu_text_file **fp, slu_error *err);
void slu_text_file_close(slu_text_file *f); /* NULL is fine */

/* Next line without its end; valid until the next call. Returns 1, 0 at the end of the file, SLU_ELIMIT (over
 * the limit; |line| has the first |limit| bytes) or SLU_EIO (the file cannot be read on; final). */
int slu_text_file_line(slu_text_file *f, slu_span *line, slu_error *err);
/* Extends the current line by the one behind it, with the end between them. |line| may move. Returns 1, 0
 * when there is none, SLU_ELIMIT when the whole would exceed the limit (|line| unchanged), SLU_EIO. */
int slu_text_file_extend(slu_text_file *f, slu_span *line, slu_error *err);
/* Undoes all extensions: |line| is the first line again, and the next one is the one behind it. */
void slu_text_file_rewind(slu_text_file *f, slu_span *line);

int64_t
slu_text_file_number(const slu_text_file *f); /* of the current line, from 1; extended: of its first */
/* Bytes of the file (compressed where it is) that were read, and its size. */
uint64_t slu_text_file_consumed(const slu_text_file *f);
uint64_t slu_text_file_size(const slu_text_file *f);
