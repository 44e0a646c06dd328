/* trainer/csv.h - cells of a CSV record (RFC 4180).
 *
 * Pure: bytes in, spans out. A cell is plain or quoted ("a ""b"", c"); a quoted cell may hold commas, quotes
 * written twice and line ends. A quote inside a plain cell is an ordinary character. Cells point into the
 * record, or, when they held doubled quotes, into memory of the splitter: both are valid until the next
 * record. No allocation once warm.
 * @thread one */
#pragma once
#include "base/error.h"
#include "feature/event.h"

typedef struct slu_csv slu_csv;

slu_csv *slu_csv_new(void);
void slu_csv_free(slu_csv *c); /* NULL is fine */

/* Starts a new record. */
void slu_csv_begin(slu_csv *c);
/* Splits |record| (without its line end). Returns
 *   1  done: see slu_csv_cells
 *   0  a quoted cell is still open: call again with the record extended by its next line (it may have moved);
 *      what was scanned is not scanned again
 *   SLU_EINVAL  something follows a closing quote; the message has the cell's number */
int slu_csv_split(slu_csv *c, slu_span record, slu_error *err);
/* The cells of the record; n >= 1. */
const slu_span *slu_csv_cells(const slu_csv *c, size_t *n);
