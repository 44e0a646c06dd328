/* store/store.h - everything durable of one process, in RocksDB, one atomic commit.
 *
 * INVARIANT 1 (docs/architecture.md): rows, optimizer state, dense parameters, join state, counters, outbox
 * and Kafka offsets reach disk in one write batch. Modules keep changes in memory and write them into an
 * slu_commit when asked; nothing else ever writes. A reopened store is exactly the state of its last commit.
 *
 * Opened by one process at a time (RocksDB's lock; a second one is told so). Besides the families below a
 * store holds its format version and the schema text it was made for. @thread unless said otherwise: the
 * owner (trainer thread). */
#pragma once
#include "base/bytes.h"
#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct slu_store slu_store;
typedef struct slu_commit slu_commit;

/* Column families. Keys sort as bytes. */
typedef enum slu_family {
    SLU_FAMILY_META,   /* small named values: format, schema, version, counters, offsets, pending batch */
    SLU_FAMILY_ROWS,   /* table (u32 be) id (u64 be) -> row */
    SLU_FAMILY_DENSE,  /* name -> float vector */
    SLU_FAMILY_JOIN,   /* impression key (16) -> join record; steps that wait for an impression */
    SLU_FAMILY_TIMERS, /* deadline (u64 be) sequence (u64 be) -> impression key */
    SLU_FAMILY_OUTBOX, /* channel (u8) sequence (u64 be) -> message not yet acknowledged by Kafka */
    SLU_FAMILY_ORDER,  /* version (u64 be) -> in which order its commit's records were used */
    SLU_FAMILY_EXPIRY, /* deadline (u64 be) row (u64 be) -> nothing: when to look whether a row expires */
    SLU_FAMILIES
} slu_family;
/* Bit mask of the families that decide what a model is and becomes: equal records in equal order give these
 * equal digests. Outbox and order tell of the one run. */
#define SLU_MODEL_FAMILIES                                                                                   \
    (1u << SLU_FAMILY_META | 1u << SLU_FAMILY_ROWS | 1u << SLU_FAMILY_DENSE | 1u << SLU_FAMILY_JOIN |        \
     1u << SLU_FAMILY_TIMERS | 1u << SLU_FAMILY_EXPIRY)
const char *slu_family_name(slu_family f);

typedef struct slu_store_config {
    const char *path;
    uint64_t block_cache_bytes;
    uint64_t write_buffer_bytes; /* of what is in no file yet; small: flushes and compactions come often. 0:
                                    48 MiB */
    bool sync;                   /* fsync the log at each commit */
    bool create;                 /* make it when missing */
    bool read_only;              /* for tools: needs no lock, sees the last flushed+logged state at open */
    const char *schema_text; /* compared with the stored one by |compare|; stored when new. NULL: do not care
                                (tools) */
    /* 0 or a negative code with |err| set; called with the stored text when it differs. NULL: any difference
     * is SLU_ESCHEMA. */
    int (*compare)(void *ctx, const char *stored_text, slu_error *err);
    void *compare_ctx;
} slu_store_config;

/* A store of before family ORDER or EXPIRY gets it when it is opened for writing with |create|; read only it
 * is as if empty.
 *
 * Returns 0, SLU_EIO (with path and RocksDB's words), SLU_ESCHEMA, SLU_EFORMAT (another format version),
 * SLU_ECORRUPT, SLU_ENOTFOUND (missing and !create). */
int slu_store_open(const slu_store_config *config, slu_store **sp, slu_error *err);
/* Whether another process has it open for writing. Not for a store that this process has open. */
bool slu_store_in_use(const char *path);
void slu_store_close(slu_store *s); /* NULL is fine; uncommitted changes are dropped */
const char *slu_store_path(const slu_store *s);
/* Schema text that the store was made for. */
const char *slu_store_schema(const slu_store *s);

/* Reading returns SLU_EIO when the system refuses, SLU_ECORRUPT when a file fails RocksDB's checksums.
 *
 * Reads one value into |out| (cleared first). Returns 0, SLU_ENOTFOUND (|err| is not set) or the above.
 * @thread any */
int slu_store_get(slu_store *s, slu_family f, const void *key, size_t key_len, slu_buf *out, slu_error *err);
/* Reads |n| values; found[i] tells which; the bytes are handed to |each| in order of i. @thread any */
int slu_store_multiget(slu_store *s, slu_family f, const void *const *keys, const size_t *key_lens, size_t n,
                       void (*each)(void *ctx, size_t i, const void *value, size_t len), void *ctx,
                       slu_error *err);
/* Walks keys in order from |from| (inclusive) up to |to| (exclusive, NULL: to the end of the family), on a
 * consistent snapshot of the last commit; stops when |each| returns false. @thread any */
int slu_store_scan(slu_store *s, slu_family f, const void *from, size_t from_len, const void *to,
                   size_t to_len,
                   bool (*each)(void *ctx, const void *key, size_t key_len, const void *value,
                                size_t value_len),
                   void *ctx, slu_error *err);

/* A walk over the whole of a family as the last commit left it when the cursor was opened, in as many pieces
 * as one likes: commits go on meanwhile. Files and memory that the walk still needs are kept, so do not
 * dawdle. Close all before the store. @thread the owner */
typedef struct slu_cursor slu_cursor;
int slu_cursor_open(slu_store *s, slu_family f, slu_cursor **cp, slu_error *err);
/* Hands out up to |n| entries, fewer when |each| returns false. Returns 1: go on, 0: that was the last;
 * SLU_EIO, SLU_ECORRUPT; SLU_EAGAIN: the store had to be reopened after a failed write and the view is lost,
 * begin anew. */
int slu_cursor_next(slu_cursor *c, size_t n,
                    bool (*each)(void *ctx, const void *key, size_t key_len, const void *value,
                                 size_t value_len),
                    void *ctx, slu_error *err);
void slu_cursor_close(slu_cursor *c); /* NULL is fine */

/* A commit under construction: begin, put and delete, write; then again put and delete for the next one, or
 * abandon, which gives the handle back to the store (a later begin reuses it, so its memory stays warm).
 * Belongs to the store: closing the store frees all of them. */
slu_commit *slu_commit_begin(slu_store *s);
void slu_commit_put(slu_commit *c, slu_family f, const void *key, size_t key_len, const void *value,
                    size_t value_len);
void slu_commit_delete(slu_commit *c, slu_family f, const void *key, size_t key_len);
size_t slu_commit_bytes(const slu_commit *c);
/* An empty buffer for who puts something large together before it is put: its memory stays warm, while a
 * buffer of megabytes that comes and goes costs a page fault every 4 KiB. Good until the next call. */
slu_buf *slu_commit_scratch(slu_commit *c);
/* Writes all of it or nothing. The commit is emptied on success; on failure (SLU_EIO) it is kept so that the
 * call can be repeated: after a failure RocksDB takes no more writes, so the next call opens it again first,
 * which keeps or drops the failed batch as a whole; writing it once more gives the same state either way.
 * SLU_EAGAIN: somebody is reading at this moment and it cannot be opened again; repeat. A full disk is
 * survived like that. */
int slu_commit_write(slu_commit *c, slu_error *err);
void slu_commit_abandon(slu_commit *c);
/* A place in a commit to come back to: save, then put and delete, then either keep them or take them back.
 * Nothing is written in between. */
void slu_commit_save(slu_commit *c);
void slu_commit_keep(slu_commit *c);
void slu_commit_take_back(slu_commit *c);

/* Hex digest over the content of the given families (bit mask 1 << family) in key order. META keys that start
 * with "~" (housekeeping: version numbers, wall times) are left out. */
int slu_store_digest(slu_store *s, unsigned families, char out[33], slu_error *err);
/* Copies a consistent checkpoint to |path| (must not exist) by hard links, while the store is in use. @thread
 * any */
int slu_store_checkpoint(slu_store *s, const char *path, slu_error *err);
/* RocksDB's estimate of keys in a family, bytes on disk; for metrics. @thread any */
uint64_t slu_store_estimate_keys(slu_store *s, slu_family f);
uint64_t slu_store_disk_bytes(slu_store *s);
/* Memory that RocksDB holds in its block cache and in memtables. @thread any */
void slu_store_memory(slu_store *s, uint64_t *blocks, uint64_t *memtables);
