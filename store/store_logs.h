/* store/store_logs.h - do a store's write-ahead logs follow one another without a hole? Inside the room.
 *
 * RocksDB checks each record, and the length of logs that it has noted in its MANIFEST; but a log that was
 * cut to nothing in the moment before that note, or one of another store, it takes: a hole, or commits that
 * never were. Every record names the sequence number that it begins with, so here each log has to begin where
 * the one before it ended. Reads the format of RocksDB's logs (blocks of 32 KiB; records with crc32c, length,
 * type), never writes. */
#pragma once
#include "base/error.h"

/* Returns 0, SLU_ECORRUPT (the message names both logs) or SLU_EIO. A log that ends in half a record, as a
 * crash leaves it, is fine: what is whole of it counts. */
int store_check_logs(const char *path, slu_error *err);
