#include "serving/grpc_wait.h"
#include <assert.h>

#define STANDING_SHARE 4   /* a standing queue may wait max_us / 4 */
#define CALLS          2.0 /* or the time of so many requests, if that is more */
#define SMOOTH         (1.0 / 16)
#define UNIT_OF_A_CALL 256u /* what a request weighs beside its bytes */

static uint64_t weight_of(size_t bytes)
{
    return bytes + UNIT_OF_A_CALL;
}

int64_t slu_grpc_wait_limit(const slu_grpc_wait *w, int64_t now_us)
{
    if (!w->max_us)
        return INT64_MAX;
    if (!w->weight || now_us - w->empty_us < w->max_us)
        return w->max_us;
    int64_t least = (int64_t)(CALLS * w->us_per_call), limit = w->max_us / STANDING_SHARE;
    if (limit < least)
        limit = least;
    return limit < w->max_us ? limit : w->max_us;
}

int64_t slu_grpc_wait_predict(const slu_grpc_wait *w)
{
    double us = (double)w->weight * w->us_per_unit;
    return us < 1e15 ? (int64_t)us : (int64_t)1e15;
}

bool slu_grpc_wait_admits(const slu_grpc_wait *w, int64_t now_us)
{
    return !w->max_us || slu_grpc_wait_predict(w) <= slu_grpc_wait_limit(w, now_us);
}

void slu_grpc_wait_join(slu_grpc_wait *w, size_t bytes, int64_t now_us)
{
    if (!w->weight)
        w->empty_us = now_us;
    w->weight += weight_of(bytes);
}

void slu_grpc_wait_leave(slu_grpc_wait *w, size_t bytes, int64_t now_us)
{
    assert(w->weight >= weight_of(bytes));
    w->weight -= weight_of(bytes);
    if (!w->weight)
        w->empty_us = now_us;
}

static void smooth(double *mean, double x)
{
    *mean = *mean > 0 ? *mean + (x - *mean) * SMOOTH : x;
}

void slu_grpc_wait_learn(slu_grpc_wait *w, size_t bytes, int64_t us)
{
    if (us < 0)
        us = 0;
    smooth(&w->us_per_unit, (double)us / (double)weight_of(bytes));
    smooth(&w->us_per_call, (double)us);
}
