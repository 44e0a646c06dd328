#include "tests/alloc_failure.h"
#include <errno.h>
#include <execinfo.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GAVE_UP = 42, LEAKED = 43, WRONG = 44, NOTHING_FAILED = 45 };

static bool armed, tracing;
static long asked, fail_at, live;

/* Is it this one that fails? */
static bool fails(void)
{
    if (!armed || ++asked != fail_at)
        return false;
    if (tracing) { /* for addr2line */
        void *frames[24];
        armed = false;
        backtrace_symbols_fd(frames, backtrace(frames, 24), 2);
        armed = true;
    }
    return true;
}

/* While tracing: which blocks are held, and who asked for them. */
static struct {
    void *block, *caller;
} held[1 << 16];

static void note(void *block, void *caller)
{
    for (size_t i = 0; tracing && block && i < sizeof held / sizeof *held; i++)
        if (held[i].block == (caller ? NULL : block)) {
            held[i].block = caller ? block : NULL;
            held[i].caller = caller;
            return;
        }
}

static void *took(void *p, void *caller)
{
    live += armed && p;
    if (armed)
        note(p, caller);
    return p;
}
#define CALLER __builtin_return_address(0)

/* Under a sanitizer the linker sends our code's calls here (-Wl,--wrap); else these are malloc. */
#ifdef ALLOC_WRAP
#define NAME(f) __wrap_##f
#define REAL(f) __real_##f
void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t n);
void *__real_aligned_alloc(size_t align, size_t n);
void __real_free(void *p);
#define real_memalign __real_aligned_alloc
#else
#define NAME(f)       f
#define REAL(f)       __libc_##f
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t size);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);
void __libc_free(void *p);
#define real_memalign __libc_memalign
#endif

void *NAME(malloc)(size_t n)
{
    if (fails()) {
        errno = ENOMEM;
        return NULL;
    }
    return took(REAL(malloc)(n), CALLER);
}

void *NAME(calloc)(size_t n, size_t size)
{
    if (fails()) {
        errno = ENOMEM;
        return NULL;
    }
    return took(REAL(calloc)(n, size), CALLER);
}

void *NAME(realloc)(void *p, size_t n)
{
    if (n && fails()) {
        errno = ENOMEM;
        return NULL;
    }
    if (armed)
        note(p, NULL);
    void *q = REAL(realloc)(p, n);
    if (armed)
        note(q, CALLER);
    if (armed)
        live += p ? (n ? 0 : -1) : q != NULL;
    return q;
}

void *NAME(reallocarray)(void *p, size_t n, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(n, size, &bytes))
        return NULL;
    return NAME(realloc)(p, bytes);
}

void *NAME(aligned_alloc)(size_t align, size_t n)
{
    if (fails()) {
        errno = ENOMEM;
        return NULL;
    }
    return took(real_memalign(align, n), CALLER);
}

int NAME(posix_memalign)(void **p, size_t align, size_t n)
{
    void *q = NAME(aligned_alloc)(align, n);
    if (!q)
        return ENOMEM;
    *p = q;
    return 0;
}

void NAME(free)(void *p)
{
    live -= armed && p;
    if (armed)
        note(p, NULL);
    REAL(free)(p);
}

#ifdef ALLOC_WRAP
char *NAME(strdup)(const char *s)
{
    size_t n = strlen(s) + 1;
    char *p = NAME(malloc)(n);
    return p ? memcpy(p, s, n) : NULL;
}
#endif

void NAME(abort)(void) __attribute__((noreturn));
void NAME(abort)(void)
{
    _exit(armed && asked >= fail_at ? GAVE_UP : WRONG);
}

bool alloc_failure_happened(void)
{
    return asked >= fail_at;
}

/* While tracing: the callers, for addr2line. */
static int leak(void)
{
    for (size_t i = 0; tracing && i < sizeof held / sizeof *held; i++)
        if (held[i].block)
            backtrace_symbols_fd(&held[i].caller, 1, 2);
    return LEAKED;
}

static int one(bool (*scenario)(void), int n)
{
    fflush(stdout);
    pid_t child = fork();
    if (!child) {
        fail_at = n;
        asked = live = 0;
        armed = true;
        bool right = scenario();
        armed = false;
        _exit(!right ? WRONG : live > 0 ? leak() : asked < fail_at ? NOTHING_FAILED : 0);
    }
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

alloc_report alloc_failure_run(const char *name, bool (*scenario)(void))
{
    alloc_report r = {0};
    scenario(); /* what is made once per process is made now */
    tzset();
    for (int n = 1;; n++) {
        int result = one(scenario, n);
        if (result == NOTHING_FAILED) {
            r.allocations = n - 1;
            break;
        }
        r.survived += result == 0;
        r.gave_up += result == GAVE_UP;
        if (result && result != GAVE_UP) {
            r.wrong++;
            printf("%s: allocation %d: %s\n", name, n,
                   result == LEAKED  ? "leaks"
                   : result == WRONG ? "is reported wrongly"
                                     : "crashes");
            tracing = true; /* once more, to see where */
            one(scenario, n);
            tracing = false;
            if (r.wrong > 20)
                break;
        }
    }
    printf("%s: %d allocations, %d failures survived, %d ended by policy, %d wrong\n", name, r.allocations,
           r.survived, r.gave_up, r.wrong);
    return r;
}
