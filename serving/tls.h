/* serving/tls.h - the server's side of TLS as a function of bytes: no sockets, no clock, so that tests and
 * the fuzzer drive it in memory. serving/grpc_loop.c is the shell around it.
 *
 * TLS 1.2 and 1.3 with forward secrecy and authenticated ciphers only; HTTP/2 must be offered by ALPN; client
 * certificates are asked for when serving.tls.client_ca is set. No renegotiation, no compression, no
 * resumption: gRPC connections live long, and a session that goes on later would carry a client past a
 * renewed CA.
 *
 * An slu_tls holds the current certificate. It can be replaced while connections are served: new ones get the
 * new certificate, open ones keep theirs. @thread any, except for slu_tls_refresh (one caller at a time).
 * A connection belongs to one thread. Its memory is bounded: output grows by what is sealed (the shell seals
 * at most SLU_TLS_PIECE ahead) and by replies of TLS itself, of which a client that does not read them gets
 * 64 KiB; input is never kept beyond one record. */
#pragma once
#include "base/options.h"
#include "serving/tls_files.h"
#include <stdbool.h>
#include <stddef.h>

#define SLU_TLS_PIECE ((size_t)16 << 10) /* plain bytes of one record */

/* How a handshake can end; label |result| of sluice_tls_handshakes_total. */
typedef enum slu_tls_result {
    SLU_TLS_OK,
    SLU_TLS_NOT_TLS,         /* plain text on this port */
    SLU_TLS_VERSION,         /* no version, cipher or group in common */
    SLU_TLS_ALPN,            /* does not offer HTTP/2 */
    SLU_TLS_NO_CERTIFICATE,  /* a client certificate is needed */
    SLU_TLS_BAD_CERTIFICATE, /* it is expired, not for clients, or signed by somebody else */
    SLU_TLS_REFUSED,         /* the client does not trust this server, or says so */
    SLU_TLS_BROKEN,          /* against the protocol */
    SLU_TLS_TIMEOUT,
    SLU_TLS_HUNG_UP,
    SLU_TLS_CROWDED, /* gave way to a newer one */
    SLU_TLS_RESULTS,
} slu_tls_result;

typedef struct slu_tls slu_tls;
typedef struct slu_tls_conn slu_tls_conn;

/* Loads the files. Copies what it needs of |opts|. Returns 0, SLU_ECONFIG, SLU_EIO, SLU_ENOMEM. */
int slu_tls_open(const slu_serving_opts *opts, slu_tls **tp, slu_error *err);
void slu_tls_free(slu_tls *t); /* connections may outlive it; NULL is fine */
/* Loads the files again: when |now|, or when they differ from what is loaded and have stood still since the
 * last call (a renewal writes several files). What cannot be used is refused with a log line, once, and the
 * old certificate stays. Call it every few seconds. Returns true when a new one is in use. */
bool slu_tls_refresh(slu_tls *t, bool now);
/* Tries the files of |opts| without keeping anything, for --check. |facts| also when it fails. */
int slu_tls_check(const slu_serving_opts *opts, slu_tls_facts *facts, slu_error *err);

slu_tls_conn *slu_tls_conn_new(slu_tls *t); /* NULL: out of memory */
void slu_tls_conn_free(slu_tls_conn *c);    /* NULL is fine */
/* |n| bytes from the network; what they hold in plain goes to |take|, in order and maybe in several pieces.
 * Returns 0, SLU_ECLOSED (the peer said goodbye), SLU_EINVAL (it broke the protocol or is not let in; see
 * why), or the negative code with which |take| stopped. After anything but 0: send the output, then close. */
typedef int slu_tls_take(void *ctx, const uint8_t *p, size_t n);
int slu_tls_conn_feed(slu_tls_conn *c, const uint8_t *p, size_t n, slu_tls_take *take, void *ctx);
bool slu_tls_conn_ready(const slu_tls_conn *c); /* the handshake is over, well */
/* Encrypts |n| bytes behind the output. Returns 0 or SLU_EINVAL (not ready, or broken). */
int slu_tls_conn_seal(slu_tls_conn *c, const void *p, size_t n);
void slu_tls_conn_bye(slu_tls_conn *c); /* close_notify behind the output */
/* Bytes for the network, valid until the next call; 0: none. */
size_t slu_tls_conn_output(const slu_tls_conn *c, const uint8_t **p);
void slu_tls_conn_sent(slu_tls_conn *c, size_t n);
/* The shell gives up on a handshake. Counted once per connection, like every end of a handshake. */
void slu_tls_conn_give_up(slu_tls_conn *c, slu_tls_result result);
slu_tls_result slu_tls_conn_result(const slu_tls_conn *c); /* SLU_TLS_RESULTS: still open */
const char *slu_tls_conn_why(const slu_tls_conn *c);       /* words for a log line; "" */
