#include "base/daemon.h"
#include "base/secret.h"
#include "base/text.h"
#include <assert.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

volatile sig_atomic_t slu_stop_requested;

static void on_stop(int sig)
{
    (void)sig;
    if (slu_stop_requested)
        _exit(130);
    slu_stop_requested = 1;
}

void slu_daemon_signals(void)
{
    struct sigaction stop = {.sa_handler = on_stop}, ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&stop.sa_mask);
    sigemptyset(&ignore.sa_mask);
    /* No SA_RESTART: a sleep or poll in the main loop should end and look at the flag. */
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
}

volatile sig_atomic_t slu_reload_requested;

static void on_reload(int sig)
{
    (void)sig;
    slu_reload_requested = 1;
}

void slu_daemon_reloads(void)
{
    struct sigaction reload = {.sa_handler = on_reload};
    sigemptyset(&reload.sa_mask);
    sigaction(SIGHUP, &reload, NULL);
}

static volatile sig_atomic_t exit_status;

static void on_alarm(int sig)
{
    (void)sig;
    static const char text[] = "closing took too long; all state is durable, so the process ends here\n";
    ssize_t ignored = write(STDERR_FILENO, text, sizeof text - 1);
    (void)ignored;
    _exit(exit_status);
}

void slu_daemon_exit_within(unsigned seconds, int status)
{
    struct sigaction end = {.sa_handler = on_alarm};
    sigemptyset(&end.sa_mask);
    exit_status = status;
    sigaction(SIGALRM, &end, NULL);
    alarm(seconds);
}

void slu_daemon_notify(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    if (!path || (path[0] != '/' && path[0] != '@') || strlen(path) >= sizeof to.sun_path)
        return;
    size_t n = strlen(path);
    memcpy(to.sun_path, path, n);
    if (path[0] == '@')
        to.sun_path[0] = 0; /* abstract socket: its name starts with a NUL and has no end mark */
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return;
    socklen_t len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + (path[0] == '/'));
    /* Nobody listening is not our problem: the service manager will notice by itself. */
    ssize_t ignored = sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&to, len);
    (void)ignored;
    close(fd);
}

/* ---- command line ---- */

typedef enum common { CONFIG, SET, CHECK, DUMP, VERSION, HELP, COMMON } common;

static const slu_cli_option common_options[COMMON + 1] = {
    [CONFIG] = {"--config", "FILE", "the YAML configuration; docs/config.md explains every key", NULL},
    [SET] = {"--set", "KEY=VALUE", "override one key, e.g. model.architecture=mmoe; may be repeated", NULL},
    [CHECK] = {"--check", NULL, "check the configuration, say whether it is good, and stop", NULL},
    [DUMP] = {"--dump-config", NULL, "print the effective configuration (secrets masked) and stop", NULL},
    [VERSION] = {"--version", NULL, "print the version and stop", NULL},
    [HELP] = {"--help", NULL, "print this text and stop", NULL},
};

static void print_option(const slu_cli_option *o)
{
    char left[48];
    snprintf(left, sizeof left, "%s%s%s", o->name, o->argument ? " " : "", o->argument ? o->argument : "");
    printf("  %-24s %s\n", left, o->help ? o->help : "");
}

static void print_help(const slu_cli *cli)
{
    printf("Usage: %s%s [options]\n\n", cli->program, cli->needs_config ? " --config FILE" : "");
    if (cli->summary)
        printf("%s\n\n", cli->summary);
    if (cli->options && cli->options->name) {
        printf("Options of %s:\n", cli->program);
        for (const slu_cli_option *o = cli->options; o->name; o++)
            print_option(o);
        printf("\n");
    }
    printf("Common options:\n");
    for (int i = 0; i < COMMON; i++)
        print_option(&common_options[i]);
    if (cli->example)
        printf("\nExample:\n%s%s", cli->example, cli->example[strlen(cli->example) - 1] == '\n' ? "" : "\n");
}

__attribute__((noreturn)) static void wrong(const slu_cli *cli, const char *what, const char *arg,
                                            const char *near)
{
    fprintf(stderr, "%s: %s '%s'", cli->program, what, arg);
    if (near)
        fprintf(stderr, "; did you mean '%s'?", near);
    fprintf(stderr, "\nTry '%s --help'.\n", cli->program);
    exit(2);
}

static const char *nearest_option(const slu_cli *cli, const char *arg)
{
    const char *names[64];
    size_t n = 0;
    for (const slu_cli_option *o = cli->options; o && o->name && n < 63 - COMMON; o++)
        names[n++] = o->name;
    for (int i = 0; i < COMMON; i++)
        names[n++] = common_options[i].name;
    names[n] = NULL;
    return slu_text_nearest(arg, names);
}

/* The option called by |arg|, which may continue with "=VALUE". */
static const slu_cli_option *find_option(const slu_cli *cli, const char *arg, size_t n)
{
    for (int i = 0; i < COMMON; i++)
        if (strlen(common_options[i].name) == n && !strncmp(common_options[i].name, arg, n))
            return &common_options[i];
    for (const slu_cli_option *o = cli->options; o && o->name; o++)
        if (strlen(o->name) == n && !strncmp(o->name, arg, n))
            return o;
    return NULL;
}

static bool sets_secret(const char *assignment, const char *equals)
{
    static const char prefix[] = "kafka.rdkafka";
    char key[160];
    if (strncmp(assignment, prefix, sizeof prefix - 1) || !strncmp(equals, "=${", 3))
        return false;
    snprintf(key, sizeof key, "%.*s", (int)(equals - assignment), assignment);
    return !strcmp(key, prefix) /* all properties at once */ || slu_secret_key(key);
}

/* Keeps a copy. A secret disappears from argv, which every user of the machine can read as long as the
 * process lives. */
static void take_set(slu_cli *cli, char *assignment)
{
    char *equals = strchr(assignment, '='), *copy = strdup(assignment);
    if (!copy) {
        fprintf(stderr, "%s: out of memory\n", cli->program);
        exit(1);
    }
    cli->sets[cli->n_sets++] = copy;
    if (sets_secret(assignment, equals))
        memset(equals + 1, '*', strlen(equals + 1));
}

static void take(slu_cli *cli, const slu_cli_option *o, char *value)
{
    if (o == &common_options[CONFIG]) {
        cli->config_path = value;
    } else if (o == &common_options[SET]) {
        if (!strchr(value, '=') || value[0] == '=')
            wrong(cli, "--set wants key=value, not", value, NULL);
        take_set(cli, value);
    } else if (o == &common_options[CHECK]) {
        cli->check = true;
    } else if (o == &common_options[DUMP]) {
        cli->dump_config = true;
    } else if (o == &common_options[VERSION]) {
        printf("%s %s\n", cli->program, SLU_VERSION);
        exit(0);
    } else if (o == &common_options[HELP]) {
        print_help(cli);
        exit(0);
    } else {
        assert(o->value);
        *o->value = value;
    }
}

void slu_cli_parse(slu_cli *cli, int argc, char **argv)
{
    cli->sets = calloc((size_t)argc + 1, sizeof *cli->sets); /* never more than arguments */
    if (!cli->sets) {
        fprintf(stderr, "%s: out of memory\n", cli->program);
        exit(1);
    }
    for (int i = 1; i < argc; i++) {
        static char help[] = "--help";
        char *arg = strcmp(argv[i], "-h") ? argv[i] : help, name[80];
        size_t n = strcspn(arg, "=");
        snprintf(name, sizeof name, "%.*s", (int)(n < 79 ? n : 79), arg); /* what follows may be a secret */
        if (arg[0] != '-')
            wrong(cli, "unexpected argument", name, NULL);
        const slu_cli_option *o = find_option(cli, arg, n);
        if (!o)
            wrong(cli, "unknown option", name, nearest_option(cli, name));
        char *value = arg[n] ? arg + n + 1 : NULL;
        if (!o->argument && value)
            wrong(cli, "this option takes no value:", name, NULL);
        if (o->argument && !value) {
            if (++i == argc)
                wrong(cli, "this option needs a value:", arg, NULL);
            value = argv[i];
        }
        static char set[] = "1";
        take(cli, o, o->argument ? value : set);
    }
    if (cli->needs_config && !cli->config_path) {
        fprintf(stderr, "%s: --config FILE is missing\nTry '%s --help'.\n", cli->program, cli->program);
        exit(2);
    }
}

void slu_cli_free(slu_cli *cli)
{
    for (size_t i = 0; i < cli->n_sets; i++)
        free((char *)cli->sets[i]);
    free(cli->sets);
    cli->sets = NULL;
    cli->n_sets = 0;
}
