#include "base/text.h"
#include <string.h>

#define LONGEST 63

static size_t min2(size_t a, size_t b)
{
    return a < b ? a : b;
}

size_t slu_text_distance(const char *a, const char *b)
{
    size_t n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST)
        return (size_t)LONGEST * 2;
    /* Rows i-2, i-1 and i of the usual table (optimal string alignment). */
    size_t rows[3][LONGEST + 1], *before = rows[0], *last = rows[1], *now = rows[2];
    for (size_t j = 0; j <= m; j++)
        last[j] = j;
    for (size_t i = 1; i <= n; i++) {
        now[0] = i;
        for (size_t j = 1; j <= m; j++) {
            now[j] = min2(min2(last[j], now[j - 1]) + 1, last[j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
                now[j] = min2(now[j], before[j - 2] + 1);
        }
        size_t *spare = before;
        before = last;
        last = now;
        now = spare;
    }
    return last[m];
}

const char *slu_text_nearest(const char *word, const char *const *names)
{
    const char *best = NULL;
    /* A third of the letters may be wrong; more is a guess that misleads. */
    size_t best_distance = strlen(word) / 3 + 2;
    for (; *names; names++) {
        size_t d = slu_text_distance(word, *names);
        if (d < best_distance && d < strlen(*names)) {
            best = *names;
            best_distance = d;
        }
    }
    return best;
}

size_t slu_text_utf8(const unsigned char *s, size_t left)
{
    size_t n = !left         ? 0
               : s[0] < 0x80 ? 1
               : s[0] < 0xc2 ? 0
               : s[0] < 0xe0 ? 2
               : s[0] < 0xf0 ? 3
               : s[0] < 0xf5 ? 4
                             : 0;
    if (!n || n > left)
        return 0;
    for (size_t i = 1; i < n; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) || (s[0] == 0xf0 && s[1] < 0x90) ||
        (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return n;
}

bool slu_text_is_line(const char *s)
{
    for (size_t n, left = strlen(s); left; s += n, left -= n) {
        n = slu_text_utf8((const unsigned char *)s, left);
        if (!n || ((unsigned char)*s < 0x20 && *s != '\t') || *s == 0x7f)
            return false;
    }
    return true;
}
