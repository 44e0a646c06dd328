/* docs/config.md is made from the options table; this test keeps it so, and writes it with SLU_WRITE_DOCS=1.
 */
#include "base/options.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

#define PATH "docs/config.md"

START_TEST(test_docs_match_the_table)
{
    char *made = slu_options_markdown();
    size_t n = strlen(made);
    if (getenv("SLU_WRITE_DOCS")) {
        FILE *out = fopen(PATH, "w");
        ck_assert_msg(out != NULL, "cannot write " PATH "; run this from the top folder");
        ck_assert_uint_eq(fwrite(made, 1, n, out), n);
        ck_assert_int_eq(fclose(out), 0);
    }
    char *there = calloc(1, n + 2);
    FILE *in = fopen(PATH, "r");
    ck_assert_msg(in != NULL, "cannot open " PATH "; run this from the top folder");
    size_t got = fread(there, 1, n + 1, in);
    fclose(in);
    ck_assert_msg(got == n && !memcmp(made, there, n),
                  PATH " is not what the options table says; write it anew with: SLU_WRITE_DOCS=1 "
                       "build/tests/test_options_doc");
    free(there);
    free(made);
}
END_TEST

/* The example at the top of the page is one that loads. */
START_TEST(test_example_loads)
{
    char *made = slu_options_markdown();
    char *from = strstr(made, "```yaml\n"), *to = from ? strstr(from + 8, "```") : NULL;
    ck_assert_ptr_nonnull(to);
    slu_options *o;
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_options_parse(from + 8, (size_t)(to - from - 8), PATH, NULL, 0, &o, &err), "%s",
                  err.message);
    slu_options_free(o);
    free(made);
}
END_TEST

int main(void)
{
    return run_suite("options docs", (const TTest *[]){test_docs_match_the_table, test_example_loads, NULL});
}
