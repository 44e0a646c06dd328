/* serving/grpc_loop.h - one thread: an epoll loop with a listener and its connections, around a grpc_core.
 *
 * A round reads what came, runs handlers (oldest request first, for about a millisecond, then looks at the
 * sockets again so that overload is noticed and refused early), and writes each connection's answers with one
 * send. A loop without connections sleeps without a timer. One that has no request of its own does pieces of
 * the others' (serving/crew.h), one a round.
 *
 * With TLS a connection has a session only once its handshake is over. Handshakes cost more than requests do,
 * so a round gives them a bounded share of its time, and of the connections at most half may be in one: the
 * oldest gives way.
 *
 * When there are as many connections as may be, or no descriptors are left, the idlest of some gives way to a
 * new one: peers that open connections and ask nothing cannot shut out those that do. A round accepts for
 * half a millisecond at most, and looks at a bounded number of connections for each. */
#pragma once
#include "serving/crew.h"
#include "serving/grpc_core.h"
#include "serving/tls.h"
#include <stdatomic.h>

/* What the loops of a server share; each field is touched rarely. */
typedef struct slu_grpc_shared {
    slu_grpc_limits limits;
    uint32_t max_connections;
    slu_grpc_routes *routes;
    slu_crew *crew;          /* all loops of the server; NULL: there is one only */
    slu_tls *tls;            /* NULL: plain text */
    int64_t handshake_us;    /* longest */
    uint32_t max_handshakes; /* open ones, of each loop */
    atomic_uint connections;
    atomic_uint changes;            /* of health; counted up, then the loops are woken */
    _Atomic int64_t drain_until_us; /* monotonic; 0: not draining */
    slu_metric *open, *accepted, *refused, *evicted, *bytes_in, *bytes_out, *handshakes, *rounds;
} slu_grpc_shared;

typedef struct slu_grpc_loop slu_grpc_loop;

/* Takes |listener| (non-blocking, listening) in every case. Starts the thread. Returns 0, SLU_EIO,
 * SLU_ENOMEM. */
int slu_grpc_loop_start(slu_grpc_shared *shared, int listener, uint32_t index, slu_grpc_loop **lp,
                        slu_error *err);
void slu_grpc_loop_wake(slu_grpc_loop *l); /* @thread any */
/* Waits for the end of the drain. Returns the calls that were cut off. */
uint32_t slu_grpc_loop_join(slu_grpc_loop *l);
/* When all loops of the server are joined: until then another one may wake it. */
void slu_grpc_loop_free(slu_grpc_loop *l);
