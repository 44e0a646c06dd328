#include "base/clock.h"
#include "base/error.h"
#include <errno.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * SLU_SECOND_US + t.tv_nsec / 1000;
}

static int64_t system_wall(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_REALTIME);
}

static int64_t system_mono(void *ctx)
{
    (void)ctx;
    return read_clock(CLOCK_MONOTONIC);
}

const slu_clock slu_system_clock = {system_wall, system_mono, NULL};

/* Exactly |n| digits at *|s|, which moves past them. */
static bool take_digits(const char **s, int n, int *out)
{
    int v = 0;
    for (int i = 0; i < n; i++) {
        char c = (*s)[i];
        if (c < '0' || c > '9')
            return false;
        v = v * 10 + (c - '0');
    }
    *s += n;
    *out = v;
    return true;
}

/* ".123456" at *|s| in microseconds; digits beyond the sixth are dropped. Leaves *|s| alone when there is no
 * dot. */
static bool take_fraction(const char **s, int64_t *us)
{
    *us = 0;
    if (**s != '.')
        return true;
    const char *p = *s + 1;
    if (*p < '0' || *p > '9')
        return false;
    int64_t unit = SLU_SECOND_US / 10;
    for (; *p >= '0' && *p <= '9'; p++, unit /= 10)
        *us += unit * (*p - '0');
    *s = p;
    return true;
}

static bool leap(int y)
{
    return (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;
}

static int parse_iso(const char *s, int64_t *us)
{
    static const int days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    struct tm t = {0};
    int year, month, day, hour = 0, minute = 0, second = 0;
    int64_t fraction = 0;
    if (!take_digits(&s, 4, &year) || *s++ != '-' || !take_digits(&s, 2, &month) || *s++ != '-' ||
        !take_digits(&s, 2, &day))
        return SLU_EINVAL;
    if (*s == 'T' || *s == ' ') {
        s++;
        if (!take_digits(&s, 2, &hour) || *s++ != ':' || !take_digits(&s, 2, &minute))
            return SLU_EINVAL;
        if (*s == ':') {
            s++;
            if (!take_digits(&s, 2, &second) || !take_fraction(&s, &fraction))
                return SLU_EINVAL;
        }
        if (*s == 'Z')
            s++;
    }
    if (*s || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 59)
        return SLU_EINVAL;
    if (day > days[month - 1] + (month == 2 && leap(year)))
        return SLU_EINVAL;
    t.tm_year = year - 1900;
    t.tm_mon = month - 1;
    t.tm_mday = day;
    t.tm_hour = hour;
    t.tm_min = minute;
    t.tm_sec = second;
    *us = (int64_t)timegm(&t) * SLU_SECOND_US + fraction;
    return 0;
}

int slu_parse_time(const char *text, int64_t *us)
{
    size_t digits = strspn(text, "0123456789");
    if (digits == 4 && text[4] == '-')
        return parse_iso(text, us);
    if (!digits || digits > 18)
        return SLU_EINVAL;
    int64_t v = strtoll(text, NULL, 10), fraction;
    const char *rest = text + digits;
    if (v < 100000000000LL) { /* seconds up to the year 5138 */
        if (!take_fraction(&rest, &fraction) || *rest)
            return SLU_EINVAL;
        *us = v * SLU_SECOND_US + fraction;
        return 0;
    }
    /* Between the two would be milliseconds of our days, or microseconds of early 1973: better refused than
     * guessed. */
    if (v < 100000000000000LL || *rest)
        return SLU_EINVAL;
    *us = v;
    return 0;
}

char *slu_format_time(int64_t us, char *out, size_t size)
{
    int64_t seconds = us / SLU_SECOND_US, rest = us % SLU_SECOND_US;
    if (rest < 0) {
        rest += SLU_SECOND_US;
        seconds--;
    }
    time_t when = (time_t)seconds;
    struct tm t;
    if (!gmtime_r(&when, &t)) {
        snprintf(out, size, "%" PRId64 "us", us);
        return out;
    }
    snprintf(out, size, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
             t.tm_hour, t.tm_min, t.tm_sec, (int)(rest / 1000));
    return out;
}

typedef struct unit {
    const char *name;
    uint64_t size;
} unit;

/* Largest first, which is the order in which the printers try them. */
static const unit durations[] = {{"d", 86400000000ULL},
                                 {"h", 3600000000ULL},
                                 {"m", 60000000ULL},
                                 {"s", 1000000ULL},
                                 {"ms", 1000ULL},
                                 {"us", 1},
                                 {0}};
static const unit sizes[] = {{"TiB", 1ULL << 40},
                             {"GiB", 1ULL << 30},
                             {"MiB", 1ULL << 20},
                             {"KiB", 1ULL << 10},
                             {"B", 1},
                             {"", 1},
                             {0}};

/* "<digits><unit>" times the unit's size, not above |max|. A bare 0 needs no unit. */
static int parse_quantity(const char *text, const unit *units, uint64_t max, uint64_t *out)
{
    size_t digits = strspn(text, "0123456789");
    if (!digits || digits > 19)
        return SLU_EINVAL;
    errno = 0;
    uint64_t v = strtoull(text, NULL, 10);
    if (errno)
        return SLU_EINVAL;
    if (!text[digits] && !v) {
        *out = 0;
        return 0;
    }
    for (const unit *u = units; u->name; u++) {
        if (strcmp(text + digits, u->name))
            continue;
        if (v > max / u->size)
            return SLU_EINVAL;
        *out = v * u->size;
        return 0;
    }
    return SLU_EINVAL;
}

static void format_quantity(uint64_t v, const unit *units, const char *sign, char *out, size_t size)
{
    const unit *u = units;
    while (v % u->size)
        u++;
    snprintf(out, size, "%s%" PRIu64 "%s", sign, v / u->size, u->name);
}

int slu_parse_duration(const char *text, int64_t *us)
{
    uint64_t v;
    int rc = parse_quantity(text, durations, INT64_MAX, &v);
    if (!rc)
        *us = (int64_t)v;
    return rc;
}

char *slu_format_duration(int64_t us, char *out, size_t size)
{
    if (!us)
        snprintf(out, size, "0s");
    else
        format_quantity(us < 0 ? -(uint64_t)us : (uint64_t)us, durations, us < 0 ? "-" : "", out, size);
    return out;
}

int slu_parse_size(const char *text, uint64_t *bytes)
{
    return parse_quantity(text, sizes, UINT64_MAX, bytes);
}

char *slu_format_size(uint64_t bytes, char *out, size_t size)
{
    if (!bytes || bytes % 1024)
        snprintf(out, size, "%" PRIu64, bytes);
    else
        format_quantity(bytes, sizes, "", out, size);
    return out;
}
