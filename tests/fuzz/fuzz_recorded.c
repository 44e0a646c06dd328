/* A recorded file of events, CSV or JSON lines, plain or compressed: through text file, splitter, event
 * decoder and file source. Every record is a whole event or has a reason; line numbers go up; a run that
 * starts behind a stored line sees exactly the rest; a compressed file says what the plain one says. */
#include "base/digest.h"
#include "base/log.h"
#include "feature/encode.h"
#include "store/state.h"
#include "tests/fuzz/require.h"
#include "tests/memory_store.h"
#include "trainer/dead_letter.h"
#include "trainer/source.h"
#include <jansson.h>
#include <sys/mman.h>
#include <unistd.h>
#include <zlib.h>

#define MOST 3000

static const char yaml[] =
    "name: fuzz\n"
    "funnel: {steps: [{name: click, window: 10m}, {name: buy, window: 30m}]}\n"
    "features:\n"
    "  - {name: user, side: user, dimension: 2}\n"
    "  - {name: item, side: item, dimension: 2, missing: none}\n"
    "  - {name: tags, kind: multi, side: item, dimension: 2, max_ids: 3}\n"
    "  - {name: price, kind: numeric, side: item, transform: log}\n"
    "kafka: {brokers: \"127.0.0.1:1\", group: g, topics: [t], delta_topic: d, max_message_bytes: 1KiB}\n"
    "files:\n"
    "  - {path: c, id_column: id, time_column: at, kind_column: what, impression_column: of, skip: [noise]}\n"
    "  - {path: j, format: jsonl}\n"
    "store: {path: /nonexistent}\n";

typedef struct reading {
    int64_t offset;
    uint64_t what; /* hash of all that the record says */
    bool dead;
} reading;

static slu_options *options[2]; /* CSV, JSON lines */
static slu_file_opts file[2], *was[2];
static slu_schema *schema;
static slu_encoder *encoder;
static slu_encoded *encoded;
static slu_buf letter;

static void set_up(void)
{
    slu_error err = SLU_ERROR_INIT;
    slu_log_setup(SLU_LOG_ERROR + 1, SLU_LOGFMT);
    for (int i = 0; i < 2; i++) {
        REQUIRE(!slu_options_parse(yaml, strlen(yaml), "fuzz", NULL, 0, &options[i], &err));
        was[i] = options[i]->files;
        file[i] = options[i]->files[i];
        options[i]->files = &file[i]; /* whose path changes with every input */
        options[i]->n_files = 1;
    }
    REQUIRE(!slu_schema_new(options[0], &schema, &err));
    encoder = slu_encoder_new(schema);
    encoded = malloc(slu_encoded_max(schema));
}

static uint64_t mix(uint64_t h, const void *p, size_t n)
{
    return slu_hash64(p, n, h);
}

static uint64_t event_hash(const slu_event *e)
{
    uint64_t h = mix(e->kind, e->id.p, e->id.n);
    h = mix(h, e->impression_id.p, e->impression_id.n);
    h = mix(h, &e->time_us, sizeof e->time_us);
    if (e->kind == SLU_EVENT_STEP)
        return mix(h, &e->step, sizeof e->step);
    slu_encode(encoder, e->fields, encoded);
    REQUIRE(slu_encoded_valid(schema, encoded, encoded->bytes));
    return mix(h, encoded, encoded->bytes);
}

/* What nobody could use goes out as JSON, whatever its bytes were. */
static void check_letter(const slu_record *r)
{
    slu_partition part = {"file", 0};
    json_error_t why;
    slu_buf_clear(&letter);
    slu_dead_letter_write(&letter, r->dead, r->message, &part, r);
    json_t *root = json_loadb((const char *)letter.data, letter.len, 0, &why);
    REQUIRE(root && json_integer_value(json_object_get(root, "bytes")) == (json_int_t)r->len);
    REQUIRE(!strcmp(json_string_value(json_object_get(root, "reason")), slu_dead_reason_name(r->dead)));
    const json_t *text = json_object_get(root, "payload");
    if (text)
        REQUIRE(json_string_length(text) == r->len && !memcmp(json_string_value(text), r->bytes, r->len));
    json_decref(root);
}

static reading look(const slu_record *r)
{
    slu_dead_reason why;
    reading x = {r->offset, 0, r->dead != SLU_DEAD_NONE};
    if (x.dead) {
        REQUIRE(!r->event && r->message && r->message[0] && r->len <= options[0]->kafka.max_message_bytes);
        x.what = mix(r->dead, r->bytes, r->len);
        check_letter(r);
    } else {
        REQUIRE(r->event && !slu_event_check(r->event, &why, NULL));
        x.what = event_hash(r->event);
    }
    return x;
}

/* All records of the file |fd|; SIZE_MAX when it was refused as a whole. */
static size_t read_all(int kind, int fd, slu_store *store, reading *out, int *rc)
{
    char name[32];
    slu_source *s;
    slu_error err = SLU_ERROR_INIT;
    snprintf(name, sizeof name, "%d", fd);
    options[kind]->files[0].path = name;
    *rc = slu_file_source_open(options[kind], schema, "/proc/self/fd", store, &s, &err);
    REQUIRE(*rc == err.code && (!*rc || err.message[0]));
    if (*rc)
        return SIZE_MAX;
    slu_record r;
    size_t n = 0;
    while ((*rc = slu_source_next(s, 0, &r, &err)) == 1) {
        if (r.kind != SLU_RECORD_EVENT)
            continue;
        REQUIRE(r.partition == 0 && r.offset > 0);
        reading x = look(&r);
        REQUIRE(n == 0 || x.offset > out[(n - 1) % MOST].offset);
        out[n++ % MOST] = x;
        double fraction = -1;
        s->ops->lag(s, &fraction);
        REQUIRE(fraction >= 0 && fraction <= 1);
    }
    REQUIRE(*rc == SLU_ECLOSED || (*rc == err.code && err.message[0]));
    s->ops->close(s);
    return n;
}

static int file_of(const void *p, size_t n)
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    REQUIRE(fd >= 0 && write(fd, p, n) == (ssize_t)n);
    return fd;
}

static void read_compressed(int kind, const uint8_t *p, size_t n, const reading *plain, size_t n_plain)
{
    static reading again[MOST];
    int fd = memfd_create("fuzz.gz", MFD_CLOEXEC), rc;
    gzFile gz = gzdopen(dup(fd), "wb1");
    REQUIRE(gz && gzwrite(gz, p, (unsigned)n) == (int)n && gzclose(gz) == Z_OK);
    size_t m = read_all(kind, fd, NULL, again, &rc);
    REQUIRE(m == n_plain);
    for (size_t i = 0; m != SIZE_MAX && i < m && i < MOST; i++)
        REQUIRE(again[i].offset == plain[i].offset && again[i].what == plain[i].what);
    close(fd);
}

static void read_rest(int kind, int fd, const reading *all, size_t n, size_t from)
{
    static reading rest[MOST];
    char path[64];
    int rc;
    slu_store *store;
    slu_store_config config = {.path = "memory", .create = true};
    memory_store_clear();
    REQUIRE(!slu_store_open(&config, &store, NULL));
    slu_commit *c = slu_commit_begin(store);
    snprintf(path, sizeof path, "%d", fd);
    slu_state_put_offset(c, path, 0, all[from].offset);
    REQUIRE(!slu_commit_write(c, NULL));
    size_t m = read_all(kind, fd, store, rest, &rc);
    REQUIRE(m == n - from);
    for (size_t i = 0; i < m; i++)
        REQUIRE(rest[i].offset == all[from + i].offset && rest[i].what == all[from + i].what);
    slu_store_close(store);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static reading all[MOST];
    if (size < 2)
        return 0;
    if (!schema)
        set_up();
    int kind = data[0] & 1, rc;
    const uint8_t *p = data + 2;
    size_t n = size - 2;
    bool packed = n > 1 && p[0] == 0x1f && p[1] == 0x8b; /* then it is no plain file */
    int fd = file_of(p, n);
    size_t records = read_all(kind, fd, NULL, all, &rc);
    if (data[0] & 2 && !packed)
        read_compressed(kind, p, n, all, records);
    if (records != SIZE_MAX && records && records < MOST && rc == SLU_ECLOSED)
        read_rest(kind, fd, all, records, data[1] % records);
    close(fd);
    return 0;
}
