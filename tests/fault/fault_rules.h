/* tests/fault/fault_rules.h - which calls on which files go wrong, and how: the rules of the fault layer
 * (fault_layer.c says how they are written). Internal to libslu_fault.so. @thread any */
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum fault_op {
    FAULT_OPEN,
    FAULT_READ,
    FAULT_WRITE,
    FAULT_SYNC,
    FAULT_RENAME,
    FAULT_UNLINK,
    FAULT_TRUNCATE,
    FAULT_ALLOCATE,
    FAULT_MKDIR,
    FAULT_LINK,
    FAULT_LIST,
    FAULT_CLOSE,
    FAULT_OPS
} fault_op;

typedef enum fault_action {
    FAULT_NONE,
    FAULT_LOG,
    FAULT_DELAY,
    FAULT_KILL,
    FAULT_KILL_AFTER,
    FAULT_POWERCUT,
    FAULT_ENOSPC,
    FAULT_EIO,
    FAULT_EROFS,
    FAULT_EACCES,
    FAULT_SHORT,
    FAULT_TORN,
    FAULT_FLIP
} fault_action;

typedef struct fault_verdict {
    fault_action action; /* what is left to do for the caller: an error, SHORT, TORN, FLIP, KILL_AFTER */
    uint64_t random;     /* seeded: the same for the same rule and call number */
} fault_verdict;

/* Counts the call under every rule that it matches, writes the log, and does what comes before the call
 * (delay, kill, powercut). |path2| is the new name of a rename or link, else NULL. */
fault_verdict fault_decide(fault_op op, const char *path, const char *path2, size_t bytes);
/* errno for an action that is an error, else 0. */
int fault_errno(fault_action a);
void fault_die(void) __attribute__((noreturn));

/* What a cut of power would leave behind (fault_power.c). Told of every call that succeeded. */
void fault_power_opened(const char *path, bool existed, bool truncated);
void fault_power_linked(const char *path);
void fault_power_synced(int fd, const char *path);
/* Before the call, since what |to| names now may have to come back. */
void fault_power_renaming(const char *from, const char *to);
void fault_power_unlinked(const char *path);
void fault_power_cut(void) __attribute__((noreturn));
/* True once a rule wants powercut: keeping the books costs time. */
bool fault_power_wanted(void);
