#include "trainer/dead_letter.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void put_text(slu_buf *out, const char *s)
{
    slu_put_bytes(out, s, strlen(s));
}

static void put_number(slu_buf *out, const char *key, int64_t v)
{
    char text[64];
    snprintf(text, sizeof text, ",\"%s\":%" PRId64, key, v);
    put_text(out, text);
}

/* |s| is valid UTF-8; only what JSON forbids inside strings is escaped. */
static void put_string(slu_buf *out, const char *s, size_t n)
{
    slu_put_u8(out, '"');
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];
        char escaped[8];
        if (c == '"' || c == '\\') {
            slu_put_u8(out, '\\');
            slu_put_u8(out, c);
        } else if (c < 0x20) {
            snprintf(escaped, sizeof escaped, "\\u%04x", c);
            put_text(out, escaped);
        } else {
            slu_put_u8(out, c);
        }
    }
    slu_put_u8(out, '"');
}

static void put_member(slu_buf *out, const char *key, const char *s, size_t n)
{
    slu_put_u8(out, ',');
    put_string(out, key, strlen(key));
    slu_put_u8(out, ':');
    put_string(out, s, n);
}

static void put_base64(slu_buf *out, const uint8_t *p, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    slu_put_u8(out, '"');
    for (size_t i = 0; i < n; i += 3) {
        uint32_t v =
            (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
        slu_put_u8(out, (uint8_t)digits[v >> 18 & 63]);
        slu_put_u8(out, (uint8_t)digits[v >> 12 & 63]);
        slu_put_u8(out, (uint8_t)(i + 1 < n ? digits[v >> 6 & 63] : '='));
        slu_put_u8(out, (uint8_t)(i + 2 < n ? digits[v & 63] : '='));
    }
    slu_put_u8(out, '"');
}

/* Bytes of |p| (n) to show as text: what is cut is cut between two characters. */
static size_t text_of(const uint8_t *p, size_t n, size_t shown)
{
    for (int i = 0; i < 3 && shown && shown < n && (p[shown] & 0xc0) == 0x80; i++)
        shown--;
    return shown;
}

static void put_payload(slu_buf *out, const uint8_t *p, size_t n)
{
    size_t shown = n < SLU_DEAD_PAYLOAD_MAX ? n : SLU_DEAD_PAYLOAD_MAX, text = text_of(p, n, shown);
    if (slu_utf8_valid((const char *)p, text)) {
        put_member(out, "payload", (const char *)p, text);
    } else {
        put_text(out, ",\"payload_base64\":");
        put_base64(out, p, shown);
    }
    put_number(out, "bytes", (int64_t)n);
    if (shown < n)
        put_text(out, ",\"truncated\":true");
}

static void begin(slu_buf *out, slu_dead_reason why, const char *message)
{
    put_text(out, "{\"reason\":\"");
    put_text(out, slu_dead_reason_name(why));
    put_text(out, "\"");
    /* Messages may quote what came from outside. */
    if (slu_utf8_valid(message, strlen(message)))
        put_member(out, "message", message, strlen(message));
}

void slu_dead_letter_write(slu_buf *out, slu_dead_reason why, const char *message, const slu_partition *part,
                           const slu_record *r)
{
    begin(out, why, message);
    put_member(out, "topic", part->topic, strlen(part->topic));
    put_number(out, "partition", part->partition);
    put_number(out, "offset", r->offset);
    if (r->arrival_us)
        put_number(out, "arrival_us", r->arrival_us);
    if (r->event) {
        const slu_event *e = r->event;
        put_member(out, "id", e->id.p ? e->id.p : "", e->id.n);
        if (e->kind == SLU_EVENT_STEP)
            put_member(out, "impression_id", e->impression_id.p, e->impression_id.n);
        put_number(out, "time_us", e->time_us);
    } else if (r->bytes) {
        put_payload(out, r->bytes, r->len);
    }
    slu_put_u8(out, '}');
}

void slu_dead_letter_step(slu_buf *out, slu_dead_reason why, const char *message, const char *step,
                          slu_span id, slu_span impression_id, int64_t time_us)
{
    begin(out, why, message);
    put_member(out, "step", step, strlen(step));
    put_member(out, "id", id.p ? id.p : "", id.n);
    put_member(out, "impression_id", impression_id.p, impression_id.n);
    put_number(out, "time_us", time_us);
    slu_put_u8(out, '}');
}
