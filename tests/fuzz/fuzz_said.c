/* What we repeat of words from outside: a log line, a status page, a metric's label... of a broker's or
 * client's text. However it looks, a log line is one line of printable UTF-8, as JSON one object with our
 * keys; a page gets no tag out of it; a secret does not get through; a broker's words get a remedy. The first
 * byte holds flags. */
#include "base/broker_hint.h"
#include "base/log.h"
#include "base/page.h"
#include "base/secret.h"
#include "base/text.h"
#include "tests/fuzz/require.h"
#include <jansson.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <unistd.h>

#define SECRET "s3cr3t-Pa55"
#define ROOM   8 /* that masking wants to spare */

static int fd = -1;

static int64_t frozen(void *ctx)
{
    (void)ctx;
    return 1700000000000000LL;
}

static const slu_clock clock_ = {frozen, frozen, NULL};

/* One log line with |text| in it, without its end. */
static char *logged(const char *text, slu_log_format format, size_t *len)
{
    static char line[1 << 16];
    if (fd < 0)
        fd = memfd_create("log", 0);
    REQUIRE(fd >= 0 && !ftruncate(fd, 0) && lseek(fd, 0, SEEK_SET) == 0);
    slu_log_setup(SLU_LOG_INFO, format);
    slu_log_redirect(fd, &clock_); /* forgets repeats, too */
    SLU_WARN("fuzz", "said", SLU_STR("text", text), SLU_U64("after", 7));
    ssize_t n = pread(fd, line, sizeof line, 0);
    REQUIRE(n > 1 && (size_t)n < sizeof line && line[n - 1] == '\n');
    line[ *len = (size_t)n - 1] = 0;
    REQUIRE(strlen(line) == *len && !strchr(line, '\n') && slu_text_is_line(line));
    return line;
}

/* |masked| is what may be said of the text. */
static void as_json(const char *text, const char *masked)
{
    size_t n;
    const char *line = logged(text, SLU_LOGJSON, &n);
    json_t *o = json_loadb(line, n, JSON_REJECT_DUPLICATES, NULL);
    REQUIRE(json_is_object(o) && json_object_size(o) == 6);
    const char *got = json_string_value(json_object_get(o, "text"));
    REQUIRE(got && !strstr(got, SECRET) && json_integer_value(json_object_get(o, "after")) == 7);
    bool valid = true;
    for (size_t at = 0, len = strlen(masked), step; at < len && valid; at += step)
        valid = (step = slu_text_utf8((const unsigned char *)masked + at, len - at)) != 0;
    if (valid && strlen(masked) <= 2048)
        REQUIRE(!strcmp(got, masked));
    json_decref(o);
}

/* Only our keys, whatever the text pretends to be. */
static void as_logfmt(const char *text)
{
    static const char *const keys[] = {"ts", "level", "component", "msg", "text", "after"};
    size_t n;
    const char *p = logged(text, SLU_LOGFMT, &n);
    REQUIRE(!strstr(p, SECRET));
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++) {
        size_t len = strlen(keys[i]);
        REQUIRE(!strncmp(p, keys[i], len) && p[len] == '=');
        p += len + 1;
        if (*p == '"') {
            for (p++; *p && *p != '"'; p++)
                p += *p == '\\' && p[1];
            REQUIRE(*p++ == '"');
        } else {
            p += strcspn(p, " \"");
        }
        REQUIRE(*p == (i + 1 < sizeof keys / sizeof *keys ? ' ' : 0));
        p += *p == ' ';
    }
}

static void as_page(const char *text)
{
    slu_buf out = {NULL, 0, 0};
    slu_page_text(&out, text);
    REQUIRE(out.len >= strlen(text));
    for (size_t i = 0; i < out.len; i++)
        REQUIRE(!memchr("<>\"'", out.data[i], 4));
    slu_buf_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static bool known;
    if (!n)
        return 0;
    if (!known)
        slu_secret_add(SECRET);
    known = true;
    /* The secret at a place that the first byte says, in every other input. */
    size_t len = n - 1, at = data[0] & 1 && len ? (data[0] >> 1) % len : 0,
           more = data[0] & 1 ? strlen(SECRET) : 0;
    char *text = malloc(len + more + 1), *masked = malloc(len + more + ROOM);
    memcpy(text, data + 1, at);
    memcpy(text + at, SECRET, more);
    memcpy(text + at + more, data + 1 + at, len - at);
    text[len + more] = 0;
    slu_secret_mask(text, masked, len + more + ROOM);
    REQUIRE(!strstr(masked, SECRET) && strlen(masked) <= strlen(text));
    as_json(text, masked);
    as_logfmt(text);
    as_page(text);
    REQUIRE(*slu_broker_hint(text));
    free(masked);
    free(text);
    return 0;
}
