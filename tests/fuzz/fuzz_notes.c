/* The two small files that say what a store and a backup hold: SLUICE and BACKUP. The first byte says which,
 * and whether its checksums are made right, which a fuzzer would never find by itself. What is accepted is
 * what is there: a mark can be written again and read back, a backup has exactly the files that its note
 * names. */
#include "base/digest.h"
#include "store/backup.h"
#include "store/store_mark.h"
#include "tests/fuzz/require.h"
#include <fcntl.h>
#include <ftw.h>
#include <inttypes.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SLOT = 256, FILES = 2 };
static char root[64];
static const char *const names[FILES] = {"000004.log", "CURRENT"}, *const contents[FILES] = {
                                                                       "", "MANIFEST-000005\n"};

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

static void clean(void)
{
    nftw(root, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

static void put(const char *name, const void *bytes, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", root, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    REQUIRE(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

static void begin(void)
{
    const char *tmp = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    snprintf(root, sizeof root, "%s/sluice-fuzz-XXXXXX", tmp);
    REQUIRE(mkdtemp(root));
    atexit(clean);
    for (int i = 0; i < FILES; i++)
        put(names[i], contents[i], strlen(contents[i]));
}

/* ---- SLUICE ---- */

static void mend_slot(char *slot)
{
    char text[SLOT + 1], sum[32];
    memcpy(text, slot, SLOT);
    text[SLOT] = 0;
    char *at = strstr(text, " check=");
    if (!at || at + 23 > text + SLOT)
        return;
    snprintf(sum, sizeof sum, " check=%016" PRIx64, slu_hash64(text, (size_t)(at - text), 0));
    memcpy(slot + (at - text), sum, 23);
}

static void mark(char *text, size_t n, bool mend)
{
    slu_error err = SLU_ERROR_INIT;
    slu_mark m, again;
    slu_mark_file *f;
    bool copied = false;
    for (size_t at = 0; mend && at + SLOT <= n && at < 2 * SLOT; at += SLOT)
        mend_slot(text + at);
    put("SLUICE", text, n);
    int rc = slu_mark_read(root, &m, &copied, &err);
    REQUIRE(rc <= 0 &&
            (rc == 0 || rc == SLU_ENOTFOUND || (rc == SLU_ECORRUPT && strstr(err.message, "SLUICE"))));
    REQUIRE((rc == SLU_ENOTFOUND) == (n < SLOT));
    REQUIRE(!slu_mark_open(root, true, &f, NULL)); /* whatever was in it, a note can follow */
    slu_mark next = rc ? (slu_mark){.store = 1} : m;
    REQUIRE(!slu_mark_write(f, &next, false, NULL));
    slu_mark_close(f);
    if (rc)
        return;
    REQUIRE(!slu_mark_read(root, &again, &copied, NULL));
    REQUIRE(again.store == m.store && again.commits == m.commits && again.manifest == m.manifest &&
            again.manifest_size == m.manifest_size && again.closed == m.closed);
}

/* ---- BACKUP ---- */

static void backup(const char *text, size_t n, bool mend)
{
    static slu_backup b;
    slu_error err = SLU_ERROR_INIT;
    slu_buf note = {NULL, 0, 0};
    slu_put_bytes(&note, text, n);
    if (mend) { /* the right files too, where the input leaves them out */
        char digest[33], line[128];
        slu_buf_clear(&note);
        slu_put_bytes(&note, "sluice-backup 1\n", 16);
        slu_put_bytes(&note, text, strnlen(text, n));
        slu_put_bytes(&note, "\n", 1);
        for (int i = 0; i < FILES; i++) {
            slu_digest *d = slu_digest_new();
            slu_digest_add(d, contents[i], strlen(contents[i]));
            slu_digest_hex(d, digest);
            slu_digest_free(d);
            int len = snprintf(line, sizeof line, "file %s %zu %s\n", names[i], strlen(contents[i]), digest);
            slu_put_bytes(&note, line, (size_t)len);
        }
        slu_digest *d = slu_digest_new();
        slu_digest_add(d, note.data, note.len);
        slu_digest_hex(d, digest);
        slu_digest_free(d);
        int len = snprintf(line, sizeof line, "end %s\n", digest);
        slu_put_bytes(&note, line, (size_t)len);
    }
    put("BACKUP", note.len ? note.data : (const uint8_t *)"", note.len);
    int rc = slu_backup_check(root, &b, &err);
    REQUIRE(rc <= 0 && (rc == 0 || err.message[0]));
    if (rc == 0)
        REQUIRE(b.files == FILES && b.bytes == strlen(contents[1]));
    slu_buf_free(&note);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!root[0])
        begin();
    if (!size || size > 8192)
        return 0;
    char *text = malloc(size);
    memcpy(text, data + 1, size - 1);
    static const char *const own[] = {"SLUICE", "BACKUP"};
    for (int i = 0; i < 2; i++) {
        char path[128];
        snprintf(path, sizeof path, "%s/%s", root, own[i]);
        unlink(path);
    }
    if (data[0] & 1)
        backup(text, size - 1, data[0] & 2);
    else
        mark(text, size - 1, data[0] & 2);
    free(text);
    return 0;
}
