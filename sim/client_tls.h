/* sim/client_tls.h - the client's side of TLS over a connected, non-blocking socket, for sim/grpc_client.c.
 *
 * The server's certificate must be signed by one of |ca| and be made for the host (name or address) that was
 * connected to; HTTP/2 is asked for by ALPN. One connection, one thread. */
#pragma once
#include "base/error.h"
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

typedef struct slu_client_tls_files {
    const char *ca;          /* PEM: who may sign the server */
    const char *certificate; /* PEM: this client's, for mutual TLS; NULL: none */
    const char *key;         /* PEM; NULL: in the file of the certificate */
} slu_client_tls_files;

typedef struct slu_client_tls slu_client_tls;

/* Files into a connection over |fd|, which stays the caller's. Returns 0, SLU_EIO (a file), SLU_EINVAL (what
 * it holds), SLU_ENOMEM. */
int slu_client_tls_new(const slu_client_tls_files *files, const char *host, int fd, slu_client_tls **tp,
                       slu_error *err);
void slu_client_tls_free(slu_client_tls *t); /* says goodbye if it can; NULL is fine */
/* One step of the handshake: 1 done, 0 go on when the socket is ready for *|events| (poll), negative: failed,
 * |err| says why. */
int slu_client_tls_shake(slu_client_tls *t, short *events, slu_error *err);
/* Like send and recv: bytes, 0 at the end (recv), or -1 with errno EAGAIN, or EPROTO with words in why. */
ssize_t slu_client_tls_send(slu_client_tls *t, const void *p, size_t n);
ssize_t slu_client_tls_recv(slu_client_tls *t, void *p, size_t n);
const char *slu_client_tls_why(const slu_client_tls *t); /* "" */
