/* The small things that people and peers write: time-outs, durations, sizes, times, status messages, names.
 * The first byte says what the rest is. Each parser meets a second opinion or its own printer. */
#include "base/clock.h"
#include "base/text.h"
#include "feature/event.h"
#include "serving/grpc_status.h"
#include "serving/grpc_timeout.h"
#include "tests/fuzz/require.h"
#include <math.h>

/* Digits and a unit, in floating point: good enough to see a wrong unit or an overflow. */
static void timeout(const char *p, size_t n)
{
    static const char units[] = "HMSmun";
    static const double us[] = {3600e6, 60e6, 1e6, 1e3, 1, 1e-3};
    int64_t got = -7;
    int rc = slu_grpc_timeout_parse(p, n, &got);
    bool well = n >= 2 && n <= 9 && memchr(units, p[n - 1], 6);
    double v = 0;
    for (size_t i = 0; well && i < n - 1; i++) {
        well = p[i] >= '0' && p[i] <= '9';
        v = v * 10 + (p[i] - '0');
    }
    REQUIRE((rc == 0) == well);
    REQUIRE(well || got == -7);
    if (well) {
        double expected = ceil(v * us[strchr(units, p[n - 1]) - units]);
        REQUIRE(got >= 0 && fabs((double)got - expected) <= 1);
        REQUIRE(v == 0 || got > 0);
    }
}

static void duration(const char *text)
{
    char printed[64];
    int64_t us, again;
    if (slu_parse_duration(text, &us))
        return;
    REQUIRE(us >= 0 && slu_format_duration(us, printed, sizeof printed) == printed);
    REQUIRE(!slu_parse_duration(printed, &again) && again == us && strlen(printed) <= strlen(text) + 2);
}

static void size(const char *text)
{
    char printed[64];
    uint64_t bytes, again;
    if (slu_parse_size(text, &bytes))
        return;
    REQUIRE(slu_format_size(bytes, printed, sizeof printed) == printed);
    REQUIRE(!slu_parse_size(printed, &again) && again == bytes);
}

static void time_(const char *text)
{
    char printed[64];
    int64_t us, again;
    if (slu_parse_time(text, &us))
        return;
    slu_format_time(us, printed, sizeof printed);
    int64_t first = -62167219200LL * SLU_SECOND_US; /* the year 0 */
    if (us < first || us > SLU_MAX_TIME_US)
        return; /* a year of more than four digits, which the parser does not take back */
    int64_t rest = us % 1000 < 0 ? us % 1000 + 1000 : us % 1000;
    REQUIRE(!slu_parse_time(printed, &again) && again == us - rest);
}

static void message(const char *text, const char *raw, size_t n)
{
    slu_buf wire = {NULL, 0, 0};
    char *back = malloc(strlen(text) + 1), cut[8];
    slu_grpc_message_encode(&wire, text);
    for (size_t i = 0; i < wire.len; i++)
        REQUIRE(wire.data[i] >= 0x20 && wire.data[i] < 0x7f);
    REQUIRE(slu_grpc_message_decode(back, strlen(text) + 1, (const char *)wire.data, wire.len) ==
            strlen(text));
    REQUIRE(!strcmp(back, text));
    free(back);
    slu_buf_free(&wire);
    /* And what comes from a peer, into room that may be too small. */
    size_t len = slu_grpc_message_decode(cut, sizeof cut, raw, n);
    REQUIRE(len < sizeof cut && cut[len] == 0);
}

/* The number of bytes of the UTF-8 character at |p|, the slow way. */
static size_t character(const unsigned char *p, size_t n)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t len = !n                ? 0
                 : p[0] < 0x80     ? 1
                 : p[0] >> 5 == 6  ? 2
                 : p[0] >> 4 == 14 ? 3
                 : p[0] >> 3 == 30 ? 4
                                   : 0;
    if (!len || len > n)
        return 0;
    uint32_t v = len == 1 ? p[0] : p[0] & (0xffu >> (len + 1));
    for (size_t i = 1; i < len; i++) {
        if (p[i] >> 6 != 2)
            return 0;
        v = v << 6 | (p[i] & 0x3f);
    }
    return v < least[len] || v > 0x10ffff || (v >= 0xd800 && v < 0xe000) ? 0 : len;
}

static void utf8(const char *p, size_t n)
{
    const unsigned char *s = (const unsigned char *)p;
    bool valid = true;
    for (size_t at = 0; at < n && valid;) {
        size_t len = character(s + at, n - at);
        REQUIRE(slu_text_utf8(s + at, n - at) == len);
        valid = len && s[at];
        at += len;
    }
    REQUIRE(slu_utf8_valid(p, n) == valid);
}

static void names(const char *text, size_t n)
{
    static const char *const known[] = {"impression", "click", "conversion", "user_id", NULL};
    size_t half = strcspn(text, "|");
    char *a = strndup(text, half);
    const char *b = half < n ? text + half + 1 : "", *near = slu_text_nearest(a, known);
    REQUIRE(slu_text_distance(a, b) == slu_text_distance(b, a));
    if (strlen(a) < 64)
        REQUIRE(slu_text_distance(a, a) == 0);
    for (int i = 0; near && known[i]; i++)
        REQUIRE(slu_text_distance(a, near) <= slu_text_distance(a, known[i]));
    bool line = true;
    for (size_t at = 0; line && a[at];) {
        size_t len = character((const unsigned char *)a + at, strlen(a + at));
        unsigned char c = (unsigned char)a[at];
        line = len && (c == '\t' || (c >= 0x20 && c != 0x7f));
        at += len;
    }
    REQUIRE(slu_text_is_line(a) == line);
    free(a);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    if (!n)
        return 0;
    char *raw = malloc(n), *text = malloc(n);
    memcpy(raw, data + 1, n - 1);
    memcpy(text, data + 1, n - 1);
    text[n - 1] = 0;
    switch (data[0] % 7) {
    case 0:
        timeout(raw, n - 1);
        break;
    case 1:
        duration(text);
        break;
    case 2:
        size(text);
        break;
    case 3:
        time_(text);
        break;
    case 4:
        message(text, raw, n - 1);
        break;
    case 5:
        utf8(raw, n - 1);
        break;
    case 6:
        names(text, strlen(text));
        break;
    }
    free(raw);
    free(text);
    return 0;
}
