/* Stored rows in key order over a store in memory: whole and in pieces, as of the last commit, and what is
 * damaged is named. */
#include "base/rng.h"
#include "store/row_scan.h"
#include "store/row_value.h"
#include "tests/memory_store.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

#define SEED 20261126u
enum { ROWS = 400, FLOATS_MOST = 9 };

typedef struct want {
    uint32_t table, count, last_seen, floats;
    uint64_t id;
    bool admitted;
} want;

static want rows[ROWS]; /* in key order */

static float nth_float(const want *r, uint32_t i)
{
    return (float)(r->id % 1000) + (float)i / 16;
}

static size_t write_row(const want *r, uint8_t key[SLU_ROW_KEY_BYTES],
                        uint8_t value[SLU_ROW_VALUE_HEADER + 4 * FLOATS_MOST])
{
    float v[FLOATS_MOST];
    for (uint32_t i = 0; i < r->floats; i++)
        v[i] = nth_float(r, i);
    slu_row_key_write(key, r->table, r->id);
    return slu_row_value_write(value, r->count, r->last_seen, r->admitted, v, r->floats);
}

static int compare(const void *a, const void *b)
{
    const want *x = a, *y = b;
    if (x->table != y->table)
        return x->table < y->table ? -1 : 1;
    return x->id < y->id ? -1 : x->id > y->id;
}

/* Tables and ids whose bytes do not sort as little-endian numbers, beside entries of other families. */
static slu_store *fill(void)
{
    static const uint32_t tables[] = {0, 1, 255, 256, 0x80000000u, UINT32_MAX};
    const slu_store_config config = {.path = "memory", .create = true, .schema_text = "s"};
    slu_error err = SLU_ERROR_INIT;
    slu_store *s;
    slu_rng rng;
    slu_rng_seed(&rng, SEED);
    printf("seed %u\n", SEED);
    for (int i = 0; i < ROWS; i++)
        rows[i] = (want){.table = tables[slu_rng_below(&rng, 6)],
                         .id = slu_rng_u64(&rng) >> slu_rng_below(&rng, 45),
                         .count = (uint32_t)slu_rng_u64(&rng),
                         .last_seen = (uint32_t)slu_rng_u64(&rng),
                         .admitted = slu_rng_below(&rng, 4) != 0};
    rows[0] = (want){.table = UINT32_MAX, .id = UINT64_MAX, .admitted = true};
    qsort(rows, ROWS, sizeof *rows, compare);
    for (int i = 1; i < ROWS; i++)
        ck_assert_int_ne(compare(&rows[i - 1], &rows[i]), 0);
    ck_assert_msg(!slu_store_open(&config, &s, &err), "%s", err.message);
    for (int i = 0; i < ROWS; i++) {
        uint8_t key[SLU_ROW_KEY_BYTES], value[SLU_ROW_VALUE_HEADER + 4 * FLOATS_MOST];
        rows[i].floats = rows[i].admitted ? (uint32_t)slu_rng_below(&rng, FLOATS_MOST + 1) : 0;
        size_t len = write_row(&rows[i], key, value);
        memory_store_put(SLU_FAMILY_ROWS, key, sizeof key, value, len);
    }
    memory_store_put(SLU_FAMILY_META, "a", 1, "x", 1);
    memory_store_put(SLU_FAMILY_DENSE, "z", 1, "x", 1);
    return s;
}

typedef struct visit {
    int at;      /* rows seen */
    int stop_at; /* says stop at so many; 0: never */
    int calls_after_stop;
} visit;

static bool each(void *ctx, uint32_t table, uint64_t id, uint32_t count, uint32_t last_seen, bool admitted,
                 const float *v, uint32_t floats)
{
    visit *x = ctx;
    if (x->stop_at && x->at == x->stop_at)
        x->calls_after_stop++;
    if (x->at == ROWS)
        ck_abort_msg("more rows than there are");
    const want *w = &rows[x->at++];
    if (table != w->table || id != w->id || count != w->count || last_seen != w->last_seen ||
        admitted != w->admitted || floats != w->floats || (uintptr_t)v % sizeof(float))
        ck_abort_msg("row %d is not what was stored: table %u id %llu", x->at, table, (unsigned long long)id);
    for (uint32_t i = 0; i < floats; i++)
        if (v[i] != nth_float(w, i))
            ck_abort_msg("row %d: float %u is %g", x->at, i, v[i]);
    return x->at != x->stop_at;
}

START_TEST(test_all_in_order)
{
    slu_store *s = fill();
    slu_error err = SLU_ERROR_INIT;
    visit x = {0};
    ck_assert_msg(!slu_row_scan(s, each, &x, &err), "%s", err.message);
    ck_assert_int_eq(x.at, ROWS);
    for (int stop = 1; stop <= ROWS; stop += 57) { /* stopping is no error */
        x = (visit){.stop_at = stop};
        ck_assert_int_eq(slu_row_scan(s, each, &x, &err), 0);
        ck_assert_int_eq(x.at, stop);
        ck_assert_int_eq(x.calls_after_stop, 0);
    }
    slu_store_close(s);
    memory_store_clear();
    const slu_store_config config = {.path = "memory", .create = true, .schema_text = "s"};
    ck_assert_int_eq(slu_store_open(&config, &s, &err), 0);
    x = (visit){0};
    ck_assert_int_eq(slu_row_scan(s, each, &x, &err), 0);
    ck_assert_int_eq(x.at, 0);
    slu_store_close(s);
}
END_TEST

/* Pieces of any size give the whole, and what is committed while they are read is not in them. */
START_TEST(test_pieces_are_the_whole)
{
    static const size_t sizes[] = {1, 2, 7, ROWS - 1, ROWS, ROWS + 1};
    slu_store *s = fill();
    slu_error err = SLU_ERROR_INIT;
    memory_copy *filled = memory_store_copy();
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        slu_cursor *c;
        visit x = {0};
        int rc = 1, pieces = 0;
        ck_assert_int_eq(slu_cursor_open(s, SLU_FAMILY_ROWS, &c, &err), 0);
        while (rc == 1) {
            int before = x.at;
            rc = slu_row_walk(s, c, sizes[k], each, &x, &err);
            pieces++;
            ck_assert_int_le(x.at - before, (int)sizes[k]);
            if (rc == 1)
                ck_assert_int_eq(x.at - before, (int)sizes[k]);
            uint8_t key[SLU_ROW_KEY_BYTES];
            slu_row_key_write(key, rows[ROWS - 1].table, rows[ROWS - 1].id);
            memory_store_delete(SLU_FAMILY_ROWS, key, sizeof key); /* goes on meanwhile */
            slu_row_key_write(key, 7, (uint64_t)pieces);
            memory_store_put(SLU_FAMILY_ROWS, key, sizeof key, "?", 1);
        }
        ck_assert_msg(rc == 0, "%s", err.message);
        ck_assert_int_eq(x.at, ROWS);
        ck_assert_int_eq(pieces, (int)((ROWS + sizes[k] - 1) / sizes[k]));
        slu_cursor_close(c);
        memory_store_restore(filled);
    }
    slu_cursor *c;
    visit x = {.stop_at = 5}; /* a piece ends where it is told to stop, and goes on behind it */
    ck_assert_int_eq(slu_cursor_open(s, SLU_FAMILY_ROWS, &c, &err), 0);
    ck_assert_int_eq(slu_row_walk(s, c, 100, each, &x, &err), 1);
    ck_assert_int_eq(x.at, 5);
    x.stop_at = 0;
    ck_assert_int_eq(slu_row_walk(s, c, ROWS, each, &x, &err), 0);
    ck_assert_int_eq(x.at, ROWS);
    slu_cursor_close(c);
    memory_copy_free(filled);
    slu_store_close(s);
}
END_TEST

/* ---- damage ---- */

/* Both ways to read, with row |at| damaged: all rows before it, none from it on, and its name. */
static void expect_damage(slu_store *s, int at, int code, const char *part)
{
    char name[100];
    visit x = {0};
    slu_error err = SLU_ERROR_INIT;
    snprintf(name, sizeof name, "store memory: table %u: row %llu", rows[at].table,
             (unsigned long long)rows[at].id);
    ck_assert_int_eq(slu_row_scan(s, each, &x, &err), code);
    ck_assert_int_eq(x.at, at);
    ck_assert_msg(strstr(err.message, name) && strstr(err.message, part), "%s", err.message);
    slu_cursor *c;
    slu_error_clear(&err);
    x = (visit){0};
    int rc;
    ck_assert_int_eq(slu_cursor_open(s, SLU_FAMILY_ROWS, &c, &err), 0);
    while ((rc = slu_row_walk(s, c, 10, each, &x, &err)) == 1)
        continue;
    ck_assert_int_eq(rc, code);
    ck_assert_int_eq(x.at, at);
    ck_assert_msg(strstr(err.message, name) && strstr(err.message, part), "%s", err.message);
    slu_cursor_close(c);
}

START_TEST(test_damage_is_named)
{
    slu_store *s = fill();
    memory_copy *filled = memory_store_copy();
    static const int places[] = {0, 9, 10, ROWS / 2, ROWS - 1}; /* the ends of a piece among them */
    for (size_t k = 0; k < sizeof places / sizeof *places; k++) {
        uint8_t key[SLU_ROW_KEY_BYTES], value[SLU_ROW_VALUE_HEADER + 4 * FLOATS_MOST + 1];
        int at = places[k];
        size_t len = write_row(&rows[at], key, value);
        memory_store_put(SLU_FAMILY_ROWS, key, sizeof key, value, len - 1);
        expect_damage(s, at, SLU_ECORRUPT, "no row has");
        value[0]++;
        memory_store_put(SLU_FAMILY_ROWS, key, sizeof key, value, len);
        expect_damage(s, at, SLU_EFORMAT, "row format 2");
        value[0]--;
        value[1] |= 0x80;
        memory_store_put(SLU_FAMILY_ROWS, key, sizeof key, value, len);
        expect_damage(s, at, SLU_EFORMAT, "flags");
        memory_store_restore(filled);
    }
    memory_store_put(SLU_FAMILY_ROWS, "short", 5, "", 0);
    visit x = {0};
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_row_scan(s, each, &x, &err), SLU_ECORRUPT);
    ck_assert_msg(strstr(err.message, "a row key has 5 bytes instead of 12"), "%s", err.message);
    memory_copy_free(filled);
    slu_store_close(s);
}
END_TEST

START_TEST(test_disk_that_fails)
{
    slu_store *s = fill();
    slu_error err = SLU_ERROR_INIT;
    visit x = {0};
    memory_store_fail(1);
    ck_assert_int_eq(slu_row_scan(s, each, &x, &err), SLU_EIO);
    slu_cursor *c;
    ck_assert_int_eq(slu_cursor_open(s, SLU_FAMILY_ROWS, &c, NULL), 0);
    ck_assert_int_eq(slu_row_walk(s, c, 10, each, &x, NULL), 1);
    memory_store_fail(1);
    ck_assert_int_eq(slu_row_walk(s, c, 10, each, &x, NULL), SLU_EIO);
    ck_assert_int_eq(x.at, 10);
    slu_cursor_close(c);
    slu_store_close(s);
}
END_TEST

int main(void)
{
    return run_suite("row_scan", (const TTest *[]){test_all_in_order, test_pieces_are_the_whole,
                                                   test_damage_is_named, test_disk_that_fails, NULL});
}
