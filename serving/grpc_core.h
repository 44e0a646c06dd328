/* serving/grpc_core.h - gRPC over HTTP/2 as a function of bytes and time: no sockets, no clock of its own.
 *
 * A core belongs to one loop thread: limits, routes, the queue of complete requests, pools and scratch. Each
 * connection is a session of it (serving/grpc_session.h). The shell around it (serving/grpc_loop.c, a test,
 * the fuzzer)
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

/* |routes| stays the caller's and outlives the core. NULL: out of memory. */
slu_grpc_core *slu_grpc_core_new(const slu_grpc_limits *limits, slu_grpc_routes *routes, uint32_t thread);
/* Who helps its handlers from now on. */
void slu_grpc_core_use_crew(slu_grpc_core *c, struct slu_crew *crew);
void slu_grpc_core_free(slu_grpc_core *c); /* after its sessions; NULL is fine */
/* Runs the oldest complete request; false when none waits. */
bool slu_grpc_core_run(slu_grpc_core *c, const slu_clock *clock);
uint32_t slu_grpc_core_waiting(const slu_grpc_core *c);
size_t slu_grpc_core_held(const slu_grpc_core *c); /* bytes, as max_held counts them */
/* Calls of kind WATCH are due for a fresh answer; they join the queue. */
void slu_grpc_core_changed(slu_grpc_core *c);
