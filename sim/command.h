/* sim/command.h - the subcommands of sluice-sim. Each takes its own arguments, argv[0] being "sluice-sim
 * NAME", and returns the exit status. */
#pragma once
#include "base/daemon.h"
#include "base/options.h"
#include "feature/schema.h"

int slu_sim_broker(int argc, char **argv);
int slu_sim_topics(int argc, char **argv);
int slu_sim_produce(int argc, char **argv);
int slu_sim_pump(int argc, char **argv);
int slu_sim_ask(int argc, char **argv);

/* What all of them need: numbers from the command line (exit 2 with a message when they are none), and the
 * config. */
double slu_sim_number(const char *program, const char *option, const char *text, double fallback, double min,
                      double max);
/* Duration text ("90s") in microseconds. */
int64_t slu_sim_duration(const char *program, const char *option, const char *text, int64_t fallback);
/* Loads config and schema, sets the log up; prints the reason and exits 1 when that fails, handles --check
 * and
 * --dump-config (exit 0). */
void slu_sim_load(const slu_cli *cli, slu_options **options, slu_schema **schema);
