/* Recorded files in, one time-ordered sequence of records out; and the labels that oracle.c reads from it. */
#include "feature/schema.h"
#include "store/state.h"
#include "trainer/oracle.h"
#include "trainer/source.h"
#include "trainer/text_file.h"
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#define SECOND 1000000LL

static char dir[64];
static slu_options options;
static slu_schema *schema;
static slu_source *source;
static slu_error err;
static slu_record record;

static slu_step_opts steps[] = {{"click", 60 * SECOND, 1}, {"buy", 600 * SECOND, 1}};
static slu_feature_opts features[] = {
    {.name = "item", .source = "item", .table = "item", .dimension = 4, .max_ids = 1},
    {.name = "tags", .source = "tags", .table = "tags", .kind = SLU_MULTI, .dimension = 4, .max_ids = 8},
    {.name = "price", .source = "price", .table = "price", .kind = SLU_NUMERIC},
};
static char *skip_impressions[] = {"impression"};

static void setup(void)
{
    strcpy(dir, "/tmp/slu_file_source_XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(dir));
    options = (slu_options){.steps = steps, .n_steps = 2, .features = features, .n_features = 3};
    options.model.architecture = "esmm";
    options.kafka.max_message_bytes = 2000;
    slu_error_clear(&err);
    ck_assert_int_eq(slu_schema_new(&options, &schema, &err), 0);
    source = NULL;
}

static void teardown(void)
{
    if (source)
        source->ops->close(source);
    slu_schema_free(schema);
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static void write_bytes(const char *name, const char *text, size_t n)
{
    char path[128];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    bool gz = strlen(name) > 3 && strcmp(name + strlen(name) - 3, ".gz") == 0;
    gzFile f = gzopen(path, gz ? "wb" : "wbT"); /* T: as it is */
    ck_assert_ptr_nonnull(f);
    ck_assert_int_eq(gzwrite(f, text, (unsigned)n), (int)n);
    gzclose(f);
}

static void write_file(const char *name, const char *text)
{
    write_bytes(name, text, strlen(text));
}

static slu_store *store; /* NULL: from the beginning */

static int open_source(slu_file_opts *files, uint32_t n)
{
    options.files = files;
    options.n_files = n;
    return slu_file_source_open(&options, schema, dir, store, &source, &err);
}

static void open_ok(slu_file_opts *files, uint32_t n)
{
    int rc = open_source(files, n);
    ck_assert_msg(rc == 0, "%s", err.message);
    for (uint32_t i = 0; i < n; i++) {
        ck_assert_int_eq(slu_source_next(source, 0, &record, &err), 1);
        ck_assert_int_eq(record.kind, SLU_RECORD_PARTITION);
        ck_assert_uint_eq(record.partition, i);
    }
}

/* The next event, ends of files passed over. */
static int next(void)
{
    int rc;
    do
        rc = slu_source_next(source, 0, &record, &err);
    while (rc == 1 && record.kind == SLU_RECORD_IDLE);
    return rc;
}

static bool is(slu_span s, const char *text)
{
    return s.n == strlen(text) && memcmp(s.p, text, s.n) == 0;
}

static void expect_impression(const char *id, int64_t time_us, int64_t line)
{
    ck_assert_int_eq(next(), 1);
    ck_assert_msg(record.dead == 0, "line %lld: %s", (long long)record.offset, record.message);
    ck_assert_int_eq(record.event->kind, SLU_EVENT_IMPRESSION);
    ck_assert_msg(is(record.event->id, id), "%.*s, not %s", (int)record.event->id.n, record.event->id.p, id);
    ck_assert(is(record.event->impression_id, id));
    ck_assert_int_eq(record.event->time_us, time_us);
    ck_assert_int_eq(record.offset, line);
}

static void expect_step(const char *impression, uint32_t step, int64_t time_us, int64_t line)
{
    ck_assert_int_eq(next(), 1);
    ck_assert_msg(record.dead == 0, "line %lld: %s", (long long)record.offset, record.message);
    ck_assert_int_eq(record.event->kind, SLU_EVENT_STEP);
    ck_assert_uint_eq(record.event->step, step);
    ck_assert(is(record.event->impression_id, impression));
    ck_assert_int_eq(record.event->time_us, time_us);
    ck_assert_int_eq(record.offset, line);
}

static void expect_dead(slu_dead_reason why, int64_t line, const char *words, const char *raw)
{
    ck_assert_int_eq(next(), 1);
    ck_assert_int_eq(record.kind, SLU_RECORD_EVENT);
    ck_assert_msg(record.dead == why, "line %lld: reason %d, not %d", (long long)record.offset, record.dead,
                  why);
    ck_assert_int_eq(record.offset, line);
    ck_assert_msg(strstr(record.message, words) != NULL, "'%s' does not say '%s'", record.message, words);
    ck_assert_msg(record.len == strlen(raw) && memcmp(record.bytes, raw, record.len) == 0, "raw is '%.*s'",
                  (int)record.len, (const char *)record.bytes);
}

static slu_file_opts impressions_file(char *name)
{
    return (slu_file_opts){
        .path = name, .event = "impression", .id_column = "id", .time_column = "t", .time_unit = SLU_UNIT_S};
}

static slu_file_opts steps_file(char *name)
{
    return (slu_file_opts){.path = name,
                           .kind_column = "ev",
                           .impression_column = "imp",
                           .time_column = "us",
                           .skip = skip_impressions,
                           .n_skip = 1};
}

START_TEST(test_merge)
{
    write_file("i.csv.gz", "extra,id,t,item,tags,price\r\n"
                           "x,a,10,shoe,red|soft|,9.5\r\n"
                           "x,b,20.25,\"hat, \"\"big\"\"\",,\r\n"
                           "\r\n"
                           "x,c,30,\"two\nlines\",|,1\r\n"
                           "x,d,30,last,,");
    write_file("e.csv", "us,ev,imp\n10000000,click,a\n10000000,impression,a\n20250000,click,b\n"
                        "25000000,buy,a\n40000000,click,zz\n");
    slu_file_opts files[] = {impressions_file("i.csv.gz"), steps_file("e.csv")};
    open_ok(files, 2);
    ck_assert_uint_eq(source->ops->partitions(source), 2);
    ck_assert_str_eq(source->ops->partition(source, 1).topic, "e.csv");

    expect_impression("a", 10 * SECOND, 2);
    ck_assert(is(record.event->fields[0].v[0].v.text, "shoe"));
    ck_assert_uint_eq(record.event->fields[1].n, 2);
    ck_assert(is(record.event->fields[1].v[1].v.text, "soft"));
    ck_assert(is(record.event->fields[2].v[0].v.text, "9.5"));
    expect_step("a", 0, 10 * SECOND, 2);
    ck_assert_uint_eq(record.event->id.n, 0);
    expect_impression("b", 20250000, 3);
    ck_assert(is(record.event->fields[0].v[0].v.text, "hat, \"big\""));
    ck_assert_uint_eq(record.event->fields[1].n, 0);
    ck_assert_uint_eq(record.event->fields[2].n, 0);
    expect_step("b", 0, 20250000, 4);
    expect_step("a", 1, 25 * SECOND, 5);
    expect_impression("c", 30 * SECOND, 5);
    ck_assert(is(record.event->fields[0].v[0].v.text, "two\nlines"));
    ck_assert_uint_eq(record.event->fields[1].n, 0);
    expect_impression("d", 30 * SECOND, 7);
    expect_step("zz", 0, 40 * SECOND, 6);
    double fraction;
    ck_assert_int_eq(next(), SLU_ECLOSED);
    ck_assert_int_eq(next(), SLU_ECLOSED);
    ck_assert_int_eq(source->ops->lag(source, &fraction), -1);
    ck_assert(fraction == 1);
}
END_TEST

START_TEST(test_ended_file_goes_idle)
{
    write_file("i.csv", "id,t,item,tags,price\na,1,x,,\n");
    write_file("e.csv", "us,ev,imp\n2000000,click,a\n");
    slu_file_opts files[] = {impressions_file("i.csv"), steps_file("e.csv")};
    open_ok(files, 2);
    static const struct {
        slu_record_kind kind;
        uint32_t partition;
    } expected[] = {{SLU_RECORD_EVENT, 0}, {SLU_RECORD_IDLE, 0}, {SLU_RECORD_EVENT, 1}, {SLU_RECORD_IDLE, 1}};
    for (size_t i = 0; i < 4; i++) {
        ck_assert_int_eq(slu_source_next(source, 0, &record, &err), 1);
        ck_assert_int_eq(record.kind, expected[i].kind);
        ck_assert_uint_eq(record.partition, expected[i].partition);
    }
    ck_assert_int_eq(slu_source_next(source, 0, &record, &err), SLU_ECLOSED);
}
END_TEST

START_TEST(test_dead_lines)
{
    char text[8000] = "id,t,item,tags,price\n"
                      "a,1,x\n"
                      ",2,x,,\n"
                      "b,-2,x,,\n"
                      "b,0,x,,\n"
                      "b,99999999999999999999,x,,\n"
                      "b,2.5s,x,,\n"
                      "b,3,\"x\"y,,\n"
                      "b,3,\xff\xfe,,\n"
                      "b,3,\"never closed,,\n"
                      "ok,4,x,,\n";
    size_t n = strlen(text);
    memset(text + n, 'L', 3000);
    strcpy(text + n + 3000, "\nok2,5,y,,\nb,253402300800,x,,\n"); /* the year 10000 */
    char cut[2001];
    memset(cut, 'L', 2000);
    cut[2000] = 0;
    write_file("i.csv", text);
    slu_file_opts files[] = {impressions_file("i.csv")};
    open_ok(files, 1);
    expect_dead(SLU_DEAD_MALFORMED, 2, "3 cells, the header 5", "a,1,x");
    expect_dead(SLU_DEAD_MALFORMED, 3, "id is empty", ",2,x,,");
    expect_dead(SLU_DEAD_MALFORMED, 4, "'t' is not a time between 1970 and the year 9999: '-2'", "b,-2,x,,");
    expect_dead(SLU_DEAD_MALFORMED, 5, "not a time", "b,0,x,,");
    expect_dead(SLU_DEAD_MALFORMED, 6, "not a time", "b,99999999999999999999,x,,");
    expect_dead(SLU_DEAD_MALFORMED, 7, "not a time", "b,2.5s,x,,");
    expect_dead(SLU_DEAD_MALFORMED, 8, "cell 3 goes on behind its closing quote", "b,3,\"x\"y,,");
    expect_dead(SLU_DEAD_MALFORMED, 9, "UTF-8", "b,3,\xff\xfe,,");
    expect_dead(SLU_DEAD_MALFORMED, 10, "not closed", "b,3,\"never closed,,");
    expect_impression("ok", 4 * SECOND, 11);
    expect_dead(SLU_DEAD_TOO_LARGE, 12, "max_message_bytes", cut);
    expect_impression("ok2", 5 * SECOND, 13);
    expect_dead(SLU_DEAD_MALFORMED, 14, "year 9999", "b,253402300800,x,,");
    ck_assert_int_eq(next(), SLU_ECLOSED);
}
END_TEST

START_TEST(test_dead_steps)
{
    write_file("e.csv", "us,ev,imp\n1,poke,a\n1,click,\n1,click,a\n2,\"cl\n");
    slu_file_opts files[] = {steps_file("e.csv")};
    open_ok(files, 1);
    expect_dead(SLU_DEAD_UNKNOWN_STEP, 2, "kind 'poke'", "1,poke,a");
    expect_dead(SLU_DEAD_MALFORMED, 3, "impression id is empty", "1,click,");
    expect_step("a", 0, 1, 4);
    expect_dead(SLU_DEAD_MALFORMED, 5, "before the end of the file", "2,\"cl");
    ck_assert_int_eq(next(), SLU_ECLOSED);
}
END_TEST

START_TEST(test_json_lines)
{
    write_file("i.jsonl",
               "{\"impression\": {\"id\": \"a\", \"time_us\": 1000000, \"features\": {\"item\": \"x\"}}}\n"
               "\n"
               "{\"impression\": \n"
               "{\"step\": {\"id\": \"e7\", \"step\": \"click\", \"impression_id\": \"a\", \"time_us\": "
               "3000000}}\n");
    write_file("e.csv", "us,ev,imp\n2000000,buy,a\n");
    slu_file_opts files[] = {{.path = "i.jsonl", .format = SLU_FILE_JSONL}, steps_file("e.csv")};
    open_ok(files, 2);
    expect_impression("a", SECOND, 1);
    expect_dead(SLU_DEAD_MALFORMED, 3, "", "{\"impression\": ");
    expect_step("a", 1, 2 * SECOND, 2);
    expect_step("a", 0, 3 * SECOND, 4);
    ck_assert(is(record.event->id, "e7"));
    ck_assert_int_eq(next(), SLU_ECLOSED);
}
END_TEST

static void expect_refused(slu_file_opts file, int code, const char *words)
{
    ck_assert_int_eq(open_source(&file, 1), code);
    ck_assert_ptr_null(source);
    ck_assert_msg(strstr(err.message, words) != NULL, "'%s' does not say '%s'", err.message, words);
    slu_error_clear(&err);
}

START_TEST(test_refused)
{
    write_file("i.csv", "\xef\xbb\xbfid,t,item,tags\n");
    write_file("empty.csv", "");
    expect_refused(impressions_file("none.csv"), SLU_EIO, "none.csv: No such file");
    expect_refused(impressions_file("empty.csv"), SLU_ECONFIG, "empty.csv is empty");
    expect_refused(impressions_file("i.csv"), SLU_ECONFIG, "no column 'price'");
    expect_refused(impressions_file("i.csv"), SLU_ECONFIG, "its columns are: id, t, item, tags");
    slu_file_opts f = impressions_file("i.csv");
    f.id_column = "key";
    expect_refused(f, SLU_ECONFIG, "no column 'key' (id_column)");
    f = steps_file("i.csv");
    f.time_column = NULL;
    expect_refused(f, SLU_ECONFIG, "time_column is missing");
    f = steps_file("i.csv");
    f.kind_column = NULL;
    expect_refused(f, SLU_ECONFIG, "set event");
    f = steps_file("i.csv");
    f.event = "poke";
    expect_refused(f, SLU_ECONFIG, "'poke' is neither");
    f = steps_file("");
    expect_refused(f, SLU_EIO, "directory");
}
END_TEST

START_TEST(test_cut_off_gz)
{
    static char text[200000] = "us,ev,imp\n";
    size_t n = strlen(text);
    for (unsigned i = 1; n < sizeof text - 40; i++) /* noise, so that it does not shrink to nothing */
        n += (size_t)sprintf(text + n, "%u,click,%u\n", i, i * 2654435761u);
    write_bytes("e.csv.gz", text, n);
    char path[128];
    snprintf(path, sizeof path, "%s/e.csv.gz", dir);
    struct stat st;
    ck_assert_int_eq(stat(path, &st), 0);
    ck_assert_int_eq(truncate(path, st.st_size / 2), 0);
    slu_file_opts files[] = {steps_file("e.csv.gz")};
    open_ok(files, 1);
    int rc;
    while ((rc = next()) == 1)
        ck_assert_int_eq(record.dead, 0);
    ck_assert_int_eq(rc, SLU_EIO);
    ck_assert_msg(strstr(err.message, "e.csv.gz") && strstr(err.message, "cut off"), "%s", err.message);
}
END_TEST

/* Lines around the size of the buffer and of the limit, against a plain split of the same text. */
START_TEST(test_long_lines)
{
    const size_t limit = 700000;
    char *text = malloc(4 * limit);
    size_t n = 0;
    static const size_t lengths[] = {0,      1,      262143, 262144,  262145, 524287,
                                     524288, 700000, 700001, 1000000, 3};
    for (size_t i = 0; i < 8; i++) {
        memset(text + n, (int)('a' + i), lengths[i]);
        n += lengths[i];
        text[n++] = '\n';
    }
    write_bytes("long.txt", text, n);
    char path[128];
    snprintf(path, sizeof path, "%s/long.txt", dir);
    slu_text_file *f;
    slu_span line;
    ck_assert_int_eq(slu_text_file_open(path, limit, &f, &err), 0);
    for (size_t i = 0; i < 8; i++) {
        ck_assert_int_eq(slu_text_file_line(f, &line, &err), 1);
        ck_assert_uint_eq(line.n, lengths[i]);
        ck_assert_int_eq(slu_text_file_number(f), (int64_t)i + 1);
        for (size_t k = 0; k < line.n; k++)
            ck_assert(line.p[k] == (char)('a' + i));
    }
    ck_assert_int_eq(slu_text_file_line(f, &line, &err), 0);
    slu_text_file_close(f);

    n = 0;
    for (size_t i = 7; i < 11; i++) {
        memset(text + n, (int)('a' + i), lengths[i]);
        n += lengths[i];
        text[n++] = '\n';
    }
    write_bytes("long.txt", text, n);
    ck_assert_int_eq(slu_text_file_open(path, limit, &f, &err), 0);
    for (size_t i = 7; i < 11; i++) {
        bool over = lengths[i] > limit;
        ck_assert_int_eq(slu_text_file_line(f, &line, &err), over ? SLU_ELIMIT : 1);
        ck_assert_uint_eq(line.n, over ? limit : lengths[i]);
        ck_assert(line.p[0] == (char)('a' + i) && line.p[line.n - 1] == (char)('a' + i));
        ck_assert_int_eq(slu_text_file_number(f), (int64_t)i - 6);
    }
    ck_assert_int_eq(slu_text_file_line(f, &line, &err), 0);
    slu_text_file_close(f);
    free(text);
}
END_TEST

/* A restart goes on behind the line that was committed, also when that record spanned lines. */
START_TEST(test_goes_on_from_the_store)
{
    write_file("i.csv", "id,t,item,tags,price\na,1,x,,\nb,2,\"two\nlines\",,\nc,3,x,,\n");
    write_file("e.csv", "us,ev,imp\n1000000,click,a\n2000000,click,b\n3000000,click,c\n");
    char path[128];
    snprintf(path, sizeof path, "%s/store", dir);
    slu_store_config config = {
        .path = path, .block_cache_bytes = 1 << 20, .create = true, .schema_text = "test"};
    ck_assert_int_eq(slu_store_open(&config, &store, &err), 0);
    slu_commit *c = slu_commit_begin(store);
    slu_state_put_offset(c, "i.csv", 0, 4); /* behind line 3, where b begins */
    slu_state_put_offset(c, "e.csv", 0, 3); /* behind line 2 */
    ck_assert_int_eq(slu_commit_write(c, &err), 0);
    slu_commit_abandon(c);
    slu_file_opts files[] = {impressions_file("i.csv"), steps_file("e.csv")};
    open_ok(files, 2);
    expect_step("b", 0, 2 * SECOND, 3);
    expect_impression("c", 3 * SECOND, 5);
    expect_step("c", 0, 3 * SECOND, 4);
    ck_assert_int_eq(next(), SLU_ECLOSED);
    slu_store_close(store);
    store = NULL;
}
END_TEST

static uint32_t labels_of(const slu_oracle *o, const char *id)
{
    return slu_oracle_steps(o, slu_hash_128(id, strlen(id), 0));
}

START_TEST(test_oracle)
{
    write_file("i.csv",
               "id,t,item,tags,price\na,100,x,,\nb,100,x,,\nc,100,x,,\nd,100,x,,\na,100,again,,\nbad\n");
    write_file("e.csv", "us,ev,imp\n"
                        "99000000,click,d\n"  /* before its impression */
                        "100000000,click,a\n" /* at the very time */
                        "160000000,click,b\n" /* at the end of its window */
                        "160000001,click,c\n" /* behind it */
                        "700000000,buy,a\n"
                        "700000000,buy,nobody\n");
    slu_file_opts files[] = {steps_file("e.csv"), impressions_file("i.csv")};
    open_ok(files, 2); /* steps come first on a tie: they are kept until their impression comes */
    slu_oracle *o;
    ck_assert_int_eq(slu_oracle_read(source, &options, schema, &o, &err), 0);
    ck_assert_uint_eq(labels_of(o, "a"), 3);
    ck_assert_uint_eq(labels_of(o, "b"), 1);
    ck_assert_uint_eq(labels_of(o, "c"), 0);
    ck_assert_uint_eq(labels_of(o, "d"), 0);
    ck_assert_uint_eq(labels_of(o, "nobody"), 0);
    ck_assert_uint_eq(slu_oracle_events(o), 12);
    slu_oracle_free(o);
}
END_TEST

int main(void)
{
    Suite *s = suite_create("file_source");
    TCase *t = tcase_create("files");
    tcase_add_checked_fixture(t, setup, teardown);
    tcase_set_timeout(t, 60);
    tcase_add_test(t, test_merge);
    tcase_add_test(t, test_ended_file_goes_idle);
    tcase_add_test(t, test_dead_lines);
    tcase_add_test(t, test_dead_steps);
    tcase_add_test(t, test_json_lines);
    tcase_add_test(t, test_refused);
    tcase_add_test(t, test_cut_off_gz);
    tcase_add_test(t, test_long_lines);
    tcase_add_test(t, test_goes_on_from_the_store);
    tcase_add_test(t, test_oracle);
    suite_add_tcase(s, t);
    SRunner *r = srunner_create(s);
    srunner_run_all(r, CK_NORMAL);
    int failed = srunner_ntests_failed(r);
    srunner_free(r);
    return failed != 0;
}
