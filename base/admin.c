/* The library's own thread waits in epoll; pages are made whole in memory, so a slow reader costs a buffer
 * and no lock. */
#include "base/admin.h"
#include "base/address.h"
#include "base/clock.h"
#include "base/metrics.h"
#include "base/process.h"
#include <arpa/inet.h>
#include <errno.h>
#include <math.h>
#include <microhttpd.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CONNECTIONS 64
#define MAX_PER_ADDRESS 32
#define MAX_MEMORY                                                                                           \
    ((size_t)16 << 10) /* per connection: request line and headers; more is answered 431 or 414 */
#define TIMEOUT_SECONDS 10u
#define HANG_UP_MS      1000 /* a stop waits so long at most; clients are gone in one or two */

struct slu_admin {
    struct MHD_Daemon *http;
    slu_admin_opts opts;
    char *program;
    int port;
    bool loopback;    /* listens where only this machine gets */
    int64_t start_us; /* monotonic */

    pthread_mutex_t lock; /* of clients */
    int clients[MAX_CONNECTIONS];
    unsigned n_clients;
};

static void put(slu_buf *out, const char *s)
{
    slu_put_bytes(out, s, strlen(s));
}

static void put_html(slu_buf *out, const char *s)
{
    for (; *s; s++) {
        if (*s == '<')
            put(out, "&lt;");
        else if (*s == '>')
            put(out, "&gt;");
        else if (*s == '&')
            put(out, "&amp;");
        else if (*s == '"')
            put(out, "&quot;");
        else
            slu_put_u8(out, (uint8_t)*s);
    }
}

/* ---- the status page ---- */

static const char page_style[] =
    ":root{color-scheme:light "
    "dark;--ink:#1c2330;--soft:#667085;--line:#e3e7ee;--back:#f7f8fa;--card:#fff;--accent:#2458c5;"
    "--good:#12784a;--warn:#9a6200;--bad:#b3261e;--s1:#9db7ea;--s2:#c0453b}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e9ef;--soft:#98a2b3;--line:#2c3442;--back:#12161d;--"
    "card:#1a2029;"
    "--accent:#8ab0ff;--good:#5fd39b;--warn:#f0b95a;--bad:#ff8a80;--s1:#3d5688;--s2:#ff8a80}}"
    "*{box-sizing:border-box}body{margin:0;background:var(--back);color:var(--ink);font:15px/1.5 "
    "system-ui,sans-serif}"
    "main{max-width:72rem;margin:0 auto;padding:1.5rem}"
    "header{display:flex;flex-wrap:wrap;gap:.25rem 1.25rem;align-items:baseline;margin-bottom:1rem}"
    "h1{font-size:1.35rem;margin:0}h2{font-size:1rem;margin:1.5rem 0 .5rem}header "
    "span,footer{color:var(--soft)}"
    ".good{color:var(--good)}.bad{color:var(--bad)}a{color:var(--accent)}"
    ".table{overflow-x:auto;background:var(--card);border:1px solid var(--line);border-radius:.5rem}"
    "table{border-collapse:collapse;width:100%}th,td{padding:.35rem .75rem;border-bottom:1px solid "
    "var(--line);"
    "text-align:left;vertical-align:top}tr:last-child "
    "td{border-bottom:0}th{color:var(--soft);font-weight:500}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"
    "small{color:var(--soft);display:block}footer{margin-top:1rem;font-size:.875rem}"
    ".verdict{display:flex;flex-wrap:wrap;gap:.25rem "
    "1rem;align-items:baseline;background:var(--card);border:1px solid "
    "var(--line);border-left:.3rem solid;border-radius:.5rem;padding:.6rem "
    "1rem}.verdict b{font-size:1.1rem}.verdict span{color:var(--ink)}"
    ".verdict.good{border-left-color:var(--good)}.verdict.warn{color:var(--warn);border-left-color:var(--"
    "warn)}"
    ".cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(max(12rem,(100% - (var(--n) - "
    "1)*.75rem)/var(--n)),1fr));gap:.75rem;margin:.75rem 0}"
    ".card{background:var(--card);border:1px solid "
    "var(--line);border-radius:.5rem;padding:.6rem 1rem;color:var(--ink)}"
    ".card h3{margin:0;font-size:.8125rem;font-weight:500;color:var(--soft)}"
    ".card "
    "b{display:block;font-size:1.6rem;font-weight:600;line-height:1.3;font-variant-numeric:tabular-nums}"
    ".card.good b{color:var(--good)}.card.warn b{color:var(--warn)}.card.bad b{color:var(--bad)}"
    ".curve{display:block;width:100%;height:2.2rem;margin-top:.35rem}"
    "td .curve{width:9rem;height:1.6rem;margin:0}"
    ".curve polyline{fill:none;stroke:var(--accent);stroke-width:1.5;vector-effect:non-scaling-stroke}"
    ".curve line{stroke:var(--soft);stroke-dasharray:3 3;vector-effect:non-scaling-stroke}"
    ".bar{display:flex;gap:2px;height:1.1rem;border-radius:.3rem;overflow:hidden;background:var(--line)}"
    ".bar i{min-width:2px}i.s0{background:var(--accent)}i.s1{background:var(--s1)}"
    "i.s2{background:var(--s2)}i.s3{background:var(--soft)}"
    ".facts td:first-child{width:22rem;color:var(--soft)}"
    ".legend{display:flex;flex-wrap:wrap;gap:.25rem 1.5rem;margin:.4rem 0;color:var(--soft)}"
    ".legend i{display:inline-block;width:.7rem;height:.7rem;border-radius:.15rem;margin-right:.4rem}"
    ".legend b{color:var(--ink);font-variant-numeric:tabular-nums}";

static void put_number(slu_buf *out, double v)
{
    char text[48];
    if (fabs(v) < 1e15 && v == floor(v)) /* counters: every digit */
        snprintf(text, sizeof text, "%.0f", v);
    else
        snprintf(text, sizeof text, "%.6g", v);
    put(out, text);
}

typedef struct table {
    slu_buf *out;
    char group[64]; /* part of the name that the rows below a heading share */
    char name[128]; /* of the row before: its help is shown once */
    bool open;
} table;

/* "sluice_trainer_events_total" belongs to "sluice trainer". */
static void group_of(const char *name, char *out, size_t size)
{
    size_t n = strcspn(name, "_");
    if (name[n])
        n += 1 + strcspn(name + n + 1, "_");
    snprintf(out, size, "%.*s", (int)n, name);
    for (char *c = out; *c; c++)
        if (*c == '_')
            *c = ' ';
}

static void close_table(table *t)
{
    if (t->open)
        put(t->out, "</table></div>\n");
    t->open = false;
}

static void open_table(table *t, const char *group)
{
    close_table(t);
    put(t->out, "<h2>");
    put_html(t->out, group);
    put(t->out, "</h2><div class=table><table><tr><th>metric<th>labels<th class=n>value</tr>\n");
    t->open = true;
    snprintf(t->group, sizeof t->group, "%s", group);
}

static void put_metric(void *ctx, const char *name, const char *type, const char *help, const char *labels,
                       const slu_metric *m)
{
    table *t = ctx;
    char group[64];
    group_of(name, group, sizeof group);
    if (!t->open || strcmp(group, t->group))
        open_table(t, group);
    put(t->out, "<tr><td>");
    if (strcmp(name, t->name)) {
        put_html(t->out, name);
        put(t->out, "<small>");
        put_html(t->out, help);
        put(t->out, "</small>");
    }
    snprintf(t->name, sizeof t->name, "%s", name);
    put(t->out, "<td>");
    put_html(t->out, labels);
    put(t->out, "<td class=n>");
    put_number(t->out, slu_metric_value(m));
    if (!strcmp(type, "histogram")) {
        static const struct {
            const char *name;
            double q;
        } shown[] = {{"p50", 0.5}, {"p99", 0.99}};
        put(t->out, " observed<small>");
        for (size_t i = 0; i < sizeof shown / sizeof *shown; i++) {
            put(t->out, i ? " &middot; " : "");
            put(t->out, shown[i].name);
            put(t->out, " &le; ");
            put_number(t->out, slu_metric_quantile(m, shown[i].q));
        }
        put(t->out, "</small>");
    }
    put(t->out, "</tr>\n");
}

static void put_uptime(slu_buf *out, int64_t us)
{
    char text[64];
    long s = (long)(us / SLU_SECOND_US);
    if (s >= 86400)
        snprintf(text, sizeof text, "%ldd %ldh", s / 86400, s / 3600 % 24);
    else if (s >= 3600)
        snprintf(text, sizeof text, "%ldh %ldm", s / 3600, s / 60 % 60);
    else
        snprintf(text, sizeof text, "%ldm %lds", s / 60, s % 60);
    put(out, text);
}

static bool is_ready(const slu_admin *a, slu_buf *why)
{
    return !a->opts.ready || a->opts.ready(a->opts.ctx, why);
}

static void make_page(const slu_admin *a, slu_buf *out)
{
    slu_buf why = SLU_BUF_INIT;
    bool ready = is_ready(a, &why);
    slu_put_u8(&why, 0);
    put(out,
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content=\"width=device-width\">"
        "<meta http-equiv=refresh content=5><title>");
    put_html(out, a->program);
    put(out, "</title><style>");
    put(out, page_style);
    put(out, "</style><main><header><h1>");
    put_html(out, a->program);
    put(out, "</h1><span>version " SLU_VERSION "</span><span>up ");
    put_uptime(out, slu_mono_us(&slu_system_clock) - a->start_us);
    put(out, ready ? "</span><span class=good>ready</span></header>\n" : "</span><span class=bad>not ready");
    if (!ready) {
        put(out, why.len > 1 ? ": " : "");
        put_html(out, (char *)why.data);
        put(out, "</span></header>\n");
    }
    if (a->opts.status) {
        a->opts.status(a->opts.ctx, out);
    } else {
        table t = {.out = out};
        slu_process_update(a->program);
        slu_metrics_each(put_metric, &t);
        close_table(&t);
    }
    put(out,
        "<footer><a href=/metrics>/metrics</a> &middot; <a href=/healthz>/healthz</a> &middot; "
        "<a href=/readyz>/readyz</a> &middot; this page renews itself every 5 s</footer></main></html>\n");
    slu_buf_free(&why);
}

/* ---- requests ---- */

/* Sends |body|, which it empties. */
static enum MHD_Result answer(struct MHD_Connection *c, unsigned status, const char *type, slu_buf *body)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(body->len, body->data, MHD_RESPMEM_MUST_FREE);
    if (!r) {
        slu_buf_free(body);
        return MHD_NO;
    }
    *body = (slu_buf)SLU_BUF_INIT;
    MHD_add_response_header(r, "Content-Type", type);
    MHD_add_response_header(r, "Cache-Control", "no-store");
    MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(
        r, "Content-Security-Policy",
        "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'");
    MHD_add_response_header(r, "X-Frame-Options", "DENY");
    MHD_add_response_header(r, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(r, "Cross-Origin-Resource-Policy", "same-origin");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        MHD_add_response_header(r, "Allow", "GET, HEAD");
    enum MHD_Result rc = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return rc;
}

static enum MHD_Result answer_text(struct MHD_Connection *c, unsigned status, const char *text)
{
    slu_buf body = SLU_BUF_INIT;
    put(&body, text);
    return answer(c, status, "text/plain; charset=utf-8", &body);
}

static enum MHD_Result answer_ready(const slu_admin *a, struct MHD_Connection *c)
{
    slu_buf body = SLU_BUF_INIT;
    bool ready = is_ready(a, &body);
    if (ready)
        slu_buf_clear(&body);
    if (!body.len)
        put(&body, ready ? "ready" : "not ready");
    put(&body, "\n");
    return answer(c, ready ? MHD_HTTP_OK : MHD_HTTP_SERVICE_UNAVAILABLE, "text/plain; charset=utf-8", &body);
}

bool slu_admin_is_local(const char *host)
{
    const char *port = host + strcspn(host, "]");
    port = strchr(*port ? port : host, ':');
    size_t n = port ? (size_t)(port - host) : strlen(host);
    if (port && (!port[1] || strspn(port + 1, "0123456789") != strlen(port + 1)))
        return false;
    if (n >= 4 && !strncmp(host, "127.", 4))
        return strspn(host, "0123456789.") >= n;
    return (n == 9 && !strncasecmp(host, "localhost", n)) || (n == 5 && !strncmp(host, "[::1]", n));
}

/* A browser always says to whom it thinks to be talking. */
static bool is_stranger(const slu_admin *a, struct MHD_Connection *c)
{
    const char *host = a->loopback ? MHD_lookup_connection_value(c, MHD_HEADER_KIND, "Host") : NULL;
    return host && !slu_admin_is_local(host);
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *c, const char *url, const char *method,
                                  const char *version, const char *upload, size_t *upload_size, void **state)
{
    static int seen;
    const slu_admin *a = ctx;
    slu_buf body = SLU_BUF_INIT;
    (void)version;
    (void)upload;
    /* The first call has only headers; an answer given now ends the connection, which suits refusals. */
    if (strcmp(method, MHD_HTTP_METHOD_GET) && strcmp(method, MHD_HTTP_METHOD_HEAD))
        return answer_text(c, MHD_HTTP_METHOD_NOT_ALLOWED, "only GET and HEAD\n");
    if (is_stranger(a, c))
        return answer_text(c, MHD_HTTP_MISDIRECTED_REQUEST,
                           "this page is for this machine: use 127.0.0.1 or localhost as its name\n");
    if (!*state) {
        *state = &seen;
        return MHD_YES;
    }
    if (*upload_size) /* a body that nobody asked for */
        return MHD_NO;
    if (!strcmp(url, "/metrics")) {
        slu_process_update(a->program);
        slu_metrics_print(&body);
        return answer(c, MHD_HTTP_OK, "text/plain; version=0.0.4; charset=utf-8", &body);
    }
    if (!strcmp(url, "/healthz"))
        return answer_text(c, MHD_HTTP_OK, "ok\n");
    if (!strcmp(url, "/readyz"))
        return answer_ready(a, c);
    if (!strcmp(url, "/digest") && a->opts.digest) {
        a->opts.digest(a->opts.ctx, &body);
        return answer(c, MHD_HTTP_OK, "text/plain; charset=utf-8", &body);
    }
    if (strcmp(url, "/"))
        return answer_text(c, MHD_HTTP_NOT_FOUND, "not here; try /, /metrics, /healthz or /readyz\n");
    make_page(a, &body);
    return answer(c, MHD_HTTP_OK, "text/html; charset=utf-8", &body);
}

/* ---- start and stop ---- */

/* A listening socket for "host:port" or "[v6]:port". */
static int open_socket(const char *listen_at, int *fdp, slu_error *err)
{
    slu_address at;
    int rc = slu_address_parse(listen_at, &at, err);
    if (rc)
        return rc;
    if (!*at.host) /* nobody is to open this page to the world by leaving something out */
        return slu_fail(err, SLU_EINVAL, "'%.100s' has no host; write 127.0.0.1:%s", listen_at, at.port);
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found;
    rc = getaddrinfo(at.host, at.port, &hints, &found);
    if (rc)
        return slu_fail(err, SLU_EINVAL, "cannot listen on '%.100s': %s", listen_at, gai_strerror(rc));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), one = 1;
    bool up = fd >= 0 && !setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) &&
              !bind(fd, found->ai_addr, found->ai_addrlen) && !listen(fd, MAX_CONNECTIONS);
    int why = errno;
    freeaddrinfo(found);
    if (up) {
        *fdp = fd;
        return 0;
    }
    if (fd >= 0)
        close(fd);
    return slu_fail(err, SLU_EIO, "cannot listen on %.100s: %s%s", listen_at, strerror(why),
                    why == EADDRINUSE
                        ? "; another process has this port, stop it or set another one with --set "
                          "admin.trainer=HOST:PORT or admin.scorer=HOST:PORT"
                        : "");
}

static bool is_loopback(const struct sockaddr_storage *at)
{
    if (at->ss_family == AF_INET6)
        return IN6_IS_ADDR_LOOPBACK(&((const struct sockaddr_in6 *)at)->sin6_addr);
    return ntohl(((const struct sockaddr_in *)at)->sin_addr.s_addr) >> 24 == 127;
}

static int port_of(int fd, bool *loopback)
{
    struct sockaddr_storage at;
    socklen_t n = sizeof at;
    if (getsockname(fd, (struct sockaddr *)&at, &n))
        return 0;
    *loopback = is_loopback(&at);
    return ntohs(at.ss_family == AF_INET6 ? ((struct sockaddr_in6 *)&at)->sin6_port
                                          : ((struct sockaddr_in *)&at)->sin_port);
}

/* Called by the library's thread, before a socket that has ended is closed. */
static void on_connection(void *ctx, struct MHD_Connection *c, void **state,
                          enum MHD_ConnectionNotificationCode what)
{
    slu_admin *a = ctx;
    (void)state;
    int fd = MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    pthread_mutex_lock(&a->lock);
    if (what == MHD_CONNECTION_NOTIFY_STARTED && a->n_clients < MAX_CONNECTIONS)
        a->clients[a->n_clients++] = fd;
    for (unsigned i = 0; what == MHD_CONNECTION_NOTIFY_CLOSED && i < a->n_clients; i++)
        if (a->clients[i] == fd) {
            a->clients[i] = a->clients[--a->n_clients];
            break;
        }
    pthread_mutex_unlock(&a->lock);
}

/* Ends what clients can send; true: there are none left. */
static bool hang_up(slu_admin *a)
{
    pthread_mutex_lock(&a->lock);
    bool none = !a->n_clients;
    for (unsigned i = 0; i < a->n_clients; i++)
        shutdown(a->clients[i], SHUT_RDWR);
    pthread_mutex_unlock(&a->lock);
    return none;
}

int slu_admin_start(const slu_admin_opts *opts, slu_admin **ap, slu_error *err)
{
    int fd, rc;
    *ap = NULL;
    rc = open_socket(opts->listen, &fd, err);
    if (rc)
        return rc;
    slu_admin *a = calloc(1, sizeof *a);
    if (!a || !(a->program = strdup(opts->program))) {
        rc = slu_fail(err, SLU_ENOMEM, "out of memory");
        goto fail;
    }
    pthread_mutex_init(&a->lock, NULL);
    a->opts = *opts;
    a->opts.listen = a->opts.program = NULL; /* the caller's, not to be used later */
    a->port = port_of(fd, &a->loopback);
    a->start_us = slu_mono_us(&slu_system_clock);
    a->http =
        MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL, NULL, on_request, a,
                         MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_CONNECTION_LIMIT, (unsigned)MAX_CONNECTIONS,
                         MHD_OPTION_PER_IP_CONNECTION_LIMIT, (unsigned)MAX_PER_ADDRESS,
                         MHD_OPTION_CONNECTION_MEMORY_LIMIT, MAX_MEMORY, MHD_OPTION_CONNECTION_TIMEOUT,
                         TIMEOUT_SECONDS, MHD_OPTION_NOTIFY_CONNECTION, on_connection, a, MHD_OPTION_END);
    if (!a->http) {
        rc = slu_fail(err, SLU_EIO, "cannot start the admin page on %.100s: %s", opts->listen,
                      strerror(errno));
        goto fail;
    }
    *ap = a;
    return 0;
fail:
    close(fd);
    if (a)
        free(a->program);
    free(a);
    return rc;
}

int slu_admin_port(const slu_admin *a)
{
    return a->port;
}

void slu_admin_stop(slu_admin *a)
{
    if (!a)
        return;
    /* libmicrohttpd 0.9.75 reads a null pointer when it refuses a request by itself, a malformed one, between
     * being told to stop and stopping. So it is told when it has no clients any more. */
    int fd = MHD_quiesce_daemon(a->http);
    for (int ms = 0; !hang_up(a) && ms < HANG_UP_MS; ms++)
        usleep(1000);
    MHD_stop_daemon(a->http);
    if (fd != MHD_INVALID_SOCKET)
        close(fd);
    pthread_mutex_destroy(&a->lock);
    free(a->program);
    free(a);
}
