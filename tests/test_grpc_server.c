/* The server over real sockets on loopback, asked by the small client of the simulator. */
#include "base/clock.h"
#include "base/log.h"
#include "serving/crew.h"
#include "serving/grpc_server.h"
#include "sim/grpc_client.h"
#include "tests/suite.h"
#include "tests/tls_sample.h"
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static slu_grpc_server *server;
static char address[64];
static slu_error err;

static slu_grpc_status echo(void *ctx, slu_grpc_call *call)
{
    (void)ctx;
    if (call->request_len)
        slu_put_bytes(call->response, call->request, call->request_len);
    return SLU_GRPC_OK;
}

/* Sleeps as many ms as the request has bytes. */
static slu_grpc_status nap(void *ctx, slu_grpc_call *call)
{
    (void)ctx;
    usleep((useconds_t)call->request_len * 1000);
    return SLU_GRPC_OK;
}

/* Neither of two pieces ends before two threads are inside. */
static void meet(void *ctx, uint32_t who, uint32_t piece)
{
    _Atomic uint32_t *inside = ctx;
    (void)who, (void)piece;
    atomic_fetch_add(inside, 1);
    while (atomic_load(inside) < 2)
        slu_pieces_breathe();
}

static slu_grpc_status together(void *ctx, slu_grpc_call *call)
{
    _Atomic uint32_t inside = 0;
    (void)ctx;
    while (!slu_crew_idle(call->crew)) /* the other loop is about to sleep */
        usleep(100);
    slu_crew_run(call->crew, call->thread, meet, &inside, 2);
    return SLU_GRPC_OK;
}

static slu_grpc_status alone(void *ctx, slu_grpc_call *call)
{
    (void)ctx;
    return call->crew ? SLU_GRPC_INTERNAL : SLU_GRPC_OK;
}

static slu_grpc_status refuse(void *ctx, slu_grpc_call *call)
{
    (void)ctx;
    snprintf(call->message, sizeof call->message, "no: %zu%%", call->request_len);
    return SLU_GRPC_NOT_FOUND;
}

static const slu_grpc_method methods[] = {{"/t.S/Echo", echo, NULL},   {"/t.S/Nap", nap, NULL},
                                          {"/t.S/Fail", refuse, NULL}, {"/t.S/Together", together, NULL},
                                          {"/t.S/Alone", alone, NULL}, {NULL, NULL, NULL}};

static slu_serving_opts options(void)
{
    return (slu_serving_opts){.listen = "127.0.0.1:0",
                              .threads = 2,
                              .max_request_bytes = 1 << 20,
                              .max_streams = 64,
                              .max_connections = 4,
                              .max_queue = 100};
}

static void start(void)
{
    slu_serving_opts opts = options();
    slu_log_setup(SLU_LOG_ERROR, SLU_LOGFMT);
    slu_error_clear(&err);
    ck_assert_msg(slu_grpc_server_start(&opts, methods, &server, &err) == 0, "%s", err.message);
    snprintf(address, sizeof address, "127.0.0.1:%d", slu_grpc_server_port(server));
}

static slu_grpc_client *client(void)
{
    slu_grpc_client *c;
    slu_error_clear(&err);
    ck_assert_msg(slu_grpc_client_connect(address, 5 * SLU_SECOND_US, &c, &err) == 0, "%s", err.message);
    return c;
}

START_TEST(test_calls)
{
    start();
    slu_grpc_client *c = client();
    slu_buf answer = SLU_BUF_INIT;
    char message[200];
    uint8_t *body = malloc(1 << 20);
    memset(body, 'b', 1 << 20);
    static const size_t sizes[] = {0, 1, 16384, 65536, 1 << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        int status =
            slu_grpc_client_call(c, "/t.S/Echo", body, sizes[i], 5 * SLU_SECOND_US, &answer, message, 200);
        ck_assert_msg(status == 0, "%d %s", status, message);
        ck_assert_uint_eq(answer.len, sizes[i]);
        ck_assert(!sizes[i] || !memcmp(answer.data, body, sizes[i]));
    }
    ck_assert_int_eq(slu_grpc_client_call(c, "/t.S/Fail", body, 7, 0, &answer, message, 200),
                     SLU_GRPC_NOT_FOUND);
    ck_assert_str_eq(message, "no: 7%");
    ck_assert_int_eq(slu_grpc_client_call(c, "/t.S/None", body, 7, 0, &answer, message, 200),
                     SLU_GRPC_UNIMPLEMENTED);
    ck_assert_int_eq(slu_grpc_client_call(c, "/t.S/Nap", body, 300, 20000, &answer, message, 200),
                     SLU_GRPC_DEADLINE_EXCEEDED);
    ck_assert_int_eq(slu_grpc_client_call(c, "/t.S/Echo", body, 7, 0, &answer, message, 200), 0);
    slu_buf_free(&answer);
    free(body);
    slu_grpc_client_free(c);
    slu_grpc_server_free(server);
}
END_TEST

/* One connection, so one loop has all requests: the other one comes and helps, each time. */
START_TEST(test_an_idle_loop_helps)
{
    start();
    slu_grpc_client *c = client();
    slu_buf answer = SLU_BUF_INIT;
    char message[200];
    for (int round = 0; round < 100; round++) {
        int status =
            slu_grpc_client_call(c, "/t.S/Together", "", 0, 30 * SLU_SECOND_US, &answer, message, 200);
        ck_assert_msg(status == 0, "round %d: %d %s", round, status, message);
    }
    slu_grpc_client_free(c);
    slu_grpc_server_free(server);

    slu_serving_opts opts = options();
    opts.threads = 1; /* nobody to help */
    ck_assert_msg(slu_grpc_server_start(&opts, methods, &server, &err) == 0, "%s", err.message);
    snprintf(address, sizeof address, "127.0.0.1:%d", slu_grpc_server_port(server));
    c = client();
    ck_assert_int_eq(slu_grpc_client_call(c, "/t.S/Alone", "", 0, 30 * SLU_SECOND_US, &answer, message, 200),
                     0);
    slu_buf_free(&answer);
    slu_grpc_client_free(c);
    slu_grpc_server_free(server);
}
END_TEST

START_TEST(test_many_in_flight)
{
    start();
    slu_grpc_client *c = client();
    slu_buf answer = SLU_BUF_INIT;
    char message[200], text[32];
    int slots[50];
    for (int round = 0; round < 20; round++) {
        for (int i = 0; i < 50; i++) {
            int n = snprintf(text, sizeof text, "%d-%d", round, i);
            slots[i] = slu_grpc_client_start(c, "/t.S/Echo", text, (size_t)n, 0, message, 200);
            ck_assert_msg(slots[i] >= 0, "%s", message);
        }
        for (int i = 49; i >= 0; i--) {
            size_t n = (size_t)snprintf(text, sizeof text, "%d-%d", round, i);
            ck_assert_int_eq(slu_grpc_client_wait(c, slots[i], &answer, message, 200), 0);
            ck_assert_uint_eq(answer.len, n);
            ck_assert(!memcmp(answer.data, text, n));
        }
    }
    slu_buf_free(&answer);
    slu_grpc_client_free(c);
    slu_grpc_server_free(server);
}
END_TEST

START_TEST(test_port_taken_and_bad_addresses)
{
    start();
    slu_grpc_server *other;
    slu_serving_opts opts = options();
    opts.listen = address;
    ck_assert_int_eq(slu_grpc_server_start(&opts, methods, &other, &err), SLU_EIO);
    ck_assert_msg(strstr(err.message, "cannot listen on 127.0.0.1:") != NULL, "%s", err.message);
    static char *bad[] = {"", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        opts.listen = bad[i];
        slu_error_clear(&err);
        ck_assert_int_eq(slu_grpc_server_start(&opts, methods, &other, &err), SLU_EINVAL);
        ck_assert_ptr_null(other);
    }
    slu_grpc_server_free(server);
}
END_TEST

static int echo_status(slu_grpc_client *c)
{
    slu_buf answer = SLU_BUF_INIT;
    int status = slu_grpc_client_call(c, "/t.S/Echo", "x", 1, 20 * SLU_SECOND_US, &answer, NULL, 0);
    slu_buf_free(&answer);
    return status;
}

/* Those that have had an answer just now do not make room; on a slow machine that is a second ago. */
START_TEST(test_too_many_connections)
{
    start();
    slu_grpc_client *c[4] = {NULL}, *extra;
    for (bool refused = false; !refused;) {
        int64_t began = slu_mono_us(&slu_system_clock);
        for (int i = 0; i < 4; i++) {
            slu_grpc_client_free(c[i]);
            do
                c[i] = client();
            while (echo_status(c[i]) &&
                   (slu_grpc_client_free(c[i]), true)); /* the last one's are closed soon */
        }
        slu_error_clear(&err);
        int rc = slu_grpc_client_connect(address, 20 * SLU_SECOND_US, &extra, &err);
        refused = rc == SLU_EIO;
        ck_assert(refused || slu_mono_us(&slu_system_clock) - began >= SLU_SECOND_US);
        slu_grpc_client_free(extra);
    }
    for (int i = 0; i < 4; i++)
        slu_grpc_client_free(c[i]);
    int rc = SLU_EIO; /* the server notices the closed ones in its own time */
    for (int i = 0; rc && i < 100; i++) {
        usleep(20000);
        slu_error_clear(&err);
        rc = slu_grpc_client_connect(address, 5 * SLU_SECOND_US, &extra, &err);
    }
    ck_assert_int_eq(rc, 0);
    slu_grpc_client_free(extra);
    slu_grpc_server_free(server);
}
END_TEST

/* Those of some sockets that the other side has said goodbye to. */
static int closed_of(const int *fds, int n)
{
    int closed = 0;
    char byte;
    for (int i = 0; i < n; i++)
        closed += recv(fds[i], &byte, 1, MSG_DONTWAIT | MSG_PEEK) >= 0 || errno == ECONNRESET;
    return closed;
}

/* Who asks nothing makes room for who does, whatever the order they came in. */
START_TEST(test_silent_ones_make_room)
{
    enum { SILENT = 40 };
    start();
    int silent[SILENT];
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)slu_grpc_server_port(server))};
    inet_pton(AF_INET, "127.0.0.1", &to.sin_addr);
    slu_grpc_client *first = client();
    ck_assert_int_eq(echo_status(first), 0);
    for (int i = 0; i < SILENT; i++) {
        silent[i] = socket(AF_INET, SOCK_STREAM, 0);
        ck_assert(!connect(silent[i], (struct sockaddr *)&to, sizeof to));
        ck_assert_int_eq(echo_status(first), 0);
    }
    /* Until it has been answered it is silent, too: where the other loop is behind with accepting, it comes
     * again. */
    slu_grpc_client *last = NULL;
    for (int tries = 0;; tries++) {
        ck_assert_msg(tries < 100, "%s", err.message);
        slu_error_clear(&err);
        if (!slu_grpc_client_connect(address, 5 * SLU_SECOND_US, &last, &err) && !echo_status(last))
            break;
        slu_grpc_client_free(last);
        last = NULL;
        usleep(20000);
    }
    ck_assert_int_eq(echo_status(first), 0);
    /* Four connections may be, one of which asks; the other loop accepts in its own time. */
    for (int tries = 0; closed_of(silent, SILENT) < SILENT - 3; tries++) {
        ck_assert_int_lt(tries, 1000);
        usleep(20000);
    }
    for (int i = 0; i < SILENT; i++)
        close(silent[i]);
    slu_grpc_client_free(first);
    slu_grpc_client_free(last);
    slu_grpc_server_free(server);
}
END_TEST

static void *drain(void *result)
{
    *(uint32_t *)result = slu_grpc_server_drain(server, 5 * SLU_SECOND_US);
    return NULL;
}

START_TEST(test_drain_lets_calls_finish)
{
    start();
    slu_grpc_client *c = client();
    slu_buf answer = SLU_BUF_INIT;
    char message[200], body[300] = {0};
    int slot = slu_grpc_client_start(c, "/t.S/Nap", body, sizeof body, 0, message, 200);
    usleep(50000);
    uint32_t cut = 99;
    pthread_t thread;
    pthread_create(&thread, NULL, drain, &cut);
    ck_assert_int_eq(slu_grpc_client_wait(c, slot, &answer, message, 200), 0);
    while (!slu_grpc_client_call(c, "/t.S/Echo", "", 0, SLU_SECOND_US, &answer, message, 200))
        usleep(1000); /* the thread that drains may not have run yet */
    pthread_join(thread, NULL);
    ck_assert_uint_eq(cut, 0);
    slu_grpc_client_free(c);
    slu_grpc_server_free(server);
    ck_assert_int_eq(slu_grpc_client_connect(address, SLU_SECOND_US, &c, &err), SLU_EIO);
    slu_buf_free(&answer);
}
END_TEST

START_TEST(test_http1_is_told)
{
    start();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((uint16_t)slu_grpc_server_port(server))};
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ck_assert_int_eq(connect(fd, (struct sockaddr *)&to, sizeof to), 0);
    ck_assert_int_eq(send(fd, "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    char text[500] = "";
    size_t have = 0;
    ssize_t n;
    while ((n = recv(fd, text + have, sizeof text - 1 - have, 0)) > 0)
        have += (size_t)n;
    ck_assert_int_eq(n, 0);
    ck_assert_msg(strstr(text, "gRPC over HTTP/2") != NULL, "%s", text);
    close(fd);
    slu_grpc_server_free(server);
}
END_TEST

/* ---- over TLS ---- */

static char tls_dir[] = "/tmp/sluice-server-XXXXXX";
static char ca_file[64], certificate_file[64], key_file[64];
static slu_client_tls_files tls_files = {.ca = ca_file};

static void start_tls(void)
{
    ck_assert_ptr_nonnull(mkdtemp(tls_dir));
    signal(SIGPIPE, SIG_IGN);
    snprintf(ca_file, sizeof ca_file, "%s/ca.pem", tls_dir);
    snprintf(certificate_file, sizeof certificate_file, "%s/server.pem", tls_dir);
    snprintf(key_file, sizeof key_file, "%s/server.key", tls_dir);
    tls_authority ca = tls_authority_new("CA", -TLS_DAY, 100 * TLS_DAY);
    tls_write(ca.certificate, ca_file, "w");
    tls_issue(&ca, "server", "serverAuth", -TLS_DAY, 100 * TLS_DAY, certificate_file, key_file);
    tls_authority_free(&ca);
    slu_serving_opts opts = options();
    opts.tls_certificate = certificate_file;
    opts.tls_key = key_file;
    opts.tls_handshake_us = 20 * SLU_SECOND_US;
    slu_log_setup(SLU_LOG_ERROR, SLU_LOGFMT);
    slu_error_clear(&err);
    ck_assert_msg(slu_grpc_server_start(&opts, methods, &server, &err) == 0, "%s", err.message);
    snprintf(address, sizeof address, "127.0.0.1:%d", slu_grpc_server_port(server));
}

static void stop_tls(void)
{
    slu_grpc_server_free(server);
    unlink(ca_file);
    unlink(certificate_file);
    unlink(key_file);
    rmdir(tls_dir);
}

static void echo_over_tls(slu_grpc_client *c, const uint8_t *body, size_t n)
{
    slu_buf answer = SLU_BUF_INIT;
    char message[200];
    int status = slu_grpc_client_call(c, "/t.S/Echo", body, n, 30 * SLU_SECOND_US, &answer, message, 200);
    ck_assert_msg(status == 0, "%d %s", status, message);
    ck_assert_uint_eq(answer.len, n);
    ck_assert(!n || !memcmp(answer.data, body, n));
    slu_buf_free(&answer);
}

static slu_grpc_client *tls_client(void)
{
    slu_grpc_client *c;
    slu_error_clear(&err);
    ck_assert_msg(slu_grpc_client_connect_tls(address, &tls_files, 30 * SLU_SECOND_US, &c, &err) == 0, "%s",
                  err.message);
    return c;
}

static atomic_bool enough;

static void *refresh_all_the_time(void *count)
{
    while (!atomic_load(&enough))
        *(int *)count += slu_grpc_server_refresh_tls(server, true);
    return NULL;
}

/* Connections come and go and carry everything from nothing to a megabyte, while the certificate is loaded
 * again and again: no call fails, and the one that was there first lives on. */
START_TEST(test_tls_calls_while_certificates_change)
{
    start_tls();
    static uint8_t body[1 << 20];
    for (size_t i = 0; i < sizeof body; i++)
        body[i] = (uint8_t)(i * 31 + i / 253);
    int refreshed = 0;
    pthread_t thread;
    slu_grpc_client *first = tls_client();
    ck_assert_int_eq(pthread_create(&thread, NULL, refresh_all_the_time, &refreshed), 0);
    static const size_t sizes[] = {0, 1, 16384, 16385, 100000, 1 << 20};
    for (int round = 0; round < 6; round++) {
        slu_grpc_client *c = tls_client();
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            echo_over_tls(c, body, sizes[i]);
        echo_over_tls(first, body, 70000);
        slu_grpc_client_free(c);
    }
    atomic_store(&enough, true);
    pthread_join(thread, NULL);
    ck_assert_int_gt(refreshed, 0);
    slu_grpc_client_free(first);
    stop_tls();
}
END_TEST

/* Plain text to a TLS port and TLS to a plain one end at once, and the next client is served. */
START_TEST(test_tls_and_plain_do_not_mix)
{
    slu_grpc_client *c;
    start_tls();
    ck_assert_int_eq(slu_grpc_client_connect(address, 30 * SLU_SECOND_US, &c, &err), SLU_EIO);
    c = tls_client();
    echo_over_tls(c, (const uint8_t *)"x", 1);
    slu_grpc_client_free(c);
    slu_grpc_server_free(server);
    start();
    ck_assert_int_eq(slu_grpc_client_connect_tls(address, &tls_files, 30 * SLU_SECOND_US, &c, &err), SLU_EIO);
    c = client();
    slu_grpc_client_free(c);
    stop_tls();
}
END_TEST

int main(void)
{
    return run_suite("grpc_server",
                     (const TTest *[]){test_calls, test_an_idle_loop_helps, test_many_in_flight,
                                       test_port_taken_and_bad_addresses, test_too_many_connections,
                                       test_silent_ones_make_room, test_drain_lets_calls_finish,
                                       test_http1_is_told, test_tls_calls_while_certificates_change,
                                       test_tls_and_plain_do_not_mix, NULL});
}
