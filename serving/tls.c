#include "serving/tls.h"
#include "base/bytes.h"
#include "base/log.h"
#include "base/metrics.h"
#include <assert.h>
#include <openssl/bio.h>
#include <openssl/err.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CLIENT_CHAIN ((long)32 << 10) /* bytes of certificates that a client may send */
#define KEEP_OUTPUT      ((size_t)64 << 10)
#define MAX_REPLIES      ((size_t)64 << 10) /* bytes of output that a client may cause and not read */

struct slu_tls {
    pthread_mutex_t lock; /* over ctx, which new connections take a reference of */
    SSL_CTX *ctx;
    char *certificate, *key, *client_ca;
    uint64_t loaded, seen; /* stamps of the files: as tried last, as of the last refresh */
    slu_metric *expiry, *ca_expiry, *reloads[2];
};

struct slu_tls_conn {
    SSL *ssl;
    const uint8_t *in; /* (in_len) what feed was given and OpenSSL did not take yet */
    size_t in_len;
    slu_buf out; /* the first out_at bytes of it are sent */
    size_t out_at;
    bool ready, broken;
    bool no_h2;
    slu_tls_result result;
    char why[256];
};

static slu_metric *results[SLU_TLS_RESULTS];

/* ---- OpenSSL reads and writes through these ---- */

static int bio_read(BIO *b, char *to, int n)
{
    slu_tls_conn *c = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    if (n <= 0)
        return 0;
    if (!c->in_len) {
        BIO_set_retry_read(b);
        return -1;
    }
    size_t take = (size_t)n < c->in_len ? (size_t)n : c->in_len;
    memcpy(to, c->in, take);
    c->in += take;
    c->in_len -= take;
    return (int)take;
}

static int bio_write(BIO *b, const char *from, int n)
{
    slu_tls_conn *c = BIO_get_data(b);
    BIO_clear_retry_flags(b);
    if (n > 0)
        slu_put_bytes(&c->out, from, (size_t)n);
    return n;
}

static long bio_ctrl(BIO *b, int command, long number, void *pointer)
{
    (void)b, (void)number, (void)pointer;
    return command == BIO_CTRL_FLUSH;
}

static BIO_METHOD *method;
static pthread_once_t once = PTHREAD_ONCE_INIT, results_once = PTHREAD_ONCE_INIT;

static void make_method(void)
{
    method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sluice connection");
    if (method && !(BIO_meth_set_read(method, bio_read) && BIO_meth_set_write(method, bio_write) &&
                    BIO_meth_set_ctrl(method, bio_ctrl))) {
        BIO_meth_free(method);
        method = NULL;
    }
}

/* ---- the context ---- */

/* A client without ALPN would be let in by OpenSSL; it could only be a mistake. */
static int on_hello(SSL *ssl, int *alert, void *unused)
{
    (void)unused;
    const unsigned char *list;
    size_t n;
    if (SSL_client_hello_get0_ext(ssl, TLSEXT_TYPE_application_layer_protocol_negotiation, &list, &n))
        return SSL_CLIENT_HELLO_SUCCESS;
    ((slu_tls_conn *)SSL_get_app_data(ssl))->no_h2 = true;
    *alert = SSL_AD_NO_APPLICATION_PROTOCOL;
    return SSL_CLIENT_HELLO_ERROR;
}

static int on_alpn(SSL *ssl, const unsigned char **out, unsigned char *out_len, const unsigned char *list,
                   unsigned n, void *unused)
{
    (void)unused;
    for (unsigned at = 0; at < n; at += 1 + list[at])
        if (list[at] == 2 && n - at > 2 && list[at + 1] == 'h' && list[at + 2] == '2') {
            *out = list + at + 1;
            *out_len = 2;
            return SSL_TLSEXT_ERR_OK;
        }
    ((slu_tls_conn *)SSL_get_app_data(ssl))->no_h2 = true;
    return SSL_TLSEXT_ERR_ALERT_FATAL;
}

static SSL_CTX *context_new(void)
{
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (!ctx)
        return NULL;
    SSL_CTX_set_options(ctx, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                                 SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_PRIORITIZE_CHACHA);
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS); /* idle connections cost little */
    SSL_CTX_set_session_cache_mode(ctx, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(ctx, 0);
    SSL_CTX_set_max_cert_list(ctx, MAX_CLIENT_CHAIN);
    SSL_CTX_set_client_hello_cb(ctx, on_hello, NULL);
    SSL_CTX_set_alpn_select_cb(ctx, on_alpn, NULL);
    if (SSL_CTX_set_min_proto_version(ctx, TLS1_2_VERSION) &&
        SSL_CTX_set_cipher_list(ctx, "ECDHE+AESGCM:ECDHE+CHACHA20") &&
        SSL_CTX_set1_groups_list(ctx, "X25519:P-256:P-384:P-521"))
        return ctx;
    SSL_CTX_free(ctx);
    return NULL;
}

static slu_tls_files files_of(const slu_tls *t)
{
    return (slu_tls_files){t->certificate, t->key, t->client_ca};
}

static int load(const slu_tls_files *f, SSL_CTX **ctxp, slu_tls_facts *facts, slu_error *err)
{
    SSL_CTX *ctx = context_new();
    *ctxp = NULL;
    *facts = (slu_tls_facts){0};
    if (!ctx)
        return slu_fail(err, SLU_ENOMEM, "OpenSSL cannot make a TLS context: %s",
                        ERR_reason_error_string(ERR_peek_last_error()));
    int rc = slu_tls_files_load(f, ctx, facts, err);
    if (rc)
        SSL_CTX_free(ctx);
    else
        *ctxp = ctx;
    return rc;
}

static void use(slu_tls *t, SSL_CTX *ctx, const slu_tls_facts *facts)
{
    pthread_mutex_lock(&t->lock);
    SSL_CTX *old = t->ctx;
    t->ctx = ctx;
    pthread_mutex_unlock(&t->lock);
    SSL_CTX_free(old);
    slu_metric_set(t->expiry, (double)facts->expires_s);
    if (t->ca_expiry)
        slu_metric_set(t->ca_expiry, (double)facts->ca_expires_s);
    char until[40];
    slu_format_time(facts->expires_s * SLU_SECOND_US, until, sizeof until);
    SLU_INFO("tls", "certificate loaded", SLU_STR("subject", facts->subject), SLU_STR("expires", until),
             SLU_BOOL("client_certificates", t->client_ca != NULL));
    if (facts->advice[0])
        SLU_WARN("tls", "look at the certificate", SLU_STR("advice", facts->advice));
}

static void make_results(void)
{
    static const char *const labels[SLU_TLS_RESULTS] = {
        [SLU_TLS_OK] = "result=\"ok\"",
        [SLU_TLS_NOT_TLS] = "result=\"not_tls\"",
        [SLU_TLS_VERSION] = "result=\"version\"",
        [SLU_TLS_ALPN] = "result=\"alpn\"",
        [SLU_TLS_NO_CERTIFICATE] = "result=\"no_client_certificate\"",
        [SLU_TLS_BAD_CERTIFICATE] = "result=\"bad_client_certificate\"",
        [SLU_TLS_REFUSED] = "result=\"refused_by_client\"",
        [SLU_TLS_BROKEN] = "result=\"protocol\"",
        [SLU_TLS_TIMEOUT] = "result=\"timeout\"",
        [SLU_TLS_HUNG_UP] = "result=\"hung_up\"",
        [SLU_TLS_CROWDED] = "result=\"crowded\"",
    };
    for (int i = 0; i < SLU_TLS_RESULTS; i++)
        results[i] =
            slu_counter("sluice_tls_handshakes_total", labels[i], "TLS handshakes, by how they ended");
}

static void make_metrics(slu_tls *t)
{
    static const char expiry_help[] = "Unix time at which the first certificate in use expires";
    t->expiry =
        slu_gauge("sluice_tls_certificate_expiry_timestamp_seconds", "file=\"certificate\"", expiry_help);
    if (t->client_ca)
        t->ca_expiry =
            slu_gauge("sluice_tls_certificate_expiry_timestamp_seconds", "file=\"client_ca\"", expiry_help);
    static const char reload_help[] = "Certificates loaded again while running, or refused";
    t->reloads[0] = slu_counter("sluice_tls_reloads_total", "result=\"refused\"", reload_help);
    t->reloads[1] = slu_counter("sluice_tls_reloads_total", "result=\"ok\"", reload_help);
}

int slu_tls_open(const slu_serving_opts *o, slu_tls **tp, slu_error *err)
{
    *tp = NULL;
    pthread_once(&once, make_method);
    pthread_once(&results_once, make_results);
    slu_tls *t = calloc(1, sizeof *t);
    if (t) {
        pthread_mutex_init(&t->lock, NULL);
        t->certificate = strdup(o->tls_certificate);
        t->key = strdup(o->tls_key);
        t->client_ca = o->tls_client_ca ? strdup(o->tls_client_ca) : NULL;
    }
    if (!t || !method || !t->certificate || !t->key || (o->tls_client_ca && !t->client_ca)) {
        slu_tls_free(t);
        return slu_fail(err, SLU_ENOMEM, "out of memory for TLS");
    }
    SSL_CTX *ctx;
    slu_tls_facts facts;
    slu_tls_files f = files_of(t);
    t->loaded = t->seen = slu_tls_files_stamp(&f); /* before reading: a later change is noticed */
    int rc = load(&f, &ctx, &facts, err);
    if (rc) {
        slu_tls_free(t);
        return rc;
    }
    make_metrics(t);
    use(t, ctx, &facts);
    *tp = t;
    return 0;
}

void slu_tls_free(slu_tls *t)
{
    if (!t)
        return;
    SSL_CTX_free(t->ctx);
    pthread_mutex_destroy(&t->lock);
    free(t->certificate);
    free(t->key);
    free(t->client_ca);
    free(t);
}

bool slu_tls_refresh(slu_tls *t, bool now)
{
    slu_tls_files f = files_of(t);
    uint64_t stamp = slu_tls_files_stamp(&f);
    bool still = stamp == t->seen;
    t->seen = stamp;
    if (!now && (stamp == t->loaded || !still))
        return false;
    t->loaded = stamp;
    SSL_CTX *ctx;
    slu_tls_facts facts;
    slu_error err = SLU_ERROR_INIT;
    int rc = load(&f, &ctx, &facts, &err);
    slu_metric_add(t->reloads[!rc], 1);
    if (rc)
        SLU_ERROR("tls", "the new certificate is refused, the old one stays in use",
                  SLU_STR("reason", err.message));
    else
        use(t, ctx, &facts);
    return !rc;
}

int slu_tls_check(const slu_serving_opts *o, slu_tls_facts *facts, slu_error *err)
{
    slu_tls_files f = {o->tls_certificate, o->tls_key, o->tls_client_ca};
    SSL_CTX *ctx;
    int rc = load(&f, &ctx, facts, err);
    SSL_CTX_free(ctx);
    return rc;
}

/* ---- connections ---- */

slu_tls_conn *slu_tls_conn_new(slu_tls *t)
{
    slu_tls_conn *c = calloc(1, sizeof *c);
    BIO *bio = BIO_new(method);
    pthread_mutex_lock(&t->lock);
    SSL *ssl = SSL_new(t->ctx);
    pthread_mutex_unlock(&t->lock);
    if (!c || !bio || !ssl) {
        SSL_free(ssl);
        BIO_free(bio);
        free(c);
        ERR_clear_error();
        return NULL;
    }
    BIO_set_data(bio, c);
    BIO_set_init(bio, 1);
    SSL_set_bio(ssl, bio, bio);
    SSL_set_app_data(ssl, c);
    SSL_set_accept_state(ssl);
    c->ssl = ssl;
    c->result = SLU_TLS_RESULTS;
    return c;
}

void slu_tls_conn_free(slu_tls_conn *c)
{
    if (!c)
        return;
    SSL_free(c->ssl);
    slu_buf_free(&c->out);
    free(c);
}

static void end_handshake(slu_tls_conn *c, slu_tls_result result, const char *why)
{
    if (c->result != SLU_TLS_RESULTS)
        return;
    c->result = result;
    snprintf(c->why, sizeof c->why, "%s", why);
    slu_metric_add(results[result], 1);
}

void slu_tls_conn_give_up(slu_tls_conn *c, slu_tls_result result)
{
    end_handshake(c, result,
                  result == SLU_TLS_TIMEOUT   ? "no TLS handshake in time"
                  : result == SLU_TLS_CROWDED ? "too many open handshakes, the oldest gave way"
                                              : "the client hung up before the TLS handshake was over");
    c->broken = true;
}

slu_tls_result slu_tls_conn_result(const slu_tls_conn *c)
{
    return c->result;
}

const char *slu_tls_conn_why(const slu_tls_conn *c)
{
    return c->why;
}

bool slu_tls_conn_ready(const slu_tls_conn *c)
{
    return c->ready;
}

static slu_tls_result classify(int reason)
{
    switch (reason) {
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_WRONG_VERSION_NUMBER:
        return SLU_TLS_NOT_TLS;
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_NO_SHARED_CIPHER:
    case SSL_R_NO_SUITABLE_KEY_SHARE:
    case SSL_R_NO_SHARED_GROUPS:
    case SSL_R_NO_SHARED_SIGNATURE_ALGORITHMS:
    case SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM:
        return SLU_TLS_VERSION;
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
        return SLU_TLS_NO_CERTIFICATE;
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
        return SLU_TLS_BAD_CERTIFICATE;
    default:
        return reason > SSL_AD_REASON_OFFSET && reason < SSL_AD_REASON_OFFSET + 256 ? SLU_TLS_REFUSED
                                                                                    : SLU_TLS_BROKEN;
    }
}

/* Keeps what OpenSSL has to say. */
static int fail(slu_tls_conn *c)
{
    unsigned long e = ERR_peek_error();
    const char *reason = ERR_reason_error_string(e);
    slu_tls_result result = c->no_h2 ? SLU_TLS_ALPN : classify(ERR_GET_REASON(e));
    char why[sizeof c->why];
    if (result == SLU_TLS_ALPN)
        snprintf(why, sizeof why, "the client does not offer HTTP/2 (ALPN h2), so it is no gRPC client");
    else if (result == SLU_TLS_NOT_TLS)
        snprintf(why, sizeof why, "the client does not speak TLS");
    else if (result == SLU_TLS_BAD_CERTIFICATE)
        snprintf(why, sizeof why, "client certificate: %s",
                 X509_verify_cert_error_string(SSL_get_verify_result(c->ssl)));
    else if (result == SLU_TLS_REFUSED)
        snprintf(why, sizeof why, "the client refused: %s", reason ? reason : "alert");
    else
        snprintf(why, sizeof why, "%s", reason ? reason : "the TLS protocol was broken");
    ERR_clear_error();
    end_handshake(c, result, why);
    if (!c->why[0])
        snprintf(c->why, sizeof c->why, "%s", why);
    c->broken = true;
    return SLU_EINVAL;
}

static int shake(slu_tls_conn *c)
{
    int rc = SSL_do_handshake(c->ssl);
    if (rc == 1) {
        c->ready = true;
        end_handshake(c, SLU_TLS_OK, "");
        return 0;
    }
    return SSL_get_error(c->ssl, rc) == SSL_ERROR_WANT_READ ? 0 : fail(c);
}

static int open_records(slu_tls_conn *c, slu_tls_take *take, void *ctx)
{
    uint8_t plain[SLU_TLS_PIECE];
    for (;;) {
        int n = SSL_read(c->ssl, plain, sizeof plain);
        if (n > 0) {
            int rc = take(ctx, plain, (size_t)n);
            if (rc)
                return rc;
            continue;
        }
        int e = SSL_get_error(c->ssl, n);
        if (e == SSL_ERROR_WANT_READ)
            return 0;
        if (e != SSL_ERROR_ZERO_RETURN)
            return fail(c);
        return SLU_ECLOSED;
    }
}

int slu_tls_conn_feed(slu_tls_conn *c, const uint8_t *p, size_t n, slu_tls_take *take, void *ctx)
{
    if (c->broken)
        return SLU_EINVAL;
    c->in = p;
    c->in_len = n;
    ERR_clear_error();
    int rc = c->ready ? 0 : shake(c);
    if (!rc && c->ready)
        rc = open_records(c, take, ctx);
    assert(rc || !c->in_len); /* OpenSSL asks for more only when it has taken everything */
    c->in = NULL;
    c->in_len = 0;
    if (!rc && c->out.len - c->out_at > MAX_REPLIES) {
        snprintf(c->why, sizeof c->why, "the client keeps asking for new keys and does not read the answers");
        c->broken = true;
        rc = SLU_EINVAL;
    }
    return rc;
}

int slu_tls_conn_seal(slu_tls_conn *c, const void *p, size_t n)
{
    size_t done;
    if (!c->ready || c->broken)
        return SLU_EINVAL;
    if (!n)
        return 0;
    ERR_clear_error();
    if (SSL_write_ex(c->ssl, p, n, &done) && done == n)
        return 0;
    return fail(c);
}

void slu_tls_conn_bye(slu_tls_conn *c)
{
    ERR_clear_error();
    if (c->ready && !c->broken)
        SSL_shutdown(c->ssl);
    ERR_clear_error();
}

size_t slu_tls_conn_output(const slu_tls_conn *c, const uint8_t **p)
{
    *p = c->out.data ? c->out.data + c->out_at : NULL;
    return c->out.len - c->out_at;
}

void slu_tls_conn_sent(slu_tls_conn *c, size_t n)
{
    assert(n <= c->out.len - c->out_at);
    c->out_at += n;
    if (c->out_at < c->out.len)
        return;
    c->out_at = 0;
    slu_buf_clear(&c->out);
    if (c->out.cap > KEEP_OUTPUT)
        slu_buf_free(&c->out);
}
