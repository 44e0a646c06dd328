#include "serving/tls_files.h"
#include "base/clock.h"
#include "base/digest.h"
#include <errno.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define SOON_S     (14 * 86400)
#define MOST_CERTS 100 /* of one file */

/* One file being read, for messages. */
typedef struct source {
    const char *key; /* of the configuration */
    const char *path;
    BIO *bio;
    slu_error *err;
} source;

static const char *last_reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());
    return text ? text : "not usable";
}

static int open_source(source *s, const char *key, const char *path, slu_error *err)
{
    *s = (source){.key = key, .path = path, .err = err};
    if (strstr(path, "-----BEGIN")) /* not to be repeated: it may be the private key */
        return slu_fail(err, SLU_ECONFIG, "%s is the name of a file, not its contents", key);
    ERR_clear_error();
    struct stat st;
    if (stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return slu_fail(err, SLU_EIO, "%s: %.300s is a folder; name a PEM file", key, path);
    s->bio = BIO_new_file(path, "r");
    return s->bio ? 0
                  : slu_fail(err, SLU_EIO,
                             "%s: cannot read %.300s: %s; the daemon's user must be able to read it", key,
                             path, strerror(errno));
}

static void close_source(source *s)
{
    BIO_free(s->bio);
    s->bio = NULL;
    ERR_clear_error();
}

/* Nobody is there to type a password. */
static int no_password(char *buf, int size, int writing, void *asked)
{
    (void)buf, (void)size, (void)writing;
    *(bool *)asked = true;
    return -1;
}

static int64_t seconds_of(const ASN1_TIME *t)
{
    struct tm tm;
    return t && ASN1_TIME_to_tm(t, &tm) ? (int64_t)timegm(&tm) : 0;
}

static const char *date(int64_t s, char *out, size_t size)
{
    return slu_format_time(s * SLU_SECOND_US, out, size);
}

/* The next certificate, NULL at the end. A broken one sets the error. */
static X509 *next_certificate(source *s)
{
    bool asked = false;
    X509 *x = PEM_read_bio_X509_AUX(s->bio, NULL, no_password, &asked);
    if (!x && ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        slu_fail(s->err, SLU_ECONFIG, "%s: %.300s holds a damaged certificate: %s", s->key, s->path,
                 last_reason());
    ERR_clear_error();
    return x;
}

static int check_dates(const source *s, const X509 *x, int64_t now, slu_tls_facts *facts)
{
    char when[40];
    int64_t from = seconds_of(X509_get0_notBefore(x)), until = seconds_of(X509_get0_notAfter(x));
    if (until <= now)
        return slu_fail(s->err, SLU_ECONFIG, "%s: a certificate in %.300s expired on %s; renew it", s->key,
                        s->path, date(until, when, sizeof when));
    if (from > now)
        return slu_fail(s->err, SLU_ECONFIG,
                        "%s: a certificate in %.300s is not valid before %s; look at this machine's clock",
                        s->key, s->path, date(from, when, sizeof when));
    if (!facts->expires_s || until < facts->expires_s)
        facts->expires_s = until;
    return 0;
}

static int load_certificate(const slu_tls_files *f, SSL_CTX *ctx, slu_tls_facts *facts, slu_error *err)
{
    source s;
    int rc = open_source(&s, "serving.tls.certificate", f->certificate, err), n = 0;
    int64_t now = (int64_t)time(NULL);
    for (X509 *x; !rc && n < MOST_CERTS && (x = next_certificate(&s)); n++) {
        rc = check_dates(&s, x, now, facts);
        if (!rc && !n)
            X509_NAME_oneline(X509_get_subject_name(x), facts->subject, sizeof facts->subject);
        if (!rc && !(n ? SSL_CTX_add1_chain_cert(ctx, x) : SSL_CTX_use_certificate(ctx, x)))
            rc = slu_fail(err, SLU_ECONFIG, "%s: a certificate in %.300s cannot be used: %s", s.key, s.path,
                          last_reason());
        X509_free(x);
    }
    if (!rc && err->code)
        rc = err->code;
    if (!rc && !n)
        rc = slu_fail(err, SLU_ECONFIG,
                      "%s: %.300s holds no certificate; it must be PEM (-----BEGIN CERTIFICATE-----)", s.key,
                      s.path);
    close_source(&s);
    return rc;
}

static void advise_permissions(const char *path, slu_tls_facts *facts)
{
    struct stat st;
    if (stat(path, &st) || !(st.st_mode & (S_IRWXO | S_IWGRP)))
        return;
    size_t n = strlen(facts->advice);
    snprintf(facts->advice + n, sizeof facts->advice - n,
             "serving.tls.key: %.200s has mode %04o, so others can %s it: chmod 0640 or 0600. ", path,
             (unsigned)st.st_mode & 07777, st.st_mode & (S_IWOTH | S_IWGRP) ? "change" : "read");
}

static int load_key(const slu_tls_files *f, SSL_CTX *ctx, slu_tls_facts *facts, slu_error *err)
{
    source s;
    bool asked = false;
    int rc = open_source(&s, "serving.tls.key", f->key, err);
    if (rc)
        return rc;
    EVP_PKEY *key = PEM_read_bio_PrivateKey(s.bio, NULL, no_password, &asked);
    if (!key)
        rc = slu_fail(
            err, SLU_ECONFIG,
            asked ? "%s: %.300s is encrypted; store it without a password (openssl pkey) and guard it by its "
                    "permissions"
                  : "%s: %.300s holds no private key in PEM form (-----BEGIN PRIVATE KEY-----)",
            s.key, s.path);
    else if (!X509_check_private_key(SSL_CTX_get0_certificate(ctx), key))
        rc = slu_fail(
            err, SLU_ECONFIG,
            "%s: %.300s does not belong to the first certificate in %.300s; give the pair that was made "
            "together",
            s.key, s.path, f->certificate);
    else if (!SSL_CTX_use_PrivateKey(ctx, key))
        rc = slu_fail(err, SLU_ECONFIG, "%s: %.300s cannot be used: %s", s.key, s.path, last_reason());
    EVP_PKEY_free(key);
    close_source(&s);
    advise_permissions(f->key, facts);
    return rc;
}

static int trust(const source *s, SSL_CTX *ctx, X509 *x, slu_tls_facts *facts, int64_t now)
{
    int64_t until = seconds_of(X509_get0_notAfter(x));
    if (until > now && (!facts->ca_expires_s || until < facts->ca_expires_s))
        facts->ca_expires_s = until;
    if (!X509_STORE_add_cert(SSL_CTX_get_cert_store(ctx), x) || !SSL_CTX_add_client_CA(ctx, x))
        return slu_fail(s->err, SLU_ECONFIG, "%s: a certificate in %.300s cannot be used: %s", s->key,
                        s->path, last_reason());
    return 0;
}

static int load_client_ca(const slu_tls_files *f, SSL_CTX *ctx, slu_tls_facts *facts, slu_error *err)
{
    source s;
    int rc = open_source(&s, "serving.tls.client_ca", f->client_ca, err), n = 0;
    int64_t now = (int64_t)time(NULL);
    for (X509 *x; !rc && n < MOST_CERTS && (x = next_certificate(&s)); n++) {
        rc = trust(&s, ctx, x, facts, now);
        X509_free(x);
    }
    if (!rc && err->code)
        rc = err->code;
    if (!rc && !n)
        rc = slu_fail(err, SLU_ECONFIG,
                      "%s: %.300s holds no certificate; it must be PEM (-----BEGIN CERTIFICATE-----)", s.key,
                      s.path);
    if (!rc && !facts->ca_expires_s)
        rc = slu_fail(err, SLU_ECONFIG, "%s: every certificate in %.300s has expired; renew it", s.key,
                      s.path);
    /* Whoever is named here is trusted, also when somebody else has signed him. */
    X509_STORE_set_flags(SSL_CTX_get_cert_store(ctx), X509_V_FLAG_PARTIAL_CHAIN);
    SSL_CTX_set_verify(ctx, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, NULL);
    close_source(&s);
    return rc;
}

int slu_tls_files_load(const slu_tls_files *f, SSL_CTX *ctx, slu_tls_facts *facts, slu_error *err)
{
    char when[40];
    slu_error spare = SLU_ERROR_INIT;
    if (!err)
        err = &spare;
    *facts = (slu_tls_facts){0};
    int rc = load_certificate(f, ctx, facts, err);
    if (!rc)
        rc = load_key(f, ctx, facts, err);
    if (!rc && f->client_ca)
        rc = load_client_ca(f, ctx, facts, err);
    size_t n = strlen(facts->advice);
    if (!rc && facts->expires_s < (int64_t)time(NULL) + SOON_S)
        snprintf(facts->advice + n, sizeof facts->advice - n,
                 "serving.tls.certificate expires on %s: renew it. ",
                 date(facts->expires_s, when, sizeof when));
    return rc;
}

uint64_t slu_tls_files_stamp(const slu_tls_files *f)
{
    const char *const paths[] = {f->certificate, f->key, f->client_ca};
    uint64_t stamp = 0;
    for (size_t i = 0; i < sizeof paths / sizeof *paths; i++) {
        struct stat st;
        if (!paths[i] || stat(paths[i], &st))
            memset(&st, 0, sizeof st);
        const uint64_t facts[] = {stamp, (uint64_t)st.st_ino, (uint64_t)st.st_size,
                                  (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec};
        stamp = slu_hash64(facts, sizeof facts, i);
    }
    return stamp;
}
