/* store/backup_files.h - plain files for backup.c: copied, hashed, synced, listed. Inside the room. */
#pragma once
#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct file_entry {
    char name[256];
    uint64_t bytes;
    char digest[33];
} file_entry;

typedef struct file_entries {
    file_entry *v; /* (n) by name */
    size_t n;
} file_entries;

/* Names of what is in |dir|, without . and ..; sizes and digests are not filled in. */
int files_list(const char *dir, file_entries *out, slu_error *err);
void files_free(file_entries *l);
/* Size and digest of dir/e->name; copies it to |to|/name when that is not NULL, and syncs it when |sync|. */
int files_hash(const char *dir, file_entry *e, const char *to, bool sync, slu_error *err);
int files_sync_dir(const char *dir, slu_error *err);
/* Removes a folder and what is in it (no folders below it). */
int files_remove_dir(const char *dir, slu_error *err);
int files_make_dirs(const char *dir, slu_error *err);
