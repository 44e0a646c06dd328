/* sim/grpc_client.h - a small blocking gRPC client: unary calls over one HTTP/2 connection (with prior
 * knowledge, or by TLS).
 *
 * For programs that ask a scorer now and then; it is not a channel with balancing and retries. A connection
 * that broke stays broken: free it and connect again. One client, one thread. Buffers are kept between
 * calls. */
#pragma once
#include "base/bytes.h"
#include "base/error.h"
#include "sim/client_tls.h"
#include <stddef.h>
#include <stdint.h>

typedef struct slu_grpc_client slu_grpc_client;

/* |address| is "host:port" or "[v6]:port". Waits at most |timeout_us| for the connection and the server's
 * HTTP/2 greeting. On success the caller owns *|cp|; on failure it is NULL. Returns 0, SLU_EINVAL (address),
 * SLU_EIO (refused, unknown host, not HTTP/2), SLU_EAGAIN (timeout), SLU_ENOMEM. */
int slu_grpc_client_connect(const char *address, int64_t timeout_us, slu_grpc_client **cp, slu_error *err);
/* The same over TLS; |tls| NULL: plain. */
int slu_grpc_client_connect_tls(const char *address, const slu_client_tls_files *tls, int64_t timeout_us,
                                slu_grpc_client **cp, slu_error *err);
void slu_grpc_client_free(slu_grpc_client *c); /* NULL is fine */

/* One unary call, e.g. |path| "/sluice.v1.Scoring/Score". |timeout_us| travels as grpc-timeout and also
 * bounds the wait here. |response| is cleared and then holds the message (without prefix) when the status is
 * OK. Returns the gRPC status, 0 (OK) to 16, with its text in |message| (|size|, NUL-terminated, may be
 * NULL); a timeout seen here is 4 (DEADLINE_EXCEEDED). Returns -1 when the connection is broken, with the
 * reason in |message|; every later call then fails the same way. */
int slu_grpc_client_call(slu_grpc_client *c, const char *path, const void *request, size_t len,
                         int64_t timeout_us, slu_buf *response, char *message, size_t size);

/* Several calls at once: start up to the server's stream limit, then wait for them in any order. Slots are
 * small integers, free again after slu_grpc_client_wait. start returns the slot, or -1 (broken, no slot
 * free); |request| is copied. wait is the second half of slu_grpc_client_call. */
int slu_grpc_client_start(slu_grpc_client *c, const char *path, const void *request, size_t len,
                          int64_t timeout_us, char *message, size_t size);
int slu_grpc_client_wait(slu_grpc_client *c, int slot, slu_buf *response, char *message, size_t size);
