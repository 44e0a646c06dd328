/* Bytes of a TLS client into a connection of serving/tls: before, inside and after the handshake.
 *
 * Byte 0 holds switches: 1 a real client shakes hands first, 2 the rest is what that client says (sealed, so
 * it reaches the plain side) instead of raw bytes, 4 the server answers between the pieces, 8 the client
 * shows no certificate although one is wanted, 16 a record of the real client's handshake is replaced by the
 * input. Byte 1
 * + 1 is the size of the pieces. The rest is fed. */
#include "base/bytes.h"
#include "base/log.h"
#include "serving/tls.h"
#include "tests/tls_sample.h"
#include <assert.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <stdint.h>
#include <unistd.h>

static slu_tls *tls;
static SSL_CTX *known, *unknown; /* a client with a certificate, and one without */

static void setup(void)
{
    char dir[] = "/tmp/sluice-fuzz-XXXXXX", path[5][64];
    static const char *const names[] = {"ca.pem", "server.pem", "server.key", "client.pem", "client.key"};
    slu_error err = SLU_ERROR_INIT;
    tls_must(mkdtemp(dir) != NULL, "a folder");
    for (int i = 0; i < 5; i++)
        snprintf(path[i], sizeof path[i], "%s/%s", dir, names[i]);
    slu_log_setup(SLU_LOG_ERROR, SLU_LOGFMT);
    tls_authority ca = tls_authority_new("CA", -TLS_DAY, 900 * TLS_DAY);
    tls_write(ca.certificate, path[0], "w");
    tls_issue(&ca, "server", "serverAuth", -TLS_DAY, 900 * TLS_DAY, path[1], path[2]);
    tls_issue(&ca, "client", "clientAuth", -TLS_DAY, 900 * TLS_DAY, path[3], path[4]);
    tls_authority_free(&ca);
    slu_serving_opts o = {.tls_certificate = path[1], .tls_key = path[2], .tls_client_ca = path[0]};
    tls_must(!slu_tls_open(&o, &tls, &err), err.message);
    known = SSL_CTX_new(TLS_client_method());
    unknown = SSL_CTX_new(TLS_client_method());
    tls_must(SSL_CTX_use_certificate_chain_file(known, path[3]) &&
                 SSL_CTX_use_PrivateKey_file(known, path[4], SSL_FILETYPE_PEM),
             "the client");
    for (int i = 0; i < 5; i++)
        unlink(path[i]);
    rmdir(dir);
}

typedef struct sink {
    size_t bytes;
} sink;

static int take(void *ctx, const uint8_t *p, size_t n)
{
    sink *s = ctx;
    assert(n && n <= SLU_TLS_PIECE);
    s->bytes += p[0] < 250 ? n : n + 1;
    return p[0] == 0xee && n == 3 ? SLU_EFORMAT : 0; /* the session above may have enough */
}

static size_t drain(slu_tls_conn *c, BIO *to)
{
    const uint8_t *p;
    size_t n = slu_tls_conn_output(c, &p);
    if (n && to)
        BIO_write(to, p, (int)n);
    if (n)
        slu_tls_conn_sent(c, n);
    return n;
}

/* |instead| (n) takes the place of the third thing that the client says. */
static void shake(SSL *client, slu_tls_conn *c, sink *s, const uint8_t *instead, size_t n)
{
    static uint8_t bytes[64 << 10];
    for (int i = 0; i < 6; i++) {
        SSL_do_handshake(client);
        int got = BIO_read(SSL_get_wbio(client), bytes, sizeof bytes);
        if (got > 0 && instead && i == 1)
            slu_tls_conn_feed(c, instead, n, take, s);
        else if (got > 0)
            slu_tls_conn_feed(c, bytes, (size_t)got, take, s);
        drain(c, SSL_get_rbio(client));
    }
}

static void check(const slu_tls_conn *c)
{
    const uint8_t *p;
    size_t held = slu_tls_conn_output(c, &p);
    assert(held < (size_t)256 << 10);
    assert(slu_tls_conn_ready(c) == (slu_tls_conn_result(c) == SLU_TLS_OK));
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    if (n < 2 || n > 60000)
        return 0;
    if (!tls)
        setup();
    int switches = bytes[0], rc = 0;
    size_t piece = (size_t)bytes[1] + 1;
    sink s = {0};
    slu_tls_conn *c = slu_tls_conn_new(tls);
    SSL *client = NULL;
    assert(c);
    if (switches & 1) {
        client = SSL_new(switches & 8 ? unknown : known);
        SSL_set_bio(client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
        SSL_set_connect_state(client);
        SSL_set_alpn_protos(client, (const uint8_t *)"\x02h2", 3);
        shake(client, c, &s, switches & 16 ? bytes + 2 : NULL, n - 2);
        assert((switches & (8 | 16)) || slu_tls_conn_ready(c));
    }
    bool sealed = client && switches & 2 && slu_tls_conn_ready(c);
    for (size_t at = 2; at < n && !rc; at += piece) {
        static uint8_t wire[64 << 10];
        const uint8_t *p = bytes + at;
        size_t m = piece < n - at ? piece : n - at;
        if (sealed) {
            SSL_write(client, p, (int)m);
            int got = BIO_read(SSL_get_wbio(client), wire, sizeof wire);
            p = wire;
            m = got > 0 ? (size_t)got : 0;
        }
        if (m)
            rc = slu_tls_conn_feed(c, p, m, take, &s);
        check(c);
        if (switches & 4 && slu_tls_conn_seal(c, bytes, n) == 0)
            drain(c, NULL);
    }
    if (rc)
        slu_tls_conn_give_up(c, SLU_TLS_HUNG_UP); /* counted already, or now */
    slu_tls_conn_bye(c);
    drain(c, NULL);
    slu_tls_conn_free(c);
    SSL_free(client);
    ERR_clear_error();
    return 0;
}
