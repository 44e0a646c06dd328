/* RocksDB's words become a code and a remedy: a table of what it says, and what goes before what when one
 * message holds several of them. */
#include "store/store_inside.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

static int translate(const char *doing, const char *words, slu_error *err)
{
    slu_error_clear(err);
    int rc = store_translate("/data/s", doing, strdup(words), err); /* frees it: a sanitizer looks */
    ck_assert_int_eq(rc, err->code);
    return rc;
}

START_TEST(test_words)
{
    static const struct {
        const char *doing, *words;
        int code;
        const char *says;
    } cases[] = {
        {"opening", "IO error: lock hold by current process, acquire time 1 acquiring thread 2: /data/s/LOCK",
         SLU_EIO, "store /data/s is already open in this process"},
        {"opening", "IO error: While lock file: /data/s/LOCK: Resource temporarily unavailable", SLU_EIO,
         "store /data/s is in use by another process (pid unknown): stop it or use another store.path"},
        {"writing", "IO error: No space left on device: While appending to file: /data/s/000012.log", SLU_EIO,
         "store /data/s: writing: the disk is full; free some space (IO error: No space"},
        {"writing", "IO error: While appending to file: /data/s/000012.log: Disk quota exceeded", SLU_EIO,
         "the disk is full; free some space"},
        {"opening", "IO error: While mkdir if missing: /data/s: Permission denied", SLU_EIO,
         "opening: not writable for this user (IO error"},
        {"writing", "IO error: While open a file for appending: /data/s/1.log: Read-only file system",
         SLU_EIO, "not writable for this user"},
        {"reading", "Corruption: block checksum mismatch: stored = 1, computed = 2 in /data/s/000012.sst",
         SLU_ECORRUPT, "reading: damaged files; restore a backup (Corruption: block"},
        {"writing", "Background error: Corruption: bad block contents", SLU_ECORRUPT, "damaged files"},
        {"opening", "IO error: No such file or directory: While open a file for random read: /data/s/12.sst",
         SLU_ECORRUPT, "opening: a file is missing; restore a backup"},
        {"reading", "IO error: No such file or directory: While open a file for random read: /data/s/12.sst",
         SLU_EIO, "store /data/s: reading: IO error: No such file"},
        {"opening", "Invalid argument: Column families not opened: other", SLU_EFORMAT,
         "not a Sluice store, or of another version"},
        {"opening", "Invalid argument: Column family not found: rows", SLU_EFORMAT, "not a Sluice store"},
        {"opening", "Invalid argument: Column family not found: rows", SLU_EFORMAT,
         "or its MANIFEST is damaged; use another store.path, or restore a backup (Invalid"},
        {"opening", "Invalid argument: Unknown words", SLU_EIO,
         "Unknown words; look at the disk, or restore a backup"},
        {"writing", "IO error: While fsync: /data/s/000012.log: Input/output error", SLU_EIO,
         "store /data/s: writing: IO error: While fsync"},
        {"reading", "", SLU_EIO, "store /data/s: reading: "},
        /* A full disk is no damage, whatever it led to; a lock that is not held is no other process. */
        {"writing", "Corruption: truncated record: No space left on device", SLU_EIO, "the disk is full"},
        {"opening", "IO error: While lock file: /data/s/LOCK: Permission denied", SLU_EIO, "not writable"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        slu_error err;
        int rc = translate(cases[i].doing, cases[i].words, &err);
        ck_assert_msg(rc == cases[i].code && strstr(err.message, cases[i].says), "%s: %s became %s: %s",
                      cases[i].doing, cases[i].words, slu_code_name(rc), err.message);
    }
}
END_TEST

START_TEST(test_long_words_are_cut)
{
    char words[5000];
    slu_error err;
    memset(words, 'w', sizeof words - 1);
    words[sizeof words - 1] = 0;
    ck_assert_int_eq(translate("writing", words, &err), SLU_EIO);
    ck_assert_uint_lt(strlen(err.message), sizeof err.message);
    ck_assert_ptr_nonnull(strstr(err.message, "store /data/s: writing: www"));
    ck_assert_int_eq(store_translate("/data/s", "writing", strdup("x"), NULL),
                     SLU_EIO); /* nobody wants to know */
}
END_TEST

int main(void)
{
    return run_suite("store_words", (const TTest *[]){test_words, test_long_words_are_cut, NULL});
}
