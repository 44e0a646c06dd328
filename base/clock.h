/* base/clock.h - time as a parameter.
 *
 * Everything that depends on time takes a microsecond value or an slu_clock, so tests and replays decide what
 * time it is. Wall time is for event comparison and logs, monotonic time for intervals. */
#pragma once
#include <stddef.h>
#include <stdint.h>

typedef struct slu_clock {
    int64_t (*wall_us)(void *ctx); /* microseconds since the Unix epoch, UTC */
    int64_t (*mono_us)(void *ctx); /* microseconds from an arbitrary start, never backwards */
    void *ctx;
} slu_clock;

extern const slu_clock slu_system_clock;

static inline int64_t slu_wall_us(const slu_clock *c)
{
    return c->wall_us(c->ctx);
}
static inline int64_t slu_mono_us(const slu_clock *c)
{
    return c->mono_us(c->ctx);
}

#define SLU_SECOND_US 1000000LL

/* "2020-12-05T00:00:00Z", "2020-12-05" (always UTC) or plain epoch seconds (below 10^11, a fraction is fine) or
 * microseconds (10^14 and more) into epoch microseconds. Numbers in between could be milliseconds and are refused.
 * Returns 0 or SLU_EINVAL. */
int slu_parse_time(const char *text, int64_t *us);
/* ISO 8601 in UTC with milliseconds. Returns out. */
char *slu_format_time(int64_t us, char *out, size_t size);
/* "250ms", "1s", "5m", "1h", "7d" into microseconds; SLU_EINVAL otherwise. The printer picks the largest exact unit. */
int slu_parse_duration(const char *text, int64_t *us);
char *slu_format_duration(int64_t us, char *out, size_t size);
/* "512", "64KiB", "4MiB", "2GiB" into bytes. */
int slu_parse_size(const char *text, uint64_t *bytes);
char *slu_format_size(uint64_t bytes, char *out, size_t size);
