#include "base/page.h"
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define WIDTH  150.0
#define HEIGHT 34.0
/* A young curve is not stretched over the whole width. */
#define SHORTEST_POINTS 30u

void slu_history_push(slu_history *h, double v)
{
    h->v[h->next] = (float)v;
    h->next = (h->next + 1) % SLU_HISTORY_POINTS;
    if (h->n < SLU_HISTORY_POINTS)
        h->n++;
}

/* ---- text ---- */

void slu_page_put(slu_buf *out, const char *fmt, ...)
{
    char text[1024];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    slu_put_bytes(out, text, (size_t)n < sizeof text ? (size_t)n : sizeof text - 1);
}

void slu_page_text(slu_buf *out, const char *text)
{
    for (; *text; text++) {
        if (strchr("<>&\"'", *text))
            slu_page_put(out, "&#%d;", *text);
        else
            slu_put_u8(out, (uint8_t)*text);
    }
}

const char *slu_page_count(double v, char *out, size_t size)
{
    char digits[40];
    if (isnan(v)) {
        snprintf(out, size, "-");
        return out;
    }
    if (fabs(v) < 10 && v != floor(v)) {
        snprintf(out, size, "%.1f", v);
        return out;
    }
    int n = snprintf(digits, sizeof digits, "%.0f", fabs(v) < 1e18 ? v : copysign(1e18, v));
    size_t w = 0;
    for (int i = 0; i < n && w + 4 < size; i++) {
        bool first = i == 0 || (i == 1 && digits[0] == '-');
        if (!first && (n - i) % 3 == 0)
            out[w++] = ' ';
        out[w++] = digits[i];
    }
    out[w] = 0;
    return out;
}

const char *slu_page_bytes(double v, char *out, size_t size)
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;
    while (v >= 1024 && u + 1 < sizeof units / sizeof *units) {
        v /= 1024;
        u++;
    }
    snprintf(out, size, u && v < 100 ? "%.1f %s" : "%.0f %s", v, units[u]);
    return out;
}

const char *slu_page_seconds(double v, char *out, size_t size)
{
    if (isnan(v) || v < 0)
        snprintf(out, size, "-");
    else if (v < 1e-3)
        snprintf(out, size, "%.0f us", v * 1e6);
    else if (v < 1)
        snprintf(out, size, v < 0.01 ? "%.1f ms" : "%.0f ms", v * 1e3);
    else if (v < 120)
        snprintf(out, size, "%.1f s", v);
    else if (v < 7200)
        snprintf(out, size, "%.0f min", v / 60);
    else if (v < 172800)
        snprintf(out, size, "%.0f h", v / 3600);
    else
        snprintf(out, size, "%.0f days", v / 86400);
    return out;
}

/* ---- pieces ---- */

void slu_page_verdict(slu_buf *out, const char *problems, const char *good)
{
    slu_page_put(out, "<div class=\"verdict %s\"><b>%s</b>", *problems ? "warn" : "good",
                 *problems ? "Needs a look" : "Healthy");
    if (!*problems) {
        slu_page_put(out, "<span>");
        slu_page_text(out, good);
        slu_page_put(out, "</span>");
    }
    while (*problems) {
        char line[320];
        size_t n = strcspn(problems, "\n");
        snprintf(line, sizeof line, "%.*s", (int)(n < sizeof line ? n : sizeof line - 1), problems);
        slu_page_put(out, "<span>");
        slu_page_text(out, line);
        slu_page_put(out, "</span>");
        problems += n + (problems[n] == '\n');
    }
    slu_page_put(out, "</div>\n");
}

static float point(const slu_history *h, uint32_t i)
{
    return h->v[(h->next + SLU_HISTORY_POINTS - h->n + i) % SLU_HISTORY_POINTS];
}

/* The range that is drawn: never so narrow that noise looks like a mountain. */
static bool range_of(const slu_history *h, double mark, double *low, double *high)
{
    *low = INFINITY;
    *high = -INFINITY;
    for (uint32_t i = 0; i < h->n; i++) {
        float v = point(h, i);
        if (isfinite(v)) {
            *low = fmin(*low, v);
            *high = fmax(*high, v);
        }
    }
    if (!isfinite(*low))
        return false;
    if (!isnan(mark)) {
        *low = fmin(*low, mark - 0.05);
        *high = fmax(*high, mark + 0.05);
    } else {
        *low = fmin(*low, 0);
    }
    if (*high - *low < 1e-9)
        *high = *low + 1;
    return true;
}

static double y_of(double v, double low, double high)
{
    return 1 + (HEIGHT - 2) * (high - v) / (high - low);
}

void slu_page_curve(slu_buf *out, const slu_history *h, double mark)
{
    double low, high;
    if (h->n < 2 || !range_of(h, mark, &low, &high))
        return;
    slu_page_put(out,
                 "<svg class=curve viewBox=\"0 0 %g %g\" preserveAspectRatio=none role=img>"
                 "<title>the last five minutes: %.4g to %.4g</title>",
                 WIDTH, HEIGHT, low, high);
    if (!isnan(mark))
        slu_page_put(out, "<line x1=0 x2=%g y1=%.1f y2=%.1f />", WIDTH, y_of(mark, low, high),
                     y_of(mark, low, high));
    uint32_t span = h->n < SHORTEST_POINTS ? SHORTEST_POINTS : h->n;
    bool open = false;
    for (uint32_t i = 0; i < h->n; i++) {
        float v = point(h, i);
        double x = WIDTH * (span - h->n + i) / (span - 1);
        if (!isfinite(v)) {
            if (open)
                slu_page_put(out, "\"/>");
            open = false;
            continue;
        }
        slu_page_put(out, "%s%.1f,%.1f ", open ? "" : "<polyline points=\"", x, y_of(v, low, high));
        open = true;
    }
    slu_page_put(out, open ? "\"/></svg>" : "</svg>");
}

void slu_page_cards_begin(slu_buf *out, int columns)
{
    slu_page_put(out, "<div class=cards style=\"--n:%d\">\n", columns);
}

void slu_page_card(slu_buf *out, const slu_card *c)
{
    static const char *const tones[] = {"", "good", "warn", "bad"};
    slu_page_put(out, "<div class=\"card %s\"><h3>", tones[c->tone]);
    slu_page_text(out, c->title);
    slu_page_put(out, "</h3><b>");
    slu_page_text(out, c->value);
    slu_page_put(out, "</b><small>");
    slu_page_text(out, c->note ? c->note : "");
    slu_page_put(out, "</small>");
    if (c->history)
        slu_page_curve(out, c->history, c->mark);
    slu_page_put(out, "</div>\n");
}

void slu_page_cards_end(slu_buf *out)
{
    slu_page_put(out, "</div>\n");
}

void slu_page_bar(slu_buf *out, const slu_share *shares, uint32_t n)
{
    double total = 0;
    char text[32];
    for (uint32_t i = 0; i < n; i++)
        total += shares[i].value;
    slu_page_put(out, "<div class=bar>");
    for (uint32_t i = 0; i < n && total > 0; i++)
        if (shares[i].value > 0)
            slu_page_put(out, "<i class=s%u style=\"flex:%.6f\"></i>", i, shares[i].value / total);
    slu_page_put(out, "</div><div class=legend>");
    for (uint32_t i = 0; i < n; i++) {
        slu_page_put(out, "<span><i class=s%u></i>", i);
        slu_page_text(out, shares[i].name);
        slu_page_put(out, " <b>%s</b> %.4g %%</span>", slu_page_count(shares[i].value, text, sizeof text),
                     total > 0 ? 100 * shares[i].value / total : 0.0);
    }
    slu_page_put(out, "</div>\n");
}
