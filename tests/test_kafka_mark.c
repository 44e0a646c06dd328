/* Whether a topic is still the one that was read: what a mark tells apart, and each way that a proof can go,
 * without a broker. */
#include "base/log.h"
#include "tests/suite.h"
#include "trainer/kafka_mark.h"
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* A message as librdkafka would hand it out; of one with an error it gives no time (-1), so that no inside of
 * it is read. */
static rd_kafka_message_t message(int64_t offset, const char *key, const char *value)
{
    return (rd_kafka_message_t){.err = RD_KAFKA_RESP_ERR__FAIL,
                                .offset = offset,
                                .partition = 3,
                                .key = (void *)key,
                                .key_len = key ? strlen(key) : 0,
                                .payload = (void *)value,
                                .len = value ? strlen(value) : 0};
}

static uint64_t mark(const char *key, const char *value)
{
    rd_kafka_message_t m = message(0, key, value);
    return slu_kafka_mark(&m);
}

START_TEST(test_marks)
{
    static const char *const texts[] = {NULL, "", "a", "b", "ab", "ba", "aa"};
    enum { N = sizeof texts / sizeof *texts };
    uint64_t marks[N][N];
    for (int k = 0; k < N; k++)
        for (int v = 0; v < N; v++) {
            marks[k][v] = mark(texts[k], texts[v]);
            ck_assert_uint_ne(marks[k][v], 0); /* 0 is: none */
            ck_assert_uint_eq(marks[k][v], mark(texts[k], texts[v]));
        }
    /* Nothing and an empty text are the same, all else differs, also what only moved from key to value. */
    for (int a = 1; a < N * N; a++)
        for (int b = 1; b < a; b++)
            if (a % N && a / N && b % N && b / N)
                ck_assert_msg(marks[a / N][a % N] != marks[b / N][b % N], "%d and %d", a, b);
    ck_assert_uint_eq(marks[0][0], marks[1][1]);
    rd_kafka_message_t m = message(77, "a", "b"); /* where it lies is not a part of it */
    ck_assert_uint_eq(slu_kafka_mark(&m), marks[2][3]);
}
END_TEST

START_TEST(test_begin)
{
    static const struct {
        uint64_t mark;
        int64_t next, from;
        bool wanted;
    } cases[] = {{0, -1, -1, false}, {0, 0, 0, false}, {0, 7, 7, false},
                 {9, -1, -1, false}, {9, 0, 0, false}, /* nothing can be before it */
                 {9, 1, 0, true},    {9, 7, 6, true}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        slu_kafka_proof p = {.mark = cases[i].mark, .next = cases[i].next};
        ck_assert_int_eq(slu_kafka_proof_begin(&p), cases[i].from);
        ck_assert_int_eq(p.wanted, cases[i].wanted);
        ck_assert_int_eq(p.next, cases[i].next);
    }
}
END_TEST

/* ---- messages ---- */

static FILE *lines;

static void listen_to_log(void)
{
    lines = tmpfile();
    slu_log_redirect(fileno(lines), NULL);
}

/* Whether the log said that nothing can be proved, since the last call. */
static bool warned(void)
{
    char line[1000];
    bool found = false;
    rewind(lines);
    while (fgets(line, sizeof line, lines))
        found |= strstr(line, "level=warn") && strstr(line, "cannot be checked") &&
                 strstr(line, "topic=events") && strstr(line, "partition=3") && strstr(line, "offset=6");
    ck_assert_int_eq(ftruncate(fileno(lines), 0), 0);
    rewind(lines);
    return found;
}

static slu_kafka_proof wanted_at_7(const char *key, const char *value)
{
    slu_kafka_proof p = {.mark = mark(key, value), .next = 7};
    ck_assert_int_eq(slu_kafka_proof_begin(&p), 6);
    return p;
}

START_TEST(test_the_same_record)
{
    slu_error err = SLU_ERROR_INIT;
    listen_to_log();
    slu_kafka_proof p = wanted_at_7("k", "v");
    rd_kafka_message_t before = message(5, "k", "another"), same = message(6, "k", "v");
    ck_assert_int_eq(slu_kafka_proof_message(&p, &before, "events", &err),
                     0); /* what lies before is passed */
    ck_assert(p.wanted);
    ck_assert_int_eq(slu_kafka_proof_message(&p, &same, "events", &err), 0);
    ck_assert(!p.wanted && !warned() && !err.code);
    ck_assert_int_eq(p.next, 7);
}
END_TEST

START_TEST(test_another_record)
{
    static const char *const others[][2] = {{"k", "w"}, {"x", "v"}, {NULL, "v"}, {"k", NULL}, {"kv", ""}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        slu_error err = SLU_ERROR_INIT;
        slu_kafka_proof p = wanted_at_7("k", "v");
        rd_kafka_message_t m = message(6, others[i][0], others[i][1]);
        ck_assert_int_eq(slu_kafka_proof_message(&p, &m, "events", &err), SLU_EKAFKA);
        ck_assert_msg(
            strstr(err.message, "topic events partition 3: the record at offset 6 is not the one") &&
                strstr(err.message, "empty store.path"),
            "%s", err.message);
        ck_assert(p.wanted);
    }
}
END_TEST

/* Compaction took it: what comes is the next event, and the log says that nothing was proved. */
START_TEST(test_the_record_is_gone)
{
    listen_to_log();
    for (int64_t offset = 7; offset < 9; offset++) {
        slu_error err = SLU_ERROR_INIT;
        slu_kafka_proof p = wanted_at_7("k", "v");
        rd_kafka_message_t m = message(offset, "k", "v");
        ck_assert_int_eq(slu_kafka_proof_message(&p, &m, "events", &err), 1);
        ck_assert(!p.wanted && !err.code && warned());
    }
}
END_TEST

/* ---- ends and refusals ---- */

START_TEST(test_the_end)
{
    slu_error err = SLU_ERROR_INIT;
    listen_to_log();
    slu_kafka_proof p = wanted_at_7("k", "v");
    ck_assert_int_eq(slu_kafka_proof_end(&p, "events", 3, 6, &err), SLU_EKAFKA);
    ck_assert_msg(strstr(err.message, "stands at offset 7, but the topic holds 0 to 6"), "%s", err.message);
    slu_error_clear(&err);
    ck_assert(!warned());
    ck_assert_int_eq(slu_kafka_proof_end(&p, "events", 3, 7, &err), 0);
    ck_assert(!p.wanted && warned());
    ck_assert_int_eq(slu_kafka_proof_end(&p, "events", 3, 8, &err), 0); /* proved before: nothing to say */
    ck_assert(!warned());
    slu_kafka_proof fresh = {.next = -1};
    ck_assert_int_eq(slu_kafka_proof_end(&fresh, "events", 3, 0, &err), 0); /* an empty topic */
    ck_assert(!warned() && !err.code);
}
END_TEST

START_TEST(test_refused_offsets)
{
    listen_to_log();
    static const struct {
        int64_t low, high;
        bool fine;
    } cases[] = {{7, 7, true},    {7, 100, true}, /* just the record that was to prove was taken */
                 {8, 100, false},                 /* and an event */
                 {6, 100, false},                 /* it is there, and is refused all the same */
                 {0, 5, false},   {7, 6, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        slu_error err = SLU_ERROR_INIT;
        slu_kafka_proof p = wanted_at_7("k", "v"), unproved = {.next = 7};
        ck_assert_int_eq(slu_kafka_proof_refused(&p, "events", 3, cases[i].low, cases[i].high, &err),
                         cases[i].fine ? 0 : SLU_EKAFKA);
        ck_assert_int_eq(p.wanted, !cases[i].fine);
        ck_assert_int_eq(warned(), cases[i].fine);
        /* Without a proof that is wanted it was the next event itself. */
        ck_assert_int_eq(slu_kafka_proof_refused(&unproved, "events", 3, cases[i].low, cases[i].high, &err),
                         SLU_EKAFKA);
    }
}
END_TEST

int main(void)
{
    return run_suite("kafka_mark",
                     (const TTest *[]){test_marks, test_begin, test_the_same_record, test_another_record,
                                       test_the_record_is_gone, test_the_end, test_refused_offsets, NULL});
}
