/* Headers of requests: what is understood, what is refused and in whose words. */
#include "serving/grpc_headers.h"
#include "tests/suite.h"
#include <stdio.h>
#include <string.h>

#define NOW 1000000
enum { MOST = 1000 };

static slu_grpc_routes *routes;
static slu_grpc_headers h;
static char why[SLU_GRPC_WHY];

static slu_grpc_status handle(void *ctx, slu_grpc_call *call)
{
    (void)ctx, (void)call;
    return SLU_GRPC_OK;
}

static void take(const char *name, const char *value)
{
    slu_grpc_headers_take(&h, routes, NOW, (const uint8_t *)name, strlen(name), (const uint8_t *)value,
                          strlen(value));
}

static void begin(void)
{
    memset(&h, 0, sizeof h);
    slu_grpc_headers_begin(&h);
    memset(why, 0, sizeof why);
}

/* A good request but for |name|: |value|; NULL leaves it out. */
static int check_with(const char *name, const char *value)
{
    static const char *const good[][2] = {{":method", "POST"},
                                          {":scheme", "http"},
                                          {":path", "/t.S/Echo"},
                                          {"content-type", "application/grpc"}};
    begin();
    for (size_t i = 0; i < sizeof good / sizeof *good; i++)
        if (strcmp(good[i][0], name) != 0)
            take(good[i][0], good[i][1]);
    if (value)
        take(name, value);
    return slu_grpc_headers_check(&h, MOST, NOW, why);
}

static void refused(const char *name, const char *value, int status, const char *part, const char *http)
{
    ck_assert_int_eq(check_with(name, value), status);
    ck_assert_msg(strstr(why, part) != NULL, "'%s' lacks '%s'", why, part);
    ck_assert_str_eq(slu_grpc_headers_http(&h, true), http);
    ck_assert_str_eq(slu_grpc_headers_http(&h, false), "200");
}

START_TEST(test_good_ones)
{
    ck_assert_int_eq(check_with("te", "trailers"), 0);
    ck_assert_ptr_eq(h.route, slu_grpc_routes_find(routes, "/t.S/Echo", 9));
    ck_assert_ptr_nonnull(h.route);
    ck_assert_str_eq(h.path, "/t.S/Echo");
    ck_assert_str_eq(slu_grpc_headers_http(&h, true), "200");
    ck_assert(h.post && h.grpc && !h.subtype && h.identity && !h.bad_timeout);
    ck_assert_int_eq(h.deadline_us, INT64_MAX);
}
END_TEST

START_TEST(test_content_types)
{
    static const char *const ours[] = {"application/grpc", "application/grpc+proto",
                                       "application/grpc;charset=utf-8", "application/grpc+proto;a=b"};
    static const char *const codecs[] = {"application/grpc+json", "application/grpc+protox",
                                         "application/grpc+prot", "application/grpc+"};
    static const char *const others[] = {"application/grpc-web", "application/grpcx", "application/grp",
                                         "text/html", ""};
    for (int i = 0; i < 4; i++)
        ck_assert_msg(!check_with("content-type", ours[i]), "%s: %s", ours[i], why);
    for (int i = 0; i < 4; i++)
        refused("content-type", codecs[i], SLU_GRPC_UNIMPLEMENTED, "protobuf only", "200");
    for (int i = 0; i < 5; i++)
        refused("content-type", others[i], SLU_GRPC_INVALID_ARGUMENT, "must be application/grpc", "415");
    refused("content-type", NULL, SLU_GRPC_INVALID_ARGUMENT, "must be application/grpc", "415");
    ck_assert_ptr_null(h.route); /* nobody's call */
}
END_TEST

START_TEST(test_methods_and_paths)
{
    char longest[300];
    refused(":method", "GET", SLU_GRPC_UNIMPLEMENTED, "POST", "405");
    ck_assert_ptr_null(h.route);
    refused(":method", "POSTS", SLU_GRPC_UNIMPLEMENTED, "POST", "405");
    refused(":method", NULL, SLU_GRPC_UNIMPLEMENTED, "POST", "405");
    refused(":path", "/t.S/Nope", SLU_GRPC_UNIMPLEMENTED, "unknown method /t.S/Nope", "200");
    refused(":path", NULL, SLU_GRPC_UNIMPLEMENTED, "unknown method", "200");
    refused(":path", "/t.S/Ech", SLU_GRPC_UNIMPLEMENTED, "unknown method", "200");
    for (size_t n = SLU_GRPC_PATH - 2; n < sizeof longest; n++) { /* cut to what there is room for */
        memset(longest, 'p', n);
        longest[n] = 0;
        refused(":path", longest, SLU_GRPC_UNIMPLEMENTED, "unknown method ppp", "200");
        ck_assert_uint_eq(strlen(h.path), n < SLU_GRPC_PATH ? n : SLU_GRPC_PATH - 1);
    }
}
END_TEST

START_TEST(test_timeouts)
{
    ck_assert_int_eq(check_with("grpc-timeout", "5m"), 0);
    ck_assert_int_eq(h.deadline_us, NOW + 5000);
    ck_assert_int_eq(check_with("grpc-timeout", "1n"), 0); /* not past yet */
    refused("grpc-timeout", "0u", SLU_GRPC_DEADLINE_EXCEEDED, "before the call began", "200");
    refused("grpc-timeout", "soon", SLU_GRPC_INVALID_ARGUMENT, "grpc-timeout must be", "200");
    refused("grpc-timeout", "", SLU_GRPC_INVALID_ARGUMENT, "grpc-timeout must be", "200");
    ck_assert_int_eq(check_with("grpc-timeout", "5m"), 0);
    ck_assert_int_eq(slu_grpc_headers_check(&h, MOST, NOW + 4999, why), 0);
    ck_assert_int_eq(slu_grpc_headers_check(&h, MOST, NOW + 5000, why), SLU_GRPC_DEADLINE_EXCEEDED);
}
END_TEST

START_TEST(test_encodings)
{
    ck_assert_int_eq(check_with("grpc-encoding", "gzip"), 0); /* refused when a message is packed */
    ck_assert(!h.identity);
    ck_assert_int_eq(check_with("grpc-encoding", "identity"), 0);
    ck_assert(h.identity);
    ck_assert_int_eq(check_with("grpc-encoding", "identity2"), 0);
    ck_assert(!h.identity);
}
END_TEST

/* Counted as HTTP/2 counts, refused above the limit and before anything else, never round. */
START_TEST(test_sizes)
{
    begin();
    take("ab", "cde");
    take("", "");
    ck_assert_uint_eq(h.bytes, 37 + 32);
    check_with("x", "");
    const uint32_t rest = h.bytes;
    char value[MOST + 1];
    memset(value, 'v', MOST);
    value[MOST - rest] = 0;
    ck_assert_int_eq(check_with("x", value), 0);
    ck_assert_uint_eq(h.bytes, MOST);
    value[MOST - rest] = 'v';
    value[MOST - rest + 1] = 0;
    refused("x", value, SLU_GRPC_RESOURCE_EXHAUSTED, "1001 bytes of headers are over the limit of 1000",
            "200");
    take(":method", "GET");
    ck_assert_int_eq(slu_grpc_headers_check(&h, MOST, NOW, why), SLU_GRPC_RESOURCE_EXHAUSTED);
    begin();
    for (int i = 0; i < 3; i++) /* of a size that only its length says: an unknown name's value is not read */
        slu_grpc_headers_take(&h, routes, NOW, (const uint8_t *)"x", 1, (const uint8_t *)"", 3u << 30);
    ck_assert_uint_eq(h.bytes, UINT32_MAX);
}
END_TEST

START_TEST(test_the_last_one_holds)
{
    begin();
    take(":method", "GET");
    take(":path", "/t.S/Nope");
    take("content-type", "text/html");
    take("grpc-encoding", "gzip");
    ck_assert_int_ne(slu_grpc_headers_check(&h, MOST, NOW, why), 0);
    take(":path", "/t.S/Echo");
    take(":method", "POST");
    take("content-type", "application/grpc");
    take("grpc-encoding", "identity");
    ck_assert_int_eq(slu_grpc_headers_check(&h, MOST, NOW, why), 0);
    ck_assert(h.identity);
}
END_TEST

int main(void)
{
    slu_error err = SLU_ERROR_INIT;
    routes = slu_grpc_routes_new();
    if (!routes || slu_grpc_routes_add(routes, "/t.S/Echo", SLU_GRPC_UNARY, false, handle, NULL, &err)) {
        fprintf(stderr, "no routes: %s\n", err.message);
        return EXIT_FAILURE;
    }
    int rc =
        run_suite("grpc_headers",
                  (const TTest *[]){test_good_ones, test_content_types, test_methods_and_paths, test_timeouts,
                                    test_encodings, test_sizes, test_the_last_one_holds, NULL});
    slu_grpc_routes_free(routes);
    return rc;
}
