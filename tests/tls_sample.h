/* tests/tls_sample.h - certificates made on the spot: authorities and what they sign. All keys are P-256. */
#pragma once
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TLS_DAY 86400L

typedef struct tls_authority {
    EVP_PKEY *key;
    X509 *certificate;
} tls_authority;

static inline void tls_must(int ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "certificates: %s failed\n", what);
    abort();
}

static inline void tls_extend(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx_nodb(&ctx);
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    tls_must(e && X509_add_ext(x, e, -1), value);
    X509_EXTENSION_free(e);
}

/* Valid from |from| to |until| seconds, counted from now. */
static inline X509 *tls_certificate(const char *name, EVP_PKEY *key, long from, long until)
{
    static long serial;
    X509 *x = X509_new();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(x), from);
    X509_gmtime_adj(X509_getm_notAfter(x), until);
    X509_set_pubkey(x, key);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN", MBSTRING_UTF8, (const unsigned char *)name, -1,
                               -1, 0);
    return x;
}

static inline void tls_write_key(EVP_PKEY *key, const char *path)
{
    FILE *f = fopen(path, "w");
    tls_must(f && PEM_write_PKCS8PrivateKey(f, key, NULL, NULL, 0, NULL, NULL) && !fclose(f), path);
    tls_must(!chmod(path, 0600), path);
}

static inline void tls_write(X509 *x, const char *path, const char *mode)
{
    FILE *f = fopen(path, mode);
    tls_must(f && PEM_write_X509(f, x) && !fclose(f), path);
}

static inline tls_authority tls_authority_new(const char *name, long from, long until)
{
    tls_authority a = {.key = EVP_EC_gen("P-256")};
    a.certificate = tls_certificate(name, a.key, from, until);
    X509_set_issuer_name(a.certificate, X509_get_subject_name(a.certificate));
    tls_extend(a.certificate, a.certificate, NID_basic_constraints, "critical,CA:TRUE");
    tls_extend(a.certificate, a.certificate, NID_key_usage, "critical,keyCertSign,cRLSign");
    tls_must(X509_sign(a.certificate, a.key, EVP_sha256()) > 0, "signing");
    return a;
}

static inline void tls_authority_free(tls_authority *a)
{
    EVP_PKEY_free(a->key);
    X509_free(a->certificate);
}

/* A pair signed by |a|, for 127.0.0.1, ::1 and localhost. |use| is "serverAuth" or "clientAuth". */
static inline void tls_issue(const tls_authority *a, const char *name, const char *use, long from, long until,
                             const char *certificate_path, const char *key_path)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = tls_certificate(name, key, from, until);
    X509_set_issuer_name(x, X509_get_subject_name(a->certificate));
    tls_extend(x, a->certificate, NID_ext_key_usage, use);
    tls_extend(x, a->certificate, NID_subject_alt_name, "DNS:localhost,IP:127.0.0.1,IP:::1");
    tls_must(X509_sign(x, a->key, EVP_sha256()) > 0, "signing");
    tls_write(x, certificate_path, "w");
    tls_write_key(key, key_path);
    EVP_PKEY_free(key);
    X509_free(x);
}
