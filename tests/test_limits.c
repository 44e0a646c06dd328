/* Limits on what comes from outside, at the limit, one below and one above it (docs/testing.md lists them).
 * Those of a single module stand in its own test: ids and values of events in test_event.c, features in
 * test_options_bad.c. */
#include "feature/encode.h"
#include "tests/suite.h"
#include "trainer/source.h"
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MESSAGE_BYTES 1024

static const char yaml[] = "funnel: {steps: [{name: click, window: 10m}]}\n"
                           "features: [{name: user, side: user, dimension: 2}]\n"
                           "kafka: {brokers: \"b:1\", topics: [t], max_message_bytes: 1KiB}\n"
                           "files: [{path: x, format: jsonl}]\n";
static slu_options *options;
static slu_schema *schema;

static void set_up(void)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_msg(!slu_options_parse(yaml, strlen(yaml), "t", NULL, 0, &options, &err), "%s", err.message);
    ck_assert_int_eq(slu_schema_new(options, &schema, &err), 0);
    ck_assert_uint_eq(options->kafka.max_message_bytes, MESSAGE_BYTES);
}

static void tear_down(void)
{
    slu_schema_free(schema);
    slu_options_free(options);
}

/* An event of exactly |n| bytes. */
static char *event_of(size_t n)
{
    static const char head[] = "{\"impression\":{\"id\":\"i\",\"time_us\":1,\"features\":{\"user\":\"";
    static const char tail[] = "\"}}}";
    char *text = malloc(n + 1);
    memset(text, 'a', n);
    memcpy(text, head, strlen(head));
    memcpy(text + n - strlen(tail), tail, strlen(tail));
    text[n] = 0;
    return text;
}

START_TEST(bytes_of_a_message)
{
    set_up();
    for (size_t n = MESSAGE_BYTES - 1; n <= MESSAGE_BYTES + 1; n++) {
        slu_event e;
        slu_dead_reason why;
        slu_arena *arena = slu_arena_new(0, 0);
        char *text = event_of(n);
        slu_event_decode(schema, SLU_ENCODING_JSON, SLU_UNKNOWN_REJECT, text, n, arena, &e, &why, NULL);
        ck_assert_int_eq(why, n <= MESSAGE_BYTES ? SLU_DEAD_NONE : SLU_DEAD_TOO_LARGE);
        free(text);
        slu_arena_free(arena);
    }
    tear_down();
}
END_TEST

START_TEST(bytes_of_a_line)
{
    set_up();
    for (size_t n = MESSAGE_BYTES - 1; n <= MESSAGE_BYTES + 1; n++) {
        char name[] = "/tmp/sluice-limits-XXXXXX", *text = event_of(n);
        slu_source *s;
        slu_record r;
        slu_error err = SLU_ERROR_INIT;
        int fd = mkstemp(name);
        ck_assert_int_eq(write(fd, text, n), (ssize_t)n);
        ck_assert_int_eq(write(fd, "\n", 1), 1);
        close(fd);
        free(options->files[0].path);
        options->files[0].path = strdup(name);
        ck_assert_msg(!slu_file_source_open(options, schema, NULL, NULL, &s, &err), "%s", err.message);
        do
            ck_assert_int_eq(slu_source_next(s, 0, &r, &err), 1);
        while (r.kind != SLU_RECORD_EVENT);
        ck_assert_int_eq(r.dead, n <= MESSAGE_BYTES ? SLU_DEAD_NONE : SLU_DEAD_TOO_LARGE);
        s->ops->close(s);
        unlink(name);
        free(text);
    }
    tear_down();
}
END_TEST

/* The message of a configuration |text|, "" when it is taken. */
static const char *refusal(const char *text, size_t n)
{
    static slu_error err;
    slu_options *o;
    slu_error_clear(&err);
    slu_options_parse(text, n, "t", NULL, 0, &o, &err);
    slu_options_free(o);
    return err.message;
}

START_TEST(bytes_of_a_configuration)
{
    const size_t most = (size_t)4 << 20;
    char *text = malloc(most + 2);
    memset(text, '\n', most + 2); /* empty lines */
    memcpy(text, yaml, strlen(yaml));
    for (size_t n = most - 1; n <= most + 1; n++)
        ck_assert_msg((refusal(text, n)[0] == 0) == (n <= most) &&
                          (n <= most || strstr(refusal(text, n), "too many")),
                      "%zu bytes: %s", n, refusal(text, n));
    free(text);
}
END_TEST

START_TEST(depth_of_a_configuration)
{
    for (int depth = 15; depth <= 17; depth++) {
        char text[200];
        size_t n = (size_t)snprintf(text, sizeof text, "funnel: ");
        for (int i = 2; i < depth; i++) /* the whole is one level, its value another */
            text[n++] = '[';
        text[n++] = '1';
        for (int i = 2; i < depth; i++)
            text[n++] = ']';
        bool deep = strstr(refusal(text, n), "nested too deeply");
        ck_assert_msg(deep == (depth > 16), "%d levels: %s", depth, refusal(text, n));
    }
}
END_TEST

START_TEST(keys_of_a_mapping)
{
    for (int keys = 511; keys <= 513; keys++) {
        char text[8000];
        size_t n = 0;
        for (int i = 0; i < keys; i++)
            n += (size_t)snprintf(text + n, sizeof text - n, "k%d: 1\n", i);
        bool many = strstr(refusal(text, n), "too many keys in one mapping");
        ck_assert_msg(many == (keys > 512), "%d keys: %s", keys, refusal(text, n));
    }
}
END_TEST

int main(void)
{
    const TTest *const tests[] = {bytes_of_a_message,       bytes_of_a_line,   bytes_of_a_configuration,
                                  depth_of_a_configuration, keys_of_a_mapping, NULL};
    return run_suite("limits", tests);
}
