/* store/row_table.h - embedding rows by (table, 64-bit id): a bounded write-back cache over the store.
 *
 * A row is a header and a fixed number of floats per table; this module neither knows nor cares what they
 * mean, except that a new row's floats come from |init|, a pure function of (table, id), so that replaying a
 * stream rebuilds the same table. Each table has a slab of its own (store/row_slab.h), so a probe costs
 * about one cache miss.
 *
 * Admission: a value counts occurrences from its first sight; its row reads as absent (NULL) until the
 * table's admit_after is reached. Counts are stored too, so admission survives a restart.
 *
 * Bounds: at most about cache_bytes in memory. Clean rows that no batch holds are evicted (CLOCK); dirty rows
 * stay until a commit has written them. When nothing can be evicted fetch still succeeds and
 * slu_row_table_pressure() says that a commit is due. @thread trainer */
#pragma once
#include "base/digest.h"
#include "base/error.h"
#include "store/store.h"

typedef struct slu_row_table slu_row_table;

typedef struct slu_row {
    uint64_t id;
    uint32_t count;         /* occurrences learned from */
    uint32_t last_seen;     /* event time, seconds since the epoch */
    uint8_t admitted;       /* has floats to read and train */
    uint8_t dirty;          /* changed since the last commit */
    uint8_t held;           /* in use by the current batch: not evicted */
    uint8_t referenced : 1; /* CLOCK */
    uint8_t summed : 1;     /* its served floats are in the sum of rows */
    uint8_t deleted : 1; /* and not changed since: it is as new, and the next flush deletes what is stored */
    uint8_t grave : 1;   /* an admitted row was deleted here, and no flush has told so yet */
    uint8_t told : 1;    /* the flush did whose commit is not confirmed */
    uint32_t slot;       /* place in its slab */
    float v[];           /* (floats of the table) */
} slu_row;

typedef struct slu_row_table_spec {
    uint32_t floats;      /* per row */
    uint32_t admit_after; /* 0, 1: at once */
    uint32_t served;      /* the first floats, which scorers get: what the sum of rows is over */
} slu_row_table_spec;

typedef struct slu_row_table_config {
    const slu_row_table_spec *tables; /* (n_tables) */
    uint32_t n_tables;
    uint64_t cache_bytes;
    void (*init)(void *ctx, uint32_t table, uint64_t id, float *v); /* fills a new row's floats */
    void *init_ctx;
} slu_row_table_config;

int slu_row_table_open(slu_store *s, const slu_row_table_config *config, slu_row_table **tp, slu_error *err);
void slu_row_table_close(slu_row_table *t);

/* From now on a thread reads what is expected. SLU_ENOMEM, SLU_EIO. */
int slu_row_table_read_ahead(slu_row_table *t, slu_error *err);
/* The next batch will fetch the rows of |ids| (n): those that are not in memory are read meanwhile. A hint,
 * which does nothing without slu_row_table_read_ahead or while nearly all rows are in memory. Between arrive
 * and the end of the batch fetch takes what was read, and reads the rest itself; the bytes are the same
 * (store/row_reader.h says why). */
void slu_row_table_expect(slu_row_table *t, uint32_t table, const uint64_t *ids, size_t n);
void slu_row_table_arrive(slu_row_table *t);
void slu_row_table_expected_done(slu_row_table *t); /* ends each batch: what was read is forgotten */

/* Finds or creates the rows of |ids| (n, all different) of one table, from memory or with one MultiGet, and
 * holds them until slu_row_table_release(). rows[i] is the row, never NULL; look at ->admitted before using
 * ->v. New rows start with count 0. Adds nothing to counts: the caller calls slu_row_touch for each row it
 * learns from. On failure no new row stays behind. Returns 0, SLU_EIO, SLU_ECORRUPT, SLU_EFORMAT (a stored
 * row of another size). */
int slu_row_table_fetch(slu_row_table *t, uint32_t table, const uint64_t *ids, size_t n, slu_row **rows,
                        slu_error *err);
/* Counts |times| occurrences at event time |seconds| (the latest of all is kept); admits the row when its
 * count is due; marks it dirty. */
void slu_row_touch(slu_row_table *t, uint32_t table, slu_row *row, uint32_t times, uint32_t seconds);
/* Before the floats of an admitted row are changed, in each batch. */
void slu_row_mark(slu_row_table *t, uint32_t table, slu_row *row);
/* Deletes a row, held or not: from now on it is as one that was never seen, and when the next flush finds it
 * still so the stored one goes with that commit. */
void slu_row_delete(slu_row_table *t, uint32_t table, slu_row *row);
/* Lets go of every held row; evicts if over the bound. Row pointers are invalid afterwards. */
int slu_row_table_release(slu_row_table *t, slu_error *err);
/* True when dirty rows, flushed ones until they are committed included, fill the cache: commit soon. The
 * other: how many bytes of them that takes. */
bool slu_row_table_pressure(const slu_row_table *t);
uint64_t slu_row_table_dirty_room(const slu_row_table *t);

/* Calls |each| for every dirty row (table by table, ids ascending: a deterministic order) and writes it into
 * |c|, or deletes it when it is ->deleted. |each| may be NULL; it is how deltas are made: scorers must forget
 * a row that has
 * ->grave and is deleted or not admitted. Rows become clean with slu_row_table_committed(),
 * except those that were changed in between: batches may go on while |c| is being written. A flush whose
 * commit never came about is made up for by the next one. */
int slu_row_table_flush(slu_row_table *t, slu_commit *c,
                        void (*each)(void *ctx, uint32_t table, const slu_row *row), void *ctx);
void slu_row_table_committed(slu_row_table *t);

/* Sum over the served floats of all admitted rows as the last flush wrote them (base/digest.h); between two
 * flushes it means nothing. It costs a hash when a row is first changed after a flush and one when it is
 * written. After opening it is {0, 0}: whoever opened tells what the stored rows add up to. */
slu_row_sum slu_row_table_sum(const slu_row_table *t);
uint64_t slu_row_table_served(const slu_row_table *t,
                              uint32_t table); /* rows of a table that are in the sum */
/* |served| (n_tables) as slu_row_table_served. */
void slu_row_table_set_sum(slu_row_table *t, slu_row_sum stored, const uint64_t *served);

typedef struct slu_row_table_stats {
    uint64_t cached_rows, cached_bytes, dirty_rows, dirty_bytes;
    uint64_t hits, misses, created, evicted, deleted; /* since open */
    uint64_t read_ahead;                              /* misses that had been read by then */
    int64_t wait_us;                                  /* the owner has waited for rows, read ahead or not */
} slu_row_table_stats;
void slu_row_table_get_stats(const slu_row_table *t, slu_row_table_stats *out);
