#include "serving/huge_memory.h"
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>

#define PAGE ((size_t)4096)

#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE 25 /* Linux 6.1; a header of that time may not know it */
#endif

static char *mapped(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

/* |bytes|, whole pages, that begin at a huge page. */
static void *mapped_huge(size_t bytes)
{
    char *p = mapped(bytes + HUGE_PAGE - PAGE);
    if (!p)
        return NULL;
    const size_t before = -(uintptr_t)p % HUGE_PAGE, behind = HUGE_PAGE - PAGE - before;
    if (before)
        munmap(p, before);
    p += before;
    if (behind)
        munmap(p + bytes, behind);
    return p;
}

size_t huge_memory_pages(size_t bytes)
{
    return (bytes + PAGE - 1) & ~(PAGE - 1);
}

void *huge_memory_new(size_t bytes)
{
    if (bytes < HUGE_MEMORY_MAPPED)
        return calloc(1, bytes);
    return bytes < HUGE_PAGE ? mapped(bytes) : mapped_huge(huge_memory_pages(bytes));
}

void huge_memory_free(void *p, size_t bytes)
{
    if (bytes < HUGE_MEMORY_MAPPED)
        free(p);
    else if (p)
        munmap(p, huge_memory_pages(bytes));
}

void huge_memory_ask(void *p, size_t bytes)
{
    madvise(p, bytes, MADV_HUGEPAGE);
}

void huge_memory_merge(void *p, size_t bytes)
{
    huge_memory_ask(p, bytes);
    madvise(p, bytes, MADV_COLLAPSE);
}
