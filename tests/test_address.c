/* Addresses as people write them, and as they should not. */
#include "base/address.h"
#include "tests/suite.h"
#include <string.h>

static void expect(const char *text, const char *host, unsigned port, bool v6)
{
    slu_error err = SLU_ERROR_INIT;
    slu_address a;
    if (slu_address_parse(text, &a, &err))
        ck_abort_msg("%s", err.message);
    ck_assert_str_eq(a.host, host);
    ck_assert_uint_eq(a.number, port);
    ck_assert_str_eq(a.port, strrchr(text, ':') + 1);
    ck_assert_int_eq(a.v6, v6);
}

START_TEST(test_taken_apart)
{
    char longest[SLU_HOST_BYTES + 8], host[SLU_HOST_BYTES] = "";
    expect("127.0.0.1:7070", "127.0.0.1", 7070, false);
    expect("[::1]:65535", "::1", 65535, true);
    expect("[::ffff:10.0.0.1]:1", "::ffff:10.0.0.1", 1, true);
    expect("scorer-1.my_net.example:0", "scorer-1.my_net.example", 0, false);
    expect(":7070", "", 7070, false);
    memset(longest, 'a', sizeof longest);
    strcpy(longest + SLU_HOST_BYTES - 1, ":80");
    memcpy(host, longest, SLU_HOST_BYTES - 1);
    expect(longest, host, 80, false);
}
END_TEST

START_TEST(test_refused)
{
    static const char *const bad[] = {"",         "localhost",    "127.0.0.1:",  "a:65536", "a:000080",
                                      "a:-1",     "a:+1",         "a:1 ",        "a: 1",    "a:http",
                                      "::1:80",   "[::1]",        "[]:80",       "[::1]80", "[::1:80",
                                      "[::1%]:1", "user@host:80", "http://a:80", "a b:80",  "a,b:80",
                                      "a\n:80",   "[a:80",        "[host]:80",   "a/b:80",  "a:80,b:80"};
    char longer[SLU_HOST_BYTES + 8];
    memset(longer, 'a', sizeof longer);
    strcpy(longer + SLU_HOST_BYTES, ":80");
    for (size_t i = 0; i <= sizeof bad / sizeof *bad; i++) {
        const char *text = i < sizeof bad / sizeof *bad ? bad[i] : longer;
        slu_error err = SLU_ERROR_INIT;
        slu_address a = {.number = 7};
        if (slu_address_parse(text, &a, &err) != SLU_EINVAL)
            ck_abort_msg("'%s' was taken", text);
        ck_assert_uint_eq(a.number, 7);
        ck_assert_ptr_nonnull(strstr(err.message, "host:port"));
    }
}
END_TEST

int main(void)
{
    return run_suite("address", (const TTest *const[]){test_taken_apart, test_refused, NULL});
}
