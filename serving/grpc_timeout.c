#include "serving/grpc_timeout.h"
#include "base/clock.h"
#include "base/error.h"

int slu_grpc_timeout_parse(const void *text, size_t n, int64_t *us)
{
    const char *p = text;
    if (n < 2 || n > 9)
        return SLU_EINVAL;
    int64_t v = 0;
    for (size_t i = 0; i < n - 1; i++) {
        if (p[i] < '0' || p[i] > '9')
            return SLU_EINVAL;
        v = v * 10 + (p[i] - '0');
    }
    switch (p[n - 1]) { /* 99999999 hours are 3.6e17 us: no unit overflows */
    case 'H':
        v *= 3600 * SLU_SECOND_US;
        break;
    case 'M':
        v *= 60 * SLU_SECOND_US;
        break;
    case 'S':
        v *= SLU_SECOND_US;
        break;
    case 'm':
        v *= 1000;
        break;
    case 'u':
        break;
    case 'n':
        v = (v + 999) / 1000;
        break;
    default:
        return SLU_EINVAL;
    }
    *us = v;
    return 0;
}
