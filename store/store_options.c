#include "store/store_options.h"
#include <assert.h>

enum {
    INFO_LOG_FATAL = 4, /* RocksDB's FATAL_LEVEL */
    NO_COMPRESSION = 0,
    LZ4_COMPRESSION = 4,
};
#define MIB                (1024u * 1024u)
#define WALS_PER_BUFFER    4 /* bounds how much a start has to replay */
#define BLOOM_BITS_PER_KEY 10.0

/* Families and how RocksDB should keep them. META is RocksDB's default family: it must exist anyway. */
static const struct family_traits {
    const char *name, *rocksdb_name;
    size_t write_buffer;
    int compression; /* floats do not compress */
    bool bloom;      /* point look-ups of keys that are often absent */
} TRAITS[SLU_FAMILIES] = {
    [SLU_FAMILY_META] = {"meta", "default", 2 * MIB, NO_COMPRESSION, false},
    [SLU_FAMILY_ROWS] = {"rows", "rows", 32 * MIB, NO_COMPRESSION, true},
    [SLU_FAMILY_DENSE] = {"dense", "dense", 8 * MIB, NO_COMPRESSION, false},
    [SLU_FAMILY_JOIN] = {"join", "join", 16 * MIB, LZ4_COMPRESSION, true},
    [SLU_FAMILY_TIMERS] = {"timers", "timers", 8 * MIB, LZ4_COMPRESSION, false},
    [SLU_FAMILY_OUTBOX] = {"outbox", "outbox", 8 * MIB, NO_COMPRESSION, false},
    [SLU_FAMILY_ORDER] = {"order", "order", 4 * MIB, LZ4_COMPRESSION, false},
    [SLU_FAMILY_EXPIRY] = {"expiry", "expiry", 8 * MIB, LZ4_COMPRESSION, false},
};

const char *slu_family_name(slu_family f)
{
    assert((unsigned)f < SLU_FAMILIES);
    return TRAITS[f].name;
}

const char *store_rocksdb_name(slu_family f)
{
    assert((unsigned)f < SLU_FAMILIES);
    return TRAITS[f].rocksdb_name;
}

/* For options that the C interface has no call for. Without them, should a RocksDB not know one, everything
 * works as well. */
static rocksdb_options_t *with_words(rocksdb_options_t *o, const char *words)
{
    char *refused = NULL;
    rocksdb_options_t *more = rocksdb_options_create();
    rocksdb_get_options_from_string(o, words, more, &refused);
    if (refused) {
        rocksdb_free(refused);
        rocksdb_options_destroy(more);
        return o;
    }
    rocksdb_options_destroy(o);
    return more;
}

rocksdb_options_t *store_db_options(uint64_t write_buffer, bool create)
{
    rocksdb_options_t *o = rocksdb_options_create();
    rocksdb_options_set_create_if_missing(o, create);
    rocksdb_options_set_create_missing_column_families(o, create);
    rocksdb_options_set_db_write_buffer_size(o, write_buffer);
    rocksdb_options_set_max_total_wal_size(o, WALS_PER_BUFFER * write_buffer);
    rocksdb_options_set_max_background_jobs(o, 2);
    /* Nothing but a header goes into the info log: what went wrong is in the status of each call. And
     * Debian's RocksDB is built with asserts, one of which ends the process when this log is written to again
     * after a failed write. */
    rocksdb_options_set_info_log_level(o, INFO_LOG_FATAL);
    rocksdb_options_set_keep_log_file_num(o, 1);
    rocksdb_options_set_stats_dump_period_sec(o, 0);
    rocksdb_options_set_max_manifest_file_size(o, 16 * MIB);
    rocksdb_options_set_manifest_preallocation_size(o, 64 * 1024);
    /* Which logs there must be, and how long they are at least: one that is missing is not passed over. For
     * readers too: RocksDB 7.8 cannot open a store read only without it once it was tracked. Beside a writer,
     * whose logs come and go, they try again (store_open.c). */
    o = with_words(o, "track_and_verify_wals_in_manifest=true;");
    /* A reader that opened the files keeps them, even when the writer has compacted them away. */
    rocksdb_options_set_max_open_files(o, -1);
    return o;
}

/* One thread does nearly all reading, so a few large shards beat RocksDB's 64 small ones. */
rocksdb_cache_t *store_cache(uint64_t bytes)
{
    rocksdb_lru_cache_options_t *o = rocksdb_lru_cache_options_create();
    rocksdb_lru_cache_options_set_capacity(o, bytes);
    rocksdb_lru_cache_options_set_num_shard_bits(o, 2);
    rocksdb_cache_t *cache = rocksdb_cache_create_lru_opts(o);
    rocksdb_lru_cache_options_destroy(o);
    return cache;
}

rocksdb_options_t *store_family_options(slu_family f, rocksdb_cache_t *cache, uint64_t write_buffer)
{
    const struct family_traits *traits = &TRAITS[f];
    rocksdb_options_t *o = rocksdb_options_create();
    size_t buffer = (size_t)((double)traits->write_buffer / STORE_WRITE_BUFFER * (double)write_buffer);
    rocksdb_options_set_write_buffer_size(o, buffer < 64 * 1024 ? 64 * 1024 : buffer);
    rocksdb_options_set_compression(o, traits->compression);
    rocksdb_block_based_table_options_t *t = rocksdb_block_based_options_create();
    rocksdb_block_based_options_set_block_cache(t, cache);
    rocksdb_block_based_options_set_format_version(t, 5);
    /* Indexes and filters live in the block cache, or memory would grow with the table. */
    rocksdb_block_based_options_set_cache_index_and_filter_blocks(t, 1);
    rocksdb_block_based_options_set_cache_index_and_filter_blocks_with_high_priority(t, 1);
    rocksdb_block_based_options_set_pin_l0_filter_and_index_blocks_in_cache(t, 1);
    /* And in small pieces: the filter of a whole file would not even fit a shard of a small cache. */
    rocksdb_block_based_options_set_index_type(t,
                                               rocksdb_block_based_table_index_type_two_level_index_search);
    rocksdb_block_based_options_set_partition_filters(t, 1);
    rocksdb_block_based_options_set_pin_top_level_index_and_filter(t, 1);
    if (traits->bloom) {
        rocksdb_block_based_options_set_filter_policy(
            t, rocksdb_filterpolicy_create_bloom_full(BLOOM_BITS_PER_KEY));
        rocksdb_options_set_memtable_whole_key_filtering(o, 1);
        rocksdb_options_set_memtable_prefix_bloom_size_ratio(o, 0.05);
    }
    rocksdb_options_set_block_based_table_factory(o, t);
    rocksdb_block_based_options_destroy(t);
    /* A memtable that remembers where the last key went: commits write each family in key order, so most
     * inserts need no search from the top of its skip list, which was a quarter of the trainer's time. */
    return with_words(o, "memtable_insert_with_hint_prefix_extractor=rocksdb.FixedPrefix.0;");
}
