/* serving/grpc_wait.h - how long requests may wait for their turn, so that overload is refused early.
 *
 * A server that is asked for more than it can do must not let its queue grow until every answer is late: it
 * refuses what would wait too long, at once, while the client can still ask another one. How long is too long
 * depends on the queue. One that was empty a moment ago holds a burst, which may take the whole of max_us.
 * One that never empties is standing: waiting in it buys nobody anything, so only a quarter of max_us is
 * allowed, but always the time of two requests, or a queue of large ones could never be used at all.
 *
 * The wait is predicted from what the requests that wait weigh (their bytes) and from the time that a byte
 * has taken lately. When a prediction was too good, the request is refused when its turn comes.
 *
 * Pure: time is an argument. @thread one, the loop */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct slu_grpc_wait {
    int64_t max_us;     /* 0: any wait is allowed */
    int64_t empty_us;   /* when the queue was empty last */
    uint64_t weight;    /* of the requests that wait */
    double us_per_unit; /* smoothed; 0: nothing measured yet */
    double us_per_call; /* smoothed */
} slu_grpc_wait;

/* Longest wait that is allowed now. */
int64_t slu_grpc_wait_limit(const slu_grpc_wait *w, int64_t now_us);
/* How long a request that came now would wait. */
int64_t slu_grpc_wait_predict(const slu_grpc_wait *w);
/* May a request join the queue? False: it is to be refused. */
bool slu_grpc_wait_admits(const slu_grpc_wait *w, int64_t now_us);
/* A request of so many bytes joins the queue or leaves it. */
void slu_grpc_wait_join(slu_grpc_wait *w, size_t bytes, int64_t now_us);
void slu_grpc_wait_leave(slu_grpc_wait *w, size_t bytes, int64_t now_us);
/* One of so many bytes was handled in |us|. */
void slu_grpc_wait_learn(slu_grpc_wait *w, size_t bytes, int64_t us);
