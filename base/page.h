/* base/page.h - pieces of a daemon's status page: cards with a curve, a bar of shares, a verdict.
 *
 * Everything is appended to a buffer as HTML for the style sheet of base/admin.c: no scripts, no outside
 * resources, colours that follow the reader's light or dark setting. Stateless but for slu_history, whose
 * owner guards it. */
#pragma once
#include "base/bytes.h"
#include <stdint.h>

/* The last five minutes of a number. NaN is a gap in the curve. */
#define SLU_HISTORY_POINTS  150
#define SLU_HISTORY_STEP_US ((int64_t)2000000)
typedef struct slu_history {
    float v[SLU_HISTORY_POINTS];
    uint32_t n, next;
} slu_history;
void slu_history_push(slu_history *h, double v);

typedef enum slu_tone { SLU_TONE_PLAIN, SLU_TONE_GOOD, SLU_TONE_WARN, SLU_TONE_BAD } slu_tone;

void slu_page_put(slu_buf *out, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void slu_page_text(slu_buf *out, const char *text); /* escaped */

/* "12 345 678", "1.2 MiB", "340 ms": for people. |out| has |size| bytes, 24 are enough; returns |out|. */
const char *slu_page_count(double v, char *out, size_t size);
const char *slu_page_bytes(double v, char *out, size_t size);
const char *slu_page_seconds(double v, char *out, size_t size);

/* What is to be said first. |problems| is text, one problem a line; empty: all is well, and |good| says so.
 */
void slu_page_verdict(slu_buf *out, const char *problems, const char *good);

/* Cards stand between begin and end. |note| and |history| may be NULL; |mark| is a value to draw a line at in
 * the curve, NaN none. Texts are escaped. */
typedef struct slu_card {
    const char *title, *value, *note;
    slu_tone tone;
    const slu_history *history;
    double mark;
} slu_card;
void slu_page_cards_begin(slu_buf *out, int columns); /* fewer on a narrow screen */
void slu_page_card(slu_buf *out, const slu_card *card);
void slu_page_cards_end(slu_buf *out);
void slu_page_curve(slu_buf *out, const slu_history *h, double mark);

typedef struct slu_share {
    const char *name;
    double value;
} slu_share;
/* A bar of |n| (at most 4) shares and a legend with their numbers. */
void slu_page_bar(slu_buf *out, const slu_share *shares, uint32_t n);
