/* store/store_inside.h - the inside of a store, shared by store.c (using it), store_open.c and the files that
 * are named below. Nobody else includes it, but the tests of a store that stays closed and of store_words.c.
 */
#pragma once
#include "store/store.h"
#include "store/store_mark.h"
#include <pthread.h>
#include <rocksdb/c.h>

struct slu_commit {
    slu_store *store;
    rocksdb_writebatch_t *batch;
    slu_commit *next; /* all_commits of the store */
    bool idle;        /* abandoned: begin may hand it out again */
    /* What was put while the database was closed, after an error that opening it again did not repair yet: a
     * batch takes keys only with the handles of an open one. Each: family u8, whether it is a deletion u8,
     * lengths u32 of key and value, key, value. */
    slu_buf late;
    size_t late_saved; /* its length at the save point */
    slu_buf scratch;   /* slu_commit_scratch */
};

struct slu_store {
    char *path;
    char *schema;
    bool read_only, sync;
    bool broken; /* RocksDB refuses writes after a failed one: reopen before the next */
    /* Everybody reads db under the lock; only reopening takes it for writing. */
    pthread_rwlock_t lock;
    rocksdb_t *db;
    rocksdb_column_family_handle_t *families[SLU_FAMILIES]; /* NULL: an old store, read only, lacks it */
    rocksdb_options_t *db_options, *family_options[SLU_FAMILIES];
    rocksdb_readoptions_t *read;
    rocksdb_writeoptions_t *write;
    rocksdb_cache_t *cache;
    slu_commit *all_commits;
    slu_cursor *cursors;
    /* What the file SLUICE says (store_mark.h); for writers. */
    slu_mark_file *mark;
    bool marking;         /* it was opened in order */
    uint64_t id, commits; /* of the last commit */
    /* MANIFEST as it was seen last; after a while it is surely synced. */
    uint64_t seen_manifest, seen_size;
    int64_t seen_at_us;
    slu_mark noted;
};

struct slu_cursor {
    slu_store *store;
    rocksdb_iterator_t *at; /* NULL: lost, the database was reopened */
    rocksdb_readoptions_t *options;
    slu_cursor *next; /* all cursors of the store */
};

/* ---- store_open.c ---- */

int store_open_db(slu_store *s, slu_error *err);
void store_close_db(slu_store *s);

/* ---- store_words.c ---- */

/* Turns RocksDB's words into a code and a message with the remedy. Frees |words|. */
int store_translate(const char *path, const char *doing, char *words, slu_error *err);

/* ---- store_identity.c: is it a store of this format and schema? ---- */

/* Writes both into a new one. Sets s->schema. */
int store_check_identity(const slu_store_config *config, slu_store *s, slu_error *err);

/* ---- store_whole.c: is it whole, and does it hold what was acknowledged? ---- */

extern const char STORE_COMMITS_KEY[], STORE_ID_KEY[];
/* Reads how many commits the store holds, 0: none was ever counted. */
int store_read_commits(slu_store *s, uint64_t *commits, slu_error *err);
/* The same into s->commits, and s->id, which a store without one is given. */
int store_read_counts(slu_store *s, slu_error *err);
/* For writers, while nothing is open: looks without writing anything, because RocksDB throws away what it
 * cannot use when it opens for writing: after a refusal all files are as they were. */
int store_look_before_opening(slu_store *s, slu_error *err);
/* Whether an open database holds what |m| says. */
int store_compare_with_mark(slu_store *s, const slu_mark *m, slu_error *err);
/* SLU_ECORRUPT, with what is known about the files. */
int store_lost_commits(const slu_store *s, uint64_t held, uint64_t acknowledged, slu_error *err);
/* From begin on a copy can be told, and what is acknowledged is noted. */
int store_begin_marking(slu_store *s, slu_error *err);
/* After a commit became durable: what the store holds at least from now on. */
void store_note_commit(slu_store *s, uint64_t commits);
void store_end_marking(slu_store *s); /* never begun is fine */
