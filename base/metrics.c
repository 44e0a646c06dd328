/* Metrics of one name form a family; families and their metrics are lists that only grow, so a pointer handed
 * out stays good and updates need no lock. */
#include "base/metrics.h"
#include <assert.h>
#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef enum metric_type { COUNTER, GAUGE, HISTOGRAM } metric_type;
static const char *const type_names[] = {"counter", "gauge", "histogram"};

typedef struct family family;

struct slu_metric {
    slu_metric *next; /* of the family */
    const family *of;
    char *labels;             /* "" for none */
    _Atomic uint64_t value;   /* bits of a double; histogram: the sum */
    int n;                    /* histogram: bounds */
    double *bounds;           /* (n) ascending */
    _Atomic uint64_t *counts; /* (n + 1), the last for what is above all bounds */
};

struct family {
    family *next;
    char *name, *help;
    metric_type type;
    slu_metric *first, **end;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static family *families; /* by name */

static void *must(void *p)
{
    if (!p) {
        fprintf(stderr, "sluice: out of memory (metrics)\n");
        abort();
    }
    return p;
}

static void clash(const char *name, const char *why)
{
    fprintf(stderr, "sluice: metric %s: %s\n", name, why);
    abort();
}

static void check_name(const char *name)
{
    size_t n = strlen(name);
    if (!n || strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_:") != n ||
        (name[0] >= '0' && name[0] <= '9'))
        clash(name, "not a metric name");
}

static family *find_family(const char *name, metric_type type, const char *help)
{
    family **place = &families;
    while (*place && strcmp((*place)->name, name) < 0)
        place = &(*place)->next;
    if (*place && !strcmp((*place)->name, name)) {
        if ((*place)->type != type)
            clash(name, "registered as another type");
        return *place;
    }
    check_name(name);
    family *f = must(calloc(1, sizeof *f));
    f->name = must(strdup(name));
    f->help = must(strdup(help));
    f->type = type;
    f->end = &f->first;
    f->next = *place;
    *place = f;
    return f;
}

static void add_buckets(slu_metric *m, double lo, double factor, int n)
{
    if (n < 1 || !(lo > 0) || !(factor > 1))
        clash(m->of->name, "buckets need lo > 0, factor > 1, n >= 1");
    m->n = n;
    m->bounds = must(calloc((size_t)n, sizeof *m->bounds));
    m->counts = must(calloc((size_t)n + 1, sizeof *m->counts));
    for (int i = 0; i < n; i++, lo *= factor)
        m->bounds[i] = lo;
}

static slu_metric *find_metric(metric_type type, const char *name, const char *labels, const char *help,
                               double lo, double factor, int n)
{
    if (!labels)
        labels = "";
    pthread_mutex_lock(&lock);
    family *f = find_family(name, type, help);
    slu_metric *m = f->first;
    while (m && strcmp(m->labels, labels))
        m = m->next;
    if (m && type == HISTOGRAM && m->n != n)
        clash(name, "registered with other buckets");
    if (!m) {
        m = must(calloc(1, sizeof *m));
        m->of = f;
        m->labels = must(strdup(labels));
        if (type == HISTOGRAM)
            add_buckets(m, lo, factor, n);
        *f->end = m;
        f->end = &m->next;
    }
    pthread_mutex_unlock(&lock);
    return m;
}

slu_metric *slu_counter(const char *name, const char *labels, const char *help)
{
    return find_metric(COUNTER, name, labels, help, 0, 0, 0);
}

slu_metric *slu_gauge(const char *name, const char *labels, const char *help)
{
    return find_metric(GAUGE, name, labels, help, 0, 0, 0);
}

slu_metric *slu_histogram(const char *name, const char *labels, const char *help, double lo, double factor,
                          int n)
{
    return find_metric(HISTOGRAM, name, labels, help, lo, factor, n);
}

static double to_double(uint64_t bits)
{
    double v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

static uint64_t to_bits(double v)
{
    uint64_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static void add_to(_Atomic uint64_t *cell, double v)
{
    uint64_t old = atomic_load_explicit(cell, memory_order_relaxed);
    while (!atomic_compare_exchange_weak_explicit(cell, &old, to_bits(to_double(old) + v),
                                                  memory_order_relaxed, memory_order_relaxed))
        ;
}

void slu_metric_add(slu_metric *m, double v)
{
    assert(m->of->type != HISTOGRAM);
    assert(m->of->type == GAUGE || !(v < 0));
    add_to(&m->value, v);
}

void slu_metric_set(slu_metric *m, double v)
{
    assert(m->of->type != HISTOGRAM);
    atomic_store_explicit(&m->value, to_bits(v), memory_order_relaxed);
}

/* First bound that is >= v, or n. NaN goes above all. */
static int bucket_of(const slu_metric *m, double v)
{
    int lo = 0, hi = m->n;
    while (lo < hi) {
        int mid = (lo + hi) / 2;
        if (v <= m->bounds[mid])
            hi = mid;
        else
            lo = mid + 1;
    }
    return lo;
}

void slu_metric_observe(slu_metric *m, double v)
{
    assert(m->of->type == HISTOGRAM);
    atomic_fetch_add_explicit(&m->counts[bucket_of(m, v)], 1, memory_order_relaxed);
    add_to(&m->value, v);
}

static uint64_t total_of(const slu_metric *m)
{
    uint64_t all = 0;
    for (int i = 0; i <= m->n; i++)
        all += atomic_load_explicit(&m->counts[i], memory_order_relaxed);
    return all;
}

double slu_metric_value(const slu_metric *m)
{
    if (m->of->type == HISTOGRAM)
        return (double)total_of(m);
    return to_double(atomic_load_explicit(&m->value, memory_order_relaxed));
}

double slu_metric_sum(const slu_metric *m)
{
    return to_double(atomic_load_explicit(&m->value, memory_order_relaxed));
}

double slu_metric_quantile(const slu_metric *m, double q)
{
    assert(m->of->type == HISTOGRAM);
    uint64_t all = total_of(m), below = 0;
    if (!all)
        return 0;
    /* The rank is at least 1, so q = 0 means the smallest observation. */
    double rank = fmax(1, ceil(q * (double)all));
    for (int i = 0; i < m->n; i++) {
        below += atomic_load_explicit(&m->counts[i], memory_order_relaxed);
        if ((double)below >= rank)
            return m->bounds[i];
    }
    return INFINITY;
}

static void put_text(slu_buf *out, const char *s)
{
    slu_put_bytes(out, s, strlen(s));
}

/* Help text ends at the line's end: newline and backslash are escaped. */
static void put_help(slu_buf *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '\n')
            put_text(out, "\\n");
        else if (*s == '\\')
            put_text(out, "\\\\");
        else
            slu_put_u8(out, (uint8_t)*s);
    }
}

/* The shortest text that reads back as the same number. */
static void number_text(char *out, size_t size, double v)
{
    if (isnan(v) || isinf(v)) {
        snprintf(out, size, "%s", isnan(v) ? "NaN" : v > 0 ? "+Inf" : "-Inf");
        return;
    }
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(out, size, "%.*g", digits, v);
        if (strtod(out, NULL) == v)
            return;
    }
}

/* One sample line: name, suffix, labels with |extra| added, value. */
static void put_sample(slu_buf *out, const slu_metric *m, const char *suffix, const char *extra,
                       const char *value)
{
    put_text(out, m->of->name);
    put_text(out, suffix);
    if (*m->labels || *extra) {
        put_text(out, "{");
        put_text(out, m->labels);
        if (*m->labels && *extra)
            put_text(out, ",");
        put_text(out, extra);
        put_text(out, "}");
    }
    put_text(out, " ");
    put_text(out, value);
    put_text(out, "\n");
}

static void print_histogram(slu_buf *out, const slu_metric *m)
{
    char le[64], bound[32], value[32];
    uint64_t below = 0;
    for (int i = 0; i <= m->n; i++) {
        below += atomic_load_explicit(&m->counts[i], memory_order_relaxed);
        number_text(bound, sizeof bound, i < m->n ? m->bounds[i] : INFINITY);
        snprintf(le, sizeof le, "le=\"%s\"", bound);
        snprintf(value, sizeof value, "%" PRIu64, below);
        put_sample(out, m, "_bucket", le, value);
    }
    char sum[32];
    number_text(sum, sizeof sum, slu_metric_sum(m));
    put_sample(out, m, "_sum", "", sum);
    put_sample(out, m, "_count", "", value); /* equals the +Inf bucket, even while others observe */
}

void slu_metrics_print(slu_buf *out)
{
    char value[32];
    pthread_mutex_lock(&lock);
    for (const family *f = families; f; f = f->next) {
        put_text(out, "# HELP ");
        put_text(out, f->name);
        put_text(out, " ");
        put_help(out, f->help);
        put_text(out, "\n# TYPE ");
        put_text(out, f->name);
        put_text(out, " ");
        put_text(out, type_names[f->type]);
        put_text(out, "\n");
        for (const slu_metric *m = f->first; m; m = m->next) {
            if (f->type == HISTOGRAM) {
                print_histogram(out, m);
                continue;
            }
            number_text(value, sizeof value, slu_metric_value(m));
            put_sample(out, m, "", "", value);
        }
    }
    pthread_mutex_unlock(&lock);
}

void slu_metrics_each(slu_metric_visit *visit, void *ctx)
{
    pthread_mutex_lock(&lock);
    for (const family *f = families; f; f = f->next)
        for (const slu_metric *m = f->first; m; m = m->next)
            visit(ctx, f->name, type_names[f->type], f->help, m->labels, m);
    pthread_mutex_unlock(&lock);
}
