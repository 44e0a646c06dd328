/* base/cache_line.h - memory in whole cache lines: what starts at one is read by aligned vector loads, and no
 * two threads' data share one.  @thread any */
#pragma once
#include <stdlib.h>

#define SLU_CACHE_LINE ((size_t)64)

/* |bytes| rounded up to whole lines. */
static inline size_t slu_cache_lines(size_t bytes)
{
    return (bytes + SLU_CACHE_LINE - 1) & ~(SLU_CACHE_LINE - 1);
}

/* At least |bytes|, one line where that is 0, starting at a line; contents undefined. NULL: no memory. For
 * free(). */
static inline void *slu_cache_lines_alloc(size_t bytes)
{
    return aligned_alloc(SLU_CACHE_LINE, slu_cache_lines(bytes ? bytes : 1));
}
