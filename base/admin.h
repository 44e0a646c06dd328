/* base/admin.h - the HTTP page of a daemon: /metrics, /healthz, /readyz and a readable status page at /.
 *
 * Served by libmicrohttpd on a thread of its own; loopback unless the config says otherwise. Nobody has to
 * prove who he is, so what the pages offer is kept harmless: GET and HEAD only, bounded connections, headers and
 * time, no bodies. On a loopback address only requests that name this machine in their Host header are
 * answered (or have none, as from HTTP/1.0): a web page whose name resolves to 127.0.0.1 ("DNS rebinding") is not
 * to read them through somebody's browser. Pages carry headers that keep them out of frames and scripts out of
 * them. */
#pragma once
#include <stdbool.h>
#include "base/bytes.h"
#include "base/error.h"

typedef struct slu_admin slu_admin;

typedef struct slu_admin_opts {
    const char *listen;      /* "127.0.0.1:9090"; port 0 picks a free one */
    const char *program;     /* "sluice-trainer" */
    /* Is the process fit for traffic? Appends a short reason to |why| when not. Called on the HTTP thread. */
    bool (*ready)(void *ctx, slu_buf *why);
    /* Appends the HTML body of the status page. Called on the HTTP thread. NULL: a table of all metrics. */
    void (*status)(void *ctx, slu_buf *html);
    /* Appends the line of /digest: what the model adds up to, to be compared with that of another program. Called
     * on the HTTP thread. NULL: there is no such page. */
    void (*digest)(void *ctx, slu_buf *text);
    void *ctx;
} slu_admin_opts;

/* Returns 0, SLU_EINVAL (listen text) or SLU_EIO (port taken; the message says which). */
int slu_admin_start(const slu_admin_opts *opts, slu_admin **ap, slu_error *err);
int slu_admin_port(const slu_admin *a);
/* Does a Host header name this machine: localhost, 127.x.y.z or [::1], with or without a port? */
bool slu_admin_is_local(const char *host);
void slu_admin_stop(slu_admin *a); /* NULL is fine */
