/* base/address.h - "host:port" taken apart, the one place where that is done: for listeners and for clients.
 *
 * host:port, [v6]:port or, for "every address of this machine", :port. A v6 address stands in brackets, since
 * otherwise nobody can say where it ends. The port is a number. Whether the host exists is for whoever uses
 * it. Pure. @thread any */
#pragma once
#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

#define SLU_HOST_BYTES 254 /* 253 is the longest name of the DNS */

typedef struct slu_address {
    char host[SLU_HOST_BYTES]; /* without brackets; "": every address */
    char port[6];              /* digits */
    uint16_t number;           /* the same */
    bool v6;                   /* it was in brackets */
} slu_address;

/* Returns 0 or SLU_EINVAL, with *out untouched; the message repeats the text, cut. */
int slu_address_parse(const char *text, slu_address *out, slu_error *err);
