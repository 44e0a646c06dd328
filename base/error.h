/* base/error.h - a named code plus a message that says what, where and what to do.
 *
 * Functions that can fail return 0 or a negative slu_code and fill an slu_error that the caller owns (usually on
 * its stack, zeroed with SLU_ERROR_INIT). The first error survives: setting an error that is already set is a
 * no-op, so cleanup code may report without losing the cause. Programmer mistakes assert instead. Secrets of the
 * configuration never get into a message (base/secret.h). */
#pragma once
#include <stddef.h>

typedef enum slu_code {
    SLU_OK = 0,
    SLU_EINVAL = -1,    /* input that cannot be used: malformed, out of range */
    SLU_ENOMEM = -2,    /* allocation refused */
    SLU_EIO = -3,       /* the operating system or RocksDB refused a read or write */
    SLU_EFORMAT = -4,   /* stored or received bytes are not in a form this version knows */
    SLU_ECORRUPT = -5,  /* stored bytes fail their checksum or contradict each other */
    SLU_ESCHEMA = -6,   /* made for another schema; the message names the first difference */
    SLU_ELIMIT = -7,    /* over a configured limit */
    SLU_ENOTFOUND = -8, /* no such key, feature, task, file */
    SLU_EAGAIN = -9,    /* nothing now, try later */
    SLU_ECONFIG = -10,  /* the configuration is wrong; the message has file, line and key */
    SLU_EKAFKA = -11,   /* the broker refused or is not there */
    SLU_ECLOSED = -12,  /* stopped on request */
} slu_code;

typedef struct slu_error {
    int code;
    char message[1000];
} slu_error;

#define SLU_ERROR_INIT {0, ""}

/* Sets |e| unless it already holds an error; |e| may be NULL. Returns |code|, so `return slu_fail(err, ...)`. */
int slu_fail(slu_error *e, int code, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Puts "context: " in front of the message of |e|, if it holds an error. Returns e->code. */
int slu_error_context(slu_error *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

void slu_error_clear(slu_error *e);

/* "EINVAL" and so on; "E?" for a code it does not know. */
const char *slu_code_name(int code);
