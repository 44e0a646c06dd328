/* docs/operations.md is written by hand; this test keeps it complete: each metric that the sources register
 * has a row in it and each row a metric; likewise the reasons of dead letters, and the metrics that deploy/
 * asks for. */
#include "feature/event.h"
#include "tests/suite.h"
#include <ctype.h>
#include <glob.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define DOC   "docs/operations.md"
#define NAMES 256

typedef struct names {
    char name[NAMES][64];
    size_t n;
} names;

static bool has(const names *set, const char *name)
{
    for (size_t i = 0; i < set->n; i++)
        if (!strcmp(set->name[i], name))
            return true;
    return false;
}

static void add(names *set, const char *at, size_t len)
{
    ck_assert_uint_lt(set->n, NAMES);
    ck_assert_uint_lt(len, sizeof set->name[0]);
    snprintf(set->name[set->n], sizeof set->name[0], "%.*s", (int)len, at);
    if (!has(set, set->name[set->n]))
        set->n++;
}

static char *read_file(const char *path)
{
    FILE *in = fopen(path, "r");
    ck_assert_msg(in != NULL, "cannot open %s; run this from the top folder", path);
    ck_assert_int_eq(fseek(in, 0, SEEK_END), 0);
    long size = ftell(in);
    rewind(in);
    char *text = calloc(1, (size_t)size + 1);
    ck_assert_ptr_nonnull(text);
    ck_assert_uint_eq(fread(text, 1, (size_t)size, in), (size_t)size);
    fclose(in);
    return text;
}

static size_t word(const char *p)
{
    size_t n = 0;
    while (islower((unsigned char)p[n]) || isdigit((unsigned char)p[n]) || p[n] == '_')
        n++;
    return n;
}

/* The first argument of each call of |function|. A name that is not a literal would escape, so it is refused
 * where it is not the definition or declaration itself. */
static void calls_of(const char *path, const char *text, const char *function, names *out)
{
    size_t len = strlen(function);
    for (const char *p = text; (p = strstr(p, function)) != NULL; p += len) {
        const char *q = p + len;
        if (*q++ != '(')
            continue;
        q += strspn(q, " \n");
        if (*q == '"')
            add(out, q + 1, word(q + 1));
        else
            ck_assert_msg(strstr(path, "base/metrics."), "%s: %s() with a name that is not a literal", path,
                          function);
    }
}

static void collect_sources(names *out)
{
    static const char *const rooms[] = {"base",    "feature", "model",  "store",
                                        "trainer", "serving", "replay", "sim"};
    for (size_t r = 0; r < sizeof rooms / sizeof *rooms; r++) {
        char pattern[64];
        snprintf(pattern, sizeof pattern, "%s/*.c", rooms[r]);
        glob_t found;
        ck_assert_msg(glob(pattern, 0, NULL, &found) == 0, "no %s; run this from the top folder", pattern);
        for (size_t i = 0; i < found.gl_pathc; i++) {
            char *text = read_file(found.gl_pathv[i]);
            calls_of(found.gl_pathv[i], text, "slu_counter", out);
            calls_of(found.gl_pathv[i], text, "slu_gauge", out);
            calls_of(found.gl_pathv[i], text, "slu_histogram", out);
            free(text);
        }
        globfree(&found);
    }
}

static bool is_metric(const char *p, size_t len)
{
    return (len > 7 && !strncmp(p, "sluice_", 7)) || (len > 8 && !strncmp(p, "process_", 8));
}

/* Names in the first column of the tables below headings that begin with |heading|. */
static void rows_of(const char *doc, const char *heading, names *out)
{
    bool inside = false;
    for (const char *p = doc; *p;) {
        if (!strncmp(p, "## ", 3))
            inside = !strncmp(p + 3, heading, strlen(heading));
        else if (inside && !strncmp(p, "| `", 3))
            add(out, p + 3, word(p + 3));
        p += strcspn(p, "\n");
        p += *p == '\n';
    }
}

static void same(const names *a, const names *b, const char *what)
{
    for (size_t i = 0; i < a->n; i++)
        ck_assert_msg(has(b, a->name[i]), "%s: %s", what, a->name[i]);
}

START_TEST(test_metrics_are_documented)
{
    static names code, doc;
    char *text = read_file(DOC);
    collect_sources(&code);
    rows_of(text, "Metrics of", &doc);
    ck_assert_uint_gt(code.n, 20);
    same(&code, &doc, "registered in the sources, but without a row in " DOC);
    same(&doc, &code, "has a row in " DOC ", but nothing registers it");
    free(text);
}
END_TEST

START_TEST(test_dead_letters_are_documented)
{
    static names code, doc;
    char *text = read_file(DOC);
    for (int i = SLU_DEAD_NONE + 1; i < SLU_DEAD_REASONS; i++) {
        const char *name = slu_dead_reason_name((slu_dead_reason)i);
        add(&code, name, strlen(name));
    }
    rows_of(text, "Dead letters", &doc);
    same(&code, &doc, "a reason of dead letters without a row in " DOC);
    same(&doc, &code, "has a row in " DOC ", but is no reason of dead letters");
    free(text);
}
END_TEST

static void check_asked(const char *path, const names *code)
{
    static const char *const parts[] = {"_bucket", "_count", "_sum"};
    char *text = read_file(path);
    size_t seen = 0;
    for (const char *p = text; *p;) {
        size_t len = word(p);
        if (is_metric(p, len)) {
            char name[64];
            snprintf(name, sizeof name, "%.*s", (int)len, p);
            for (size_t i = 0; i < sizeof parts / sizeof *parts && !has(code, name); i++) {
                size_t n = strlen(name), m = strlen(parts[i]);
                if (n > m && !strcmp(name + n - m, parts[i]))
                    name[n - m] = 0;
            }
            ck_assert_msg(has(code, name), "%s asks for %s, which nothing registers", path, name);
            seen++;
        }
        p += len ? len : 1;
    }
    ck_assert_uint_gt(seen, 5);
    free(text);
}

START_TEST(test_alerts_and_dashboard_ask_for_what_is_there)
{
    static names code;
    collect_sources(&code);
    check_asked("deploy/alerts.yaml", &code);
    check_asked("deploy/dashboard.json", &code);
}
END_TEST

/* Whoever is woken is told what to do, and every metric that wakes somebody has a row in the manual. */
START_TEST(test_alerts_say_what_to_do)
{
    static names doc;
    char *text = read_file("deploy/alerts.yaml"), *manual = read_file(DOC);
    rows_of(manual, "Metrics of", &doc);
    check_asked("deploy/alerts.yaml", &doc);
    static const char *const parts[] = {"expr: ", "severity: ", "summary: \"", "description: \""};
    int alerts = 0;
    for (char *p = strstr(text, "- alert: "), *next; p; p = next, alerts++) {
        next = strstr(p + 1, "- alert: ");
        if (next)
            next[-1] = 0;
        for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
            const char *part = strstr(p, parts[i]);
            ck_assert_msg(part && strcspn(part + strlen(parts[i]), "\"\n") > 1, "%.*s has no %s",
                          (int)strcspn(p, "\n"), p, parts[i]);
        }
    }
    ck_assert_int_gt(alerts, 20);
    free(text);
    free(manual);
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {test_metrics_are_documented, test_dead_letters_are_documented,
                                  test_alerts_and_dashboard_ask_for_what_is_there, test_alerts_say_what_to_do,
                                  NULL};
    return run_suite("operations_doc", tests);
}
