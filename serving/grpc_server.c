#include "serving/grpc_server.h"
#include "base/address.h"
#include "base/log.h"
#include "proto/descriptors.h"
#include "serving/grpc_health.h"
#include "serving/grpc_loop.h"
#include "serving/grpc_reflection.h"
#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define BACKLOG     1024
#define MAX_THREADS 256

struct slu_grpc_server {
    slu_grpc_shared shared;
    slu_grpc_health health;
    slu_grpc_reflection reflection;
    slu_proto_index *index;
    slu_grpc_loop *loops[MAX_THREADS]; /* (n_loops) */
    uint32_t n_loops;
    uint16_t port;
};

/* A listener of its own for each thread: the kernel spreads connections over those of one port. */
static int listen_on(const struct sockaddr *to, socklen_t len)
{
    int on = 1, fd = socket(to->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on) ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof on) || bind(fd, to, len) ||
        listen(fd, BACKLOG)) {
        int keep = errno;
        close(fd);
        errno = keep;
        return -1;
    }
    return fd;
}

/* SO_REUSEPORT would let a second server of the same user share the port in silence. A bind without it fails
 * when anybody listens there. */
static int check_free(const struct sockaddr *to, socklen_t len)
{
    int on = 1, fd = socket(to->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    int rc = bind(fd, to, len), keep = errno;
    close(fd);
    errno = keep;
    return rc;
}

static uint16_t bound_port(int fd, struct sockaddr_storage *at, socklen_t *len)
{
    *len = sizeof *at;
    if (getsockname(fd, (struct sockaddr *)at, len))
        return 0;
    return ntohs(at->ss_family == AF_INET6 ? ((struct sockaddr_in6 *)at)->sin6_port
                                           : ((struct sockaddr_in *)at)->sin_port);
}

static int open_listeners(const char *address, int *fds, uint32_t n, uint16_t *port, slu_error *err)
{
    slu_address to;
    struct addrinfo *found, hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    int rc = slu_address_parse(address, &to, err);
    if (rc)
        return slu_error_context(err, "serving.listen"), rc;
    rc = getaddrinfo(*to.host ? to.host : NULL, to.port, &hints, &found);
    if (rc)
        return slu_fail(err, SLU_EIO, "serving.listen: %s: %s", address, gai_strerror(rc));
    struct sockaddr_storage at;
    socklen_t len = found->ai_addrlen;
    memcpy(&at, found->ai_addr, len);
    freeaddrinfo(found);
    rc = check_free((struct sockaddr *)&at, len);
    for (uint32_t i = 0; !rc && i < n; i++) {
        fds[i] = listen_on((struct sockaddr *)&at, len);
        if (fds[i] < 0)
            rc = -1;
        else if (i == 0)
            *port = bound_port(fds[0], &at, &len); /* the others join the port that the first one got */
    }
    if (rc)
        slu_fail(err, SLU_EIO, "cannot listen on %s: %s; stop what has the port or set serving.listen",
                 address, strerror(errno));
    for (uint32_t i = 0; rc && i < n; i++) {
        if (fds[i] >= 0)
            close(fds[i]);
        fds[i] = -1;
    }
    return rc ? SLU_EIO : 0;
}

static void setup_metrics(slu_grpc_shared *s)
{
    s->open = slu_gauge("sluice_grpc_connections", NULL, "Connections open now");
    s->accepted = slu_counter("sluice_grpc_connections_total", NULL, "Connections accepted");
    s->refused = slu_counter("sluice_grpc_refused_total", "reason=\"connections\"",
                             "Calls and connections refused, by reason");
    s->evicted = slu_counter("sluice_grpc_evicted_total", NULL, "Idle connections closed to make room");
    s->bytes_in = slu_counter("sluice_grpc_received_bytes_total", NULL, "Bytes read from connections");
    s->handshakes = slu_gauge("sluice_tls_handshakes_open", NULL, "TLS handshakes begun and not over");
    s->rounds = slu_histogram("sluice_grpc_round_cpu_seconds", NULL,
                              "Processor time of one round of an event loop", 10e-6, 1.5, 32);
    s->bytes_out = slu_counter("sluice_grpc_sent_bytes_total", NULL, "Bytes written to connections");
}

static int setup_routes(slu_grpc_server *s, const slu_grpc_method *methods, slu_error *err)
{
    s->shared.routes = slu_grpc_routes_new();
    if (!s->shared.routes)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the gRPC server");
    int rc = 0;
    for (; !rc && methods->path; methods++)
        rc = slu_grpc_routes_add(s->shared.routes, methods->path, SLU_GRPC_UNARY, false, methods->handler,
                                 methods->ctx, err);
    if (!rc)
        rc = slu_grpc_health_add(&s->health, s->shared.routes, err);
    if (!rc)
        rc = slu_proto_index_new(slu_descriptor_set, slu_descriptor_set_size, &s->index, err);
    s->reflection.index = s->index;
    return rc ? rc : slu_grpc_reflection_add(&s->reflection, s->shared.routes, err);
}

/* Half of the connections, spread over the loops. */
static uint32_t handshakes_of(const slu_serving_opts *o)
{
    uint32_t n = o->max_connections / 2 / o->threads;
    return n ? n : 1;
}

static int setup_tls(slu_grpc_shared *s, const slu_serving_opts *o, slu_error *err)
{
    if (!o->tls_certificate)
        return 0;
    s->handshake_us = o->tls_handshake_us;
    s->max_handshakes = handshakes_of(o);
    return slu_tls_open(o, &s->tls, err);
}

/* One thread has nobody to ask. */
static int setup_crew(slu_grpc_shared *s, const slu_serving_opts *o, slu_error *err)
{
    s->crew = o->threads > 1 ? slu_crew_new(o->threads) : NULL;
    return s->crew || o->threads == 1 ? 0 : slu_fail(err, SLU_ENOMEM, "out of memory for the gRPC server");
}

static int check_options(const slu_serving_opts *o, slu_error *err)
{
    if (!o->listen || !o->threads || o->threads > MAX_THREADS || !o->max_request_bytes || !o->max_streams ||
        !o->max_connections || !o->max_queue)
        return slu_fail(err, SLU_EINVAL,
                        "serving: listen is needed, threads must be 1 to %d, and every limit at least 1",
                        MAX_THREADS);
    return 0;
}

int slu_grpc_server_start(const slu_serving_opts *opts, const slu_grpc_method *methods, slu_grpc_server **sp,
                          slu_error *err)
{
    *sp = NULL;
    int rc = check_options(opts, err);
    if (rc)
        return rc;
    int fds[MAX_THREADS];
    memset(fds, -1, sizeof fds);
    slu_grpc_server *s = calloc(1, sizeof *s);
    if (!s)
        return slu_fail(err, SLU_ENOMEM, "out of memory for the gRPC server");
    s->shared.limits = slu_grpc_limits_of(opts);
    s->shared.max_connections = opts->max_connections;
    setup_metrics(&s->shared);
    rc = setup_routes(s, methods, err);
    if (!rc)
        rc = setup_tls(&s->shared, opts, err);
    if (!rc)
        rc = setup_crew(&s->shared, opts, err);
    if (!rc)
        rc = open_listeners(opts->listen, fds, opts->threads, &s->port, err);
    for (uint32_t i = 0; !rc && i < opts->threads; i++) {
        rc = slu_grpc_loop_start(&s->shared, fds[i], i, &s->loops[i], err);
        fds[i] = -1;
        s->n_loops += !rc;
    }
    if (rc) {
        for (uint32_t i = 0; i < opts->threads; i++)
            if (fds[i] >= 0)
                close(fds[i]);
        slu_grpc_server_free(s);
        return rc;
    }
    SLU_INFO("grpc", "listening", SLU_STR("listen", opts->listen), SLU_U64("port", s->port),
             SLU_U64("threads", s->n_loops), SLU_BOOL("tls", s->shared.tls != NULL));
    *sp = s;
    return 0;
}

int slu_grpc_server_port(const slu_grpc_server *s)
{
    return s->port;
}

static void wake_all(slu_grpc_server *s)
{
    for (uint32_t i = 0; i < s->n_loops; i++)
        slu_grpc_loop_wake(s->loops[i]);
}

void slu_grpc_server_set_serving(slu_grpc_server *s, bool serving)
{
    if (atomic_exchange(&s->health.serving, serving) == serving)
        return;
    atomic_fetch_add(&s->shared.changes, 1);
    wake_all(s);
}

bool slu_grpc_server_refresh_tls(slu_grpc_server *s, bool now)
{
    return s->shared.tls && slu_tls_refresh(s->shared.tls, now);
}

uint32_t slu_grpc_server_drain(slu_grpc_server *s, int64_t timeout_us)
{
    if (!s->n_loops)
        return 0;
    atomic_store(&s->health.serving, false);
    int64_t until = slu_mono_us(&slu_system_clock) + (timeout_us > 0 ? timeout_us : 0);
    atomic_store(&s->shared.drain_until_us, until > 0 ? until : 1);
    wake_all(s);
    uint32_t cut = 0;
    for (uint32_t i = 0; i < s->n_loops; i++)
        cut += slu_grpc_loop_join(s->loops[i]);
    for (uint32_t i = 0; i < s->n_loops; i++)
        slu_grpc_loop_free(s->loops[i]);
    s->n_loops = 0;
    SLU_INFO("grpc", "drained", SLU_U64("calls_cut_off", cut));
    return cut;
}

void slu_grpc_server_free(slu_grpc_server *s)
{
    if (!s)
        return;
    slu_grpc_server_drain(s, 0);
    slu_grpc_routes_free(s->shared.routes);
    slu_proto_index_free(s->index);
    slu_tls_free(s->shared.tls);
    slu_crew_free(s->shared.crew);
    free(s);
}
