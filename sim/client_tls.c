#include "sim/client_tls.h"
#include <arpa/inet.h>
#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct slu_client_tls {
    SSL_CTX *ctx;
    SSL *ssl;
    bool ready;
    char why[256];
};

static const char *reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    return text ? text : strerror(errno);
}

static int load(SSL_CTX *ctx, const slu_client_tls_files *f, slu_error *err)
{
    const char *key = f->key ? f->key : f->certificate;
    if (!SSL_CTX_load_verify_locations(ctx, f->ca, NULL))
        return slu_fail(err, SLU_EIO, "the CA file %s cannot be used: %s", f->ca, reason());
    if (!f->certificate)
        return 0;
    if (!SSL_CTX_use_certificate_chain_file(ctx, f->certificate))
        return slu_fail(err, SLU_EIO, "the certificate file %s cannot be used: %s", f->certificate, reason());
    if (!SSL_CTX_use_PrivateKey_file(ctx, key, SSL_FILETYPE_PEM) || !SSL_CTX_check_private_key(ctx))
        return slu_fail(err, SLU_EINVAL, "the key file %s cannot be used with the certificate: %s", key,
                        reason());
    return 0;
}

/* The certificate has to be for this host; names also travel as SNI. */
static bool expect_host(SSL *ssl, const char *host)
{
    unsigned char address[16];
    if (inet_pton(AF_INET, host, address) == 1 || inet_pton(AF_INET6, host, address) == 1)
        return X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host);
    return SSL_set_tlsext_host_name(ssl, host) && SSL_set1_host(ssl, host);
}

int slu_client_tls_new(const slu_client_tls_files *files, const char *host, int fd, slu_client_tls **tp,
                       slu_error *err)
{
    static const unsigned char h2[] = "\x02h2";
    *tp = NULL;
    ERR_clear_error();
    slu_client_tls *t = calloc(1, sizeof *t);
    if (t)
        t->ctx = SSL_CTX_new(TLS_client_method());
    if (!t || !t->ctx) {
        free(t);
        return slu_fail(err, SLU_ENOMEM, "out of memory for TLS");
    }
    SSL_CTX_set_min_proto_version(t->ctx, TLS1_2_VERSION);
    SSL_CTX_set_verify(t->ctx, SSL_VERIFY_PEER, NULL);
    SSL_CTX_set_mode(t->ctx, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    int rc = load(t->ctx, files, err);
    if (!rc) {
        t->ssl = SSL_new(t->ctx);
        if (!t->ssl || !SSL_set_fd(t->ssl, fd) || SSL_set_alpn_protos(t->ssl, h2, sizeof h2 - 1) ||
            !expect_host(t->ssl, host))
            rc = slu_fail(err, SLU_ENOMEM, "out of memory for TLS");
    }
    ERR_clear_error();
    if (rc)
        slu_client_tls_free(t);
    else
        *tp = t;
    return rc;
}

void slu_client_tls_free(slu_client_tls *t)
{
    if (!t)
        return;
    if (t->ready && !t->why[0])
        SSL_shutdown(t->ssl);
    SSL_free(t->ssl);
    SSL_CTX_free(t->ctx);
    ERR_clear_error();
    free(t);
}

/* Keeps words for the failure |e|; -1 with errno as send and recv have it. */
static ssize_t failed(slu_client_tls *t, int e)
{
    long verdict = SSL_get_verify_result(t->ssl);
    if (e == SSL_ERROR_WANT_READ || e == SSL_ERROR_WANT_WRITE) {
        errno = EAGAIN;
        return -1;
    }
    if (verdict != X509_V_OK)
        snprintf(t->why, sizeof t->why, "the server's certificate: %s",
                 X509_verify_cert_error_string(verdict));
    else if (e == SSL_ERROR_SYSCALL && !ERR_peek_error())
        snprintf(t->why, sizeof t->why, "the server hung up");
    else
        snprintf(t->why, sizeof t->why, "TLS: %s", reason());
    ERR_clear_error();
    errno = EPROTO;
    return -1;
}

int slu_client_tls_shake(slu_client_tls *t, short *events, slu_error *err)
{
    ERR_clear_error();
    int rc = SSL_connect(t->ssl);
    if (rc == 1) {
        t->ready = true;
        return 1;
    }
    int e = SSL_get_error(t->ssl, rc);
    *events = e == SSL_ERROR_WANT_WRITE ? POLLOUT : POLLIN;
    failed(t, e);
    return errno == EAGAIN ? 0 : slu_fail(err, SLU_EIO, "%s", t->why);
}

ssize_t slu_client_tls_send(slu_client_tls *t, const void *p, size_t n)
{
    size_t done;
    ERR_clear_error();
    return SSL_write_ex(t->ssl, p, n, &done) ? (ssize_t)done : failed(t, SSL_get_error(t->ssl, 0));
}

ssize_t slu_client_tls_recv(slu_client_tls *t, void *p, size_t n)
{
    size_t done;
    ERR_clear_error();
    if (SSL_read_ex(t->ssl, p, n, &done))
        return (ssize_t)done;
    int e = SSL_get_error(t->ssl, 0);
    return e == SSL_ERROR_ZERO_RETURN ? 0 : failed(t, e);
}

const char *slu_client_tls_why(const slu_client_tls *t)
{
    return t->why;
}
