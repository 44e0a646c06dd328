/* Every action of libslu_fault.so really happens. Each case runs this program again under the layer, with a
 * script of calls to make, and looks at what the calls said and what is on the disk afterwards. */
#include "tests/store_sample.h"
#include "tests/suite.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <sys/wait.h>

static char self[512], layer[512];

/* ---- what the child does: "w FILE TEXT", "r FILE", "s FILE", ...; prints the result of each ---- */

static int open_for(const char *path, int flags)
{
    return open(path, flags, 0666);
}

static void report(const char *what, long rc)
{
    printf("%s %ld %s\n", what, rc, rc < 0 ? strerrorname_np(errno) : "-");
    fflush(stdout);
}

static void child_write(const char *path, const char *text)
{
    int fd = open_for(path, O_WRONLY | O_CREAT | O_APPEND);
    report("write", fd < 0 ? -1 : write(fd, text, strlen(text)));
    close(fd);
}

static void child_read(const char *path)
{
    char text[100] = "";
    int fd = open_for(path, O_RDONLY);
    long n = fd < 0 ? -1 : pread(fd, text, sizeof text - 1, 0);
    report("read", n);
    printf("text %s\n", text);
    close(fd);
}

static void child_stream(const char *path)
{
    char text[100] = "";
    FILE *f = fopen(path, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    printf("stream %zu %s error=%d\n", n, text, f && ferror(f));
    if (f)
        fclose(f);
}

static void child_sync(const char *path)
{
    struct stat st;
    int fd = open_for(path, !stat(path, &st) && S_ISDIR(st.st_mode) ? O_RDONLY : O_WRONLY);
    report("sync", fd < 0 ? -1 : fsync(fd));
    close(fd);
}

static int child(char **argv)
{
    for (char **a = argv; *a;) {
        const char *op = *a++;
        if (!strcmp(op, "w"))
            child_write(a[0], a[1]), a += 2;
        else if (!strcmp(op, "r"))
            child_read(*a++);
        else if (!strcmp(op, "f"))
            child_stream(*a++);
        else if (!strcmp(op, "s"))
            child_sync(*a++);
        else if (!strcmp(op, "mv"))
            report("rename", rename(a[0], a[1])), a += 2;
        else if (!strcmp(op, "rm"))
            report("unlink", unlink(*a++));
        else if (!strcmp(op, "mk"))
            report("mkdir", mkdir(*a++, 0777));
        else if (!strcmp(op, "ln"))
            report("link", link(a[0], a[1])), a += 2;
        else if (!strcmp(op, "cut"))
            report("truncate", truncate(*a++, 1));
        else
            return 3;
    }
    puts("end");
    return 0;
}

/* ---- the tests ---- */

typedef struct outcome {
    int signal, status;
    char out[2048];
} outcome;

static char files[4][400];

static outcome run(const char *rules, ...)
{
    outcome o = {0};
    char *argv[32] = {self, "--child"}, name[400];
    va_list args;
    va_start(args, rules);
    int n = 2;
    for (char *a; (a = va_arg(args, char *));)
        argv[n++] = a;
    va_end(args);
    snprintf(name, sizeof name, "%s/out", sample_root);
    pid_t pid = fork();
    if (!pid) {
        int fd = open(name, O_WRONLY | O_CREAT | O_TRUNC, 0666);
        dup2(fd, 1);
        setenv("LD_PRELOAD", layer, 1);
        if (rules)
            setenv("SLU_FAULT", rules, 1);
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
    return o;
}

static const char *text_of(const char *path)
{
    static char text[200];
    FILE *f = fopen(path, "r");
    if (!f)
        return "(none)";
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    return text;
}

static void begin(void)
{
    sample_setup();
    for (int i = 0; i < 4; i++)
        snprintf(files[i], sizeof files[i], "%s/%c.log", sample_root, 'a' + i);
}

static void has(outcome o, const char *what)
{
    ck_assert_msg(strstr(o.out, what) != NULL, "no '%s' in:\n%s", what, o.out);
}

START_TEST(errors_come_when_asked_for)
{
    begin();
    char *a = files[0];
    outcome o = run("write:*.log:2:enospc", "w", a, "one", "w", a, "two", "w", a, "three", NULL);
    has(o, "write 3 -\nwrite -1 ENOSPC\nwrite 5 -\nend");
    ck_assert_str_eq(text_of(a), "onethree");
    has(run("read:*.log:*:eio", "r", a, "f", a, NULL), "read -1 EIO\ntext \nstream 0  error=1");
    has(run("open:*.log:1:erofs", "w", a, "x", "w", a, "y", NULL), "write -1 EROFS\nwrite 1 -");
    has(run("sync:*:1+:eio", "s", a, "s", sample_root, NULL), "sync -1 EIO\nsync -1 EIO");
    has(run("rename|unlink|mkdir|link|truncate:*:*:eacces", "mv", a, files[1], "rm", a, "mk", files[2], "ln",
            a, files[2], "cut", a, NULL),
        "rename -1 EACCES\nunlink -1 EACCES\nmkdir -1 EACCES\nlink -1 EACCES\ntruncate -1 EACCES\nend");
    ck_assert_str_eq(text_of(a), "onethreey");
    has(run("write:*.sst:*:eio", "w", a, "z", NULL), "write 1 -"); /* the glob counts */
    sample_teardown();
}
END_TEST

START_TEST(kills_before_and_after)
{
    begin();
    char *a = files[0];
    outcome o = run("write:*.log:2:kill", "w", a, "one", "w", a, "two", NULL);
    ck_assert_int_eq(o.signal, SIGKILL);
    ck_assert_str_eq(text_of(a), "one");
    o = run("write:*.log:1:kill-after", "w", a, "two", NULL);
    ck_assert_int_eq(o.signal, SIGKILL);
    ck_assert_str_eq(o.out, "");
    ck_assert_str_eq(text_of(a), "onetwo");
    o = run("rename:*:1:kill-after", "mv", a, files[1], NULL);
    ck_assert_int_eq(o.signal, SIGKILL);
    ck_assert_str_eq(text_of(files[1]), "onetwo");
    sample_teardown();
}
END_TEST

START_TEST(writes_tear_and_shorten)
{
    begin();
    char *a = files[0];
    outcome o = run("write:*.log:1:torn", "w", a, "0123456789", NULL);
    ck_assert_int_eq(o.signal, SIGKILL);
    size_t n = strlen(text_of(a));
    ck_assert_msg(n > 0 && n < 10, "%zu bytes of 10", n);
    ck_assert_int_eq(strncmp(text_of(a), "0123456789", n), 0);
    o = run("write:*.log:1:short", "w", files[1], "0123456789", NULL);
    has(o, "write -1 ENOSPC\nend");
    n = strlen(text_of(files[1]));
    ck_assert_msg(n > 0 && n < 10, "%zu bytes of 10", n);
    o = run("read:*.log:1:short", "r", files[1], "r", files[1], NULL);
    ck_assert_ptr_null(strstr(o.out, "-1"));
    sample_teardown();
}
END_TEST

static int bits_apart(const char *a, const char *b)
{
    int bits = 0;
    ck_assert_uint_eq(strlen(a), strlen(b));
    for (; *a; a++, b++)
        bits += __builtin_popcount((unsigned char)*a ^ (unsigned char)*b);
    return bits;
}

START_TEST(bits_flip)
{
    begin();
    char *a = files[0];
    run("write:*.log:1:flip", "w", a, "0123456789", NULL);
    ck_assert_int_eq(bits_apart(text_of(a), "0123456789"), 1);
    run(NULL, "w", files[1], "0123456789", NULL);
    ck_assert_str_eq(text_of(files[1]), "0123456789");
    outcome o = run("read:*.log:1+:flip", "r", files[1], NULL);
    char *line = strstr(o.out, "text ") + 5;
    *strchr(line, '\n') = 0;
    ck_assert_int_eq(bits_apart(line, "0123456789"), 1);
    ck_assert_str_eq(text_of(files[1]), "0123456789"); /* on the disk it is right */
    o = run("read:*.log:*:flip", "f", files[1], NULL);
    ck_assert_ptr_null(strstr(o.out, "stream 10 0123456789"));
    has(o, "stream 10 ");
    sample_teardown();
}
END_TEST

START_TEST(power_cut_takes_back_what_was_not_synced)
{
    begin();
    char *a = files[0], *b = files[1], *c = files[2], *d = files[3];
    run(NULL, "w", b, "old", NULL);
    /* a: synced half; b: replaced by an unsynced rename; c: synced, but its name never; d: only the signal */
    outcome o = run("unlink:d.log:1:powercut", "w", a, "kept", "s", a, "s", sample_root, "w", a, "lost", "w",
                    c, "new", "s", c, "mv", c, b, "rm", d, NULL);
    ck_assert_int_eq(o.signal, SIGKILL);
    ck_assert_str_eq(text_of(a), "kept");
    ck_assert_str_eq(text_of(b), "old");
    ck_assert_str_eq(text_of(c), "(none)");
    /* With the directory synced the rename stays. */
    o = run("unlink:d.log:1:powercut", "w", c, "new", "s", c, "mv", c, b, "s", sample_root, "rm", d, NULL);
    ck_assert_int_eq(o.signal, SIGKILL);
    ck_assert_str_eq(text_of(b), "new");
    sample_teardown();
}
END_TEST

START_TEST(delay_log_and_chance)
{
    begin();
    char *a = files[0], log[400];
    snprintf(log, sizeof log, "%s/calls", sample_root);
    setenv("SLU_FAULT_LOG", log, 1);
    struct timespec t0, t1;
    clock_gettime(CLOCK_MONOTONIC, &t0);
    run("write:*.log:2:delay=150;write:*.log:*:log", "w", a, "x", "w", a, "yy", NULL);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    ck_assert_int_ge((t1.tv_sec - t0.tv_sec) * 1000 + (t1.tv_nsec - t0.tv_nsec) / 1000000, 149);
    char want[1600];
    FILE *f = fopen(log, "r");
    char text[2000] = "";
    text[fread(text, 1, sizeof text - 1, f)] = 0;
    fclose(f);
    snprintf(want, sizeof want, "log write 1 1 %s pid=", a);
    ck_assert_msg(strstr(text, want) == text, "%s", text);
    snprintf(want, sizeof want, "delay write 2 2 %s pid=", a);
    ck_assert_ptr_nonnull(strstr(text, want));
    snprintf(want, sizeof want, "log write 2 2 %s pid=", a);
    ck_assert_ptr_nonnull(strstr(text, want));
    unsetenv("SLU_FAULT_LOG");
    outcome o =
        run("unlink:*.log:~2:eio", "rm", a, "rm", a, "rm", a, "rm", a, "rm", a, "rm", a, "rm", a, NULL);
    has(o, "EIO");
    has(o, "ENOENT");
    sample_teardown();
}
END_TEST

START_TEST(rules_of_a_file_change_while_it_runs)
{
    begin();
    char *a = files[0], rules[400], rules2[400];
    snprintf(rules, sizeof rules, "%s/rules", sample_root);
    snprintf(rules2, sizeof rules2, "%s/rules2", sample_root);
    FILE *f = fopen(rules, "w");
    fputs("# full\nwrite:*.log:*:enospc\n", f);
    fclose(f);
    f = fopen(rules2, "w");
    fputs("write:b.log:*:eio\n", f);
    fclose(f);
    setenv("SLU_FAULT_FILE", rules, 1);
    /* The child itself replaces its rules. */
    outcome o = run(NULL, "w", a, "x", "mv", rules2, rules, "w", a, "x", "w", files[1], "x", "rm", rules, "w",
                    files[1], "x", NULL);
    unsetenv("SLU_FAULT_FILE");
    has(o, "write -1 ENOSPC\nrename 0 -\nwrite 1 -\nwrite -1 EIO\nunlink 0 -\nwrite 1 -\nend");
    sample_teardown();
}
END_TEST

START_TEST(wrong_rules_and_other_programs)
{
    begin();
    const char *wrong[] = {"write:*:1",         "wrote:*:1:eio",   "write:*:0:eio",
                           "write:*:1:explode", "write:*:1:delay", "write:*:x:eio"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
        ck_assert_int_eq(run(wrong[i], "w", files[0], "x", NULL).status, 99);
    setenv("SLU_FAULT_PROGRAM", "other", 1);
    has(run("write:*:*:eio", "w", files[0], "x", NULL), "write 1 -");
    setenv("SLU_FAULT_PROGRAM", "test_fault*", 1);
    has(run("write:*.log:*:eio", "w", files[0], "x", NULL), "write -1 EIO");
    unsetenv("SLU_FAULT_PROGRAM");
    sample_teardown();
}
END_TEST

int main(int argc, char **argv)
{
    if (argc > 1 && !strcmp(argv[1], "--child"))
        return child(argv + 2);
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    if (n < 0)
        return EXIT_FAILURE;
    snprintf(layer, sizeof layer, "%.*s/libslu_fault.so", (int)(strrchr(self, '/') - self), self);
    const TTest *const tests[] = {errors_come_when_asked_for,
                                  kills_before_and_after,
                                  writes_tear_and_shorten,
                                  bits_flip,
                                  power_cut_takes_back_what_was_not_synced,
                                  delay_log_and_chance,
                                  rules_of_a_file_change_while_it_runs,
                                  wrong_rules_and_other_programs,
                                  NULL};
    return run_suite("fault_layer", tests);
}
