#include "base/error.h"
#include "base/secret.h"
#include <assert.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* A message may quote what a library said, and that what it was given. */
static void hide_secrets(slu_error *e)
{
    char whole[sizeof e->message];
    if (!slu_secret_known())
        return;
    memcpy(whole, e->message, sizeof whole);
    slu_secret_mask(whole, e->message, sizeof e->message);
}

int slu_fail(slu_error *e, int code, const char *fmt, ...)
{
    assert(code < 0);
    if (!e || e->code)
        return code;
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(e->message, sizeof e->message, fmt, ap);
    va_end(ap);
    hide_secrets(e);
    e->code = code;
    return code;
}

int slu_error_context(slu_error *e, const char *fmt, ...)
{
    if (!e || !e->code)
        return 0;
    char whole[sizeof e->message];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(whole, sizeof whole, fmt, ap);
    va_end(ap);
    if (n < 0)
        return e->code;
    /* A context as long as the whole message would push out the cause, which matters more. */
    if ((size_t)n > sizeof whole / 2)
        n = sizeof whole / 2;
    size_t at = (size_t)n, left = sizeof whole - at - 3, len = strnlen(e->message, left);
    memcpy(whole + at, ": ", 2);
    memcpy(whole + at + 2, e->message, len);
    whole[at + 2 + len] = 0;
    memcpy(e->message, whole, sizeof whole);
    hide_secrets(e);
    return e->code;
}

void slu_error_clear(slu_error *e)
{
    if (!e)
        return;
    e->code = 0;
    e->message[0] = 0;
}

const char *slu_code_name(int code)
{
    switch (code) {
    case SLU_OK:
        return "OK";
    case SLU_EINVAL:
        return "EINVAL";
    case SLU_ENOMEM:
        return "ENOMEM";
    case SLU_EIO:
        return "EIO";
    case SLU_EFORMAT:
        return "EFORMAT";
    case SLU_ECORRUPT:
        return "ECORRUPT";
    case SLU_ESCHEMA:
        return "ESCHEMA";
    case SLU_ELIMIT:
        return "ELIMIT";
    case SLU_ENOTFOUND:
        return "ENOTFOUND";
    case SLU_EAGAIN:
        return "EAGAIN";
    case SLU_ECONFIG:
        return "ECONFIG";
    case SLU_EKAFKA:
        return "EKAFKA";
    case SLU_ECLOSED:
        return "ECLOSED";
    }
    return "E?";
}
