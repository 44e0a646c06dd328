/* tests/alloc_failure.h - every allocation of a scenario fails once, in a process of its own.
 *
 * alloc_failure.c takes the place of malloc and its kin for the whole program, libraries included
 * (protobuf-c, jansson, libyaml, nghttp2); under AddressSanitizer, which has that place already, for our own
 * code only. abort() is replaced too: it is how base/bytes.h and the caches of the trainer end a process
 * whose memory has run out, and is told apart from an assertion that fails, which is a defect. */
#pragma once
#include <stdbool.h>

typedef struct alloc_report {
    int allocations; /* that the scenario makes when none fails */
    int survived;    /* failures after which it returned true: went on, or reported it */
    int gave_up;     /* failures that ended in abort(), the documented policy */
    int wrong;       /* crashes, leaks, wrong reports; 0 is wanted */
} alloc_report;

/* |scenario| sets itself up, does its work, frees everything, and returns whether what came of it is right:
 * success, or the error that out of memory is to give. It is run once for each of its allocations, and once
 * more with none failing. What it holds at the end that it did not hold at the beginning is a leak. Prints a
 * line. */
alloc_report alloc_failure_run(const char *name, bool (*scenario)(void));
/* Whether the allocation that was to fail has been asked for: before that nothing may be refused. */
bool alloc_failure_happened(void);
