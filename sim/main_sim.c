/* sluice-sim: everything around Sluice that a demo or a load test needs. */
#include "base/text.h"
#include "sim/command.h"
#include <stdio.h>
#include <string.h>

static const struct command {
    const char *name, *help;
    int (*run)(int argc, char **argv);
} commands[] = {
    {"broker", "a development broker (librdkafka's mock cluster)", slu_sim_broker},
    {"topics", "the topics of a config at a broker", slu_sim_topics},
    {"produce", "events of a simulated ad exchange into Kafka", slu_sim_produce},
    {"pump", "recorded events into Kafka", slu_sim_pump},
    {"ask", "score requests to a scorer: latency, freshness, and how well the model knows the truth",
     slu_sim_ask},
};
enum { COMMANDS = sizeof commands / sizeof *commands };

static void print_help(FILE *out)
{
    fprintf(out, "Usage: sluice-sim COMMAND --config FILE [options]\n\n"
                 "A small ad exchange whose true click and conversion probabilities are known, and what it "
                 "needs.\n\n");
    for (int i = 0; i < COMMANDS; i++)
        fprintf(out, "  %-8s %s\n", commands[i].name, commands[i].help);
    fprintf(out, "\nsluice-sim COMMAND --help explains one.\n");
}

int main(int argc, char **argv)
{
    const char *names[COMMANDS + 1] = {NULL};
    const char *word = argc > 1 ? argv[1] : "--help";
    for (int i = 0; i < COMMANDS; i++) {
        if (!strcmp(word, commands[i].name))
            return commands[i].run(argc - 1, argv + 1);
        names[i] = commands[i].name;
    }
    if (!strcmp(word, "--version")) {
        printf("sluice-sim %s\n", SLU_VERSION);
        return 0;
    }
    if (!strcmp(word, "--help") || !strcmp(word, "help") || !strcmp(word, "-h")) {
        print_help(argc > 1 ? stdout : stderr);
        return argc > 1 ? 0 : 2;
    }
    const char *near = slu_text_nearest(word, names);
    fprintf(stderr, "sluice-sim: no command '%s'%s%s%s\n", word, near ? "; did you mean '" : "",
            near ? near : "", near ? "'?" : "");
    print_help(stderr);
    return 2;
}
