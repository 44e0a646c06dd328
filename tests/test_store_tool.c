/* sluice-store beside a running writer: what it prints is the last commit. Skipped where the program is not
 * built. */
#include "store/outbox.h"
#include "store/row_sum.h"
#include "store/row_table.h"
#include "store/row_value.h"
#include "store/state.h"
#include "tests/store_sample.h"
#include <sys/wait.h>

static char tool[4200], output[20000];

/* The program lies in bin/ beside this test's folder. */
static bool find_tool(void)
{
    char self[4096];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    ck_assert_int_gt(n, 0);
    self[n] = 0;
    *strrchr(self, '/') = 0;
    snprintf(tool, sizeof tool, "%s/../bin/sluice-store", self);
    if (!access(tool, X_OK))
        return true;
    printf("skipped: %s is not there\n", tool);
    return false;
}

/* Runs the tool with |words|, keeps what it says, returns its exit status. */
static int run(const char *words)
{
    char command[9000];
    snprintf(command, sizeof command, "%s %s 2>&1", tool, words);
    FILE *p = popen(command, "r");
    ck_assert_ptr_nonnull(p);
    output[fread(output, 1, sizeof output - 1, p)] = 0;
    int status = pclose(p);
    ck_assert_msg(WIFEXITED(status), "%s: crashed", command);
    return WEXITSTATUS(status);
}

static void expect_said(const char *words)
{
    ck_assert_msg(strstr(output, words) != NULL, "no '%s' in:\n%s", words, output);
}

static int run_on_sample(const char *command, const char *options)
{
    char words[800];
    snprintf(words, sizeof words, "%s --store %s %s", command, sample_path, options);
    return run(words);
}

static slu_store *open_filled(void)
{
    slu_store *s = sample_open();
    slu_error err = SLU_ERROR_INIT;
    slu_outbox *o;
    uint8_t key[SLU_ROW_KEY_BYTES], value[SLU_ROW_VALUE_HEADER + 8];
    float v[2] = {0.5f, -2};
    ck_assert_int_eq(slu_outbox_open(s, &o, &err), 0);
    slu_outbox_add(o, SLU_CHANNEL_DEAD_LETTERS, "{\"reason\": \"late\"}", 18);
    slu_commit *c = slu_commit_begin(s);
    slu_state_put_u64(c, "~version", 12);
    slu_state_put_offset(c, "clicks", 0, 77);
    slu_state_put_floats(c, "params", v, 2);
    slu_row_key_write(key, 3, UINT64_MAX);
    slu_commit_put(c, SLU_FAMILY_ROWS, key, sizeof key, value,
                   slu_row_value_write(value, 9, 1600000000, true, v, 2));
    slu_row_key_write(key, 4, 1);
    slu_commit_put(c, SLU_FAMILY_ROWS, key, sizeof key, "bad", 3);
    slu_outbox_flush(o, c);
    sample_write(c);
    slu_outbox_close(o);
    return s;
}

START_TEST(test_says_what_is_there)
{
    if (!find_tool())
        return;
    slu_store *s = open_filled();
    ck_assert_msg(!run_on_sample("info", ""), "%s", output);
    expect_said("version          12\n");
    ck_assert_int_eq(run_on_sample("info", "--json"), 0);
    expect_said("\"version\": 12");
    ck_assert_msg(!run_on_sample("dump", ""), "%s", output);
    expect_said("name=offset/clicks/0 value=77");
    expect_said("table=3 id=18446744073709551615 count=9 last_seen=2020-09-13T12:26:40.000Z admitted=1 "
                "floats=[0.5,-2]");
    expect_said("damaged="); /* and it goes on */
    expect_said("name=params length=2");
    expect_said("channel=dead-letters sequence=1");
    ck_assert_int_eq(run_on_sample("dump", "--family rows --limit 1 --json"), 0);
    expect_said("\"id\": \"18446744073709551615\"");
    ck_assert_ptr_null(strstr(output, "damaged"));
    char digest[34];
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_store_digest(s, SLU_MODEL_FAMILIES, digest, &err), 0);
    strcat(digest, "\n");
    ck_assert_int_eq(run_on_sample("digest", ""), 0);
    ck_assert_str_eq(output, digest);
    slu_store_close(s);
}
END_TEST

START_TEST(test_sums)
{
    if (!find_tool())
        return;
    slu_store *s = sample_open();
    ck_assert_int_eq(run_on_sample("sum", ""), 1);
    expect_said("no model yet");
    uint8_t key[SLU_ROW_KEY_BYTES], value[SLU_ROW_VALUE_HEADER + 8];
    const float v[2] = {0.5f, -2};
    slu_row_sum sum = {0};
    slu_commit *c = slu_commit_begin(s);
    slu_state_put_u64(c, "~version", 12);
    slu_state_put_floats(c, "params", v, 2);
    slu_row_key_write(key, 0, 5);
    slu_commit_put(c, SLU_FAMILY_ROWS, key, sizeof key, value, slu_row_value_write(value, 9, 9, true, v, 2));
    slu_row_sum_add(&sum, 0, 5, v, 1);
    slu_row_sum_record(c, 12, (const uint32_t[]){1}, (const uint64_t[]){1}, 1, sum);
    sample_write(c);
    char line[80];
    snprintf(line, sizeof line, "row sum      %016llx%016llx\n", (unsigned long long)sum.hi,
             (unsigned long long)sum.lo);
    ck_assert_msg(!run_on_sample("sum", ""), "%s", output);
    expect_said("a trainer\n");
    expect_said("rows         1\n");
    expect_said(line);
    /* A row is lost: the commit knows. */
    slu_commit_delete(c, SLU_FAMILY_ROWS, key, sizeof key);
    sample_write(c);
    ck_assert_int_eq(run_on_sample("sum", ""), 1);
    expect_said("rows were lost or changed");
    slu_store_close(s);
}
END_TEST

START_TEST(test_refuses)
{
    if (!find_tool())
        return;
    ck_assert_int_eq(run(""), 2);
    ck_assert_int_eq(run("info"), 2);
    expect_said("--store");
    ck_assert_int_eq(run_on_sample("dumb", ""), 2);
    ck_assert_int_eq(run_on_sample("dump", "--family timer"), 2);
    expect_said("timers");
    ck_assert_int_eq(run_on_sample("dump", "--limit some"), 2);
    ck_assert_int_eq(run_on_sample("info", ""), 1);
    expect_said(sample_path);
    ck_assert_int_eq(run("--help"), 0);
    expect_said("--family");
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("store_tool");
    TCase *tc = tcase_create("store_tool");
    tcase_add_checked_fixture(tc, sample_setup, sample_teardown);
    tcase_set_timeout(tc, 60);
    tcase_add_test(tc, test_says_what_is_there);
    tcase_add_test(tc, test_sums);
    tcase_add_test(tc, test_refuses);
    suite_add_tcase(suite, tc);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
