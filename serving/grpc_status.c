#include "serving/grpc_status.h"

static const struct {
    const char *name, *digits;
} codes[SLU_GRPC_CODES] = {
    {"OK", "0"},
    {"CANCELLED", "1"},
    {"UNKNOWN", "2"},
    {"INVALID_ARGUMENT", "3"},
    {"DEADLINE_EXCEEDED", "4"},
    {"NOT_FOUND", "5"},
    {"ALREADY_EXISTS", "6"},
    {"PERMISSION_DENIED", "7"},
    {"RESOURCE_EXHAUSTED", "8"},
    {"FAILED_PRECONDITION", "9"},
    {"ABORTED", "10"},
    {"OUT_OF_RANGE", "11"},
    {"UNIMPLEMENTED", "12"},
    {"INTERNAL", "13"},
    {"UNAVAILABLE", "14"},
    {"DATA_LOSS", "15"},
    {"UNAUTHENTICATED", "16"},
};

static int known(int code)
{
    return code >= 0 && code < SLU_GRPC_CODES ? code : 2;
}

const char *slu_grpc_status_name(int code)
{
    return codes[known(code)].name;
}

const char *slu_grpc_status_digits(int code)
{
    return codes[known(code)].digits;
}

void slu_grpc_message_encode(slu_buf *out, const char *text)
{
    static const char hex[] = "0123456789ABCDEF";
    for (const unsigned char *p = (const unsigned char *)text; *p; p++) {
        if (*p >= 0x20 && *p <= 0x7e && *p != '%') {
            slu_put_u8(out, *p);
            continue;
        }
        slu_put_u8(out, '%');
        slu_put_u8(out, (uint8_t)hex[*p >> 4]);
        slu_put_u8(out, (uint8_t)hex[*p & 15]);
    }
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

size_t slu_grpc_message_decode(char *out, size_t size, const char *p, size_t n)
{
    size_t len = 0;
    for (size_t i = 0; i < n && len + 1 < size; i++) {
        int high = p[i] == '%' && n - i > 2 ? hex_value(p[i + 1]) : -1;
        int low = high >= 0 ? hex_value(p[i + 2]) : -1;
        if (low >= 0) {
            out[len++] = (char)(high << 4 | low);
            i += 2;
        } else {
            out[len++] = p[i];
        }
    }
    out[len] = 0;
    return len;
}
