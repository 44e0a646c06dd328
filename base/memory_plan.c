#include "base/memory_plan.h"
#include "base/clock.h"
#include <stdio.h>
#include <string.h>

#define MIB (1024ull * 1024)

static const struct part {
    const char *name;
    uint64_t fallback, least;
    unsigned share; /* of what is left */
} parts[SLU_MEM_PARTS] = {
    [SLU_MEM_ROWS] = {"rows", 1024 * MIB, 4 * MIB, 42},
    [SLU_MEM_JOIN] = {"join", 256 * MIB, 4 * MIB, 14},
    [SLU_MEM_BLOCKS] = {"blocks", 256 * MIB, 8 * MIB, 12},
    [SLU_MEM_WRITES] = {"writes", 256 * MIB, 16 * MIB, 10},
    [SLU_MEM_COMMIT] = {"commit", 512 * MIB, 16 * MIB, 12},
    [SLU_MEM_FETCH] = {"fetch", 128 * MIB, 8 * MIB, 6},
    [SLU_MEM_PUBLISH] = {"publish", 128 * MIB, 8 * MIB, 4},
    [SLU_MEM_REST] = {"rest", 96 * MIB, 96 * MIB, 0},
};

const char *slu_memory_part_name(slu_memory_part p)
{
    return (unsigned)p < SLU_MEM_PARTS ? parts[p].name : "unknown";
}

/* "rows 4MiB + join 16MiB + ...". */
static void sum_text(const uint64_t *bytes, char *out, size_t size)
{
    size_t n = 0;
    for (int i = 0; i < SLU_MEM_PARTS && n < size; i++) {
        char text[32];
        slu_format_size(bytes[i], text, sizeof text);
        n += (size_t)snprintf(out + n, size - n, "%s%s %s", i ? " + " : "", parts[i].name, text);
    }
}

static int refuse(uint64_t limit, const uint64_t *bytes, slu_error *err)
{
    char arithmetic[400], have[32], need[32];
    uint64_t total = 0;
    for (int i = 0; i < SLU_MEM_PARTS; i++)
        total += bytes[i];
    sum_text(bytes, arithmetic, sizeof arithmetic);
    return slu_fail(
        err, SLU_ECONFIG,
        "is %s, but its parts need at least %s: %s; raise it, or lower what the configuration says of "
        "store.cache, join.cache and store.block_cache",
        slu_format_size(limit, have, sizeof have), slu_format_size(total, need, sizeof need), arithmetic);
}

static uint64_t least_of(int part, uint64_t least_fetch)
{
    uint64_t least = parts[part].least;
    return part == SLU_MEM_FETCH && least < least_fetch ? least_fetch : least;
}

int slu_memory_divide(uint64_t limit, const uint64_t *given, uint64_t least_fetch, slu_memory_plan *out,
                      slu_error *err)
{
    uint64_t needed = 0, bytes[SLU_MEM_PARTS];
    unsigned shares = 0;
    for (int i = 0; i < SLU_MEM_PARTS; i++) {
        bytes[i] = given[i] ? given[i] : least_of(i, least_fetch);
        needed += bytes[i];
        shares += given[i] ? 0 : parts[i].share;
    }
    if (limit && needed > limit)
        return refuse(limit, bytes, err);
    *out = (slu_memory_plan){0};
    for (int i = 0; i < SLU_MEM_PARTS; i++) {
        if (!given[i] && limit && shares)
            /* In whole MiB: people read these numbers. */
            bytes[i] += (limit - needed) / MIB * parts[i].share / shares * MIB;
        else if (!given[i] && !limit && bytes[i] < parts[i].fallback)
            bytes[i] = parts[i].fallback;
        out->bytes[i] = bytes[i];
        out->total += bytes[i];
    }
    if (limit)
        out->total = limit;
    return 0;
}
