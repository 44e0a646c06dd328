/* serving/grpc_core.h - gRPC over HTTP/2 as a function of bytes and time: no sockets, no clock of its own.
 *
 * A core belongs to one loop thread: limits, routes, the queue of complete requests, pools and scratch. Each
 * connection is a session of it. The shell around it (serving/grpc_loop.c, a test, the fuzzer)
 *   1. feeds received bytes:                 slu_grpc_session_feed()
 *   2. lets handlers run, oldest first:      slu_grpc_core_run()
 *   3. takes bytes to send:                  slu_grpc_session_output(), slu_grpc_session_sent()
 *   4. lets time pass now and then:          slu_grpc_session_tick()
 * and frees the session when slu_grpc_session_done() says so or feed or tick refuse to go on.
 *
 * INVARIANT: memory of a session is bounded by its limits whatever the peer sends or does not read: request
 * bytes that wait (max_buffered), answers that wait (max_unsent, after which calls are refused), output
 * (output stops being made at SLU_GRPC_OUTPUT bytes), headers, streams. And so is that of all sessions of a
 * core together (max_held): above it calls are refused, at twice as much connections that send more are
 * closed. Nothing the peer sends asserts. */
#pragma once
#include "base/clock.h"
#include "serving/grpc_routes.h"

#define SLU_GRPC_OUTPUT ((size_t)256 << 10) /* bytes of frames made ahead of the socket */

typedef struct slu_grpc_limits {
    uint32_t max_request_bytes; /* of one message */
    uint32_t max_streams;       /* concurrent per connection */
    uint32_t max_queue;         /* complete requests that wait in a core */
    int64_t max_wait_us;        /* and how long (serving/grpc_wait.h); 0: as long as it takes */
    uint32_t max_header_bytes;  /* of one request, names and values plus 32 each, as HTTP/2 counts */
    uint32_t window_bytes;      /* flow control window of a stream; the connection's is four times that */
    size_t max_buffered;        /* bytes of incomplete and waiting requests of one connection */
    size_t max_unsent;          /* bytes of answers of one connection that its peer did not take yet */
    size_t max_held;     /* of both, output and open calls, of all connections of a core; 0: no bound */
    int64_t greeting_us; /* for the client's HTTP/2 greeting to arrive */
    int64_t request_us;  /* for one request to arrive whole */
    int64_t write_us;    /* without progress while there is something to send */
    int64_t idle_us;     /* without an open call before the connection is said goodbye to */
    uint32_t max_resets; /* aborted streams per second, when they outnumber finished calls 2:1 */
} slu_grpc_limits;

/* Sane values for everything that slu_serving_opts does not say. */
slu_grpc_limits slu_grpc_limits_of(const slu_serving_opts *opts);

/* Bytes that unpacking a request of at most |max_request_bytes| may take. */
size_t slu_grpc_arena_limit(uint32_t max_request_bytes);

typedef struct slu_grpc_core slu_grpc_core;
typedef struct slu_grpc_session slu_grpc_session;

/* |routes| stays the caller's and outlives the core. NULL: out of memory. */
slu_grpc_core *slu_grpc_core_new(const slu_grpc_limits *limits, slu_grpc_routes *routes, uint32_t thread);
void slu_grpc_core_free(slu_grpc_core *c); /* after its sessions; NULL is fine */
/* Runs the oldest complete request; false when none waits. */
bool slu_grpc_core_run(slu_grpc_core *c, const slu_clock *clock);
uint32_t slu_grpc_core_waiting(const slu_grpc_core *c);
size_t slu_grpc_core_held(const slu_grpc_core *c); /* bytes, as max_held counts them */
/* Calls of kind WATCH are due for a fresh answer; they join the queue. */
void slu_grpc_core_changed(slu_grpc_core *c);

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
