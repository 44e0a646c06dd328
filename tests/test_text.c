#include "base/text.h"
#include "tests/suite.h"

START_TEST(test_distance)
{
    ck_assert_uint_eq(slu_text_distance("kind", "kind"), 0);
    ck_assert_uint_eq(slu_text_distance("kimd", "kind"), 1);
    ck_assert_uint_eq(slu_text_distance("knid", "kind"), 1);
    ck_assert_uint_eq(slu_text_distance("", "kind"), 4);
    ck_assert_uint_eq(slu_text_distance("kitten", "sitting"), 3);
    char longest[200] = {0};
    for (int i = 0; i < 199; i++)
        longest[i] = 'a';
    ck_assert_uint_gt(slu_text_distance(longest, "a"), 63);
}
END_TEST

START_TEST(test_nearest)
{
    static const char *const names[] = {"kind", "side", "source", "dimension", NULL};
    ck_assert_str_eq(slu_text_nearest("kimd", names), "kind");
    ck_assert_str_eq(slu_text_nearest("dimensions", names), "dimension");
    ck_assert_str_eq(slu_text_nearest("suorce", names), "source");
    ck_assert_ptr_null(slu_text_nearest("colour", names));
    ck_assert_ptr_null(slu_text_nearest("x", names));
    ck_assert_ptr_null(slu_text_nearest("kind", (const char *const[]){NULL}));
}
END_TEST

START_TEST(test_utf8)
{
    static const struct {
        const char *bytes;
        size_t left, len;
    } cases[] = {{"a", 1, 1},
                 {"\xc3\xa9", 2, 2},
                 {"\xe2\x82\xac", 3, 3},
                 {"\xf0\x9f\x98\x80", 4, 4},
                 {"", 0, 0},
                 {"\xc3", 1, 0},
                 {"\xc0\x80", 2, 0},
                 {"\xe0\x80\x80", 3, 0},
                 {"\xed\xa0\x80", 3, 0},
                 {"\xf4\x90\x80\x80", 4, 0},
                 {"\xf5\x80\x80\x80", 4, 0},
                 {"\x80", 1, 0},
                 {"\xe2\x82", 2, 0},
                 {"\xe2\x82\x41", 3, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        ck_assert_msg(slu_text_utf8((const unsigned char *)cases[i].bytes, cases[i].left) == cases[i].len,
                      "case %zu", i);
}
END_TEST

START_TEST(test_is_line)
{
    ck_assert(slu_text_is_line(""));
    ck_assert(slu_text_is_line("a\tb \xc3\xa9"));
    ck_assert(!slu_text_is_line("a\nb"));
    ck_assert(!slu_text_is_line("\x1b[31m"));
    ck_assert(!slu_text_is_line("\x7f"));
    ck_assert(!slu_text_is_line("caf\xc3"));
}
END_TEST

int main(void)
{
    return run_suite("text", (const TTest *[]){test_distance, test_nearest, test_utf8, test_is_line, NULL});
}
