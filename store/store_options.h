/* store/store_options.h - how RocksDB is to keep a store: as a whole, and each family. */
#pragma once
#include "store/store.h"
#include <rocksdb/c.h>

/* Of all families together, unless the configuration says another. */
#define STORE_WRITE_BUFFER (48ull << 20)

const char *store_rocksdb_name(slu_family f);
/* Each belongs to the caller. */
rocksdb_options_t *store_db_options(uint64_t write_buffer, bool create);
rocksdb_cache_t *store_cache(uint64_t bytes);
/* |write_buffer| is that of all families; |f| gets its share. */
rocksdb_options_t *store_family_options(slu_family f, rocksdb_cache_t *cache, uint64_t write_buffer);
