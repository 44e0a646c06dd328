/* store/backup.h - copies of a store that can be proved whole: made while it is in use, checked, put back.
 *
 * A backup is a folder DIR/v<version>-<time> that holds a store (a RocksDB checkpoint: exactly one commit,
 * with its offsets) and a file BACKUP, readable text, with what it holds and size and hash of every file. It
 * is made under a name that begins with a dot and appears under its own one only when everything in it is
 * synced, so a folder that looks like a backup is one. On the same file system tables are hard links (cheap,
 * and they die with that disk); elsewhere they are copied. @thread any */
#pragma once
#include "store/store.h"

#define SLU_BACKUP_FILE "BACKUP"

typedef struct slu_backup {
    char path[4096];
    uint64_t version, bytes, files;
    bool trainer; /* of a trainer's store */
} slu_backup;

/* Makes one below |dir|, which is made when missing. Returns 0, SLU_EIO, SLU_ECORRUPT (a table that cannot be
 * read), SLU_ENOTFOUND (nothing was committed yet). */
int slu_backup_make(slu_store *s, const char *dir, slu_backup *out, slu_error *err);
/* Removes the oldest backups below |dir| but |keep|. Others than backups are left alone. */
int slu_backup_prune(const char *dir, uint32_t keep, slu_error *err);
/* Reads every byte: each file there, none missing, none more, size and hash as noted. SLU_ENOTFOUND (no
 * backup), SLU_ECORRUPT (the message names the file), SLU_EFORMAT, SLU_EIO. */
int slu_backup_check(const char *path, slu_backup *out, slu_error *err);
/* Checks |backup| and copies it to |store|. What is there is refused (SLU_EINVAL), or with |replace| kept
 * beside as STORE.before-<time>, whose name goes to aside (4096); a store in use is always refused. A
 * trainer's store gets a new lineage: its versions from here on are others than those that were published
 * under the same numbers, and scorers take them only after a base. With |hold| a scorer stays at this version
 * (slu_hold). */
int slu_backup_restore(const char *backup, const char *store, bool replace, bool hold, char aside[4096],
                       slu_error *err);

/* A scorer with a file HOLD in its store's folder applies nothing until it is gone. */
#define SLU_HOLD_FILE "HOLD"
int slu_hold(const char *store, bool on, slu_error *err);
bool slu_is_held(const char *store);
