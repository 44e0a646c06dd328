/* serving/grpc_status.h - names of gRPC status codes and the percent-encoding of grpc-message. */
#pragma once
#include "base/bytes.h"
#include <stddef.h>

#define SLU_GRPC_CODES 17 /* 0 (OK) to 16 (UNAUTHENTICATED) */

/* "OK", "INVALID_ARGUMENT" ...; "UNKNOWN" for a number that is not a status. */
const char *slu_grpc_status_name(int code);
/* The number as text, as it travels in grpc-status; "2" for a number that is not a status. Static. */
const char *slu_grpc_status_digits(int code);

/* Appends |text| with everything outside printable ASCII, and '%', written as %XX, the form that grpc-message
 * has on the wire. Any bytes may be given. */
void slu_grpc_message_encode(slu_buf *out, const char *text);
/* The way back into |out| (|size| > 0, always NUL-terminated, cut where it does not fit); a broken escape is
 * kept as it is. Returns the length. */
size_t slu_grpc_message_decode(char *out, size_t size, const char *p, size_t n);
