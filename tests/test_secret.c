#include "base/error.h"
#include "base/log.h"
#include "base/secret.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

START_TEST(test_keys)
{
    static const char *const secret[] = {
        "sasl.password",         "ssl.key.password",        "ssl.key.pem",
        "ssl.keystore.password", "sasl.oauthbearer.config", "sasl.oauthbearer.client.secret",
        "SASL.Password",         "ssl.certificate.pem",     "some.api.key",
        "plugin.token"};
    static const char *const open[] = {"sasl.username",         "ssl.key.location",
                                       "ssl.keystore.location", "sasl.oauthbearer.token.endpoint.url",
                                       "security.protocol",     "ssl.ca.location",
                                       "sasl.mechanisms",       "client.rack"};
    for (size_t i = 0; i < sizeof secret / sizeof *secret; i++)
        ck_assert_msg(slu_secret_key(secret[i]), "%s", secret[i]);
    for (size_t i = 0; i < sizeof open / sizeof *open; i++)
        ck_assert_msg(!slu_secret_key(open[i]), "%s", open[i]);
}
END_TEST

static void masks(const char *text, const char *expected)
{
    char out[200];
    ck_assert_str_eq(slu_secret_mask(text, out, sizeof out), expected);
}

START_TEST(test_mask)
{
    ck_assert(!slu_secret_known());
    masks("nothing is secret yet", "nothing is secret yet");
    slu_secret_add("abc"); /* too short to be one */
    ck_assert(!slu_secret_known());
    slu_secret_add("hunter2");
    slu_secret_add("hunter2");
    slu_secret_add("hunter2-but-longer");
    ck_assert(slu_secret_known());
    masks("", "");
    masks("hunter2", "***");
    masks("hunter", "hunter");
    masks("a hunter2, hunter2-but-longer and hunter2hunter2", "a ***, *** and ******");
    masks("cut off: 'hunter2-but-l'", "cut off: '***'");
    masks("another end: hunter2-but-shorter", "another end: ***shorter"); /* 12 bytes and more */
    char small[8];
    ck_assert_str_eq(slu_secret_mask("0123456789", small, sizeof small), "01234");
    ck_assert_str_eq(slu_secret_mask("012hunter2", small, sizeof small), "012***");
    for (int i = 0; i < 2 * SLU_SECRETS_MOST; i++) { /* bounded, and what came first stays hidden */
        char value[32];
        snprintf(value, sizeof value, "value-%d", i);
        slu_secret_add(value);
    }
    masks("hunter2 value-1", "*** ***");
    masks("x value-511", "x ***1"); /* not taken itself; value-51 is */
}
END_TEST

START_TEST(test_errors_and_log_lines)
{
    int ends[2];
    char line[2000], long_secret[300];
    slu_error err = SLU_ERROR_INIT;
    memset(long_secret, 's', sizeof long_secret);
    memcpy(long_secret, "0123456789", 10);
    long_secret[sizeof long_secret - 1] = 0;
    slu_secret_add("c4n4ry");
    slu_secret_add(long_secret);
    slu_fail(&err, SLU_EINVAL, "broker said: bad password 'c4n4ry'");
    ck_assert_str_eq(err.message, "broker said: bad password '***'");
    slu_error_context(&err, "with %s and %.60s", "c4n4ry", long_secret);
    ck_assert_str_eq(err.message, "with *** and ***: broker said: bad password '***'");
    ck_assert_int_eq(pipe(ends), 0);
    slu_log_redirect(ends[1], NULL);
    for (int json = 0; json < 2; json++) {
        slu_log_setup(SLU_LOG_DEBUG, json ? SLU_LOGJSON : SLU_LOGFMT);
        SLU_DEBUG("rdkafka", "auth joe:c4n4ry", SLU_STR("reason", "no c4n4ry here"),
                  SLU_STR("x", long_secret));
        ssize_t n = read(ends[0], line, sizeof line - 1);
        ck_assert_int_gt(n, 0);
        line[n] = 0;
        ck_assert_msg(!strstr(line, "c4n4ry") && !strstr(line, "01234"), "%s", line);
        ck_assert_msg(strstr(line, "auth joe:***") && strstr(line, "no *** here"), "%s", line);
    }
    slu_log_redirect(2, NULL);
    close(ends[0]);
    close(ends[1]);
}
END_TEST

int main(void)
{
    return run_suite("secret", (const TTest *[]){test_keys, test_mask, test_errors_and_log_lines, NULL});
}
