/* A line is built in a buffer on the stack and leaves in one write(2), so lines of several threads never mix
 * and nothing is allocated. The lock only guards the table of repeats. */
#include "base/log.h"
#include "base/digest.h"
#include "base/secret.h"
#include "base/text.h"
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES   (16 << 10)
#define TAIL_BYTES   64   /* kept free for truncated=true, repeated=N and the closing brace */
#define VALUE_BYTES  2048 /* longer texts are cut */
#define REPEAT_MAX   10
#define REPEAT_US    (10 * SLU_SECOND_US)
#define REPEAT_SLOTS 256

static atomic_int threshold = SLU_LOG_INFO;
static atomic_int chosen_format = SLU_LOGFMT;
static atomic_int target = STDERR_FILENO;
static _Atomic(const slu_clock *) chosen_clock = &slu_system_clock;

/* How often one (component, message) came in its current interval. A slot that another message wants is taken
 * over: then a flood of many different messages is not summed, but memory stays bounded. */
typedef struct repeat {
    uint64_t key;
    int64_t since_us;
    uint32_t passed;
    uint64_t held; /* lines summed and not yet told */
} repeat;
static repeat repeats[REPEAT_SLOTS];
static pthread_mutex_t repeats_lock = PTHREAD_MUTEX_INITIALIZER;

void slu_log_setup(slu_log_level level, slu_log_format format)
{
    atomic_store(&threshold, (int)level);
    atomic_store(&chosen_format, (int)format);
}

void slu_log_redirect(int fd, const slu_clock *clock)
{
    atomic_store(&target, fd);
    atomic_store(&chosen_clock, clock ? clock : &slu_system_clock);
    pthread_mutex_lock(&repeats_lock);
    memset(repeats, 0, sizeof repeats);
    pthread_mutex_unlock(&repeats_lock);
}

/* May this line be written? Then *|held| says how many like it were not. */
static bool admit(const char *component, const char *msg, int64_t now, uint64_t *held)
{
    uint64_t key = slu_hash64(msg, strlen(msg), slu_hash64(component, strlen(component), 0));
    repeat *r = &repeats[key % REPEAT_SLOTS];
    pthread_mutex_lock(&repeats_lock);
    if (r->key != key)
        *r = (repeat){.key = key, .since_us = now};
    if (now - r->since_us >= REPEAT_US) {
        r->since_us = now;
        r->passed = 0;
    }
    bool pass = r->passed < REPEAT_MAX;
    if (pass) {
        r->passed++;
        *held = r->held;
        r->held = 0;
    } else {
        r->held++;
    }
    pthread_mutex_unlock(&repeats_lock);
    return pass;
}

typedef struct line {
    char text[LINE_BYTES];
    size_t len, room; /* room: where the text has to end for now */
    bool full, json;
} line;

static void put(line *l, const char *s, size_t n)
{
    if (l->full || n > l->room - l->len) {
        l->full = true;
        return;
    }
    memcpy(l->text + l->len, s, n);
    l->len += n;
}

static void puts_to(line *l, const char *s)
{
    put(l, s, strlen(s));
}

static void put_escaped(line *l, const char *text, size_t n)
{
    const unsigned char *s = (const unsigned char *)text;
    char code[8];
    for (size_t i = 0, step; i < n; i += step) {
        step = 1;
        if (s[i] == '"' || s[i] == '\\') {
            put(l, (char[]){'\\', (char)s[i]}, 2);
        } else if (s[i] == '\n') {
            put(l, "\\n", 2);
        } else if (s[i] == '\t') {
            put(l, "\\t", 2);
        } else if (s[i] < 0x20 || s[i] == 0x7f) {
            snprintf(code, sizeof code, "\\u%04x", s[i]);
            puts_to(l, code);
        } else if ((step = slu_text_utf8(s + i, n - i))) {
            put(l, text + i, step);
        } else {
            step = 1;
            put(l, "\\ufffd", 6); /* collectors refuse whole lines for one bad byte */
        }
    }
}

static bool plain(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] <= ' ' || s[i] == '=' || s[i] == '"' || s[i] == '\\' ||
            (unsigned char)s[i] >= 0x7f)
            return false;
    return n > 0;
}

static void put_text(line *l, const char *s)
{
    char masked[VALUE_BYTES + 8]; /* longer than what is shown, so that the cut stays where it was */
    if (!s) {
        puts_to(l, l->json ? "null" : "-");
        return;
    }
    if (slu_secret_known())
        s = slu_secret_mask(s, masked, sizeof masked);
    size_t n = strnlen(s, VALUE_BYTES + 1);
    bool cut = n > VALUE_BYTES;
    if (cut)
        for (n = VALUE_BYTES; n && ((unsigned char)s[n] & 0xc0) == 0x80; n--) /* not inside a character */
            ;
    if (!l->json && !cut && plain(s, n)) {
        put(l, s, n);
        return;
    }
    puts_to(l, "\"");
    put_escaped(l, s, n);
    puts_to(l, cut ? "...\"" : "\"");
}

static void put_key(line *l, const char *key)
{
    if (!l->json) {
        if (l->len)
            puts_to(l, " ");
        puts_to(l, key);
        puts_to(l, "=");
        return;
    }
    puts_to(l, l->len ? ",\"" : "{\"");
    put_escaped(l, key, strlen(key));
    puts_to(l, "\":");
}

static void put_number(line *l, double v)
{
    char text[32];
    if (!isfinite(v)) { /* not a JSON number */
        put_text(l, isnan(v) ? "nan" : v > 0 ? "inf" : "-inf");
        return;
    }
    snprintf(text, sizeof text, "%.6g", v);
    puts_to(l, text);
}

static void put_kv(line *l, const slu_kv *kv)
{
    char text[32];
    put_key(l, kv->key);
    switch (kv->type) {
    case SLU_KV_NONE:
        break;
    case SLU_KV_STR:
        put_text(l, kv->v.s);
        break;
    case SLU_KV_I64:
        snprintf(text, sizeof text, "%" PRId64, kv->v.i);
        puts_to(l, text);
        break;
    case SLU_KV_U64:
        snprintf(text, sizeof text, "%" PRIu64, kv->v.u);
        puts_to(l, text);
        break;
    case SLU_KV_F64:
        put_number(l, kv->v.f);
        break;
    case SLU_KV_BOOL:
        puts_to(l, kv->v.b ? "true" : "false");
        break;
    }
}

void slu_log_write(slu_log_level level, const char *component, const char *msg, const slu_kv *kv)
{
    static const char *const levels[] = {"debug", "info", "warn", "error"};
    if ((int)level < atomic_load_explicit(&threshold, memory_order_relaxed))
        return;
    const slu_clock *clock = atomic_load(&chosen_clock);
    uint64_t held = 0;
    if (!admit(component, msg, slu_mono_us(clock), &held))
        return;

    char ts[40];
    line l;
    l.len = 0;
    l.room = sizeof l.text - TAIL_BYTES;
    l.full = false;
    l.json = atomic_load(&chosen_format) == SLU_LOGJSON;
    slu_format_time(slu_wall_us(clock), ts, sizeof ts);
    put_kv(&l, &SLU_STR("ts", ts));
    put_kv(&l, &SLU_STR("level", levels[level]));
    put_kv(&l, &SLU_STR("component", component));
    put_kv(&l, &SLU_STR("msg", msg));
    bool truncated = false;
    for (; kv->type != SLU_KV_NONE; kv++) {
        size_t before = l.len;
        put_kv(&l, kv);
        if (l.full) { /* a pair is whole or absent, so the line stays readable for machines */
            l.len = before;
            l.full = false;
            truncated = true;
        }
    }
    l.room = sizeof l.text;
    if (truncated)
        put_kv(&l, &SLU_BOOL("truncated", true));
    if (held)
        put_kv(&l, &SLU_U64("repeated", held));
    puts_to(&l, l.json ? "}\n" : "\n");
    /* A log that cannot be written must not stop the work, so the result is not looked at. */
    ssize_t ignored = write(atomic_load(&target), l.text, l.len);
    (void)ignored;
}
