/* The CSV splitter against RFC 4180 and against hostile records. */
#include "trainer/csv.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static slu_csv *csv;

static void setup(void)
{
    csv = slu_csv_new();
    ck_assert_ptr_nonnull(csv);
}

static void teardown(void)
{
    slu_csv_free(csv);
}

/* The cells of |text| joined by '^', in exactly sized memory so that ASan sees an overrun. */
static const char *split(const char *text, int *rc)
{
    static char joined[4096];
    size_t n = strlen(text), m;
    char *copy = malloc(n + !n);
    memcpy(copy, text, n);
    slu_error err = SLU_ERROR_INIT;
    slu_csv_begin(csv);
    *rc = slu_csv_split(csv, (slu_span){copy, n}, &err);
    joined[0] = 0;
    if (*rc == 1) {
        const slu_span *cells = slu_csv_cells(csv, &m);
        for (size_t i = 0, at = 0; i < m; i++)
            at += (size_t)snprintf(joined + at, sizeof joined - at, "%s%.*s", i ? "^" : "", (int)cells[i].n,
                                   cells[i].p);
    }
    free(copy);
    return joined;
}

static const struct {
    const char *text, *cells;
    int rc;
} records[] = {
    {"", "", 1},
    {"a", "a", 1},
    {"a,b,c", "a^b^c", 1},
    {",", "^", 1},
    {",,x,", "^^x^", 1},
    {"\"a\"", "a", 1},
    {"\"\"", "", 1},
    {"\"\",\"\"", "^", 1},
    {"\"a,b\",c", "a,b^c", 1},
    {"\"say \"\"hi\"\"\",x", "say \"hi\"^x", 1},
    {"\"\"\"\"", "\"", 1},
    {"\"\"\"\"\"\"", "\"\"", 1},
    {"a\"b,c\"\"", "a\"b^c\"\"", 1},
    {" \"a\" ,b", " \"a\" ^b", 1},
    {"\"two\r\nlines\",x", "two\r\nlines^x", 1},
    {"\"a\"b", "", SLU_EINVAL},
    {"\"a\" ,b", "", SLU_EINVAL},
    {"x,\"a", "", 0},
    {"x,\"a\"\"", "", 0},
    {"\"", "", 0},
};

START_TEST(test_split)
{
    int rc;
    const char *cells = split(records[_i].text, &rc);
    ck_assert_msg(rc == records[_i].rc, "<%s>: %d, expected %d", records[_i].text, rc, records[_i].rc);
    ck_assert_msg(strcmp(cells, records[_i].cells) == 0, "<%s>: <%s>, expected <%s>", records[_i].text, cells,
                  records[_i].cells);
}
END_TEST

/* A record that arrives line by line, in memory that moves, gives the cells of the whole. */
START_TEST(test_extend)
{
    const char *whole = "1,\"a\n\"\"b\"\"\nc\",\"\n\",d";
    size_t n = strlen(whole), m;
    slu_error err = SLU_ERROR_INIT;
    slu_csv_begin(csv);
    char *last = NULL;
    int rc = 0;
    for (size_t i = 0; i <= n && rc == 0; i++) {
        if (i < n && whole[i] != '\n')
            continue;
        char *moved = malloc(i);
        memcpy(moved, whole, i);
        rc = slu_csv_split(csv, (slu_span){moved, i}, &err);
        free(last);
        last = moved;
    }
    ck_assert_int_eq(rc, 1);
    const slu_span *cells = slu_csv_cells(csv, &m);
    ck_assert_uint_eq(m, 4);
    ck_assert(cells[0].n == 1 && cells[0].p[0] == '1');
    ck_assert(cells[1].n == 7 && memcmp(cells[1].p, "a\n\"b\"\nc", 7) == 0);
    ck_assert(cells[2].n == 1 && cells[2].p[0] == '\n');
    ck_assert(cells[3].n == 1 && cells[3].p[0] == 'd');
    free(last);
}
END_TEST

START_TEST(test_error_names_the_cell)
{
    slu_error err = SLU_ERROR_INIT;
    slu_csv_begin(csv);
    ck_assert_int_eq(slu_csv_split(csv, (slu_span){"a,b,\"c\"d", 8}, &err), SLU_EINVAL);
    ck_assert_msg(strstr(err.message, "cell 3") != NULL, "%s", err.message);
}
END_TEST

START_TEST(test_many_cells)
{
    char text[3000];
    for (size_t i = 0; i < sizeof text; i++)
        text[i] = i % 2 ? ',' : 'x';
    slu_error err = SLU_ERROR_INIT;
    size_t n;
    for (int again = 0; again < 3; again++) {
        slu_csv_begin(csv);
        ck_assert_int_eq(slu_csv_split(csv, (slu_span){text, sizeof text}, &err), 1);
        const slu_span *cells = slu_csv_cells(csv, &n);
        ck_assert_uint_eq(n, sizeof text / 2 + 1);
        ck_assert_uint_eq(cells[n - 2].n, 1);
        ck_assert_uint_eq(cells[n - 1].n, 0);
    }
}
END_TEST

int main(void)
{
    Suite *s = suite_create("csv");
    TCase *t = tcase_create("split");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_add_loop_test(t, test_split, 0, sizeof records / sizeof *records);
    tcase_add_test(t, test_extend);
    tcase_add_test(t, test_error_names_the_cell);
    tcase_add_test(t, test_many_cells);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
