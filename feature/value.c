#include "feature/value.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#define XXH_INLINE_ALL
#include "feature/schema.h"
#include <xxhash.h>

/* Keep the ids of missing values and of buckets apart from those of values: the seed of their hash is moved.
 */
#define MISSING_DOMAIN 0x6d697373696e6721ULL
#define BUCKET_DOMAIN  0x6275636b65742121ULL

static slu_span integer_text(int64_t x, char *scratch)
{
    char *end = scratch + SLU_VALUE_SCRATCH;
    char *p = end;
    uint64_t u = x < 0 ? 0 - (uint64_t)x : (uint64_t)x;
    do {
        *--p = (char)('0' + u % 10);
        u /= 10;
    } while (u);
    if (x < 0)
        *--p = '-';
    return (slu_span){p, (size_t)(end - p)};
}

static slu_span number_text(double x, char *scratch)
{
    if (!isfinite(x))
        return (slu_span){scratch, 0};
    if (x >= -0x1p63 && x < 0x1p63 && x == trunc(x))
        return integer_text((int64_t)x, scratch);
    char text[SLU_VALUE_SCRATCH];
    int n = 0;
    for (int digits = 15; digits <= 17; digits++) {
        n = snprintf(text, sizeof text, "%.*g", digits, x);
        if (strtod(text, NULL) == x)
            break;
    }
    memcpy(scratch, text, (size_t)n);
    return (slu_span){scratch, (size_t)n};
}

slu_span slu_value_text(const slu_value *v, char *scratch)
{
    switch (v->kind) {
    case SLU_VALUE_INTEGER:
        return integer_text(v->v.integer, scratch);
    case SLU_VALUE_NUMBER:
        return number_text(v->v.number, scratch);
    default:
        return v->v.text;
    }
}

static bool digit(char c)
{
    return c >= '0' && c <= '9';
}

/* A decimal number as it is read: its digits as far as 64 bits hold them, and the power of ten that scales
 * them. */
typedef struct decimal {
    uint64_t mantissa;
    int exponent;
    bool negative, exact; /* exact: no digit was dropped */
} decimal;

static size_t scan_digits(const char *p, size_t n, size_t i, decimal *d, int scale)
{
    for (; i < n && digit(p[i]); i++) {
        if (d->mantissa < 100000000000000000ULL) {
            d->mantissa = d->mantissa * 10 + (uint64_t)(p[i] - '0');
            d->exponent += scale;
        } else {
            d->exact = false;
        }
    }
    return i;
}

/* Checks the grammar [+-] digits [. digits] [e [+-] digits], with a digit before or after the point. */
static bool scan_decimal(const char *p, size_t n, decimal *d)
{
    *d = (decimal){.exact = true};
    size_t i = 0;
    if (i < n && (p[i] == '+' || p[i] == '-'))
        d->negative = p[i++] == '-';
    size_t first = i;
    i = scan_digits(p, n, i, d, 0);
    size_t seen = i - first;
    if (i < n && p[i] == '.') {
        size_t point = ++i;
        i = scan_digits(p, n, i, d, -1);
        seen += i - point;
    }
    if (!seen)
        return false;
    if (i < n && (p[i] == 'e' || p[i] == 'E')) {
        i++;
        bool down = i < n && p[i] == '-';
        if (i < n && (p[i] == '+' || p[i] == '-'))
            i++;
        size_t start = i;
        int exponent = 0;
        for (; i < n && digit(p[i]); i++)
            exponent = exponent < 10000 ? exponent * 10 + (p[i] - '0') : exponent;
        if (i == start)
            return false;
        d->exponent += down ? -exponent : exponent;
    }
    return i == n;
}

bool slu_number_parse(const char *p, size_t n, double *x)
{
    static const double tens[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                  1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
    char text[128];
    decimal d;
    if (n >= sizeof text || !scan_decimal(p, n, &d))
        return false;
    if (d.exact && d.mantissa <= 1ULL << 53 && d.exponent >= -22 && d.exponent <= 22) {
        /* Both operands are exact doubles, so the one rounding of this operation gives the nearest double. */
        double m = (double)d.mantissa;
        m = d.exponent < 0 ? m / tens[-d.exponent] : m * tens[d.exponent];
        *x = d.negative ? -m : m;
        return true;
    }
    memcpy(text, p, n);
    text[n] = 0;
    *x = strtod(text, NULL);
    return isfinite(*x);
}

bool slu_value_number(const slu_value *v, double *x)
{
    switch (v->kind) {
    case SLU_VALUE_INTEGER:
        *x = (double)v->v.integer;
        return true;
    case SLU_VALUE_NUMBER:
        *x = v->v.number;
        return isfinite(*x);
    default:
        return slu_number_parse(v->v.text.p, v->v.text.n, x);
    }
}

static uint64_t never_zero(uint64_t id)
{
    return id ? id : 1;
}

uint64_t slu_value_id(const slu_value *v, uint64_t seed)
{
    char scratch[SLU_VALUE_SCRATCH];
    slu_span text = slu_value_text(v, scratch);
    return text.n ? never_zero(XXH3_64bits_withSeed(text.p, text.n, seed)) : 0;
}

uint64_t slu_missing_id(uint64_t seed)
{
    return never_zero(XXH3_64bits_withSeed("", 0, seed ^ MISSING_DOMAIN));
}

uint64_t slu_bucket_id(uint32_t index, uint64_t seed)
{
    uint8_t bytes[4] = {(uint8_t)index, (uint8_t)(index >> 8), (uint8_t)(index >> 16),
                        (uint8_t)(index >> 24)};
    return never_zero(XXH3_64bits_withSeed(bytes, sizeof bytes, seed ^ BUCKET_DOMAIN));
}

static uint32_t count_parts(const char *p, size_t n)
{
    uint32_t parts = 0;
    for (size_t i = 0; i < n; i++)
        parts += p[i] != '|' && (i + 1 == n || p[i + 1] == '|');
    return parts;
}

static void split_parts(const char *p, size_t n, slu_value *v)
{
    size_t start = 0;
    for (size_t i = 0; i <= n; i++) {
        if (i < n && p[i] != '|')
            continue;
        if (i > start)
            *v++ = slu_text_value(p + start, i - start);
        start = i + 1;
    }
}

int slu_field_from_text(const slu_schema *s, uint32_t field, const char *p, size_t n, slu_arena *arena,
                        slu_values *fields, slu_dead_reason *why, slu_error *err)
{
    const char *name = slu_schema_field_name(s, field);
    fields[field] = (slu_values){NULL, 0};
    *why = SLU_DEAD_NONE;
    if (!n)
        return 0;
    if (!slu_utf8_valid(p, n)) {
        *why = SLU_DEAD_MALFORMED;
        return slu_fail(err, SLU_EINVAL, "feature '%s' is not valid UTF-8 or holds a NUL byte", name);
    }
    bool several = slu_schema_field_multi(s, field);
    uint32_t count = several ? count_parts(p, n) : 1;
    if (count > SLU_MAX_VALUES) {
        *why = SLU_DEAD_TOO_LARGE;
        return slu_fail(err, SLU_EINVAL, "feature '%s' has %u values, at most %d are allowed", name, count,
                        SLU_MAX_VALUES);
    }
    if (!count)
        return 0;
    slu_value *v = slu_arena_alloc(arena, count * sizeof *v);
    if (!v) {
        *why = SLU_DEAD_TOO_LARGE;
        return slu_fail(err, SLU_EINVAL, "feature '%s': the event needs more memory than its limit", name);
    }
    if (several)
        split_parts(p, n, v);
    else
        *v = slu_text_value(p, n);
    fields[field] = (slu_values){v, count};
    return 0;
}
