#include "sim/command.h"
#include "base/clock.h"
#include "base/log.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

double slu_sim_number(const char *program, const char *option, const char *text, double fallback, double min,
                      double max)
{
    if (!text)
        return fallback;
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !(x >= min && x <= max)) {
        fprintf(stderr, "%s: %s takes a number from %g to %g, not '%s'\n", program, option, min, max, text);
        exit(2);
    }
    return x;
}

int64_t slu_sim_duration(const char *program, const char *option, const char *text, int64_t fallback)
{
    int64_t us;
    if (!text)
        return fallback;
    if (slu_parse_duration(text, &us)) {
        fprintf(stderr, "%s: %s takes a duration like 500ms, 90s or 6d, not '%s'\n", program, option, text);
        exit(2);
    }
    return us;
}

void slu_sim_load(const slu_cli *cli, slu_options **options, slu_schema **schema)
{
    slu_error err = SLU_ERROR_INIT;
    if (slu_options_load(cli->config_path, cli->sets, cli->n_sets, options, &err) ||
        slu_schema_new(*options, schema, &err)) {
        fprintf(stderr, "%s: %s\n", cli->program, err.message);
        exit(1);
    }
    if (cli->dump_config) {
        char *text = slu_options_dump(*options);
        fputs(text ? text : "", stdout);
        exit(0);
    }
    if (cli->check) {
        printf("%s: configuration OK\n", cli->config_path);
        exit(0);
    }
    slu_log_setup((slu_log_level)(*options)->log.level, (slu_log_format)(*options)->log.format);
}
