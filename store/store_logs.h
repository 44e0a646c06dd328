/* store/store_logs.h - are a store's write-ahead logs of one store? Inside the room.
 *
 * Every record names the sequence number that it begins with, and the numbers of one store only go up. A log
 * of another store beside them repeats numbers; Debian's RocksDB ends the process in an assertion over that,
 * so it is looked for before anything is opened. A gap is no finding: RocksDB removes logs that it needs no
 * more in any order, and a kill may leave some. Those that it needs it tracks itself, and what was
 * acknowledged is counted (store_mark.h). Reads the format of RocksDB's logs (blocks of 32 KiB; records with
 * crc32c, length, type), never writes. */
#pragma once
#include "base/error.h"

/* Returns 0, SLU_ECORRUPT (the message names both logs) or SLU_EIO. A log that ends in half a record, as a
 * crash leaves it, is fine: what is whole of it counts. */
int store_check_logs(const char *path, slu_error *err);
