/* base/daemon.h - what every program's main() shares: command line, signals, systemd notification.
 *
 * Command line of every program: --config FILE, --set key=value (repeatable), --check, --dump-config,
 * --version, --help, plus options of its own. */
#pragma once
#include "base/error.h"
#include <signal.h>
#include <stdbool.h>

/* Becomes true on SIGTERM or SIGINT once slu_daemon_signals() ran; SIGPIPE is ignored. A second signal exits
 * at once with status 130. */
extern volatile sig_atomic_t slu_stop_requested;
void slu_daemon_signals(void);
/* For programs that can load something again: SIGHUP sets slu_reload_requested (the program clears it) instead
 * of ending the process. */
extern volatile sig_atomic_t slu_reload_requested;
void slu_daemon_reloads(void);

/* Ends the process with |status| in |seconds|, whatever still runs. For the very end of main, when all state
 * is durable: a library that waits for a dead broker must not keep a stopped daemon alive. Says so on stderr
 * when it comes to that. */
void slu_daemon_exit_within(unsigned seconds, int status);

/* sd_notify without libsystemd: sends |state| ("READY=1", "STOPPING=1", "STATUS=...", "WATCHDOG=1") to
 * $NOTIFY_SOCKET, if set. */
void slu_daemon_notify(const char *state);

typedef struct slu_cli_option {
    const char *name;     /* "--json" */
    const char *argument; /* "FILE", or NULL for a flag */
    const char *help;
    const char **value; /* receives the argument; for flags receives "1" */
} slu_cli_option;

typedef struct slu_cli {
    const char *program;           /* "sluice-replay" */
    const char *summary;           /* one or two sentences for --help */
    const char *example;           /* lines for the end of --help */
    const slu_cli_option *options; /* ends with an entry of name NULL; NULL: none */
    bool needs_config;             /* --config is required */
    /* results */
    const char *config_path;
    const char **sets; /* (n_sets) "key=value", in order; freed by slu_cli_free */
    size_t n_sets;
    bool check, dump_config;
} slu_cli;

/* Parses argv. Handles --help and --version itself (prints, exits 0). On a wrong option prints what is wrong
 * and the nearest option to stderr and exits 2. Values of --set that are secrets (base/secret.h) are replaced
 * by stars in |argv| itself, so that `ps` does not show them. */
void slu_cli_parse(slu_cli *cli, int argc, char **argv);
void slu_cli_free(slu_cli *cli);
