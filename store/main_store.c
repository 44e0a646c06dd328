/* sluice-store: looks into a store, also while a trainer or scorer has it open; backups
 * (store/backup_tool.c). */
#include "base/clock.h"
#include "base/digest.h"
#include "base/text.h"
#include "store/backup_tool.h"
#include "store/row_expiry.h"
#include "store/row_sum.h"
#include "store/row_value.h"
#include "store/state.h"
#include <ctype.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char HELP[] =
    "sluice-store " SLU_VERSION
    ": what is in a store of Sluice, also beside a running trainer; backups and what proves them.\n"
    "\n"
    "  sluice-store info   --store DIR [--json]   format, version, schema; entries, bytes and digest of each "
    "family\n"
    "  sluice-store dump   --store DIR [--family NAME] [--limit N] [--full] [--json]   the entries, in key "
    "order\n"
    "  sluice-store digest --store DIR [--family NAME]   the model digest, as sluice-replay prints it, over "
    "all that decides\n"
    "                                             what is learned: meta, rows, dense, join, timers (or one "
    "family); names\n"
    "                                             that begin with ~ (versions, wall times) are left out\n"
    "  sluice-store sum    --store DIR            what the served model adds up to: equal for a trainer and "
    "the "
    "scorers that\n"
    "                                             have its version, whatever the order in their stores\n"
    "\n"
    "  --store DIR    the directory that the configuration calls store.path\n"
    "  --family NAME  meta | rows | dense | join | timers | outbox | order | expiry; default: all\n"
    "  --limit N      at most N entries of each family; default: 20, 0: no limit\n"
    "  --full         whole values instead of their first numbers or bytes\n"
    "  --json         one JSON object per entry and line\n"
    "\n"
    "Exit status: 0 done, 1 the store cannot be read, 2 wrong usage.\n"
    "Example: sluice-store dump --store /var/lib/sluice/trainer --family rows --limit 5\n";

enum { SHOWN_FLOATS = 6, SHOWN_BYTES = 32 };

typedef struct arguments {
    const char *store;
    int family; /* -1: all */
    uint64_t limit;
    bool json, full;
} arguments;

static void print_quoted(const void *p, size_t n)
{
    const unsigned char *s = p;
    putchar('"');
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '"' || s[i] == '\\')
            printf("\\%c", s[i]);
        else if (s[i] < 0x20 || s[i] >= 0x7f)
            printf("\\u%04x", s[i]);
        else
            putchar(s[i]);
    }
    putchar('"');
}

static void print_hex(const void *p, size_t n, size_t most)
{
    for (size_t i = 0; i < n && i < most; i++)
        printf("%02x", ((const uint8_t *)p)[i]);
    if (n > most)
        printf("...");
}

/* One entry is a list of named fields; this prints them as text or as JSON. */
typedef struct entry {
    const arguments *a;
    bool first;
} entry;

static void field_name(entry *e, const char *name)
{
    if (e->a->json)
        printf("%s\"%s\": ", e->first ? "{" : ", ", name);
    else
        printf("%s%s=", e->first ? "" : " ", name);
    e->first = false;
}

static void field_u64(entry *e, const char *name, uint64_t v)
{
    field_name(e, name);
    printf("%" PRIu64, v);
}

/* Ids and hashes have 64 bits; JSON readers often have 53. */
static void field_id(entry *e, const char *name, uint64_t v)
{
    field_name(e, name);
    printf(e->a->json ? "\"%" PRIu64 "\"" : "%" PRIu64, v);
}

static void field_text(entry *e, const char *name, const void *p, size_t n)
{
    bool plain = !e->a->json && n;
    for (size_t i = 0; i < n && plain; i++)
        plain = ((const uint8_t *)p)[i] > ' ' && ((const uint8_t *)p)[i] < 0x7f;
    field_name(e, name);
    if (plain)
        printf("%.*s", (int)n, (const char *)p);
    else
        print_quoted(p, n);
}

static void field_time(entry *e, const char *name, int64_t us)
{
    char text[64];
    slu_format_time(us, text, sizeof text);
    field_text(e, name, text, strlen(text));
}

static void field_bytes(entry *e, const char *name, const void *p, size_t n)
{
    field_name(e, name);
    if (e->a->json)
        putchar('"');
    print_hex(p, n, e->a->full ? SIZE_MAX : SHOWN_BYTES);
    if (e->a->json)
        putchar('"');
}

/* |p| holds |n| little-endian floats, unaligned. JSON knows no NaN and no infinity: null. */
static void field_floats(entry *e, const char *name, const uint8_t *p, size_t n)
{
    size_t shown = e->a->full || n < SHOWN_FLOATS ? n : SHOWN_FLOATS;
    slu_reader r = slu_reader_of(p, n * sizeof(float));
    field_name(e, name);
    putchar('[');
    for (size_t i = 0; i < shown; i++) {
        float v = slu_get_f32(&r);
        if (e->a->json && !isfinite(v))
            printf("%snull", i ? "," : "");
        else
            printf("%s%.9g", i ? "," : "", (double)v);
    }
    if (shown < n && !e->a->json)
        printf(",...");
    putchar(']');
    if (shown < n && !e->a->json)
        printf("(%zu)", n);
}

/* ---- one printer per family ---- */

typedef void print_fn(entry *e, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len);

static void print_damaged(entry *e, const uint8_t *key, size_t key_len, const uint8_t *value,
                          size_t value_len, const char *why)
{
    field_bytes(e, "key", key, key_len);
    field_bytes(e, "bytes", value, value_len);
    field_text(e, "damaged", why, strlen(why));
}

static bool is_text(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!isprint(p[i]) && p[i] != '\n')
            return false;
    return n > 0;
}

static void print_meta(entry *e, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)
{
    slu_reader r = slu_reader_of(value, value_len);
    field_text(e, "name", key, key_len);
    if (is_text(value, value_len)) {
        field_text(e, "text", value, value_len);
    } else if (value_len == 8) {
        field_id(e, "value", slu_get_u64(&r));
    } else if (value_len == 4) {
        field_u64(e, "value", slu_get_u32(&r));
    } else {
        field_u64(e, "length", value_len);
        field_bytes(e, "bytes", value, value_len);
    }
}

static void print_row(entry *e, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)
{
    uint32_t table;
    uint64_t id;
    slu_row_value row;
    slu_error err = SLU_ERROR_INIT;
    if (slu_row_key_parse(key, key_len, &table, &id, &err) ||
        slu_row_value_parse(value, value_len, &row, &err)) {
        print_damaged(e, key, key_len, value, value_len, err.message);
        return;
    }
    field_u64(e, "table", table);
    field_id(e, "id", id);
    field_u64(e, "count", row.count);
    field_time(e, "last_seen", (int64_t)row.last_seen * SLU_SECOND_US);
    field_u64(e, "admitted", row.admitted);
    if (row.admitted)
        field_floats(e, "floats", row.v, row.floats);
}

static void print_dense(entry *e, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)
{
    const uint8_t *floats;
    size_t n;
    slu_error err = SLU_ERROR_INIT;
    field_text(e, "name", key, key_len);
    if (slu_state_parse_floats(value, value_len, &floats, &n, &err)) {
        field_text(e, "damaged", err.message, strlen(err.message));
        return;
    }
    double sum = 0, squares = 0;
    uint64_t odd = 0;
    slu_reader r = slu_reader_of(floats, n * sizeof(float));
    for (size_t i = 0; i < n; i++) {
        double v = (double)slu_get_f32(&r);
        odd += !isfinite(v);
        sum += isfinite(v) ? v : 0;
        squares += isfinite(v) ? v * v : 0;
    }
    field_u64(e, "length", n);
    field_name(e, "mean");
    printf("%.6g", n ? sum / (double)n : 0);
    field_name(e, "norm");
    printf("%.6g", sqrt(squares));
    field_u64(e, "not_finite", odd);
    field_floats(e, "floats", floats, n);
}

static void print_join(entry *e, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)
{
    field_name(e, "key");
    printf(e->a->json ? "\"" : "");
    print_hex(key, key_len, SIZE_MAX);
    printf(e->a->json ? "\"" : "");
    field_u64(e, "length", value_len);
    field_bytes(e, "bytes", value, value_len);
}

static void print_timer(entry *e, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)
{
    slu_reader r = slu_reader_of(key, key_len);
    uint64_t deadline = slu_get_u64_be(&r), sequence = slu_get_u64_be(&r);
    if (r.bad || slu_reader_left(&r)) {
        print_damaged(e, key, key_len, value, value_len, "no timer");
        return;
    }
    field_time(e, "deadline", (int64_t)deadline);
    field_id(e, "sequence", sequence);
    field_name(e, "key");
    printf(e->a->json ? "\"" : "");
    print_hex(value, value_len, SIZE_MAX);
    printf(e->a->json ? "\"" : "");
}

static void print_message(entry *e, const uint8_t *key, size_t key_len, const uint8_t *value,
                          size_t value_len)
{
    slu_reader r = slu_reader_of(key, key_len);
    uint8_t channel = slu_get_u8(&r);
    uint64_t sequence = slu_get_u64_be(&r);
    if (r.bad || slu_reader_left(&r)) {
        print_damaged(e, key, key_len, value, value_len, "no message");
        return;
    }
    const char *name = channel == 1 ? "deltas" : channel == 2 ? "dead-letters" : "unknown";
    field_text(e, "channel", name, strlen(name));
    field_id(e, "sequence", sequence);
    field_u64(e, "length", value_len);
    if (is_text(value, value_len))
        field_text(e, "text", value, e->a->full || value_len < 200 ? value_len : 200);
    else
        field_bytes(e, "bytes", value, value_len);
}

static void print_order(entry *e, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)
{
    slu_reader r = slu_reader_of(key, key_len);
    uint64_t version = slu_get_u64_be(&r);
    if (r.bad || slu_reader_left(&r)) {
        print_damaged(e, key, key_len, value, value_len, "no order");
        return;
    }
    field_id(e, "version", version);
    field_u64(e, "length", value_len);
    field_bytes(e, "bytes", value, value_len);
}

static void print_expiry(entry *e, const uint8_t *key, size_t key_len, const uint8_t *value, size_t value_len)
{
    uint32_t table;
    uint64_t id, seconds;
    if (!slu_row_expiry_parse(key, key_len, &seconds, &table, &id)) {
        print_damaged(e, key, key_len, value, value_len, "no expiry");
        return;
    }
    field_time(e, "deadline", (int64_t)seconds * SLU_SECOND_US);
    field_u64(e, "table", table);
    field_id(e, "id", id);
}

static print_fn *const PRINTERS[SLU_FAMILIES] = {
    [SLU_FAMILY_META] = print_meta,   [SLU_FAMILY_ROWS] = print_row,      [SLU_FAMILY_DENSE] = print_dense,
    [SLU_FAMILY_JOIN] = print_join,   [SLU_FAMILY_TIMERS] = print_timer,  [SLU_FAMILY_OUTBOX] = print_message,
    [SLU_FAMILY_ORDER] = print_order, [SLU_FAMILY_EXPIRY] = print_expiry,
};

/* ---- commands ---- */

typedef struct dumping {
    const arguments *a;
    slu_family family;
    uint64_t n;
} dumping;

static bool dump_one(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    dumping *d = ctx;
    if (d->a->limit && d->n == d->a->limit) {
        if (!d->a->json)
            printf("%-6s ... more (--limit 0 shows all)\n", slu_family_name(d->family));
        return false;
    }
    d->n++;
    entry e = {.a = d->a, .first = true};
    if (d->a->json)
        field_text(&e, "family", slu_family_name(d->family), strlen(slu_family_name(d->family)));
    else
        printf("%-6s ", slu_family_name(d->family));
    PRINTERS[d->family](&e, key, key_len, value, value_len);
    puts(d->a->json ? "}" : "");
    return !ferror(stdout);
}

static int dump(const arguments *a, slu_store *s, slu_error *err)
{
    for (int f = 0; f < SLU_FAMILIES; f++) {
        if (a->family >= 0 && a->family != f)
            continue;
        dumping d = {.a = a, .family = (slu_family)f};
        int rc = slu_store_scan(s, d.family, NULL, 0, NULL, 0, dump_one, &d, err);
        if (rc)
            return rc;
    }
    return 0;
}

static int print_digest(const arguments *a, slu_store *s, slu_error *err)
{
    char hex[33];
    unsigned families = a->family >= 0 ? 1u << a->family : SLU_MODEL_FAMILIES;
    int rc = slu_store_digest(s, families, hex, err);
    if (!rc)
        printf("%s\n", hex);
    return rc;
}

static void print_hash(const char *name, slu_hash128 h)
{
    printf("%-13s%016" PRIx64 "%016" PRIx64 "\n", name, h.hi, h.lo);
}

static int print_sums(const arguments *a, slu_store *s, slu_error *err)
{
    slu_store_sums sums;
    (void)a;
    int rc = slu_store_sums_of(s, &sums, err);
    if (rc)
        return rc;
    printf("%-13s%s\n%-13s%" PRIu64 "\n%-13s%" PRIu64 "\n", "store of",
           sums.scorer ? "a scorer" : "a trainer", "version", sums.version, "rows", sums.rows);
    print_hash("row sum", sums.row_sum);
    print_hash("dense digest", sums.dense_digest);
    if (sums.recorded && (sums.record.lo != sums.row_sum.lo || sums.record.hi != sums.row_sum.hi))
        return slu_fail(err, SLU_ECORRUPT,
                        "store %s: version %" PRIu64 " was committed with row sum %016" PRIx64 "%016" PRIx64
                        ": rows were lost or changed; restore a backup",
                        slu_store_path(s), sums.version, sums.record.hi, sums.record.lo);
    return 0;
}

typedef struct counting {
    uint64_t entries, bytes;
} counting;

static bool count_one(void *ctx, const void *key, size_t key_len, const void *value, size_t value_len)
{
    (void)key, (void)value;
    counting *c = ctx;
    c->entries++;
    c->bytes += key_len + value_len;
    return true;
}

static int info(const arguments *a, slu_store *s, slu_error *err)
{
    uint64_t version = 0, learned_through = 0;
    const char *schema = slu_store_schema(s);
    slu_digest *d = slu_digest_new();
    char fingerprint[33], model[33], text[64];
    if (!d)
        return slu_fail(err, SLU_ENOMEM, "out of memory");
    slu_digest_add(d, schema, strlen(schema));
    slu_digest_hex(d, fingerprint);
    slu_digest_free(d);
    int rc = slu_state_get_u64(s, "~version", 0, &version, err);
    if (!rc)
        rc = slu_state_get_u64(s, "~learned_through", 0, &learned_through, err);
    if (!rc)
        rc = slu_store_digest(s, SLU_MODEL_FAMILIES, model, err);
    if (rc)
        return rc;
    slu_format_time((int64_t)learned_through, text, sizeof text);
    if (a->json) {
        printf("{\"store\": ");
        print_quoted(slu_store_path(s), strlen(slu_store_path(s)));
        printf(", \"format\": 1, \"version\": %" PRIu64
               ", \"learned_through\": \"%s\", \"disk_bytes\": %" PRIu64
               ", \"schema_digest\": \"%s\", \"model_digest\": \"%s\", \"families\": {",
               version, text, slu_store_disk_bytes(s), fingerprint, model);
    } else {
        printf("store            %s\nformat           1\nversion          %" PRIu64 "\n", slu_store_path(s),
               version);
        printf("learned through  %s\n", learned_through ? text : "-");
        printf("on disk          %" PRIu64 " bytes\n", slu_store_disk_bytes(s));
        printf("schema digest    %s\nmodel digest     %s\n\n%-8s %12s %14s  %s\n", fingerprint, model,
               "family", "entries", "bytes", "digest");
    }
    for (int f = 0; f < SLU_FAMILIES; f++) {
        counting c = {0};
        char hex[33];
        rc = slu_store_scan(s, (slu_family)f, NULL, 0, NULL, 0, count_one, &c, err);
        if (!rc)
            rc = slu_store_digest(s, 1u << f, hex, err);
        if (rc)
            return rc;
        printf(a->json ? "%s\"%s\": {\"entries\": %" PRIu64 ", \"bytes\": %" PRIu64 ", \"digest\": \"%s\"}"
                       : "%s%-8s %12" PRIu64 " %14" PRIu64 "  %s\n",
               a->json && f ? ", " : "", slu_family_name((slu_family)f), c.entries, c.bytes, hex);
    }
    if (a->json)
        puts("}}");
    else
        printf("\nschema:\n%s%s", schema, *schema && schema[strlen(schema) - 1] == '\n' ? "" : "\n");
    return 0;
}

/* ---- command line ---- */

static int parse_family(const char *name)
{
    const char *names[SLU_FAMILIES + 1] = {0};
    for (int f = 0; f < SLU_FAMILIES; f++) {
        names[f] = slu_family_name((slu_family)f);
        if (!strcmp(name, names[f]))
            return f;
    }
    const char *near = slu_text_nearest(name, names);
    fprintf(stderr,
            "sluice-store: unknown family '%s'%s%s; known: meta, rows, dense, join, timers, outbox, "
            "order, expiry\n",
            name, near ? "; did you mean " : "", near ? near : "");
    exit(2);
}

static uint64_t parse_limit(const char *text)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);
    if (*end || !isdigit((unsigned char)*text)) {
        fprintf(stderr, "sluice-store: --limit wants a number, not '%s'\n", text);
        exit(2);
    }
    return n;
}

static void parse_options(int argc, char **argv, arguments *a)
{
    static const struct option options[] = {
        {"store", required_argument, NULL, 's'}, {"family", required_argument, NULL, 'f'},
        {"limit", required_argument, NULL, 'l'}, {"full", no_argument, NULL, 'u'},
        {"json", no_argument, NULL, 'j'},        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},     {NULL, 0, NULL, 0},
    };
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (c) {
        case 's':
            a->store = optarg;
            break;
        case 'f':
            a->family = parse_family(optarg);
            break;
        case 'l':
            a->limit = parse_limit(optarg);
            break;
        case 'u':
            a->full = true;
            break;
        case 'j':
            a->json = true;
            break;
        case 'h':
            fputs(HELP, stdout);
            printf("\nCopies:\n%s", slu_backup_tool_help);
            exit(0);
        case 'v':
            puts("sluice-store " SLU_VERSION);
            exit(0);
        default:
            fprintf(stderr, "Try sluice-store --help.\n");
            exit(2);
        }
    }
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        int (*run)(const arguments *a, slu_store *s, slu_error *err);
    } commands[] = {{"info", info}, {"dump", dump}, {"digest", print_digest}, {"sum", print_sums}};
    arguments a = {.family = -1, .limit = 20};
    int status;
    if (slu_backup_tool(argc, argv, &status))
        return status;
    parse_options(argc, argv, &a);
    int (*run)(const arguments *a, slu_store *s, slu_error *err) = NULL;
    for (size_t i = 0; i < sizeof commands / sizeof *commands && optind == argc - 1; i++)
        if (!strcmp(argv[optind], commands[i].name))
            run = commands[i].run;
    if (!run || !a.store) {
        fprintf(stderr, "sluice-store: %s. Try sluice-store --help.\n",
                run ? "--store DIR is missing"
                    : "wants one command: info, dump, digest, sum, backup, verify, restore, hold or release");
        return 2;
    }
    slu_error err = SLU_ERROR_INIT;
    slu_store *s;
    slu_store_config config = {.path = a.store, .block_cache_bytes = 32 << 20, .read_only = true};
    int rc = slu_store_open(&config, &s, &err);
    if (!rc)
        rc = run(&a, s, &err);
    slu_store_close(s);
    if (rc)
        fprintf(stderr, "sluice-store: %s\n", err.message);
    if (fflush(stdout) || ferror(stdout))
        return 1;
    return rc != 0;
}
