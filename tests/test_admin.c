#include "base/admin.h"
#include "base/metrics.h"
#include "tests/suite.h"
#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static atomic_bool fit = true;

static bool ready(void *ctx, slu_buf *why)
{
    (void)ctx;
    if (!fit)
        slu_put_bytes(why, "no <model> yet", 14);
    return fit;
}

static void status(void *ctx, slu_buf *html)
{
    slu_put_bytes(html, ctx, strlen(ctx));
}

static int dial(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct timeval patience = {.tv_sec = 20};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    return fd;
}

/* The whole answer to |request|. */
static const char *ask(int port, const char *request)
{
    static char answer[1 << 20];
    int fd = dial(port);
    size_t n = 0;
    ck_assert_int_eq(send(fd, request, strlen(request), MSG_NOSIGNAL), (int)strlen(request));
    for (ssize_t got; (got = recv(fd, answer + n, sizeof answer - 1 - n, 0)) > 0; n += (size_t)got)
        ;
    answer[n] = 0;
    close(fd);
    return answer;
}

static const char *get(int port, const char *path)
{
    char request[256];
    snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
             path);
    return ask(port, request);
}

static slu_admin *start(const slu_admin_opts *more)
{
    slu_admin *a;
    slu_error err = SLU_ERROR_INIT;
    slu_admin_opts opts = *more;
    opts.listen = "127.0.0.1:0";
    opts.program = "sluice-test";
    ck_assert_msg(!slu_admin_start(&opts, &a, &err), "%s", err.message);
    ck_assert_int_gt(slu_admin_port(a), 0);
    return a;
}

#define HAS(text, part) ck_assert_msg(strstr(text, part), "'%s' is not in:\n%s", part, text)

START_TEST(test_pages)
{
    slu_metric_add(slu_counter("sluice_test_events_total", "kind=\"click\"", "Events <seen>."), 41);
    slu_metric_observe(slu_histogram("sluice_test_seconds", NULL, "Time.", 0.001, 2, 10), 0.003);
    slu_admin *a = start(&(slu_admin_opts){.ready = ready});
    int port = slu_admin_port(a);
    const char *text = get(port, "/metrics");
    HAS(text, "HTTP/1.1 200");
    HAS(text, "text/plain; version=0.0.4");
    HAS(text, "sluice_test_events_total{kind=\"click\"} 41\n");
    HAS(text, "sluice_build_info{program=\"sluice-test\",version=\"" SLU_VERSION "\"} 1\n");
    HAS(text, "\nprocess_resident_memory_bytes ");
    HAS(get(port, "/healthz"), "\r\n\r\nok\n");
    text = get(port, "/");
    HAS(text, "Content-Type: text/html");
    HAS(text, "<h1>sluice-test</h1>");
    HAS(text, "version " SLU_VERSION);
    HAS(text, "Events &lt;seen&gt;.");
    HAS(text, "kind=&quot;click&quot;");
    HAS(text, "<td class=n>41</tr>");
    HAS(text, "http-equiv=refresh");
    HAS(text, "class=good>ready");
    slu_admin_stop(a);
    slu_admin_stop(NULL);
}
END_TEST

START_TEST(test_readiness)
{
    slu_admin *a = start(&(slu_admin_opts){.ready = ready, .status = status, .ctx = "<p>own body</p>"});
    int port = slu_admin_port(a);
    const char *text = get(port, "/readyz");
    HAS(text, "HTTP/1.1 200");
    HAS(text, "\r\n\r\nready\n");
    fit = false;
    text = get(port, "/readyz");
    HAS(text, "HTTP/1.1 503");
    HAS(text, "\r\n\r\nno <model> yet\n");
    text = get(port, "/");
    HAS(text, "not ready: no &lt;model&gt; yet");
    HAS(text, "<p>own body</p>");
    slu_admin_stop(a);
}
END_TEST

START_TEST(test_refusals)
{
    slu_admin *a = start(&(slu_admin_opts){0});
    int port = slu_admin_port(a);
    HAS(get(port, "/nothing"), "HTTP/1.1 404");
    HAS(get(port, "/../etc/passwd"), "HTTP/1.1 404");
    const char *text =
        ask(port,
            "POST /metrics HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nConnection: close\r\n\r\nabc");
    HAS(text, "HTTP/1.1 405");
    HAS(text, "Allow: GET, HEAD");
    text = ask(port, "HEAD /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    HAS(text, "HTTP/1.1 200");
    ck_assert_str_eq(strstr(text, "\r\n\r\n"), "\r\n\r\n"); /* headers only */
    static char huge[64 << 10];
    size_t n = (size_t)snprintf(huge, sizeof huge, "GET / HTTP/1.1\r\nHost: localhost\r\nX-Long: ");
    memset(huge + n, 'a', sizeof huge - n - 1);
    int fd = dial(port);
    send(fd, huge, sizeof huge - 1, MSG_NOSIGNAL);
    close(fd);
    ask(port, "\x16\x03\x01 not http at all\r\n\r\n");
    HAS(get(port, "/healthz"), "ok"); /* still there */
    slu_admin_stop(a);
}
END_TEST

START_TEST(test_bad_addresses)
{
    slu_admin *a = start(&(slu_admin_opts){0}), *b;
    slu_error err = SLU_ERROR_INIT;
    char taken[32];
    snprintf(taken, sizeof taken, "127.0.0.1:%d", slu_admin_port(a));
    slu_admin_opts opts = {.listen = taken, .program = "sluice-test"};
    ck_assert_int_eq(slu_admin_start(&opts, &b, &err), SLU_EIO);
    ck_assert_ptr_null(b);
    HAS(err.message, taken);
    HAS(err.message, "another process has this port");
    static const char *const bad[] = {
        "", "9090", "127.0.0.1:", ":80", "no such host:80", "127.0.0.1:http-not-a-service"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        slu_error_clear(&err);
        opts.listen = bad[i];
        ck_assert_msg(slu_admin_start(&opts, &b, &err) == SLU_EINVAL, "%s: %s", bad[i], err.message);
    }
    slu_admin_stop(a);
}
END_TEST

START_TEST(test_strangers_are_turned_away)
{
    static const char *const local[] = {"localhost", "LOCALHOST:80", "127.0.0.1", "127.0.0.1:9464",
                                        "127.8.9.1", "[::1]",        "[::1]:9464"};
    static const char *const strange[] = {"evil.example",
                                          "127.0.0.1.evil.example",
                                          "127.0.0.1.evil.example:80",
                                          "localhost.evil.example",
                                          "localhost:80.evil.example",
                                          "10.0.0.1",
                                          "",
                                          ":80",
                                          "[::1",
                                          "[::2]:80",
                                          "::1",
                                          "localhost:",
                                          "127.0.0.1 "};
    for (size_t i = 0; i < sizeof local / sizeof *local; i++)
        ck_assert_msg(slu_admin_is_local(local[i]), "%s", local[i]);
    for (size_t i = 0; i < sizeof strange / sizeof *strange; i++)
        ck_assert_msg(!slu_admin_is_local(strange[i]), "%s", strange[i]);
    slu_admin *a = start(&(slu_admin_opts){0});
    int port = slu_admin_port(a);
    static const char *const pages[] = {"/", "/metrics", "/healthz", "/readyz", "/other"};
    for (size_t i = 0; i < sizeof pages / sizeof *pages; i++) {
        char request[200];
        snprintf(request, sizeof request,
                 "GET %s HTTP/1.1\r\nHost: evil.example:%d\r\nConnection: close\r\n\r\n", pages[i], port);
        const char *text = ask(port, request);
        HAS(text, "HTTP/1.1 421");
        HAS(text, "use 127.0.0.1 or localhost");
        ck_assert_ptr_null(strstr(text, "sluice_"));
    }
    HAS(ask(port, "GET /healthz HTTP/1.0\r\n\r\n"), "\r\n\r\nok\n"); /* no browser */
    slu_admin_stop(a);
}
END_TEST

START_TEST(test_headers_and_bodies)
{
    slu_admin *a = start(&(slu_admin_opts){0});
    int port = slu_admin_port(a);
    const char *text = get(port, "/");
    HAS(text, "default-src 'none'");
    HAS(text, "frame-ancestors 'none'");
    HAS(text, "form-action 'none'");
    HAS(text, "X-Frame-Options: DENY");
    HAS(text, "X-Content-Type-Options: nosniff");
    HAS(text, "Referrer-Policy: no-referrer");
    static const char *const methods[] = {"POST",  "PUT",   "DELETE",  "OPTIONS",
                                          "PATCH", "TRACE", "CONNECT", "BREW"};
    for (size_t i = 0; i < sizeof methods / sizeof *methods; i++) {
        char request[200];
        snprintf(request, sizeof request,
                 "%s /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", methods[i]);
        HAS(ask(port, request), "HTTP/1.1 405");
    }
    /* A body is not read, however large it says it is. */
    text = ask(port, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\nabcdef");
    ck_assert_ptr_null(strstr(text, "200"));
    HAS(get(port, "/healthz"), "ok");
    slu_admin_stop(a);
}
END_TEST

static void *hammer(void *arg)
{
    char request[] = "GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", rest[4096];
    for (int i = 0; i < 20; i++) {
        int fd = dial(*(int *)arg);
        send(fd, request, strlen(request), MSG_NOSIGNAL);
        while (recv(fd, rest, sizeof rest, 0) > 0)
            ;
        close(fd);
    }
    return NULL;
}

START_TEST(test_many_clients)
{
    slu_admin *a = start(&(slu_admin_opts){0});
    int port = slu_admin_port(a);
    pthread_t threads[8];
    for (int i = 0; i < 8; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, hammer, &port), 0);
    for (int i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    HAS(get(port, "/healthz"), "ok");
    slu_admin_stop(a);
}
END_TEST

/* The library dies of a request that it refuses by itself while it is being stopped: none may be left then.
 */
START_TEST(test_stopped_while_refusing)
{
    static const char malformed[] = "\x16\x03\x01 not http at all\r\n\r\n";
    for (int round = 0; round < suite_share(300, 30); round++) {
        slu_admin *a = start(&(slu_admin_opts){0});
        int fds[8], port = slu_admin_port(a);
        for (int i = 0; i < 8; i++)
            fds[i] = dial(port);
        for (int i = 0; i < 8; i++)
            ck_assert_int_gt(send(fds[i], malformed, sizeof malformed - 1, MSG_NOSIGNAL), 0);
        slu_admin_stop(a);
        for (int i = 0; i < 8; i++)
            close(fds[i]);
    }
}
END_TEST

int main(void)
{
    return run_suite("admin", (const TTest *[]){test_pages, test_readiness, test_refusals, test_bad_addresses,
                                                test_strangers_are_turned_away, test_headers_and_bodies,
                                                test_many_clients, test_stopped_while_refusing, NULL});
}
