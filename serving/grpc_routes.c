/* A handful of methods: a scan over lengths and bytes is as quick as any hash. */
#include "serving/grpc_routes.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROUTES 64

struct slu_grpc_routes {
    slu_grpc_route *routes[MAX_ROUTES];
    size_t lengths[MAX_ROUTES]; /* of the paths */
    size_t n;
    char *services[MAX_ROUTES]; /* (n_services) distinct, in order of registration */
    size_t n_services;
    slu_grpc_route unknown;
};

slu_grpc_routes *slu_grpc_routes_new(void)
{
    slu_grpc_routes *r = calloc(1, sizeof *r);
    if (r)
        r->unknown.path = "unknown";
    return r;
}

static void route_free(slu_grpc_route *route)
{
    free(route->path);
    free(route);
}

void slu_grpc_routes_free(slu_grpc_routes *r)
{
    if (!r)
        return;
    for (size_t i = 0; i < r->n; i++)
        route_free(r->routes[i]);
    for (size_t i = 0; i < r->n_services; i++)
        free(r->services[i]);
    free(r);
}

/* Length of "/service" without the slash; 0 when |path| is not "/service/method" of plain characters. */
static size_t service_length(const char *path)
{
    const char *slash = path[0] == '/' ? strchr(path + 1, '/') : NULL;
    if (!slash || slash == path + 1 || !slash[1] || strpbrk(path, "\"\\ \n") || strlen(path) > 200)
        return 0;
    return (size_t)(slash - path - 1);
}

static int add_service(slu_grpc_routes *r, const char *name, size_t len)
{
    for (size_t i = 0; i < r->n_services; i++)
        if (strlen(r->services[i]) == len && !memcmp(r->services[i], name, len))
            return 0;
    char *copy = strndup(name, len);
    if (!copy)
        return SLU_ENOMEM;
    r->services[r->n_services++] = copy;
    return 0;
}

int slu_grpc_routes_add(slu_grpc_routes *r, const char *path, slu_grpc_kind kind, bool at_once,
                        slu_grpc_handler handler, void *ctx, slu_error *err)
{
    size_t service = service_length(path);
    if (!service)
        return slu_fail(err, SLU_EINVAL, "method path '%s' is not of the form /package.Service/Method", path);
    if (slu_grpc_routes_find(r, path, strlen(path)))
        return slu_fail(err, SLU_EINVAL, "method %s is there twice", path);
    if (r->n == MAX_ROUTES)
        return slu_fail(err, SLU_EINVAL, "more than %d methods", MAX_ROUTES);
    slu_grpc_route *route = calloc(1, sizeof *route);
    if (!route)
        return slu_fail(err, SLU_ENOMEM, "out of memory for method %s", path);
    route->path = strdup(path);
    if (!route->path || add_service(r, path + 1, service)) {
        route_free(route);
        return slu_fail(err, SLU_ENOMEM, "out of memory for method %s", path);
    }
    route->kind = kind;
    route->at_once = at_once;
    route->handler = handler;
    route->ctx = ctx;
    char labels[256];
    snprintf(labels, sizeof labels, "method=\"%s\"", path);
    route->seconds = slu_histogram("sluice_grpc_call_seconds", labels,
                                   "Time from the whole request to the queued answer", 25e-6, 1.6, 26);
    r->lengths[r->n] = strlen(path);
    r->routes[r->n++] = route;
    return 0;
}

slu_grpc_route *slu_grpc_routes_find(const slu_grpc_routes *r, const void *path, size_t len)
{
    for (size_t i = 0; i < r->n; i++)
        if (r->lengths[i] == len && !memcmp(r->routes[i]->path, path, len))
            return r->routes[i];
    return NULL;
}

slu_grpc_route *slu_grpc_routes_unknown(slu_grpc_routes *r)
{
    return &r->unknown;
}

const char *slu_grpc_routes_service(const slu_grpc_routes *r, size_t i)
{
    return i < r->n_services ? r->services[i] : NULL;
}

bool slu_grpc_routes_has_service(const slu_grpc_routes *r, const char *name)
{
    for (size_t i = 0; i < r->n_services; i++)
        if (!strcmp(r->services[i], name))
            return true;
    return false;
}

void slu_grpc_route_count(slu_grpc_route *route, int status)
{
    if (status < 0 || status >= SLU_GRPC_CODES)
        status = SLU_GRPC_UNKNOWN;
    slu_metric *m = atomic_load_explicit(&route->calls[status], memory_order_acquire);
    if (!m) { /* two threads may both come here: registering twice gives the same metric */
        char labels[300];
        snprintf(labels, sizeof labels, "method=\"%s\",code=\"%s\"", route->path,
                 slu_grpc_status_name(status));
        m = slu_counter("sluice_grpc_calls_total", labels, "Finished calls by method and status");
        atomic_store_explicit(&route->calls[status], m, memory_order_release);
    }
    slu_metric_add(m, 1);
}
