#include "base/arena.h"
#include "base/bytes.h"
#include "base/text.h"
#include "feature/schema.h"
#include "feature/value.h"
#include "store/state.h"
#include "trainer/csv.h"
#include "trainer/source.h"
#include "trainer/text_file.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIND_IMPRESSION (-1) /* other kinds are step indexes */
#define KIND_BY_COLUMN  (-2)
#define NO_COLUMN       SIZE_MAX

/* One recorded file and its look-ahead: the record that it gives next. */
typedef struct recorded {
    const slu_file_opts *opts;
    char *path;
    slu_text_file *text;
    slu_csv *csv;
    slu_arena *arena;
    size_t n_columns, id, time, kind, impression; /* CSV: columns */
    size_t *columns;                              /* (fields) CSV: column of each schema field */
    int fixed_kind;
    bool has_impressions;
    int64_t first; /* line to start from */
    bool loaded, ended, told_idle;
    int64_t at_us; /* time of the look-ahead; a dead record has that of the one before it */
    slu_record record;
    slu_event event;
    slu_values *fields; /* (fields) */
    slu_error error;    /* message of a dead record */
} recorded;

typedef struct file_source {
    slu_source base;
    const slu_options *options;
    const slu_schema *schema;
    uint32_t n, taken;  /* taken: the file whose look-ahead was handed out; n: none */
    uint32_t announced; /* partitions told of */
    recorded files[];
} file_source;

/* ---- columns ---------------------------------------------------------------------------------------- */

static size_t find_column(const slu_span *cells, size_t n, const char *name)
{
    size_t len = strlen(name);
    for (size_t i = 0; i < n; i++)
        if (cells[i].n == len && memcmp(cells[i].p, name, len) == 0)
            return i;
    return NO_COLUMN;
}

static int missing_column(const recorded *f, const slu_span *cells, size_t n, const char *name,
                          const char *what, slu_error *err)
{
    slu_buf list = SLU_BUF_INIT;
    for (size_t i = 0; i < n; i++) {
        if (i)
            slu_put_bytes(&list, ", ", 2);
        slu_put_bytes(&list, cells[i].p, cells[i].n);
    }
    slu_put_u8(&list, 0);
    int rc = slu_fail(err, SLU_ECONFIG, "%s has no column '%s' (%s); its columns are: %s", f->path, name,
                      what, (const char *)list.data);
    slu_buf_free(&list);
    return rc;
}

static int need_column(const recorded *f, const slu_span *cells, size_t n, const char *name, const char *what,
                       size_t *column, slu_error *err)
{
    *column = NO_COLUMN;
    if (!name)
        return 0;
    *column = find_column(cells, n, name);
    return *column == NO_COLUMN ? missing_column(f, cells, n, name, what, err) : 0;
}

static int map_features(recorded *f, const slu_schema *schema, const slu_span *cells, size_t n,
                        slu_error *err)
{
    for (uint32_t i = 0; i < slu_schema_fields(schema); i++) {
        int rc =
            need_column(f, cells, n, slu_schema_field_name(schema, i),
                        "a feature reads it; name the column in the feature's 'source'", &f->columns[i], err);
        if (rc)
            return rc;
    }
    return 0;
}

static int read_header(recorded *f, const slu_schema *schema, slu_error *err)
{
    slu_span line;
    int rc = slu_text_file_line(f->text, &line, err);
    if (rc == 0)
        return slu_fail(err, SLU_ECONFIG, "%s is empty; a CSV file begins with a line of column names",
                        f->path);
    if (rc == SLU_ELIMIT)
        return slu_fail(err, SLU_ECONFIG,
                        "%s: the first line is over kafka.max_message_bytes; is it a CSV file?", f->path);
    if (rc < 0)
        return rc;
    if (line.n >= 3 && memcmp(line.p, "\xef\xbb\xbf", 3) == 0) /* byte order mark of spreadsheets */
        line = (slu_span){line.p + 3, line.n - 3};
    slu_error why = SLU_ERROR_INIT;
    slu_csv_begin(f->csv);
    rc = slu_csv_split(f->csv, line, &why);
    if (rc == SLU_ENOMEM)
        return slu_fail(err, rc, "%s: %s", f->path, why.message);
    if (rc != 1)
        return slu_fail(err, SLU_ECONFIG, "%s: the header line is not CSV: %s", f->path,
                        why.code ? why.message : "a quoted name is not closed");
    const slu_span *cells = slu_csv_cells(f->csv, &f->n_columns);
    const slu_file_opts *o = f->opts;
    const struct {
        const char *name, *what;
        size_t *column;
    } wanted[] = {
        {o->id_column, "id_column", &f->id},
        {o->time_column, "time_column", &f->time},
        {o->event ? NULL : o->kind_column, "kind_column", &f->kind},
        {o->impression_column, "impression_column", &f->impression},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        rc = need_column(f, cells, f->n_columns, wanted[i].name, wanted[i].what, wanted[i].column, err);
        if (rc)
            return rc;
    }
    return f->has_impressions ? map_features(f, schema, cells, f->n_columns, err) : 0;
}

static bool skipped(const slu_file_opts *o, slu_span kind)
{
    for (uint32_t i = 0; i < o->n_skip; i++)
        if (strlen(o->skip[i]) == kind.n && memcmp(o->skip[i], kind.p, kind.n) == 0)
            return true;
    return false;
}

/* What the file may hold, and that the config says enough about it. */
static int plan_kinds(recorded *f, const slu_schema *schema, slu_error *err)
{
    const slu_file_opts *o = f->opts;
    f->fixed_kind = KIND_BY_COLUMN;
    if (o->event) {
        f->fixed_kind = strcmp(o->event, "impression") == 0
                            ? KIND_IMPRESSION
                            : slu_schema_step_find(schema, o->event, strlen(o->event));
        if (strcmp(o->event, "impression") != 0 && f->fixed_kind < 0)
            return slu_fail(err, SLU_ECONFIG,
                            "files: %s: event '%s' is neither 'impression' nor a step of the funnel", o->path,
                            o->event);
    } else if (!o->kind_column) {
        return slu_fail(err, SLU_ECONFIG, "files: %s: set event (files of one kind) or kind_column", o->path);
    }
    f->has_impressions = f->fixed_kind == KIND_IMPRESSION ||
                         (f->fixed_kind == KIND_BY_COLUMN && !skipped(o, (slu_span){"impression", 10}));
    bool has_steps = f->fixed_kind != KIND_IMPRESSION;
    if (!o->time_column)
        return slu_fail(err, SLU_ECONFIG, "files: %s: time_column is missing", o->path);
    if (f->has_impressions && !o->id_column && !o->impression_column)
        return slu_fail(err, SLU_ECONFIG, "files: %s: id_column is missing", o->path);
    if (has_steps && !o->impression_column)
        return slu_fail(err, SLU_ECONFIG, "files: %s: impression_column is missing", o->path);
    return 0;
}

/* ---- one record --------------------------------------------------------------------------------------- */

static int dead(recorded *f, slu_dead_reason why, slu_span raw)
{
    f->record.dead = why;
    f->record.event = NULL;
    f->record.bytes = raw.p;
    f->record.len = raw.n;
    f->record.message = f->error.message;
    return 1;
}

#define DEAD(f, why, raw, ...) (slu_fail(&(f)->error, SLU_EINVAL, __VA_ARGS__), dead((f), (why), (raw)))

/* Digits with an optional fraction, in |unit|, into microseconds; what is finer is cut. */
static bool parse_time(slu_span text, slu_time_unit unit, int64_t *us)
{
    int64_t scale = unit == SLU_UNIT_US ? 1 : unit == SLU_UNIT_MS ? 1000 : 1000000;
    int64_t t = 0;
    size_t i = 0;
    for (; i < text.n && text.p[i] >= '0' && text.p[i] <= '9'; i++) {
        if (t > (INT64_MAX / scale - 9) / 10)
            return false;
        t = t * 10 + (text.p[i] - '0');
    }
    if (i == 0)
        return false;
    t *= scale;
    if (i < text.n && text.p[i] == '.') {
        for (i++; i < text.n && text.p[i] >= '0' && text.p[i] <= '9'; i++) {
            scale /= 10;
            t += scale * (text.p[i] - '0');
        }
    }
    *us = t;
    return i == text.n && t > 0 && t <= SLU_MAX_TIME_US;
}

static const char *id_fault(slu_span id)
{
    if (id.n == 0)
        return "is empty";
    if (id.n > SLU_MAX_ID_BYTES)
        return "is longer than 256 bytes";
    return slu_utf8_valid(id.p, id.n) ? NULL : "is not valid UTF-8 or holds a NUL byte";
}

static int row_kind(const file_source *s, const recorded *f, slu_span text)
{
    if (f->fixed_kind != KIND_BY_COLUMN)
        return f->fixed_kind;
    if (text.n == 10 && memcmp(text.p, "impression", 10) == 0)
        return KIND_IMPRESSION;
    int step = slu_schema_step_find(s->schema, text.p, text.n);
    return step < 0 ? KIND_BY_COLUMN : step;
}

static int row_impression(file_source *s, recorded *f, const slu_span *cells, slu_span raw)
{
    slu_event *e = &f->event;
    e->kind = SLU_EVENT_IMPRESSION;
    e->id = e->impression_id = cells[f->id != NO_COLUMN ? f->id : f->impression];
    e->fields = f->fields;
    const char *fault = id_fault(e->id);
    if (fault)
        return DEAD(f, SLU_DEAD_MALFORMED, raw, "the impression's id %s", fault);
    for (uint32_t i = 0; i < slu_schema_fields(s->schema); i++) {
        slu_span cell = cells[f->columns[i]];
        slu_dead_reason why;
        if (slu_field_from_text(s->schema, i, cell.p, cell.n, f->arena, f->fields, &why, &f->error))
            return dead(f, why, raw);
    }
    return 1;
}

static int row_step(recorded *f, int step, const slu_span *cells, slu_span raw)
{
    slu_event *e = &f->event;
    e->kind = SLU_EVENT_STEP;
    e->step = (uint32_t)step;
    e->id = f->id != NO_COLUMN ? cells[f->id] : (slu_span){"", 0};
    e->impression_id = cells[f->impression];
    const char *fault = id_fault(e->impression_id);
    if (fault)
        return DEAD(f, SLU_DEAD_MALFORMED, raw, "the step's impression id %s", fault);
    fault = e->id.n ? id_fault(e->id) : NULL;
    return fault ? DEAD(f, SLU_DEAD_MALFORMED, raw, "the step's id %s", fault) : 1;
}

/* Turns the cells of a record into an event. Returns 1, or 0 for a kind that the config passes over. */
static int row_event(file_source *s, recorded *f, const slu_span *cells, size_t n, slu_span raw)
{
    if (n != f->n_columns)
        return DEAD(f, SLU_DEAD_MALFORMED, raw, "the line has %zu cells, the header %zu", n, f->n_columns);
    slu_span kind_text = f->kind == NO_COLUMN ? (slu_span){"", 0} : cells[f->kind];
    if (f->fixed_kind == KIND_BY_COLUMN && skipped(f->opts, kind_text))
        return 0;
    int kind = row_kind(s, f, kind_text);
    if (kind == KIND_BY_COLUMN)
        return DEAD(f, SLU_DEAD_UNKNOWN_STEP, raw,
                    "kind '%.*s' is neither 'impression' nor a step of the funnel",
                    (int)(kind_text.n < 64 ? kind_text.n : 64), kind_text.p);
    int64_t us;
    if (!parse_time(cells[f->time], f->opts->time_unit, &us))
        return DEAD(f, SLU_DEAD_MALFORMED, raw,
                    "column '%s' is not a time between 1970 and the year 9999: '%.*s'", f->opts->time_column,
                    (int)(cells[f->time].n < 40 ? cells[f->time].n : 40), cells[f->time].p);
    f->event.time_us = us;
    f->event.model_version = 0;
    f->record.event = &f->event;
    int rc = kind == KIND_IMPRESSION ? row_impression(s, f, cells, raw) : row_step(f, kind, cells, raw);
    if (!f->record.dead)
        f->at_us = us;
    return rc;
}

/* Splits a record that may span lines. Returns 1 with cells, 0 when it is dead, or a fatal code. */
static int row_cells(recorded *f, slu_span *line, slu_error *err)
{
    slu_csv_begin(f->csv);
    for (;;) {
        int rc = slu_csv_split(f->csv, *line, &f->error);
        if (rc == 1)
            return 1;
        if (rc == SLU_EINVAL) { /* only its first line is given up, what follows may be fine */
            slu_text_file_rewind(f->text, line);
            dead(f, SLU_DEAD_MALFORMED, *line);
            return 0;
        }
        if (rc < 0)
            return slu_fail(err, rc, "%s: %s", f->path, f->error.message);
        rc = slu_text_file_extend(f->text, line, err);
        if (rc == 0 || rc == SLU_ELIMIT) {
            slu_text_file_rewind(f->text, line);
            DEAD(f, SLU_DEAD_MALFORMED, *line, "a quoted cell that opens in this line is not closed %s",
                 rc == 0 ? "before the end of the file" : "within kafka.max_message_bytes");
            return 0;
        }
        if (rc < 0)
            return rc;
    }
}

static int line_event(file_source *s, recorded *f, slu_span line)
{
    slu_dead_reason why;
    if (slu_event_decode(s->schema, SLU_ENCODING_JSON, s->options->training.unknown_features, line.p, line.n,
                         f->arena, &f->event, &why, &f->error))
        return dead(f, why, line);
    f->record.event = &f->event;
    f->at_us = f->event.time_us;
    return 1;
}

static void begin_record(recorded *f)
{
    slu_arena_reset(f->arena);
    slu_error_clear(&f->error);
    f->record = (slu_record){.kind = SLU_RECORD_EVENT,
                             .partition = f->record.partition,
                             .encoding = SLU_ENCODING_JSON,
                             .offset = slu_text_file_number(f->text)};
}

/* Loads the next record of |f| as its look-ahead, or notes the end. */
static int look_ahead(file_source *s, recorded *f, slu_error *err)
{
    while (!f->loaded && !f->ended) {
        slu_span line;
        int rc = slu_text_file_line(f->text, &line, err);
        if (rc < 0 && rc != SLU_ELIMIT)
            return rc;
        if (rc == 0) {
            f->ended = true;
            break;
        }
        if (rc == 1 && line.n == 0)
            continue;
        begin_record(f);
        if (rc == SLU_ELIMIT) {
            DEAD(f, SLU_DEAD_TOO_LARGE, line, "the line is longer than kafka.max_message_bytes (%u)",
                 s->options->kafka.max_message_bytes);
            f->loaded = true;
        } else if (f->opts->format == SLU_FILE_CSV) {
            rc = row_cells(f, &line, err);
            if (rc < 0)
                return rc;
            size_t n;
            const slu_span *cells = slu_csv_cells(f->csv, &n);
            f->loaded = rc == 0 || row_event(s, f, cells, n, line) != 0;
        } else {
            f->loaded = line_event(s, f, line) != 0;
        }
        if (f->record.offset < f->first)
            f->loaded = false;
    }
    return 0;
}

/* ---- the source --------------------------------------------------------------------------------------- */

/* The file whose look-ahead is earliest, the first of equals; n when all have ended. */
static uint32_t earliest(const file_source *s)
{
    uint32_t best = s->n;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->files[i].loaded && (best == s->n || s->files[i].at_us < s->files[best].at_us))
            best = i;
    return best;
}

static int next(slu_source *base, int timeout_ms, slu_record *out, slu_error *err)
{
    (void)timeout_ms;
    file_source *s = (file_source *)base;
    if (s->taken < s->n)
        s->files[s->taken].loaded = false;
    s->taken = s->n;
    if (s->announced < s->n) {
        *out = (slu_record){.kind = SLU_RECORD_PARTITION, .partition = s->announced++, .offset = -1};
        return 1;
    }
    for (uint32_t i = 0; i < s->n; i++) {
        recorded *f = &s->files[i];
        int rc = look_ahead(s, f, err);
        if (rc)
            return rc;
        if (f->ended && !f->told_idle) { /* its end must not hold back the time of the others */
            f->told_idle = true;
            *out = (slu_record){.kind = SLU_RECORD_IDLE, .partition = i, .offset = -1};
            return 1;
        }
    }
    uint32_t i = earliest(s);
    if (i == s->n)
        return SLU_ECLOSED;
    s->taken = i;
    *out = s->files[i].record;
    return 1;
}

static uint32_t partitions(slu_source *base)
{
    return ((file_source *)base)->n;
}

static slu_partition partition(slu_source *base, uint32_t i)
{
    return (slu_partition){((file_source *)base)->files[i].opts->path, 0};
}

static int64_t lag(slu_source *base, double *fraction)
{
    file_source *s = (file_source *)base;
    double done = 0, all = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const recorded *f = &s->files[i];
        double size = (double)slu_text_file_size(f->text);
        double consumed = f->ended ? size : (double)slu_text_file_consumed(f->text);
        all += size;
        done += consumed < size ? consumed : size;
    }
    *fraction = all > 0 ? done / all : 1;
    return -1;
}

static void close_file(recorded *f)
{
    slu_text_file_close(f->text);
    slu_csv_free(f->csv);
    slu_arena_free(f->arena);
    free(f->columns);
    free(f->fields);
    free(f->path);
}

static void close_source(slu_source *base)
{
    file_source *s = (file_source *)base;
    for (uint32_t i = 0; i < s->n; i++)
        close_file(&s->files[i]);
    free(s);
}

static const slu_source_ops file_ops = {
    .next = next,
    .partitions = partitions,
    .partition = partition,
    .lag = lag,
    .close = close_source,
};

static int open_file(file_source *s, uint32_t i, const char *directory, slu_store *store, slu_error *err)
{
    recorded *f = &s->files[i];
    const slu_file_opts *o = f->opts = &s->options->files[i];
    uint32_t n_fields = slu_schema_fields(s->schema);
    f->record.partition = i;
    f->at_us = INT64_MIN;
    f->id = f->time = f->kind = f->impression = NO_COLUMN;
    f->csv = slu_csv_new();
    f->arena =
        slu_arena_new(0, 0); /* bounded by the limit of a line: at most one value for each byte of it */
    f->columns = calloc(n_fields + 1, sizeof *f->columns);
    f->fields = calloc(n_fields + 1, sizeof *f->fields);
    bool alone = o->path[0] == '/' || !directory;
    if (asprintf(&f->path, "%s%s%s", alone ? "" : directory, alone ? "" : "/", o->path) < 0)
        f->path = NULL;
    if (!f->csv || !f->arena || !f->columns || !f->fields || !f->path)
        return slu_fail(err, SLU_ENOMEM, "out of memory opening %s", o->path);
    int rc = o->format == SLU_FILE_CSV ? plan_kinds(f, s->schema, err) : 0;
    if (!rc)
        rc = slu_text_file_open(f->path, s->options->kafka.max_message_bytes, &f->text, err);
    if (!rc && o->format == SLU_FILE_CSV)
        rc = read_header(f, s->schema, err);
    if (!rc && store)
        rc = slu_state_get_offset(store, o->path, 0, &f->first, err);
    return rc;
}

int slu_file_source_open(const slu_options *options, const slu_schema *schema, const char *directory,
                         slu_store *store, slu_source **sp, slu_error *err)
{
    *sp = NULL;
    if (options->n_files == 0)
        return slu_fail(err, SLU_ECONFIG,
                        "the config lists no files: add a list 'files' with path, format and "
                        "columns (docs/config.md)");
    file_source *s = calloc(1, sizeof *s + options->n_files * sizeof *s->files);
    if (!s)
        return slu_fail(err, SLU_ENOMEM, "out of memory opening recorded files");
    s->base.ops = &file_ops;
    s->options = options;
    s->schema = schema;
    s->n = s->taken = options->n_files;
    for (uint32_t i = 0; i < s->n; i++) {
        int rc = open_file(s, i, directory, store, err);
        if (rc) {
            close_source(&s->base);
            return rc;
        }
    }
    *sp = &s->base;
    return 0;
}
