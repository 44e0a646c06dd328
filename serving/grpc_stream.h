/* serving/grpc_stream.h - what the parts of a gRPC server know about each other: grpc_core.c (queue,
 * handlers), grpc_session.c (the connection), grpc_http2.c (what comes in) and grpc_answer.c (what goes out).
 * Nobody else includes this.
 *
 * Life of a stream: headers -> message bytes -> ready (in the queue) -> answered -> finished -> closed.
 * finish() decides the status exactly once; whatever comes from the peer afterwards is taken and dropped. */
#pragma once
#include "base/arena.h"
#include "serving/grpc_frame.h"
#include "serving/grpc_headers.h"
#include "serving/grpc_session.h"
#include "serving/grpc_wait.h"
#include <nghttp2/nghttp2.h>

typedef struct slu_grpc_stream slu_grpc_stream;

struct slu_grpc_stream {
    slu_grpc_session *session;
    slu_grpc_stream *next, *prev; /* of the session; next also links the pool */
    slu_grpc_stream *queue_next, *queue_prev;
    slu_grpc_stream *watch_next, *watch_prev;
    int32_t id;
    slu_grpc_headers head;
    bool headers; /* they are whole */

    int64_t begun_us, received_us;
    bool whole;       /* in.message is a request (UNARY, WATCH) */
    bool half_closed; /* the peer will send no more */
    bool queued, watching, parked;
    size_t weighed; /* bytes that it counts for in core->wait while it is queued */
    bool answered;  /* response headers are submitted */
    bool finished;  /* the status is decided */
    int status;

    slu_grpc_frame in;
    slu_buf raw; /* BIDI: bytes behind the message that waits; raw_at of them are used */
    size_t raw_at;
    size_t buffered; /* this stream's part of session->buffered */
    slu_buf out;     /* framed answers; out_at of them are in DATA frames */
    size_t out_at;
    slu_buf last; /* WATCH: the answer that was sent last */
    slu_buf note; /* grpc-message, encoded */
};

struct slu_grpc_core {
    slu_grpc_limits limits;
    slu_grpc_routes *routes;
    uint32_t thread;
    struct slu_crew *crew; /* NULL: none */
    slu_arena *arena;
    slu_buf response; /* scratch of the running handler */
    slu_grpc_stream *queue, *queue_last;
    uint32_t waiting;
    slu_grpc_wait wait;
    slu_grpc_stream *watchers;
    slu_grpc_stream *pool;
    uint32_t pooled;
    size_t pooled_bytes; /* of their buffers */
    size_t held;         /* by all sessions, as they were accounted for last */
    slu_grpc_session *touched;
    nghttp2_session_callbacks *callbacks;
    nghttp2_option *option;
    slu_metric *in_flight, *refused_queue, *refused_wait, *refused_size, *refused_unsent, *refused_held,
        *refused_resets;
};

struct slu_grpc_session {
    slu_grpc_core *core;
    void *owner;
    nghttp2_session *h2;
    slu_grpc_session *touched_next;
    bool touched;
    slu_grpc_stream *streams;
    uint32_t calls;   /* length of streams */
    uint32_t greeted; /* bytes of the client's greeting that came */
    bool foreign;     /* not HTTP/2; out holds a farewell in its language */
    bool broken;      /* nghttp2 gave up: no more frames */
    int goodbye;      /* 0, or the step of the drain, 1 or 2 */
    int64_t now_us, begun_us, goodbye_us, last_call_us;
    bool proven; /* has had an answer */
    size_t buffered, unsent;
    size_t held; /* its part of core->held */
    slu_buf out; /* bytes for the socket; out_at of them are sent */
    size_t out_at;
    int64_t out_us, data_us; /* last progress of the socket, of DATA frames */
    int64_t second;          /* of the counters below */
    uint32_t aborted, handled;
};

/* grpc_core.c */
/* Brings core->held up to date after |s| has changed. */
void slu_grpc_session_account(slu_grpc_session *s);
slu_grpc_stream *slu_grpc_stream_new(slu_grpc_session *s, int32_t id);
void slu_grpc_stream_free(slu_grpc_stream *st); /* out of every list, back to the pool */
/* The request is whole: queue, run or refuse it. */
void slu_grpc_stream_ready(slu_grpc_stream *st);
/* BIDI: looks for the next message among the bytes that wait; ends the stream after the last. */
void slu_grpc_stream_advance(slu_grpc_stream *st);
/* Refuses what frame_read refused. */
void slu_grpc_stream_refuse(slu_grpc_stream *st, slu_grpc_frame_state state);
void slu_grpc_stream_finish(slu_grpc_stream *st, int status, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* grpc_session.c */
void slu_grpc_session_touch(slu_grpc_session *s);
/* Second step of the goodbye: from here on the peer knows which calls will be answered. */
void slu_grpc_session_goodbye(slu_grpc_session *s);

/* NULL: no such stream, or it was not accepted. */
static inline slu_grpc_stream *slu_grpc_stream_of(slu_grpc_session *s, int32_t id)
{
    return nghttp2_session_get_stream_user_data(s->h2, id);
}
