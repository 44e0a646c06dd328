#include "store/store_logs.h"
#include "base/bytes.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    BLOCK = 32 * 1024,
    HEADER = 7,             /* crc (u32), length (u16), type (u8) */
    RECYCLABLE_HEADER = 11, /* and the number of the log (u32) */
    FULL = 1,
    FIRST = 2,
    LAST = 4,
    RECYCLABLE = 4, /* added to the type */
    LAST_TYPE = LAST + RECYCLABLE,
    BATCH_HEADER = 12, /* first sequence number (u64), how many (u32) */
};

/* ---- crc32c, as RocksDB stores it ---- */

static uint32_t crc_of(const uint8_t *p, size_t n)
{
    static uint32_t table[256];
    if (!table[1])
        for (uint32_t i = 0; i < 256; i++) {
            uint32_t c = i;
            for (int k = 0; k < 8; k++)
                c = c & 1 ? c >> 1 ^ 0x82f63b78u : c >> 1;
            table[i] = c; /* the same from any thread */
        }
    uint32_t c = ~0u;
    for (size_t i = 0; i < n; i++)
        c = table[(c ^ p[i]) & 0xff] ^ c >> 8;
    c = ~c;
    return (c >> 15 | c << 17) + 0xa282ead8u;
}

/* ---- one log ---- */

typedef struct span {
    bool any;
    uint64_t first, next; /* sequence numbers */
} span;

typedef struct batch_head {
    uint64_t sequence;
    uint32_t count;
    bool open; /* the record goes on in the next fragment */
} batch_head;

static void take_batch(span *s, const batch_head *b)
{
    if (!s->any)
        s->first = b->sequence;
    s->any = true;
    s->next = b->sequence + b->count;
}

/* One fragment at |p|, of which |left| bytes are in the block and the file. Returns its length, 0: the end of
 * what is whole. */
static size_t take_fragment(const uint8_t *p, size_t left, span *s, batch_head *b)
{
    slu_reader r = slu_reader_of(p, left);
    uint32_t crc = slu_get_u32(&r);
    size_t length = slu_get_u16(&r);
    uint8_t type = slu_get_u8(&r);
    if (r.bad || !type || type > LAST_TYPE)
        return 0;
    size_t header = type > RECYCLABLE ? RECYCLABLE_HEADER : HEADER;
    if (header + length > left || crc != crc_of(p + 6, header - 6 + length))
        return 0;
    uint8_t kind = type > RECYCLABLE ? type - RECYCLABLE : type;
    if (kind == FULL || kind == FIRST) {
        r = slu_reader_of(p + header, length);
        b->sequence = slu_get_u64(&r);
        b->count = slu_get_u32(&r);
        if (r.bad)
            return 0;
        b->open = true;
    }
    if (b->open && (kind == FULL || kind == LAST)) {
        take_batch(s, b);
        b->open = false;
    }
    return header + length;
}

/* The fragments of one block, which they never leave. False: nothing after it is whole. */
static bool walk_block(const uint8_t *p, size_t n, span *s, batch_head *b)
{
    for (size_t at = 0; n - at >= HEADER;) { /* the rest of a block is filled with zeros */
        size_t took = take_fragment(p + at, n - at, s, b);
        if (!took)
            return false;
        at += took;
    }
    return n == BLOCK;
}

static int read_log(const char *path, uint64_t number, span *s, slu_error *err)
{
    char name[4200];
    uint8_t block[BLOCK];
    batch_head b = {.open = false};
    ssize_t n = 0;
    *s = (span){.any = false};
    snprintf(name, sizeof name, "%.4096s/%06" PRIu64 ".log", path, number);
    int fd = open(name, O_RDONLY | O_CLOEXEC);
    for (off_t at = 0; fd >= 0 && (n = pread(fd, block, BLOCK, at)) > 0; at += n)
        if (!walk_block(block, (size_t)n, s, &b))
            break;
    int rc = fd < 0 || n < 0
                 ? slu_fail(err, SLU_EIO, "store %s: cannot read %s: %s", path, name, strerror(errno))
                 : 0;
    if (fd >= 0)
        close(fd);
    return rc;
}

/* ---- all of them ---- */

static int by_number(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static size_t list_logs(const char *path, uint64_t **numbers)
{
    size_t n = 0, cap = 0;
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        uint64_t number;
        int end = 0;
        if (sscanf(e->d_name, "%" SCNu64 ".log%n", &number, &end) != 1 || !end || e->d_name[end])
            continue;
        if (n == cap) {
            cap = cap ? 2 * cap : 16;
            *numbers = reallocarray(*numbers, cap, sizeof **numbers);
            if (!*numbers)
                abort();
        }
        (*numbers)[n++] = number;
    }
    if (d)
        closedir(d);
    if (n)
        qsort(*numbers, n, sizeof **numbers, by_number);
    return n;
}

int store_check_logs(const char *path, slu_error *err)
{
    uint64_t *numbers = NULL, before = 0, next = 0;
    size_t n = list_logs(path, &numbers);
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        span s;
        rc = read_log(path, numbers[i], &s, err);
        if (rc || !s.any)
            continue;
        if (before && s.first < next)
            rc = slu_fail(err, SLU_ECORRUPT,
                          "store %s: the log %06" PRIu64 ".log ends before entry %" PRIu64 ", but %06" PRIu64
                          ".log begins with %" PRIu64
                          " once more: one of them is of another store; restore a backup (sluice-store "
                          "restore; a scorer's store can be deleted)",
                          path, before, next, numbers[i], s.first);
        before = numbers[i];
        next = s.next;
    }
    free(numbers);
    return rc;
}
