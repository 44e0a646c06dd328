/* The small pure parts: length-prefixed messages, grpc-timeout, grpc-message, routes. */
#include "base/rng.h"
#include "serving/grpc_frame.h"
#include "serving/grpc_routes.h"
#include "serving/grpc_timeout.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

/* Messages of many sizes, cut at random places, come out whole and in order. */
START_TEST(test_frames_over_any_cut)
{
    const uint64_t seed = 4711;
    printf("seed=%llu\n", (unsigned long long)seed);
    slu_rng rng;
    slu_rng_seed(&rng, seed);
    slu_buf wire = SLU_BUF_INIT;
    for (uint32_t len = 0; len < 200; len++) {
        slu_grpc_frame_prefix(&wire, len);
        memset(slu_buf_reserve(&wire, len + 1), (int)len, len + 1);
        wire.len += len;
    }
    for (int round = 0; round < 50; round++) {
        slu_grpc_frame f = {0};
        uint32_t got = 0;
        size_t most = 1 + slu_rng_below(&rng, round < 10 ? 4 : 700);
        for (size_t at = 0; at < wire.len;) {
            size_t piece = 1 + slu_rng_below(&rng, most), taken, used = 0;
            if (piece > wire.len - at)
                piece = wire.len - at;
            while (used < piece) {
                slu_grpc_frame_state state =
                    slu_grpc_frame_read(&f, wire.data + at + used, piece - used, 199, &taken);
                used += taken;
                if (state == SLU_FRAME_WHOLE) {
                    ck_assert_uint_eq(f.message.len, got);
                    bool whole = true; /* Check is slow with each assertion */
                    for (size_t i = 0; i < got; i++)
                        whole &= f.message.data[i] == got;
                    ck_assert(whole);
                    got++;
                    slu_grpc_frame_next(&f);
                } else {
                    ck_assert_int_eq(state, SLU_FRAME_MORE);
                    ck_assert_uint_eq(used, piece);
                }
            }
            at += piece;
        }
        ck_assert_uint_eq(got, 200);
        ck_assert(slu_grpc_frame_empty(&f));
        slu_buf_free(&f.message);
    }
    slu_buf_free(&wire);
}
END_TEST

START_TEST(test_frame_refusals)
{
    size_t taken;
    slu_grpc_frame f = {0};
    const uint8_t large[] = {0, 0xff, 0xff, 0xff, 0xff, 1, 2, 3};
    ck_assert_int_eq(slu_grpc_frame_read(&f, large, sizeof large, 1000, &taken), SLU_FRAME_TOO_LARGE);
    ck_assert_uint_eq(f.want, UINT32_MAX);
    ck_assert_ptr_null(f.message.data);
    f = (slu_grpc_frame){0};
    ck_assert_int_eq(slu_grpc_frame_read(&f, (const uint8_t *)"\1", 1, 1000, &taken), SLU_FRAME_COMPRESSED);
    f = (slu_grpc_frame){0};
    ck_assert_int_eq(slu_grpc_frame_read(&f, (const uint8_t *)"\2", 1, 1000, &taken), SLU_FRAME_BAD_FLAG);
    f = (slu_grpc_frame){0};
    ck_assert_int_eq(slu_grpc_frame_read(&f, large, 0, 1000, &taken), SLU_FRAME_MORE);
    ck_assert(slu_grpc_frame_empty(&f));
}
END_TEST

START_TEST(test_timeouts)
{
    static const struct {
        const char *text;
        int64_t us; /* -1: refused */
    } cases[] = {{"1S", 1000000},    {"0m", 0},         {"100m", 100000},
                 {"7u", 7},          {"1n", 1},         {"1000n", 1},
                 {"1001n", 2},       {"2M", 120000000}, {"99999999H", 359999996400000000},
                 {"123456789S", -1}, {"", -1},          {"S", -1},
                 {"5", -1},          {"1s", -1},        {"-1S", -1},
                 {"1 S", -1},        {"+1S", -1},       {"1.5S", -1},
                 {"1SS", -1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int64_t us = -1;
        int rc = slu_grpc_timeout_parse(cases[i].text, strlen(cases[i].text), &us);
        ck_assert_msg(us == cases[i].us && (rc == 0) == (us >= 0), "'%s' gave %lld", cases[i].text,
                      (long long)us);
    }
}
END_TEST

START_TEST(test_messages)
{
    slu_buf out = SLU_BUF_INIT;
    slu_grpc_message_encode(&out, "a b~%\n\xc3\xa4");
    ck_assert_uint_eq(out.len, strlen("a b~%25%0A%C3%A4"));
    ck_assert(!memcmp(out.data, "a b~%25%0A%C3%A4", out.len));
    char back[64], small[4];
    ck_assert_uint_eq(slu_grpc_message_decode(back, sizeof back, (char *)out.data, out.len), 8);
    ck_assert_str_eq(back, "a b~%\n\xc3\xa4");
    slu_grpc_message_decode(small, sizeof small, "abcdef", 6);
    ck_assert_str_eq(small, "abc");
    slu_grpc_message_decode(back, sizeof back, "%4%zz%", 6);
    ck_assert_str_eq(back, "%4%zz%");
    slu_buf_free(&out);
}
END_TEST

START_TEST(test_status_names)
{
    ck_assert_str_eq(slu_grpc_status_name(SLU_GRPC_OK), "OK");
    ck_assert_str_eq(slu_grpc_status_name(SLU_GRPC_UNAVAILABLE), "UNAVAILABLE");
    ck_assert_str_eq(slu_grpc_status_name(16), "UNAUTHENTICATED");
    ck_assert_str_eq(slu_grpc_status_name(17), "UNKNOWN");
    ck_assert_str_eq(slu_grpc_status_digits(-1), "2");
    ck_assert_str_eq(slu_grpc_status_digits(14), "14");
}
END_TEST

static slu_grpc_status nothing(void *ctx, slu_grpc_call *call)
{
    (void)ctx, (void)call;
    return SLU_GRPC_OK;
}

START_TEST(test_routes)
{
    slu_grpc_routes *r = slu_grpc_routes_new();
    slu_error err = SLU_ERROR_INIT;
    ck_assert_int_eq(slu_grpc_routes_add(r, "/a.B/C", SLU_GRPC_UNARY, false, nothing, NULL, &err), 0);
    ck_assert_int_eq(slu_grpc_routes_add(r, "/a.B/D", SLU_GRPC_UNARY, false, nothing, NULL, &err), 0);
    ck_assert_int_eq(slu_grpc_routes_add(r, "/e.F/C", SLU_GRPC_UNARY, false, nothing, NULL, &err), 0);
    static const char *const bad[] = {"a.B/C", "/a.B", "/a.B/", "//C", "/a.\"B/C", "/a.B/C"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        slu_error_clear(&err);
        ck_assert_int_eq(slu_grpc_routes_add(r, bad[i], SLU_GRPC_UNARY, false, nothing, NULL, &err),
                         SLU_EINVAL);
    }
    ck_assert_str_eq(slu_grpc_routes_find(r, "/a.B/Dx", 6)->path, "/a.B/D");
    ck_assert_ptr_null(slu_grpc_routes_find(r, "/a.B/Dx", 7));
    ck_assert_str_eq(slu_grpc_routes_service(r, 1), "e.F");
    ck_assert_ptr_null(slu_grpc_routes_service(r, 2));
    ck_assert(slu_grpc_routes_has_service(r, "a.B"));
    ck_assert(!slu_grpc_routes_has_service(r, "a"));
    slu_grpc_routes_free(r);
}
END_TEST

int main(void)
{
    return run_suite("grpc_wire",
                     (const TTest *[]){test_frames_over_any_cut, test_frame_refusals, test_timeouts,
                                       test_messages, test_status_names, test_routes, NULL});
}
