/* base/secret.h - passwords and keys out of the configuration, so that nobody gets to see them again.
 *
 * Whoever reads the configuration hands the secret values in; log lines (base/log.h) and error messages
 * (base/error.h) show *** in their place, also when the text comes from a library that knows nothing of this.
 * A secret that a message has cut off is recognised by its beginning.
 *
 * The list is process-wide, append-only and kept until the end. @thread any */
#pragma once
#include <stdbool.h>
#include <stddef.h>

#define SLU_SECRET_LEAST 4   /* bytes; shorter texts would make every log line unreadable */
#define SLU_SECRETS_MOST 256 /* values; more than that is no configuration but an attack on memory */

/* Does the librdkafka property |key| hold a secret, or something that unlocks one? The place of a file or an
 * address is none. */
bool slu_secret_key(const char *key);

/* Copies |value| into the list. Values below SLU_SECRET_LEAST bytes and those beyond SLU_SECRETS_MOST are not
 * taken. */
void slu_secret_add(const char *value);
bool slu_secret_known(void); /* is there any? */

/* Copies |text| to |out| (size), with *** for each secret, cut at the end if need be. Returns |out|. */
char *slu_secret_mask(const char *text, char *out, size_t size);
