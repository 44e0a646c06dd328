#include "trainer/text_file.h"
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <zlib.h>

#define READ_BYTES ((size_t)256 << 10)

/* buf: [begin, next) is the current line with its end, [next, end) what was read beyond it. first_next is
 * where the line ended before it was extended. */
struct slu_text_file {
    gzFile gz;
    char *path;
    char *buf;
    size_t cap, begin, first_next, next, end, limit;
    int64_t number;
    int64_t lines_in; /* physical lines in [begin, next) */
    uint64_t size;
    bool eof, skipping; /* skipping: the rest of a line over the limit comes next */
};

int slu_text_file_open(const char *path, size_t limit, slu_text_file **fp, slu_error *err)
{
    *fp = NULL;
    struct stat st;
    if (stat(path, &st) != 0)
        return slu_fail(err, SLU_EIO, "cannot read %s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return slu_fail(err, SLU_EIO, "cannot read %s: it is a directory, a file is needed", path);
    slu_text_file *f = calloc(1, sizeof *f);
    if (!f)
        return slu_fail(err, SLU_ENOMEM, "out of memory opening %s", path);
    f->limit = limit;
    f->size = (uint64_t)st.st_size;
    f->cap = 2 * READ_BYTES;
    f->path = strdup(path);
    f->buf = malloc(f->cap);
    if (!f->path || !f->buf) {
        slu_text_file_close(f);
        return slu_fail(err, SLU_ENOMEM, "out of memory opening %s", path);
    }
    f->gz = gzopen(path, "rbe");
    if (!f->gz) {
        slu_text_file_close(f);
        return slu_fail(err, SLU_EIO, "cannot read %s: %s", path, strerror(errno));
    }
    gzbuffer(f->gz, 128 << 10);
    *fp = f;
    return 0;
}

void slu_text_file_close(slu_text_file *f)
{
    if (!f)
        return;
    if (f->gz)
        gzclose(f->gz);
    free(f->buf);
    free(f->path);
    free(f);
}

static int read_failed(slu_text_file *f, slu_error *err)
{
    int code = 0;
    const char *reason = gzerror(f->gz, &code);
    if (code == Z_ERRNO)
        reason = strerror(errno);
    else if (code == Z_BUF_ERROR)
        reason = "the compressed file ends in the middle; it was cut off";
    return slu_fail(err, SLU_EIO, "cannot read %s behind line %lld: %s", f->path, (long long)f->number,
                    reason);
}

/* Reads more behind [begin, end), which moves to the front. Bounded: callers stop at the limit. */
static int fill(slu_text_file *f, slu_error *err)
{
    if (f->begin > 0) {
        memmove(f->buf, f->buf + f->begin, f->end - f->begin);
        f->first_next -= f->begin;
        f->next -= f->begin;
        f->end -= f->begin;
        f->begin = 0;
    }
    if (f->cap - f->end < READ_BYTES) {
        char *bigger = realloc(f->buf, 2 * f->cap);
        if (!bigger)
            return slu_fail(err, SLU_ENOMEM, "out of memory reading %s", f->path);
        f->buf = bigger;
        f->cap *= 2;
    }
    int got = gzread(f->gz, f->buf + f->end, (unsigned)(f->cap - f->end));
    int code = 0;
    if (got >= 0)
        gzerror(f->gz, &code);
    if (got < 0 || (got == 0 && code != Z_OK && code != Z_STREAM_END))
        return read_failed(f, err);
    f->eof = got == 0;
    f->end += (size_t)got;
    return 0;
}

/* Finds the end of the line that starts at |next|: moves next behind it. The whole of [begin, next) must stay
 * within the limit. Returns 1, 0 (nothing there), SLU_ELIMIT (next is unchanged), SLU_EIO. */
static int find_line(slu_text_file *f, slu_error *err)
{
    size_t scanned = f->next - f->begin;
    for (;;) {
        char *from = f->buf + f->begin + scanned;
        size_t n = f->end - f->begin - scanned;
        char *lf = n ? memchr(from, '\n', n) : NULL;
        size_t length = lf ? (size_t)(lf - f->buf) - f->begin : f->end - f->begin;
        if (length > f->limit)
            return SLU_ELIMIT;
        if (lf) {
            f->next = (size_t)(lf - f->buf) + 1;
            return 1;
        }
        if (f->eof) {
            bool some = f->end > f->next;
            f->next = f->end;
            return some;
        }
        scanned += n;
        int rc = fill(f, err);
        if (rc)
            return rc;
    }
}

static slu_span current(const slu_text_file *f)
{
    size_t n = f->next - f->begin;
    const char *p = f->buf + f->begin;
    if (n && p[n - 1] == '\n')
        n--;
    if (n && p[n - 1] == '\r')
        n--;
    return (slu_span){p, n};
}

/* Passes over the rest of a line over the limit. */
static int skip_rest(slu_text_file *f, slu_error *err)
{
    for (;;) {
        char *lf = memchr(f->buf + f->begin, '\n', f->end - f->begin);
        if (lf) {
            f->begin = f->next = (size_t)(lf - f->buf) + 1;
            break;
        }
        f->begin = f->next = f->first_next = f->end;
        if (f->eof)
            break;
        int rc = fill(f, err);
        if (rc)
            return rc;
    }
    f->skipping = false;
    return 0;
}

int slu_text_file_line(slu_text_file *f, slu_span *line, slu_error *err)
{
    f->begin = f->next;
    f->number += f->lines_in;
    f->lines_in = 0;
    if (f->skipping) {
        int rc = skip_rest(f, err);
        if (rc)
            return rc;
    }
    int rc = find_line(f, err);
    if (rc == 0 || (rc < 0 && rc != SLU_ELIMIT))
        return rc;
    if (f->number == 0)
        f->number = 1;
    f->lines_in = 1;
    if (rc == SLU_ELIMIT) {
        *line = (slu_span){f->buf + f->begin, f->limit};
        f->next = f->first_next = f->begin + f->limit;
        f->skipping = true;
        return rc;
    }
    f->first_next = f->next;
    *line = current(f);
    return 1;
}

int slu_text_file_extend(slu_text_file *f, slu_span *line, slu_error *err)
{
    int rc = find_line(f, err);
    if (rc == 1) {
        f->lines_in++;
        *line = current(f);
    } else if (rc == SLU_ELIMIT || rc == 0) {
        *line = current(f); /* the buffer may have moved */
    }
    return rc;
}

void slu_text_file_rewind(slu_text_file *f, slu_span *line)
{
    f->next = f->first_next;
    f->lines_in = 1;
    *line = current(f);
}

int64_t slu_text_file_number(const slu_text_file *f)
{
    return f->number;
}

uint64_t slu_text_file_consumed(const slu_text_file *f)
{
    z_off_t at = gzoffset(f->gz);
    return at < 0 ? f->size : (uint64_t)at;
}

uint64_t slu_text_file_size(const slu_text_file *f)
{
    return f->size;
}
