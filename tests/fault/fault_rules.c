#include "fault_rules.h"
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { MAX_RULES = 64, MAX_GLOB = 256 };

static const char *const OPS[FAULT_OPS] = {
    [FAULT_OPEN] = "open",         [FAULT_READ] = "read",         [FAULT_WRITE] = "write",
    [FAULT_SYNC] = "sync",         [FAULT_RENAME] = "rename",     [FAULT_UNLINK] = "unlink",
    [FAULT_TRUNCATE] = "truncate", [FAULT_ALLOCATE] = "allocate", [FAULT_MKDIR] = "mkdir",
    [FAULT_LINK] = "link",         [FAULT_LIST] = "list",         [FAULT_CLOSE] = "close",
};

static const struct {
    const char *name;
    fault_action action;
    int error;
} ACTIONS[] = {
    {"log", FAULT_LOG, 0},
    {"delay", FAULT_DELAY, 0},
    {"kill", FAULT_KILL, 0},
    {"kill-after", FAULT_KILL_AFTER, 0},
    {"powercut", FAULT_POWERCUT, 0},
    {"enospc", FAULT_ENOSPC, ENOSPC},
    {"eio", FAULT_EIO, EIO},
    {"erofs", FAULT_EROFS, EROFS},
    {"eacces", FAULT_EACCES, EACCES},
    {"short", FAULT_SHORT, ENOSPC},
    {"torn", FAULT_TORN, 0},
    {"flip", FAULT_FLIP, 0},
};

typedef struct rule {
    unsigned ops; /* bit mask */
    char glob[MAX_GLOB];
    uint64_t first, last; /* numbers of the calls that it acts on, counted from 1 */
    uint64_t one_in;      /* 0, or by chance: one of so many */
    fault_action action;
    unsigned delay_ms;
    atomic_uint_fast64_t seen;
} rule;

typedef struct rule_set {
    size_t n;
    rule rules[MAX_RULES];
} rule_set;

/* Sets are never freed: a call of another thread may still look at an old one. */
static _Atomic(rule_set *) from_environment, from_file;
static atomic_bool power_wanted;
static uint64_t seed = 1;
static int log_fd = -1;
static const char *watched; /* SLU_FAULT_FILE */
static struct stat watched_as;
static pthread_mutex_t watching = PTHREAD_MUTEX_INITIALIZER;

/* A test with a mistyped rule would prove nothing, so it ends here and now. */
static void refuse(const char *what, const char *text)
{
    fprintf(stderr, "libslu_fault: %s in rule '%s'\n", what, text);
    _exit(99);
}

static unsigned parse_ops(const char *text, const char *whole)
{
    unsigned mask = 0;
    char copy[128], *save = NULL;
    if (!strcmp(text, "*"))
        return (1u << FAULT_OPS) - 1;
    snprintf(copy, sizeof copy, "%s", text);
    for (char *one = strtok_r(copy, "|", &save); one; one = strtok_r(NULL, "|", &save)) {
        int op = 0;
        while (op < FAULT_OPS && strcmp(OPS[op], one))
            op++;
        if (op == FAULT_OPS)
            refuse("unknown operation", whole);
        mask |= 1u << op;
    }
    return mask;
}

static void parse_nth(const char *text, rule *r, const char *whole)
{
    char *end;
    r->first = 1;
    r->last = UINT64_MAX;
    if (!strcmp(text, "*"))
        return;
    if (*text == '~') {
        r->one_in = strtoull(text + 1, &end, 10);
        if (*end || !r->one_in)
            refuse("no number after ~", whole);
        return;
    }
    r->first = r->last = strtoull(text, &end, 10);
    if (end == text || !r->first)
        refuse("the call number is not a number from 1", whole);
    if (*end == '+' && !end[1])
        r->last = UINT64_MAX;
    else if (*end == '-')
        r->last = strtoull(end + 1, &end, 10);
    else if (*end)
        refuse("the call number is not N, N+, N-M, ~N or *", whole);
}

static void parse_action(const char *text, rule *r, const char *whole)
{
    size_t n = strcspn(text, "=");
    for (size_t i = 0; i < sizeof ACTIONS / sizeof *ACTIONS; i++)
        if (strlen(ACTIONS[i].name) == n && !strncmp(ACTIONS[i].name, text, n))
            r->action = ACTIONS[i].action;
    if (r->action == FAULT_NONE || (r->action == FAULT_DELAY) != (text[n] == '='))
        refuse("unknown action", whole);
    if (r->action == FAULT_DELAY)
        r->delay_ms = (unsigned)strtoul(text + n + 1, NULL, 10);
    if (r->action == FAULT_POWERCUT)
        atomic_store(&power_wanted, true);
}

static void parse_rule(char *text, rule_set *set)
{
    char whole[512], *save = NULL;
    while (*text == ' ' || *text == '\t')
        text++;
    if (!*text || *text == '#')
        return;
    snprintf(whole, sizeof whole, "%s", text);
    if (set->n == MAX_RULES)
        refuse("too many rules", whole);
    rule *r = &set->rules[set->n++];
    char *op = strtok_r(text, ":", &save), *glob = strtok_r(NULL, ":", &save);
    char *nth = strtok_r(NULL, ":", &save), *action = strtok_r(NULL, ": \t", &save);
    if (!op || !glob || !nth || !action || strlen(glob) >= MAX_GLOB)
        refuse("not op:glob:nth:action", whole);
    r->ops = parse_ops(op, whole);
    strcpy(r->glob, glob);
    parse_nth(nth, r, whole);
    parse_action(action, r, whole);
}

static rule_set *parse_rules(char *text)
{
    rule_set *set = calloc(1, sizeof *set);
    char *save = NULL;
    if (!set)
        refuse("out of memory", text);
    for (char *one = strtok_r(text, ";\n", &save); one; one = strtok_r(NULL, ";\n", &save))
        parse_rule(one, set);
    return set;
}

/* A file that is missing or empty means no rules. Own calls go past the layer. */
static void read_watched(void)
{
    char text[16384];
    ssize_t n = 0;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, watched, O_RDONLY | O_CLOEXEC, 0);
    if (fd >= 0) {
        n = syscall(SYS_read, fd, text, sizeof text - 1);
        syscall(SYS_close, fd);
    }
    text[n > 0 ? n : 0] = 0;
    atomic_store(&from_file, parse_rules(text));
}

static void look_at_watched(void)
{
    struct stat now = {0};
    pthread_mutex_lock(&watching);
    if (syscall(SYS_newfstatat, AT_FDCWD, watched, &now, 0))
        now = (struct stat){0};
    if (now.st_ino != watched_as.st_ino || now.st_size != watched_as.st_size ||
        now.st_mtim.tv_sec != watched_as.st_mtim.tv_sec ||
        now.st_mtim.tv_nsec != watched_as.st_mtim.tv_nsec) {
        watched_as = now;
        read_watched();
    }
    pthread_mutex_unlock(&watching);
}

/* SLU_FAULT_PROGRAM: only in programs of that name, so that rules can be set for a whole script. */
static bool meant_for_this_program(void)
{
    const char *only = getenv("SLU_FAULT_PROGRAM");
    return !only || !fnmatch(only, program_invocation_short_name, 0);
}

__attribute__((constructor)) static void begin(void)
{
    const char *rules = getenv("SLU_FAULT"), *log = getenv("SLU_FAULT_LOG"),
               *number = getenv("SLU_FAULT_SEED");
    if (!meant_for_this_program())
        return;
    if (number)
        seed = strtoull(number, NULL, 0);
    if (log)
        log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    watched = getenv("SLU_FAULT_FILE");
    if (watched)
        look_at_watched();
    if (rules) {
        char *copy = strdup(rules);
        atomic_store(&from_environment, copy ? parse_rules(copy) : NULL);
        free(copy);
    }
}

bool fault_power_wanted(void)
{
    return atomic_load_explicit(&power_wanted, memory_order_relaxed);
}

int fault_errno(fault_action a)
{
    for (size_t i = 0; i < sizeof ACTIONS / sizeof *ACTIONS; i++)
        if (ACTIONS[i].action == a)
            return ACTIONS[i].error;
    return 0;
}

void fault_die(void)
{
    syscall(SYS_kill, getpid(), SIGKILL);
    for (;;)
        pause();
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

static bool name_matches(const char *glob, const char *path)
{
    if (!path)
        return false;
    const char *base = strrchr(path, '/');
    return !fnmatch(glob, strchr(glob, '/') || !base ? path : base + 1, 0);
}

static const char *action_name(fault_action a)
{
    for (size_t i = 0; i < sizeof ACTIONS / sizeof *ACTIONS; i++)
        if (ACTIONS[i].action == a)
            return ACTIONS[i].name;
    return "?";
}

static void write_log(fault_op op, const char *path, const char *path2, size_t bytes, uint64_t nth,
                      fault_action a)
{
    char line[1024];
    if (log_fd < 0)
        return;
    int n =
        snprintf(line, sizeof line, "%s %s %llu %zu %s%s%s pid=%d\n", action_name(a), OPS[op],
                 (unsigned long long)nth, bytes, path, path2 ? " " : "", path2 ? path2 : "", (int)getpid());
    if (n > 0)
        syscall(SYS_write, log_fd, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

static void wait_ms(unsigned ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
    while (nanosleep(&t, &t) && errno == EINTR)
        ;
}

static bool acts_now(const rule *r, uint64_t nth)
{
    if (r->one_in)
        return mix(seed ^ nth * 0x100000001b3u) % r->one_in == 0;
    return nth >= r->first && nth <= r->last;
}

static void decide_in(rule_set *set, fault_op op, const char *path, const char *path2, size_t bytes,
                      fault_verdict *v)
{
    for (size_t i = 0; set && i < set->n; i++) {
        rule *r = &set->rules[i];
        if (!(r->ops & 1u << op) || (!name_matches(r->glob, path) && !name_matches(r->glob, path2)))
            continue;
        uint64_t nth = atomic_fetch_add(&r->seen, 1) + 1;
        if (!acts_now(r, nth))
            continue;
        write_log(op, path, path2, bytes, nth, r->action);
        if (r->action == FAULT_DELAY)
            wait_ms(r->delay_ms);
        else if (r->action == FAULT_KILL)
            fault_die();
        else if (r->action == FAULT_POWERCUT)
            fault_power_cut();
        else if (r->action != FAULT_LOG && v->action == FAULT_NONE)
            *v = (fault_verdict){.action = r->action, .random = mix(seed + mix(nth))};
    }
}

fault_verdict fault_decide(fault_op op, const char *path, const char *path2, size_t bytes)
{
    fault_verdict v = {.action = FAULT_NONE};
    int keep = errno;
    if (watched)
        look_at_watched();
    decide_in(atomic_load(&from_environment), op, path, path2, bytes, &v);
    decide_in(atomic_load(&from_file), op, path, path2, bytes, &v);
    errno = keep;
    return v;
}
