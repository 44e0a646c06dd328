/* Addresses of the configuration and the command line, and the Host header of a browser. What is taken apart
 * and put together again is the same, a second opinion that looks character by character agrees, and only
 * names of this machine pass for it. The first byte says which. */
#include "base/address.h"
#include "base/admin.h"
#include "tests/fuzz/require.h"
#include <ctype.h>
#include <stdbool.h>
#include <strings.h>

static bool all(const char *p, size_t n, bool (*is)(unsigned char))
{
    for (size_t i = 0; i < n; i++)
        if (!is((unsigned char)p[i]))
            return false;
    return true;
}

static bool digit(unsigned char c)
{
    return c >= '0' && c <= '9';
}

static bool in_name(unsigned char c)
{
    return c < 0x80 && (isalnum(c) || c == '.' || c == '-' || c == '_');
}

static bool in_v6(unsigned char c)
{
    return c < 0x80 && (isxdigit(c) || c == ':' || c == '.');
}

static bool dotted(unsigned char c)
{
    return digit(c) || c == '.';
}

/* The number of a port of one to five digits; -1: it is none. */
static long port_of(const char *p, size_t n)
{
    long v = 0;
    if (!n || n > 5 || !all(p, n, digit))
        return -1;
    for (size_t i = 0; i < n; i++)
        v = v * 10 + (p[i] - '0');
    return v <= 65535 ? v : -1;
}

static bool well(const char *text)
{
    size_t n = strlen(text), at = n;
    while (at && text[at - 1] != ':')
        at--;
    if (!at || port_of(text + at, n - at) < 0)
        return false;
    size_t host = at - 1;
    if (host > 2 && text[0] == '[')
        return text[host - 1] == ']' && host - 2 < SLU_HOST_BYTES && all(text + 1, host - 2, in_v6);
    return host < SLU_HOST_BYTES && all(text, host, in_name);
}

static void address(const char *text)
{
    slu_error err = SLU_ERROR_INIT;
    slu_address a, untouched;
    char again[sizeof a.host + sizeof a.port + 4];
    memset(&a, 0x5a, sizeof a);
    untouched = a;
    int rc = slu_address_parse(text, &a, &err);
    REQUIRE((rc == 0) == well(text));
    REQUIRE(rc == err.code && (rc == 0 || rc == SLU_EINVAL));
    if (rc) {
        REQUIRE(!memcmp(&a, &untouched, sizeof a) && strstr(err.message, "host:port"));
        return;
    }
    snprintf(again, sizeof again, a.v6 ? "[%s]:%s" : "%s:%s", a.host, a.port);
    REQUIRE(!strcmp(again, text));
    REQUIRE(port_of(a.port, strlen(a.port)) == a.number);
}

static void host_header(const char *text)
{
    static const char *const local[] = {"localhost", "[::1]"};
    if (!slu_admin_is_local(text))
        return;
    size_t n = strlen(text), host = n;
    while (host && digit((unsigned char)text[host - 1]))
        host--;
    host = host && host < n && text[host - 1] == ':' ? host - 1 : n; /* without the port */
    bool ours = host >= 4 && !strncmp(text, "127.", 4) && all(text, host, dotted);
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        ours |= host == strlen(local[i]) && !strncasecmp(text, local[i], host);
    REQUIRE(ours);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!n)
        return 0;
    char *text = malloc(n);
    memcpy(text, data + 1, n - 1);
    text[n - 1] = 0;
    if (data[0] % 2)
        host_header(text);
    else
        address(text);
    free(text);
    return 0;
}
