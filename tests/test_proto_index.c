#include "proto/descriptors.h"
#include "serving/proto_index.h"
#include "tests/suite.h"
#include <string.h>

static slu_proto_index *x;

static void open_ours(void)
{
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_proto_index_new(slu_descriptor_set, slu_descriptor_set_size, &x, &err), 0);
}

START_TEST(test_ours)
{
    open_ours();
    int score = slu_proto_index_file(x, "sluice/v1/score.proto");
    ck_assert_int_ge(score, 0);
    static const char *const there[] = {"sluice.v1.Scoring",        "sluice.v1.Scoring.Score",
                                        "sluice.v1.ScoreRequest",   "sluice.v1.Column.text",
                                        ".sluice.v1.ScoreResponse", "sluice.v1.TaskScores.task"};
    for (size_t i = 0; i < sizeof there / sizeof *there; i++)
        ck_assert_msg(slu_proto_index_symbol(x, there[i]) == score, "%s", there[i]);
    static const char *const absent[] = {"", ".", "sluice", "sluice.v1", "sluice.v1.Scor", "Scoring"};
    for (size_t i = 0; i < sizeof absent / sizeof *absent; i++)
        ck_assert_msg(slu_proto_index_symbol(x, absent[i]) == -1, "%s", absent[i]);
    ck_assert(slu_proto_index_message(x, "sluice.v1.ScoreRequest"));
    ck_assert(!slu_proto_index_message(x, "sluice.v1.Scoring"));
    ck_assert_int_ge(slu_proto_index_symbol(x, "grpc.health.v1.HealthCheckResponse.SERVING"), 0);
    ck_assert_int_eq(slu_proto_index_file(x, "sluice/v1/none.proto"), -1);
    slu_proto_index_free(x);
}
END_TEST

static void note(void *ctx, size_t file)
{
    char *seen = ctx;
    size_t n = strlen(seen);
    seen[n] = (char)('0' + file);
    seen[n + 1] = 0;
}

/* Files a (imports b, c), b (imports c), c, and d with nobody: FileDescriptorProto has name = 1, dependency
 * = 3. */
START_TEST(test_closure)
{
    static const uint8_t set[] = "\x0a\x09\x0a\x01"
                                 "a\x1a\x01"
                                 "b\x1a\x01"
                                 "c"
                                 "\x0a\x06\x0a\x01"
                                 "b\x1a\x01"
                                 "c"
                                 "\x0a\x03\x0a\x01"
                                 "c"
                                 "\x0a\x03\x0a\x01"
                                 "d";
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_proto_index_new(set, sizeof set - 1, &x, &err), 0);
    ck_assert_uint_eq(slu_proto_index_files(x), 4);
    char seen[9] = "";
    slu_proto_index_closure(x, 0, note, seen);
    ck_assert_str_eq(seen, "012");
    seen[0] = 0;
    slu_proto_index_closure(x, 3, note, seen);
    ck_assert_str_eq(seen, "3");
    size_t len;
    ck_assert_ptr_eq(slu_proto_index_bytes(x, 1, &len), set + 13);
    ck_assert_uint_eq(len, 6);
    slu_proto_index_free(x);
}
END_TEST

/* Every shortened set is refused or read, never overrun (the copy has no byte to spare: ASan would tell). */
START_TEST(test_broken_sets)
{
    slu_error err = SLU_ERROR_INIT;
    size_t step = slu_descriptor_set_size / 200 + 1;
    for (size_t n = 0; n < slu_descriptor_set_size; n += step) {
        uint8_t *copy = malloc(n ? n : 1);
        memcpy(copy, slu_descriptor_set, n);
        slu_error_clear(&err);
        if (slu_proto_index_new(copy, n, &x, &err) == 0)
            slu_proto_index_free(x);
        else
            ck_assert_int_eq(err.code, SLU_EFORMAT);
        free(copy);
    }
}
END_TEST

int main(void)
{
    return run_suite("proto_index", (const TTest *[]){test_ours, test_closure, test_broken_sets, NULL});
}
