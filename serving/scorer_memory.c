#include "serving/scorer_memory.h"
#include "base/error.h"
#include "serving/grpc_core.h"
#include <unistd.h>

#define MIB                 (1ull << 20)
#define RAM_SHARE           0.8
#define LEAST_MODEL         (8 * MIB)
#define SCRATCH_OF_A_THREAD (8 * MIB)
#define CONNECTION_BYTES    (64ull << 10)
#define STORE_BYTES         (112 * MIB) /* cache 8, write buffers 48, pending 32, compaction */
#define KAFKA_BYTES         (48 * MIB)  /* queue 16, a fetch on its way, the message in hand */
#define PROGRAM_BYTES       (64 * MIB)

/* |x| but at most |hi|, and at least |lo| in any case. */
static uint64_t clamp(uint64_t x, uint64_t lo, uint64_t hi)
{
    x = x > hi ? hi : x;
    return x < lo ? lo : x;
}

static uint64_t machine_share(void)
{
    long pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    return pages > 0 && page > 0 ? (uint64_t)((double)pages * (double)page * RAM_SHARE) : 2048 * MIB;
}

int slu_scorer_memory_of(const slu_options *options, slu_scorer_memory *p, slu_error *err)
{
    const slu_serving_opts *o = &options->serving;
    uint64_t threads = o->threads;
    p->total = o->memory_bytes ? o->memory_bytes : machine_share();
    p->delta = clamp(p->total / 32, 16 * MIB, 512 * MIB);
    p->deltas = 4 * p->delta;
    p->held = clamp(p->total / 32 / threads, 2ull * o->max_request_bytes + MIB, 256 * MIB);
    p->requests = 2 * threads * p->held;
    p->scratch = threads * (SCRATCH_OF_A_THREAD + slu_grpc_arena_limit(o->max_request_bytes));
    p->connections = o->max_connections * CONNECTION_BYTES;
    p->store = STORE_BYTES;
    p->kafka = KAFKA_BYTES;
    p->program = PROGRAM_BYTES;
    uint64_t rest = p->deltas + p->requests + p->scratch + p->connections + p->store + p->kafka + p->program;
    if (p->total < rest + LEAST_MODEL)
        return slu_fail(
            err, SLU_ECONFIG,
            "serving.memory: %llu MiB leave no room for a model: versions take up to %llu, requests and "
            "answers %llu, scratch of %llu threads %llu, connections %llu, store %llu, Kafka %llu, the "
            "program %llu MiB; give more, or lower serving.threads, serving.max_request or "
            "serving.max_connections",
            (unsigned long long)(p->total / MIB), (unsigned long long)(p->deltas / MIB),
            (unsigned long long)(p->requests / MIB), (unsigned long long)threads,
            (unsigned long long)(p->scratch / MIB), (unsigned long long)(p->connections / MIB),
            (unsigned long long)(p->store / MIB), (unsigned long long)(p->kafka / MIB),
            (unsigned long long)(p->program / MIB));
    p->model = p->total - rest;
    return 0;
}
