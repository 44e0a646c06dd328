#include "base/daemon.h"
#include "tests/suite.h"
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *json_path, *fast;
static const slu_cli_option own[] = {{"--json", "FILE", "write metrics there", &json_path},
                                     {"--fast", NULL, "skip the slow part", &fast},
                                     {0}};

static slu_cli cli(void)
{
    return (slu_cli){.program = "sluice-test",
                     .summary = "Tests the command line.",
                     .example = "  sluice-test --config examples/ads.yaml --fast",
                     .options = own};
}

START_TEST(test_good_lines)
{
    slu_cli c = cli();
    char *argv[] = {"sluice-test", "--config",        "a.yaml", "--set",   "model.seed=1",
                    "--set=x=y=z", "--json=out.json", "--fast", "--check", "--dump-config",
                    NULL};
    slu_cli_parse(&c, 10, argv);
    ck_assert_str_eq(c.config_path, "a.yaml");
    ck_assert_uint_eq(c.n_sets, 2);
    ck_assert_str_eq(c.sets[0], "model.seed=1");
    ck_assert_str_eq(c.sets[1], "x=y=z");
    ck_assert_str_eq(json_path, "out.json");
    ck_assert_str_eq(fast, "1");
    ck_assert(c.check && c.dump_config);
    slu_cli_free(&c);
    slu_cli empty = cli();
    slu_cli_parse(&empty, 1, argv);
    ck_assert_ptr_null(empty.config_path);
    ck_assert_uint_eq(empty.n_sets, 0);
    slu_cli_free(&empty);
}
END_TEST

START_TEST(test_secrets_leave_the_command_line)
{
    slu_cli c = cli();
    char password[] = "kafka.rdkafka.sasl.password=hunter2",
         all[] = "--set=kafka.rdkafka={sasl.password: hunter2}", open[] = "kafka.rdkafka.sasl.username=joe",
         variable[] = "kafka.rdkafka.sasl.password=${SECRET}";
    char *argv[] = {"sluice-test", "--set", password, all, "--set", open, "--set", variable, NULL};
    slu_cli_parse(&c, 8, argv);
    ck_assert_str_eq(password, "kafka.rdkafka.sasl.password=*******");
    ck_assert_str_eq(all, "--set=kafka.rdkafka=************************");
    ck_assert_str_eq(open, "kafka.rdkafka.sasl.username=joe");
    ck_assert_str_eq(variable, "kafka.rdkafka.sasl.password=${SECRET}");
    ck_assert_uint_eq(c.n_sets, 4);
    ck_assert_str_eq(c.sets[0], "kafka.rdkafka.sasl.password=hunter2");
    ck_assert_str_eq(c.sets[1], "kafka.rdkafka={sasl.password: hunter2}");
    slu_cli_free(&c);
}
END_TEST

/* Parses in a child; its exit status, and all that it printed in |out|. */
static int parse_in_child(bool needs_config, char **argv, char *out, size_t size)
{
    int fds[2], argc = 0, status;
    while (argv[argc])
        argc++;
    ck_assert_int_eq(pipe(fds), 0);
    fflush(NULL);
    pid_t pid = fork();
    if (!pid) {
        slu_cli c = cli();
        c.needs_config = needs_config;
        dup2(fds[1], 1);
        dup2(fds[1], 2);
        slu_cli_parse(&c, argc, argv);
        slu_cli_free(&c);
        _exit(77); /* came back */
    }
    close(fds[1]);
    size_t n = 0;
    for (ssize_t got; (got = read(fds[0], out + n, size - 1 - n)) > 0; n += (size_t)got)
        ;
    out[n] = 0;
    close(fds[0]);
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert_msg(WIFEXITED(status), "%s", out);
    return WEXITSTATUS(status);
}

START_TEST(test_wrong_lines)
{
    static const struct {
        const char *args[4];
        bool needs_config;
        const char *says;
    } cases[] = {
        {{"--confg", "x"}, false, "unknown option '--confg'; did you mean '--config'?"},
        {{"--jsn=x"}, false, "did you mean '--json'?"},
        {{"--zzzzzzzz"}, false, "unknown option '--zzzzzzzz'\n"},
        {{"--config"}, false, "this option needs a value: '--config'"},
        {{"--fast=1"}, false, "this option takes no value: '--fast'"},
        {{"stray"}, false, "unexpected argument 'stray'"},
        {{"--set", "model.seed"}, false, "--set wants key=value, not 'model.seed'"},
        {{"--set", "=1"}, false, "--set wants key=value"},
        {{"--fast"}, true, "--config FILE is missing"},
    };
    char out[4096];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *argv[5] = {"sluice-test"};
        for (int j = 0; j < 4 && cases[i].args[j]; j++)
            argv[j + 1] = (char *)cases[i].args[j];
        ck_assert_int_eq(parse_in_child(cases[i].needs_config, argv, out, sizeof out), 2);
        ck_assert_msg(strstr(out, cases[i].says), "case %zu: %s", i, out);
        ck_assert_ptr_nonnull(strstr(out, "Try 'sluice-test --help'"));
    }
}
END_TEST

START_TEST(test_help_teaches)
{
    char out[8192], *argv[] = {"sluice-test", "--help", NULL},
                    *version[] = {"sluice-test", "--version", NULL};
    ck_assert_int_eq(parse_in_child(true, argv, out, sizeof out), 0);
    static const char *const parts[] = {"Usage: sluice-test --config FILE",
                                        "Tests the command line.",
                                        "--json FILE",
                                        "skip the slow part",
                                        "--set KEY=VALUE",
                                        "--check",
                                        "--dump-config",
                                        "docs/config.md",
                                        "Example:\n  sluice-test --config examples/ads.yaml --fast\n"};
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        ck_assert_msg(strstr(out, parts[i]), "%s is not in:\n%s", parts[i], out);
    ck_assert_int_eq(parse_in_child(true, version, out, sizeof out), 0);
    ck_assert_str_eq(out, "sluice-test " SLU_VERSION "\n");
}
END_TEST

START_TEST(test_signals)
{
    slu_daemon_signals();
    ck_assert_int_eq(slu_stop_requested, 0);
    raise(SIGPIPE);
    ck_assert_int_eq(slu_stop_requested, 0);
    raise(SIGTERM);
    ck_assert_int_eq(slu_stop_requested, 1);
    pid_t pid = fork();
    if (!pid) {
        raise(SIGINT); /* the second one */
        _exit(0);
    }
    int status;
    ck_assert_int_eq(waitpid(pid, &status, 0), pid);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 130);
}
END_TEST

static void check_notify(const char *name)
{
    struct sockaddr_un at = {.sun_family = AF_UNIX};
    char got[64];
    int fd = socket(AF_UNIX, SOCK_DGRAM, 0);
    size_t n = strlen(name);
    memcpy(at.sun_path, name, n);
    if (*name == '@')
        at.sun_path[0] = 0;
    ck_assert_int_eq(
        bind(fd, (struct sockaddr *)&at, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n)), 0);
    setenv("NOTIFY_SOCKET", name, 1);
    slu_daemon_notify("READY=1");
    ssize_t len = recv(fd, got, sizeof got, MSG_DONTWAIT);
    ck_assert_int_eq(len, 7);
    ck_assert_mem_eq(got, "READY=1", 7);
    close(fd);
}

START_TEST(test_notify)
{
    char name[64];
    snprintf(name, sizeof name, "@sluice-test-%d", (int)getpid());
    check_notify(name);
    snprintf(name, sizeof name, "/tmp/sluice-test-%d", (int)getpid());
    check_notify(name);
    unlink(name);
    slu_daemon_notify("READY=1"); /* nobody there any more */
    setenv("NOTIFY_SOCKET", "relative", 1);
    slu_daemon_notify("READY=1");
    unsetenv("NOTIFY_SOCKET");
    slu_daemon_notify("READY=1");
}
END_TEST

START_TEST(test_exit_within)
{
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (!child) {
        slu_daemon_exit_within(1, 7);
        for (;;)
            pause(); /* what hangs */
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 7);
}
END_TEST

int main(void)
{
    return run_suite("daemon",
                     (const TTest *[]){test_good_lines, test_secrets_leave_the_command_line, test_wrong_lines,
                                       test_help_teaches, test_signals, test_notify, test_exit_within, NULL});
}
