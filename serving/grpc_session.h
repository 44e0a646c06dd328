/* serving/grpc_session.h - one connection of a gRPC server: bytes in, bytes out, time and the goodbye.
 *
 * A session belongs to a core (serving/grpc_core.h tells how the shell around them goes on). Its life: the
 * client's HTTP/2 greeting, calls, a goodbye in two steps, done. Who greets in another language gets a
 * farewell in HTTP/1.1, if that was it; who aborts calls in great numbers is told to calm down.
 *
 * INVARIANT: whatever a session holds is in core->held as of the last feed, output or tick. @thread the
 * loop's
 */
#pragma once
#include "serving/grpc_core.h"

#define SLU_GRPC_OUTPUT ((size_t)256 << 10) /* bytes of frames made ahead of the socket */

typedef struct slu_grpc_session slu_grpc_session;

/* |owner| is what slu_grpc_core_touched() hands back. NULL: out of memory. */
slu_grpc_session *slu_grpc_session_new(slu_grpc_core *c, void *owner, int64_t now_us);
void slu_grpc_session_free(slu_grpc_session *s); /* what still runs is cut off; NULL is fine */
/* Returns 0, or a negative code when the connection cannot go on: send what there is, then close. */
int slu_grpc_session_feed(slu_grpc_session *s, const uint8_t *p, size_t n, int64_t now_us);
/* Bytes to send, in front of which nothing may go; 0 when there is nothing. Valid until the next call. */
size_t slu_grpc_session_output(slu_grpc_session *s, const uint8_t **p);
void slu_grpc_session_sent(slu_grpc_session *s, size_t n, int64_t now_us);
/* Deadlines and time-outs. Returns 0, or a negative code when the connection must be closed now; |*why| is
 * then a few words for the log. */
int slu_grpc_session_tick(slu_grpc_session *s, int64_t now_us, const char **why);
/* First step of a graceful goodbye: GOAWAY that still allows new calls, and a PING. The answer to that PING,
 * or a second of silence, brings the second step: GOAWAY with the last call that will be answered. */
void slu_grpc_session_drain(slu_grpc_session *s, int64_t now_us);
/* All is said: nothing to send, nothing to wait for. */
bool slu_grpc_session_done(const slu_grpc_session *s);
/* Open calls, and whether anything (call, greeting, output, goodbye) needs ticks more often than idling. */
uint32_t slu_grpc_session_calls(const slu_grpc_session *s);
bool slu_grpc_session_busy(const slu_grpc_session *s);
/* Has it ever had an answer? */
bool slu_grpc_session_proven(const slu_grpc_session *s);
/* Microseconds since its last answer went out, -1 while a request waits for its turn. Open calls whose
 * request does not come, or whose answer is not read, do not count. */
int64_t slu_grpc_session_idle(const slu_grpc_session *s, int64_t now_us);
/* Output is so far behind that reading more would only make it worse. */
bool slu_grpc_session_choked(const slu_grpc_session *s);

/* The next owner whose session may have new output since it was last asked about; NULL: none. */
void *slu_grpc_core_touched(slu_grpc_core *c);
