/* serving/grpc_loop_state.h - the inside of an event loop, shared by grpc_loop.c (the thread and its rounds),
 * grpc_conn.c (connections: bytes in and out, through TLS or not) and grpc_accept.c (who may come in, and who
 * makes room for that). Nobody else includes it. @thread the loop's */
#pragma once
#include "serving/grpc_loop.h"
#include "serving/grpc_session.h"
#include <pthread.h>

#define SLU_GRPC_READ_BYTES ((size_t)128 << 10)

typedef struct slu_grpc_conn {
    struct slu_grpc_conn *next, *prev;
    int fd;
    uint32_t events;           /* as registered */
    slu_tls_conn *tls;         /* NULL: plain text */
    size_t sealed;             /* plain bytes that are in the TLS output and not yet sent */
    int64_t handshake_us;      /* until then */
    slu_grpc_session *session; /* NULL: the handshake is not over */
    bool shaking;              /* in a TLS handshake */
    bool closing;              /* nothing more to say; waits for the peer's end */
    int64_t closing_us;        /* until then */
} slu_grpc_conn;

/* Newest first, but those that were looked at for room are moved to the front (grpc_accept.c). */
typedef struct slu_grpc_conn_list {
    slu_grpc_conn *newest, *oldest;
} slu_grpc_conn_list;

enum { SLU_GRPC_TALKING, SLU_GRPC_SHAKING };

struct slu_grpc_loop {
    slu_grpc_shared *shared;
    slu_grpc_core *core;
    uint32_t index;
    int poll, wake, listener;
    bool listening; /* the listener is in the poll set */
    pthread_t thread;
    slu_grpc_conn_list lists[2]; /* with a session; in a handshake, so that the oldest of those is at hand */
    uint32_t n_conns;
    uint32_t handshakes;         /* open ones */
    int64_t handshakes_until_us; /* in this round */
    slu_grpc_conn *dead; /* closed in this round; freed at its end, since events may still point at them */
    int64_t now_us, next_tick_us;
    int64_t cpu_ns;   /* of this thread, at the end of the last round */
    unsigned changes; /* of health, seen */
    bool busy;        /* at the last tick */
    bool draining;
    uint32_t cut;
    uint8_t *bytes; /* (SLU_GRPC_READ_BYTES) */
};

/* ---- grpc_conn.c ---- */

/* Nearly all of these may close |c|. Its descriptor is -1 then and its memory is good until the round ends
 * with slu_grpc_conn_bury(). */

/* A connection of |fd|, which the caller has counted, and which is closed when there is no memory for it. */
void slu_grpc_conn_new(slu_grpc_loop *l, int fd);
/* Reads once. The answers to what came wait for the flush, except those of TLS itself. */
void slu_grpc_conn_read(slu_grpc_loop *l, slu_grpc_conn *c);
/* Sends what there is to say, as far as the socket takes it. After the last of it the peer is to hang up. */
void slu_grpc_conn_flush(slu_grpc_loop *l, slu_grpc_conn *c);
/* Ends a handshake, with a line in the log. */
void slu_grpc_conn_give_up(slu_grpc_loop *l, slu_grpc_conn *c, slu_tls_result result);
void slu_grpc_conn_close(slu_grpc_loop *l, slu_grpc_conn *c); /* closed already is fine */
void slu_grpc_conn_bury(slu_grpc_loop *l);
/* Makes |c| the newest of its list. */
void slu_grpc_conn_to_front(slu_grpc_loop *l, slu_grpc_conn *c);
/* For each connection, which |deed| may close. */
void slu_grpc_conn_each(slu_grpc_loop *l, void (*deed)(slu_grpc_loop *l, slu_grpc_conn *c));
/* Deeds. Time-outs; sets l->busy when something will be due soon. The begin of a drain. The end of one, with
 * calls that had no answer yet counted in l->cut. */
void slu_grpc_conn_tick(slu_grpc_loop *l, slu_grpc_conn *c);
void slu_grpc_conn_drain(slu_grpc_loop *l, slu_grpc_conn *c);
void slu_grpc_conn_cut(slu_grpc_loop *l, slu_grpc_conn *c);

/* ---- grpc_accept.c ---- */

/* Puts the listener into the poll set, if it is to be there and is not. SLU_EIO. */
int slu_grpc_listen(slu_grpc_loop *l);
void slu_grpc_stop_listening(slu_grpc_loop *l);
/* Takes new connections until |until_us|, one at least and a bounded number at most. What is left in the
 * backlog is reported again in the next round. */
void slu_grpc_accept(slu_grpc_loop *l, int64_t until_us);
