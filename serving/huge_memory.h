/* serving/huge_memory.h - zeroed memory for what is hit at random: a scorer's rows and the indexes to them.
 *
 * With pages of 4 KB nearly each look-up would also want a walk through page tables, on a virtual machine
 * through two. So what is as large as a huge page begins at one and may be asked to have them; a system that
 * has none to give goes on with small ones, and nothing else changes.
 *
 * INVARIANT: from HUGE_MEMORY_MAPPED bytes on memory is mapped, so that pages that were never touched cost
 * nothing and all of it goes back to the system at once when it is freed. Below, it is malloc's.
 *
 * Whoever frees says the size that was asked for. @thread any */
#pragma once
#include <stddef.h>

#define HUGE_PAGE          ((size_t)2 << 20)
#define HUGE_MEMORY_MAPPED ((size_t)64 << 10)

void *huge_memory_new(size_t bytes);           /* NULL: out of memory */
void huge_memory_free(void *p, size_t bytes);  /* NULL is fine */
size_t huge_memory_pages(size_t bytes);        /* in whole small pages: what it costs once touched */
void huge_memory_ask(void *p, size_t bytes);   /* |p| at a huge page: may have them from now on */
void huge_memory_merge(void *p, size_t bytes); /* the same, and what is there already moves into one */
