/* Any bytes as a CSV file: split into lines as trainer/text_file.c does, records may span lines. A record
 * that is extended line by line must give the cells of a plain splitter that sees it whole. */
#include "trainer/csv.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUIRE(what)                                                                                        \
    do {                                                                                                     \
        if (!(what)) {                                                                                       \
            fprintf(stderr, "%s:%d: %s does not hold\n", __FILE__, __LINE__, #what);                         \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

/* The slow, obvious twin: one state machine over the bytes. Cells are appended to |out|, each with its length
 * in front. Returns 1, 0 (a quote is open) or -1. */
static int split_plainly(const char *p, size_t n, char *out, size_t *out_len, size_t *cells)
{
    enum { START, PLAIN, QUOTED, CLOSED } state = START;
    size_t len_at = 0, at = sizeof(size_t), length = 0;
    *cells = 0;
    for (size_t i = 0; i <= n; i++) {
        bool end = i == n;
        char c = end ? ',' : p[i];
        if (state == QUOTED) {
            if (end)
                return 0;
            if (c != '"') {
                out[at++] = c;
                length++;
            } else if (i + 1 < n && p[i + 1] == '"') {
                out[at++] = c;
                length++;
                i++;
            } else {
                state = CLOSED;
            }
        } else if (c == ',') {
            memcpy(out + len_at, &length, sizeof length);
            len_at = at;
            at += sizeof length;
            length = 0;
            ++*cells;
            state = START;
        } else if (state == START && c == '"') {
            state = QUOTED;
        } else if (state == CLOSED) {
            return -1;
        } else {
            out[at++] = c;
            length++;
            state = PLAIN;
        }
    }
    *out_len = at - sizeof length;
    return 1;
}

static void compare(const slu_csv *csv, int rc, const char *record, size_t n)
{
    char *plain = malloc((n + 2) * (sizeof(size_t) + 1) + 64);
    size_t len = 0, n_plain = 0, m;
    int expected = split_plainly(record, n, plain, &len, &n_plain);
    REQUIRE(rc == (expected < 0 ? SLU_EINVAL : expected));
    if (rc == 1) {
        const slu_span *cells = slu_csv_cells(csv, &m);
        REQUIRE(m == n_plain);
        size_t at = 0;
        for (size_t i = 0; i < m; i++) {
            size_t length;
            memcpy(&length, plain + at, sizeof length);
            at += sizeof length;
            REQUIRE(cells[i].n == length);
            REQUIRE(memcmp(cells[i].p, plain + at, length) == 0);
            at += length;
        }
        REQUIRE(at == len);
    }
    free(plain);
}

/* Feeds the record that starts at |p|, line by line, each time in memory of its exact size that has moved.
 * Returns how many bytes were used. */
static size_t one_record(slu_csv *csv, const char *p, size_t n)
{
    size_t used = 0;
    char *last = NULL;
    int rc = 0;
    slu_csv_begin(csv);
    for (int lines = 0; rc == 0 && used < n && lines < 200; lines++) {
        const char *lf = memchr(p + used, '\n', n - used);
        size_t line_end = lf ? (size_t)(lf - p) : n;
        char *moved = malloc(line_end ? line_end : 1);
        memcpy(moved, p, line_end);
        slu_error err = SLU_ERROR_INIT;
        rc = slu_csv_split(csv, (slu_span){moved, line_end}, &err);
        REQUIRE(rc == 1 || rc == 0 || (rc == SLU_EINVAL && err.message[0]));
        compare(csv, rc, moved, line_end);
        free(last);
        last = moved;
        used = lf ? line_end + 1 : n;
    }
    free(last);
    return used;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    slu_csv *csv = slu_csv_new();
    for (size_t at = 0; at < n;)
        at += one_record(csv, (const char *)bytes + at, n - at);
    slu_csv_free(csv);
    return 0;
}
