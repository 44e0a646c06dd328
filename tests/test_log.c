#include "base/log.h"
#include "tests/suite.h"
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static int64_t now_us = 1607126400000000;

static int64_t read_now(void *ctx)
{
    (void)ctx;
    return now_us;
}

static const slu_clock test_clock = {read_now, read_now, NULL};
static FILE *captured;

static void capture(slu_log_level level, slu_log_format format)
{
    captured = tmpfile();
    ck_assert_ptr_nonnull(captured);
    ck_assert_int_eq(fcntl(fileno(captured), F_SETFL, O_APPEND), 0);
    slu_log_setup(level, format);
    slu_log_redirect(fileno(captured), &test_clock);
}

/* What was written so far, as one text. */
static const char *written(void)
{
    static char text[1 << 20];
    ssize_t n = pread(fileno(captured), text, sizeof text - 1, 0);
    ck_assert_int_ge(n, 0);
    text[n] = 0;
    return text;
}

START_TEST(test_logfmt)
{
    capture(SLU_LOG_INFO, SLU_LOGFMT);
    SLU_DEBUG("trainer", "not seen");
    SLU_INFO("trainer", "committed", SLU_U64("version", 7), SLU_STR("path", "/var/lib/sluice"));
    ck_assert_str_eq(written(),
                     "ts=2020-12-05T00:00:00.000Z level=info component=trainer msg=committed version=7 "
                     "path=/var/lib/sluice\n");
}
END_TEST

START_TEST(test_types_and_quoting)
{
    capture(SLU_LOG_DEBUG, SLU_LOGFMT);
    SLU_WARN("a", "two words", SLU_I64("i", -5), SLU_F64("f", 0.25), SLU_F64("nan", NAN), SLU_BOOL("b", true),
             SLU_STR("none", NULL), SLU_STR("empty", ""), SLU_STR("odd", "say \"x=1\"\n\x1b[31m\xff"));
    ck_assert_str_eq(
        written(),
        "ts=2020-12-05T00:00:00.000Z level=warn component=a msg=\"two words\" i=-5 f=0.25 nan=nan b=true "
        "none=- empty=\"\" odd=\"say \\\"x=1\\\"\\n\\u001b[31m\\ufffd\"\n");
}
END_TEST

START_TEST(test_json)
{
    capture(SLU_LOG_INFO, SLU_LOGJSON);
    SLU_ERROR("scorer", "bad \"request\"", SLU_U64("n", 3), SLU_F64("inf", INFINITY),
              SLU_STR("s", "caf\xc3\xa9 \xc3"), SLU_BOOL("b", false), SLU_STR("null", NULL));
    json_t *line = json_loads(written(), 0, NULL);
    ck_assert_ptr_nonnull(line);
    ck_assert_str_eq(json_string_value(json_object_get(line, "msg")), "bad \"request\"");
    ck_assert_str_eq(json_string_value(json_object_get(line, "level")), "error");
    ck_assert_int_eq(json_integer_value(json_object_get(line, "n")), 3);
    ck_assert_str_eq(json_string_value(json_object_get(line, "s")), "caf\xc3\xa9 \xef\xbf\xbd");
    ck_assert_str_eq(json_string_value(json_object_get(line, "inf")), "inf");
    ck_assert(json_is_false(json_object_get(line, "b")));
    ck_assert(json_is_null(json_object_get(line, "null")));
    json_decref(line);
}
END_TEST

START_TEST(test_long_values_stay_one_valid_line)
{
    static char longest[5000];
    slu_kv kv[21];
    capture(SLU_LOG_INFO, SLU_LOGJSON);
    memset(longest, '"', sizeof longest - 1); /* doubles when escaped */
    for (int i = 0; i < 20; i++)
        kv[i] = SLU_STR("k", longest);
    kv[20] = (slu_kv){.type = SLU_KV_NONE};
    slu_log_write(SLU_LOG_INFO, "c", "long", kv);
    const char *text = written();
    ck_assert_uint_lt(strlen(text), 16 << 10);
    ck_assert_ptr_eq(strchr(text, '\n'), text + strlen(text) - 1);
    json_t *line = json_loads(text, 0, NULL);
    ck_assert_ptr_nonnull(line);
    ck_assert(json_is_true(json_object_get(line, "truncated")));
    json_decref(line);
}
END_TEST

static int count(const char *text, const char *part)
{
    int n = 0;
    for (; (text = strstr(text, part)); text += strlen(part))
        n++;
    return n;
}

START_TEST(test_repeats_are_summed)
{
    capture(SLU_LOG_INFO, SLU_LOGFMT);
    for (int i = 0; i < 35; i++)
        SLU_WARN("source", "broker is gone", SLU_I64("i", i));
    SLU_WARN("source", "something else");
    ck_assert_int_eq(count(written(), "broker is gone"), 10);
    ck_assert_int_eq(count(written(), "something else"), 1);
    now_us += 10 * SLU_SECOND_US;
    SLU_WARN("source", "broker is gone", SLU_I64("i", 99));
    ck_assert_int_eq(count(written(), "i=99 repeated=25\n"), 1);
    SLU_WARN("source", "broker is gone", SLU_I64("i", 100));
    ck_assert_int_eq(count(written(), "i=100\n"), 1); /* told once */
}
END_TEST

static void *write_many(void *arg)
{
    char msg[16];
    for (int i = 0; i < 200; i++) {
        snprintf(msg, sizeof msg, "m%d-%d", *(int *)arg, i);
        SLU_INFO("thread", msg, SLU_STR("text", "0123456789"));
    }
    return NULL;
}

START_TEST(test_threads_do_not_mix_lines)
{
    pthread_t threads[4];
    int ids[4] = {0, 1, 2, 3};
    capture(SLU_LOG_INFO, SLU_LOGFMT);
    for (int i = 0; i < 4; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, write_many, &ids[i]), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    const char *text = written();
    ck_assert_int_eq(count(text, "\n"), 800);
    ck_assert_int_eq(count(text, " text=0123456789\nts="), 799);
}
END_TEST

int main(void)
{
    return run_suite("log", (const TTest *[]){test_logfmt, test_types_and_quoting, test_json,
                                              test_long_values_stay_one_valid_line, test_repeats_are_summed,
                                              test_threads_do_not_mix_lines, NULL});
}
