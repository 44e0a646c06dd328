/* store/store_mark.h - the file SLUICE in a store's folder: what the store must hold at least.
 *
 * RocksDB forgives what a crash leaves: a log that ends in garbage, or a list of files (MANIFEST) that ends
 * early, is taken up to there. After damage in the middle that would be a silent step back to an earlier
 * commit, or a hole, while scorers, Kafka groups and the delta topic know of the later ones. So the number of
 * every acknowledged commit is noted in a file of its own, after the commit is durable; a store that opens
 * with fewer is refused. The note itself is not synced: it may be late after a power loss, never early.
 *
 * It also tells a copy that was made with cp while the store was in use (files of different moments): the
 * note holds the inode that it was written to and whether the store was closed. A volume snapshot keeps both.
 *
 * Two slots of fixed size are written in turn, so one that was torn leaves the other. Readable text. A lock
 * on the file (OFD, so independent of RocksDB's) says that a writer lives. @thread owner of the store */
#pragma once
#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

#define SLU_MARK_FILE "SLUICE"

typedef struct slu_mark {
    uint64_t store;         /* random id of the store, in every commit as "~store" */
    uint64_t commits;       /* acknowledged, "~commits"; 0: not known (store.sync is off) */
    uint64_t manifest;      /* number of RocksDB's MANIFEST, 0: not known */
    uint64_t manifest_size; /* bytes of it that are durable for certain */
    bool closed;            /* by its writer, in order */
} slu_mark;

typedef struct slu_mark_file slu_mark_file;

/* Reads the newest whole slot. *|copied|: the file is not the one that the note was written to. Returns 0,
 * SLU_ENOTFOUND (no such file, or nothing in it yet; |err| is not set), SLU_EIO, SLU_ECORRUPT (no slot is
 * whole). */
int slu_mark_read(const char *store, slu_mark *out, bool *copied, slu_error *err);
/* Opens, or with |create| makes, the file and locks it. SLU_ENOTFOUND (missing; |err| not set), SLU_EAGAIN
 * (another writer holds it; |err| not set), SLU_EIO. */
int slu_mark_open(const char *store, bool create, slu_mark_file **fp, slu_error *err);
/* Notes |m|; with |sync| the file reaches the disk before it returns. */
int slu_mark_write(slu_mark_file *f, const slu_mark *m, bool sync, slu_error *err);
void slu_mark_close(slu_mark_file *f); /* unlocks; NULL is fine */

/* Which MANIFEST is current and how long it is; zeros when that cannot be told. */
void slu_mark_manifest(const char *store, uint64_t *number, uint64_t *size);
