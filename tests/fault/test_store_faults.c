/* A store on a disk that fails, tears, lies and loses power: whatever happens, what is opened again is the
 * last acknowledged commit (or the one that was being written), or it is refused in words that help.
 *
 * The work (store_work.h) is done by this program again, as a child under libslu_fault.so. By default a
 * sample of all points is tried; SLU_FAULT_EVERY=1 goes through every call of the run (make soak-faults),
 * which takes hours; SLU_FAULT_SECONDS=N tries as many as fit into about that time, none of them twice.
 * SLU_TEST_SEED chooses the sample. */
#include "base/clock.h"
#include "tests/fault/store_work.h"
#include "tests/store_sample.h"
#include "tests/suite.h"
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>

enum { COMMITS = 60, TRIES = 400, REFUSED = 4, FAILED = 3, BRIEF = 2 };

static char self[512], layer[512], digests[COMMITS + 1][33];

/* ---- the child ---- */

static int child_open(const char *path, slu_store **s)
{
    slu_error err = SLU_ERROR_INIT;
    slu_store_config config = work_config(path);
    if (!slu_store_open(&config, s, &err))
        return 0;
    printf("refused %s %s\n", slu_code_name(err.code), err.message);
    return REFUSED;
}

/* Goes on to commit |n|. With |patient| a commit that fails is tried again, as the scorer does. */
static int child_work(const char *path, uint64_t n, bool patient)
{
    slu_store *s;
    uint64_t k;
    slu_error err = SLU_ERROR_INIT;
    int rc = child_open(path, &s);
    if (rc)
        return rc;
    rc = work_version(s, &k, &err);
    slu_commit *c = slu_commit_begin(s);
    while (!rc && k < n) {
        work_commit(c, k + 1);
        rc = slu_commit_write(c, &err);
        for (int try = 0; rc && patient && try < TRIES; try++) {
            printf("again %s\n", err.message);
            fflush(stdout);
            slu_error_clear(&err);
            usleep(5000);
            rc = slu_commit_write(c, &err);
        }
        if (rc)
            break;
        printf("acked %llu\n", (unsigned long long)++k);
        fflush(stdout);
    }
    if (rc)
        printf("failed %s %s\n", slu_code_name(rc), err.message);
    slu_store_close(s);
    return rc ? FAILED : 0;
}

/* Opens as a restart does and says what is there. */
static int child_look(const char *path)
{
    slu_store *s;
    uint64_t k;
    char digest[33];
    slu_error err = SLU_ERROR_INIT;
    int rc = child_open(path, &s);
    if (rc)
        return rc;
    rc = work_version(s, &k, &err);
    if (!rc)
        rc = slu_store_digest(s, WORK_ALL, digest, &err);
    slu_store_close(s);
    if (rc) {
        printf("refused %s %s\n", slu_code_name(rc), err.message);
        return REFUSED;
    }
    printf("version %llu digest %s\n", (unsigned long long)k, digest);
    return 0;
}

static int child(int argc, char **argv)
{
    const char *what = argc > 0 ? argv[0] : "", *path = argc > 1 ? argv[1] : "";
    if (!strcmp(what, "work"))
        return child_work(path, strtoull(argv[2], NULL, 10), argc > 3);
    if (!strcmp(what, "look"))
        return child_look(path);
    return 2;
}

/* ---- running it ---- */

typedef struct outcome {
    int signal, status;
    uint64_t acked;
    char out[200000];
} outcome;

static outcome o; /* of the last run: large */

static void run(const char *rules, const char *what, const char *n, const char *patient)
{
    char name[400];
    snprintf(name, sizeof name, "%s/out", sample_root);
    memset(&o, 0, offsetof(outcome, out));
    pid_t pid = fork();
    if (!pid) {
        char *argv[] = {self, "--child", (char *)what, sample_path, (char *)n, (char *)patient, NULL};
        dup2(open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666), 1);
        if (rules) {
            setenv("LD_PRELOAD", layer, 1);
            setenv("SLU_FAULT", rules, 1);
        }
        execv(self, argv);
        _exit(98);
    }
    int st;
    ck_assert_int_eq(waitpid(pid, &st, 0), pid);
    o.signal = WIFSIGNALED(st) ? WTERMSIG(st) : 0;
    o.status = WIFEXITED(st) ? WEXITSTATUS(st) : -1;
    FILE *f = fopen(name, "r");
    o.out[fread(o.out, 1, sizeof o.out - 1, f)] = 0;
    fclose(f);
    for (char *p = o.out; (p = strstr(p, "acked ")); p++)
        o.acked = strtoull(p + 6, NULL, 10);
}

static const char *last_line(void)
{
    size_t n = strlen(o.out);
    while (n > 1 && o.out[n - 2] != '\n')
        n--;
    return o.out + (n ? n - 1 : 0);
}

static void make_digests(void)
{
    slu_error err = SLU_ERROR_INIT;
    slu_store_config config = work_config(sample_path);
    slu_store *s = sample_open_as(config);
    slu_commit *c = slu_commit_begin(s);
    for (uint64_t k = 0; k <= COMMITS; k++) {
        if (k) {
            work_commit(c, k);
            sample_write(c);
        }
        ck_assert_msg(!slu_store_digest(s, WORK_ALL, digests[k], &err), "%s", err.message);
    }
    slu_store_close(s);
    sample_remove(sample_path);
}

static void setup(void)
{
    if (!access("/dev/shm", W_OK))
        setenv("TMPDIR", "/dev/shm", 1);
    sample_setup();
    make_digests();
}

static bool every(void)
{
    return getenv("SLU_FAULT_EVERY") != NULL;
}

/* Opens again: the state of commit |least| to |most|, and from there to the same end as without faults. */
static void goes_on(const char *rules, uint64_t least, uint64_t most)
{
    unsigned long long k;
    char digest[33], n[20];
    run(NULL, "look", NULL, NULL);
    ck_assert_msg(sscanf(o.out, "version %llu digest %32s", &k, digest) == 2, "%s: after it: %d/%d %s", rules,
                  o.status, o.signal, o.out);
    ck_assert_msg(k >= least && k <= most, "%s: %llu was acknowledged, the store holds %llu", rules,
                  (unsigned long long)least, k);
    ck_assert_msg(!strcmp(digest, digests[k]), "%s: another state than that of commit %llu", rules, k);
    snprintf(n, sizeof n, "%d", COMMITS);
    run(NULL, "work", n, NULL);
    ck_assert_msg(o.status == 0, "%s: going on: %s", rules, last_line());
    run(NULL, "look", NULL, NULL);
    ck_assert_msg(sscanf(o.out, "version %llu digest %32s", &k, digest) == 2, "%s: %s", rules, o.out);
    ck_assert_msg(k == COMMITS && !strcmp(digest, digests[COMMITS]), "%s: another end", rules);
}

/* ---- a fault at a call ---- */

static uint64_t count_calls(const char *op)
{
    char rule[200], log[400], line[1200];
    uint64_t n = 0;
    snprintf(rule, sizeof rule, "%s:*/store*:*:log", op);
    snprintf(log, sizeof log, "%s/calls", sample_root);
    setenv("SLU_FAULT_LOG", log, 1);
    snprintf(line, sizeof line, "%d", COMMITS);
    run(rule, "work", line, NULL);
    unsetenv("SLU_FAULT_LOG");
    ck_assert_msg(o.status == 0, "%s", last_line());
    FILE *f = fopen(log, "r");
    while (f && fgets(line, sizeof line, f))
        n++;
    if (f)
        fclose(f);
    unlink(log);
    sample_remove(sample_path);
    return n;
}

static void one_fault(const char *op, uint64_t nth, const char *action)
{
    char rule[200], n[20];
    snprintf(rule, sizeof rule, "%s:*/store*:%llu:%s", op, (unsigned long long)nth, action);
    snprintf(n, sizeof n, "%d", COMMITS);
    run(rule, "work", n, NULL);
    bool killed = o.signal == SIGKILL;
    ck_assert_msg(killed || o.status == 0 || o.status == FAILED || o.status == REFUSED, "%s: ended %d/%d: %s",
                  rule, o.status, o.signal, last_line());
    if (o.status == FAILED || o.status == REFUSED)
        ck_assert_msg(strstr(last_line(), sample_path) != NULL, "%s: no file in: %s", rule, last_line());
    uint64_t acked = o.acked;
    goes_on(rule, acked, acked < COMMITS ? acked + 1 : acked);
    sample_remove(sample_path);
}

static uint64_t seed(void)
{
    static uint64_t chosen;
    return chosen = chosen ? chosen : sample_seed(41);
}

/* All points, or some of them: the last, and a few between by chance. */
static uint64_t some_faults(const char *op, uint64_t n, const char *const *actions)
{
    uint64_t tried = 0;
    for (; *actions; actions++) {
        for (uint64_t i = 1; i <= n; i++) {
            bool chosen = every() || i == n;
            for (int b = 0; b < BRIEF && !chosen; b++)
                chosen = i == 1 + slu_mix64(seed() + (uint64_t)b * 77 + (uint64_t)(*actions)[0]) % n;
            if (!chosen)
                continue;
            one_fault(op, i, *actions);
            tried++;
        }
    }
    return tried;
}

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    return b ? common_divisor(b, a % b) : a;
}

/* Points in an order by chance, none twice, while there is time: |share| of a hundred of all of it. */
static uint64_t timed_faults(const char *op, uint64_t n, const char *const *actions, int share, uint64_t *hit)
{
    int64_t end =
        slu_mono_us(&slu_system_clock) + atoll(getenv("SLU_FAULT_SECONDS")) * SLU_SECOND_US * share / 100;
    uint64_t kinds = 0, k = 0;
    while (actions[kinds])
        kinds++;
    uint64_t all = n * kinds, at = slu_mix64(seed()) % all, step = 1 + slu_mix64(seed() + 1) % all;
    while (common_divisor(step, all) != 1)
        step++;
    bool *seen = calloc(n, sizeof *seen);
    ck_assert_ptr_nonnull(seen);
    for (; k < all && slu_mono_us(&slu_system_clock) < end; k++, at = (at + step) % all) {
        *hit += !seen[at / kinds];
        seen[at / kinds] = true;
        one_fault(op, 1 + at / kinds, actions[at % kinds]);
    }
    free(seen);
    return k;
}

static void faults_at(const char *op, int share, const char *const *actions)
{
    uint64_t n = count_calls(op), hit = 0, tried;
    ck_assert_msg(n > 0, "%s is never called", op);
    if (getenv("SLU_FAULT_SECONDS")) {
        tried = timed_faults(op, n, actions, share, &hit);
        printf("%s: %llu of %llu calls, ", op, (unsigned long long)hit, (unsigned long long)n);
    } else {
        tried = some_faults(op, n, actions);
        printf("%s: %llu calls, ", op, (unsigned long long)n);
    }
    printf("%llu faults tried\n", (unsigned long long)tried);
    fflush(stdout);
}

#define ACTIONS(...)                                                                                         \
    (const char *const[])                                                                                    \
    {                                                                                                        \
        __VA_ARGS__, NULL                                                                                    \
    }

START_TEST(fault_at_writes)
{
    setup();
    faults_at("write", 30, ACTIONS("kill", "torn", "powercut", "enospc", "eio", "short"));
    sample_teardown();
}
END_TEST

START_TEST(fault_at_syncs)
{
    setup();
    faults_at("sync", 22, ACTIONS("kill", "kill-after", "powercut", "eio"));
    sample_teardown();
}
END_TEST

START_TEST(fault_at_names)
{
    setup();
    faults_at("rename", 6, ACTIONS("kill", "kill-after", "powercut", "eio", "enospc"));
    faults_at("unlink", 6, ACTIONS("kill", "powercut", "eio"));
    faults_at("open", 10, ACTIONS("kill", "powercut", "eio", "enospc"));
    faults_at("mkdir", 1, ACTIONS("kill", "kill-after", "enospc"));
    sample_teardown();
}
END_TEST

START_TEST(fault_at_sizes_and_lists)
{
    setup();
    faults_at("truncate|allocate", 10, ACTIONS("kill", "eio", "enospc"));
    faults_at("list", 5, ACTIONS("kill", "eio"));
    faults_at("read", 10, ACTIONS("eio", "short"));
    sample_teardown();
}
END_TEST

/* ---- a disk that is full for a while ---- */

START_TEST(full_for_a_while)
{
    setup();
    const char *rules[] = {"write|allocate|open:*/store/*:40-70:enospc", "sync:*/store/*.log:20-24:eio",
                           "write:*.sst:2-5:enospc", "sync:*.sst:1-3:eio", "write:*MANIFEST*:4-6:enospc"};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        char n[20];
        snprintf(n, sizeof n, "%d", COMMITS);
        run(rules[i], "work", n, "patient");
        /* At the start nobody waits: refused then, else it comes through by itself. */
        ck_assert_msg(o.status == 0 || o.status == REFUSED, "%s: %d/%d %s", rules[i], o.status, o.signal,
                      last_line());
        ck_assert_msg(o.status == REFUSED || strstr(o.out, "again "), "%s: nothing happened", rules[i]);
        goes_on(rules[i], o.acked, COMMITS);
        sample_remove(sample_path);
    }
    sample_teardown();
}
END_TEST

START_TEST(small_filesystem_runs_full)
{
    setup();
    if (mkdir(sample_path, 0755) || mount("none", sample_path, "tmpfs", 0, "size=1400k")) {
        printf("skipped: no small filesystem for this user\n");
        sample_teardown();
        return;
    }
    char n[20];
    snprintf(n, sizeof n, "%d", COMMITS);
    for (int kib = 200; kib <= 1400; kib += 150) {
        char options[40], filler[400];
        static const char block[1024];
        snprintf(filler, sizeof filler, "%s/filler", sample_path);
        snprintf(options, sizeof options, "size=%dk", 1400);
        int fd = open(filler, O_CREAT | O_WRONLY | O_TRUNC, 0600);
        for (int i = 0; i < 1400 - kib && write(fd, block, sizeof block) > 0; i++)
            ;
        close(fd);
        run(NULL, "work", n, NULL);
        ck_assert_msg(o.status == 0 || o.status == FAILED || o.status == REFUSED, "%d KiB: %d/%d %s", kib,
                      o.status, o.signal, last_line());
        if (o.status)
            ck_assert_msg(strstr(last_line(), "the disk is full; free some space") != NULL, "%s",
                          last_line());
        ck_assert_int_eq(unlink(filler), 0);
        ck_assert(!mount("none", sample_path, "tmpfs", MS_REMOUNT, "size=16m"));
        goes_on(options, o.acked, COMMITS);
        ck_assert(!umount(sample_path) && !mount("none", sample_path, "tmpfs", 0, "size=1400k"));
    }
    umount(sample_path);
    sample_teardown();
}
END_TEST

/* ---- damaged files ---- */

typedef enum damage { FLIP, CUT, DELETE } damage;

/* A store as a kill leaves it: tables, several logs with commits in them. */
static uint64_t killed_store(void)
{
    char n[20];
    snprintf(n, sizeof n, "%d", COMMITS);
    run("write:*/store/*.log:58:kill", "work", n, NULL);
    ck_assert_int_eq(o.signal, SIGKILL);
    return o.acked;
}

typedef struct file_list {
    char names[60][64];
    size_t n;
} file_list;

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static file_list files_like(const char *pattern)
{
    file_list l = {.n = 0};
    DIR *d = opendir(sample_path);
    ck_assert_ptr_nonnull(d);
    for (struct dirent *e; (e = readdir(d));)
        if (strstr(e->d_name, pattern) && l.n < 60)
            snprintf(l.names[l.n++], sizeof l.names[0], "%.63s", e->d_name);
    closedir(d);
    qsort(l.names, l.n, sizeof l.names[0], by_name);
    return l;
}

static void do_damage(const char *file, damage what, double where)
{
    char path[500];
    struct stat st;
    snprintf(path, sizeof path, "%s/%s", sample_path, file);
    ck_assert(!stat(path, &st));
    off_t at = (off_t)(where * (double)st.st_size);
    if (what == DELETE) {
        ck_assert(!unlink(path));
    } else if (what == CUT) {
        ck_assert(!truncate(path, at));
    } else {
        uint8_t byte;
        int fd = open(path, O_RDWR);
        ck_assert_int_eq(pread(fd, &byte, 1, at), 1);
        byte ^= 0x10;
        ck_assert_int_eq(pwrite(fd, &byte, 1, at), 1);
        close(fd);
    }
}

/* Refused in words with the folder and what to do, or everything that was acknowledged is there. */
static bool refused_or_whole(const char *about, uint64_t acked, uint64_t most)
{
    unsigned long long k;
    char digest[33];
    run(NULL, "look", NULL, NULL);
    if (o.status == REFUSED) {
        ck_assert_msg(strstr(o.out, sample_path) != NULL, "%s: no folder in: %s", about, o.out);
        ck_assert_msg(strstr(o.out, "restore a backup") || strstr(o.out, "sluice-store"),
                      "%s: no remedy in: %s", about, o.out);
        return true;
    }
    ck_assert_msg(sscanf(o.out, "version %llu digest %32s", &k, digest) == 2, "%s: %d/%d %s", about, o.status,
                  o.signal, o.out);
    ck_assert_msg(k >= acked && k <= most, "%s: silently back from commit %llu to %llu", about,
                  (unsigned long long)acked, k);
    ck_assert_msg(!strcmp(digest, digests[k]), "%s: a wrong state as commit %llu", about, k);
    return false;
}

static void damage_kind(const char *pattern, bool all_of_them)
{
    static const struct {
        damage what;
        double where;
        const char *name;
    } CASES[] = {{FLIP, 0.05, "flip"}, {FLIP, 0.5, "flip"}, {FLIP, 0.93, "flip"},  {CUT, 0, "cut"},
                 {CUT, 0.5, "cut"},    {CUT, 0.97, "cut"},  {DELETE, 0, "deleted"}};
    size_t n = 1, refused = 0, tried = 0;
    for (size_t f = 0; f < n; f++) {
        for (size_t i = 0; i < sizeof CASES / sizeof *CASES; i++) {
            char about[500];
            uint64_t acked = killed_store();
            file_list l = files_like(pattern);
            ck_assert_msg(l.n > 0, "no file like %s", pattern);
            /* All, or the first, the middle and the last. */
            n = every() ? l.n : all_of_them && l.n > 3 ? 3 : all_of_them ? l.n : 1;
            size_t which = n == l.n ? f : n == 1 ? l.n - 1 : f * (l.n - 1) / 2;
            const char *file = l.names[which < l.n ? which : l.n - 1];
            struct stat st;
            snprintf(about, sizeof about, "%s/%s", sample_path, file);
            bool empty = stat(about, &st) || !st.st_size;
            snprintf(about, sizeof about, "%s of %s at %.2f", CASES[i].name, file, CASES[i].where);
            if (!empty || CASES[i].what == DELETE) {
                do_damage(file, CASES[i].what, CASES[i].where);
                bool was = refused_or_whole(about, acked, acked + 1);
                refused += was;
                tried++;
                /* What refuses leaves the evidence alone: mended, it is all there. */
                if (was && CASES[i].what == FLIP) {
                    do_damage(file, FLIP, CASES[i].where);
                    ck_assert_msg(!refused_or_whole(about, acked, acked + 1), "%s: gone after mending: %s",
                                  about, o.out);
                }
            }
            sample_remove(sample_path);
        }
    }
    printf("%s: %zu damaged, %zu refused\n", pattern, tried, refused);
    fflush(stdout);
}

START_TEST(damaged_logs)
{
    setup();
    damage_kind(".log", true);
    sample_teardown();
}
END_TEST

START_TEST(damaged_tables)
{
    setup();
    damage_kind(".sst", every());
    sample_teardown();
}
END_TEST

START_TEST(damaged_lists)
{
    setup();
    damage_kind("MANIFEST-", true);
    damage_kind("CURRENT", true);
    damage_kind("OPTIONS-", false);
    damage_kind("IDENTITY", false);
    damage_kind("SLUICE", false);
    sample_teardown();
}
END_TEST

/* ---- copies and mixtures ---- */

static void shell(const char *format, ...)
{
    char command[2000];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof command, format, args);
    va_end(args);
    ck_assert_msg(system(command) != -1, "%s", command);
}

START_TEST(copied_while_it_runs)
{
    setup();
    char n[20];
    size_t refused = 0;
    for (int i = 0; i < 6; i++) {
        snprintf(n, sizeof n, "%d", COMMITS);
        pid_t pid = fork();
        if (!pid) {
            char *argv[] = {self, "--child", "work", sample_path, n, NULL};
            dup2(open("/dev/null", O_WRONLY), 1);
            setenv("LD_PRELOAD", layer, 1);
            setenv("SLU_FAULT", "sync:*.log:*:delay=15", 1);
            execv(self, argv);
            _exit(98);
        }
        char mark[400];
        snprintf(mark, sizeof mark, "%s/SLUICE", sample_path);
        while (access(mark, F_OK))
            usleep(1000);
        usleep((useconds_t)(60000 * i));
        shell("cp -r %s %s/copy 2>/dev/null", sample_path, sample_root);
        waitpid(pid, NULL, 0);
        sample_remove(sample_path);
        shell("mv %s/copy %s", sample_root, sample_path);
        refused +=
            refused_or_whole("a copy", 0, COMMITS) && strstr(o.out, "is a copy of a store that was in use");
        sample_remove(sample_path);
    }
    ck_assert_msg(refused >= 3, "%zu of 6 copies were refused", refused);
    /* Closed, it may be copied. */
    run(NULL, "work", n, NULL);
    shell("cp -r %s %s/copy && rm -r %s && mv %s/copy %s", sample_path, sample_root, sample_path, sample_root,
          sample_path);
    goes_on("a copy of a closed store", COMMITS, COMMITS);
    sample_teardown();
}
END_TEST

START_TEST(mixed_with_another_store)
{
    setup();
    const char *kinds[] = {".log", ".sst", "MANIFEST-", "CURRENT", "SLUICE"};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
        killed_store();
        shell("mv %s %s/other", sample_path, sample_root);
        uint64_t acked = killed_store();
        file_list l = files_like(kinds[i]);
        for (size_t f = 0; i && f < l.n; f++)
            shell("cp %s/other/%s %s/ 2>/dev/null", sample_root, l.names[f], sample_path);
        if (!i) /* numbers differ from run to run: the newest log with something in it for our newest */
            shell("cp $(find %s/other -name '*.log' -size +0 | sort | tail -1) %s/%s", sample_root,
                  sample_path, l.names[l.n - 1]);
        bool was = refused_or_whole(kinds[i], acked, acked + 1);
        if (i == 0 || i == 4)
            ck_assert_msg(was, "%s of another store: %s", kinds[i], o.out);
        shell("rm -r %s %s/other", sample_path, sample_root);
    }
    sample_teardown();
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--child"))
        return child(argc - 2, argv + 2);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return EXIT_FAILURE;
    snprintf(layer, sizeof layer, "%.*s/libslu_fault.so", (int)(strrchr(self, '/') - self), self);
    const TTest *const tests[] = {fault_at_writes,
                                  fault_at_syncs,
                                  fault_at_names,
                                  fault_at_sizes_and_lists,
                                  full_for_a_while,
                                  small_filesystem_runs_full,
                                  damaged_logs,
                                  damaged_tables,
                                  damaged_lists,
                                  copied_while_it_runs,
                                  mixed_with_another_store,
                                  NULL};
    return run_suite("store_faults", tests);
}
