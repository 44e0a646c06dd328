#include "trainer/csv.h"
#include "base/bytes.h"
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

/* Places instead of pointers, since an extended record may have moved. */
typedef struct cell {
    size_t at, n;
    bool unescaped; /* at counts within the splitter's own memory */
} cell;

struct slu_csv {
    cell *cells;     /* (n of cap) */
    slu_span *spans; /* (n of cap) */
    size_t n, cap;
    size_t at;      /* scanned up to here */
    bool open;      /* inside the quoted cell that began at open_at */
    bool doubled;   /* ... which has doubled quotes */
    size_t open_at; /* first byte behind the opening quote */
    slu_buf unescaped;
};

slu_csv *slu_csv_new(void)
{
    return calloc(1, sizeof(slu_csv));
}

void slu_csv_free(slu_csv *c)
{
    if (!c)
        return;
    slu_buf_free(&c->unescaped);
    free(c->cells);
    free(c->spans);
    free(c);
}

void slu_csv_begin(slu_csv *c)
{
    c->n = 0;
    c->at = 0;
    c->open = c->doubled = false;
    slu_buf_clear(&c->unescaped);
}

static int add_cell(slu_csv *c, size_t at, size_t n, bool unescaped, slu_error *err)
{
    if (c->n == c->cap) {
        size_t cap = c->cap ? 2 * c->cap : 64;
        cell *cells = realloc(c->cells, cap * sizeof *cells);
        if (cells)
            c->cells = cells;
        slu_span *spans = realloc(c->spans, cap * sizeof *spans);
        if (spans)
            c->spans = spans;
        if (!cells || !spans)
            return slu_fail(err, SLU_ENOMEM, "out of memory splitting a CSV record");
        c->cap = cap;
    }
    c->cells[c->n++] = (cell){at, n, unescaped};
    return 0;
}

static int add_quoted(slu_csv *c, const char *p, size_t n, slu_error *err)
{
    if (!c->doubled)
        return add_cell(c, c->open_at, n, false, err);
    const char *from = p + c->open_at;
    size_t start = c->unescaped.len;
    char *out = (char *)slu_buf_reserve(&c->unescaped, n);
    size_t m = 0;
    for (size_t i = 0; i < n; i++) {
        out[m++] = from[i];
        i += from[i] == '"'; /* the second of a pair */
    }
    c->unescaped.len += m;
    return add_cell(c, start, m, true, err);
}

/* Goes on inside a quoted cell. Returns 1 when it is closed and added, 0 when it stays open. */
static int scan_quoted(slu_csv *c, slu_span r, slu_error *err)
{
    for (;;) {
        const char *q = c->at < r.n ? memchr(r.p + c->at, '"', r.n - c->at) : NULL;
        if (!q) {
            c->at = r.n;
            return 0;
        }
        size_t i = (size_t)(q - r.p);
        if (i + 1 < r.n && q[1] == '"') {
            c->doubled = true;
            c->at = i + 2;
            continue;
        }
        if (i + 1 < r.n && q[1] != ',')
            return slu_fail(err, SLU_EINVAL,
                            "cell %zu goes on behind its closing quote; a quote inside a "
                            "quoted cell is written twice",
                            c->n + 1);
        int rc = add_quoted(c, r.p, i - c->open_at, err);
        if (rc)
            return rc;
        c->open = c->doubled = false;
        c->at = i + 1;
        return 1;
    }
}

static void point(slu_csv *c, const char *record)
{
    const char *own = (const char *)c->unescaped.data;
    for (size_t i = 0; i < c->n; i++) {
        const cell *x = &c->cells[i];
        c->spans[i] = (slu_span){x->n ? (x->unescaped ? own : record) + x->at : "", x->n};
    }
}

int slu_csv_split(slu_csv *c, slu_span r, slu_error *err)
{
    size_t at = c->at;
    bool more = !c->open; /* a cell begins at |at| */
    for (;;) {
        if (more && at < r.n && r.p[at] == '"') {
            c->open = true;
            c->open_at = c->at = at + 1;
            more = false;
        }
        if (!more) {
            int rc = scan_quoted(c, r, err);
            if (rc <= 0)
                return rc;
            at = c->at;
        } else {
            size_t i = at;
            while (i < r.n && r.p[i] != ',')
                i++;
            int rc = add_cell(c, at, i - at, false, err);
            if (rc)
                return rc;
            at = i;
        }
        if (at == r.n)
            break;
        at++; /* the comma */
        more = true;
    }
    c->at = at;
    point(c, r.p);
    return 1;
}

const slu_span *slu_csv_cells(const slu_csv *c, size_t *n)
{
    *n = c->n;
    return c->spans;
}
