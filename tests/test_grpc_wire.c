/* The small pure parts: grpc-message, status, routes. */
#include "serving/grpc_routes.h"
#include "tests/suite.h"
#include <string.h>

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
    return run_suite("grpc_wire", (const TTest *[]){test_messages, test_status_names, test_routes, NULL});
}
