#include "base/address.h"
#include <stdlib.h>
#include <string.h>

#define DIGITS  "0123456789"
#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define NAME    LETTERS DIGITS "._-"
#define V6      "abcdefABCDEF:." DIGITS

static bool is_port(const char *port)
{
    size_t n = strspn(port, DIGITS);
    return n && n <= 5 && !port[n] && atoi(port) <= UINT16_MAX;
}

int slu_address_parse(const char *text, slu_address *out, slu_error *err)
{
    const char *colon = strrchr(text, ':'), *host = text;
    size_t n = colon ? (size_t)(colon - text) : 0;
    bool v6 = n > 2 && text[0] == '[' && text[n - 1] == ']';
    if (v6)
        host++, n -= 2;
    if (!colon || !is_port(colon + 1) || n >= sizeof out->host || strspn(host, v6 ? V6 : NAME) < n)
        return slu_fail(err, SLU_EINVAL,
                        "'%.60s' is not an address; write host:port, e.g. 127.0.0.1:7070, 0.0.0.0:7070 or "
                        "[::1]:7070",
                        text);
    *out = (slu_address){.v6 = v6, .number = (uint16_t)atoi(colon + 1)};
    memcpy(out->host, host, n);
    strcpy(out->port, colon + 1);
    return 0;
}
