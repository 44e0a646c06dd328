/* base/page.h: what a status page is made of. */
#include "base/page.h"
#include "tests/suite.h"
#include <math.h>
#include <string.h>

static slu_buf page = SLU_BUF_INIT;

static const char *text(void)
{
    slu_put_u8(&page, 0);
    page.len--;
    return (const char *)page.data;
}

static unsigned count(const char *needle)
{
    unsigned n = 0;
    for (const char *p = text(); (p = strstr(p, needle)) != NULL; p++)
        n++;
    return n;
}

START_TEST(test_numbers_for_people)
{
    char out[32];
    ck_assert_str_eq(slu_page_count(0, out, sizeof out), "0");
    ck_assert_str_eq(slu_page_count(999, out, sizeof out), "999");
    ck_assert_str_eq(slu_page_count(1000, out, sizeof out), "1 000");
    ck_assert_str_eq(slu_page_count(12345678, out, sizeof out), "12 345 678");
    ck_assert_str_eq(slu_page_count(-123456, out, sizeof out), "-123 456");
    ck_assert_str_eq(slu_page_count(0.25, out, sizeof out), "0.2");
    ck_assert_str_eq(slu_page_count(NAN, out, sizeof out), "-");
    ck_assert_uint_lt(strlen(slu_page_count(INFINITY, out, sizeof out)), sizeof out);
    ck_assert_str_eq(slu_page_bytes(512, out, sizeof out), "512 B");
    ck_assert_str_eq(slu_page_bytes(1536, out, sizeof out), "1.5 KiB");
    ck_assert_str_eq(slu_page_bytes(200.0 * (1 << 20), out, sizeof out), "200 MiB");
    ck_assert_str_eq(slu_page_seconds(0.00025, out, sizeof out), "250 us");
    ck_assert_str_eq(slu_page_seconds(0.34, out, sizeof out), "340 ms");
    ck_assert_str_eq(slu_page_seconds(600, out, sizeof out), "10 min");
    ck_assert_str_eq(slu_page_seconds(-1, out, sizeof out), "-");
}
END_TEST

START_TEST(test_text_is_escaped)
{
    slu_buf_free(&page);
    slu_page_card(&page, &(slu_card){"<b>", "\"1\"", "a & b", SLU_TONE_WARN, NULL, NAN});
    slu_page_verdict(&page, "one <script>\ntwo\n", "");
    ck_assert_ptr_null(strstr(text(), "<script>"));
    ck_assert_ptr_nonnull(strstr(text(), "&#60;script&#62;"));
    ck_assert_uint_eq(count("<span>"), 2);
    ck_assert_ptr_nonnull(strstr(text(), "card warn"));
}
END_TEST

START_TEST(test_curve_has_gaps_and_wraps)
{
    slu_buf_free(&page);
    slu_history h = {0};
    slu_page_curve(&page, &h, NAN);
    ck_assert_uint_eq(page.len, 0); /* nothing to draw yet */
    for (int i = 0; i < 10; i++)
        slu_history_push(&h, i == 4 || i == 5 ? NAN : i);
    slu_page_curve(&page, &h, 1);
    ck_assert_uint_eq(count("<polyline"), 2);
    ck_assert_uint_eq(count("\"/>"), 2);
    ck_assert_uint_eq(count("<line"), 1);
    ck_assert_uint_eq(count("</svg>"), 1);
    for (int i = 0; i < 3 * SLU_HISTORY_POINTS; i++)
        slu_history_push(&h, i);
    ck_assert_uint_eq(h.n, SLU_HISTORY_POINTS);
    slu_buf_clear(&page);
    slu_page_curve(&page, &h, NAN);
    ck_assert_ptr_nonnull(strstr(text(), " to 449"));
    ck_assert_ptr_null(strstr(text(), "nan"));
    slu_history gaps = {0};
    slu_history_push(&gaps, NAN);
    slu_history_push(&gaps, NAN);
    slu_buf_clear(&page);
    slu_page_curve(&page, &gaps, 1);
    ck_assert_uint_eq(page.len, 0);
}
END_TEST

START_TEST(test_bar_of_nothing)
{
    slu_buf_free(&page);
    const slu_share none[] = {{"a", 0}, {"b", 0}}, some[] = {{"a", 3}, {"b", 1}};
    slu_page_bar(&page, none, 2);
    ck_assert_ptr_null(strstr(text(), "nan"));
    ck_assert_ptr_null(strstr(text(), "flex:"));
    slu_page_bar(&page, some, 2);
    ck_assert_ptr_nonnull(strstr(text(), "flex:0.750000"));
    ck_assert_ptr_nonnull(strstr(text(), "25 %"));
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_numbers_for_people, test_text_is_escaped,
                                  test_curve_has_gaps_and_wraps, test_bar_of_nothing, NULL};
    return run_suite("page", tests);
}
