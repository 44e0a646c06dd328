/* trainer/order.h - in which order records were used, in few bytes.
 *
 * With several partitions the order in which a live run met their events is chance: it is in no topic, and it
 * decides the model. The recorder notes it between two commits, one short value per commit; the reader gives
 * it back. Events are told as runs of consecutive offsets of one partition; what only a clock knew (a
 * partition was announced, fell silent, was read to its end, what our clock said, the last samples were
 * learned) stands between them. Pure: no I/O, no clock.
 *
 * Value: u8 format, varint n, n partitions (topic with its final 0 as str, varint number), then until the end
 *   varint place << 3 | kind << 1 | jump     place among those partitions; kind as in slu_record_kind
 *   [varint start]                           jump: the run starts here, else where this partition's last one
 * ended [varint count]                           events only
 *   [varint time]                            jump without events: our clock. It makes CLOCK of FLUSH, END of
 * IDLE Format 1 had no times and reads the same.
 * @thread one, the owner */
#pragma once
#include "base/bytes.h"
#include "base/error.h"
#include "trainer/source.h"
#include <stdbool.h>
#include <stdint.h>

/* ---- recording ---- */

typedef struct slu_order slu_order;

slu_order *slu_order_new(void); /* NULL: out of memory */
void slu_order_free(slu_order *o);
/* Number of a partition that the source does not have: the store knows it, but its topic left the config. */
#define SLU_ORDER_UNNUMBERED UINT32_MAX

/* Notes one record as it is fed. |part| names its partition, whose number (r->partition) must keep its
 * meaning for the life of the recorder; SLU_ORDER_UNNUMBERED never for events. Once warm it allocates
 * nothing.
 */
void slu_order_add(slu_order *o, const slu_record *r, const slu_partition *part);
/* Appends the value of what was added since the last clear. May be repeated. */
void slu_order_save(slu_order *o, slu_buf *out);
void slu_order_clear(slu_order *o);

/* ---- reading ---- */

/* Some events in a row, or one other record. */
typedef struct slu_order_run {
    slu_record_kind kind;
    uint32_t place;  /* of its partition, below slu_order_partitions() */
    int64_t start;   /* first offset; -1 unless events */
    uint64_t count;  /* 1 unless events */
    int64_t time_us; /* CLOCK and END: what our clock said, 1 .. SLU_MAX_TIME_US; else 0 */
} slu_order_run;

typedef struct slu_order_reader slu_order_reader;

/* Opens a value, which must stay where it is while it is read. SLU_EFORMAT, SLU_ECORRUPT, SLU_ENOMEM. */
int slu_order_open(const void *value, size_t len, slu_order_reader **rp, slu_error *err);
void slu_order_close(slu_order_reader *r); /* NULL is fine */
uint32_t slu_order_partitions(const slu_order_reader *r);
slu_partition slu_order_partition(const slu_order_reader *r, uint32_t place); /* points into the value */
/* Returns 1 with a run, 0 at the end, SLU_ECORRUPT. */
int slu_order_next(slu_order_reader *r, slu_order_run *out, slu_error *err);
