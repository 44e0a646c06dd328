/* serving/tls in memory: an OpenSSL client and a connection of ours joined by buffers. No sockets, no time.
 */
#include "base/log.h"
#include "base/metrics.h"
#include "serving/tls.h"
#include "tests/suite.h"
#include "tests/tls_sample.h"
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdbool.h>
#include <unistd.h>
#include <utime.h>

static char dir[] = "/tmp/sluice-tls-XXXXXX";
static tls_authority ca, other;
static slu_error err = SLU_ERROR_INIT;

static char *at(const char *name)
{
    static char paths[64][300];
    static int n;
    char *path = paths[n++ % 64];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static void issue(const tls_authority *a, const char *name, const char *use, long from, long until)
{
    char certificate[100], key[100];
    snprintf(certificate, sizeof certificate, "%s.pem", name);
    snprintf(key, sizeof key, "%s.key", name);
    tls_issue(a, name, use, from, until, at(certificate), at(key));
}

static void setup(void)
{
    ck_assert_ptr_nonnull(mkdtemp(dir));
    slu_log_setup(SLU_LOG_ERROR, SLU_LOGFMT);
    ca = tls_authority_new("CA", -TLS_DAY, 300 * TLS_DAY);
    other = tls_authority_new("Other", -TLS_DAY, 300 * TLS_DAY);
    tls_write(ca.certificate, at("ca.pem"), "w");
    tls_write(other.certificate, at("other.pem"), "w");
    issue(&ca, "server", "serverAuth", -TLS_DAY, 100 * TLS_DAY);
    issue(&ca, "client", "clientAuth", -TLS_DAY, 100 * TLS_DAY);
}

static void teardown(void)
{
    char command[300];
    tls_authority_free(&ca);
    tls_authority_free(&other);
    snprintf(command, sizeof command, "rm -rf %s", dir);
    ck_assert_int_eq(system(command), 0);
}

static slu_serving_opts options(void)
{
    slu_serving_opts o = {0};
    o.tls_certificate = at("server.pem");
    o.tls_key = at("server.key");
    return o;
}

static slu_tls *open_tls(const slu_serving_opts *o)
{
    slu_tls *t;
    ck_assert_msg(!slu_tls_open(o, &t, &err), "%s", err.message);
    return t;
}

/* ---- a client in memory ---- */

typedef struct pair {
    SSL_CTX *ctx;
    SSL *client;
    slu_tls_conn *server;
    slu_buf plain; /* what the server got */
    int rc;        /* of the last feed */
    size_t piece;  /* bytes handed over at once; 0: all */
} pair;

static int take(void *ctx, const uint8_t *p, size_t n)
{
    slu_put_bytes(&((pair *)ctx)->plain, p, n);
    return 0;
}

static pair pair_new(slu_tls *t, const char *certificate, const char *alpn)
{
    pair p = {.ctx = SSL_CTX_new(TLS_client_method())};
    ck_assert_int_eq(SSL_CTX_load_verify_locations(p.ctx, at("ca.pem"), NULL), 1);
    SSL_CTX_set_verify(p.ctx, SSL_VERIFY_PEER, NULL);
    if (certificate) {
        char path[100];
        snprintf(path, sizeof path, "%s.pem", certificate);
        ck_assert_int_eq(SSL_CTX_use_certificate_chain_file(p.ctx, at(path)), 1);
        snprintf(path, sizeof path, "%s.key", certificate);
        ck_assert_int_eq(SSL_CTX_use_PrivateKey_file(p.ctx, at(path), SSL_FILETYPE_PEM), 1);
    }
    p.client = SSL_new(p.ctx);
    SSL_set_bio(p.client, BIO_new(BIO_s_mem()), BIO_new(BIO_s_mem()));
    SSL_set_connect_state(p.client);
    if (alpn)
        SSL_set_alpn_protos(p.client, (const uint8_t *)alpn, (unsigned)strlen(alpn));
    p.server = slu_tls_conn_new(t);
    ck_assert_ptr_nonnull(p.server);
    return p;
}

static void pair_free(pair *p)
{
    SSL_free(p->client);
    SSL_CTX_free(p->ctx);
    slu_tls_conn_free(p->server);
    slu_buf_free(&p->plain);
    ERR_clear_error();
}

/* Carries bytes over until nothing moves. */
static void carry(pair *p)
{
    static uint8_t bytes[64 << 10];
    for (bool moved = true; moved;) {
        const uint8_t *out;
        moved = false;
        int n = BIO_read(SSL_get_wbio(p->client), bytes, p->piece ? (int)p->piece : (int)sizeof bytes);
        if (n > 0) {
            p->rc = slu_tls_conn_feed(p->server, bytes, (size_t)n, take, p);
            moved = true;
        }
        size_t m = slu_tls_conn_output(p->server, &out);
        if (p->piece && m > p->piece)
            m = p->piece;
        if (m) {
            BIO_write(SSL_get_rbio(p->client), out, (int)m);
            slu_tls_conn_sent(p->server, m);
            moved = true;
        }
    }
}

/* Returns what SSL_do_handshake says in the end. */
static int shake(pair *p)
{
    int rc = SSL_do_handshake(p->client);
    for (int i = 0; i < 10 && rc != 1; i++) {
        carry(p);
        rc = SSL_do_handshake(p->client);
    }
    carry(p);
    return rc;
}

static double count(const char *result)
{
    char labels[64];
    snprintf(labels, sizeof labels, "result=\"%s\"", result);
    return slu_metric_value(
        slu_counter("sluice_tls_handshakes_total", labels, "TLS handshakes, by how they ended"));
}

START_TEST(test_both_ways)
{
    setup();
    slu_serving_opts o = options();
    slu_tls *t = open_tls(&o);
    static const size_t pieces[] = {0, 1, 7, 1000};
    for (size_t i = 0; i < sizeof pieces / sizeof *pieces; i++)
        for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
            pair p = pair_new(t, NULL, "\x08http/1.1\x02h2");
            p.piece = pieces[i];
            SSL_set_max_proto_version(p.client, version);
            ck_assert(!slu_tls_conn_ready(p.server));
            ck_assert_int_eq(slu_tls_conn_seal(p.server, "x", 1), SLU_EINVAL);
            ck_assert_int_eq(shake(&p), 1);
            ck_assert(slu_tls_conn_ready(p.server));
            ck_assert_int_eq(slu_tls_conn_result(p.server), SLU_TLS_OK);
            ck_assert_int_eq(SSL_version(p.client), version);
            const uint8_t *chosen;
            unsigned n;
            SSL_get0_alpn_selected(p.client, &chosen, &n);
            ck_assert(n == 2 && !memcmp(chosen, "h2", 2));
            static uint8_t body[100000], back[100000];
            for (size_t k = 0; k < sizeof body; k++)
                body[k] = (uint8_t)(k * 7 + k / 251);
            ck_assert_int_eq(SSL_write(p.client, body, sizeof body), sizeof body);
            carry(&p);
            ck_assert_int_eq(p.rc, 0);
            ck_assert_uint_eq(p.plain.len, sizeof body);
            ck_assert(!memcmp(p.plain.data, body, sizeof body));
            ck_assert_int_eq(slu_tls_conn_seal(p.server, body, sizeof body), 0);
            carry(&p);
            size_t got = 0;
            for (int r; (r = SSL_read(p.client, back + got, (int)(sizeof back - got))) > 0; got += (size_t)r)
                ;
            ck_assert_uint_eq(got, sizeof body);
            ck_assert(!memcmp(back, body, sizeof body));
            ck_assert_int_eq(SSL_session_reused(p.client), 0);
            SSL_shutdown(p.client);
            carry(&p);
            ck_assert_int_eq(p.rc, SLU_ECLOSED);
            slu_tls_conn_bye(p.server);
            carry(&p);
            ck_assert_int_eq(SSL_read(p.client, back, 1), 0);
            ck_assert_int_eq(SSL_get_shutdown(p.client) & SSL_RECEIVED_SHUTDOWN, SSL_RECEIVED_SHUTDOWN);
            pair_free(&p);
        }
    ck_assert_double_eq(count("ok"), 8);
    slu_tls_free(t);
    teardown();
}
END_TEST

static void refused(slu_tls *t, pair *p, slu_tls_result result, const char *label, const char *words)
{
    double before = count(label);
    (void)t;
    shake(p);
    char byte;
    SSL_read(p->client, &byte, 1); /* TLS 1.3: the client learns of it here */
    ck_assert(!slu_tls_conn_ready(p->server));
    ck_assert_int_eq(p->rc, SLU_EINVAL);
    ck_assert_msg(slu_tls_conn_result(p->server) == result, "%d: %s", slu_tls_conn_result(p->server),
                  slu_tls_conn_why(p->server));
    ck_assert_msg(strstr(slu_tls_conn_why(p->server), words), "%s", slu_tls_conn_why(p->server));
    ck_assert_double_eq(count(label), before + 1);
    ck_assert_int_eq(slu_tls_conn_feed(p->server, (const uint8_t *)"x", 1, take, p), SLU_EINVAL);
    ck_assert_int_eq(slu_tls_conn_seal(p->server, "x", 1), SLU_EINVAL);
    ck_assert_double_eq(count(label), before + 1); /* once */
    pair_free(p);
}

START_TEST(test_who_is_not_let_in)
{
    setup();
    slu_serving_opts o = options();
    slu_tls *t = open_tls(&o);
    pair p = pair_new(t, NULL, NULL);
    refused(t, &p, SLU_TLS_ALPN, "alpn", "HTTP/2");
    p = pair_new(t, NULL, "\x08http/1.1\x02h3");
    refused(t, &p, SLU_TLS_ALPN, "alpn", "HTTP/2");
    p = pair_new(t, NULL, "\x02h2");
    SSL_set_security_level(p.client, 0);
    SSL_set_min_proto_version(p.client, TLS1_VERSION);
    SSL_set_max_proto_version(p.client, TLS1_1_VERSION);
    SSL_set_cipher_list(p.client, "ALL:@SECLEVEL=0");
    refused(t, &p, SLU_TLS_VERSION, "version", "unsupported protocol");
    p = pair_new(t, NULL, "\x02h2");
    SSL_set_max_proto_version(p.client, TLS1_2_VERSION);
    SSL_set_cipher_list(p.client, "AES128-SHA"); /* no forward secrecy, no authenticated cipher */
    refused(t, &p, SLU_TLS_VERSION, "version", "no shared cipher");
    p = pair_new(t, NULL, "\x02h2");
    SSL_CTX *stranger = SSL_CTX_new(TLS_client_method());
    SSL_CTX_load_verify_locations(stranger, at("other.pem"), NULL);
    SSL_set1_verify_cert_store(p.client, SSL_CTX_get_cert_store(stranger));
    refused(t, &p, SLU_TLS_REFUSED, "refused_by_client", "unknown ca");
    SSL_CTX_free(stranger);
    static const char *const plain[] = {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET / HTTP/1.1\r\n\r\n",
                                        "CONNECT a:1 HTTP/1.1\r\n\r\n"};
    for (size_t i = 0; i < 3; i++) {
        p = pair_new(t, NULL, "\x02h2");
        p.rc = slu_tls_conn_feed(p.server, (const uint8_t *)plain[i], strlen(plain[i]), take, &p);
        ck_assert_int_eq(p.rc, SLU_EINVAL);
        ck_assert_msg(slu_tls_conn_result(p.server) == SLU_TLS_NOT_TLS, "%s", slu_tls_conn_why(p.server));
        pair_free(&p);
    }
    p = pair_new(t, NULL, "\x02h2");
    slu_tls_conn_give_up(p.server, SLU_TLS_TIMEOUT);
    slu_tls_conn_give_up(p.server, SLU_TLS_HUNG_UP);
    ck_assert_int_eq(slu_tls_conn_result(p.server), SLU_TLS_TIMEOUT);
    ck_assert_double_eq(count("timeout"), 1);
    ck_assert_double_eq(count("hung_up"), 0);
    pair_free(&p);
    slu_tls_free(t);
    teardown();
}
END_TEST

START_TEST(test_client_certificates)
{
    setup();
    issue(&ca, "old", "clientAuth", -9 * TLS_DAY, -TLS_DAY);
    issue(&ca, "future", "clientAuth", TLS_DAY, 9 * TLS_DAY);
    issue(&ca, "wrong-use", "serverAuth", -TLS_DAY, 9 * TLS_DAY);
    issue(&other, "foreign", "clientAuth", -TLS_DAY, 9 * TLS_DAY);
    slu_serving_opts o = options();
    o.tls_client_ca = at("ca.pem");
    slu_tls *t = open_tls(&o);
    pair p = pair_new(t, "client", "\x02h2");
    ck_assert_int_eq(shake(&p), 1);
    ck_assert(slu_tls_conn_ready(p.server));
    pair_free(&p);
    for (int version = TLS1_2_VERSION; version <= TLS1_3_VERSION; version++) {
        static const char *const bad[][2] = {{"old", "certificate has expired"},
                                             {"future", "certificate is not yet valid"},
                                             {"wrong-use", "unsuitable certificate purpose"},
                                             {"foreign", "unable to get local issuer certificate"}};
        for (size_t i = 0; i < 4; i++) {
            p = pair_new(t, bad[i][0], "\x02h2");
            SSL_set_max_proto_version(p.client, version);
            refused(t, &p, SLU_TLS_BAD_CERTIFICATE, "bad_client_certificate", bad[i][1]);
        }
        p = pair_new(t, NULL, "\x02h2");
        SSL_set_max_proto_version(p.client, version);
        refused(t, &p, SLU_TLS_NO_CERTIFICATE, "no_client_certificate", "did not return a certificate");
    }
    slu_tls_free(t);
    teardown();
}
END_TEST

/* Renegotiation and floods of key updates are ways to make a server work or hold memory for nothing. */
START_TEST(test_no_work_for_nothing)
{
    setup();
    slu_serving_opts o = options();
    slu_tls *t = open_tls(&o);
    pair p = pair_new(t, NULL, "\x02h2");
    SSL_set_max_proto_version(p.client, TLS1_2_VERSION);
    ck_assert_int_eq(shake(&p), 1);
    SSL_renegotiate(p.client);
    SSL_do_handshake(p.client);
    carry(&p);
    char byte;
    ck_assert_int_le(SSL_read(p.client, &byte, 1), 0);
    ck_assert_int_eq(SSL_write(p.client, "x", 1) == 1 && p.rc == 0 && p.plain.len, 0);
    pair_free(&p);
    p = pair_new(t, NULL, "\x02h2");
    ck_assert_int_eq(shake(&p), 1);
    for (int i = 0; i < 1000; i++) {
        SSL_key_update(p.client, SSL_KEY_UPDATE_REQUESTED);
        SSL_do_handshake(p.client);
    }
    static uint8_t bytes[1 << 20];
    int n = BIO_read(SSL_get_wbio(p.client), bytes, sizeof bytes);
    ck_assert_int_gt(n, 10000);
    ck_assert_int_eq(slu_tls_conn_feed(p.server, bytes, (size_t)n, take, &p), 0);
    ck_assert_int_eq(slu_tls_conn_seal(p.server, "still here", 10), 0);
    carry(&p);
    ck_assert_int_eq(SSL_read(p.client, bytes, 100), 10);
    /* The same from a client that reads none of the replies. */
    const uint8_t *out;
    size_t held = 0;
    int rc = 0;
    for (int i = 0; i < 1000 && !rc; i++) {
        for (int k = 0; k < 100; k++) {
            SSL_key_update(p.client, SSL_KEY_UPDATE_REQUESTED);
            SSL_do_handshake(p.client);
        }
        n = BIO_read(SSL_get_wbio(p.client), bytes, sizeof bytes);
        rc = slu_tls_conn_feed(p.server, bytes, (size_t)n, take, &p);
        held = slu_tls_conn_output(p.server, &out);
    }
    ck_assert_int_eq(rc, SLU_EINVAL);
    ck_assert_uint_lt(held, 100000);
    ck_assert_msg(strstr(slu_tls_conn_why(p.server), "does not read"), "%s", slu_tls_conn_why(p.server));
    pair_free(&p);
    slu_tls_free(t);
    teardown();
}
END_TEST

static void copy(const char *from, const char *to)
{
    char command[700];
    snprintf(command, sizeof command, "cp %s %s", at(from), at(to));
    ck_assert_int_eq(system(command), 0);
}

/* The serial number that a new connection gets to see. */
static long serial_of(slu_tls *t)
{
    pair p = pair_new(t, NULL, "\x02h2");
    ck_assert_int_eq(shake(&p), 1);
    X509 *x = SSL_get1_peer_certificate(p.client);
    long serial = ASN1_INTEGER_get(X509_get0_serialNumber(x));
    X509_free(x);
    pair_free(&p);
    return serial;
}

START_TEST(test_refresh)
{
    setup();
    slu_log_setup(SLU_LOG_ERROR + 1, SLU_LOGFMT); /* refusals are expected here */
    issue(&ca, "next", "serverAuth", -TLS_DAY, 200 * TLS_DAY);
    slu_serving_opts o = options();
    slu_tls *t = open_tls(&o);
    pair before = pair_new(t, NULL, "\x02h2");
    ck_assert_int_eq(shake(&before), 1);
    long first = serial_of(t);
    ck_assert(!slu_tls_refresh(t, false));
    ck_assert_int_eq(serial_of(t), first);
    slu_metric *expiry =
        slu_gauge("sluice_tls_certificate_expiry_timestamp_seconds", "file=\"certificate\"", "");
    double expires = slu_metric_value(expiry);
    /* The certificate comes first, the key later: nothing may be taken in between. */
    copy("next.pem", "server.pem");
    ck_assert(!slu_tls_refresh(t, false)); /* seen, not trusted yet */
    copy("next.key", "server.key");
    ck_assert(!slu_tls_refresh(t, false));
    ck_assert_int_eq(serial_of(t), first);
    ck_assert(slu_tls_refresh(t, false)); /* has stood still */
    long second = serial_of(t);
    ck_assert_int_ne(second, first);
    ck_assert_double_gt(slu_metric_value(expiry), expires);
    ck_assert(!slu_tls_refresh(t, false));
    /* Who was there stays. */
    ck_assert_int_eq(slu_tls_conn_seal(before.server, "hello", 5), 0);
    carry(&before);
    char text[10];
    ck_assert_int_eq(SSL_read(before.client, text, sizeof text), 5);
    /* A pair that cannot be used is refused, and not again and again. */
    slu_metric *refusals = slu_counter("sluice_tls_reloads_total", "result=\"refused\"", "");
    copy("client.key", "server.key");
    ck_assert(!slu_tls_refresh(t, true));
    ck_assert(!slu_tls_refresh(t, false));
    ck_assert(!slu_tls_refresh(t, false));
    ck_assert_double_eq(slu_metric_value(refusals), 1);
    ck_assert_int_eq(serial_of(t), second);
    unlink(at("server.key"));
    ck_assert(!slu_tls_refresh(t, true));
    ck_assert_int_eq(serial_of(t), second);
    copy("next.key", "server.key");
    ck_assert(slu_tls_refresh(t, true));
    pair_free(&before);
    slu_tls_free(t);
    teardown();
}
END_TEST

START_TEST(test_connections_outlive_the_context)
{
    setup();
    slu_serving_opts o = options();
    slu_tls *t = open_tls(&o);
    pair p = pair_new(t, NULL, "\x02h2");
    slu_tls_free(t);
    ck_assert_int_eq(shake(&p), 1);
    pair_free(&p);
    teardown();
}
END_TEST

static void write_file(const char *name, const char *text)
{
    FILE *f = fopen(at(name), "w");
    ck_assert_ptr_nonnull(f);
    fputs(text, f);
    ck_assert_int_eq(fclose(f), 0);
}

static void check_fails(const slu_serving_opts *o, int code, const char *words)
{
    slu_tls_facts facts;
    slu_error_clear(&err);
    int rc = slu_tls_check(o, &facts, &err);
    ck_assert_msg(rc == code, "%d instead of %d: %s", rc, code, err.message);
    ck_assert_msg(strstr(err.message, words), "'%s' is not in: %s", words, err.message);
    ck_assert_ptr_null(strstr(err.message, "c4n4ry"));
}

START_TEST(test_check)
{
    setup();
    slu_tls_facts facts;
    slu_serving_opts o = options();
    ck_assert_msg(!slu_tls_check(&o, &facts, &err), "%s", err.message);
    ck_assert_str_eq(facts.advice, "");
    ck_assert_msg(strstr(facts.subject, "CN=server"), "%s", facts.subject);
    ck_assert_int_gt(facts.expires_s, 0);
    chmod(o.tls_key, 0644);
    ck_assert_msg(!slu_tls_check(&o, &facts, &err), "%s", err.message);
    ck_assert_msg(strstr(facts.advice, "mode 0644, so others can read it"), "%s", facts.advice);
    chmod(o.tls_key, 0640);
    ck_assert_int_eq(slu_tls_check(&o, &facts, &err), 0);
    ck_assert_str_eq(facts.advice, "");
    issue(&ca, "soon", "serverAuth", -TLS_DAY, 5 * TLS_DAY);
    o.tls_certificate = at("soon.pem");
    o.tls_key = at("soon.key");
    ck_assert_int_eq(slu_tls_check(&o, &facts, &err), 0);
    ck_assert_msg(strstr(facts.advice, "expires on"), "%s", facts.advice);

    o = options();
    o.tls_key = at("client.key");
    check_fails(&o, SLU_ECONFIG, "does not belong to the first certificate");
    o.tls_key = at("nowhere.key");
    check_fails(&o, SLU_EIO, "serving.tls.key: cannot read");
    o.tls_key = at("server.pem");
    check_fails(&o, SLU_ECONFIG, "holds no private key");
    write_file("junk.key", "-----BEGIN PRIVATE KEY-----\nc4n4ry\n-----END PRIVATE KEY-----\n");
    o.tls_key = at("junk.key");
    check_fails(&o, SLU_ECONFIG, "holds no private key");
    FILE *f = fopen(at("locked.key"), "w");
    EVP_PKEY *key = EVP_EC_gen("P-256");
    char password[] = "c4n4ry";
    ck_assert(PEM_write_PKCS8PrivateKey(f, key, EVP_aes_256_cbc(), password, 6, NULL, NULL));
    fclose(f);
    EVP_PKEY_free(key);
    o.tls_key = at("locked.key");
    check_fails(&o, SLU_ECONFIG, "is encrypted");
    o.tls_key = "-----BEGIN PRIVATE KEY-----c4n4ry";
    check_fails(&o, SLU_ECONFIG, "is the name of a file");

    o = options();
    o.tls_certificate = at("server.key");
    check_fails(&o, SLU_ECONFIG, "holds no certificate");
    o.tls_certificate = dir;
    check_fails(&o, SLU_EIO, "is a folder");
    write_file("junk.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    o.tls_certificate = at("junk.pem");
    check_fails(&o, SLU_ECONFIG, "damaged certificate");
    issue(&ca, "old", "serverAuth", -9 * TLS_DAY, -TLS_DAY);
    o.tls_certificate = at("old.pem");
    o.tls_key = at("old.key");
    check_fails(&o, SLU_ECONFIG, "expired on");
    issue(&ca, "future", "serverAuth", TLS_DAY, 2 * TLS_DAY);
    o.tls_certificate = at("future.pem");
    o.tls_key = at("future.key");
    check_fails(&o, SLU_ECONFIG, "is not valid before");

    o = options();
    o.tls_client_ca = at("server.key");
    check_fails(&o, SLU_ECONFIG, "serving.tls.client_ca: ");
    tls_authority gone = tls_authority_new("Gone", -9 * TLS_DAY, -TLS_DAY);
    tls_write(gone.certificate, at("gone.pem"), "w");
    o.tls_client_ca = at("gone.pem");
    check_fails(&o, SLU_ECONFIG, "every certificate in");
    tls_write(ca.certificate, at("gone.pem"), "a"); /* old and new side by side: a renewal */
    ck_assert_int_eq(slu_tls_check(&o, &facts, NULL), 0);
    ck_assert_int_gt(facts.ca_expires_s, 0);
    tls_authority_free(&gone);
    teardown();
}
END_TEST

int main(void)
{
    return run_suite("tls",
                     (const TTest *[]){test_both_ways, test_who_is_not_let_in, test_client_certificates,
                                       test_no_work_for_nothing, test_refresh,
                                       test_connections_outlive_the_context, test_check, NULL});
}
