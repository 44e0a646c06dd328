/* serving/tls_files.h - certificate, key and client CAs from their files into an OpenSSL context, with words
 * for everything that can be wrong with them.
 *
 * Files are PEM. The certificate file holds the server's certificate first and then the intermediate ones;
 * the key must belong to it and must not be encrypted; client_ca holds the certificates of those who may sign
 * clients. An expired certificate is refused here: every client would refuse it too, and less clearly. */
#pragma once
#include "base/error.h"
#include <openssl/ssl.h>
#include <stdint.h>

typedef struct slu_tls_files {
    const char *certificate, *key;
    const char *client_ca; /* NULL: clients need no certificate */
} slu_tls_files;

typedef struct slu_tls_facts {
    int64_t expires_s;    /* Unix time: the first certificate of the chain that expires */
    int64_t ca_expires_s; /* the first of the client CAs that are still valid; 0: none */
    char subject[200];    /* of the certificate */
    char
        advice[400]; /* works, but should be looked at: permissions of the key, expiry within two weeks; "" */
} slu_tls_facts;

/* Fills a fresh |ctx|. Returns 0, SLU_EIO (a file cannot be read) or SLU_ECONFIG (what it holds cannot be
 * used); |err| names key, file and remedy, never the contents. */
int slu_tls_files_load(const slu_tls_files *f, SSL_CTX *ctx, slu_tls_facts *facts, slu_error *err);
/* A number that changes when one of the files does (time, size or inode; also when it goes away). */
uint64_t slu_tls_files_stamp(const slu_tls_files *f);
