/* echo_server [PORT [THREADS]] - serving/grpc_server with trivial handlers, for official clients and load
 * tools.
 *
 * Prints "port=N" once it listens. Ends on SIGTERM or SIGINT by a drain of at most 5 s. SIGUSR1 and SIGUSR2
 * turn the health status to NOT_SERVING and back. /sluice.v1.Scoring/Score   0.25 and 0.125 for every
 * candidate and task; no candidates: INVALID_ARGUMENT /sluice.test.Echo/Echo     the request, byte for byte
 *   /sluice.test.Echo/Sleep    sleeps as many ms as the request has bytes, then answers nothing */
#include "base/clock.h"
#include "base/log.h"
#include "serving/grpc_server.h"
#include "serving/pb_arena.h"
#include "sluice/v1/score.pb-c.h"
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static slu_grpc_status echo(void *ctx, slu_grpc_call *call)
{
    (void)ctx;
    if (call->request_len)
        slu_put_bytes(call->response, call->request, call->request_len);
    return SLU_GRPC_OK;
}

static slu_grpc_status nap(void *ctx, slu_grpc_call *call)
{
    (void)ctx;
    usleep((useconds_t)call->request_len * 1000);
    return SLU_GRPC_OK;
}

static float *filled(slu_arena *arena, size_t n, float v)
{
    float *p = slu_arena_alloc(arena, n * sizeof *p);
    for (size_t i = 0; p && i < n; i++)
        p[i] = v;
    return p;
}

static slu_grpc_status score(void *ctx, slu_grpc_call *call)
{
    (void)ctx;
    static char *click[] = {"click"};
    ProtobufCAllocator allocator = slu_pb_allocator(call->arena);
    Sluice__V1__ScoreRequest *q =
        sluice__v1__score_request__unpack(&allocator, call->request_len, call->request);
    if (!q || !q->candidates || q->candidates > 100000) {
        snprintf(call->message, sizeof call->message, "%s — 1 to 100000 candidates, 100 %% proto",
                 q ? "wrong number of candidates" : "not a ScoreRequest");
        return SLU_GRPC_INVALID_ARGUMENT;
    }
    size_t n = q->n_tasks ? q->n_tasks : 1;
    char **names = q->n_tasks ? q->tasks : click;
    Sluice__V1__TaskScores *tasks = slu_arena_alloc(call->arena, n * sizeof *tasks);
    Sluice__V1__TaskScores **list = slu_arena_alloc(call->arena, n * sizeof *list);
    float *a = filled(call->arena, q->candidates, .25f), *b = filled(call->arena, q->candidates, .125f);
    if (!tasks || !list || !a || !b)
        return SLU_GRPC_RESOURCE_EXHAUSTED;
    for (size_t i = 0; i < n; i++) {
        sluice__v1__task_scores__init(&tasks[i]);
        tasks[i].task = names[i];
        tasks[i].conditional = a;
        tasks[i].entire_space = b;
        tasks[i].n_conditional = tasks[i].n_entire_space = q->candidates;
        list[i] = &tasks[i];
    }
    Sluice__V1__ScoreResponse answer = SLUICE__V1__SCORE_RESPONSE__INIT;
    answer.n_tasks = n;
    answer.tasks = list;
    answer.model_version = 7;
    answer.freshness_us = -1;
    size_t size = sluice__v1__score_response__get_packed_size(&answer);
    sluice__v1__score_response__pack(&answer, slu_buf_reserve(call->response, size));
    call->response->len += size;
    return SLU_GRPC_OK;
}

/* A pipe, not sigwait: libraries start threads before main does anything (OpenBLAS), which block no signal,
 * so that one would kill the process whenever main is not waiting for it. */
static int signals[2];

static void note_signal(int number)
{
    unsigned char byte = (unsigned char)number;
    if (write(signals[1], &byte, 1) != 1)
        _exit(4);
}

/* Waits in poll: ThreadSanitizer hands on a signal there, and not in read. */
static int next_signal(void)
{
    struct pollfd waiting = {.fd = signals[0], .events = POLLIN};
    unsigned char byte;
    while (poll(&waiting, 1, -1) < 0 && errno == EINTR)
        ;
    return read(signals[0], &byte, 1) == 1 ? byte : SIGTERM;
}

int main(int argc, char **argv)
{
    char listen[32];
    snprintf(listen, sizeof listen, "127.0.0.1:%d", argc > 1 ? atoi(argv[1]) : 0);
    slu_serving_opts opts = {.listen = listen,
                             .threads = argc > 2 ? (uint32_t)atoi(argv[2]) : 1,
                             .max_request_bytes = 4 << 20,
                             .max_streams = 256,
                             .max_connections = 64,
                             .max_queue = 512};
    const slu_grpc_method methods[] = {{"/sluice.v1.Scoring/Score", score, NULL},
                                       {"/sluice.test.Echo/Echo", echo, NULL},
                                       {"/sluice.test.Echo/Sleep", nap, NULL},
                                       {NULL, NULL, NULL}};
    if (pipe(signals)) {
        perror("pipe");
        return 1;
    }
    struct sigaction act = {.sa_handler = note_signal, .sa_flags = SA_RESTART};
    sigaction(SIGTERM, &act, NULL);
    sigaction(SIGINT, &act, NULL);
    sigaction(SIGUSR1, &act, NULL);
    sigaction(SIGUSR2, &act, NULL);
    slu_error err = SLU_ERROR_INIT;
    slu_grpc_server *s;
    if (slu_grpc_server_start(&opts, methods, &s, &err)) {
        fprintf(stderr, "%s\n", err.message);
        return 1;
    }
    slu_grpc_server_set_serving(s, true);
    printf("port=%d\n", slu_grpc_server_port(s));
    fflush(stdout);
    int number;
    while ((number = next_signal()) != SIGTERM && number != SIGINT)
        slu_grpc_server_set_serving(s, number == SIGUSR2);
    uint32_t cut = slu_grpc_server_drain(s, 5 * SLU_SECOND_US);
    slu_grpc_server_free(s);
    return cut ? 3 : 0;
}
