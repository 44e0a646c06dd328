/* store/store_files.h - the directory of a store, as seen from outside: which files are there, and whether
 * RocksDB may be let in. @thread any */
#pragma once
#include "store/store.h"

typedef struct store_view {
    bool has_current;
    bool has_data; /* tables, a log with something in it, or the file SLUICE: commits were acknowledged */
    uint64_t wals; /* hash over the names of the log files, independent of order */
    uint64_t bytes;
} store_view;

/* All zero when there is no directory. */
void store_look(const char *path, store_view *out);
/* Names of files that end with |end|, for messages. */
void store_list_files(const char *path, const char *end, char *out, size_t size);
uint64_t store_files_bytes(const char *path); /* of logs and tables */

/* Whether a store is there, or may be made in an empty directory, which is then there. SLU_ENOTFOUND,
 * SLU_EIO, SLU_ENOMEM; SLU_ECORRUPT: data without a CURRENT file. */
int store_check_directory(const slu_store_config *config, slu_error *err);
/* SLU_EIO when the disk is so full that opening would not get far. */
int store_check_room(const char *path, slu_error *err);
