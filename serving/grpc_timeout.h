/* serving/grpc_timeout.h - the grpc-timeout header: 1 to 8 digits and a unit, H M S m u n. */
#pragma once
#include <stddef.h>
#include <stdint.h>

/* |p| (n) into microseconds; nanoseconds are rounded up, so that a positive time-out never becomes 0. Returns
 * 0 or SLU_EINVAL (|us| untouched). */
int slu_grpc_timeout_parse(const void *p, size_t n, int64_t *us);
