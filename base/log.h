/* base/log.h - one line per event worth knowing, as logfmt or JSON, to stderr.
 *
 *   SLU_INFO("trainer", "committed", SLU_U64("version", v), SLU_STR("path", path));
 *   -> ts=2026-01-01T00:00:00.000Z level=info component=trainer msg=committed version=7 path=/var/lib/sluice
 *
 * The last argument list holds typed key-value pairs (may be empty). Thread-safe: one write(2) per line. A line that
 * repeats (same component and message) more than 10 times in 10 seconds is summed: the next line that gets through
 * carries repeated=N. Secrets of the configuration come out as *** (base/secret.h); never pass others. */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "base/clock.h"

typedef enum slu_log_level { SLU_LOG_DEBUG, SLU_LOG_INFO, SLU_LOG_WARN, SLU_LOG_ERROR } slu_log_level;
typedef enum slu_log_format { SLU_LOGFMT, SLU_LOGJSON } slu_log_format;

typedef struct slu_kv {
    const char *key;
    enum { SLU_KV_NONE, SLU_KV_STR, SLU_KV_I64, SLU_KV_U64, SLU_KV_F64, SLU_KV_BOOL } type;
    union {
        const char *s;
        int64_t i;
        uint64_t u;
        double f;
        bool b;
    } v;
} slu_kv;

#define SLU_STR(k, x)  ((slu_kv){.key = (k), .type = SLU_KV_STR, .v.s = (x)})
#define SLU_I64(k, x)  ((slu_kv){.key = (k), .type = SLU_KV_I64, .v.i = (x)})
#define SLU_U64(k, x)  ((slu_kv){.key = (k), .type = SLU_KV_U64, .v.u = (x)})
#define SLU_F64(k, x)  ((slu_kv){.key = (k), .type = SLU_KV_F64, .v.f = (x)})
#define SLU_BOOL(k, x) ((slu_kv){.key = (k), .type = SLU_KV_BOOL, .v.b = (x)})

/* Process-wide: level below which nothing is written, and the format. Defaults: info, logfmt. */
void slu_log_setup(slu_log_level level, slu_log_format format);

/* For tests: where lines go (default 2, stderr) and what time it is (NULL: the system's). */
void slu_log_redirect(int fd, const slu_clock *clock);

/* |kv| ends with an entry of type SLU_KV_NONE. Use the macros. */
void slu_log_write(slu_log_level level, const char *component, const char *msg, const slu_kv *kv);

#define SLU_LOG_(level, component, msg, ...)                                                                 \
    slu_log_write(level, component, msg, (const slu_kv[]){__VA_ARGS__ __VA_OPT__(, ){.type = SLU_KV_NONE}})
#define SLU_DEBUG(...) SLU_LOG_(SLU_LOG_DEBUG, __VA_ARGS__)
#define SLU_INFO(...)  SLU_LOG_(SLU_LOG_INFO, __VA_ARGS__)
#define SLU_WARN(...)  SLU_LOG_(SLU_LOG_WARN, __VA_ARGS__)
#define SLU_ERROR(...) SLU_LOG_(SLU_LOG_ERROR, __VA_ARGS__)
